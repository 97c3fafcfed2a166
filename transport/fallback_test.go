package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// distrusting is a lab with a fallback relay, a receiver that refuses this
// address's reputation, and a clock of its own.
func distrusting(t *testing.T, trusted bool, change func(*lab, *Config)) (l *lab, server, way *mx.Server, pass func(time.Duration)) {
	l = newLab(t)
	now := time.Now()
	clock := func() time.Time { return now }
	l.shaped(clock)
	l.failing, _ = fallback.Open("", clock)
	server = l.mx("mx1.a.example", func(h *mx.Behaviour) { says(h, mx.StageMAIL, "450 4.7.0 come back later") })
	way = l.submission(nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(func(c *Config) {
		everything(c)
		c.ConnReuseLimit = 1000
		c.FallbackRelay = &relay.Fallback{Relay: *l.relayed(), After: 30 * time.Minute, Trusted: trusted}
		if change != nil {
			change(l, c)
		}
	})
	return l, server, way, func(d time.Duration) { now = now.Add(d) }
}

// A hundred messages to a receiver that distrusts this address: those of the
// first half hour wait, the others go by the relay, until the receiver takes
// one.
func TestFallbackRelay(t *testing.T) {
	t.Parallel()
	var events []*Event
	l, server, way, pass := distrusting(t, false, func(l *lab, _ *Config) { l.observe = func(e *Event) { events = append(events, e) } })
	expect(t, l.send("b@a.example"), "4.7.0 mx1.a.example: 450 4.7.0 come back later")
	pass(29 * time.Minute)
	expect(t, l.send("b@a.example"), "4.4.5 provider a.example is paused")
	pass(time.Minute)
	for range 98 {
		expect(t, l.send("b@a.example", "c@a.example"),
			"2.0.0 smtp.relay.example: 250 2.0.0", "2.0.0 , via relay smtp.relay.example, webpki, ")
	}
	if n := len(way.Messages()); n != 98 || way.Counters().Logins != 1 || len(way.Messages()[0].Recipients) != 2 {
		t.Errorf("the relay got %d messages, %d logins", n, way.Counters().Logins)
	}
	line := l.lines("delivered")[0]
	if line["relay"] != fmt.Sprintf("smtp.relay.example:%d", l.port) || !strings.HasPrefix(fmt.Sprint(line["direct"]), "4.4.5 ") {
		t.Errorf("%v", line)
	}
	if n := len(l.lines("deferred")); n != 2 {
		t.Errorf("%d lines say deferred", n)
	}
	if last := events[len(events)-1]; !last.Fallback || last.Relay == "" || len(last.Results) != 2 || len(events) != 100 {
		t.Errorf("%d events, the last is %+v", len(events), last)
	}
	// The pause is over, and the receiver takes mail again.
	pass(time.Hour)
	server.SetBehaviour(mx.Modern(l.certificates["mx1.a.example"]))
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example: 250")
	// A new failure is a new half hour.
	h := mx.Modern(l.certificates["mx1.a.example"])
	says(&h, mx.StageMAIL, "450 4.7.0 come back later")
	server.SetBehaviour(h)
	expect(t, l.send("b@a.example"), "4.7.0 mx1.a.example: 450")
	l.passwordIsNowhere()
}

// What is no reachability and no reputation stays with the receiver's word, and
// no policy is gone past unless the relay is trusted.
func TestFallbackRelayKeepsOut(t *testing.T) {
	t.Parallel()
	dead := func(_ *lab, h *mx.Behaviour) { says(h, mx.StageGreeting, "554 5.7.1 no mail from you") }
	enforce := func(l *lab, _ *Config) { l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example") }
	for name, tt := range map[string]struct {
		behave  func(*lab, *mx.Behaviour)
		change  func(*lab, *Config)
		env     func(*Envelope)
		text    string
		trusted bool
		want    string
	}{
		"greeting 5yz":              {behave: dead, want: "2.0.0 via relay"},
		"EHLO 4yz":                  {behave: func(_ *lab, h *mx.Behaviour) { says(h, mx.StageEHLO, "450 4.7.1 not you") }, want: "2.0.0 via relay"},
		"greeting lost":             {behave: func(_ *lab, h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Drop: mx.Close}} }, want: "2.0.0 via relay"},
		"an ordinary 4yz":           {behave: func(_ *lab, h *mx.Behaviour) { says(h, mx.StageMAIL, "450 4.2.0 greylisted") }, want: "4.2.0 mx1.a.example: 450"},
		"5yz to a recipient":        {behave: func(_ *lab, h *mx.Behaviour) { says(h, mx.StageRCPT, "550 5.7.1 come back later") }, want: "5.7.1 mx1.a.example: 550"},
		"4yz to the message":        {behave: func(_ *lab, h *mx.Behaviour) { says(h, mx.StageFinal, "451 4.3.0 full") }, want: "4.3.0 mx1.a.example: 451"},
		"cut before the reply":      {behave: func(_ *lab, h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Drop: mx.Close}} }, want: "4.4.2 mx1.a.example"},
		"cut after the envelope":    {behave: func(_ *lab, h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Drop: mx.Close}} }, want: "4.4.2 mx1.a.example"},
		"MTA-STS":                   {behave: dead, change: enforce, want: "4.7.1 mx1.a.example: 554"},
		"MTA-STS, trusted":          {behave: dead, change: enforce, trusted: true, want: "2.0.0 via relay"},
		"MTA-STS, TLS-Required: No": {behave: dead, change: enforce, text: "TLS-Required: No\n" + text, want: "2.0.0 via relay"},
		"MTA-STS, wrong certificate, trusted": {behave: func(l *lab, h *mx.Behaviour) { h.TLS.Certificate = l.certificates["smtp.relay.example"] }, change: enforce, trusted: true,
			want: "4.7.5 mx1.a.example: MTA-STS"},
		"local_policy":          {behave: dead, change: func(_ *lab, c *Config) { c.MXAuth.Local = &LocalPolicy{MinTLS: 1} }, want: "4.7.1 mx1.a.example: 554"},
		"local_policy, trusted": {behave: dead, change: func(_ *lab, c *Config) { c.MXAuth.Local = &LocalPolicy{MinTLS: 1} }, trusted: true, want: "2.0.0 via relay"},
		"REQUIRETLS, trusted":   {behave: dead, change: enforce, env: func(e *Envelope) { e.RequireTLS = true }, trusted: true, want: "4.7.1 mx1.a.example: 554"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l, server, way, pass := distrusting(t, tt.trusted, tt.change)
			h := mx.Modern(l.certificates["mx1.a.example"])
			tt.behave(l, &h)
			server.SetBehaviour(h)
			if tt.text == "" {
				tt.text = text
			}
			send := func() []Result {
				env := envelope("b@a.example")
				if tt.env != nil {
					tt.env(env)
				}
				return l.transport.Deliver(t.Context(), env, msg(t, tt.text))
			}
			first := send()
			if first[0].Code.String() == "2.0.0" {
				t.Errorf("the first goes: %s", first[0].Text)
			}
			if strings.HasPrefix(tt.want, "2") && first[0].Code.Class != 4 {
				t.Errorf("what will go by the relay is refused before: %v %s", first[0].Code, first[0].Text)
			}
			pass(2 * time.Hour)
			expect(t, send(), tt.want)
			if got := len(way.Messages()) > 0; got != strings.HasPrefix(tt.want, "2") {
				t.Errorf("the relay got a message: %v", got)
			}
		})
	}
}

// A relay that is down has a second one step in; both have their own login.
func TestFallbackOfARelay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	now := time.Now()
	l.failing, _ = fallback.Open("", func() time.Time { return now })
	l.dead("first.relay.example")
	way := l.submission(nil)
	l.start(func(c *Config) {
		c.Relay = &relay.Relay{Host: "first.relay.example", Port: l.port}
		c.FallbackRelay = &relay.Fallback{Relay: *l.relayed(), After: time.Minute}
	})
	expect(t, l.send("b@a.example"), "4.4.1 first.relay.example")
	now = now.Add(time.Minute)
	expect(t, l.send("b@a.example"), "2.0.0 smtp.relay.example: 250")
	if m := way.Messages(); len(m) != 1 || m[0].User != "bob" {
		t.Errorf("%+v", m)
	}
}
