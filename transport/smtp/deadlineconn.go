package smtp

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"time"
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
	// the longest one read may wait, beside readUntil; 0: no other bound
	silence time.Duration
	end     time.Time // of readUntil

	mu         sync.Mutex
	ctx        context.Context // the bound one
	unbind     func() bool
	hard       context.Context // that ends all waits too; nil: none
	unbindHard func() bool
	// until when the end of ctx is no reason to stop waiting; zero: it always
	// is
	borne      time.Time
	givenUp    bool
	writesOver bool

	kernel kernel
}

// past is a deadline that ends every wait at once.
var past = time.Unix(1, 0)

// bind ties the connection's waits to ctx, in place of the context before.
func (s *deadlineConn) bind(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
	s.ctx = ctx
	s.end = time.Time{}
	s.Conn.SetDeadline(s.until(s.end))
	s.unbind = context.AfterFunc(ctx, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		// A context that was replaced meanwhile has no say any more.
		if s.ctx == ctx {
			s.Conn.SetReadDeadline(s.until(s.end))
			s.Conn.SetWriteDeadline(s.until(time.Now().Add(s.stall)))
		}
	})
}

// bear has the waits go on when the bound context ends, but not after t; they
// end with hard in any case, unless it is nil.
func (s *deadlineConn) bear(t time.Time, hard context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.borne, s.hard = t, hard
	if hard != nil {
		s.unbindHard = context.AfterFunc(hard, func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.hard == hard {
				s.Conn.SetDeadline(past)
			}
		})
	}
}

// loose lets the bound context go. Nothing is waited for until another is
// bound.
func (s *deadlineConn) loose() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release()
	s.ctx = context.Background()
}

// release lets the contexts go. The caller holds mu.
func (s *deadlineConn) release() {
	if s.unbind != nil {
		s.unbind()
	}
	if s.unbindHard != nil {
		s.unbindHard()
	}
	s.unbind, s.hard, s.unbindHard, s.borne = nil, nil, nil, time.Time{}
}

// cause says which context has ended all waits, if that is why they ended.
func (s *deadlineConn) cause() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.hard != nil && s.hard.Err() != nil:
		return context.Cause(s.hard)
	case s.borne.IsZero() && s.ctx.Err() != nil:
		return context.Cause(s.ctx)
	}
	return nil
}

// readUntil has reads end at t, or with the bound context if that is sooner;
// the zero time leaves it to the context alone.
func (s *deadlineConn) readUntil(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end = t
	s.Conn.SetReadDeadline(s.until(t))
}

// readSooner is readUntil, but moves the end of reads only forward: what a
// server says meanwhile, and is no reply, gains it no time.
func (s *deadlineConn) readSooner(t time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end.IsZero() || t.Before(s.end) {
		s.end = t
	}
	s.Conn.SetReadDeadline(s.until(s.end))
}

// limitSilence has the read that follows wait for no longer than the silence
// that is borne.
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
	switch {
	case s.givenUp, s.hard != nil && s.hard.Err() != nil:
		return past
	case s.ctx.Err() == nil:
		return t
	case s.borne.IsZero():
		return past
	case t.IsZero() || s.borne.Before(t):
		return s.borne
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
	if s.kernel.of(s.Conn) {
		return s.kernel.receive(p)
	}
	s.Conn.SetReadDeadline(past)
	if n, err = s.Conn.Read(p); n == 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = errWouldBlock
	}
	return n, err
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
	return s.writesOver || s.givenUp || s.hard != nil && s.hard.Err() != nil || s.ctx.Err() != nil && !time.Now().Before(s.borne)
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
// is known to lack (tcp(7), SIOCOUTQ). What it lacks, the other side has not
// read.
func (s *deadlineConn) unacknowledged() int {
	if !s.kernel.of(s.Conn) {
		return 0
	}
	return s.kernel.queued()
}

// Close closes the connection at once and lets the bound context go.
func (s *deadlineConn) Close() error {
	s.mu.Lock()
	if s.unbind != nil {
		s.unbind()
	}
	if s.unbindHard != nil {
		s.unbindHard()
	}
	s.mu.Unlock()
	return s.Conn.Close()
}
