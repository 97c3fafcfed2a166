// Package ca is the lab's certificate authority. It makes a root, intermediates
// under it, and server certificates with every merit and fault that a mail
// server on the Internet has: expired, not yet valid, self-signed, for another
// name, without the intermediates, with the chain in disorder.
//
// An Authority is made once with New and asked with Issue; Spec says what is
// wanted. WebPKI tests trust Pool or the PEM text of RootsPEM; DANE tests
// publish the records that TLSA makes. Keys are ECDSA P-256 unless something
// else is asked for, since they take microseconds to make; an RSA key takes a
// noticeable part of a second.
package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net"
	"slices"
	"time"
)

// KeyType is the algorithm of a certificate's key.
type KeyType int

// The key types.
const (
	ECDSA   KeyType = iota // P-256
	RSA                    // 2048 bits
	Ed25519                // TLS 1.2 and later
)

func (k KeyType) generate() (crypto.Signer, error) {
	switch k {
	case ECDSA:
		return ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case RSA:
		return rsa.GenerateKey(rand.Reader, 2048)
	case Ed25519:
		_, key, err := ed25519.GenerateKey(rand.Reader)
		return key, err
	}
	return nil, fmt.Errorf("lab CA: no key type %d", k)
}

// Options describe an authority. The zero value is a root without
// intermediates, valid for ten years from yesterday.
type Options struct {
	Name string  // of the organisation; "mxpipe lab" when empty
	Key  KeyType // of the root and the intermediates
	// how many certificates stand between the root and a server's
	Intermediates int
	// of the certificate that issues; the zero value is yesterday
	NotBefore time.Time
	// of the certificate that issues; the zero value is in ten years
	NotAfter time.Time
}

// Authority issues certificates. It never changes, and may be used by several
// goroutines at once.
type Authority struct {
	root *x509.Certificate
	// the last intermediate or the root, with its chain up to and including the
	// root
	issuer tls.Certificate
}

// New makes an authority with fresh keys.
func New(opts Options) (*Authority, error) {
	if opts.Name == "" {
		opts.Name = "mxpipe lab"
	}
	if opts.Intermediates < 0 || opts.Intermediates > 10 {
		return nil, fmt.Errorf("lab CA: %d intermediates", opts.Intermediates)
	}
	var a Authority
	for i := range opts.Intermediates + 1 {
		template := &x509.Certificate{
			Subject: pkix.Name{
				Organization: []string{opts.Name},
				CommonName:   fmt.Sprintf("%s intermediate %d", opts.Name, i),
			},
			KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
			BasicConstraintsValid: true,
			IsCA:                  true,
		}
		if i == 0 {
			template.Subject.CommonName = opts.Name + " root"
		}
		if i == opts.Intermediates {
			template.NotBefore, template.NotAfter = opts.NotBefore, opts.NotAfter
		}
		var parent *tls.Certificate
		if i > 0 {
			parent = &a.issuer
		}
		cert, err := sign(template, opts.Key, parent)
		if err != nil {
			return nil, err
		}
		if i == 0 {
			a.root = cert.Leaf
		}
		a.issuer = cert
	}
	return &a, nil
}

// Root returns the root's certificate.
func (a *Authority) Root() *x509.Certificate { return a.root }

// Issuer returns the certificate that signs the servers' certificates: the last
// intermediate, or the root.
func (a *Authority) Issuer() *x509.Certificate { return a.issuer.Leaf }

// Pool returns a new pool that trusts the root.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.root)
	return pool
}

// Chain says which certificates a server sends after its own.
type Chain int

// The chains.
const (
	// as RFC 8446 §4.4.2 wants it; nothing when the root signs
	WithIntermediates Chain = iota
	LeafOnly                // the intermediates are missing
	// everything up to the root, as DANE-TA needs (RFC 7672 §3.1.2)
	WithRoot
	Shuffled // as WithRoot, in the opposite order
)

// Spec is what a certificate shall be. The zero value is a certificate for no
// name, valid now, with a sound chain.
type Spec struct {
	// DNS names, wildcards and IP addresses for the subject alternative name
	Names []string
	// of the subject; none when empty, as public authorities do
	CommonName string
	NotBefore  time.Time // the zero value is yesterday
	NotAfter   time.Time // the zero value is in ten years
	Key        KeyType   // of the server's key
	// signed by its own key and sent without a chain
	SelfSigned bool
	Chain      Chain // what is sent along
	// unrelated certificates, sent between the server's own and its chain
	Extra  []*x509.Certificate
	Usages []x509.ExtKeyUsage // nil: server authentication
}

// For returns the spec of a sound certificate for these names.
func For(names ...string) Spec { return Spec{Names: names} }

// ExpiredFor returns the spec of a certificate that ended an hour ago.
func ExpiredFor(names ...string) Spec {
	return Spec{Names: names, NotAfter: time.Now().Add(-time.Hour)}
}

// NotYetFor returns the spec of a certificate that begins tomorrow.
func NotYetFor(names ...string) Spec {
	return Spec{Names: names, NotBefore: time.Now().Add(24 * time.Hour)}
}

// Issue makes a key and a certificate as the spec says. Leaf is set in the
// result.
func (a *Authority) Issue(spec Spec) (tls.Certificate, error) { return IssueUnder(a.issuer, spec) }

// IssueUnder signs with any certificate and its key, even one that is no
// authority, to make chains that a client must refuse. The chain sent is the
// parent with the chain that the parent itself carries.
func IssueUnder(parent tls.Certificate, spec Spec) (tls.Certificate, error) {
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: spec.CommonName},
		NotBefore:             spec.NotBefore,
		NotAfter:              spec.NotAfter,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           spec.Usages,
		BasicConstraintsValid: true,
	}
	if spec.Usages == nil {
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	}
	for _, name := range spec.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	signer := &parent
	if spec.SelfSigned {
		signer = nil
	}
	cert, err := sign(template, spec.Key, signer)
	if err != nil {
		return tls.Certificate{}, err
	}
	return arrange(cert, spec), nil
}

// arrange cuts and orders the whole chain up to the root as the spec says.
func arrange(cert tls.Certificate, spec Spec) tls.Certificate {
	leaf, above := cert.Certificate[:1:1], slices.Clone(cert.Certificate[1:])
	switch {
	case spec.SelfSigned || spec.Chain == LeafOnly:
		above = nil
	case spec.Chain == Shuffled:
		slices.Reverse(above)
	case spec.Chain == WithIntermediates && len(above) > 0:
		if top, err := x509.ParseCertificate(above[len(above)-1]); err == nil && top.CheckSignatureFrom(top) == nil {
			above = above[:len(above)-1]
		}
	}
	cert.Certificate = leaf
	for _, extra := range spec.Extra {
		cert.Certificate = append(cert.Certificate, extra.Raw)
	}
	cert.Certificate = append(cert.Certificate, above...)
	return cert
}

// sign makes a key and a certificate for it, signed by parent or, when that is
// nil, by itself.
func sign(template *x509.Certificate, kind KeyType, parent *tls.Certificate) (tls.Certificate, error) {
	key, err := kind.generate()
	if err != nil {
		return tls.Certificate{}, err
	}
	if template.SerialNumber, err = rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120)); err != nil {
		return tls.Certificate{}, err
	}
	fillValidity(template)
	issuer, signer := template, key
	if parent != nil {
		ok := false
		if signer, ok = parent.PrivateKey.(crypto.Signer); !ok || parent.Leaf == nil {
			return tls.Certificate{}, errors.New("lab CA: the parent has no key or no Leaf")
		}
		issuer = parent.Leaf
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer, key.Public(), signer)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab CA: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("lab CA: %w", err)
	}
	cert := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
	if parent != nil {
		cert.Certificate = append(cert.Certificate, parent.Certificate...)
	}
	return cert, nil
}

// fillValidity replaces zero times, so that a spec that names only one end
// still has the other on its right side.
func fillValidity(template *x509.Certificate) {
	now := time.Now()
	if template.NotBefore.IsZero() {
		template.NotBefore = now.AddDate(0, 0, -1)
		if !template.NotAfter.IsZero() && template.NotAfter.Before(now) {
			template.NotBefore = template.NotAfter.AddDate(0, 0, -90)
		}
	}
	if template.NotAfter.IsZero() {
		template.NotAfter = template.NotBefore.AddDate(10, 0, 0)
	}
}
