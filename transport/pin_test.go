package transport

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// pinTo has the transport pin keys for theDomain.
func pinTo(c *Config, pins ...pin.Pin) {
	addOverride(c, theDomain, "", func(*Config) {})
	c.Overrides[len(c.Overrides)-1].Pins = pins
}

// A pinned destination takes its own key, or that of a CA in a valid path, and
// nothing else, whatever other policies say.
func TestPins(t *testing.T) {
	t.Parallel()
	own := func(l *lab) pin.Pin { return pin.Of(l.certificates[theHost].Leaf) }
	root := func(l *lab) pin.Pin { return pin.Of(l.ca.Root()) }
	another := func(*lab) pin.Pin { return pin.Pin{1} }
	no := "TLS-Required: No\r\n"
	enforce := func(l *lab) { l.policy(theDomain, mtasts.ModeEnforce, theHost) }
	dane := func(spoil bool) func(*lab) {
		return func(l *lab) {
			l.signed(theDomain, "hosts.example")
			record := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates[theHost].Leaf)
			if spoil {
				record = record.Spoiled()
			}
			l.tlsa(theHost, record)
		}
	}
	for _, tt := range []struct {
		name    string
		pin     func(*lab) pin.Pin
		cert    ca.Spec
		server  func(*mx.Behaviour)
		protect func(*lab)
		header  string
		want    string
	}{
		{name: "its own key", pin: own, want: "2.0.0 webpki"},
		{name: "its own key, expired and for another name", pin: own, cert: ca.ExpiredFor("other.example"), want: "2.0.0 pin"},
		{name: "its own key, self-signed", pin: own, cert: ca.Spec{SelfSigned: true, CommonName: "localhost"}, want: "2.0.0 pin"},
		{name: "its CA's key", pin: root, want: "2.0.0 webpki"},
		{name: "its CA's key, for another name", pin: root, cert: ca.For("other.example"), want: "4.7.5 pin"},
		{name: "its CA's key, expired", pin: root, cert: ca.ExpiredFor(theHost), want: "4.7.5 pin"},
		{name: "another key", pin: another, want: "4.7.5 pin: no pinned key; the server's own is sha256:"},
		{name: "no STARTTLS", pin: own, server: func(h *mx.Behaviour) { h.TLS = mx.TLS{} }, want: "4.7.5 pin: the server does not offer STARTTLS"},
		{name: "the handshake fails", pin: own, server: func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSBroken }, want: "4.7.5 this destination needs TLS (pin)"},
		{name: "MTA-STS too", pin: own, protect: enforce, want: "2.0.0 mtasts"},
		{name: "MTA-STS too, and only the pin", pin: own, protect: enforce, cert: ca.ExpiredFor(theHost), want: "4.7.5 MTA-STS"},
		{name: "MTA-STS too, and only that", pin: another, protect: enforce, want: "4.7.5 pin"},
		{name: "DANE too", pin: own, protect: dane(false), want: "2.0.0 dane"},
		{name: "DANE too, and only the pin", pin: own, protect: dane(true), want: "4.7.5 DANE"},
		{name: "DANE too, and only that", pin: another, protect: dane(false), want: "4.7.5 pin"},
		{name: "TLS-Required: No, another key", pin: another, header: no, want: "4.7.5 pin"},
		{name: "TLS-Required: No, its own key", pin: own, header: no, protect: dane(true), want: "2.0.0 webpki"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			spec := tt.cert
			if spec.Names == nil && !spec.SelfSigned {
				spec = ca.For(theHost)
			}
			server := l.mx(theHost, func(h *mx.Behaviour) {
				h.TLS.Certificate = l.cert(spec)
				l.certificates[theHost] = h.TLS.Certificate
				if tt.server != nil {
					tt.server(h)
				}
			})
			l.zone("%s. MX 10 %s.", theDomain, theHost)
			if tt.protect != nil {
				tt.protect(l)
			}
			l.start(func(c *Config) { everything(c); pinTo(c, pin.Pin{2}, tt.pin(l)) })
			results := l.transport.Deliver(t.Context(), envelope("b@"+theDomain), msg(t, tt.header+text))
			expect(t, results, tt.want)
			if got, want := len(server.Messages()) > 0, strings.HasPrefix(tt.want, "2"); got != want {
				t.Errorf("the message is there: %t, want %t", got, want)
			}
		})
	}
}

// A connection that did not prove a pin never serves a pinned domain, and one
// that a pinned domain opened serves it again.
func TestPinsAndThePool(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx(theHost, nil)
	l.zone("%[1]s. MX 10 %[2]s.\nb.example. MX 10 %[2]s.\nc.example. MX 10 %[2]s.", theDomain, theHost)
	l.startPooled(func(c *Config) {
		everything(c)
		pinTo(c, pin.Of(l.certificates[theHost].Leaf))
		addOverride(c, "c.example", "", func(*Config) {})
		c.Overrides[1].Pins = []pin.Pin{{1}}
	})
	expect(t, l.send("b@b.example"), "2.0.0")
	expect(t, l.send("b@"+theDomain), "2.0.0")
	expect(t, l.send("b@"+theDomain), "2.0.0 reused")
	expect(t, l.send("b@c.example"), "4.7.5 pin")
	if c := server.Counters(); c.Messages != 3 || c.Connections != 3 {
		t.Errorf("%d messages over %d connections, want 3 over 3", c.Messages, c.Connections)
	}
}

// What an override demands of its domain's hosts it demands of any to which the
// mail server's next hop leads, whatever override that one has; and where it
// demands less than the transport, the transport's demands hold.
func TestNexthopKeepsDemands(t *testing.T) {
	t.Parallel()
	authenticated := func(c *Config) { c.MXAuth.Local = &LocalPolicy{MinTLS: verdict.TLSAuthenticated} }
	encrypted := func(c *Config) { c.MXAuth.Local = &LocalPolicy{MinTLS: verdict.TLSEncrypted} }
	none := func(c *Config) { c.MXAuth = PolicySet{} }
	same := func(*Config) {}
	for _, tt := range []struct {
		name      string
		transport func(*Config)
		own, hop  func(*Config) // the overrides; nil: there is none
		pin       string        // of the domain: right, wrong, or none
		cert      ca.Spec       // of the next hop
		plain     bool
		want      string
	}{
		{name: "the pinned key", own: same, pin: "right", want: "2.0.0 hop.example"},
		{name: "another key", own: same, pin: "wrong", want: "4.7.5 pin"},
		{name: "no TLS where a key is pinned", own: same, pin: "right", plain: true, want: "4.7.5 pin"},
		{name: "another key, and an override of the next hop", own: same, hop: same, pin: "wrong", want: "4.7.5 pin"},
		{name: "local_policy", own: encrypted, want: "2.0.0 hop.example"},
		{name: "local_policy, and no TLS", own: encrypted, plain: true, want: "4.7.4 local_policy"},
		{name: "local_policy, and a wrong certificate", own: authenticated, cert: ca.For("other.example"), want: "4.7.5 local_policy"},
		{name: "the same, and a lesser one of the next hop", own: authenticated, hop: encrypted, cert: ca.For("other.example"), want: "4.7.5 local_policy"},
		{name: "a lesser one, and the same of the next hop", own: encrypted, hop: authenticated, cert: ca.For("other.example"), want: "4.7.5 local_policy"},
		{name: "less than the transport", transport: encrypted, own: none, plain: true, want: "4.7.4 local_policy"},
		{name: "nothing", own: same, plain: true, want: "2.0.0 hop.example"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.mx("hop.example", func(h *mx.Behaviour) {
				if tt.cert.Names != nil {
					h.TLS.Certificate = l.cert(tt.cert)
				}
				if tt.plain {
					h.TLS = mx.TLS{}
				}
			})
			l.mx(theHost, nil)
			l.zone("%s. MX 10 %s.", theDomain, theHost)
			l.start(func(c *Config) {
				everything(c)
				if tt.transport != nil {
					tt.transport(c)
				}
				if tt.hop != nil {
					addOverride(c, "hop.example", "", tt.hop)
				}
				addOverride(c, theDomain, "", tt.own)
				switch last := &c.Overrides[len(c.Overrides)-1]; tt.pin {
				case "right":
					last.Pins = []pin.Pin{pin.Of(l.certificates["hop.example"].Leaf)}
				case "wrong":
					last.Pins = []pin.Pin{{1}}
				}
			})
			env := envelope("b@" + theDomain)
			env.Nexthop = "[hop.example]"
			for range 2 {
				expect(t, l.transport.Deliver(t.Context(), env, msg(t, text)), tt.want)
			}
		})
	}
}
