package transport

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

func strict(c *Config) {
	everything(c)
	c.RelaxedRequireTLS = false
}

// TestRequireTLS: TLS level authenticated, MX level at least mtasts, and the
// extension unless relaxed_requiretls (RFC 8689 §4.2.1).
func TestRequireTLS(t *testing.T) {
	ee := tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)
	require := func(scenes []scene) []scene {
		for i := range scenes {
			scenes[i].require = true
		}
		return scenes
	}
	playAll(t, require([]scene{
		{name: "STS enforce, offered", config: strict, world: []thing{stsEnforce, offersIt}, want: "2.0.0 , mtasts", saw: "tls", conns: 1, level: "authenticated/mtasts"},
		{name: "STS testing, offered", config: strict, world: []thing{stsTesting, offersIt}, want: "2.0.0", saw: "tls", conns: 1, level: "authenticated/mtasts"},
		{name: "signed, WebPKI, offered", config: strict, world: []thing{signedMX, offersIt}, want: "2.0.0 , webpki", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "signed, DANE, offered", config: strict, world: []thing{signedMX, signedHost, selfMade, ee, offersIt}, want: "2.0.0 , dane", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "strict, not offered", config: strict, world: []thing{stsEnforce}, want: "5.7.30 REQUIRETLS: the server does not offer it", saw: "nothing", conns: 1},
		{name: "relaxed, not offered", world: []thing{stsEnforce}, want: "2.0.0 , mtasts", saw: "tls", conns: 1},
		{name: "unsigned, no policy", world: []thing{offersIt}, want: "5.7.30 neither DNSSEC nor MTA-STS", saw: "nothing"},
		{name: "unsigned, DANE at the host only", world: []thing{signedHost, ee, offersIt}, want: "5.7.30 neither DNSSEC nor MTA-STS", saw: "nothing"},
		{name: "no mechanism at all", config: func(*Config) {}, world: []thing{signedMX, offersIt}, want: "5.7.30", saw: "nothing"},
		{name: "policy unknown for now", world: []thing{stsFailed, offersIt}, want: "4.7.5 REQUIRETLS", saw: "nothing"},
		{name: "signed, no STARTTLS", world: []thing{signedMX, noTLS}, want: "5.7.30 REQUIRETLS: the server does not offer STARTTLS", saw: "nothing", conns: 1},
		{name: "signed, STARTTLS refused", world: []thing{signedMX, refuses}, want: "4.7.5 REQUIRETLS: TLS failed", saw: "nothing", conns: 1},
		{name: "signed, handshake fails", world: []thing{signedMX, breaks}, want: "4.7.5 3 hellos: full, classical, compatible; this destination needs TLS (REQUIRETLS)", saw: "nothing", conns: 3},
		{name: "signed, untrusted", world: []thing{signedMX, untrusted, offersIt}, want: "5.7.30 REQUIRETLS: the certificate is not valid", saw: "nothing", conns: 1},
		{name: "STS testing, untrusted", world: []thing{stsTesting, untrusted, offersIt}, want: "5.7.30 REQUIRETLS: the certificate is not valid", saw: "nothing", conns: 1},
		{name: "DANE does not match", world: []thing{signedMX, signedHost, tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA256), offersIt}, want: "4.7.5 DANE", saw: "nothing", conns: 1},
		{name: "TLS-Required: No beside it does not lift DANE", message: "TLS-Required: No\n",
			world: []thing{signedMX, signedHost, tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA256), offersIt}, want: "4.7.5 DANE", saw: "nothing", conns: 1},
		{name: "TLS-Required: No beside it does not count (RFC 8689 §4.2.1)", message: "TLS-Required: No\n", world: []thing{signedMX, noTLS}, want: "5.7.30", saw: "nothing", conns: 1},
	}))
}

// It is asked for by a header field as well, which Postfix writes to carry
// REQUIRETLS over a local hop; no matter what asks for it, it is passed on.
func TestRequireTLSIsAskedForAndPassedOn(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		envelope bool
		header   string
		asked    bool
	}{
		{"by envelope", true, "", true},
		{"by header", false, "Require-TLS-ESMTP: yes\n", true},
		{"by folded header", false, "Require-TLS-ESMTP:\n yes\n", true},
		{"by header in odd case", false, "rEQUIRE-tls-esmtp:\tYES  \n", true},
		{"by a second field", false, "Require-TLS-ESMTP: no\nRequire-TLS-ESMTP: yes\n", true},
		{"by both", true, "Require-TLS-ESMTP: yes\n", true},
		{"beside TLS-Required: No", false, "TLS-Required: No\nRequire-TLS-ESMTP: yes\n", true},
		{"by neither", false, "", false},
		{"by another value", false, "Require-TLS-ESMTP: maybe\n", false},
		{"by a longer name", false, "X-Require-TLS-ESMTP: yes\n", false},
		{"in the body", false, "Subject: x\n\nRequire-TLS-ESMTP: yes\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			good, plain := l.mx("mx.a.example", offering), l.mx("mx.b.example", byData)
			l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.")
			l.signed("a.example")
			l.start(strict)
			env := envelope("x@a.example", "x@b.example")
			env.RequireTLS = tt.envelope
			results := l.transport.Deliver(t.Context(), env, msg(t, tt.header+text))
			want := "2.0.0 , plaintext"
			if tt.asked {
				want = "5.7.30"
			}
			expect(t, results, "2.0.0 mx.a.example", want)
			if n := len(plain.Messages()); (n == 0) != tt.asked {
				t.Errorf("%d messages went out in plaintext", n)
			}
			m := good.Messages()[0]
			if _, asked := m.Param("REQUIRETLS"); asked != tt.asked {
				t.Errorf("MAIL had the parameters %q", m.Params)
			}
		})
	}
}

func offering(h *mx.Behaviour) { h.Keywords |= mx.RequireTLS }

// A host without the extension, to which the first domain's mail may go as
// relaxed_requiretls is set, changes nothing for the second domain.
func TestRelaxedRequireTLSDoesNotLeakToTheNextDomain(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	without, plain, with := l.mx("mx.a.example", nil), l.mx("mx.b.example", byData), l.mx("mx.c.example", offering)
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.\nc.example. MX 10 mx.c.example.")
	l.signed("example")
	l.start(everything)
	for range 2 {
		expect(t, l.sendAs(func(e *Envelope) { e.RequireTLS = true }, "x@a.example", "x@b.example", "x@c.example"),
			"2.0.0 mx.a.example", "5.7.30 mx.b.example", "2.0.0 mx.c.example")
	}
	counts(t, without, 2, 2)
	counts(t, plain, 2, 0)
	counts(t, with, 2, 2)
	if _, asked := with.Messages()[0].Param("REQUIRETLS"); !asked {
		t.Error("the third domain's server was not asked for REQUIRETLS")
	}
	if _, asked := without.Messages()[0].Param("REQUIRETLS"); asked {
		t.Error("a server was asked for what it does not offer")
	}
}

// A host that lacks what REQUIRETLS asks for is skipped; the refusal is
// for good only when every host was.
func TestRequireTLSTriesTheNextHost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx1.a.example", byData)
	l.mx("mx2.a.example", offering)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
	l.mx("mx1.b.example", byData)
	l.dead("mx2.b.example")
	l.zone("b.example. MX 10 mx1.b.example.\nb.example. MX 20 mx2.b.example.")
	l.signed("example")
	l.start(strict)
	expect(t, l.sendAs(func(e *Envelope) { e.RequireTLS = true }, "x@a.example", "x@b.example"), "2.0.0 mx2.a.example", "4.4.1 mx2.b.example")
}

// A bounce goes also where the extension is not offered, or it would be lost
// (RFC 8689 §5), but not where TLS is not.
func TestRequireTLSOfABounceIsRelaxed(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx.a.example", nil)
	plain := l.mx("mx.b.example", byData)
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.")
	l.signed("example")
	l.start(strict)
	expect(t, l.sendAs(func(e *Envelope) { e.Sender, e.RequireTLS = "", true }, "x@a.example", "x@b.example"), "2.0.0 mx.a.example", "5.7.30 mx.b.example")
	counts(t, plain, 1, 0)
}

// What comes back of a message that requires TLS must not travel in the
// clear with its content (RFC 8689 §5).
func TestRequireTLSAsksForHeadersOnlyInBounces(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", offering)
	l.zone("a.example. MX 10 mx.a.example.")
	l.signed("example")
	l.start(everything)
	for _, require := range []bool{false, true} {
		expect(t, l.sendAs(func(e *Envelope) { e.Ret, e.RequireTLS = "FULL", require }, "x@a.example"), "2.0.0")
	}
	for i, want := range []string{"FULL", "HDRS"} {
		if ret, _ := server.Messages()[i].Param("RET"); ret != want {
			t.Errorf("RET=%s, want %s", ret, want)
		}
	}
}

// TestTLSRequiredNo: the header field lifts every policy for this message
// (RFC 8689 §3), wherever it may be honoured.
func TestTLSRequiredNo(t *testing.T) {
	off := func(c *Config) { everything(c); c.RequireTLSOverride = false }
	demanding := local(verdict.TLSAuthenticated, verdict.MXDNSSEC)
	dane := []thing{signedMX, signedHost, tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA256)}
	with := func(more ...thing) []thing { return append(dane[:3:3], more...) }
	const no = "TLS-Required: No\n"
	playAll(t, []scene{
		{name: "DANE", message: no, world: with(noTLS), want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/none"},
		{name: "DANE does not match", message: no, world: with(), want: "2.0.0 , webpki", saw: "tls", conns: 1},
		{name: "DANE, handshake fails", message: no, world: with(breaks), want: "2.0.0 , plaintext", saw: "plain", conns: 5},
		{name: "TLSA bogus", message: no, world: with(tlsaBroken), want: "2.0.0", saw: "tls", conns: 1},
		{name: "STS enforce, not listed", message: no, world: []thing{stsEnforceElse, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "STS enforce, untrusted", message: no, world: []thing{stsEnforce, untrusted}, want: "2.0.0 , encrypted", saw: "tls", conns: 1},
		{name: "local_policy", message: no, config: demanding, world: []thing{noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "TLS all the same where it is offered", message: no, config: demanding, want: "2.0.0 TLS1.3", saw: "tls", conns: 1},
		{name: "folded", message: "TLS-Required:\n\tNo\n", world: []thing{stsEnforce, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "odd case", message: "tls-REQUIRED:nO\n", world: []thing{stsEnforce, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "blank before the colon (RFC 5322 §4.5)", message: "TLS-Required : No\n", world: []thing{stsEnforce, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "another value", message: "TLS-Required: Nope\n", world: []thing{stsEnforce, noTLS}, want: "4.7.5", saw: "nothing", conns: 1},
		{name: "empty value", message: "TLS-Required:\n", world: []thing{stsEnforce, noTLS}, want: "4.7.5", saw: "nothing", conns: 1},
		{name: "in the body", message: "Subject: x\n\nTLS-Required: No\n", world: []thing{stsEnforce, noTLS}, want: "4.7.5", saw: "nothing", conns: 1},
		{name: "requiretls_override off, DANE", message: no, config: off, world: with(noTLS), want: "4.7.5", saw: "nothing", conns: 1},
		{name: "requiretls_override off, STS", message: no, config: off, world: []thing{stsEnforceElse}, want: "4.7.5", saw: "nothing"},
	})
}

// A TLS session that was set up without policies is not resumed under one.
func TestTLSRequiredNoLeavesNoSession(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
	l.start(everything)
	for i, resumed := range []int{0, 0, 1, 2} {
		header := ""
		if i%2 == 0 {
			header = "TLS-Required: No\n"
		}
		expect(t, l.sendText(t.Context(), header+text, "b@a.example"), "2.0.0 TLS1.3")
		if c := server.Counters(); c.Resumed != resumed {
			t.Errorf("message %d: %d sessions were resumed, want %d", i, c.Resumed, resumed)
		}
	}
}

// It is for this message alone: the connection that carried it is not given to
// the next, and what was learnt for it is not remembered for the next.
func TestTLSRequiredNoIsForOneMessage(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", byData)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
	l.startPooled(everything)
	for range 2 {
		expect(t, l.sendText(t.Context(), "TLS-Required: No\n"+text, "b@a.example"), "2.0.0 , plaintext")
		expect(t, l.send("b@a.example"), "4.7.5 STARTTLS")
	}
	for _, m := range server.Messages() {
		if !strings.HasPrefix(string(m.Body), "TLS-Required: No\r\n") {
			t.Errorf("in plaintext: %q", m.Body)
		}
	}
	if n := len(server.Messages()); n != 2 {
		t.Errorf("%d messages", n)
	}
}
