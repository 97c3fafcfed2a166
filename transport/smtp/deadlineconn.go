package smtp

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadlineConn is a network connection none of whose waits is unbounded. Reads
// end at an absolute time, set for each reply; writes end when the peer takes
// nothing for a while, however large the write is; both end when the bound
// context ends.
//
// While polling is set, a read takes what has arrived and waits for nothing.
// That is what it takes to look at what the server has said under TLS:
// crypto/tls reads several records at once and keeps those that it has not
// opened, where neither its buffer nor the kernel shows them.
type deadlineConn struct {
	net.Conn
	stall   time.Duration // the longest a write may make no progress
	polling bool          // changed and asked by the goroutine that reads
	silence time.Duration // the longest one read may wait, beside readUntil; 0: no other bound
	end     time.Time     // of readUntil

	mu         sync.Mutex
	ctx        context.Context // the bound one
	unbind     func() bool
	givenUp    bool
	writesOver bool
}

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

// bind ties the connection's waits to ctx, in place of the context before.
func (s *deadlineConn) bind(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unbind != nil {
		s.unbind()
	}
	s.ctx = ctx
	s.Conn.SetDeadline(s.until(time.Time{}))
	s.unbind = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		// A context that was replaced meanwhile has no say any more.
		if s.ctx == ctx {
			s.Conn.SetDeadline(past)
		}
	})
}

// loose lets the bound context go. Nothing is waited for until another is bound.
func (s *deadlineConn) loose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unbind != nil {
		s.unbind()
	}
	s.ctx, s.unbind = context.Background(), nil
}

// readUntil has reads end at t, or with the bound context if that is sooner;
// the zero time leaves it to the context alone.
func (s *deadlineConn) readUntil(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = t
	s.Conn.SetReadDeadline(s.until(t))
}

// limitSilence has the read that follows wait for no longer than the silence that is
// borne.
func (s *deadlineConn) limitSilence() {
	t := time.Now().Add(s.silence)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.end.IsZero() && s.end.Before(t) {
		t = s.end
	}
	s.Conn.SetReadDeadline(s.until(t))
}

// until gives t, or a time long ago if the bound context has ended. The
// context's own deadline is left out on purpose: a wait that it ends must find
// it ended, or our lack of time would be taken for the server's silence.
func (s *deadlineConn) until(t time.Time) time.Time {
	if s.givenUp || s.ctx.Err() != nil {
		return past
	}
	return t
}

// errWouldBlock is what a read ends with that found nothing while polling. It
// is temporary, so that crypto/tls does not keep it.
var errWouldBlock net.Error = wouldBlock{}

type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing has arrived" }
func (wouldBlock) Timeout() bool   { return true }
func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn.
func (s *deadlineConn) Read(p []byte) (int, error) {
	if s.polling {
		return s.readNow(p)
	}
	if s.silence > 0 {
		s.limitSilence()
	}
	return s.Conn.Read(p)
}

// readNow reads what has arrived. The kernel is asked past Go's deadlines,
// which may have passed while the connection was idle; a connection without a
// descriptor is asked with a deadline that has passed.
func (s *deadlineConn) readNow(p []byte) (n int, err error) {
	raw := s.descriptor()
	if raw == nil {
		s.Conn.SetReadDeadline(past)
		if n, err = s.Conn.Read(p); n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
			err = errWouldBlock
		}
		return n, err
	}
	failed := raw.Control(func(fd uintptr) {
		for {
			if n, _, err = unix.Recvfrom(int(fd), p, unix.MSG_DONTWAIT); err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case failed != nil:
		return 0, failed
	case err == unix.EAGAIN:
		return 0, errWouldBlock
	case err != nil:
		return 0, os.NewSyscallError("recvfrom", err)
	case n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return n, nil
}

// descriptor gives the kernel's side of the connection; nil: it has none, or
// is closed.
func (s *deadlineConn) descriptor() syscall.RawConn {
	conn, ok := s.Conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// Write writes all of p unless the peer takes nothing of it for the stall time.
func (s *deadlineConn) Write(p []byte) (int, error) {
	done := 0
	for {
		s.mu.Lock()
		end := s.until(time.Now().Add(s.stall))
		if s.writesOver {
			end = past
		}
		s.Conn.SetWriteDeadline(end)
		s.mu.Unlock()
		n, err := s.Conn.Write(p[done:])
		done += n
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || s.over() {
			return done, err
		}
	}
}

// over reports whether all waits to write have ended, and not just one.
func (s *deadlineConn) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.givenUp || s.writesOver || s.ctx.Err() != nil
}

// endWrites has the write under way fail unless the kernel has taken all of
// it, and all later ones, until writes are allowed again.
func (s *deadlineConn) endWrites() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writesOver = true
	s.Conn.SetWriteDeadline(past)
}

// allowWrites ends endWrites.
func (s *deadlineConn) allowWrites() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writesOver = false
}

// giveUp ends all waits, of now and of later.
func (s *deadlineConn) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.givenUp = true
	s.Conn.SetDeadline(past)
}

// unacknowledged gives how many bytes of what was sent the other side's kernel
// is known to lack (tcp(7), SIOCOUTQ). What it lacks, nobody there has read.
func (s *deadlineConn) unacknowledged() (n int) {
	if raw := s.descriptor(); raw != nil {
		raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
	}
	return n
}

// Close closes the connection at once and lets the bound context go.
func (s *deadlineConn) Close() error {
	s.mu.Lock()
	if s.unbind != nil {
		s.unbind()
	}
	s.mu.Unlock()
	return s.Conn.Close()
}
