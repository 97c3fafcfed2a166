package ca

import (
	"bytes"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
)

// Usage is the first field of a TLSA record (RFC 6698 §2.1.1, RFC 7218).
type Usage uint8

// The certificate usages.
const (
	PKIXTA Usage = 0
	PKIXEE Usage = 1
	DANETA Usage = 2
	DANEEE Usage = 3
)

// Selector is the second field of a TLSA record (RFC 6698 §2.1.2).
type Selector uint8

// The selectors.
const (
	Cert Selector = 0 // the whole certificate
	SPKI Selector = 1 // its SubjectPublicKeyInfo
)

// Matching is the third field of a TLSA record (RFC 6698 §2.1.3).
type Matching uint8

// The matching types.
const (
	Full   Matching = 0
	SHA256 Matching = 1
	SHA512 Matching = 2
)

// Record is the content of a TLSA record.
type Record struct {
	Usage    Usage
	Selector Selector
	Matching Matching
	Data     []byte // certificate association data
}

// TLSA makes the record that matches this certificate. Selectors and matching
// types without a meaning give the data of Cert and Full, so that unusable
// records can be published as well.
func TLSA(usage Usage, selector Selector, matching Matching, cert *x509.Certificate) Record {
	data := cert.Raw
	if selector == SPKI {
		data = cert.RawSubjectPublicKeyInfo
	}
	switch matching {
	case SHA256:
		sum := sha256.Sum256(data)
		data = sum[:]
	case SHA512:
		sum := sha512.Sum512(data)
		data = sum[:]
	}
	return Record{Usage: usage, Selector: selector, Matching: matching, Data: bytes.Clone(data)}
}

// Hex returns the data as a zone file and miekg/dns write it: lower-case
// hexadecimal.
func (r Record) Hex() string { return hex.EncodeToString(r.Data) }

// String returns the record's data in presentation format (RFC 6698 §2.2).
func (r Record) String() string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, r.Hex())
}

// Spoiled returns the record with data that matches no certificate.
func (r Record) Spoiled() Record {
	r.Data = bytes.Clone(r.Data)
	if len(r.Data) > 0 {
		r.Data[len(r.Data)-1] ^= 0xff
	}
	return r
}

// RootsPEM returns the root's certificate as PEM text, for a root_ca setting.
func (a *Authority) RootsPEM() []byte { return encode("CERTIFICATE", a.root.Raw) }

// WriteRoots writes the root's certificate to a file, mode 0644.
func (a *Authority) WriteRoots(path string) error { return os.WriteFile(path, a.RootsPEM(), 0o644) }

// ChainPEM returns a certificate and the chain it carries as PEM text, in the
// order in which a server sends them.
func ChainPEM(cert tls.Certificate) []byte {
	var all []byte
	for _, der := range cert.Certificate {
		all = append(all, encode("CERTIFICATE", der)...)
	}
	return all
}

// KeyPEM returns a certificate's private key as PKCS #8 PEM text.
func KeyPEM(cert tls.Certificate) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("lab CA: %w", err)
	}
	return encode("PRIVATE KEY", der), nil
}

// WritePair writes a certificate with its chain (mode 0644) and its key (mode
// 0600), for servers that read files.
func WritePair(cert tls.Certificate, certPath, keyPath string) error {
	key, err := KeyPEM(cert)
	if err != nil {
		return err
	}
	if err := os.WriteFile(certPath, ChainPEM(cert), 0o644); err != nil {
		return err
	}
	return os.WriteFile(keyPath, key, 0o600)
}

func encode(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
