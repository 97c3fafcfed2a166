package transport

import (
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// shaped has the lab's transport mind what receivers ask for; the hosts of
// mx.big.example are one provider. The clock is the test's.
func (l *lab) shaped(now func() time.Time) *pause.Pauses {
	l.t.Helper()
	providers, err := provider.New([]provider.Provider{{Name: "big", MX: []string{".big.example"}}})
	if err != nil {
		l.t.Fatal(err)
	}
	rules, err := replyrule.New([]replyrule.Rule{{Match: "come back later", Do: replyrule.Pause, Pause: time.Hour}})
	if err != nil {
		l.t.Fatal(err)
	}
	pauses := pause.New(now)
	l.traffic = delivery.Traffic{Providers: providers, Rules: rules, Pauses: pauses}
	return pauses
}

// A receiver that asks for a rest gets it, for all domains at its hosts, with
// nothing dialled; one message tries when the time is over. The message that
// met the reply has the reply's result, and does not try the receiver's other
// host.
func TestPause(t *testing.T) {
	l := newLab(t)
	at := time.Now()
	l.shaped(func() time.Time { return at })
	busy := mx.Action{Reply: "421 4.7.0 come back later, 192.0.2.1 (b@a.example)", Times: 1}
	first := l.mx("mx1.big.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageMAIL: busy} })
	second := l.mx("mx2.big.example", nil)
	other := l.mx("mx.other.example", nil)
	l.zone(`a.example. MX 10 mx1.big.example.
a.example. MX 20 mx2.big.example.
b.example. MX 10 mx2.big.example.
c.example. MX 10 mx.other.example.`)
	l.start(nil)

	expect(t, l.send("b@a.example"), "4.7.0 mx1.big.example: 421 4.7.0 come back later")
	if n := second.Counters().Connections; n != 0 {
		t.Errorf("the receiver's other host got %d connections", n)
	}
	r := l.send("b@b.example")
	expect(t, r, "4.4.5 provider big is paused, because of: ")
	if text := r[0].Text; !strings.Contains(text, " (mxpolicyd) (until ") {
		t.Error(text)
	}
	if text := r[0].Text; !strings.Contains(text, "because of: 421 4.7.0 come back later, … (…)") {
		t.Error(text)
	}
	e := l.transport.Explain(t.Context(), &Question{Domain: "b.example"})
	if e.Forecast() != Undeliverable || e.Answer() == nil || e.Answer().Code.String() != "4.4.5" || e.Hosts[0].Provider != "big" {
		t.Errorf("%v %v", e.Forecast(), e.Answer())
	}
	if first.Counters().Connections != 1 || second.Counters().Connections != 0 {
		t.Error("somebody was dialled during the pause")
	}
	expect(t, l.send("b@c.example"), "2.0.0 mx.other.example")
	if other.Counters().Messages != 1 {
		t.Error("others are paused too")
	}
	at = at.Add(time.Hour)
	if e := l.transport.Explain(t.Context(), &Question{Domain: "b.example"}); e.Forecast() != Deliverable {
		t.Error("the pause does not end")
	}
	expect(t, l.send("b@b.example"), "2.0.0 mx2.big.example")
	expect(t, l.send("b@a.example"), "2.0.0 mx1.big.example")
}

// A limit that is used up decides what an explanation comes to.
func TestExplainLimit(t *testing.T) {
	l := newLab(t)
	l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(func(cfg *Config) { cfg.Limits[limit.Destination] = limit.Limit{Rate: 1, Period: time.Hour} })
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"}); e.Forecast() != Deliverable {
		t.Errorf("%v", e.Answer())
	}
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"})
	if e.Forecast() != Undeliverable || e.Answer().Code.String() != "4.4.5" || !strings.Contains(e.Answer().Error(), "local limit for destination a.example") {
		t.Errorf("%v %v", e.Forecast(), e.Answer())
	}
}

// A refusal at the greeting that asks for a rest too leaves the provider's
// other host alone, which might have taken the message: so it bounces nothing.
// Where there is no other, the refusal is the result, as without the rule.
func TestRuleBouncesNothing(t *testing.T) {
	l := newLab(t)
	now := time.Now()
	l.shaped(func() time.Time { return now })
	l.mx("mx1.big.example", func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Reply: "554 5.7.1 come back later"}}
	})
	second := l.mx("mx2.big.example", nil)
	l.zone("a.example. MX 10 mx1.big.example.\na.example. MX 20 mx2.big.example.\nb.example. MX 10 mx1.big.example.")
	l.start(nil)
	expect(t, l.send("b@a.example"), "4.4.5 mx2.big.example: not tried")
	if n := second.Counters().Connections; n != 0 {
		t.Errorf("the provider's other host got %d connections", n)
	}
	now = now.Add(2 * time.Hour)
	expect(t, l.send("b@b.example"), "5.7.1 mx1.big.example: 554 5.7.1 come back later")
}
