package pipe

import (
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func accepting(errno unix.Errno) error {
	return &net.OpError{Op: "accept", Net: "unix", Err: os.NewSyscallError("accept4", errno)}
}

// Trouble that passes is waited out, longer and longer, and logged once.
func TestAcceptFailsForAWhile(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED} {
		bubble(t, func(b *bench, p *pipes) {
			start := time.Now()
			for range 20 {
				p.errs <- accepting(errno)
			}
			conn := p.connect()
			if waited := time.Since(start); waited < 10*time.Second || waited > 20*time.Second {
				b.t.Errorf("%v: 20 failures in %v", errno, waited)
			}
			conn.Write(whole(b.t, envelope("a")))
			want(b.t, answer(conn), "2.0.0 ")
			synctest.Wait()
			if log := b.log.String(); strings.Count(log, "can not accept") != 1 || strings.Count(log, "accepted again") != 1 {
				b.t.Errorf("%v: the log says\n%s", errno, log)
			}
		})
	}
}

// The daemon ends at once although accept fails.
func TestEndWhileAcceptFails(t *testing.T) {
	bubble(t, func(b *bench, p *pipes) {
		p.errs <- accepting(unix.EMFILE)
		synctest.Wait()
		start := time.Now()
		b.stop()
		if err := <-b.ended; err != nil {
			b.t.Error(err)
		}
		took(b.t, start, 0)
		b.ended <- nil
	})
}

// Any other error ends Serve, and the listener; what is open goes on.
func TestAcceptFailsForGood(t *testing.T) {
	for _, err := range []error{accepting(unix.EINVAL), net.ErrClosed, errWeather} {
		bubble(t, func(b *bench, p *pipes) {
			open := p.connect()
			p.errs <- err
			if got := <-b.ended; !errors.Is(got, err) || !strings.Contains(got.Error(), "memory") {
				b.t.Errorf("Serve: %v, want %v", got, err)
			}
			b.ended <- nil
			if _, closed := p.Accept(); closed != net.ErrClosed {
				b.t.Error("the listener is open")
			}
			open.Write(whole(b.t, envelope("a")))
			want(b.t, answer(open), "2.0.0 ")
		})
	}
}

// MaxConnections: more wait in the backlog.
func TestMaxConnections(t *testing.T) {
	b := serve(t, func(b *bench) { b.MaxConnections = 2 })
	one, two := b.connect(opening(t, envelope("a"))), b.connect(opening(t, envelope("b")))
	three := b.connect(whole(t, envelope("c")))
	four := b.connect(whole(t, envelope("d")))
	if err := b.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	b.wantCalls()
	one.Close()
	want(t, answer(three), "2.0.0 ")
	want(t, answer(four), "2.0.0 ")
	two.Close()
}

// At the end the socket is gone, and who comes then is refused.
func TestListenerIsClosed(t *testing.T) {
	b := serve(t, nil)
	b.stop()
	if err := <-b.ended; err != nil {
		t.Error(err)
	}
	b.ended <- nil
	if _, err := net.Dial("unix", b.path); !errors.Is(err, unix.ENOENT) {
		t.Errorf("%v", err)
	}
}
