package dane

import (
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// The kinds of failure, for errors.Is. After each of them the server is not
// authenticated; only ErrUnusable is no fault of the server's certificate.
var (
	// ErrUnusable: the set has no usable record, so that there is nothing to
	// verify by. The caller should have asked [Set.Usable] and used TLS
	// without authentication, or no DANE for an empty set (RFC 7672 §2.2).
	ErrUnusable = errors.New("no usable TLSA record")
	// ErrNoCertificate: the server presented no certificate. Skip the host.
	ErrNoCertificate = errors.New("the server presents no certificate")
	// ErrNoMatch: neither the server's certificate nor an anchor for it
	// matches. Skip the host; its records or its certificate are out of date.
	ErrNoMatch = errors.New("no TLSA record matches")
	// ErrPath: a trust anchor matches, but no valid path leads to it: wrong
	// or weak signature, outside its dates, not a CA, constraint. Skip the
	// host.
	ErrPath = errors.New("no valid path to the TLSA trust anchor")
	// ErrName: the path is valid, but the certificate is for other names.
	// Skip the host.
	ErrName = errors.New("certificate for other names")
)

// Error is why [Set.Verify] fails. Its text is one line of printable
// ASCII, short enough for a log, a status line and a bounce, and says what the
// records ask for and what the server shows instead.
type Error struct {
	// Kind is one of the sentinels above.
	Kind error
	// Records are the records in question: all usable ones, or those of the
	// trust anchors that were found.
	Records []Record
	// Leaf is the server's own certificate, and Issuers are those above it,
	// in the forms that Records ask for; for ErrNoMatch.
	Leaf, Issuers []Record
	// Wanted are the reference identifiers and Names those in the
	// certificate; for ErrName.
	Wanted, Names []string
	// Cause is what crypto/x509 said; for ErrPath.
	Cause error
}

// Bounds on an error's text.
const (
	maxListed = 3   // records or names in one list
	maxWord   = 64  // bytes of one name
	maxCause  = 160 // bytes of the cause
)

// Error gives the line for people, at most 800 bytes.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString(e.Kind.Error())
	if len(e.Records) > 0 {
		b.WriteString(": " + listRecords(e.Records))
	}
	switch {
	case e.Kind == ErrNoMatch:
		b.WriteString("; the server has " + listRecords(e.Leaf))
		if len(e.Issuers) > 0 {
			b.WriteString(" and above it " + listRecords(e.Issuers))
		} else if slices.ContainsFunc(e.Records, func(r Record) bool { return r.Usage == DANETA }) {
			b.WriteString(" and presents no issuer")
		}
	case e.Kind == ErrName:
		b.WriteString("; expected " + listNames(e.Wanted) + ", the certificate is for " + listNames(e.Names))
	case e.Cause != nil:
		b.WriteString("; " + printable(e.Cause.Error(), maxCause))
	}
	return b.String()
}

// Unwrap returns the kind and the cause.
func (e *Error) Unwrap() []error {
	if e.Cause == nil {
		return []error{e.Kind}
	}
	return []error{e.Kind, e.Cause}
}

// mismatch tells what was asked for and what is there instead.
func (s Set) mismatch(shown []*shownCert) *Error {
	e := &Error{Kind: ErrNoMatch, Records: s.Records()}
	for i, have := range s.usable {
		if i > 0 && sameForm(have.Record, s.usable[i-1].Record) {
			continue // neighbours in the set's order
		}
		own, above := shown[:1], shown[1:]
		if have.Usage == DANETA {
			own = own[:0]
		} else {
			above = above[:0]
		}
		e.Leaf = appendForms(e.Leaf, own, have.Record)
		e.Issuers = appendForms(e.Issuers, above, have.Record)
	}
	if len(e.Leaf) == 0 {
		// Only DANE-TA records: the recommended form tells people most.
		e.Leaf = appendForms(nil, shown[:1], Record{Usage: DANEEE, Selector: SPKI, Matching: SHA256})
	}
	return e
}

func sameForm(a, b Record) bool {
	return a.Usage == b.Usage && a.Selector == b.Selector && a.Matching == b.Matching
}

func appendForms(to []Record, shown []*shownCert, like Record) []Record {
	for _, c := range shown {
		like.Data = c.form(like.Selector, like.Matching)
		to = append(to, like)
	}
	return to
}

// matched returns the records of the anchors, each once.
func matched(found anchors) []Record {
	var records []Record
	for _, a := range found {
		records = append(records, a.record)
	}
	return slices.CompactFunc(records, func(a, b Record) bool { return compare(a, b) == 0 })
}

// presentedNames returns the identifiers that counted for a certificate.
func presentedNames(c *x509.Certificate) []string {
	if len(c.DNSNames) > 0 {
		return c.DNSNames
	}
	return commonNames(c)
}

func listRecords(records []Record) string {
	return list(records, Record.String)
}

func listNames(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return list(names, func(name string) string { return printable(name, maxWord) })
}

func list[T any](items []T, text func(T) string) string {
	var b strings.Builder
	for i, item := range items {
		if i == maxListed {
			b.WriteString(" and " + strconv.Itoa(len(items)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(text(item))
	}
	return b.String()
}

// printable makes text from a certificate fit for one line: no control
// characters, ASCII, at most limit bytes.
func printable(text string, limit int) string {
	cut := len(text) > limit
	if cut {
		text = text[:limit]
	}
	quoted := strconv.QuoteToASCII(text)
	quoted = strings.ReplaceAll(quoted[1:len(quoted)-1], `\"`, `"`)
	if cut || len(quoted) > limit {
		return quoted[:limit-3] + "..."
	}
	return quoted
}
