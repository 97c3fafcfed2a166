package transport

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/status"
)

// blackHole listens at an address and never says a word.
func (l *lab) blackHole(name string) net.Listener {
	l.t.Helper()
	addr := l.address()
	hole, err := forks.Listen("tcp", fmt.Sprintf("%s:%d", addr, l.port))
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { hole.Close() })
	l.zone("%s. A %s", name, addr)
	return hole
}

// Many deliveries to a host that never answers: one finds out, the others are
// told, and no one is kept for the whole time-out but the first.
func TestBlackHole(t *testing.T) {
	l := newLab(t)
	hole := l.blackHole("mx1.a.example")
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(func(c *Config) { c.CommandTimeout = 2 * time.Second })
	var all sync.WaitGroup
	var mu sync.Mutex
	told := 0
	for range 200 {
		all.Go(func() {
			r := l.send("b@a.example")[0]
			mu.Lock()
			defer mu.Unlock()
			if r.Code.Class != 4 {
				t.Errorf("%v %s", r.Code, r.Text)
			}
			if strings.Contains(r.Text, "not tried") || strings.Contains(r.Text, "dead") || strings.Contains(r.Text, "reach") {
				told++
			}
		})
	}
	all.Wait()
	if told < 199 {
		t.Errorf("%d of 200 were told that the host is dead", told)
	}
	connections := 0
	hole.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(50 * time.Millisecond))
	for {
		conn, err := hole.Accept()
		if err != nil {
			break
		}
		conn.Close()
		connections++
	}
	if connections != 1 {
		t.Errorf("the host had %d connections, want 1", connections)
	}
}

// A dead host that comes back is found by one trial at a time, and then
// everything flows.
func TestDeadHostComesBack(t *testing.T) {
	l := newLab(t)
	hole := l.blackHole("mx1.a.example")
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(func(c *Config) { c.CommandTimeout = 2 * time.Second })
	l.transport.conns.Dead = deadhost.New(deadhost.Options{Min: time.Millisecond, Max: time.Millisecond})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if r := l.send("b@a.example")[0]; r.Code.Class != 4 {
				t.Errorf("%v %s", r.Code, r.Text)
			}
		})
	}
	all.Wait()
	addr := hole.Addr().String()
	l.must(hole.Close())
	server, err := mx.Start(mx.Options{Addr: addr, Behaviour: mx.Modern(l.cert(ca.For("mx1.a.example")))})
	l.must(err)
	t.Cleanup(func() { server.Stop() })
	for l.send("b@a.example")[0].Code.Class != 2 {
		time.Sleep(time.Millisecond)
	}
	if peak := server.Counters().Peak; peak != 1 {
		t.Errorf("%d trials at once", peak)
	}
	for range 50 {
		all.Go(func() { expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example") })
	}
	all.Wait()
}

// limits.*.concurrency, as the server sees it: it gets no MAIL command beyond.
func TestConcurrencyLimits(t *testing.T) {
	for name, tt := range map[string]struct {
		limits limit.ByScope
		scope  limit.Scope
	}{
		"all":         {limit.ByScope{limit.All: {Concurrency: 3}}, limit.All},
		"ip":          {limit.ByScope{limit.IP: {Concurrency: 3}}, limit.IP},
		"source":      {limit.ByScope{limit.Source: {Concurrency: 3}}, limit.Source},
		"destination": {limit.ByScope{limit.Destination: {Concurrency: 3}}, limit.Destination},
		"provider":    {limit.ByScope{limit.Provider: {Concurrency: 3}}, limit.Provider},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			gate := make(chan struct{})
			server := l.mx("mx1.a.example", func(h *mx.Behaviour) {
				h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate}}
			})
			l.zone("a.example. MX 10 mx1.a.example.")
			l.startPooled(func(c *Config) { c.Limits = tt.limits })
			// The host is known to be alive, so that all go at once.
			first := make(chan struct{})
			go func() {
				defer close(first)
				l.send("b@a.example")
			}()
			gate <- struct{}{}
			<-first
			var all sync.WaitGroup
			for range 12 {
				all.Go(func() { expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example") })
			}
			err := server.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Verbs["MAIL"] == 4 })
			for err == nil && l.transport.base.limits.Stats(tt.scope).Waiting < 9 {
				time.Sleep(time.Millisecond)
			}
			if c := server.Counters(); err != nil || c.Verbs["MAIL"] != 4 {
				t.Errorf("%d transactions, want the first and 3 at once; %v", c.Verbs["MAIL"], err)
			}
			close(gate)
			all.Wait()
			if c := server.Counters(); c.Messages != 13 {
				t.Errorf("%d messages, want 13", c.Messages)
			}
		})
	}
}

// limits.*.rate, as the server sees it: a bucket that starts full, for each
// key of its scope.
func TestRateLimits(t *testing.T) {
	t.Parallel()
	five := limit.Limit{Rate: 5, Period: 24 * time.Hour}
	tests := map[string]struct {
		limits limit.ByScope
		// of 36 messages from 2 sender domains to 3 domains on 1 host
		want int
	}{
		"all":         {limit.ByScope{limit.All: five}, 5},
		"ip":          {limit.ByScope{limit.IP: five}, 5},
		"source":      {limit.ByScope{limit.Source: five}, 10},
		"destination": {limit.ByScope{limit.Destination: five}, 15},
		"provider":    {limit.ByScope{limit.Provider: five}, 5},
		"source_ip":   {limit.ByScope{limit.SourceIP: five}, 5},
	}
	for scope := range limit.Scopes {
		if _, ok := tests[scope.Word()]; !ok {
			t.Errorf("nothing shows that a delivery acquires the scope %s", scope.Word())
		}
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("mx1.a.example", nil)
			l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.a.example.\nc.example. MX 10 mx1.a.example.")
			l.startPooled(func(c *Config) { c.Limits = tt.limits })
			var all sync.WaitGroup
			var delivered atomic.Int64
			for i := range 36 {
				all.Go(func() {
					from := []string{"a@x.example", "a@y.example"}[i%2]
					to := []string{"b@a.example", "b@b.example", "b@c.example"}[i%3]
					switch r := l.sendAs(func(e *Envelope) { e.Sender = from }, to)[0]; {
					case r.Code.Class == 2:
						delivered.Add(1)
					case r.Code != status.New(status.Temporary, 4, 5):
						t.Errorf("%v %s", r.Code, r.Text)
					}
				})
			}
			all.Wait()
			if got := server.Counters().Messages; got != tt.want || int(delivered.Load()) != got {
				t.Errorf("%d messages arrived, and %d are said to be delivered; want %d", got, delivered.Load(), tt.want)
			}
		})
	}
}

// A limit that gives no turn in time is temporary, and says which it was.
func TestLimitReached(t *testing.T) {
	l := newLab(t)
	l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(func(c *Config) { c.Limits[limit.Source] = limit.Limit{Rate: 1, Period: time.Hour} })
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	expect(t, l.send("b@a.example"), "4.4.5 ")
}

// Whatever becomes of 10,000 deliveries, every place is given back, and nothing
// is left of them in memory.
func TestPlacesAreGivenBack(t *testing.T) {
	const rounds, atOnce = 500, 20
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(func(c *Config) {
		one := limit.Limit{Concurrency: 50}
		c.Limits = limit.ByScope{limit.All: one, limit.IP: one, limit.Source: one, limit.Destination: one, limit.Provider: one}
	})
	acts := []mx.Action{{Drop: mx.Close}, {Drop: mx.Reset}, {Reply: "421 4.3.2 bye"}, {Reply: "451 no"}, {Reply: "550 no"}, {Reply: "garbage"}}
	stages := []mx.Stage{mx.StageEHLO, mx.StageSTARTTLS, mx.StageMAIL, mx.StageRCPT, mx.StageBDAT, mx.StageFinal, mx.StageDone}
	habits := server.Behaviour()
	var early uint64
	for round := range rounds {
		if round == rounds/5 {
			early = l.inUse(server)
		}
		habits.At = map[mx.Stage]mx.Action{stages[rand.IntN(len(stages))]: acts[rand.IntN(len(acts))]}
		server.SetBehaviour(habits)
		var all sync.WaitGroup
		for range atOnce {
			all.Go(func() {
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Duration(rand.IntN(30))*time.Millisecond, ErrTimeout)
				defer cancel()
				l.sendText(ctx, text, "b@a.example")
			})
		}
		all.Wait()
	}
	for s := limit.IP; s < limit.Scopes; s++ {
		if stats := l.transport.base.limits.Stats(s); stats.Open != 0 || stats.Waiting != 0 {
			t.Errorf("%v: %+v", s, stats)
		}
	}
	// 8,000 deliveries that each left fifty bytes behind would show.
	if late := l.inUse(server); late > early+400<<10 {
		t.Errorf("%d KiB are in use, %d KiB were after a fifth of the deliveries", late>>10, early>>10)
	}
}

// inUse is how much memory is reachable, but for what the test itself gathers,
// and for idle connections, of which there are now more and now fewer.
func (l *lab) inUse(server *mx.Server) uint64 {
	l.idle.Retire(func(session.IdleConn) bool { return true })
	server.DropConnections()
	if err := server.WaitUntil(l.t.Context(), func(c mx.Counters) bool { return c.Open == 0 }); err != nil {
		l.t.Error(err)
	}
	server.Forget()
	l.journal.mu.Lock()
	l.journal.text = bytes.Buffer{}
	l.journal.mu.Unlock()
	runtime.GC()
	runtime.GC() // what was in a sync.Pool is gone only now
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// The server closes at each byte of its replies to a warm transaction: there
// is never a second copy, and the answer is temporary exactly when the server
// could not be heard to accept.
func TestExactlyOnce(t *testing.T) {
	for _, chunking := range []Chunking{ChunkingPipelined, ChunkingOff} {
		for _, stage := range []mx.Stage{mx.StageMAIL, mx.StageRCPT, mx.StageDATA, mx.StageBDAT, mx.StageFinal, mx.StageDone} {
			for _, drop := range []mx.Drop{mx.Close, mx.Reset} {
				l := newLab(t)
				server := l.mx("mx1.a.example", nil)
				l.zone("a.example. MX 10 mx1.a.example.")
				l.startPooled(func(c *Config) { c.Chunking = chunking })
				expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
				habits := server.Behaviour()
				habits.At = map[mx.Stage]mx.Action{stage: {Drop: drop, Times: 1}}
				server.SetBehaviour(habits)
				r := l.send("b@a.example")[0]
				got := server.Counters().Messages - 1
				switch {
				case r.Code.Class == 2 && got != 1:
					t.Errorf("%v %v: said to be delivered, but there are %d copies", stage, drop, got)
				case r.Code.Class == 4 && got > 1:
					t.Errorf("%v %v: %d copies", stage, drop, got)
				case r.Code.Class == 5:
					t.Errorf("%v %v: %v %s", stage, drop, r.Code, r.Text)
				}
			}
		}
	}
}
