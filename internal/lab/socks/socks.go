// Package socks is a SOCKS5 proxy of the lab (RFC 1928, RFC 1929): it makes the
// connections that it is asked for, and carries what comes over them. It knows
// addresses only, and refuses a name, which nobody may ask it to look up.
package socks

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// Options say who may use the proxy.
type Options struct {
	// User and Password are who logs in; empty: everybody may use it.
	User, Password string
	// Lose has it close each connection when it has said that it was made.
	Lose bool
}

// Server is a running proxy.
type Server struct {
	opts     Options
	listener net.Listener
	wg       sync.WaitGroup

	// Asked counts the connections that the proxy was asked for, Names those
	// that were asked for by a name.
	Asked, Names atomic.Int64

	mu      sync.Mutex
	stopped bool
	open    map[net.Conn]struct{}
}

// Start serves at a free port of 127.0.0.1 until Stop.
func Start(opts Options) (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := &Server{opts: opts, listener: l, open: map[net.Conn]struct{}{}}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if s.track(c) {
				s.wg.Go(func() {
					defer s.end(c)
					s.serve(c)
				})
			}
		}
	})
	return s, nil
}

// Addr is where it listens.
func (s *Server) Addr() netip.AddrPort { return netip.MustParseAddrPort(s.listener.Addr().String()) }

// Stop ends all connections, and waits for their end.
func (s *Server) Stop() {
	s.listener.Close()
	s.mu.Lock()
	s.stopped = true
	for c := range s.open {
		c.Close()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

// track notes a connection, or closes it when the proxy has stopped.
func (s *Server) track(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		c.Close()
		return false
	}
	s.open[c] = struct{}{}
	return true
}

func (s *Server) end(c net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, c)
	c.Close()
}

// serve is one connection.
func (s *Server) serve(c net.Conn) {
	target, err := s.greet(c)
	if err != nil {
		return
	}
	s.Asked.Add(1)
	if !target.IsValid() {
		s.Names.Add(1)
		_, _ = c.Write([]byte{5, 8, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	out, err := net.Dial("tcp", target.String())
	if err != nil {
		_, _ = c.Write([]byte{5, 5, 0, 1, 0, 0, 0, 0, 0, 0})
		return
	}
	if !s.track(out) {
		return
	}
	defer s.end(out)
	if _, err := c.Write([]byte{5, 0, 0, 1, 127, 0, 0, 1, 0, 25}); err != nil || s.opts.Lose {
		return
	}
	s.wg.Go(func() {
		_, _ = io.Copy(out, c)
		_ = out.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(c, out)
}

var errProtocol = errors.New("not SOCKS5, or a login that is refused")

// greet gives what the client asks for; an address that is not valid for a
// name.
func (s *Server) greet(c net.Conn) (target netip.AddrPort, err error) {
	read := func(n int) []byte {
		b := make([]byte, n)
		if err == nil {
			_, err = io.ReadFull(c, b)
		}
		return b
	}
	write := func(b ...byte) {
		if err == nil {
			_, err = c.Write(b)
		}
	}
	read(int(read(2)[1]))
	if s.opts.User == "" {
		write(5, 0)
	} else {
		write(5, 2)
		user := read(int(read(2)[1]))
		password := read(int(read(1)[0]))
		if string(user) != s.opts.User || string(password) != s.opts.Password {
			write(1, 1)
			return target, errProtocol
		}
		write(1, 0)
	}
	var addr netip.Addr
	switch read(4)[3] {
	case 1:
		addr = netip.AddrFrom4([4]byte(read(4)))
	case 4:
		addr = netip.AddrFrom16([16]byte(read(16)))
	case 3:
		read(int(read(1)[0]))
	default:
		return target, errProtocol
	}
	port := read(2)
	return netip.AddrPortFrom(addr, uint16(port[0])<<8|uint16(port[1])), err
}
