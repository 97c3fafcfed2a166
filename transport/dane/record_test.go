package dane_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// TestUsable is about single records (RFC 6698 §4.1).
func TestUsable(t *testing.T) {
	a := newCA(t)
	ec, rsaCert, ed := a.leaf(party{}, a.ec()), a.leaf(party{}, a.rsaKey(0)), a.leaf(party{}, a.ed())
	digits := func(n int) []byte { return bytes.Repeat([]byte{0xab}, n) }
	garbage := []byte("\x30\x82\x00\x04none")
	for _, c := range []struct {
		name    string
		rfc     string
		u, s, m uint8
		data    []byte
		want    dane.Reason
	}{
		{"3 0 1", "RFC 6698 §2.1.3", 3, 0, 1, digits(32), dane.ReasonNone},
		{"3 1 1", "RFC 6698 §2.1.3", 3, 1, 1, digits(32), dane.ReasonNone},
		{"3 0 2", "RFC 6698 §2.1.3", 3, 0, 2, digits(64), dane.ReasonNone},
		{"3 1 2", "RFC 6698 §2.1.3", 3, 1, 2, digits(64), dane.ReasonNone},
		{"2 0 1", "RFC 6698 §2.1.3", 2, 0, 1, digits(32), dane.ReasonNone},
		{"2 1 1", "RFC 6698 §2.1.3", 2, 1, 1, digits(32), dane.ReasonNone},
		{"2 0 2", "RFC 6698 §2.1.3", 2, 0, 2, digits(64), dane.ReasonNone},
		{"2 1 2", "RFC 6698 §2.1.3", 2, 1, 2, digits(64), dane.ReasonNone},
		{"2 0 0 ECDSA", "RFC 6698 §2.1.4", 2, 0, 0, ec.cert.Raw, dane.ReasonNone},
		{"3 0 0 RSA", "RFC 6698 §2.1.4", 3, 0, 0, rsaCert.cert.Raw, dane.ReasonNone},
		{"3 0 0 Ed25519", "RFC 6698 §2.1.4", 3, 0, 0, ed.cert.Raw, dane.ReasonNone},
		{"2 1 0 ECDSA", "RFC 6698 §2.1.4", 2, 1, 0, ec.cert.RawSubjectPublicKeyInfo, dane.ReasonNone},
		{"2 1 0 RSA", "RFC 6698 §2.1.4", 2, 1, 0, rsaCert.cert.RawSubjectPublicKeyInfo, dane.ReasonNone},
		{"3 1 0 Ed25519", "RFC 6698 §2.1.4", 3, 1, 0, ed.cert.RawSubjectPublicKeyInfo, dane.ReasonNone},
		{"0 0 1", "RFC 7672 §3.1.3", 0, 0, 1, digits(32), dane.ReasonUsage},
		{"0 0 0", "RFC 7672 §3.1.3", 0, 0, 0, ec.cert.Raw, dane.ReasonUsage},
		{"1 1 1", "RFC 7672 §3.1.3", 1, 1, 1, digits(32), dane.ReasonUsage},
		{"1 0 2", "RFC 7672 §3.1.3", 1, 0, 2, digits(64), dane.ReasonUsage},
		{"usage 4", "RFC 6698 §4.1", 4, 1, 1, digits(32), dane.ReasonUsage},
		{"private usage", "RFC 6698 §7.2", 255, 1, 1, digits(32), dane.ReasonUsage},
		{"selector 2", "RFC 6698 §4.1", 3, 2, 1, digits(32), dane.ReasonSelector},
		{"private selector", "RFC 6698 §7.3", 2, 255, 0, ec.cert.Raw, dane.ReasonSelector},
		{"matching type 3", "RFC 6698 §4.1", 3, 1, 3, digits(48), dane.ReasonMatching},
		{"private matching type", "RFC 6698 §7.4", 3, 1, 255, digits(32), dane.ReasonMatching},
		{"SHA-256 empty", "RFC 7671 §9", 3, 1, 1, nil, dane.ReasonLength},
		{"SHA-256 of 31", "RFC 7671 §9", 3, 1, 1, digits(31), dane.ReasonLength},
		{"SHA-256 of 33", "RFC 7671 §9", 3, 1, 1, digits(33), dane.ReasonLength},
		{"SHA-256 of 64", "RFC 7671 §9", 2, 0, 1, digits(64), dane.ReasonLength},
		{"SHA-512 of 32", "RFC 7671 §9", 3, 1, 2, digits(32), dane.ReasonLength},
		{"SHA-512 of 63", "RFC 7671 §9", 2, 1, 2, digits(63), dane.ReasonLength},
		{"SHA-512 of 65,000", "RFC 7671 §9", 2, 1, 2, digits(65000), dane.ReasonLength},
		{"certificate empty", "RFC 6698 §4.1", 2, 0, 0, nil, dane.ReasonCertificate},
		{"certificate garbage", "RFC 6698 §4.1", 3, 0, 0, garbage, dane.ReasonCertificate},
		{"certificate cut short", "RFC 6698 §4.1", 3, 0, 0, ec.cert.Raw[:100], dane.ReasonCertificate},
		{"certificate with a tail", "RFC 6698 §4.1", 2, 0, 0, append(bytes.Clone(ec.cert.Raw), 0), dane.ReasonCertificate},
		{"certificate's place taken by a key", "RFC 6698 §4.1", 2, 0, 0, ec.cert.RawSubjectPublicKeyInfo, dane.ReasonCertificate},
		{"certificate's place taken by a digest", "RFC 6698 §4.1", 2, 0, 0, digits(32), dane.ReasonCertificate},
		{"key empty", "RFC 6698 §4.1", 2, 1, 0, nil, dane.ReasonKey},
		{"key garbage", "RFC 6698 §4.1", 3, 1, 0, garbage, dane.ReasonKey},
		{"key with a tail", "RFC 6698 §4.1", 3, 1, 0, append(bytes.Clone(ec.cert.RawSubjectPublicKeyInfo), 0), dane.ReasonKey},
		{"key's place taken by a certificate", "RFC 6698 §4.1", 2, 1, 0, ec.cert.Raw, dane.ReasonKey},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := dane.Record{Usage: dane.Usage(c.u), Selector: dane.Selector(c.s), Matching: dane.Matching(c.m), Data: c.data}
			s := dane.NewSet([]dane.Record{r})
			reason := dane.ReasonNone
			for _, u := range s.Unusable() {
				reason = u.Reason
			}
			if s.Usable() != (c.want == dane.ReasonNone) || reason != c.want || len(s.Records())+len(s.Unusable()) != 1 {
				t.Errorf("%s: usable %v because %v, want %v", c.rfc, s.Usable(), reason, c.want)
			}
		})
	}
}

func TestRecordString(t *testing.T) {
	digest, _ := hex.DecodeString("8cb0fc6c527506a053f4f14c8464bebbd6dede2738d11468dd953d7d6a3021f1")
	for _, c := range []struct {
		r    dane.Record
		want string
	}{
		{dane.Record{Usage: 3, Selector: 1, Matching: 1, Data: digest}, "3 1 1 8cb0fc6c527506a0..."},
		{dane.Record{Usage: 3, Selector: 1, Matching: 1, Data: digest[:8]}, "3 1 1 8cb0fc6c527506a0"},
		{dane.Record{Usage: 255, Selector: 255, Matching: 255}, "255 255 255 "},
		{dane.Record{Usage: 2, Data: nil}, "2 0 0 sha256:e3b0c44298fc1c14..."},
	} {
		if got := c.r.String(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// TestReasonStrings asserts that people are told each reason in its own words.
func TestReasonStrings(t *testing.T) {
	seen := map[string]bool{}
	for r := dane.ReasonNone; r <= dane.ReasonSurplus; r++ {
		if text := r.String(); text == "" || seen[text] || strings.Contains(text, "unknown reason") {
			t.Errorf("reason %d says %q", r, text)
		} else {
			seen[text] = true
		}
	}
}

// What cannot be read must stay in the set, unusable: an empty set would allow
// plaintext (RFC 7672 §2.2).
func TestRecordWithoutData(t *testing.T) {
	set := dane.NewSet([]dane.Record{{Usage: dane.DANEEE, Selector: dane.SPKI, Matching: dane.SHA256}})
	if set.Usable() || len(set.Unusable()) != 1 {
		t.Errorf("usable %v, put aside %v", set.Usable(), set.Unusable())
	}
}
