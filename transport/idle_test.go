package transport

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/pool"
)

// startPooled makes a transport that keeps idle connections.
func (l *lab) startPooled(change func(*Config)) {
	l.t.Helper()
	l.idle = NewIdle(1000)
	l.start(change)
	l.t.Cleanup(l.idle.Stop)
}

func TestReuse(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.a.example.")
	l.startPooled(func(c *Config) { c.ConnReuseLimit = 5 })
	for i := range 10 {
		expect(t, l.send(fmt.Sprintf("b@%c.example", 'a'+i%2)), "2.0.0 mx1.a.example")
	}
	// conn_reuse_limit is the number of messages over one connection (maddy
	// allowed one more), and connections are shared by host, not by domain.
	if c := server.Counters(); c.Connections != 2 || c.Messages != 10 || c.Verbs["RSET"] != 0 || c.Verbs["NOOP"] != 1 {
		t.Errorf("%+v; want 2 connections for 10 messages, and no probes but the NOOP after the first message by BDAT", c)
	}
	for _, m := range server.Messages()[1:5] {
		if m.Flights != 1 {
			t.Errorf("a warm message took %d flights", m.Flights)
		}
	}
	if v := server.Violations(); len(v) > 0 {
		t.Errorf("rules broken: %v", v)
	}
}

// A connection that the server closed while it was idle is replaced without
// anybody noticing, and nothing is delivered twice.
func TestReuseOfTheDead(t *testing.T) {
	for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking, 0} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.Keywords = keywords })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.startPooled(nil)
		for range 3 {
			expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
			server.DropConnections()
			if err := server.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Open == 0 }); err != nil {
				t.Fatal(err)
			}
		}
		if c := server.Counters(); c.Messages != 3 || c.Connections != 3 {
			t.Errorf("%d messages over %d connections, want 3 over 3", c.Messages, c.Connections)
		}
	}
}

// 421 to the first command of a reused connection is an idle time-out.
func TestReuse421(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.MaxMessages = 1 })
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(nil)
	for range 3 {
		expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	}
	if c := server.Counters(); c.Messages != 3 || c.Connections != 3 {
		t.Errorf("%d messages over %d connections", c.Messages, c.Connections)
	}
}

// RSET only after a failed transaction, and then the connection is good again.
func TestReuseAfterRefusal(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(func(c *Config) { c.Chunking = ChunkingOff })
	expect(t, l.send("nosuch@a.example"), "5.1.1 mx1.a.example")
	if err := server.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Verbs["RSET"] == 1 }); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(5 * time.Second)
	for l.idle.Stats().Idle == 0 && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	if c := server.Counters(); c.Connections != 1 {
		t.Errorf("%d connections, want 1", c.Connections)
	}
}

// Recipients beyond what the server takes go in further transactions at once.
func TestManyRecipients(t *testing.T) {
	for _, limit := range []int{0, 7} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.MaxRecipients = limit })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.startPooled(func(c *Config) { c.ConnReuseLimit = 1000 })
		var to, want []string
		for i := range 250 {
			to = append(to, fmt.Sprintf("u%d@a.example", i))
			want = append(want, "2.0.0 mx1.a.example")
		}
		to[3], want[3] = "nosuch@a.example", "5.1.1 mx1.a.example"
		expect(t, l.send(to...), want...)
		got := map[string]int{}
		for _, m := range server.Messages() {
			if n := len(m.Recipients); n > 100 || limit > 0 && n > limit {
				t.Errorf("a transaction had %d recipients", n)
			}
			for _, r := range m.Recipients {
				got[r.Address]++
			}
		}
		if len(got) != 249 {
			t.Errorf("%d recipients have the message, want 249", len(got))
		}
		for r, n := range got {
			if n != 1 {
				t.Errorf("%s has %d copies", r, n)
			}
		}
	}
}

// A server that offers BDAT and does not know it gets DATA, at once and for a
// day; one that breaks at BDAT gets it at the next try.
func TestBrokenChunking(t *testing.T) {
	l := newLab(t)
	unknown := l.mx("mx1.a.example", func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageBDAT: {Reply: "500 5.5.1 unknown command"}}
	})
	broken := l.mx("mx1.b.example", func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageBDAT: {Drop: mx.Close}}
	})
	l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.b.example.")
	l.startPooled(nil)
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	expect(t, l.send("b@b.example"), "4.4.2 mx1.b.example")
	expect(t, l.send("b@b.example"), "2.0.0 mx1.b.example")
	if n := unknown.Counters().Verbs["BDAT"]; n != 1 {
		t.Errorf("BDAT was tried %d times at the first host", n)
	}
	if n := broken.Counters().Verbs["BDAT"]; n != 1 {
		t.Errorf("BDAT was tried %d times at the second host", n)
	}
}

// A host that has moved gets its mail where it is now: an idle connection to an
// address that DNS no longer lists is closed, however warm it is.
func TestReuseEndsWithTheAddress(t *testing.T) {
	l := newLab(t)
	here := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(nil)
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	l.dns.Remove("mx1.a.example.", dns.TypeA)
	there := l.mx("mx1.a.example", nil)
	l.resolver.Flush("mx1.a.example")
	for range 2 {
		expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	}
	if a, b := here.Counters(), there.Counters(); a.Messages != 2 || b.Messages != 2 || b.Connections != 1 {
		t.Errorf("%d messages at the old address, %d over %d connections at the new one; want 2, and 2 over 1", a.Messages, b.Messages, b.Connections)
	}
	if n := l.idle.Stats().Retired[pool.Address]; n != 1 {
		t.Errorf("%d connections retired for their address, want 1", n)
	}
}

// A server that runs the chunk of a message whose recipients it has refused
// gives more replies than there were commands: no one can tell then which of
// them is whose, so that nothing is refused for good, until the next try, by
// DATA.
func TestSpilledChunk(t *testing.T) {
	for _, warm := range []bool{false, true} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.SpillChunk = true })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.startPooled(nil)
		if warm {
			expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		}
		expect(t, l.send("nosuch@a.example"), "4.5.0 mx1.a.example")
		expect(t, l.send("nosuch@a.example"), "5.1.1 mx1.a.example")
		if verbs := server.Counters().Verbs; verbs["DATA"] != 1 {
			t.Errorf("warm %v: %v", warm, verbs)
		}
	}
}
