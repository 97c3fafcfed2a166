package accept

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/memnet"
	"github.com/mxpipe/mxpipe/transport"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// call connects, and gives what the other side says.
func call(l *memnet.Listener) string {
	said, _ := io.ReadAll(l.Dial())
	return string(said)
}

// bench is an accept loop whose connections say hello and end.
type bench struct {
	*Loops
	t     *testing.T
	log   *bytes.Buffer // read it when the loop has ended, or in a bubble
	stop  context.CancelFunc
	ended chan error
}

func start(t *testing.T, l net.Listener, most int, serve func(net.Conn)) *bench {
	t.Helper()
	b := &bench{t: t, log: &bytes.Buffer{}, ended: make(chan error, 1)}
	b.Loops = New(most, slog.New(slog.NewTextHandler(b.log, nil)))
	var ctx context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	go func() { b.ended <- b.Serve(ctx, l, serve) }()
	return b
}

// end ends the loop and gives what Serve returned.
func (b *bench) end() error {
	b.stop()
	err := <-b.ended
	b.Wait()
	if len(b.loops) != 0 {
		b.t.Errorf("left: %v", b.loops)
	}
	return err
}

func hello(conn net.Conn) { conn.Write([]byte("hello")) }

func accepting(errno unix.Errno) error {
	return &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", errno)}
}

// Trouble that passes is waited out, longer and longer, and logged once.
func TestFailsForAWhile(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED, unix.EPERM} {
		synctest.Test(t, func(t *testing.T) {
			p := memnet.Listen()
			b := start(t, p, 1, hello)
			begin := time.Now()
			for range 20 {
				p.Fail(accepting(errno))
			}
			if got := call(p); got != "hello" {
				t.Errorf("%q", got)
			}
			if waited := time.Since(begin); waited < 10*time.Second || waited > 20*time.Second {
				t.Errorf("%v: 20 failures in %v", errno, waited)
			}
			if err := b.end(); err != nil {
				t.Error(err)
			}
			if log := b.log.String(); strings.Count(log, "cannot accept") != 1 || strings.Count(log, "accepting connections again") != 1 {
				t.Errorf("%v: the log says\n%s", errno, log)
			}
		})
	}
}

// The loop ends at once although accept fails.
func TestEndWhileAcceptFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := memnet.Listen()
		b := start(t, p, 1, hello)
		for range 10 {
			p.Fail(accepting(unix.EMFILE))
		}
		synctest.Wait()
		begin := time.Now()
		if err := b.end(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("it took %v", took)
		}
	})
}

var errWeather = errors.New("an unknown error")

// Any other error ends Serve, and the listener; what is open goes on.
func TestFailsForGood(t *testing.T) {
	for _, err := range []error{accepting(unix.EINVAL), net.ErrClosed, errWeather} {
		synctest.Test(t, func(t *testing.T) {
			p := memnet.Listen()
			b := start(t, p, 2, func(conn net.Conn) { io.Copy(conn, conn) })
			ours := p.Dial()
			p.Fail(err)
			if got := <-b.ended; !errors.Is(got, err) || !strings.Contains(got.Error(), "memory") {
				t.Errorf("Serve: %v, want %v", got, err)
			}
			if _, closed := p.Accept(); closed != net.ErrClosed {
				t.Error("the listener is open")
			}
			echo := make([]byte, 1)
			ours.Write([]byte("x"))
			if _, err := io.ReadFull(ours, echo); err != nil || echo[0] != 'x' {
				t.Errorf("%q, %v", echo, err)
			}
			ours.Close()
			b.Wait()
		})
	}
}

// More connections than there may be wait in the backlog, and the loop goes
// round all the same.
func TestMaxConnections(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	open, most := 0, 0
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		open += n
		most = max(most, open)
	}
	b := start(t, l, 2, func(conn net.Conn) {
		count(1)
		defer count(-1)
		io.Copy(conn, conn)
	})
	for range 3 {
		if err := b.Alive(t.Context()); err != nil {
			t.Errorf("idle: %v", err)
		}
	}
	dial := func() net.Conn {
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	echo := func(conn net.Conn) {
		t.Helper()
		conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Error(err)
		}
	}
	one, two := dial(), dial()
	echo(one)
	echo(two)
	three := dial()
	for range 3 {
		if err := b.Alive(t.Context()); err != nil {
			t.Errorf("all taken: %v", err)
		}
	}
	one.Close()
	echo(three)
	two.Close()
	three.Close()
	if err := b.end(); err != nil {
		t.Error(err)
	}
	if most != 2 {
		t.Errorf("%d connections were open at once", most)
	}
	if err := b.Alive(t.Context()); err != nil {
		t.Errorf("ended: %v", err)
	}
	if _, err := net.Dial("unix", path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("the socket at the end: %v", err)
	}
}

// stuck is a listener that does not react.
type stuck struct{ *memnet.Listener }

func (stuck) SetDeadline(time.Time) error { return nil }

func TestStuckLoop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := start(t, stuck{memnet.Listen()}, 1, hello)
		synctest.Wait()
		for range 3 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := b.Alive(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v", err)
			}
			cancel()
		}
		b.end()
	})
}

// The kernel says who is at the other end of a unix socket, and of no other.
func TestPeer(t *testing.T) {
	for network, address := range map[string]string{"unix": t.TempDir() + "/s", "tcp": "127.0.0.1:0"} {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		ours, err := net.Dial(network, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		theirs, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		want := transport.Peer{}
		if network == "unix" {
			want = transport.Peer{UID: os.Getuid(), PID: os.Getpid()}
		}
		if got := Peer(theirs); got != want {
			t.Errorf("%s: %+v, want %+v", network, got, want)
		}
		theirs.Close()
		if got := Peer(theirs); got != (transport.Peer{}) {
			t.Errorf("%s, closed: %+v", network, got)
		}
		ours.Close()
		l.Close()
	}
}
