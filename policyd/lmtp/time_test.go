package lmtp

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport"
)

// pipes is a listener whose connections live in memory, so that their
// deadlines follow the clock of a synctest bubble.
type pipes struct {
	calls  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes { return &pipes{make(chan net.Conn), make(chan struct{})} }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.calls:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	select {
	case <-p.closed:
	default:
		close(p.closed)
	}
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// counted counts the writes.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// connect connects and says LHLO; the number is that of the server's writes.
func (p *pipes) connect(t *testing.T) (*client, *atomic.Int64) {
	ours, theirs := net.Pipe()
	var writes atomic.Int64
	p.calls <- counted{theirs, &writes}
	c := newClient(t, ours)
	c.want("220 ")
	c.say("LHLO client.example.org")
	c.until("250 ")
	return c, &writes
}

// bubble runs a test with a server inside a bubble, where time passes as soon
// as everybody waits for it.
func bubble(t *testing.T, test func(b *bench, p *pipes)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		p := newPipes()
		b.start(p)
		test(b, p)
		b.end()
	})
}

// took checks how long something took by the bubble's clock.
func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

// Replies that can go out together are one write.
func TestWrites(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		c, writes := p.connect(b.t)
		defer c.Close()
		before := writes.Load()
		c.offer("a", "b", "c", "d")
		if n := writes.Load() - before; n != 1 {
			b.t.Errorf("%d writes for the replies to six commands", n)
		}
		c.send(text + ".\r\n")
		c.want("250 2.0.0 <a@", "250 2.0.0 <b@", "250 2.0.0 <c@", "250 2.0.0 <d@")
		if n := writes.Load() - before; n != 2 {
			b.t.Errorf("%d writes more for the replies to a message for four", n-1)
		}
	})
}

// A client may be slow, but not fall silent.
func TestSlowClient(t *testing.T) {
	for name, begin := range map[string][]string{"DATA": {"DATA"}, "BDAT": {"BDAT 1000000 LAST"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, p *pipes) {
				c, _ := p.connect(b.t)
				defer c.Close()
				c.say(envelope("a")...)
				c.want("250 ", "250 ")
				c.say(begin...)
				if name == "DATA" {
					c.want("354 ")
				}
				start := time.Now()
				for range 200 {
					time.Sleep(stall - time.Second) // of the bubble
					c.send("RSET\r\n")
				}
				took(b.t, start, 200*(stall-time.Second))
				if name == "DATA" {
					c.send(".\r\n")
				} else {
					c.send(strings.Repeat("x", 1000000-1200))
				}
				c.want("250 2.0.0 <a@")
				b.wantCalls("a@example.net")
			})
		})
	}
}

// A client that is slower than a day has had its time.
func TestEndlessMessage(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		c, _ := p.connect(b.t)
		defer c.Close()
		c.offer("a")
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				time.Sleep(time.Minute)
				if _, err := c.Write([]byte("x\r\n")); err != nil {
					return
				}
			}
		}()
		c.want("421 4.4.7 ")
		took(b.t, start, longest)
		c.Close()
		<-done
		b.wantCalls()
	})
}

func TestSilentClient(t *testing.T) {
	for name, c := range map[string]struct {
		say  []string
		read int
	}{
		"idle":       {},
		"a word":     {say: []string{"NOOP"}, read: 1},
		"envelope":   {say: envelope("a"), read: 2},
		"DATA":       {say: append(envelope("a"), "DATA", "Subject: x"), read: 3},
		"BDAT":       {say: append(envelope("a"), "BDAT 100 LAST", "Subject: x"), read: 2},
		"chunks":     {say: append(envelope("a"), "BDAT 0"), read: 3},
		"over at it": {say: append(envelope("a"), "BDAT 0 LAST"), read: 3},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, p *pipes) {
				k, _ := p.connect(b.t)
				defer k.Close()
				if len(c.say) > 0 {
					k.say(c.say...)
				}
				for range c.read {
					k.line()
				}
				start := time.Now()
				k.want("421 4.4.2 ")
				took(b.t, start, stall)
				b.log.wait(b.t, "421 4.4.2")
			})
		})
	}
}

// max_deliveries: who comes later waits five seconds for a place; then each
// recipient hears so, and the connection stays.
func TestMaxDeliveries(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		held := make(chan struct{})
		b.Places = semaphore.NewWeighted(1)
		b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if len(b.delivered()) == 1 {
				<-held
			}
			return all(env, "2.0.0 x")
		}
		one, _ := p.connect(b.t)
		defer one.Close()
		two, _ := p.connect(b.t)
		defer two.Close()
		one.mail("a")
		synctest.Wait()
		start := time.Now()
		two.mail("b", "c")
		two.want("451 4.3.2 <b@example.net> mxpolicyd is busy: max_deliveries", "451 4.3.2 <c@")
		took(b.t, start, intake.Turn)
		close(held)
		one.want("250 ")
		two.mail("d")
		two.want("250 ")
		b.wantCalls("a@example.net", "d@example.net")
	})
}

// A delivery that takes too long is given up.
func TestDeliveryTime(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		b.deliver = until
		c, _ := p.connect(b.t)
		defer c.Close()
		start := time.Now()
		c.mail("a", "b")
		c.want("451 4.0.0 <a@example.net> "+transport.ErrTimeout.Error(), "451 4.0.0 <b@")
		took(b.t, start, deliveryTime)
		c.mail("c")
		c.want("451 ")
	})
}

// A delivery that does not end although everything is over is overdue.
func TestOverdue(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		release := make(chan struct{})
		b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
			<-release
			return all(env, "2.0.0 delivered")
		}
		c, _ := p.connect(b.t)
		defer c.Close()
		c.mail("a")
		time.Sleep(deliveryTime + time.Minute + intake.Slack) // the way's overtime is a minute
		if n := b.Overdue(); n != 0 {
			b.t.Errorf("%d overdue just in time", n)
		}
		time.Sleep(time.Second)
		if n := b.Overdue(); n != 1 {
			b.t.Errorf("%d overdue a second later", n)
		}
		close(release)
		c.want("250 ")
		c.say("NOOP")
		c.want("250 ")
		if n := b.Overdue(); n != 0 {
			b.t.Errorf("%d overdue at the end", n)
		}
	})
}

// A client that does not read its replies has ten seconds, and the recipients
// who have the message are remembered.
func TestRepliesNotRead(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		c, _ := p.connect(b.t)
		c.mail("a")
		start := time.Now()
		b.log.wait(b.t, "did not wait for its answer")
		took(b.t, start, answerTime)
		if !b.Served.Known("4XyZ") {
			b.t.Error("it is not remembered")
		}
		c.Close()
	})
}

// TERM: connections without a message are closed with 421; work under way ends.
func TestShutdown(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		release := make(chan struct{})
		b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if env.Recipients[0].Address == "c@example.net" {
				<-release
			}
			return all(env, "2.0.0 delivered")
		}
		dial := func() *client {
			c, _ := p.connect(b.t)
			b.t.Cleanup(func() { c.Close() })
			return c
		}
		idle, used, half, reading, chunks, delivering := dial(), dial(), dial(), dial(), dial(), dial()
		used.mail("z")
		used.want("250 ")
		half.say(envelope("a")...)
		half.want("250 ", "250 ")
		reading.offer("b")
		reading.send("Subject: x\r\n")
		chunks.say(append(envelope("d"), "BDAT 2", "")...)
		chunks.want("250 ", "250 ", "250 ")
		delivering.mail("c")
		synctest.Wait()
		start := time.Now()
		b.stop()
		for _, c := range []*client{idle, used, half} {
			c.want("421 4.3.2 mxpolicyd is stopping", "")
		}
		if err := <-b.ended; err != nil {
			b.t.Errorf("Serve: %v", err)
		}
		b.ended <- nil
		reading.send("Hello.\r\n.\r\n")
		reading.want("250 2.0.0 <b@", "421 4.3.2 ", "")
		chunks.send("BDAT 2 LAST\r\n\r\n")
		chunks.want("250 2.0.0 <d@", "421 4.3.2 ", "")
		close(release)
		delivering.want("250 2.0.0 <c@", "421 4.3.2 ", "")
		took(b.t, start, 0)
		b.Wait()
		b.wantCalls("z@example.net", "c@example.net", "b@example.net", "d@example.net")
		if b.Served.Known("4XyZ") {
			b.t.Error("remembered for nothing")
		}
	})
}

// When the time for that is over too, the rest is cancelled.
func TestGiveUp(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		b.deliver = until
		reading, _ := p.connect(b.t)
		defer reading.Close()
		reading.offer("a")
		delivering, _ := p.connect(b.t)
		defer delivering.Close()
		delivering.mail("b")
		synctest.Wait()
		b.stop()
		b.giveUp(transport.ErrStopping)
		delivering.want("451 4.0.0 <b@example.net> mxpolicyd is stopping", "421 4.3.2 ", "")
		reading.want("421 4.3.2 mxpolicyd is stopping")
		b.Wait()
		b.wantCalls("b@example.net")
	})
}

// An error of accept ends Serve; what is open goes on.
func TestAcceptFails(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		c, _ := p.connect(b.t)
		defer c.Close()
		p.Close()
		if err := <-b.ended; !errors.Is(err, net.ErrClosed) {
			b.t.Errorf("Serve: %v", err)
		}
		b.ended <- nil
		c.mail("a")
		c.want("250 ")
	})
}
