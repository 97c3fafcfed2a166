package transport

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// Of a server that sends a thousand certificates nothing is kept: its message
// is delivered, its session is not resumed, its connection not pooled.
func TestHugeChainIsNotKept(t *testing.T) {
	t.Parallel()
	for n, kept := range map[int]bool{3: true, 200: false} {
		l := newLab(t)
		cert := l.cert(ca.For("mx1.a.example"))
		for len(cert.Certificate) < n {
			cert.Certificate = append(cert.Certificate, cert.Certificate[0])
		}
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.startPooled(func(c *Config) { c.ConnReuseLimit = 2 })
		for range 6 {
			expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		}
		c := server.Counters()
		if pooled := c.Connections == 3; pooled != kept {
			t.Errorf("%d certificates: %d connections for 6 messages", n, c.Connections)
		}
		if resumed := c.Resumed > 0; resumed != kept {
			t.Errorf("%d certificates: %d sessions were resumed", n, c.Resumed)
		}
	}
}

// A host that swallows SYNs costs little while another is left; the last one
// has the whole connect_timeout.
func TestNextHostIsNotKeptWaiting(t *testing.T) {
	t.Parallel()
	m := &matrix{lab: newLab(t)}
	addr := m.address()
	m.full(addr)
	next := m.mx("mx2.a.example", nil)
	m.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.\nmx1.a.example. A %s\nb.example. MX 10 mx1.a.example.", addr)
	m.start(func(c *Config) { c.ConnectTimeout = time.Hour })
	m.lab.transport.base.delivery.NextHostAfter = 100 * time.Millisecond
	expect(t, m.send("b@a.example"), "2.0.0 mx2.a.example")
	counts(t, next, 1, 1)
	if tried := m.lines("delivered")[0]["tried"].(string); !strings.HasPrefix(tried, "4.4.1 mx1.a.example") {
		t.Errorf("tried %q", tried)
	}
	// There is no other host here: only the client's patience ends it.
	m.lab.transport.conns.Dead.Answered("default mx1.a.example:" + fmt.Sprint(m.port))
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, ErrTimeout)
	defer cancel()
	expect(t, m.sendText(ctx, text, "b@b.example"), "4.4.7 mx1.a.example")
}

// A server that reads a large chunk drop by drop is left when the time of the
// delivery is over, and one that answers drop by drop when that and
// submission_timeout are.
func TestDrippingServersAreLeft(t *testing.T) {
	t.Parallel()
	const greeting = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\n"
	large := text + strings.Repeat(strings.Repeat("x", 76)+"\n", 100_000)
	for name, tt := range map[string]struct{ dialogue, text, want string }{
		"reads drop by drop":   {greeting + "C: MAIL *\nC: RCPT *\nS: 250 ok\nS: 250 ok\nREAD 1000\nMARK came\nWAIT over\nREST", large, "4.4.7 mx1.a.example"},
		"answers drop by drop": {greeting + "C: MAIL *\nC: RCPT *\nBDAT\nC: NOOP\nMARK came\nDRIP 10ms \"250-drop by drop \"", text, "4.4.2 mx1.a.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.play("mx1.a.example", tt.dialogue)
			l.zone("a.example. MX 10 mx1.a.example.")
			l.start(func(c *Config) { c.CommandTimeout, c.SubmissionTimeout = time.Hour, 500*time.Millisecond })
			ctx, leave := context.WithCancelCause(t.Context())
			defer leave(nil)
			done := make(chan []Result)
			go func() { done <- l.sendText(ctx, tt.text, "b@a.example") }()
			if err := server.WaitMark(t.Context(), "came"); err != nil {
				t.Fatal(err)
			}
			leave(ErrTimeout)
			expect(t, <-done, tt.want)
			server.Open("over")
		})
	}
}

// Of one message at most 20 destinations are worked on at once.
func TestDestinationsAtOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	gate := make(chan struct{})
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Hold: gate}} })
	var to, want []string
	for i := range 50 {
		l.zone("d%d.example. MX 10 mx1.a.example.", i)
		to, want = append(to, fmt.Sprintf("b@d%d.example", i)), append(want, "2.0.0 ")
	}
	l.start(nil)
	done := make(chan []Result)
	go func() { done <- l.send(to...) }()
	if err := server.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Verbs["MAIL"] == 20 }); err != nil {
		t.Fatal(err)
	}
	if n := l.transport.Stats().Deliveries; n != 20 {
		t.Errorf("%d destinations at once", n)
	}
	close(gate)
	expect(t, <-done, want...)
}
