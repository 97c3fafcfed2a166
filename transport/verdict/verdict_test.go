package verdict

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/pin"
)

func digest(s string) []byte {
	sum := sha256.Sum256([]byte(s))
	return sum[:]
}

func set(usage dane.Usage, text string) dane.Set {
	return dane.NewSet([]dane.Record{{Usage: usage, Selector: dane.SPKI, Matching: dane.SHA256, Data: digest(text)}})
}

const host = "mx1.example.org"

var (
	setA     = set(3, "a")
	setB     = set(3, "b")
	setTA    = set(2, "ta")
	unusable = dane.NewSet([]dane.Record{{Usage: 1, Selector: 1, Matching: 1, Data: digest("x")}})

	usable    = TLSA{State: TLSAPresent, Set: setA, Base: host, Names: []string{host, "example.org"}}
	useless   = TLSA{State: TLSAPresent, Set: unusable, Base: host}
	tlsaError = TLSA{State: TLSAFailed, Err: errors.New("SERVFAIL")}

	plain       = Proof{}
	unproven    = Proof{TLS: tls.VersionTLS13, PKIErr: errors.New("signed by unknown authority")}
	webpki      = Proof{TLS: tls.VersionTLS12, WebPKI: host}
	webpki11    = Proof{TLS: tls.VersionTLS11, WebPKI: host}
	webpkiFor   = Proof{TLS: tls.VersionTLS13, WebPKI: "mx2.example.org"}
	daneA       = Proof{TLS: tls.VersionTLS13, DANE: &dane.Match{}, TLSA: setA.Fingerprint()}
	daneB       = Proof{TLS: tls.VersionTLS13, DANE: &dane.Match{}, TLSA: setB.Fingerprint()}
	daneBoth    = Proof{TLS: tls.VersionTLS13, DANE: &dane.Match{}, TLSA: setA.Fingerprint(), WebPKI: host}
	daneNone    = Proof{TLS: tls.VersionTLS13, WebPKI: host, DANEErr: errors.New("no TLSA record matches")}
	webpkiTLS10 = Proof{TLS: tls.VersionTLS10, Cipher: tls.TLS_RSA_WITH_AES_128_CBC_SHA, WebPKI: host}
	webpki3DES  = Proof{TLS: tls.VersionTLS12, Cipher: tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, WebPKI: host}
	webpkiRSA   = Proof{TLS: tls.VersionTLS12, Cipher: tls.TLS_RSA_WITH_AES_128_CBC_SHA, WebPKI: host}
	daneTLS11   = Proof{TLS: tls.VersionTLS11, DANE: &dane.Match{}, TLSA: setA.Fingerprint()}
	daneTA      = Proof{TLS: tls.VersionTLS13, DANE: &dane.Match{Name: "example.org"}, TLSA: setTA.Fingerprint()}
)

var (
	pinA, pinB    = pin.Pin(digest("a")), pin.Pin(digest("b"))
	pinsA, pinsAB = pin.NewSet(pinA), pin.NewSet(pinA, pinB)
)

// pinned is a proof of another kind with a pin besides.
func pinned(p Proof, by pin.Pin) Proof {
	p.Pin = by
	return p
}

func policy(mode mtasts.Mode, mx ...string) STS {
	return STS{State: STSFound, Policy: mtasts.Policy{Mode: mode, MX: mx}}
}

// TestTable holds each row of the design's table of verdicts from both sides:
// what meets it and what does not. An empty want is a pass; otherwise it is
// the code. "dial:" means that the host is not even dialled.
func TestTable(t *testing.T) {
	all := Rules{DNSSEC: true, DANE: true, MTASTS: true}
	tests := []struct {
		name    string
		facts   Facts
		rules   Rules
		demands Demands
		proof   Proof
		mx      MXLevel
		want    string
	}{
		// Nothing: opportunistic (RFC 7435).
		{"no policy, plaintext", Facts{}, all, Demands{}, plain, MXNone, ""},
		{"no policy, any certificate", Facts{}, all, Demands{}, unproven, MXNone, ""},
		{"no mechanism at all", Facts{Signed: true, TLSA: tlsaError, STS: policy(mtasts.ModeEnforce)}, Rules{}, Demands{}, plain, MXNone, ""},
		// The MX set.
		{"signed MX set", Facts{Signed: true}, all, Demands{}, plain, MXDNSSEC, ""},
		{"signed MX set, dnssec off", Facts{Signed: true}, Rules{DANE: true, MTASTS: true}, Demands{}, plain, MXNone, ""},
		// Usable TLSA records (RFC 7672 §2.2).
		{"DANE match", Facts{Signed: true, TLSA: usable}, all, Demands{}, daneA, MXDNSSEC, ""},
		{"DANE match, unsigned MX set (RFC 7672 §2.2.1)", Facts{TLSA: usable}, all, Demands{}, daneA, MXNone, ""},
		{"DANE mismatch", Facts{Signed: true, TLSA: usable}, all, Demands{}, unproven, MXDNSSEC, "4.7.5"},
		{"DANE mismatch, valid by WebPKI", Facts{Signed: true, TLSA: usable}, all, Demands{}, daneNone, MXDNSSEC, "4.7.5"},
		{"DANE matched other records", Facts{Signed: true, TLSA: usable}, all, Demands{}, daneB, MXDNSSEC, "4.7.5"},
		{"DANE, no STARTTLS", Facts{Signed: true, TLSA: usable}, all, Demands{}, plain, MXDNSSEC, "4.7.5"},
		{"DANE off", Facts{Signed: true, TLSA: usable}, Rules{DNSSEC: true, MTASTS: true}, Demands{}, plain, MXDNSSEC, ""},
		{"DANE-TA, name of the domain (RFC 7672 §3.2.2)", Facts{Signed: true, TLSA: TLSA{State: TLSAPresent, Set: setTA, Base: host, Names: []string{host, "example.org"}}}, all, Demands{}, daneTA, MXDNSSEC, ""},
		{"DANE-TA, name of another domain", Facts{Signed: true, TLSA: TLSA{State: TLSAPresent, Set: setTA, Base: host, Names: []string{host, "example.net"}}}, all, Demands{}, daneTA, MXDNSSEC, "4.7.5"},
		// None usable (RFC 7672 §2.2).
		{"unusable TLSA, TLS", Facts{Signed: true, TLSA: useless}, all, Demands{}, unproven, MXDNSSEC, ""},
		{"unusable TLSA, plaintext", Facts{Signed: true, TLSA: useless}, all, Demands{}, plain, MXDNSSEC, "4.7.4"},
		// Look-up failed (RFC 7672 §2.1.2).
		{"TLSA look-up failed", Facts{Signed: true, TLSA: tlsaError}, all, Demands{}, daneBoth, MXDNSSEC, "dial:4.7.5"},
		{"TLSA look-up failed, DANE off", Facts{Signed: true, TLSA: tlsaError}, Rules{DNSSEC: true}, Demands{}, plain, MXDNSSEC, ""},
		{"TLSA look-up failed, STS matches (RFC 8461 §2)", Facts{TLSA: tlsaError, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpki, MXNone, "dial:4.7.5"},
		// MTA-STS (RFC 8461 §4, §5).
		{"STS enforce, valid", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpki, MXMTASTS, ""},
		{"STS enforce, wildcard", Facts{STS: policy(mtasts.ModeEnforce, "*.example.org")}, all, Demands{}, webpki, MXMTASTS, ""},
		{"STS enforce, invalid", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, unproven, MXMTASTS, "4.7.5"},
		{"STS enforce, other name", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpkiFor, MXMTASTS, "4.7.5"},
		{"STS enforce, TLS 1.1 (RFC 8461 §4)", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpki11, MXMTASTS, "4.7.5"},
		{"STS enforce, plaintext", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, plain, MXMTASTS, "4.7.5"},
		{"STS enforce, not listed", Facts{STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, all, Demands{}, webpki, MXNone, "dial:4.7.5"},
		{"STS enforce, not listed, signed MX set", Facts{Signed: true, STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, all, Demands{}, webpki, MXDNSSEC, "dial:4.7.5"},
		{"STS testing, not listed", Facts{STS: policy(mtasts.ModeTesting, "mx9.example.org")}, all, Demands{}, plain, MXNone, ""},
		{"STS testing, listed", Facts{STS: policy(mtasts.ModeTesting, host)}, all, Demands{}, plain, MXMTASTS, ""},
		{"STS none", Facts{STS: policy(mtasts.ModeNone)}, all, Demands{}, plain, MXNone, ""},
		{"STS unknown (RFC 8461 §3.3)", Facts{STS: STS{State: STSFailed, Err: errors.New("timeout")}}, all, Demands{}, plain, MXNone, ""},
		{"STS off", Facts{STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, Rules{DNSSEC: true, DANE: true}, Demands{}, plain, MXNone, ""},
		// Both (RFC 8461 §2).
		{"DANE and STS agree", Facts{Signed: true, TLSA: usable, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, daneBoth, MXDNSSEC, ""},
		{"DANE matches, not valid for STS", Facts{Signed: true, TLSA: usable, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, daneA, MXDNSSEC, ""},
		{"DANE matches, STS does not list, signed", Facts{Signed: true, TLSA: usable, STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, all, Demands{}, daneA, MXDNSSEC, ""},
		{"DANE matches, STS does not list, unsigned", Facts{TLSA: usable, STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, all, Demands{}, daneA, MXNone, "dial:4.7.5"},
		{"DANE fails, STS satisfied", Facts{Signed: true, TLSA: usable, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, daneNone, MXDNSSEC, "4.7.5"},
		{"unusable TLSA, STS satisfied", Facts{Signed: true, TLSA: useless, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpki, MXDNSSEC, ""},
		{"unusable TLSA, STS not satisfied", Facts{Signed: true, TLSA: useless, STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, unproven, MXDNSSEC, "4.7.5"},
		// local_policy.
		{"min_tls encrypted, TLS", Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, unproven, MXNone, ""},
		{"min_tls encrypted, plaintext", Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, plain, MXNone, "4.7.4"},
		{"min_tls authenticated, WebPKI", Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, webpki, MXNone, ""},
		{"min_tls authenticated, DANE", Facts{TLSA: usable}, Rules{DANE: true, MinTLS: TLSAuthenticated}, Demands{}, daneA, MXNone, ""},
		{"min_tls authenticated, unproven", Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, unproven, MXNone, "4.7.5"},
		{"min_tls authenticated, other name", Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, webpkiFor, MXNone, "4.7.5"},
		{"min_tls authenticated, unusable TLSA, unproven", Facts{TLSA: useless}, Rules{DANE: true, MinTLS: TLSAuthenticated}, Demands{}, unproven, MXNone, "4.7.5"},
		{"min_mx mtasts, no policy", Facts{}, Rules{MTASTS: true, MinMX: MXMTASTS}, Demands{}, webpki, MXNone, "dial:4.7.5"},
		{"min_mx mtasts, listed", Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true, MinMX: MXMTASTS}, Demands{}, webpki, MXMTASTS, ""},
		{"min_mx mtasts, testing, not listed", Facts{STS: policy(mtasts.ModeTesting, "mx9.example.org")}, Rules{MTASTS: true, MinMX: MXMTASTS}, Demands{}, webpki, MXNone, "dial:4.7.5"},
		{"min_mx mtasts, signed", Facts{Signed: true}, Rules{DNSSEC: true, MinMX: MXMTASTS}, Demands{}, plain, MXDNSSEC, ""},
		{"min_mx dnssec, signed", Facts{Signed: true}, Rules{DNSSEC: true, MinMX: MXDNSSEC}, Demands{}, plain, MXDNSSEC, ""},
		{"min_mx dnssec, unsigned", Facts{}, Rules{DNSSEC: true, MinMX: MXDNSSEC}, Demands{}, webpki, MXNone, "dial:4.7.5"},
		{"min_mx dnssec, only mtasts", Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{DNSSEC: true, MTASTS: true, MinMX: MXDNSSEC}, Demands{}, webpki, MXMTASTS, "dial:4.7.5"},
		// REQUIRETLS (RFC 8689 §4.2.1).
		{"REQUIRETLS, STS, valid", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{RequireTLS: true}, webpki, MXMTASTS, ""},
		{"REQUIRETLS, STS testing, valid", Facts{STS: policy(mtasts.ModeTesting, host)}, all, Demands{RequireTLS: true}, webpki, MXMTASTS, ""},
		{"REQUIRETLS, STS testing, unproven", Facts{STS: policy(mtasts.ModeTesting, host)}, all, Demands{RequireTLS: true}, unproven, MXMTASTS, "5.7.30"},
		{"REQUIRETLS, signed, WebPKI", Facts{Signed: true}, all, Demands{RequireTLS: true}, webpki, MXDNSSEC, ""},
		{"REQUIRETLS, signed, DANE", Facts{Signed: true, TLSA: usable}, all, Demands{RequireTLS: true}, daneA, MXDNSSEC, ""},
		{"REQUIRETLS, signed, DANE mismatch", Facts{Signed: true, TLSA: usable}, all, Demands{RequireTLS: true}, daneNone, MXDNSSEC, "4.7.5"},
		{"REQUIRETLS, signed, unproven", Facts{Signed: true}, all, Demands{RequireTLS: true}, unproven, MXDNSSEC, "5.7.30"},
		{"REQUIRETLS, signed, plaintext", Facts{Signed: true}, all, Demands{RequireTLS: true}, plain, MXDNSSEC, "5.7.30"},
		{"REQUIRETLS, unsigned, no STS", Facts{}, all, Demands{RequireTLS: true}, webpki, MXNone, "dial:5.7.30"},
		{"REQUIRETLS, unsigned, DANE", Facts{TLSA: usable}, all, Demands{RequireTLS: true}, daneA, MXNone, "dial:5.7.30"},
		{"REQUIRETLS, STS unknown for now", Facts{STS: STS{State: STSFailed, Err: errors.New("timeout")}}, all, Demands{RequireTLS: true}, webpki, MXNone, "dial:4.7.5"},
		{"REQUIRETLS, unusable TLSA, unproven", Facts{Signed: true, TLSA: useless}, all, Demands{RequireTLS: true}, unproven, MXDNSSEC, "5.7.30"},
		// Below TLS 1.2, or with 3DES, the TLS level is none (DESIGN §7).
		{"no policy, TLS 1.0", Facts{}, all, Demands{}, webpkiTLS10, MXNone, ""},
		{"DANE match over TLS 1.1", Facts{Signed: true, TLSA: usable}, all, Demands{}, daneTLS11, MXDNSSEC, "4.7.5"},
		{"unusable TLSA, TLS 1.0", Facts{Signed: true, TLSA: useless}, all, Demands{}, webpkiTLS10, MXDNSSEC, "4.7.4"},
		{"STS enforce, 3DES", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpki3DES, MXMTASTS, "4.7.5"},
		{"STS enforce, RSA key exchange", Facts{STS: policy(mtasts.ModeEnforce, host)}, all, Demands{}, webpkiRSA, MXMTASTS, ""},
		{"STS testing, TLS 1.0", Facts{STS: policy(mtasts.ModeTesting, host)}, all, Demands{}, webpkiTLS10, MXMTASTS, ""},
		{"min_tls encrypted, TLS 1.0", Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, webpkiTLS10, MXNone, "4.7.4"},
		{"min_tls encrypted, 3DES", Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, webpki3DES, MXNone, "4.7.4"},
		{"min_tls authenticated, TLS 1.0", Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, webpkiTLS10, MXNone, "4.7.4"},
		{"min_tls authenticated, RSA key exchange", Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, webpkiRSA, MXNone, ""},
		{"REQUIRETLS, signed, TLS 1.0", Facts{Signed: true}, all, Demands{RequireTLS: true}, webpkiTLS10, MXDNSSEC, "5.7.30"},
		// Pins, on top of all the others.
		{"pin, its key", Facts{}, Rules{Pins: pinsAB}, Demands{}, pinned(unproven, pinA), MXNone, ""},
		{"pin, the other of two", Facts{}, Rules{Pins: pinsAB}, Demands{}, pinned(unproven, pinB), MXNone, ""},
		{"pin, another key", Facts{}, Rules{Pins: pinsA}, Demands{}, pinned(webpki, pinB), MXNone, "4.7.5"},
		{"pin, none asked of the connection", Facts{}, Rules{Pins: pinsA}, Demands{}, webpki, MXNone, "4.7.5"},
		{"pin, plaintext", Facts{}, Rules{Pins: pinsA}, Demands{}, plain, MXNone, "4.7.5"},
		{"pin, its key over TLS 1.0", Facts{}, Rules{Pins: pinsA}, Demands{}, pinned(webpkiTLS10, pinA), MXNone, "4.7.5"},
		{"pin and DANE, both", Facts{TLSA: usable}, Rules{DANE: true, Pins: pinsA}, Demands{}, pinned(daneA, pinA), MXNone, ""},
		{"pin and DANE, only DANE", Facts{TLSA: usable}, Rules{DANE: true, Pins: pinsA}, Demands{}, daneA, MXNone, "4.7.5"},
		{"pin and DANE, only the pin", Facts{TLSA: usable}, Rules{DANE: true, Pins: pinsA}, Demands{}, pinned(daneNone, pinA), MXNone, "4.7.5"},
		{"pin and failing TLSA look-up", Facts{TLSA: tlsaError}, Rules{DANE: true, Pins: pinsA}, Demands{}, pinned(webpki, pinA), MXNone, "dial:4.7.5"},
		{"pin and STS, both", Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true, Pins: pinsA}, Demands{}, pinned(webpki, pinA), MXMTASTS, ""},
		{"pin and STS, only the pin", Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true, Pins: pinsA}, Demands{}, pinned(unproven, pinA), MXMTASTS, "4.7.5"},
		{"pin and STS, only STS", Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true, Pins: pinsA}, Demands{}, webpki, MXMTASTS, "4.7.5"},
		{"pin and STS, not listed", Facts{STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, Rules{MTASTS: true, Pins: pinsA}, Demands{}, pinned(webpki, pinA), MXNone, "dial:4.7.5"},
		{"pin meets min_tls authenticated", Facts{}, Rules{MinTLS: TLSAuthenticated, Pins: pinsA}, Demands{}, pinned(unproven, pinA), MXNone, ""},
		{"pin and min_tls authenticated, only WebPKI", Facts{}, Rules{MinTLS: TLSAuthenticated, Pins: pinsA}, Demands{}, webpki, MXNone, "4.7.5"},
		{"pin meets REQUIRETLS's TLS level", Facts{Signed: true}, Rules{DNSSEC: true, Pins: pinsA}, Demands{RequireTLS: true}, pinned(unproven, pinA), MXDNSSEC, ""},
		{"TLS-Required: No does not lift a pin", Facts{STS: policy(mtasts.ModeEnforce)}, Rules{MTASTS: true, Pins: pinsA}, Demands{TLSRequiredNo: true}, webpki, MXNone, "4.7.5"},
		{"TLS-Required: No, its key", Facts{STS: policy(mtasts.ModeEnforce)}, Rules{MTASTS: true, Pins: pinsA}, Demands{TLSRequiredNo: true}, pinned(unproven, pinA), MXNone, ""},
		// TLS-Required: No (RFC 8689 §3).
		{"TLS-Required: No, everything against it", Facts{Signed: true, TLSA: tlsaError, STS: policy(mtasts.ModeEnforce)}, Rules{DNSSEC: true, DANE: true, MTASTS: true, MinTLS: TLSAuthenticated, MinMX: MXDNSSEC}, Demands{TLSRequiredNo: true}, plain, MXNone, ""},
		{"TLS-Required: No beside REQUIRETLS", Facts{}, all, Demands{TLSRequiredNo: true, RequireTLS: true}, webpki, MXNone, "dial:5.7.30"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.facts.Host = host
			v := Decide(tt.facts, tt.rules, tt.demands)
			got := ""
			if v.Refusal != nil {
				got = "dial:" + v.Refusal.Code.String()
			} else if f := v.Judge(&tt.proof); f != nil {
				got = f.Code.String()
			}
			if got != tt.want || v.MX != tt.mx {
				t.Errorf("%s (%s): %q, MX level %v; want %q, %v", tt.name, v.Reason, got, v.MX, tt.want, tt.mx)
			}
			if v.Reason == "" {
				t.Error("no reason is given")
			}
			if (v.Floor() == handshake.Opportunistic) != v.Plaintext() {
				t.Errorf("floor %v, plaintext %t", v.Floor(), v.Plaintext())
			}
			if v.Plaintext() && v.Refusal == nil && v.Judge(&plain) != nil {
				t.Error("plaintext is dialled although it cannot pass")
			}
		})
	}
}

// A handshake that failed says nothing for good, not even under REQUIRETLS.
func TestNoTLSIsTemporary(t *testing.T) {
	for _, tt := range []struct {
		facts   Facts
		rules   Rules
		demands Demands
		want    string
	}{
		{Facts{TLSA: usable}, Rules{DANE: true}, Demands{}, "4.7.5"},
		{Facts{TLSA: useless}, Rules{DANE: true}, Demands{}, "4.7.4"},
		{Facts{STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true}, Demands{}, "4.7.5"},
		{Facts{Signed: true}, Rules{DNSSEC: true}, Demands{RequireTLS: true}, "4.7.5"},
		{Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, "4.7.4"},
	} {
		tt.facts.Host = host
		v := Decide(tt.facts, tt.rules, tt.demands)
		f := v.NoTLS(errors.New("remote error: tls: handshake failure"))
		if f == nil || f.Code.String() != tt.want || !strings.Contains(f.Text, "handshake failure") {
			t.Errorf("%s: %v; want %s", v.Reason, f, tt.want)
		}
	}
	v := Decide(Facts{Host: host}, Rules{DNSSEC: true, DANE: true, MTASTS: true}, Demands{})
	if f := v.NoTLS(errors.New("x")); f != nil {
		t.Errorf("opportunistic TLS fails with %v, want plaintext", f)
	}
}

func TestExtension(t *testing.T) {
	facts := Facts{Host: host, Signed: true}
	for _, relaxed := range []bool{false, true} {
		v := Decide(facts, Rules{DNSSEC: true}, Demands{RequireTLS: true, Relaxed: relaxed})
		if f := v.JudgeExtension(true); f != nil {
			t.Errorf("offered, relaxed %v: %v", relaxed, f)
		}
		if f := v.JudgeExtension(false); (f == nil) != relaxed {
			t.Errorf("not offered, relaxed %v: %v", relaxed, f)
		}
	}
}

// Testing mode lets everything pass and tells what it would have refused.
func TestTestingModeNotes(t *testing.T) {
	v := Decide(Facts{Host: host, STS: policy(mtasts.ModeTesting, "mx9.example.org")}, Rules{MTASTS: true}, Demands{})
	if v.TestingRefusal == nil || v.TestingRefusal.Cause != NotListed || !strings.Contains(v.TestingRefusal.Text, "does not list") {
		t.Errorf("a host that is not listed: %+v", v.TestingRefusal)
	}
	if n := v.TestingFailure(&webpki); n != v.TestingRefusal {
		t.Errorf("a host that is not listed, with a valid certificate: %+v", n)
	}
	v = Decide(Facts{Host: host, STS: policy(mtasts.ModeTesting, host)}, Rules{MTASTS: true}, Demands{})
	if n := v.TestingFailure(&plain); n == nil || n.Cause != NoSTARTTLS || !strings.Contains(n.Text, "no TLS") {
		t.Errorf("plaintext: %+v", n)
	}
	if n := v.TestingFailure(&unproven); n == nil || !strings.Contains(n.Text, "unknown authority") {
		t.Errorf("unproven: %+v", n)
	}
	if n := v.TestingFailure(&webpki11); n == nil || n.Cause != TLSTooOld {
		t.Errorf("TLS 1.1: %+v", n)
	}
	if n := v.TestingFailure(&webpki); n != nil {
		t.Errorf("valid: %+v", n)
	}
}

// A failure says to machines which policy the host failed, and by what.
func TestRulesAndCauses(t *testing.T) {
	all := Rules{DNSSEC: true, DANE: true, MTASTS: true}
	sts := policy(mtasts.ModeEnforce, host)
	proof := func(dane, pki error) Proof {
		return Proof{TLS: tls.VersionTLS13, TLSA: setA.Fingerprint(), DANEErr: dane, PKIErr: pki}
	}
	expired := x509.CertificateInvalidError{Reason: x509.Expired}
	name := x509.HostnameError{Certificate: &x509.Certificate{}, Host: host}
	for _, tt := range []struct {
		facts   Facts
		rules   Rules
		demands Demands
		proof   Proof
		rule    Rule
		cause   Cause
	}{
		{Facts{TLSA: tlsaError}, all, Demands{}, plain, DANE, TLSALookup},
		{Facts{TLSA: usable}, all, Demands{}, plain, DANE, NoSTARTTLS},
		{Facts{TLSA: usable}, all, Demands{}, daneB, DANE, CertificateUntrusted},
		{Facts{TLSA: usable}, all, Demands{}, proof(&dane.Error{Kind: dane.ErrNoMatch}, nil), DANE, CertificateUntrusted},
		{Facts{TLSA: usable}, all, Demands{}, proof(&dane.Error{Kind: dane.ErrName}, nil), DANE, CertificateName},
		{Facts{TLSA: usable}, all, Demands{}, proof(&dane.Error{Kind: dane.ErrPath, Cause: expired}, nil), DANE, CertificateExpired},
		{Facts{TLSA: useless}, all, Demands{}, plain, UnusableTLSA, NoSTARTTLS},
		{Facts{STS: policy(mtasts.ModeEnforce, "mx9.example.org")}, all, Demands{}, webpki, MTASTS, NotListed},
		{Facts{STS: sts}, all, Demands{}, plain, MTASTS, NoSTARTTLS},
		{Facts{STS: sts}, all, Demands{}, webpki11, MTASTS, TLSTooOld},
		{Facts{STS: sts}, all, Demands{}, webpkiFor, MTASTS, CertificateName},
		{Facts{STS: sts}, all, Demands{}, proof(nil, name), MTASTS, CertificateName},
		{Facts{STS: sts}, all, Demands{}, proof(nil, expired), MTASTS, CertificateExpired},
		{Facts{STS: sts}, all, Demands{}, unproven, MTASTS, CertificateUntrusted},
		{Facts{}, all, Demands{RequireTLS: true}, webpki, RequireTLS, MXLevelTooLow},
		{Facts{STS: STS{State: STSFailed}}, all, Demands{RequireTLS: true}, webpki, RequireTLS, MXLevelTooLow},
		{Facts{Signed: true}, all, Demands{RequireTLS: true}, plain, RequireTLS, NoSTARTTLS},
		{Facts{Signed: true}, all, Demands{RequireTLS: true}, unproven, RequireTLS, CertificateUntrusted},
		{Facts{}, Rules{MinMX: MXDNSSEC}, Demands{}, webpki, LocalPolicy, MXLevelTooLow},
		{Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, plain, LocalPolicy, NoSTARTTLS},
		{Facts{}, Rules{MinTLS: TLSAuthenticated}, Demands{}, webpkiFor, LocalPolicy, CertificateName},
		{Facts{}, Rules{MinTLS: TLSEncrypted}, Demands{}, webpki11, LocalPolicy, TLSTooOld},
		{Facts{TLSA: usable}, all, Demands{}, daneTLS11, DANE, TLSTooOld},
		{Facts{STS: sts}, all, Demands{}, webpki3DES, MTASTS, TLSTooOld},
		{Facts{}, Rules{Pins: pinsA}, Demands{}, plain, Pinned, NoSTARTTLS},
		{Facts{}, Rules{Pins: pinsA}, Demands{}, webpki, Pinned, CertificateUntrusted},
		{Facts{}, Rules{Pins: pinsA}, Demands{}, Proof{TLS: tls.VersionTLS13, PinErr: dane.ErrName}, Pinned, CertificateName},
	} {
		tt.facts.Host = host
		v := Decide(tt.facts, tt.rules, tt.demands)
		f := v.Judge(&tt.proof)
		if f == nil || f.Rule != tt.rule || f.Cause != tt.cause {
			t.Errorf("%s: %+v; want %v %v", v.Reason, f, tt.rule, tt.cause)
		}
	}
	v := Decide(Facts{Host: host, STS: sts}, all, Demands{})
	if f := v.NoTLS(errors.New("x")); f.Rule != MTASTS || f.Cause != HandshakeFailed {
		t.Errorf("a failed handshake: %+v", f)
	}
	for r := NoRule; r <= Pinned; r++ {
		if (r.Name() == "") != (r == NoRule) {
			t.Errorf("rule %v has the name %q", r, r.Name())
		}
		for c := NoCause; c <= NoExtension; c++ {
			if r.String() == "" || c.String() == "" || c.String() == "unknown" {
				t.Errorf("no word for rule %d or cause %d", r, c)
			}
		}
	}
}

// The level that a connection reaches, whatever is asked of it.
func TestLevels(t *testing.T) {
	for _, tt := range []struct {
		name  string
		proof Proof
		want  TLSLevel
	}{
		{"plaintext", plain, TLSNone}, {"encrypted", unproven, TLSEncrypted}, {"WebPKI", webpki, TLSAuthenticated},
		{"DANE", daneA, TLSAuthenticated}, {"a pin", pinned(unproven, pinA), TLSAuthenticated},
		{"TLS 1.1, valid", webpki11, TLSNone}, {"TLS 1.0, valid", webpkiTLS10, TLSNone}, {"3DES, valid", webpki3DES, TLSNone},
		{"DANE over TLS 1.1", daneTLS11, TLSNone}, {"RSA key exchange, valid", webpkiRSA, TLSAuthenticated},
	} {
		if got := tt.proof.Level(); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// A failed handshake is told in the words of package handshake, once.
func TestNoTLSNamesTheRuleOnce(t *testing.T) {
	v := Decide(Facts{Host: host, STS: policy(mtasts.ModeEnforce, host)}, Rules{MTASTS: true}, Demands{})
	err := handshake.Error{{
		Offer: handshake.Offer{Hello: handshake.Hello{Min: tls.VersionTLS12, Max: tls.VersionTLS13}, Rule: v.Rule.Name()},
		Err:   errors.New("tls: server selected unsupported protocol version 301"),
	}}
	const want = "the server speaks TLS 1.0 only; this destination needs TLS 1.2 (MTA-STS) (tls: server selected unsupported protocol version 301)"
	if f := v.NoTLS(err); f.Text != want || f.Code.String() != "4.7.5" {
		t.Errorf("%v %s", f.Code, f.Text)
	}
}
