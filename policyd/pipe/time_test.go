package pipe

import (
	"context"
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

// socketPair gives the two ends of a unix connection.
func socketPair(t *testing.T) (*net.UnixConn, *net.UnixConn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := net.Dial("unix", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a.(*net.UnixConn), b.(*net.UnixConn)
}

// bubble runs a test with a server inside a bubble, where time passes as soon
// as everybody waits for it.
func bubble(t *testing.T, test func(b *bench, l *memnet.Listener)) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		l := memnet.Listen()
		b.Start(b.Server, l)
		test(b, l)
		b.End(b.Dispatcher)
	})
}

// took checks how long something took by the bubble's clock.
func took(t *testing.T, start time.Time, want time.Duration) {
	t.Helper()
	if got := time.Since(start); got != want {
		t.Errorf("it took %v, want %v", got, want)
	}
}

func TestSilentClient(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		start := time.Now()
		want(b.T, answer(l.Dial()), "4.3.2 ")
		took(b.T, start, time.Minute)
	})
}

// A client that sends its envelope in drops has no more time for it.
func TestTricklingEnvelope(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		conn := l.Dial()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, c := range opening(b.T, envelope("a")) {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(10 * time.Second) // of the bubble
			}
		}()
		start := time.Now()
		want(b.T, answer(conn), "4.3.2 ")
		took(b.T, start, time.Minute)
		<-done
	})
}

// A client may send its message slowly, ten minutes long, but not fall silent.
func TestStalledMessage(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		conn := l.Dial()
		conn.Write(opening(b.T, envelope("a")))
		start := time.Now()
		for range 10 {
			time.Sleep(59 * time.Second) // of the bubble
			conn.Write(wire.AppendData(nil, []byte("a line\n")))
		}
		took(b.T, start, 590*time.Second)
		time.Sleep(9 * time.Second)
		conn.Write(wire.AppendData(nil, []byte("a line\n")))
		want(b.T, answer(conn), "4.3.2 ", "10m0s")
		took(b.T, start, 10*time.Minute)
		conn = l.Dial()
		conn.Write(wire.AppendData(opening(b.T, envelope("a")), []byte("a line\n")))
		start = time.Now()
		want(b.T, answer(conn), "4.3.2 ", "1m0s")
		took(b.T, start, time.Minute)
		b.WantCalls()
	})
}

// The client's time counts for everything: a message that comes too slowly, a
// place, and the delivery.
func TestTimeout(t *testing.T) {
	e := envelope("a")
	const limit = 7 * time.Minute
	e.Timeout = milliseconds(limit)
	t.Run("message", func(t *testing.T) {
		bubble(t, func(b *bench, l *memnet.Listener) {
			conn := l.Dial()
			start := time.Now()
			conn.Write(opening(b.T, e))
			for range 7 {
				time.Sleep(59 * time.Second)
				conn.Write(wire.AppendData(nil, []byte("a line\n")))
			}
			want(b.T, answer(conn), "4.4.7 ")
			took(b.T, start, limit)
			b.WantCalls()
		})
	})
	t.Run("delivery", func(t *testing.T) {
		bubble(t, func(b *bench, l *memnet.Listener) {
			b.Do = intaketest.Until
			conn := l.Dial()
			start := time.Now()
			conn.Write(whole(b.T, e))
			want(b.T, answer(conn), "4.", transport.ErrTimeout.Error())
			took(b.T, start, limit)
		})
	})
	t.Run("place", func(t *testing.T) {
		bubble(t, func(b *bench, l *memnet.Listener) {
			for i := range intaketest.Slots {
				b.Slots.Acquire(b.T.Context(), fairqueue.Flow{Destination: fmt.Sprint(i)})
				defer b.Slots.Release(fmt.Sprint(i))
			}
			short := e
			short.Timeout = milliseconds(time.Second)
			conn := l.Dial()
			start := time.Now()
			conn.Write(whole(b.T, short))
			want(b.T, answer(conn), "4.4.7 ")
			took(b.T, start, time.Second)
		})
	})
	for name, asked := range map[string]time.Duration{"none": 0, "too long": 1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, l *memnet.Listener) {
				b.Do = intaketest.Until
				long := e
				long.Timeout = milliseconds(asked)
				conn := l.Dial()
				start := time.Now()
				conn.Write(whole(b.T, long))
				want(b.T, answer(conn), "4.", transport.ErrTimeout.Error())
				took(b.T, start, 24*time.Hour)
			})
		})
	}
}

// max_deliveries: who comes later waits five seconds for a place.
func TestMaxDeliveries(t *testing.T) {
	for name, free := range map[string]time.Duration{"none in time": intake.SlotWait + time.Second, "one in time": intake.SlotWait - time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, l *memnet.Listener) {
				b.Slots = intake.NewSlots(1)
				b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
					if len(b.Calls()) == 1 {
						time.Sleep(free)
					}
					return intaketest.All(env, "2.0.0 delivered")
				}
				start := time.Now()
				first := l.Dial()
				first.Write(whole(b.T, envelope("a")))
				synctest.Wait()
				second := l.Dial()
				second.Write(whole(b.T, envelope("b")))
				if free > intake.SlotWait {
					want(b.T, answer(second), "4.3.2 ", "max_deliveries")
					took(b.T, start, intake.SlotWait)
					want(b.T, answer(first), "2.0.0 ")
					b.WantCalls("a")
					return
				}
				want(b.T, answer(first), "2.0.0 ")
				want(b.T, answer(second), "2.0.0 ")
				took(b.T, start, free)
				b.WantCalls("a", "b")
			})
		})
	}
}

// A client that neither reads its answer nor closes has ten seconds.
func TestAnswerNotTaken(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		conn := l.Dial()
		conn.Write(whole(b.T, envelope("a")))
		start := time.Now()
		b.Log.Wait(b.T, "did not wait for the answer")
		took(b.T, start, 10*time.Second)
		if !b.Served.Known("4XyZ") {
			b.T.Error("it is not remembered")
		}
		conn.Close()
	})
	// It reads, but stays.
	bubble(t, func(b *bench, l *memnet.Listener) {
		conn := l.Dial()
		conn.Write(whole(b.T, envelope("a")))
		start := time.Now()
		if a, err := wire.ReadAnswer(conn); err != nil || a.Code != "2.0.0" {
			b.T.Errorf("%v, %v", a, err)
		}
		b.Log.Wait(b.T, "did not wait for the answer")
		took(b.T, start, 10*time.Second)
		conn.Close()
	})
}

// TERM: who has not said what it wants is turned away, who has is served.
func TestShutdown(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		release := make(chan struct{})
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			<-release
			return intaketest.All(env, "2.0.0 delivered")
		}
		idle, half := l.Dial(), l.Dial()
		half.Write(opening(b.T, envelope("a"))[:10])
		reading := l.Dial()
		reading.Write(wire.AppendData(opening(b.T, envelope("b")), []byte("a line\n")))
		delivering := l.Dial()
		delivering.Write(whole(b.T, envelope("c")))
		synctest.Wait()
		start := time.Now()
		b.Stop()
		want(b.T, answer(idle), "4.3.2 ", "stopping")
		want(b.T, answer(half), "4.3.2 ", "stopping")
		if err := b.Ended(); err != nil {
			b.T.Errorf("Serve: %v", err)
		}
		reading.Write(wire.AppendCommit(nil))
		synctest.Wait()
		close(release)
		want(b.T, answer(reading), "2.0.0 ")
		want(b.T, answer(delivering), "2.0.0 ")
		took(b.T, start, 0)
		b.Wait()
		b.WantCalls("c", "b")
	})
}

// When the time for that is over too, the rest is cancelled.
func TestGiveUp(t *testing.T) {
	bubble(t, func(b *bench, l *memnet.Listener) {
		b.Do = intaketest.Until
		reading := l.Dial()
		reading.Write(wire.AppendData(opening(b.T, envelope("a")), []byte("a line\n")))
		delivering := l.Dial()
		delivering.Write(whole(b.T, envelope("b")))
		synctest.Wait()
		for i := range intaketest.Slots - 1 {
			b.Slots.Acquire(b.T.Context(), fairqueue.Flow{Destination: fmt.Sprint(i)})
		}
		waiting := l.Dial()
		waiting.Write(whole(b.T, envelope("c")))
		synctest.Wait()
		b.Stop()
		b.GiveUp()
		for name, conn := range map[string]net.Conn{"reading": reading, "delivering": delivering, "waiting": waiting} {
			got := answer(conn)
			want(b.T, got, "4.", "mxpolicyd is stopping")
			if name != "delivering" {
				want(b.T, got, "4.3.2 ")
			}
		}
		b.Wait()
		for i := range intaketest.Slots - 1 {
			b.Slots.Release(fmt.Sprint(i))
		}
		b.WantCalls("b")
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
		e := envelope("a")
		e.Timeout = milliseconds(time.Hour)
		conn := l.Dial()
		conn.Write(whole(b.T, e))
		// the way's overtime is a minute
		time.Sleep(time.Hour + time.Minute + intake.Slack)
		if n := b.Overdue(); n != 0 {
			b.T.Errorf("%d overdue just in time", n)
		}
		time.Sleep(time.Second)
		if n := b.Overdue(); n != 1 {
			b.T.Errorf("%d overdue a second later", n)
		}
		close(release)
		answer(conn)
		synctest.Wait()
		if n := b.Overdue(); n != 0 {
			b.T.Errorf("%d overdue at the end", n)
		}
	})
}
