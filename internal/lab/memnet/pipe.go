package memnet

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// Pipe gives both ends of a connection in memory that holds up to room bytes
// in each direction, as the kernels do for TCP: who writes need not wait for
// who reads. What has arrived can be read after the deadline too, and after
// the other end was closed.
func Pipe(room int) (client, server *Conn) {
	there, back := newStream(room), newStream(room)
	client = &Conn{in: back, out: there, read: newAlarm(), write: newAlarm()}
	server = &Conn{in: there, out: back, read: newAlarm(), write: newAlarm()}
	return client, server
}

// Conn is one end of a Pipe. It is a net.Conn.
type Conn struct {
	in, out     *stream
	read, write *alarm
}

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) {
	return c.wait(c.read, c.in, func(s *stream) (int, error) {
		switch {
		case s.gone:
			return 0, net.ErrClosed
		case s.reset:
			return 0, syscall.ECONNRESET
		case len(s.data) > 0:
			n := copy(p, s.data)
			s.data = s.data[n:]
			return n, nil
		case s.ended:
			return 0, io.EOF
		}
		return 0, nil
	})
}

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		n, err := c.wait(c.write, c.out, func(s *stream) (int, error) {
			switch {
			case s.ended:
				return 0, net.ErrClosed
			case s.gone, s.reset:
				return 0, syscall.EPIPE
			}
			n := min(s.room-len(s.data), len(p)-done)
			s.data = append(s.data, p[done:done+n]...)
			return n, nil
		})
		if done += n; err != nil {
			return done, err
		}
	}
	return done, nil
}

// Close implements net.Conn. What was written before can still be read.
func (c *Conn) Close() error {
	c.out.change(func(s *stream) { s.ended = true })
	c.in.change(func(s *stream) { s.gone = true })
	return nil
}

// Reset closes the connection and throws away what was not read yet.
func (c *Conn) Reset() {
	c.out.change(func(s *stream) { s.reset, s.data = true, nil })
	c.Close()
}

// wait tries until something was done or the alarm goes off.
func (c *Conn) wait(a *alarm, s *stream, try func(*stream) (int, error)) (int, error) {
	for {
		s.mu.Lock()
		n, err := try(s)
		changed := s.changed
		if n > 0 {
			s.tell()
		}
		s.mu.Unlock()
		if n > 0 || err != nil {
			return n, err
		}
		over, set := a.state()
		select {
		case <-over:
			return 0, os.ErrDeadlineExceeded
		default:
		}
		select {
		case <-changed:
		case <-over:
		case <-set:
		}
	}
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.LocalAddr() }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.read.at(t)
	c.write.at(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error { c.read.at(t); return nil }

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error { c.write.at(t); return nil }

// stream is one direction.
type stream struct {
	room int

	mu      sync.Mutex
	data    []byte
	ended   bool // the writer closed it
	gone    bool // the reader did
	reset   bool
	changed chan struct{} // closed at the next change
}

func newStream(room int) *stream { return &stream{room: room, changed: make(chan struct{})} }

func (s *stream) change(f func(*stream)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
	s.tell()
}

// tell wakes all who wait. The caller holds mu.
func (s *stream) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// alarm is a deadline.
type alarm struct {
	mu    sync.Mutex
	timer *time.Timer
	over  chan struct{} // closed when the deadline has passed
	set   chan struct{} // closed when it is set anew
}

func newAlarm() *alarm { return &alarm{over: make(chan struct{}), set: make(chan struct{})} }

func (a *alarm) state() (over, set <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.over, a.set
}

func (a *alarm) at(t time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	over := make(chan struct{})
	a.over = over
	switch left := time.Until(t); {
	case t.IsZero():
	case left <= 0:
		close(over)
	default:
		a.timer = time.AfterFunc(left, func() { close(over) })
	}
	close(a.set)
	a.set = make(chan struct{})
}
