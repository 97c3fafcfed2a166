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
	"fmt"
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
	Serial     asn1.RawValue
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

// Certificates that OpenSSL takes and Go's parser may not, one at least for
// each of its refusals that can be met; OpenSSL verifies them by 3 1 1 as well.
// The handshake ends at them before a record can match, whatever its usage:
// crypto/tls reads all that a server presents. A negative serial number is
// taken (x509negativeserial); crypto/x509 has no switch for the others, which
// its readers would have to guess at. They are told to the administrator
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
	rawExtension := func(content []byte) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 3, IsCompound: true, Bytes: tlv(0x30, tlv(0x30, content...)...)}
	}
	keyOf := func(algorithm, point []byte) asn1.RawValue {
		return rawDER(der(t, struct{ Algorithm, Key asn1.RawValue }{rawDER(tlv(0x30, algorithm...)), rawDER(der(t, asn1.BitString{Bytes: point, BitLength: 8 * len(point)}))}))
	}
	rsaKey := func(exponent *big.Int, sign int64) []byte {
		n := new(big.Int).Lsh(big.NewInt(sign), 2047)
		return der(t, struct{ N, E *big.Int }{n.Add(n, big.NewInt(1)), exponent})
	}
	otherKey := func(algorithm []byte) asn1.RawValue {
		bits := der(t, asn1.BitString{Bytes: bytes.Repeat([]byte{4}, 57), BitLength: 57 * 8})
		return rawDER(tlv(0x30, append(algorithm, bits...)...))
	}
	for _, tt := range []struct {
		name     string
		change   func(c *tbs)
		taken    bool                    // by Go's parser, as we run it
		openssl  bool                    // by OpenSSL 3.0
		refused  bool                    // by OpenSSL in a handshake
		mismatch bool                    // the outer algorithm is another
		outer    func(der []byte) []byte // what becomes of the whole
	}{
		{name: "ordinary", change: func(*tbs) {}, taken: true, openssl: true},
		{name: "negative serial number", change: func(c *tbs) { c.Serial = rawDER(der(t, big.NewInt(-5))) }, taken: true, openssl: true},
		{name: "serial number 0", change: func(c *tbs) { c.Serial = rawDER(der(t, new(big.Int))) }, taken: true, openssl: true},
		{name: "serial number of 64 bytes", change: func(c *tbs) { c.Serial = rawDER(der(t, new(big.Int).Lsh(big.NewInt(1), 511))) }, taken: true, openssl: true},
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
		{name: "version 1 with extensions", change: func(c *tbs) { c.Version = 0 }, taken: true, openssl: true},
		{name: "serial number of no bytes", change: func(c *tbs) { c.Serial = rawDER(tlv(0x02)) }},
		{name: "serial number with a byte too many", change: func(c *tbs) { c.Serial = rawDER(tlv(0x02, 0, 0, 5)) }},
		{name: "an unknown extension critical", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 1}, true, tlv(0x05)))
		}, taken: true, openssl: true},
		{name: "critical written as 1", change: func(c *tbs) {
			c.Extensions = rawExtension(append(append(der(t, skiID), tlv(0x01, 1)...), tlv(0x04, tlv(0x04, 1)...)...))
		}, openssl: true},
		{name: "critical written as FALSE", change: func(c *tbs) {
			c.Extensions = rawExtension(append(append(der(t, skiID), tlv(0x01, 0)...), tlv(0x04, tlv(0x04, 1)...)...))
		}, taken: true, openssl: true},
		{name: "key usage malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 15}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "extended key usage malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 37}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "certificate policies malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 32}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "policy constraints malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 36}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "policy mappings malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 33}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "inhibit any policy malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 54}, false, tlv(0x04)))
		}, openssl: true},
		{name: "CRL distribution points malformed", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 31}, false, tlv(0x02, 1)))
		}, openssl: true},
		{name: "authority information access malformed", change: func(c *tbs) { c.Extensions = extensions(extension(aiaID, false, tlv(0x02, 1))) }, openssl: true},
		{name: "authority key identifier malformed", change: func(c *tbs) { c.Extensions = extensions(extension(akiID, false, tlv(0x02, 1))) }, openssl: true},
		{name: "subject key identifier malformed", change: func(c *tbs) { c.Extensions = extensions(extension(skiID, false, tlv(0x02, 1))) }, openssl: true},
		{name: "name constraint on an address of 3 bytes", change: func(c *tbs) {
			c.Extensions = extensions(extension(constraintsID, true, tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x87, 1, 2, 3)...)...)...)))
		}, openssl: true},
		{name: "a URI in brackets of an address in a name constraint", change: func(c *tbs) {
			c.Extensions = extensions(extension(constraintsID, true, tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x86, []byte("192.0.2.1")...)...)...)...)))
		}, openssl: true},
		{name: "BMPString of 3 bytes", change: func(c *tbs) { c.Subject = cnOf(t, 0x1e, "\x00ab") }},
		{name: "IA5String of Latin-1", change: func(c *tbs) { c.Subject = cnOf(t, 0x16, "b\xfccher") }, openssl: true},
		{name: "NumericString with letters", change: func(c *tbs) { c.Subject = cnOf(t, 0x12, "mail") }, openssl: true},
		{name: "VisibleString", change: func(c *tbs) { c.Subject = cnOf(t, 0x1a, "mail") }},
		{name: "GeneralString", change: func(c *tbs) { c.Subject = cnOf(t, 0x1b, "mail") }},
		{name: "empty issuer", change: func(c *tbs) { c.Issuer = rawDER(tlv(0x30)) }, taken: true, openssl: true},
		{name: "issuer with an underscore in a PrintableString", change: func(c *tbs) { c.Issuer = cnOf(t, 0x13, "mail_1") }, openssl: true},
		{name: "UTCTime without a zone", change: func(c *tbs) { c.Validity = times(tlv(0x17, []byte("200101000000")...), until) }, openssl: true},
		{name: "GeneralizedTime before 2050", change: func(c *tbs) { c.Validity = times(tlv(0x18, []byte("20200101000000Z")...), until) }, taken: true, openssl: true},
		{name: "GeneralizedTime with a zone", change: func(c *tbs) { c.Validity = times(tlv(0x18, []byte("20200101000000+0100")...), until) }, taken: true, openssl: true},
		{name: "valid from after until", change: func(c *tbs) { c.Validity = times(until, tlv(0x17, []byte("200101000000Z")...)) }, taken: true, openssl: true},
		{name: "key compressed", change: func(c *tbs) {
			point := elliptic.MarshalCompressed(elliptic.P256(), key.X, key.Y)
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}), der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 3, 1, 7})...), point)
		}, openssl: true},
		{name: "RSA key without NULL", change: func(c *tbs) {
			c.PublicKey = keyOf(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}), rsaKey(big.NewInt(65537), 1))
		}, openssl: true},
		{name: "RSA modulus negative", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}), 5, 0), rsaKey(big.NewInt(65537), -1))
		}, openssl: true},
		{name: "RSA exponent even", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}), 5, 0), rsaKey(big.NewInt(65536), 1))
		}, taken: true, openssl: true},
		{name: "RSA exponent of 100 bits", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}), 5, 0), rsaKey(new(big.Int).Lsh(big.NewInt(3), 98), 1))
		}, openssl: true},
		{name: "Ed25519 key with NULL", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 3, 101, 112}), 5, 0), bytes.Repeat([]byte{4}, 32))
		}, openssl: true},
		{name: "RSA-PSS key", change: func(c *tbs) {
			c.PublicKey = keyOf(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 10}), rsaKey(big.NewInt(65537), 1))
		}, taken: true, openssl: true},
		{name: "length in more bytes than needed", change: func(*tbs) {}, outer: func(b []byte) []byte {
			return append([]byte{0x30, 0x83, 0, b[2], b[3]}, b[4:]...)
		}, openssl: true},
		{name: "length indefinite", change: func(*tbs) {}, outer: func(b []byte) []byte {
			return append(append([]byte{0x30, 0x80}, b[4:]...), 0, 0)
		}, openssl: true},
		{name: "bytes after its end", change: func(*tbs) {}, outer: func(b []byte) []byte { return append(b, 5, 0) }, openssl: true, refused: true},
		{name: "name constraint with a mask of holes", change: func(c *tbs) {
			c.Extensions = extensions(extension(constraintsID, true, tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x87, 10, 0, 0, 0, 255, 0, 255, 0)...)...)...)))
		}, openssl: true},
		{name: "name constraint of no domain", change: func(c *tbs) {
			c.Extensions = extensions(extension(constraintsID, true, tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x82, []byte("a..test")...)...)...)...)))
		}, openssl: true},
		{name: "name constraint of no mail address", change: func(c *tbs) {
			c.Extensions = extensions(extension(constraintsID, true, tlv(0x30, tlv(0xa0, tlv(0x30, tlv(0x81, []byte("a@@b.test")...)...)...)...)))
		}, taken: true, openssl: true},
		{name: "SAN URI not in ASCII", change: func(c *tbs) { c.Extensions = san(tlv(0x86, []byte("http://b\xfccher.test")...)...) }, openssl: true},
		{name: "policy constraints of 100 bits", change: func(c *tbs) {
			c.Extensions = extensions(extension(asn1.ObjectIdentifier{2, 5, 29, 36}, false, tlv(0x30, tlv(0x80, bytes.Repeat([]byte{1}, 13)...)...)))
		}, openssl: true},
		{name: "key with explicit parameters", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 10045, 2, 1}), tlv(0x30, tlv(0x02, 1)...)...), bytes.Repeat([]byte{4}, 65))
		}, openssl: true},
		{name: "RSA exponent negative", change: func(c *tbs) {
			c.PublicKey = keyOf(append(der(t, asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}), 5, 0), rsaKey(big.NewInt(-3), 1))
		}, openssl: true},
		{name: "a type of attribute with zeros before it", change: func(c *tbs) {
			attribute := append(tlv(0x06, 0x55, 0x80, 4, 3), tlv(0x0c, []byte("mail")...)...)
			c.Subject = rawDER(tlv(0x30, tlv(0x31, tlv(0x30, attribute...)...)...))
		}},
		{name: "two signature algorithms", change: func(*tbs) {}, mismatch: true, openssl: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			name := der(t, pkix.Name{CommonName: "server"}.ToRDNSequence())
			c := tbs{
				Version: 2, Serial: rawDER(tlv(0x02, 5)), Algorithm: rawDER(ecdsaSHA256), Issuer: rawDER(name), Validity: rawDER(validity),
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

			if tt.outer != nil {
				cert = tt.outer(cert)
			}

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
			if !tt.openssl || !bytes.Equal(c.PublicKey.FullBytes, spki) {
				return
			}
			if out := askForMatch(t, tls.Certificate{Certificate: [][]byte{cert}, PrivateKey: key}, sha256.Sum256(spki)); strings.Contains(out, "Verification: OK") == tt.refused {
				t.Errorf("OpenSSL under 3 1 1: %s", out)
			}
			if !tt.taken {
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

// askForMatch has OpenSSL verify a server with a certificate by 3 1 1, and
// gives what it says.
func askForMatch(t *testing.T, cert tls.Certificate, spki [sha256.Size]byte) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.Copy(io.Discard, tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{cert}}))
	}()
	out, _ := exec.CommandContext(t.Context(), "openssl", "s_client", "-connect", listener.Addr().String(), "-brief", "-verify_return_error",
		"-no-CAfile", "-no-CApath", "-no-CAstore", "-dane_ee_no_namechecks", "-dane_tlsa_domain", host,
		"-dane_tlsa_rrdata", fmt.Sprintf("3 1 1 %x", spki)).CombinedOutput()
	listener.Close()
	<-done
	return string(out)
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
