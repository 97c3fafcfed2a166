//go:debug x509negativeserial=1

package dane_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// tbs is a certificate before it is signed, each part as it is to be written.
type tbs struct {
	Version    int `asn1:"explicit,tag:0,default:0"`
	Serial     *big.Int
	Algorithm  asn1.RawValue
	Issuer     asn1.RawValue
	Validity   asn1.RawValue
	Subject    asn1.RawValue
	PublicKey  asn1.RawValue
	Extensions asn1.RawValue `asn1:"optional"`
}

// der writes what must come out right.
func der(t *testing.T, value any) []byte {
	t.Helper()
	b, err := asn1.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rawDER(b []byte) asn1.RawValue { return asn1.RawValue{FullBytes: b} }

// tlv writes one value of any tag, of less than 128 bytes.
func tlv(tag byte, content ...byte) []byte {
	return append([]byte{tag, byte(len(content))}, content...)
}

// cnOf writes a subject of one CN in a string type of its own.
func cnOf(t *testing.T, tag byte, text string) asn1.RawValue {
	attribute := append(der(t, asn1.ObjectIdentifier{2, 5, 4, 3}), tlv(tag, []byte(text)...)...)
	return rawDER(tlv(0x30, tlv(0x31, tlv(0x30, attribute...)...)...))
}

// Certificates that OpenSSL takes and Go's parser may not. The handshake ends
// at them before a record can match, whatever its usage: crypto/tls reads all
// that a server presents. A negative serial number is taken
// (x509negativeserial); crypto/x509 has no switch for the others, which its
// readers would have to guess at. They are told to the administrator
// (docs/security.md).
func TestParserAgainstOpenSSL(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	ecdsaSHA256 := der(t, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}})
	now := time.Now().UTC()
	validity := der(t, struct{ From, Until time.Time }{now.Add(-time.Hour), now.Add(time.Hour)})
	extension := func(id asn1.ObjectIdentifier, critical bool, value []byte) pkix.Extension {
		return pkix.Extension{Id: id, Critical: critical, Value: value}
	}
	extensions := func(all ...pkix.Extension) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, IsCompound: true, Bytes: der(t, all)}
	}
	sanID, akiID, skiID := asn1.ObjectIdentifier{2, 5, 29, 17}, asn1.ObjectIdentifier{2, 5, 29, 35}, asn1.ObjectIdentifier{2, 5, 29, 14}
	basicID, aiaID, constraintsID := asn1.ObjectIdentifier{2, 5, 29, 19}, asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 1}, asn1.ObjectIdentifier{2, 5, 29, 30}
	san := func(content ...byte) asn1.RawValue { return extensions(extension(sanID, false, tlv(0x30, content...))) }
	dnsName := tlv(0x82, []byte(host)...)
	times := func(from, until []byte) asn1.RawValue { return rawDER(tlv(0x30, append(from, until...)...)) }
	until := tlv(0x18, []byte("20991231235959Z")...)
	otherKey := func(algorithm []byte) asn1.RawValue {
		bits := der(t, asn1.BitString{Bytes: bytes.Repeat([]byte{4}, 57), BitLength: 57 * 8})
		return rawDER(tlv(0x30, append(algorithm, bits...)...))
	}
	for _, tt := range []struct {
		name     string
		change   func(c *tbs)
		taken    bool // by Go's parser, as we run it
		openssl  bool // by OpenSSL 3.0
		mismatch bool // the outer algorithm is another
	}{
		{name: "ordinary", change: func(*tbs) {}, taken: true, openssl: true},
		{name: "negative serial number", change: func(c *tbs) { c.Serial = big.NewInt(-5) }, taken: true, openssl: true},
		{name: "serial number 0", change: func(c *tbs) { c.Serial = new(big.Int) }, taken: true, openssl: true},
		{name: "serial number of 64 bytes", change: func(c *tbs) { c.Serial = new(big.Int).Lsh(big.NewInt(1), 511) }, taken: true, openssl: true},
		{name: "version 1 without extensions", change: func(c *tbs) { c.Version, c.Extensions = 0, asn1.RawValue{} }, taken: true, openssl: true},
		{name: "version 4", change: func(c *tbs) { c.Version = 3 }, openssl: true},
		{name: "the same extension twice", change: func(c *tbs) {
			c.Extensions = extensions(extension(sanID, false, tlv(0x30, dnsName...)), extension(sanID, false, tlv(0x30, dnsName...)))
		}, openssl: true},
		{name: "authority key identifier critical", change: func(c *tbs) { c.Extensions = extensions(extension(akiID, true, tlv(0x30, tlv(0x80, 1, 2)...))) }, openssl: true},
		{name: "subject key identifier critical", change: func(c *tbs) { c.Extensions = extensions(extension(skiID, true, tlv(0x04, 1, 2))) }, openssl: true},
		{name: "authority information access critical", change: func(c *tbs) { c.Extensions = extensions(extension(aiaID, true, tlv(0x30))) }, openssl: true},
		{name: "basic constraints malformed", change: func(c *tbs) { c.Extensions = extensions(extension(basicID, true, tlv(0x02, 1))) }, openssl: true},
		{name: "name constraints empty", change: func(c *tbs) { c.Extensions = extensions(extension(constraintsID, true, tlv(0x30))) }, openssl: true},
		{name: "extension of no sense", change: func(c *tbs) { c.Extensions = extensions(extension(sanID, false, []byte("nonsense"))) }, openssl: true},
		{name: "SAN with an underscore", change: func(c *tbs) { c.Extensions = san(tlv(0x82, []byte("mail_1.example.test")...)...) }, taken: true, openssl: true},
		{name: "SAN not in ASCII", change: func(c *tbs) { c.Extensions = san(tlv(0x82, []byte("b\xfccher.test")...)...) }, openssl: true},
		{name: "SAN mail address not in ASCII", change: func(c *tbs) { c.Extensions = san(tlv(0x81, []byte("m\xfc@example.test")...)...) }, openssl: true},
		{name: "SAN URI malformed", change: func(c *tbs) { c.Extensions = san(tlv(0x86, []byte("http://[::1")...)...) }, openssl: true},
		{name: "SAN address of 3 bytes", change: func(c *tbs) { c.Extensions = san(tlv(0x87, 1, 2, 3)...) }, openssl: true},
		{name: "SAN empty", change: func(c *tbs) { c.Extensions = san() }, taken: true, openssl: true},
		{name: "PrintableString with an underscore", change: func(c *tbs) { c.Subject = cnOf(t, 0x13, "mail_1") }, openssl: true},
		{name: "PrintableString with an asterisk", change: func(c *tbs) { c.Subject = cnOf(t, 0x13, "*.example.test") }, taken: true, openssl: true},
		{name: "PrintableString with an at sign", change: func(c *tbs) { c.Subject = cnOf(t, 0x13, "a@b.test") }, openssl: true},
		{name: "UTF8String of Latin-1", change: func(c *tbs) { c.Subject = cnOf(t, 0x0c, "b\xfccher") }},
		{name: "T61String", change: func(c *tbs) { c.Subject = cnOf(t, 0x14, "b\xfccher") }, taken: true, openssl: true},
		{name: "UniversalString", change: func(c *tbs) { c.Subject = cnOf(t, 0x1c, "\x00\x00\x00a") }, openssl: true},
		{name: "empty subject", change: func(c *tbs) { c.Subject = rawDER(tlv(0x30)) }, taken: true, openssl: true},
		{name: "UTCTime without seconds", change: func(c *tbs) { c.Validity = times(tlv(0x17, []byte("2001010000Z")...), until) }, taken: true, openssl: true},
		{name: "UTCTime with a zone", change: func(c *tbs) { c.Validity = times(tlv(0x17, []byte("200101000000+0100")...), until) }, taken: true, openssl: true},
		{name: "GeneralizedTime with a fraction", change: func(c *tbs) { c.Validity = times(tlv(0x18, []byte("20200101000000.5Z")...), until) }, openssl: true},
		{name: "valid from a day that never was", change: func(c *tbs) { c.Validity = times(tlv(0x17, []byte("200230000000Z")...), until) }, openssl: true},
		{name: "key of Ed448", change: func(c *tbs) { c.PublicKey = otherKey(tlv(0x30, der(t, asn1.ObjectIdentifier{1, 3, 101, 113})...)) }, taken: true, openssl: true},
		{name: "key of an unknown curve", change: func(c *tbs) {
			c.PublicKey = otherKey(tlv(0x30, append(der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}), der(t, asn1.ObjectIdentifier{1, 3, 36, 3, 3, 2, 8, 1, 1, 7})...)...))
		}, openssl: true},
		{name: "two signature algorithms", change: func(*tbs) {}, mismatch: true, openssl: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := der(t, pkix.Name{CommonName: "server"}.ToRDNSequence())
			c := tbs{
				Version: 2, Serial: big.NewInt(5), Algorithm: rawDER(ecdsaSHA256), Issuer: rawDER(name), Validity: rawDER(validity),
				Subject: rawDER(name), PublicKey: rawDER(spki), Extensions: san(dnsName...),
			}
			tt.change(&c)
			signed := der(t, c)
			digest := sha256.Sum256(signed)
			signature, err := key.Sign(rand.Reader, digest[:], crypto.SHA256)
			if err != nil {
				t.Fatal(err)
			}
			algorithm := ecdsaSHA256
			if tt.mismatch {
				algorithm = der(t, pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}})
			}
			cert := der(t, struct {
				TBS, Algorithm asn1.RawValue
				Signature      asn1.BitString
			}{rawDER(signed), rawDER(algorithm), asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}})

			_, err = x509.ParseCertificate(cert)
			if taken := err == nil; taken != tt.taken {
				t.Errorf("Go's parser: %v", err)
			}
			parse := exec.CommandContext(t.Context(), "openssl", "x509", "-noout", "-serial")
			parse.Stdin = bytes.NewReader(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
			out, err := parse.CombinedOutput()
			if taken := strings.Contains(string(out), "serial="); taken != tt.openssl {
				t.Errorf("OpenSSL: %v\n%s", err, out)
			}
			if !tt.taken || !bytes.Equal(c.PublicKey.FullBytes, spki) {
				return
			}
			// The match is all that counts (RFC 7672 §3.1.1), through a real
			// handshake.
			sum := sha256.Sum256(spki)
			set := dane.NewSet([]dane.Record{{Usage: dane.DANEEE, Selector: dane.SPKI, Matching: dane.SHA256, Data: sum[:]}})
			if err := shakeHands(t, tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}, set); err != nil {
				t.Errorf("a handshake under 3 1 1: %v", err)
			}
		})
	}
}

// shakeHands has a server with a certificate verified by a set of records.
func shakeHands(t *testing.T, cert tls.Certificate, set dane.Set) error {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		server := tls.Server(theirs, &tls.Config{Certificates: []tls.Certificate{cert}})
		_ = server.Handshake()
		io.Copy(io.Discard, server)
		theirs.Close()
	}()
	client := tls.Client(ours, &tls.Config{InsecureSkipVerify: true, ServerName: host, VerifyConnection: func(state tls.ConnectionState) error {
		_, err := set.Verify(state.PeerCertificates, []string{host}, time.Now())
		return err
	}})
	err := client.Handshake()
	ours.Close()
	<-done
	return err
}
