package dane_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// host is the TLSA base domain of most cases.
const host = "mx.example.test"

// party is a certificate with the key that belongs to it.
type party struct {
	cert *x509.Certificate
	key  crypto.Signer
}

// ca makes certificates for the tests. Its RSA keys are made once, because
// they take long.
type ca struct {
	t      testing.TB
	now    time.Time
	serial int64
	rsa    []crypto.Signer
}

func newCA(t testing.TB) *ca {
	return &ca{t: t, now: time.Now()}
}

// spec changes a certificate before it is signed.
type spec func(*x509.Certificate)

func dnsID(names ...string) spec { return func(c *x509.Certificate) { c.DNSNames = names } }
func cn(name string) spec {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} }
}
func mail(address string) spec {
	return func(c *x509.Certificate) { c.EmailAddresses = []string{address} }
}
func notCA(c *x509.Certificate) { c.IsCA = false }
func noConstraints(c *x509.Certificate) {
	c.BasicConstraintsValid, c.IsCA = false, false
}
func noCertSign(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }
func pathLen(n int) spec {
	return func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = n, n == 0 }
}
func expired(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = c.NotBefore.Add(-96*time.Hour), c.NotBefore.Add(-48*time.Hour)
}
func future(c *x509.Certificate) {
	c.NotBefore, c.NotAfter = c.NotAfter.Add(48*time.Hour), c.NotAfter.Add(96*time.Hour)
}
func eku(usages ...x509.ExtKeyUsage) spec {
	return func(c *x509.Certificate) { c.ExtKeyUsage = usages }
}
func only(domains ...string) spec {
	return func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.PermittedDNSDomains = true, domains
	}
}
func never(domains ...string) spec {
	return func(c *x509.Certificate) {
		c.PermittedDNSDomainsCritical, c.ExcludedDNSDomains = true, domains
	}
}
func critical(c *x509.Certificate) {
	c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 32473, 1}, Critical: true, Value: []byte{5, 0}}}
}

// root makes a self-signed CA, issued a CA below another, and leaf a server's
// certificate; a leaf by a party without certificate is self-signed.
func (a *ca) root(key crypto.Signer, name string, specs ...spec) party {
	return a.make(a.authority(name, specs), key, party{})
}

func (a *ca) issued(by party, key crypto.Signer, name string, specs ...spec) party {
	return a.make(a.authority(name, specs), key, by)
}

func (a *ca) leaf(by party, key crypto.Signer, specs ...spec) party {
	c := a.template("server", []spec{dnsID(host), eku(x509.ExtKeyUsageServerAuth)})
	c.KeyUsage = x509.KeyUsageDigitalSignature
	for _, s := range specs {
		s(c)
	}
	return a.make(c, key, by)
}

func (a *ca) authority(name string, specs []spec) *x509.Certificate {
	c := a.template(name, nil)
	c.BasicConstraintsValid, c.IsCA, c.MaxPathLen = true, true, -1
	c.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	for _, s := range specs {
		s(c)
	}
	return c
}

func (a *ca) template(name string, specs []spec) *x509.Certificate {
	a.serial++
	c := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    a.now.Add(-24 * time.Hour),
		NotAfter:     a.now.Add(24 * time.Hour),
	}
	for _, s := range specs {
		s(c)
	}
	return c
}

func (a *ca) make(c *x509.Certificate, key crypto.Signer, by party) party {
	a.t.Helper()
	parent, signer := c, key
	if by.cert != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return party{a.parse(der), key}
}

func (a *ca) parse(der []byte) *x509.Certificate {
	a.t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert
}

func (a *ca) ec(curves ...elliptic.Curve) crypto.Signer {
	a.t.Helper()
	curve := elliptic.P256()
	if len(curves) > 0 {
		curve = curves[0]
	}
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

func (a *ca) ed() crypto.Signer {
	a.t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	return key
}

// rsaKey returns one of a few RSA keys of 2,048 bits.
func (a *ca) rsaKey(i int) crypto.Signer {
	a.t.Helper()
	for len(a.rsa) <= i {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			a.t.Fatal(err)
		}
		a.rsa = append(a.rsa, key)
	}
	return a.rsa[i]
}

// withSHA1 signs an RSA certificate anew with SHA-1, which crypto/x509 does
// not do: the two algorithm identifiers differ in one byte.
func (a *ca) withSHA1(p, by party) party {
	a.t.Helper()
	sha256RSA := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0b}
	sha1RSA := []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x05}
	tbs := bytes.Replace(p.cert.RawTBSCertificate, sha256RSA, sha1RSA, 1)
	sum := sha1.Sum(tbs)
	signature, err := by.key.Sign(rand.Reader, sum[:], crypto.SHA1)
	if err != nil {
		a.t.Fatal(err)
	}
	der := bytes.Replace(p.cert.Raw, p.cert.RawTBSCertificate, tbs, 1)
	der = bytes.Replace(der, sha256RSA, sha1RSA, 1)
	der = bytes.Replace(der, p.cert.Signature, signature, 1)
	return party{a.parse(der), p.key}
}

// rec gives the record that a publisher would make of a certificate.
func rec(u dane.Usage, s dane.Selector, m dane.Matching, p party) dane.Record {
	data := p.cert.Raw
	if s == dane.SPKI {
		data = p.cert.RawSubjectPublicKeyInfo
	}
	switch m {
	case dane.SHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case dane.SHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return dane.Record{Usage: u, Selector: s, Matching: m, Data: data}
}

// off returns the record with its last byte changed.
func off(r dane.Record) dane.Record {
	r.Data = bytes.Clone(r.Data)
	r.Data[len(r.Data)-1] ^= 1
	return r
}

// cut returns the record without its last byte.
func cut(r dane.Record) dane.Record {
	r.Data = r.Data[:len(r.Data)-1]
	return r
}

func chain(parties ...party) []*x509.Certificate {
	certs := make([]*x509.Certificate, len(parties))
	for i, p := range parties {
		certs[i] = p.cert
	}
	return certs
}

// name gives one CN of a subject.
func name(value string) pkix.AttributeTypeAndValue {
	return pkix.AttributeTypeAndValue{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: value}
}
