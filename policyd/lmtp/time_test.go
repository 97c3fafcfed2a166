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

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
)

// counted counts the writes.
type counted struct {
	net.Conn
	writes *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}

// greet connects and says LHLO; the number is that of the server's writes.
func greet(t *testing.T, l *memnet.Listener) (*client, *atomic.Int64) {
	t.Helper()
	var writes atomic.Int64
	c := newClient(t, l.DialThrough(func(conn net.Conn) net.Conn { return counted{conn, &writes} }))
	c.want("220 ")
	c.say("LHLO client.example.org")
	c.until("250 ")
	return c, &writes
}

// bubble runs a test with a server inside a bubble, where time passes as soon
// as everybody waits for it.
func bubble(t *testing.T, test func(b *bench, l *memnet.Listener)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		l := memnet.Listen()
		b.Start(b.Server, l)
		test(b, l)
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
	bubble(t, func(b *bench, l *memnet.Listener) {
		c, writes := greet(b.T, l)
		defer c.Close()
		before := writes.Load()
		c.offer("a", "b", "c", "d")
		if n := writes.Load() - before; n != 1 {
			b.T.Errorf("%d writes for the replies to six commands", n)
		}
		c.send(text + ".\r\n")
		c.want("250 2.0.0 <a@", "250 2.0.0 <b@", "250 2.0.0 <c@", "250 2.0.0 <d@")
		if n := writes.Load() - before; n != 2 {
			b.T.Errorf("%d writes more for the replies to a message for four", n-1)
		}
	})
}

// A client may be slow, but not fall silent.
func TestSlowClient(t *testing.T) {
	for name, begin := range map[string][]string{"DATA": {"DATA"}, "BDAT": {"BDAT 1000000 LAST"}} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, l *memnet.Listener) {
				c, _ := greet(b.T, l)
				defer c.Close()
				c.say(envelope("a")...)
				c.want("250 ", "250 ")
				c.say(begin...)
				if name == "DATA" {
					c.want("354 ")
				}
				start := time.Now()
				for range 10 {
					time.Sleep(59 * time.Second) // of the bubble
					c.send("RSET\r\n")
				}
				took(b.T, start, 590*time.Second)
				if name == "DATA" {
					c.send(".\r\n")
				} else {
					c.send(strings.Repeat("x", 1000000-60))
				}
				c.want("250 2.0.0 <a@")
				b.WantCalls("a@example.net")
			})
		})
	}
}

// A message has ten minutes to come in.
func TestEndlessMessage(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		c, _ := greet(b.T, l)
		defer c.Close()
		c.offer("a")
		start := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				time.Sleep(30 * time.Second)
				if _, err := c.Write([]byte("x\r\n")); err != nil {
					return
				}
			}
		}()
		c.want("421 4.3.2 timed out after 10m0s (receiving")
		took(b.T, start, 10*time.Minute)
		c.Close()
		<-done
		b.WantCalls()
	})
}

func TestSilentClient(t *testing.T) {
	const command, bytes = 5 * time.Minute, time.Minute
	for name, c := range map[string]struct {
		say  []string
		read int
		wait time.Duration
	}{
		"idle":       {wait: command},
		"a word":     {say: []string{"NOOP"}, read: 1, wait: command},
		"envelope":   {say: envelope("a"), read: 2, wait: command},
		"DATA":       {say: append(envelope("a"), "DATA", "Subject: x"), read: 3, wait: bytes},
		"BDAT":       {say: append(envelope("a"), "BDAT 100 LAST", "Subject: x"), read: 2, wait: bytes},
		"chunks":     {say: append(envelope("a"), "BDAT 0"), read: 3, wait: bytes},
		"over at it": {say: append(envelope("a"), "BDAT 0 LAST"), read: 3, wait: command},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, l *memnet.Listener) {
				k, _ := greet(b.T, l)
				defer k.Close()
				if len(c.say) > 0 {
					k.say(c.say...)
				}
				for range c.read {
					k.line()
				}
				start := time.Now()
				reply := map[time.Duration]string{command: "421 4.4.2 ", bytes: "421 4.3.2 timed out after 1m0s (waiting"}[c.wait]
				k.want(reply)
				took(b.T, start, c.wait)
				b.Log.Wait(b.T, reply)
			})
		})
	}
}

// max_deliveries: who comes later waits five seconds for a place; then each
// recipient hears so, and the connection stays.
func TestMaxDeliveries(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		held := make(chan struct{})
		b.Slots = intake.NewSlots(1)
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if len(b.Calls()) == 1 {
				<-held
			}
			return intaketest.All(env, "2.0.0 x")
		}
		one, _ := greet(b.T, l)
		defer one.Close()
		two, _ := greet(b.T, l)
		defer two.Close()
		one.mail("a")
		synctest.Wait()
		start := time.Now()
		two.mail("b", "c")
		two.want("451 4.3.2 <b@example.net> mxpolicyd is busy: max_deliveries", "451 4.3.2 <c@")
		took(b.T, start, intake.SlotWait)
		close(held)
		one.want("250 ")
		two.mail("d")
		two.want("250 ")
		b.WantCalls("a@example.net", "d@example.net")
	})
}

// A delivery that takes too long is given up.
func TestDeliveryTime(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		b.Do = intaketest.Until
		c, _ := greet(b.T, l)
		defer c.Close()
		start := time.Now()
		c.mail("a", "b")
		c.want("451 4.0.0 <a@example.net> "+transport.ErrTimeout.Error(), "451 4.0.0 <b@")
		took(b.T, start, deliveryTime)
		c.mail("c")
		c.want("451 ")
	})
}

// A delivery that does not end although everything is over is overdue.
func TestOverdue(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		release := make(chan struct{})
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			<-release
			return intaketest.All(env, "2.0.0 delivered")
		}
		c, _ := greet(b.T, l)
		defer c.Close()
		c.mail("a")
		// the way's overtime is a minute
		time.Sleep(deliveryTime + time.Minute + intake.Slack)
		if n := b.Overdue(); n != 0 {
			b.T.Errorf("%d overdue just in time", n)
		}
		time.Sleep(time.Second)
		if n := b.Overdue(); n != 1 {
			b.T.Errorf("%d overdue a second later", n)
		}
		close(release)
		c.want("250 ")
		c.say("NOOP")
		c.want("250 ")
		if n := b.Overdue(); n != 0 {
			b.T.Errorf("%d overdue at the end", n)
		}
	})
}

// A client that does not read its replies has ten seconds, and the recipients
// who have the message are remembered.
func TestRepliesNotRead(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		c, _ := greet(b.T, l)
		c.mail("a")
		start := time.Now()
		b.Log.Wait(b.T, "did not wait for the answer")
		took(b.T, start, answerTime)
		if !b.Served.Known("4XyZ") {
			b.T.Error("it is not remembered")
		}
		c.Close()
	})
}

// TERM: connections without a message are closed with 421; work under way ends.
func TestShutdown(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		release := make(chan struct{})
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if env.Recipients[0].Address == "c@example.net" {
				<-release
			}
			return intaketest.All(env, "2.0.0 delivered")
		}
		dial := func() *client {
			c, _ := greet(b.T, l)
			b.T.Cleanup(func() { c.Close() })
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
		b.Stop()
		for _, c := range []*client{idle, used, half} {
			c.want("421 4.3.2 mxpolicyd is stopping", "")
		}
		if err := b.Ended(); err != nil {
			b.T.Errorf("Serve: %v", err)
		}
		reading.send("Hello.\r\n.\r\n")
		reading.want("250 2.0.0 <b@", "421 4.3.2 ", "")
		chunks.send("BDAT 2 LAST\r\n\r\n")
		chunks.want("250 2.0.0 <d@", "421 4.3.2 ", "")
		close(release)
		delivering.want("250 2.0.0 <c@", "421 4.3.2 ", "")
		took(b.T, start, 0)
		b.Wait()
		b.WantCalls("z@example.net", "c@example.net", "b@example.net", "d@example.net")
		if b.Served.Known("4XyZ") {
			b.T.Error("remembered for nothing")
		}
	})
}

// When the time for that is over too, the rest is cancelled.
func TestGiveUp(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		b.Do = intaketest.Until
		reading, _ := greet(b.T, l)
		defer reading.Close()
		reading.offer("a")
		delivering, _ := greet(b.T, l)
		defer delivering.Close()
		delivering.mail("b")
		synctest.Wait()
		b.Stop()
		b.GiveUp()
		delivering.want("451 4.0.0 <b@example.net> mxpolicyd is stopping", "421 4.3.2 ", "")
		reading.want("421 4.3.2 mxpolicyd is stopping")
		b.Wait()
		b.WantCalls("b@example.net")
	})
}

// An error of accept ends Serve; what is open goes on.
func TestAcceptFails(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		c, _ := greet(b.T, l)
		defer c.Close()
		l.Close()
		if err := b.Ended(); !errors.Is(err, net.ErrClosed) {
			b.T.Errorf("Serve: %v", err)
		}
		c.mail("a")
		c.want("250 ")
	})
}
