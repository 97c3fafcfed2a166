package transport

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// patient starts a transport whose deliveries wait for a slot as long as the
// test takes.
func (l *lab) patient(name string, limits limit.ByScope) *Transport {
	l.t.Helper()
	l.start(func(c *Config) { c.Name, c.Limits = name, limits })
	l.transport.base.delivery.Limits = limit.New(limit.Config{
		Limits: limits, Providers: l.transport.load, ByProvider: l.traffic.ProviderLimits, MaxWait: time.Hour,
	})
	return l.transport
}

// held has every message wait for its last reply until gate is closed.
func held(gate chan struct{}) func(*mx.Behaviour) {
	return func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate}} }
}

// bigProvider makes the hosts below mx.big.example one provider.
func (l *lab) bigProvider() *provider.Table {
	l.t.Helper()
	table, err := provider.New([]provider.Provider{{Name: "big", MX: []string{".big.example"}}})
	l.must(err)
	return table
}

// until waits for a state, or until the test has failed.
func until(t *testing.T, state func() bool) {
	t.Helper()
	for !state() {
		if t.Failed() {
			t.Fatal("it will not come to that")
		}
		time.Sleep(time.Millisecond)
	}
}

// 40 domains at one provider are one peer, whichever of its hosts they name
// and whichever transport has their mail. Another provider's mail goes on
// meanwhile, though all that waits is of the same transport.
func TestProviderIsOnePeer(t *testing.T) {
	const domains, slots = 40, 3
	l := newLab(t)
	gate := make(chan struct{})
	hosts := []*mx.Server{l.mx("mx1.big.example", held(gate)), l.mx("mx2.big.example", held(gate))}
	other := l.mx("mx.other.example", nil)
	var zone strings.Builder
	for i := range domains {
		fmt.Fprintf(&zone, "d%d.example. MX 10 mx%d.big.example.\n", i, 1+i%2)
	}
	l.zone("%so.example. MX 10 mx.other.example.", zone.String())
	l.traffic = delivery.Traffic{
		Providers: l.bigProvider(), Load: limit.NewProviders(limit.Pacing{}),
		ProviderLimits: map[string]limit.Limit{"big": {Concurrency: slots}},
	}
	all := limit.ByScope{limit.All: {Concurrency: 2 * slots}}
	ways := []*Transport{l.patient("default", all), l.patient("bulk", all)}

	for i := range 2 * domains { // so that not all ask the DNS at once
		_, err := ways[i%2].Plan(t.Context(), fmt.Sprintf("d%d.example", i/2), l.port)
		l.must(err)
	}
	var wg sync.WaitGroup
	for i := range 2 * domains {
		wg.Go(func() {
			expect(t, ways[i%2].Deliver(t.Context(), envelope(fmt.Sprintf("b@d%d.example", i/2)), msg(t, text)), "2.0.0 mx")
		})
	}
	waiting := func() (n int) {
		for _, w := range ways {
			n += w.base.delivery.Limits.Stats(limit.Provider).Waiting
		}
		return n
	}
	until(t, func() bool { return waiting() == 2*domains-slots })
	until(t, func() bool { return mails(hosts) == slots })
	for _, w := range ways {
		expect(t, w.Deliver(t.Context(), envelope("b@o.example"), msg(t, text)), "2.0.0 mx.other.example")
	}
	if n := mails(hosts); n != slots {
		t.Errorf("%d transactions at once, want %d", n, slots)
	}
	close(gate)
	wg.Wait()
	if n := hosts[0].Counters().Messages + hosts[1].Counters().Messages; n != 2*domains || other.Counters().Messages != 2 {
		t.Errorf("%d and %d messages", n, other.Counters().Messages)
	}
}

// mails is how many transactions were begun.
func mails(hosts []*mx.Server) (n int) {
	for _, h := range hosts {
		n += h.Counters().Verbs["MAIL"]
	}
	return n
}

// What is suspended while its mail waits for a slot is not dialled when the
// slot comes.
func TestSuspendedWhileWaiting(t *testing.T) {
	for name, target := range map[string]suspension.Target{
		"domain":    {Kind: suspension.Domain, Name: "b.example"},
		"provider":  {Kind: suspension.Provider, Name: "big"},
		"transport": {Kind: suspension.Transport, Name: "default"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			gate := make(chan struct{})
			server := l.mx("mx1.big.example", held(gate))
			l.zone("a.example. MX 10 mx1.big.example.\nb.example. MX 10 mx1.big.example.")
			list, err := suspension.Open("", time.Now)
			l.must(err)
			l.traffic = delivery.Traffic{Providers: l.bigProvider(), Suspended: list}
			l.patient("default", limit.ByScope{limit.Provider: {Concurrency: 1}})
			var wg sync.WaitGroup
			wg.Go(func() { expect(t, l.send("b@a.example"), "2.0.0 mx1.big.example") })
			until(t, func() bool { return server.Counters().Verbs["MAIL"] == 1 })
			wg.Go(func() { expect(t, l.send("b@b.example"), "4.3.2 ") })
			until(t, func() bool { return l.transport.base.delivery.Limits.Stats(limit.Provider).Waiting == 1 })
			l.must(list.Suspend(target, time.Time{}, "moving house"))
			close(gate)
			wg.Wait()
			if c := server.Counters(); c.Verbs["MAIL"] != 1 || c.Connections != 1 {
				t.Errorf("%d transactions over %d connections", c.Verbs["MAIL"], c.Connections)
			}
			_, err = list.Resume(target)
			l.must(err)
			expect(t, l.send("b@b.example"), "2.0.0 mx1.big.example")
		})
	}
}

// A limit at a provider that is used up decides what an explanation comes to,
// and is told of in the mail server's log.
func TestProviderLimitReached(t *testing.T) {
	l := newLab(t)
	l.mx("mx1.big.example", nil)
	l.zone("a.example. MX 10 mx1.big.example.\nb.example. MX 10 mx1.big.example.")
	l.traffic.Providers = l.bigProvider()
	l.start(func(c *Config) { c.Limits[limit.Provider] = limit.Limit{Rate: 1, Period: time.Hour} })
	expect(t, l.send("b@a.example"), "2.0.0 mx1.big.example")
	e := l.transport.Explain(t.Context(), &Question{Domain: "b.example"})
	if e.Forecast() != Undeliverable || e.Answer().Code.String() != "4.4.5" || !strings.Contains(e.Answer().Error(), "local limit for provider big") {
		t.Errorf("%v %v", e.Forecast(), e.Answer())
	}
	expect(t, l.send("b@b.example"), "4.4.5 mx1.big.example: local limit for provider big: no slot within 5s")
}

// A domain that is suspended gets no mail, whichever way it would go, and an
// explanation says so.
func TestSuspendedWhereverItGoes(t *testing.T) {
	l := newLab(t)
	l.mx("mx1.a.example", nil)
	server := l.mx("mx.other.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\nc.example. MX 10 mx.other.example.")
	list, err := suspension.Open("", time.Now)
	l.must(err)
	l.traffic = delivery.Traffic{Suspended: list}
	l.start(func(c *Config) { addOverride(c, "b.example", "[mx.other.example]", nil) })
	for _, domain := range []string{"a.example", "b.example"} {
		l.must(list.Suspend(suspension.Target{Kind: suspension.Domain, Name: domain}, time.Time{}, "moving house"))
	}
	toOther := func(e *Envelope) { e.Nexthop = "[mx.other.example]" }
	expect(t, l.sendAs(toOther, "x@a.example", "x@c.example"), "4.3.2 ", "2.0.0 mx.other.example")
	expect(t, l.send("x@b.example"), "4.3.2 ")
	for _, domain := range []string{"a.example", "b.example"} {
		if e := l.transport.Explain(t.Context(), &Question{Domain: domain}); e.Forecast() != Undeliverable || e.Answer().Code.String() != "4.3.2" {
			t.Errorf("%s: %v %v", domain, e.Forecast(), e.Answer())
		}
	}
	if c := server.Counters(); c.Messages != 1 {
		t.Errorf("%d messages", c.Messages)
	}
}
