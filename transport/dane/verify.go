package dane

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"time"

	"github.com/mxpipe/mxpipe/transport/certerror"
)

// Bounds on the work of one Verify. A real chain has three to five
// certificates; certificates beyond maxChain are as if they had not been sent,
// which can only make a match fail.
const (
	maxChain = 32 // presented certificates that are considered
	// signature checks by bare keys; paths have x509's own 100
	maxKeyChecks = 64
	// longest RSA key a signature is checked with, as in crypto/tls
	maxRSABits = 8192
)

// Match is how a server was authenticated.
type Match struct {
	// Record is the TLSA record that matched.
	Record Record
	// Depth is how far above the server's own certificate the record
	// matched: 0 for the certificate itself. For a bare key it is where the
	// certificate stands that the key signed.
	Depth int
	// Name is the reference identifier that the certificate bears, in lower
	// case; empty for DANE-EE, where names do not count. Who uses the
	// connection for another domain must find Name among that domain's names.
	Name string
	// Anchor is the trust anchor's certificate; nil for DANE-EE and for a
	// bare key.
	Anchor *x509.Certificate
}

// Verify authenticates a server by the certificates it presented, its own
// first, as crypto/tls gives them. names are the reference identifiers of RFC
// 7672 §3.2.2, as A-labels: the TLSA base domain first and, when the MX set is
// secure or there is none, the next-hop domain and its CNAME expansion; they
// count for DANE-TA only. now must not be the zero time.
//
// The error is an [*Error]; mail must not go to the server then (RFC 7672
// §3.2), and the caller tries the next host or answers with a temporary
// failure. Verify may be called from several goroutines at once.
func (s Set) Verify(chain []*x509.Certificate, names []string, now time.Time) (Match, error) {
	if len(s.usable) == 0 {
		return Match{}, &Error{Kind: ErrUnusable}
	}
	if len(chain) == 0 {
		return Match{}, &Error{Kind: ErrNoCertificate, Records: s.Records()}
	}
	shown := show(chain)
	for _, e := range s.usable {
		if e.Usage == DANEEE && shown[0].is(e.Record) {
			return Match{Record: e.Record}, nil
		}
	}
	anchors := s.anchors(shown)
	if len(anchors) == 0 {
		return Match{}, s.mismatch(shown)
	}
	paths, err := findPaths(shown, anchors, now)
	if err != nil {
		return Match{}, &Error{Kind: ErrPath, Records: matched(anchors), Cause: err}
	}
	for _, path := range paths {
		if name := matchName(path, names); name != "" {
			return anchors.match(path, name), nil
		}
	}
	return Match{}, &Error{Kind: ErrName, Records: matched(anchors), Wanted: names, Names: presentedNames(chain[0])}
}

// show makes the presented certificates ready for comparing. Repetitions of
// the server's own certificate are left out: it must not pass for an issuer.
func show(chain []*x509.Certificate) []*shownCert {
	shown := []*shownCert{{Certificate: chain[0]}}
	for _, c := range chain[1:min(len(chain), maxChain)] {
		if !bytes.Equal(c.Raw, chain[0].Raw) {
			shown = append(shown, &shownCert{Certificate: c})
		}
	}
	return shown
}

// shownCert is a presented certificate with its digests, each computed once
// when first asked for.
type shownCert struct {
	*x509.Certificate
	forms [SPKI + 1][SHA512 + 1][]byte
}

// form gives the certificate as TLSA data with these parameters would have it.
func (c *shownCert) form(s Selector, m Matching) []byte {
	f := &c.forms[s][m]
	if *f == nil {
		data := c.Raw
		if s == SPKI {
			data = c.RawSubjectPublicKeyInfo
		}
		switch m {
		case Full:
			*f = data
		case SHA256:
			sum := sha256.Sum256(data)
			*f = sum[:]
		case SHA512:
			sum := sha512.Sum512(data)
			*f = sum[:]
		}
	}
	return *f
}

// is compares the certificate with a usable record, the usage left aside.
func (c *shownCert) is(r Record) bool {
	return bytes.Equal(c.form(r.Selector, r.Matching), r.Data)
}

// anchor is a certificate at which a path may end, because of a record: the
// trust anchor itself or, for a bare key, a certificate that the key signed.
type anchor struct {
	record  Record
	cert    *x509.Certificate
	bareKey bool
}

type anchors []anchor

// undated gives the certificate for a path that ends with it. The dates of a
// trust anchor are no part of path validation: what vouches for it is the
// record (RFC 6698 §2.1.1, RFC 5280 §6.1). What a bare key signed is no anchor
// but the first certificate below one.
func (a anchor) undated(now time.Time) *x509.Certificate {
	if a.bareKey {
		return a.cert
	}
	undated := *a.cert
	undated.NotBefore, undated.NotAfter = now, now
	return &undated
}

// anchors finds every certificate at which a path may end, in the order of
// the records.
func (s Set) anchors(shown []*shownCert) anchors {
	var found anchors
	leaf, keyChecks := shown[0], maxKeyChecks
	for _, e := range s.usable {
		if e.Usage != DANETA {
			continue
		}
		if e.cert != nil && !bytes.Equal(e.cert.Raw, leaf.Raw) {
			found = append(found, anchor{record: e.Record, cert: e.cert})
		}
		for _, c := range shown[1:] {
			if c.is(e.Record) {
				found = append(found, anchor{record: e.Record, cert: c.Certificate})
			}
		}
		if e.key == nil {
			continue
		}
		for i, c := range shown {
			// Only a CA's certificate may continue the path downwards; x509
			// would let one of version 1 pass as a root.
			if i > 0 && !(c.BasicConstraintsValid && c.IsCA) || issuerShown(c, shown, e.Record) {
				continue
			}
			if keyChecks--; keyChecks < 0 {
				return found
			}
			if signed(c.Certificate, e.key) {
				found = append(found, anchor{record: e.Record, cert: c.Certificate, bareKey: true})
			}
		}
	}
	return found
}

// issuerShown reports whether the server presents the certificate that issued
// c with the record's key. Then that certificate is the anchor, with its dates
// and constraints, and not the bare key (RFC 7671 §5.2.3).
func issuerShown(c *shownCert, shown []*shownCert, key Record) bool {
	for _, issuer := range shown[1:] {
		if bytes.Equal(issuer.RawSubject, c.RawIssuer) && issuer.is(key) {
			return true
		}
	}
	return false
}

// signed reports whether a bare key made the signature of c.
func signed(c *x509.Certificate, key any) bool {
	holder := &x509.Certificate{PublicKey: key}
	switch key.(type) {
	case *rsa.PublicKey:
		holder.PublicKeyAlgorithm = x509.RSA
	case *ecdsa.PublicKey:
		holder.PublicKeyAlgorithm = x509.ECDSA
	case ed25519.PublicKey:
		holder.PublicKeyAlgorithm = x509.Ed25519
	default:
		return false
	}
	return affordable(holder) && c.CheckSignatureFrom(holder) == nil
}

// affordable reports whether checking a signature with the certificate's key
// takes a reasonable time.
func affordable(c *x509.Certificate) bool {
	key, ok := c.PublicKey.(*rsa.PublicKey)
	return !ok || key.N.BitLen() <= maxRSABits
}

// findPaths builds every path of valid certificates from the server's own to
// an anchor; without an error there is at least one.
func findPaths(shown []*shownCert, ends anchors, now time.Time) ([][]*x509.Certificate, error) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	for _, a := range ends {
		if affordable(a.cert) {
			roots.AddCert(a.undated(now))
		}
	}
	for _, c := range shown[1:] {
		if affordable(c.Certificate) {
			between.AddCert(c.Certificate)
		}
	}
	paths, err := shown[0].Verify(x509.VerifyOptions{
		Roots:         roots,
		Intermediates: between,
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	return paths, certerror.Words(err)
}

// match tells which record a path ended at.
func (found anchors) match(path []*x509.Certificate, name string) Match {
	m := Match{Depth: len(path) - 1, Name: name}
	for _, a := range found {
		if a.cert.Equal(path[m.Depth]) {
			m.Record = a.record
			if !a.bareKey {
				m.Anchor = a.cert
			}
			break
		}
	}
	return m
}
