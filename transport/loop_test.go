package transport

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// Dialogues with a server, up to what it says of itself.
const (
	takes        = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 taken\nC? QUIT"
	helloPlain   = "C: EHLO *\nS: 250-mx.a.example\nS: 250 SIZE\n"
	greetsAsUs   = "S: 220 client.example ESMTP\nEND"
	greetsAsSelf = "S: 220 mx.a.example ESMTP\n"
	startsTLS    = greetsAsSelf + "C: EHLO *\nS: 250-mx.a.example\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS good\nC: EHLO *\n"
)

// A server that has our own name is this host: under NAT, or by an address that
// nothing tells of. It gets nothing (RFC 5321 §5.1).
func TestLoopsByName(t *testing.T) {
	t.Parallel()
	one := "a.example. MX 10 mx.a.example."
	for _, c := range []struct {
		name     string
		dialogue string
		zone     string // of a.example; empty: mx.a.example alone
		config   func(*Config)
		own      string // the mail server's name, if not the transport's
		change   func(*Envelope)
		to       string // empty: b@a.example
		want     string
	}{
		{name: "in the greeting", dialogue: greetsAsUs, want: "5.4.6 mx.a.example: loops back to this host: the server calls itself client.example, as we do"},
		{name: "in the first of several lines", dialogue: "S: 220-client.example\nS: 220 ready\nEND", want: "5.4.6 loops back"},
		{name: "in another letter case, with a dot", dialogue: "S: 220 Client.EXAMPLE. ESMTP\nEND", want: "5.4.6 loops back"},
		{name: "alone", dialogue: "S: 220 client.example\nEND", want: "5.4.6 loops back"},
		{name: "in the reply to EHLO", dialogue: greetsAsSelf + "C: EHLO *\nS: 250-client.example Hello\nS: 250 SIZE\nEND", want: "5.4.6 loops back"},
		{name: "in the reply to HELO", dialogue: greetsAsSelf + "C: EHLO *\nS: 502 what\nC: HELO *\nS: 250 client.example\nEND", want: "5.4.6 loops back"},
		{name: "in the reply to EHLO after STARTTLS", dialogue: startsTLS + "S: 250-client.example\nS: 250 SIZE\nEND", want: "5.4.6 loops back"},
		{name: "of the mail server beside us", dialogue: "S: 220 mail.example ESMTP\nEND", own: "mail.example", want: "5.4.6 itself mail.example, as we do"},
		{name: "at an address without a name", dialogue: greetsAsUs, to: "b@[ADDRESS]", want: "5.4.6 loops back"},

		{name: "another host takes it", dialogue: greetsAsUs, zone: one + "\na.example. MX 20 other.a.example.", want: "2.0.0 other.a.example"},
		{name: "another host is down", dialogue: greetsAsUs, zone: one + "\na.example. MX 20 down.a.example.", want: "4.4.1 down.a.example"},
		{name: "another address takes it", dialogue: greetsAsUs, zone: one + "\nmx.a.example. A OTHER", want: "2.0.0 mx.a.example"},

		// Where TLS is required nobody outside of it has spoken for the host.
		{name: "outside of TLS that a policy requires", dialogue: greetsAsUs, config: enforced, want: "4.4.6 loops back"},
		{name: "outside of TLS that the message requires", dialogue: greetsAsUs, config: enforced, change: func(e *Envelope) { e.RequireTLS = true }, want: "4.4.6 loops back"},
		{name: "within TLS that a policy requires", dialogue: startsTLS + "S: 250-client.example\nS: 250 SIZE\nEND", config: enforced, want: "5.4.6 loops back"},

		// What the administrator named is no fault of an address.
		{name: "a next hop by MX", dialogue: greetsAsUs, change: func(e *Envelope) { e.Nexthop = "a.example" }, to: "b@b.example", want: "4.4.6 loops back"},
		{name: "a next hop that may be this host", dialogue: "S: 220 client.example\nC: EHLO *\nS: 250 client.example\n" + takes,
			change: func(e *Envelope) { e.Nexthop = "[mx.a.example]" }, want: "2.0.0 mx.a.example"},
		{name: "a relay that may be this host", dialogue: "S: 220 client.example\nC: EHLO *\nS: 250 client.example\n" + takes,
			config: func(c *Config) { c.Relay = &relay.Relay{Host: "mx.a.example", Port: c.Port, TLS: relay.NoTLS} }, want: "2.0.0 mx.a.example"},

		{name: "a name that begins as ours", dialogue: "S: 220 client.example.net ESMTP\n" + helloPlain + takes, want: "2.0.0"},
		{name: "our name in another place", dialogue: "S: 220 mx.a.example client.example\nC: EHLO *\nS: 250-mx.a.example Hello client.example\nS: 250 client.example\n" + takes, want: "2.0.0"},
		{name: "a name that others have too", dialogue: "S: 220 localhost ESMTP\n" + helloPlain + takes, config: func(c *Config) { c.Hostname = "localhost" }, want: "2.0.0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.play("mx.a.example", c.dialogue)
			other := l.mx("other.a.example", nil)
			l.dead("down.a.example")
			if c.zone == "" {
				c.zone = one
			}
			ip := func(addr string) string { host, _, _ := strings.Cut(addr, ":"); return host }
			l.zone("%s", strings.ReplaceAll(c.zone, "OTHER", ip(other.Addr())))
			l.policy("a.example", mtasts.ModeEnforce, "mx.a.example")
			if c.own != "" {
				l.self.Names = []string{c.own}
			}
			l.start(c.config)
			if c.to == "" {
				c.to = "b@a.example"
			}
			expect(t, l.sendAs(func(e *Envelope) {
				if c.change != nil {
					c.change(e)
				}
			}, strings.ReplaceAll(c.to, "ADDRESS", ip(server.Addr()))), c.want)
		})
	}
}

// enforced has MTA-STS policies count.
func enforced(c *Config) { c.MXAuth = PolicySet{MTASTS: &MTASTS{}} }

// An explanation that dials finds the loop as a delivery does; it is no session
// of TLS that anybody reports on.
func TestLoopIsExplained(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	w := l.watch()
	l.play("mx.a.example", greetsAsUs, greetsAsUs)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(everything)
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect})
	if e.Forecast() != Undeliverable || e.Answer() == nil || e.Answer().Code.String() != "5.4.6" || !strings.Contains(e.Answer().Error(), "loops back to this host") {
		t.Errorf("%v: %v", e.Forecast(), e.Answer())
	}
	if e.Hosts[0].Dead != nil {
		t.Errorf("a host that answers is dead: %v", e.Hosts[0].Dead)
	}
	expect(t, l.send("b@a.example"), "5.4.6")
	if events := w.take(); len(events) != 1 || len(events[0].Attempts) != 0 {
		t.Errorf("%+v", events)
	}
	if lines := l.lines("refused"); len(lines) != 1 || lines[0]["cause"] != "dns" {
		t.Errorf("%v", lines)
	}
}
