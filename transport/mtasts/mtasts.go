// Package mtasts is the grammar and the meaning of MTA-STS (RFC 8461): the
// TXT record that announces a policy, the policy itself, and whether an MX
// host matches it. Values go in and values come out; nothing here waits,
// remembers or looks anything up.
//
// A sender works in this order. It asks for the TXT records at [RecordName]
// and gives them all to [ParseRecord], which finds the one that counts. When
// the record's id is not the one it remembers, it fetches the policy from
// [PolicyURL] and gives the text to [ParsePolicy]. For each MX host it then
// asks [Policy.Match]. Package fetch does the fetching, package
// policycache remembers.
//
// The RFC's ABNF is kept exactly, since a record or policy that breaks it must
// count as none (§3.1, §3.2), and one that keeps it must be accepted, however
// odd. In three places the reading is wider, because the intention of the
// publisher is beyond doubt and the narrow reading would leave the domain
// unprotected: blank lines at the end of a policy, U-labels in an mx pattern,
// and a dot at a pattern's end.
package mtasts

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/status"
)

// The reasons why there is no record or no policy.
var (
	// ErrNoRecord means that the domain has no MTA-STS record. The caller
	// goes on as if the domain had no policy, unless it holds a cached one.
	ErrNoRecord = errors.New("no MTA-STS record")
	// ErrSeveralRecords means that more than one record begins with
	// "v=STSv1;", which counts as none (RFC 8461 §3.1). It is an ErrNoRecord.
	ErrSeveralRecords = fmt.Errorf("%w that counts: there are several", ErrNoRecord)
	// ErrMalformed means that a record or a policy breaks the grammar. The
	// caller treats it as missing (RFC 8461 §3.1, §3.3) and tells the
	// administrator.
	ErrMalformed = errors.New("malformed")
	// ErrTooLarge means that a policy exceeds MaxPolicySize or maxPatterns.
	// The caller treats it as missing (RFC 8461 §3.3).
	ErrTooLarge = errors.New("the MTA-STS policy is too large")
	// ErrDomain means that a name cannot have an MTA-STS policy: an address
	// literal (RFC 8461 §3.4), no domain name at all, or one so long that
	// "_mta-sts." does not fit before it.
	ErrDomain = errors.New("not a domain that can have an MTA-STS policy")
)

// recordLabel and hostLabel stand before the policy domain.
const (
	recordLabel = "_mta-sts."
	hostLabel   = "mta-sts."
)

// maxDomainLength is the length in bytes of the longest policy domain: with
// "_mta-sts." before it, it is as long as a domain name can be.
const maxDomainLength = 253 - len(recordLabel)

// Domain gives a policy domain in the one form that every package here uses:
// lower-case A-labels without a trailing dot. The error is ErrDomain.
func Domain(name string) (string, error) {
	if strings.HasPrefix(name, "[") {
		return "", ErrDomain
	}
	d, err := address.ASCIIDomain(name)
	if err != nil || len(d) > maxDomainLength {
		return "", ErrDomain
	}
	return d, nil
}

// RecordName is where the TXT record of a policy domain lives (RFC 8461 §3.1).
func RecordName(domain string) string { return recordLabel + domain }

// PolicyHost is the web host of a policy domain, and the name that its
// certificate must carry (RFC 8461 §3.2, §3.3).
func PolicyHost(domain string) string { return hostLabel + domain }

// PolicyURL is where the policy is fetched from (RFC 8461 §3.2). A port other
// than 443 is for labs.
func PolicyURL(domain string, port uint16) string {
	host := PolicyHost(domain)
	if port != 443 {
		host += ":" + strconv.Itoa(int(port))
	}
	return "https://" + host + "/.well-known/mta-sts.txt"
}

// Failure is a kind of trouble on the way to a policy, named after the result
// types of TLS reports where there is one (RFC 8460 §4.3.2.2).
type Failure uint8

// The kinds of failure. The zero Failure means that nothing failed.
const (
	FailureNone Failure = iota
	FailureDNS          // the TXT look-up failed; nothing is proven
	// a TXT record is there and breaks the grammar, or there are several
	FailureRecord
	FailureFetch   // the web host was not reached, or gave no policy
	FailureInvalid // what it gave is no policy
	FailureWebPKI  // its certificate is not valid for the policy host
	// our own store of policies could not be read: nothing is proven, and the
	// domain is not at fault
	FailureStore
)

// Failures is the number of kinds, FailureNone included.
const Failures = int(FailureStore) + 1

// String gives the TLS report's result type, or a word of the same kind where
// RFC 8460 has none.
func (f Failure) String() string {
	switch f {
	case FailureDNS:
		return "sts-record-lookup-error"
	case FailureRecord:
		return "sts-record-invalid"
	case FailureFetch:
		return "sts-policy-fetch-error"
	case FailureInvalid:
		return "sts-policy-invalid"
	case FailureWebPKI:
		return "sts-webpki-invalid"
	case FailureStore:
		return "sts-store-error"
	}
	return "none"
}

// Error is a failure on the way to a domain's policy. Deliveries go on with
// the cached policy, or without one when there is none (RFC 8461 §3.3); the
// error is for the log, for explain and for reports. Its text is one printable
// line, whatever strangers sent.
type Error struct {
	Failure Failure
	Err     error
}

// Error gives the cause in at most 300 bytes without control characters.
func (e *Error) Error() string { return printable(status.Words(e.Err)) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

const maxErrorText = 300

func printable(s string) string {
	if len(s) > maxErrorText {
		s = s[:maxErrorText-3] + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r > 0x7e {
			return '?'
		}
		return r
	}, s)
}

func malformed(what string, args ...any) error {
	return fmt.Errorf("%w %s", ErrMalformed, fmt.Sprintf(what, args...))
}

func isAlnum(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// isFieldName follows sts-ext-name and sts-policy-ext-name, which are the same.
func isFieldName(s string) bool {
	if s == "" || len(s) > 32 || !isAlnum(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !isAlnum(c) && c != '_' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}
