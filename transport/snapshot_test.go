package transport

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/limit"
)

// A snapshot tells of deliveries under way, idle connections, dead hosts and
// limits; an explanation of one domain knows them too.
func TestSnapshot(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	gate := make(chan struct{})
	l.mx("mx1.a.example", nil)
	slow := l.mx("mx1.slow.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Hold: gate}} })
	l.zone("a.example. MX 10 mx1.a.example.\nslow.example. MX 10 mx1.slow.example.\ngone.example. MX 10 mx1.gone.example.")
	l.dead("mx1.gone.example")
	l.startPooled(func(c *Config) {
		c.Limits[limit.Destination] = limit.Limit{Concurrency: 2}
		addOverride(c, "gone.example", "", func(c *Config) { c.Limits = limit.ByScope{limit.All: {Rate: 5, Period: 1e9}} })
	})
	expect(t, l.send("x@a.example"), "2.0.0 ")
	expect(t, l.send("x@gone.example"), "4.4.1 ")
	done := make(chan []Result)
	go func() { done <- l.send("x@slow.example", "y@slow.example") }()
	if err := slow.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Verbs["RCPT"] > 0 }); err != nil {
		t.Fatal(err)
	}
	s := l.transport.Snapshot()
	if s.Name != "default" || s.Idle.Idle != 1 || len(s.IdleHosts) != 1 || s.IdleHosts[0] != (IdleHost{Host: "mx1.a.example", Port: l.port, Count: 1}) {
		t.Errorf("idle: %+v, %+v", s.Idle, s.IdleHosts)
	}
	if len(s.InProgress) != 1 {
		t.Fatalf("under way: %+v", s.InProgress)
	}
	if u := s.InProgress[0]; u.QueueID != "4XyZ" || u.ID != "test" || u.Destination != "slow.example" || u.Host != "mx1.slow.example" || u.Recipients != 2 || u.Since.IsZero() {
		t.Errorf("under way: %+v", u)
	}
	if len(s.Dead) != 1 || !strings.HasPrefix(s.Dead[0].Host, "mx1.gone.example:") || s.Dead[0].Failures != 1 {
		t.Errorf("dead: %+v", s.Dead)
	}
	if len(s.Limits) != 2 || s.Limits[0].Scope != limit.Destination || s.Limits[0].Open != 1 || s.Limits[1].Override != "gone.example" || s.Limits[1].Scope != limit.All {
		t.Errorf("limits: %+v", s.Limits)
	}

	e := l.transport.Explain(t.Context(), &Question{Domain: "slow.example"})
	if e.Limit == nil || e.Limit.Open != 1 || e.Forecast() != Deliverable {
		t.Errorf("%+v, %v", e.Limit, e.Forecast())
	}
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect}); e.Hosts[0].Idle != 1 || e.Forecast() != Deliverable {
		t.Errorf("%+v", e.Hosts[0])
	}
	if e := l.transport.Explain(t.Context(), &Question{Domain: "gone.example"}); e.Hosts[0].Dead == nil || e.Forecast() != Undeliverable || e.Limit != nil {
		t.Errorf("%+v, %v", e.Hosts[0].Dead, e.Forecast())
	}
	close(gate)
	expect(t, <-done, "2.0.0 ", "2.0.0 ")
	if s := l.transport.Snapshot(); len(s.InProgress) != 0 {
		t.Errorf("under way: %+v", s.InProgress)
	}
}

// What an administrator finds alive is tried again by deliveries.
func TestProbeClearsDeadHost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Drop: mx.Close, Times: 1}} })
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	expect(t, l.send("x@a.example"), "4.4.2 ")
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"}); e.Hosts[0].Dead == nil {
		t.Error("it is not dead")
	}
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect}); e.Hosts[0].Dead != nil || e.Forecast() != Deliverable {
		t.Errorf("%+v", e.Hosts[0])
	}
	expect(t, l.send("x@a.example"), "2.0.0 ")
	counts(t, server, 3, 1)
}
