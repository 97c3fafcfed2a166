// Package memnet is a listener whose connections live in memory, so that their
// deadlines follow the clock of a synctest bubble.
package memnet

import (
	"net"
	"sync"
)

// Listener is a net.Listener. It is safe for concurrent use.
type Listener struct {
	conns  chan net.Conn
	errs   chan error
	closed chan struct{}
	close  sync.Once
}

// Listen makes one.
func Listen() *Listener {
	return &Listener{conns: make(chan net.Conn), errs: make(chan error), closed: make(chan struct{})}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case conn := <-l.conns:
		return conn, nil
	case err := <-l.errs:
		return nil, err
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener. It may be called more than once.
func (l *Listener) Close() error {
	l.close.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "unix"} }

// Dial connects, as soon as Accept takes the connection.
func (l *Listener) Dial() net.Conn {
	return l.DialThrough(func(conn net.Conn) net.Conn { return conn })
}

// DialThrough is Dial with something put around the server's end.
func (l *Listener) DialThrough(around func(net.Conn) net.Conn) net.Conn {
	ours, theirs := net.Pipe()
	l.conns <- around(theirs)
	return ours
}

// Fail has one call of Accept fail, and returns when it does.
func (l *Listener) Fail(err error) { l.errs <- err }
