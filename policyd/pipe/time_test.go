package pipe

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport"
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

// pipes is a listener whose connections live in memory, so that their
// deadlines follow the clock of a synctest bubble.
type pipes struct {
	calls  chan net.Conn
	closed chan struct{}
}

func newPipes() *pipes {
	return &pipes{calls: make(chan net.Conn), closed: make(chan struct{})}
}

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

func (p *pipes) connect() net.Conn {
	ours, theirs := net.Pipe()
	p.calls <- theirs
	return ours
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

func TestSilentClient(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		start := time.Now()
		want(b.t, answer(p.connect()), "4.4.2 ")
		took(b.t, start, stall)
	})
}

// A client that sends its envelope in drops has no more time for it.
func TestTricklingEnvelope(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		conn := p.connect()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, c := range opening(b.t, envelope("a")) {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(time.Minute) // of the bubble
			}
		}()
		start := time.Now()
		want(b.t, answer(conn), "4.4.2 ")
		took(b.t, start, stall)
		<-done
	})
}

// A client may send its message slowly, but not fall silent.
func TestStalledMessage(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		conn := p.connect()
		conn.Write(opening(b.t, envelope("a")))
		start := time.Now()
		for range 10 {
			time.Sleep(stall - time.Second) // of the bubble
			conn.Write(wire.AppendData(nil, []byte("a line\n")))
		}
		took(b.t, start, 10*(stall-time.Second))
		start = time.Now()
		want(b.t, answer(conn), "4.4.2 ")
		took(b.t, start, stall)
		b.wantCalls()
	})
}

// The client's time counts for everything: a message that comes too slowly, a
// place, and the delivery.
func TestTimeout(t *testing.T) {
	e := envelope("a")
	e.Timeout = 7 * time.Minute
	t.Run("message", func(t *testing.T) {
		bubble(t, func(b *bench, p *pipes) {
			conn := p.connect()
			start := time.Now()
			conn.Write(opening(b.t, e))
			time.Sleep(4 * time.Minute)
			conn.Write(wire.AppendData(nil, []byte("a line\n")))
			want(b.t, answer(conn), "4.4.7 ")
			took(b.t, start, e.Timeout)
			b.wantCalls()
		})
	})
	t.Run("delivery", func(t *testing.T) {
		bubble(t, func(b *bench, p *pipes) {
			b.deliver = until
			conn := p.connect()
			start := time.Now()
			conn.Write(whole(b.t, e))
			want(b.t, answer(conn), "4.", transport.ErrTimeout.Error())
			took(b.t, start, e.Timeout)
		})
	})
	t.Run("place", func(t *testing.T) {
		bubble(t, func(b *bench, p *pipes) {
			b.Places.Acquire(b.t.Context(), 10)
			defer b.Places.Release(10)
			short := e
			short.Timeout = time.Second
			conn := p.connect()
			start := time.Now()
			conn.Write(opening(b.t, short))
			want(b.t, answer(conn), "4.4.7 ")
			took(b.t, start, time.Second)
		})
	})
	for name, asked := range map[string]time.Duration{"none": 0, "too long": 1000 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, p *pipes) {
				b.deliver = until
				long := e
				long.Timeout = asked
				conn := p.connect()
				start := time.Now()
				conn.Write(whole(b.t, long))
				want(b.t, answer(conn), "4.", transport.ErrTimeout.Error())
				took(b.t, start, longest)
			})
		})
	}
}

// max_deliveries: who comes later waits five seconds for a place.
func TestMaxDeliveries(t *testing.T) {
	for name, free := range map[string]time.Duration{"none in time": intake.Turn + time.Second, "one in time": intake.Turn - time.Second} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(b *bench, p *pipes) {
				b.Places = semaphore.NewWeighted(1)
				b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
					if len(b.delivered()) == 1 {
						time.Sleep(free)
					}
					return all(env, "2.0.0 delivered")
				}
				start := time.Now()
				first := p.connect()
				first.Write(whole(b.t, envelope("a")))
				synctest.Wait()
				second := p.connect()
				second.Write(opening(b.t, envelope("b")))
				if free > intake.Turn {
					want(b.t, answer(second), "4.3.2 ", "max_deliveries")
					took(b.t, start, intake.Turn)
					want(b.t, answer(first), "2.0.0 ")
					b.wantCalls("a")
					return
				}
				want(b.t, answer(first), "2.0.0 ")
				second.Write(wire.AppendCommit(wire.AppendData(nil, []byte(text))))
				want(b.t, answer(second), "2.0.0 ")
				took(b.t, start, free)
				b.wantCalls("a", "b")
			})
		})
	}
}

// A client that neither reads its answer nor closes has ten seconds.
func TestAnswerNotTaken(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		conn := p.connect()
		conn.Write(whole(b.t, envelope("a")))
		start := time.Now()
		b.log.wait(b.t, "did not wait for its answer")
		took(b.t, start, answerTime)
		if !b.Served.Known("4XyZ") {
			b.t.Error("it is not remembered")
		}
		conn.Close()
	})
	// It reads, but stays.
	bubble(t, func(b *bench, p *pipes) {
		conn := p.connect()
		conn.Write(whole(b.t, envelope("a")))
		start := time.Now()
		if a, err := wire.ReadAnswer(conn); err != nil || a.Code != "2.0.0" {
			b.t.Errorf("%v, %v", a, err)
		}
		b.log.wait(b.t, "did not wait for its answer")
		took(b.t, start, answerTime)
		conn.Close()
	})
}

// TERM: who has not said what it wants is turned away, who has is served.
func TestShutdown(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		release := make(chan struct{})
		b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
			<-release
			return all(env, "2.0.0 delivered")
		}
		idle, half := p.connect(), p.connect()
		half.Write(opening(b.t, envelope("a"))[:10])
		reading := p.connect()
		reading.Write(wire.AppendData(opening(b.t, envelope("b")), []byte("a line\n")))
		delivering := p.connect()
		delivering.Write(whole(b.t, envelope("c")))
		synctest.Wait()
		start := time.Now()
		b.stop()
		want(b.t, answer(idle), "4.3.2 ", "stopping")
		want(b.t, answer(half), "4.3.2 ", "stopping")
		if err := <-b.ended; err != nil {
			b.t.Errorf("Serve: %v", err)
		}
		b.ended <- nil
		reading.Write(wire.AppendCommit(nil))
		synctest.Wait()
		close(release)
		want(b.t, answer(reading), "2.0.0 ")
		want(b.t, answer(delivering), "2.0.0 ")
		took(b.t, start, 0)
		b.Wait()
		b.wantCalls("c", "b")
	})
}

// When the time for that is over too, the rest is cancelled.
func TestGiveUp(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		b.deliver = until
		reading := p.connect()
		reading.Write(wire.AppendData(opening(b.t, envelope("a")), []byte("a line\n")))
		delivering := p.connect()
		delivering.Write(whole(b.t, envelope("b")))
		synctest.Wait()
		b.Places.TryAcquire(8)
		waiting := p.connect()
		waiting.Write(opening(b.t, envelope("c")))
		synctest.Wait()
		b.stop()
		b.giveUp(transport.ErrStopping)
		for name, conn := range map[string]net.Conn{"reading": reading, "delivering": delivering, "waiting": waiting} {
			got := answer(conn)
			want(b.t, got, "4.", "mxpolicyd is stopping")
			if name != "delivering" {
				want(b.t, got, "4.3.2 ")
			}
		}
		b.Wait()
		b.Places.Release(8)
		b.wantCalls("b")
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
		e := envelope("a")
		e.Timeout = time.Hour
		conn := p.connect()
		conn.Write(whole(b.t, e))
		time.Sleep(time.Hour + time.Minute + intake.Slack) // the way's overtime is a minute
		if n := b.Overdue(); n != 0 {
			b.t.Errorf("%d overdue just in time", n)
		}
		time.Sleep(time.Second)
		if n := b.Overdue(); n != 1 {
			b.t.Errorf("%d overdue a second later", n)
		}
		close(release)
		answer(conn)
		synctest.Wait()
		if n := b.Overdue(); n != 0 {
			b.t.Errorf("%d overdue at the end", n)
		}
	})
}
