package script

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// ErrClosed reports that the server was closed while something was waited for.
var ErrClosed = errors.New("script server closed")

// Options say what a Server plays.
type Options struct {
	Addr string // where to listen; 127.0.0.1:0 when empty
	// one for each connection, in the order in which they are opened
	Scripts []Script
	// the last script serves all further connections too
	Repeat  bool
	TLS     map[string]*tls.Config // the configurations that TLS steps name
	Timeout time.Duration          // for each step; 0: 10 seconds
}

// Server plays scripts to the clients that connect.
type Server struct {
	opts     Options
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu sync.Mutex
	// closed and replaced whenever something below changes
	changed chan struct{}
	players []*player
	gates   map[string]chan struct{}
	opened  map[string]bool
}

// Start listens and plays until Close.
func Start(opts Options) (*Server, error) {
	if opts.Addr == "" {
		opts.Addr = "127.0.0.1:0"
	}
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	for _, s := range opts.Scripts {
		if err := s.check(); err != nil {
			return nil, err
		}
		for _, step := range s {
			if t, ok := step.(tlsStep); ok && opts.TLS[t.config] == nil {
				return nil, fmt.Errorf("script: %s: no such configuration", t)
			}
		}
	}
	listener, err := forks.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts:     opts,
		listener: listener,
		changed:  make(chan struct{}),
		gates:    map[string]chan struct{}{},
		opened:   map[string]bool{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.accept)
	return s, nil
}

// StartText starts a server on a port of its own choice that plays one dialogue
// to each connection in turn.
func StartText(configs map[string]*tls.Config, dialogues ...string) (*Server, error) {
	opts := Options{TLS: configs}
	for i, text := range dialogues {
		s, err := Parse(text)
		if err != nil {
			return nil, fmt.Errorf("dialogue %d: %w", i+1, err)
		}
		opts.Scripts = append(opts.Scripts, s)
	}
	return Start(opts)
}

// Addr returns host:port of the listener.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Open opens a gate for WAIT steps, for good. It does not matter who comes
// first.
func (s *Server) Open(gate string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.opened[gate] {
		s.opened[gate] = true
		close(s.gateLocked(gate))
	}
}

func (s *Server) gateLocked(name string) chan struct{} {
	if s.gates[name] == nil {
		s.gates[name] = make(chan struct{})
	}
	return s.gates[name]
}

// Close drops all connections, waits for every goroutine and returns the first
// deviation from a script, as Err does. A conversation that Close cuts short
// counts as a deviation.
func (s *Server) Close() error {
	s.cancel()
	s.listener.Close()
	s.mu.Lock()
	players := slices.Clone(s.players)
	s.mu.Unlock()
	for _, p := range players {
		p.conn.Close()
	}
	s.wg.Wait()
	return s.Err()
}

func (s *Server) accept() {
	for {
		conn, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
				// out of descriptors, perhaps; do not spin
				continue
			}
		}
		s.mu.Lock()
		p := s.newPlayer(conn, len(s.players)+1)
		s.players = append(s.players, p)
		s.signalLocked()
		s.mu.Unlock()
		// Close may have looked before this one was there
		if s.ctx.Err() != nil {
			conn.Close()
		}
		s.wg.Go(p.run)
	}
}

func (s *Server) newPlayer(conn net.Conn, number int) *player {
	p := &player{
		conn:     smtpconn.New(conn, smtpconn.Options{Timeout: s.opts.Timeout, Record: maxBytes}),
		ctx:      s.ctx,
		configs:  s.opts.TLS,
		patience: s.opts.Timeout,
		gate: func(name string) <-chan struct{} {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.gateLocked(name)
		},
		update: func(change func()) {
			s.mu.Lock()
			defer s.mu.Unlock()
			change()
			s.signalLocked()
		},
	}
	p.told.Number, p.told.Remote = number, conn.RemoteAddr().String()
	switch n := len(s.opts.Scripts); {
	case number <= n:
		p.script = s.opts.Scripts[number-1]
	case s.opts.Repeat && n > 0:
		p.script = s.opts.Scripts[n-1]
	default:
		p.script = Script{noScript}
	}
	return p
}

var noScript = step{"no script", func(*player) error { return errors.New("there is no script for this connection") }}

func (s *Server) signalLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// await waits until cond, called under the lock, holds.
func (s *Server) await(ctx context.Context, cond func() bool) error {
	for {
		s.mu.Lock()
		ok, changed := cond(), s.changed
		s.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.ctx.Done():
			return ErrClosed
		}
	}
}
