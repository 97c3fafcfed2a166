package transport

import (
	"crypto/tls"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/verdict"

	"github.com/miekg/dns"
)

// scene is a domain, a.example, whose one mail server is mx1.hosts.example,
// and what becomes of a message to it.
type scene struct {
	name    string
	world   []thing       // what is true of the domain and its server
	config  func(*Config) // nil: all mechanisms, no local_policy
	message string        // header fields before the usual ones
	require bool          // REQUIRETLS in the envelope

	want  string // code and a part of the text
	saw   string // how the server got the message: tls, plain, or nothing
	conns int    // connections that it saw
	level string // TLS level / MX level in the log; not checked when empty
}

// thing is a fact about the world of a scene.
type thing func(l *lab, s *stage)

// stage is a scene being set.
type stage struct {
	cert   tls.Certificate
	habits []func(*mx.Behaviour)
	tlsa   []ca.Record
}

const (
	theDomain = "a.example"
	theHost   = "mx1.hosts.example"
)

// What can be true of the domain.
var (
	signedMX    thing = func(l *lab, _ *stage) { l.signed(theDomain) }
	signedHost  thing = func(l *lab, _ *stage) { l.signed("hosts.example") }
	tlsaBroken  thing = habit(dns.TypeTLSA, labdns.Bogus)
	tlsaTimeout thing = func(l *lab, _ *stage) {
		l.impatient()
		l.dns.SetFault("", dns.TypeTLSA, labdns.Silent)
	}
)

func habit(qtype uint16, habits ...labdns.Fault) thing {
	return func(l *lab, _ *stage) { l.dns.SetFault("", qtype, habits...) }
}

// tlsaOf publishes a record that matches the server.
func tlsaOf(usage ca.Usage, selector ca.Selector, matching ca.Matching) thing {
	return func(_ *lab, s *stage) {
		s.tlsa = append(s.tlsa, ca.TLSA(usage, selector, matching, s.cert.Leaf))
	}
}

// tlsaWrong publishes a record that matches nothing.
func tlsaWrong(usage ca.Usage, selector ca.Selector, matching ca.Matching) thing {
	return func(_ *lab, s *stage) {
		s.tlsa = append(s.tlsa, ca.TLSA(usage, selector, matching, s.cert.Leaf).Spoiled())
	}
}

func sts(mode mtasts.Mode, hosts ...string) thing {
	return func(l *lab, _ *stage) { l.policy(theDomain, mode, hosts...) }
}

var (
	stsEnforce           = sts(mtasts.ModeEnforce, theHost)
	stsTesting           = sts(mtasts.ModeTesting, theHost)
	stsEnforceElse       = sts(mtasts.ModeEnforce, "elsewhere.example")
	stsTestingElse       = sts(mtasts.ModeTesting, "elsewhere.example")
	stsFailed      thing = func(l *lab, _ *stage) {
		l.policies[theDomain] = policycache.Entry{Domain: theDomain, State: policycache.Failed}
	}
)

// What can be true of the server; without any it is a good one.
var (
	untrusted   thing = func(l *lab, s *stage) { s.cert = issue(l.t, l.strangers, ca.For(theHost)) }
	wrongName   thing = func(l *lab, s *stage) { s.cert = l.cert(ca.For("other.example")) }
	expired     thing = func(l *lab, s *stage) { s.cert = l.cert(ca.ExpiredFor(theHost)) }
	selfMade    thing = func(l *lab, s *stage) { s.cert = l.cert(ca.Spec{SelfSigned: true, CommonName: "localhost"}) }
	noTLS             = server(func(h *mx.Behaviour) { h.TLS = mx.TLS{} })
	refuses           = server(func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSRefused })
	breaks            = server(func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSBroken })
	hangsUp           = server(func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageHandshake: {Drop: mx.Close}} })
	breaksLater       = server(func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageEHLO: {Skip: 1, Times: 1, Drop: mx.Close}}
	})
	injects  = server(func(h *mx.Behaviour) { h.TLS.Inject = "250 injected\r\n" })
	oldTLS   = server(func(h *mx.Behaviour) { h.TLS.MinVersion, h.TLS.MaxVersion = tls.VersionTLS11, tls.VersionTLS11 })
	offersIt = server(func(h *mx.Behaviour) { h.Keywords |= mx.RequireTLS })
)

func server(change func(*mx.Behaviour)) thing {
	return func(_ *lab, s *stage) { s.habits = append(s.habits, change) }
}

// set builds the world of a scene and gives the domain's mail server.
func (sc *scene) set(l *lab) *mx.Server {
	st := stage{cert: l.cert(ca.For(theHost))}
	for _, t := range sc.world {
		t(l, &st)
	}
	server := l.mx(theHost, func(h *mx.Behaviour) {
		h.TLS.Certificate = st.cert
		for _, change := range st.habits {
			change(h)
		}
	})
	l.zone("%s. MX 10 %s.", theDomain, theHost)
	l.tlsa(theHost, st.tlsa...)
	config := sc.config
	if config == nil {
		config = everything
	}
	l.start(config)
	return server
}

// play sends the message and compares what happened, on our side and on the
// server's, with the scene.
func (sc *scene) play(t *testing.T) {
	l := newLab(t)
	server := sc.set(l)
	env := envelope("b@" + theDomain)
	env.RequireTLS = sc.require
	results := l.transport.Deliver(t.Context(), env, msg(t, sc.message+text))
	expect(t, results, sc.want)
	saw := "nothing"
	for _, m := range server.Messages() {
		if saw = "plain"; m.TLS != nil {
			saw = "tls"
		}
	}
	c := server.Counters()
	if saw != sc.saw || c.Connections != sc.conns {
		t.Errorf("the server got %s over %d connections, want %s over %d", saw, c.Connections, sc.saw, sc.conns)
	}
	if (saw == "nothing") != strings.ContainsAny(sc.want[:1], "45") {
		t.Error("what is said is not what happened")
	}
	if v := server.Violations(); len(v) > 0 {
		t.Errorf("rules broken: %v", v)
	}
	if sc.level != "" {
		delivered := l.lines("delivered")
		if len(delivered) != 1 {
			t.Fatalf("%d deliveries in the log", len(delivered))
		}
		if got := fmt.Sprint(delivered[0]["tls_level"], "/", delivered[0]["mx_level"]); got != sc.level {
			t.Errorf("the log says %s, want %s", got, sc.level)
		}
	}
	if !sc.require && sc.message == "" {
		// what it does once it does once more
		server.SetBehaviour(server.Behaviour())
		sc.explain(t, l, results[0])
	}
}

// explain holds an explanation against what a delivery did.
func (sc *scene) explain(t *testing.T, l *lab, result Result) {
	e := l.transport.Explain(t.Context(), &Question{Domain: strings.ToUpper(theDomain), Depth: Connect})
	if e.Err != nil || len(e.Hosts) != 1 || e.Domain != theDomain || e.Transport != "default" || e.Hosts[0].Host.Name != theHost {
		t.Fatalf("explained as %+v", e)
	}
	v := e.Hosts[0].Verdict
	o := l.plan(theDomain)
	if o.Err != nil || len(o.Hosts) != 1 || o.Hosts[0].Verdict.Need != v.Need || (o.Hosts[0].Verdict.Refusal == nil) != (v.Refusal == nil) || o.Hosts[0].Verdict.Reason != v.Reason {
		t.Errorf("explained as %+v, and the plan is %+v", v, o)
	}
	switch refused := v.Refusal; {
	case (refused != nil) != (sc.conns == 0):
		t.Errorf("explained as refused: %v; it saw %d connections", refused, sc.conns)
	case refused != nil && (refused.Code != result.Code || !strings.Contains(result.Text, refused.Text)):
		t.Errorf("explained as %v %q, the delivery said %v %q", refused.Code, refused.Text, result.Code, result.Text)
	}
	if sc.saw == "plain" && !v.Plaintext() || sc.saw == "nothing" && sc.conns == 1 && v.Plaintext() && v.Refusal == nil && !strings.Contains(sc.name, "injected") {
		t.Errorf("explained as %v", v.Need)
	}
	if level, _, _ := strings.Cut(sc.level, "/"); level != "" && sc.level != level+"/"+v.MX.String() {
		t.Errorf("explained as MX level %v, delivered as %s", v.MX, sc.level)
	}
	if v.Reason == "" {
		t.Error("the explanation gives no reason")
	}
	sc.probe(t, &e, result)
}

// timeless leaves the seconds out of which one follows the other.
func timeless(text string) string {
	return regexp.MustCompile(`20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`).ReplaceAllString(text, "")
}

// probe holds what a real connection showed against what a delivery did.
func (sc *scene) probe(t *testing.T, e *Explanation, result Result) {
	seen := e.Hosts[0].Probe
	switch forecast := e.Forecast(); {
	case (forecast == Deliverable) != (result.Code.Class == 2):
		t.Errorf("%v, but the delivery said %v %q", forecast, result.Code, result.Text)
	case seen == nil:
		if sc.conns > 0 {
			t.Error("it was not dialled")
		}
	case seen.Err != nil:
		if seen.Err.Code != result.Code || !strings.Contains(timeless(result.Text), timeless(reply.Line(seen.Err.Error()))) {
			t.Errorf("it said %v %q, the delivery %v %q", seen.Err.Code, seen.Err, result.Code, result.Text)
		}
	case !strings.Contains(result.Text, "("+seen.Via+", id="):
		t.Errorf("it went by %q, the delivery by %q", seen.Via, result.Text)
	case (sc.saw == "tls") != (seen.TLS != nil && seen.TLSErr == nil):
		t.Errorf("TLS: %v, %v; the delivery: %s", seen.TLS != nil, seen.TLSErr, sc.saw)
	}
}

func playAll(t *testing.T, scenes []scene) {
	t.Helper()
	t.Parallel()
	for _, sc := range scenes {
		t.Run(sc.name, func(t *testing.T) {
			t.Parallel()
			sc.play(t)
		})
	}
}

func local(minTLS verdict.TLSLevel, minMX verdict.MXLevel) func(*Config) {
	return func(c *Config) {
		everything(c)
		c.MXAuth.Local = &LocalPolicy{MinTLS: minTLS, MinMX: minMX}
	}
}

// TestVerdict plays each row of the design's table of verdicts from both
// sides, over real connections.
func TestVerdict(t *testing.T) {
	ee, weak := tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256), tlsaOf(ca.PKIXEE, ca.SPKI, ca.SHA256)
	wrong := tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA256)
	dane := []thing{signedMX, signedHost}
	with := func(more ...thing) []thing { return append(dane[:2:2], more...) }
	minDNSSEC := local(verdict.TLSNone, verdict.MXDNSSEC)
	playAll(t, []scene{
		// Nothing: opportunistic (RFC 7435).
		{name: "no policy", want: "2.0.0 webpki, TLS1.3", saw: "tls", conns: 1, level: "authenticated/none"},
		{name: "no policy, untrusted", world: []thing{untrusted}, want: "2.0.0 , encrypted, TLS1.3", saw: "tls", conns: 1, level: "encrypted/none"},
		{name: "no policy, wrong name", world: []thing{wrongName}, want: "2.0.0 , encrypted, TLS1.3", saw: "tls", conns: 1, level: "encrypted/none"},
		{name: "no policy, expired", world: []thing{expired}, want: "2.0.0 , encrypted, TLS1.3", saw: "tls", conns: 1, level: "encrypted/none"},
		{name: "no policy, no STARTTLS", world: []thing{noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/none"},
		{name: "no policy, STARTTLS refused", world: []thing{refuses}, want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/none"},
		{name: "no policy, handshake fails", world: []thing{breaks}, want: "2.0.0 , plaintext", saw: "plain", conns: 5, level: "none/none"},
		{name: "no policy, hangs up in the handshake", world: []thing{hangsUp}, want: "2.0.0 , plaintext", saw: "plain", conns: 5},
		{name: "no policy, hangs up after the handshake", world: []thing{breaksLater}, want: "2.0.0 , plaintext", saw: "plain", conns: 2, level: "none/none"},
		{name: "no policy, old TLS", world: []thing{oldTLS}, want: "2.0.0 , weak TLS, TLS1.1", saw: "tls", conns: 3, level: "none/none"},
		{name: "no policy, old TLS, legacy off", world: []thing{oldTLS},
			config: func(c *Config) { everything(c); c.TLSClient.Legacy = false }, want: "2.0.0 , plaintext", saw: "plain", conns: 5, level: "none/none"},
		{name: "no policy, plaintext injected", world: []thing{injects}, want: "4.7.5 injection", saw: "nothing", conns: 1},
		{name: "no mechanism at all", world: []thing{signedMX, signedHost, wrong, stsEnforceElse, noTLS},
			config: func(*Config) {}, want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/none"},

		// The MX set.
		{name: "signed MX set", world: []thing{signedMX}, config: minDNSSEC, want: "2.0.0", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "signed MX set, plaintext", world: []thing{signedMX, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/dnssec"},
		{name: "unsigned MX set", config: minDNSSEC, want: "4.7.5 MX level none", saw: "nothing"},
		{name: "signed MX set, dnssec off", world: []thing{signedMX},
			config: func(c *Config) { minDNSSEC(c); c.MXAuth.DNSSEC = false }, want: "4.7.5 MX level none", saw: "nothing"},

		// Usable TLSA records (RFC 7672 §2.2).
		{name: "DANE matches", world: with(untrusted, ee), want: "2.0.0 , dane, TLS1.3", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "DANE-EE, self-signed, another name (RFC 7672 §3.1.1)", world: with(selfMade, ee), want: "2.0.0 , dane, TLS1.3", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "DANE-EE, expired (RFC 7672 §3.1.1)", world: with(expired, ee), want: "2.0.0 , dane, TLS1.3", saw: "tls", conns: 1},
		{name: "DANE matches, unsigned MX set (RFC 7672 §2.2.1)", world: []thing{signedHost, ee},
			want: "2.0.0 dane for an unsigned MX", saw: "tls", conns: 1, level: "authenticated/none"},
		{name: "DANE does not match", world: with(wrong), want: "4.7.5 DANE", saw: "nothing", conns: 1},
		{name: "DANE, no STARTTLS", world: with(ee, noTLS), want: "4.7.5 STARTTLS", saw: "nothing", conns: 1},
		{name: "DANE, STARTTLS refused", world: with(ee, refuses), want: "4.7.5 TLS failed", saw: "nothing", conns: 1},
		{name: "DANE, handshake fails", world: with(ee, breaks), want: "4.7.5 3 hellos: full, classical, compatible; this destination needs TLS (DANE)", saw: "nothing", conns: 3},
		{name: "DANE, hangs up after the handshake", world: with(ee, breaksLater), want: "4.4.2 EHLO after STARTTLS", saw: "nothing", conns: 1},
		{name: "DANE, plaintext injected", world: with(ee, injects), want: "4.7.5 injection", saw: "nothing", conns: 1},
		{name: "DANE off", world: with(wrong, noTLS), config: func(c *Config) { everything(c); c.MXAuth.DANE = false },
			want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "unsigned TLSA and addresses are ignored (RFC 7672 §2.2.2)", world: []thing{signedMX, wrong, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "strongest digest alone counts (RFC 7671 §9)", world: with(ee, tlsaWrong(ca.DANEEE, ca.SPKI, ca.SHA512)), want: "4.7.5 DANE", saw: "nothing", conns: 1},

		// None usable (RFC 7672 §2.2).
		{name: "unusable TLSA, TLS", world: with(weak, untrusted), want: "2.0.0 , encrypted", saw: "tls", conns: 1, level: "encrypted/dnssec"},
		{name: "unusable TLSA, no STARTTLS", world: with(weak, noTLS), want: "4.7.4 STARTTLS", saw: "nothing", conns: 1},
		{name: "unusable TLSA, handshake fails", world: with(weak, breaks), want: "4.7.4 3 hellos", saw: "nothing", conns: 3},

		// The look-up failed (RFC 7672 §2.1.2).
		{name: "TLSA bogus", world: with(ee, tlsaBroken), want: "4.7.5 TLSA records cannot be looked up", saw: "nothing"},
		{name: "TLSA times out", world: with(ee, tlsaTimeout), want: "4.7.5 TLSA records cannot be looked up", saw: "nothing"},
		{name: "TLSA bogus, DANE off", world: with(tlsaBroken), config: func(c *Config) { everything(c); c.MXAuth.DANE = false }, want: "2.0.0", saw: "tls", conns: 1},
		{name: "TLSA never asked for where addresses are unsigned", world: []thing{signedMX, tlsaBroken}, want: "2.0.0", saw: "tls", conns: 1},

		// MTA-STS (RFC 8461 §4, §5).
		{name: "STS enforce", world: []thing{stsEnforce}, want: "2.0.0 , mtasts, TLS1.3", saw: "tls", conns: 1, level: "authenticated/mtasts"},
		{name: "STS enforce, wildcard", world: []thing{sts(mtasts.ModeEnforce, "*.hosts.example")}, want: "2.0.0 , mtasts", saw: "tls", conns: 1},
		{name: "STS enforce, not listed", world: []thing{stsEnforceElse}, want: "4.7.5 does not list this host", saw: "nothing"},
		{name: "STS enforce, untrusted", world: []thing{stsEnforce, untrusted}, want: "4.7.5 MTA-STS: x509", saw: "nothing", conns: 1},
		{name: "STS enforce, wrong name", world: []thing{stsEnforce, wrongName}, want: "4.7.5 MTA-STS: x509", saw: "nothing", conns: 1},
		{name: "STS enforce, expired", world: []thing{stsEnforce, expired}, want: "4.7.5 expired", saw: "nothing", conns: 1},
		{name: "STS enforce, no STARTTLS", world: []thing{stsEnforce, noTLS}, want: "4.7.5 STARTTLS", saw: "nothing", conns: 1},
		{name: "STS enforce, STARTTLS refused", world: []thing{stsEnforce, refuses}, want: "4.7.5 TLS failed", saw: "nothing", conns: 1},
		{name: "STS enforce, handshake fails", world: []thing{stsEnforce, breaks}, want: "4.7.5 3 hellos", saw: "nothing", conns: 3},
		{name: "STS enforce, hangs up after the handshake", world: []thing{stsEnforce, breaksLater}, want: "4.4.2 EHLO after STARTTLS", saw: "nothing", conns: 1},
		{name: "STS enforce, TLS 1.1 although tls_client allows it", world: []thing{stsEnforce, oldTLS},
			config: func(c *Config) { everything(c); c.TLSClient.MinVersion = tls.VersionTLS10 }, want: "4.7.5 the server speaks none of TLS 1.2 and TLS 1.3; this destination needs TLS 1.2 (MTA-STS)", saw: "nothing", conns: 3},
		{name: "TLS 1.1 where tls_client allows it", world: []thing{oldTLS},
			config: func(c *Config) { everything(c); c.TLSClient.MinVersion = tls.VersionTLS10 }, want: "2.0.0 TLS1.1", saw: "tls", conns: 1},
		{name: "STS testing, not listed, no STARTTLS", world: []thing{stsTestingElse, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1, level: "none/none"},
		{name: "STS testing, untrusted", world: []thing{stsTesting, untrusted}, want: "2.0.0 , encrypted", saw: "tls", conns: 1, level: "encrypted/mtasts"},
		{name: "STS testing, handshake fails", world: []thing{stsTesting, breaks}, want: "2.0.0 , plaintext", saw: "plain", conns: 5, level: "none/mtasts"},
		{name: "STS off", world: []thing{stsEnforceElse, noTLS}, config: func(c *Config) { everything(c); c.MXAuth.MTASTS = nil },
			want: "2.0.0 , plaintext", saw: "plain", conns: 1},
		{name: "STS unknown (RFC 8461 §3.3)", world: []thing{stsFailed, noTLS}, want: "2.0.0 , plaintext", saw: "plain", conns: 1},

		// Both (RFC 8461 §2).
		{name: "DANE-EE self-signed under STS enforce", world: with(selfMade, ee, stsEnforce), want: "2.0.0 , dane", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "DANE fails, STS would be satisfied", world: with(wrong, stsEnforce), want: "4.7.5 DANE", saw: "nothing", conns: 1},
		{name: "DANE, signed MX set, STS does not list the host", world: with(ee, stsEnforceElse), want: "2.0.0 , dane", saw: "tls", conns: 1},
		{name: "DANE, unsigned MX set, STS does not list the host", world: []thing{signedHost, ee, stsEnforceElse}, want: "4.7.5 does not list", saw: "nothing"},
		{name: "DANE, unsigned MX set, STS lists the host", world: []thing{signedHost, selfMade, ee, stsEnforce}, want: "2.0.0 dane for an unsigned MX", saw: "tls", conns: 1, level: "authenticated/mtasts"},
		{name: "TLSA bogus, STS would be satisfied", world: with(tlsaBroken, stsEnforce), want: "4.7.5 TLSA", saw: "nothing"},
		{name: "unusable TLSA, STS satisfied", world: with(weak, stsEnforce), want: "2.0.0 , mtasts", saw: "tls", conns: 1, level: "authenticated/dnssec"},
		{name: "unusable TLSA, STS not satisfied", world: with(weak, stsEnforce, untrusted), want: "4.7.5 MTA-STS", saw: "nothing", conns: 1},

		// local_policy.
		{name: "min_tls encrypted, TLS", world: []thing{untrusted}, config: local(verdict.TLSEncrypted, verdict.MXNone), want: "2.0.0 , encrypted", saw: "tls", conns: 1},
		{name: "min_tls encrypted, no STARTTLS", world: []thing{noTLS}, config: local(verdict.TLSEncrypted, verdict.MXNone), want: "4.7.4 local_policy", saw: "nothing", conns: 1},
		{name: "min_tls encrypted, handshake fails", world: []thing{breaks}, config: local(verdict.TLSEncrypted, verdict.MXNone), want: "4.7.4 3 hellos", saw: "nothing", conns: 3},
		{name: "min_tls encrypted, hangs up after the handshake", world: []thing{breaksLater}, config: local(verdict.TLSEncrypted, verdict.MXNone), want: "4.4.2 EHLO after STARTTLS", saw: "nothing", conns: 1},
		{name: "min_tls authenticated, WebPKI", config: local(verdict.TLSAuthenticated, verdict.MXNone), want: "2.0.0 , webpki", saw: "tls", conns: 1},
		{name: "min_tls authenticated, DANE", world: with(selfMade, ee), config: local(verdict.TLSAuthenticated, verdict.MXDNSSEC), want: "2.0.0 , dane", saw: "tls", conns: 1},
		{name: "min_tls authenticated, untrusted", world: []thing{untrusted}, config: local(verdict.TLSAuthenticated, verdict.MXNone), want: "4.7.5 local_policy", saw: "nothing", conns: 1},
		{name: "min_mx mtasts, listed", world: []thing{stsEnforce}, config: local(verdict.TLSNone, verdict.MXMTASTS), want: "2.0.0", saw: "tls", conns: 1},
		{name: "min_mx mtasts, no policy", config: local(verdict.TLSNone, verdict.MXMTASTS), want: "4.7.5 MX level none", saw: "nothing"},
		{name: "min_mx mtasts, testing, not listed", world: []thing{stsTestingElse}, config: local(verdict.TLSNone, verdict.MXMTASTS), want: "4.7.5 MX level none", saw: "nothing"},
		{name: "min_mx mtasts, testing, listed", world: []thing{stsTesting}, config: local(verdict.TLSNone, verdict.MXMTASTS), want: "2.0.0", saw: "tls", conns: 1},
		{name: "min_mx mtasts, signed", world: []thing{signedMX}, config: local(verdict.TLSNone, verdict.MXMTASTS), want: "2.0.0", saw: "tls", conns: 1},
		{name: "min_mx dnssec, only mtasts", world: []thing{stsEnforce}, config: minDNSSEC, want: "4.7.5 MX level mtasts", saw: "nothing"},
	})
}

// Testing mode lets everything pass, and every way in which enforcing would
// not have is in the log (RFC 8461 §5).
func TestTestingModeIsLogged(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		world []thing
		want  string
	}{
		{[]thing{stsTesting}, ""},
		{[]thing{stsTestingElse}, "does not list this host"},
		{[]thing{stsTesting, untrusted}, "unknown authority"},
		{[]thing{stsTesting, noTLS}, "no TLS"},
		{[]thing{stsTesting, refuses}, "no TLS"},
		{[]thing{stsTesting, breaks}, "no TLS"},
	} {
		l := newLab(t)
		sc := scene{world: tt.world}
		sc.set(l)
		expect(t, l.send("b@"+theDomain), "2.0.0")
		line := l.lines("delivered")[0]
		if got, _ := line["testing"].(string); tt.want == "" && got != "" || !strings.Contains(got, tt.want) {
			t.Errorf("testing=%q is in the log, want %q", got, tt.want)
		}
	}
}
