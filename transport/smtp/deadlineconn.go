package smtp

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// deadlineConn is a network connection none of whose waits is unbounded. Reads end
// at an absolute time, set for each reply; writes end when the peer takes
// nothing for a while, however large the write is; both end when the bound
// context ends.
type deadlineConn struct {
	net.Conn
	stall time.Duration // the longest a write may make no progress

	mu      sync.Mutex
	ctx     context.Context // the bound one
	unbind  func() bool
	givenUp bool
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
	s.Conn.SetDeadline(time.Time{})
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

// Write writes all of p unless the peer takes nothing of it for the stall time.
func (s *deadlineConn) Write(p []byte) (int, error) {
	done := 0
	for {
		s.mu.Lock()
		s.Conn.SetWriteDeadline(s.until(time.Now().Add(s.stall)))
		s.mu.Unlock()
		n, err := s.Conn.Write(p[done:])
		done += n
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) || s.over() {
			return done, err
		}
	}
}

// over reports whether all waits have ended, and not just one.
func (s *deadlineConn) over() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.givenUp || s.ctx.Err() != nil
}

// giveUp ends all waits, of now and of later.
func (s *deadlineConn) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.givenUp = true
	s.Conn.SetDeadline(past)
}

// unacknowledged reports whether the other side's kernel is known to lack some
// of what was sent (tcp(7), SIOCOUTQ). What it lacks, nobody there has read.
func (s *deadlineConn) unacknowledged() bool {
	n := 0
	if conn, ok := s.Conn.(syscall.Conn); ok {
		if raw, err := conn.SyscallConn(); err == nil {
			raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) })
		}
	}
	return n > 0
}

// readable reports whether there is something to read, the end included.
func (s *deadlineConn) readable() bool {
	conn, ok := s.Conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return true
	}
	var waits bool
	err = raw.Control(func(fd uintptr) {
		_, _, err := unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		waits = err == unix.EAGAIN
	})
	return err != nil || !waits
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
