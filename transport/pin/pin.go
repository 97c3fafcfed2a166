// Package pin knows servers by keys that the administrator wrote down: the
// SHA-256 digests of public keys (of the SubjectPublicKeyInfo, RFC 5280 §4.1,
// as HTTP and DANE pin them), in the form "sha256:BASE64". Values in, values
// out.
//
// A server matches a [Set] by its own key; then dates and names do not count,
// as under DANE-EE. It matches as well by the key of a CA from which a valid
// path leads to its certificate, which must be for the host's name then, as
// under DANE-TA. The CA's certificate is one that the server presents, or one
// by which the system's roots vouch for it.
package pin

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// Pin is the SHA-256 digest of a public key. The zero Pin is none.
type Pin [sha256.Size]byte

// ErrSyntax says that a text is no pin.
var ErrSyntax = errors.New(`not "sha256:" and the digest of a public key in base64`)

const prefix = "sha256:"

// Parse reads a pin. The error is ErrSyntax.
func Parse(s string) (p Pin, err error) {
	digits, ok := strings.CutPrefix(s, prefix)
	if !ok {
		return p, ErrSyntax
	}
	digest, err := base64.StdEncoding.Strict().DecodeString(digits)
	if err != nil || len(digest) != len(p) || strings.ContainsAny(digits, "\r\n") {
		return Pin{}, ErrSyntax
	}
	copy(p[:], digest)
	if p == (Pin{}) {
		return p, ErrSyntax
	}
	return p, nil
}

// Of gives the pin of a certificate's key.
func Of(cert *x509.Certificate) Pin { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }

// String gives the pin as Parse reads it.
func (p Pin) String() string { return prefix + base64.StdEncoding.EncodeToString(p[:]) }

// Hex gives the digest as Postfix writes fingerprints: "5F:2A:...".
func (p Pin) Hex() string {
	digits := strings.ToUpper(hex.EncodeToString(p[:]))
	var b strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			b.WriteByte(':')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

// Set are the pins of a destination, one of which its server must match. It
// never changes, and is safe to share. The zero Set asks nothing.
type Set struct{ *pins } // nil: none

type pins struct {
	all  []Pin // sorted, each once
	tlsa dane.Set
}

// ErrNoMatch says that no key of the server is pinned. The caller does not
// give it the message.
var ErrNoMatch = errors.New("no pinned key")

// NewSet makes pins ready for matching.
func NewSet(all ...Pin) Set {
	if len(all) == 0 {
		return Set{}
	}
	all = slices.Clone(all)
	slices.SortFunc(all, func(a, b Pin) int { return bytes.Compare(a[:], b[:]) })
	all = slices.Compact(all)
	records := make([]dane.Record, len(all))
	for i := range all {
		records[i] = dane.Record{Usage: dane.DANETA, Selector: dane.SPKI, Matching: dane.SHA256, Data: all[i][:]}
	}
	return Set{&pins{all, dane.NewSet(records)}}
}

// Empty reports whether there are no pins: they ask nothing.
func (s Set) Empty() bool { return s.pins == nil }

// Pins gives the pins, sorted.
func (s Set) Pins() []Pin {
	if s.Empty() {
		return nil
	}
	return slices.Clone(s.all)
}

// Has reports whether a pin is one of the set. The zero Pin never is.
func (s Set) Has(p Pin) bool { return !s.Empty() && p != Pin{} && slices.Contains(s.all, p) }

// Match tells by which pin a server is known. presented are the certificates
// that it showed, its own first; verified the paths by which the system's roots
// vouch for that one and its name, none where they do not; names those of which
// its certificate must bear one where a CA is pinned. The error wraps
// ErrNoMatch, or is dane's about the path to a pinned CA.
func (s Set) Match(presented []*x509.Certificate, verified [][]*x509.Certificate, names []string, now time.Time) (Pin, error) {
	if len(presented) == 0 {
		return Pin{}, dane.ErrNoCertificate
	}
	if p := Of(presented[0]); s.Has(p) {
		return p, nil
	}
	for _, path := range verified {
		for _, ca := range path[1:] {
			if p := Of(ca); s.Has(p) {
				return p, nil
			}
		}
	}
	match, err := s.tlsa.Verify(presented, names, now)
	switch {
	case err == nil:
		return Pin(match.Record.Data), nil
	case errors.Is(err, dane.ErrNoMatch):
		return Pin{}, &mismatch{Of(presented[0])}
	}
	return Pin{}, &pathError{err}
}

// mismatch is a server that shows another key.
type mismatch struct{ own Pin }

// Error names the server's own key, so that it can be pinned if it is right.
func (m *mismatch) Error() string {
	return ErrNoMatch.Error() + "; the server's own is " + m.own.String()
}

// Unwrap gives ErrNoMatch.
func (m *mismatch) Unwrap() error { return ErrNoMatch }

// pathError is a server whose certificate leads to no pinned CA, though it
// shows one.
type pathError struct{ err error }

// Error says what is wrong, without the words for TLSA records.
func (e *pathError) Error() string {
	var d *dane.Error
	if errors.Is(e.err, dane.ErrName) {
		return "a CA is pinned, and the certificate below it is for other names"
	}
	text := "a CA is pinned, and no valid path leads to it"
	if errors.As(e.err, &d) && d.Cause != nil {
		text += ": " + d.Cause.Error()
	}
	return text
}

// Unwrap gives the error of package dane.
func (e *pathError) Unwrap() error { return e.err }
