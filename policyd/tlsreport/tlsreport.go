// Package tlsreport is the reporting MTA of RFC 8460. It counts what became of
// TLS towards each domain on each UTC day, and sends the domains that want it
// one report a day.
//
// The order of a day:
//
//  1. Each connection that a delivery made, or a host that failed its policy
//     before it was dialled, is a session, counted once: under its policy (the
//     TLSA records, the MTA-STS policy, or none) as a success or a failure.
//     Equal failures are one entry with a count ([Counts]).
//  2. The counts go to a file of the day as they come, so that a restart or a
//     crash continues where it was ([Journal]).
//  3. When the day is over each domain has its turn, at a time within four
//     hours that depends on its name, so that a receiver with many domains is
//     not flooded. Its record at _smtp._tls says where reports go ([Targets]):
//     at most two places.
//  4. The report ([Report]) goes to each place: to mailto: as a message that is
//     handed to the host's own mail server, which queues and signs it; to
//     https: by POST. What fails is tried again for a day.
//  5. What was sent is written down before the next report, so that a restart
//     sends nothing twice.
//
// What is refused: places on loopback or in private networks, which a
// stranger's record could point at to reach what stands behind us; redirects;
// more than two places, and more than 1,000 reports a day. Only counts leave:
// no sender, no recipient.
package tlsreport

import (
	"cmp"
	"crypto/sha256"
	"slices"
	"strings"
)

// PolicyType is a policy-type of RFC 8460 §4.4.
type PolicyType string

// The policy types.
const (
	TypeTLSA PolicyType = "tlsa"
	TypeSTS  PolicyType = "sts"
	TypeNone PolicyType = "no-policy-found"
)

// Result is a result-type of RFC 8460 §4.3.
type Result string

// The result types.
const (
	StartTLSNotSupported    Result = "starttls-not-supported"
	CertificateHostMismatch Result = "certificate-host-mismatch"
	CertificateExpired      Result = "certificate-expired"
	CertificateNotTrusted   Result = "certificate-not-trusted"
	ValidationFailure       Result = "validation-failure"
	TLSAInvalid             Result = "tlsa-invalid"
	DNSSECInvalid           Result = "dnssec-invalid"
	DANERequired            Result = "dane-required"
	STSPolicyFetchError     Result = "sts-policy-fetch-error"
	STSPolicyInvalid        Result = "sts-policy-invalid"
	STSWebPKIInvalid        Result = "sts-webpki-invalid"
)

// results are the legal values.
var results = []Result{
	StartTLSNotSupported, CertificateHostMismatch, CertificateExpired, CertificateNotTrusted, ValidationFailure,
	TLSAInvalid, DNSSECInvalid, DANERequired, STSPolicyFetchError, STSPolicyInvalid, STSWebPKIInvalid,
}

// Policy is what a session was judged by (RFC 8460 §4.4).
type Policy struct {
	Type PolicyType `json:"policy-type"`
	// Text are the TLSA records as in a zone file, or the lines of the
	// MTA-STS policy.
	Text   []string `json:"policy-string,omitempty"`
	Domain string   `json:"policy-domain"`
	// MXHosts are the patterns of an MTA-STS policy.
	MXHosts []string `json:"mx-host,omitempty"`
}

// key tells policies apart.
func (p *Policy) key() [sha256.Size]byte { return sha256.Sum256([]byte(p.text())) }

// text is all of a policy, in an order of its own.
func (p *Policy) text() string {
	return strings.Join([]string{string(p.Type), p.Domain, strings.Join(p.Text, "\n"), strings.Join(p.MXHosts, "\n")}, "\x00")
}

// size is how many bytes a policy takes, about.
func (p *Policy) size() int {
	n := len(p.Type) + len(p.Domain)
	for _, lines := range [...][]string{p.Text, p.MXHosts} {
		for _, line := range lines {
			n += len(line) + 16
		}
	}
	return n
}

// size is how many bytes a failure takes.
func (f *Failure) size() int {
	return len(f.Result) + len(f.Sending) + len(f.Host) + len(f.HELO) + len(f.Receiver) + len(f.Reason)
}

// compare orders policies in a report: TLSA, MTA-STS, none.
func (p *Policy) compare(q *Policy) int {
	order := []PolicyType{TypeTLSA, TypeSTS, TypeNone}
	return cmp.Or(cmp.Compare(slices.Index(order, p.Type), slices.Index(order, q.Type)), cmp.Compare(p.text(), q.text()))
}

// Failure is how a session failed its policy. Failures that are equal in all
// of it are one entry of the report (RFC 8460 §4.3).
type Failure struct {
	Result   Result `json:"result-type"`
	Sending  string `json:"sending-mta-ip,omitempty"`
	Host     string `json:"receiving-mx-hostname,omitempty"`
	HELO     string `json:"receiving-mx-helo,omitempty"`
	Receiver string `json:"receiving-ip,omitempty"`
	Reason   string `json:"failure-reason-code,omitempty"`
}
