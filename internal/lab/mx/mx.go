// Package mx is a mail server of the lab: it receives mail for anyone,
// remembers what it got and how, and behaves as a test tells it to.
//
// Behaviour says which extensions EHLO offers, how TLS goes, which recipients
// are refused, and, by an Action at a Stage, what goes wrong: another reply, a
// dropped line, a wait. It can be changed while the server runs; a session
// sees the new one at its next command.
//
// The server is written by hand and not on top of go-smtp, because it has to do
// what a decent library refuses to do, and because it keeps records of its
// clients. As RFC 2920 §3.2 asks, it sends its replies when it has run out of
// commands to read, which makes the number of flights of a message exact (see
// package smtpconn and Behaviour.Settle). It ends DATA at CRLF.CRLF only, and
// notes a Violation whenever a client breaks a rule: a bare CR or LF, a command
// sent ahead without PIPELINING, a parameter that was not offered. A violation
// that a server would normally forgive does not make the message fail, so that
// a test sees both.
//
// A message is stored, and counted by Wait, at the moment at which the server
// takes responsibility for it: when a positive final reply is about to be sent.
// A session that breaks before that has delivered nothing.
package mx

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// Options say where a server listens and how much it remembers.
type Options struct {
	// 127.0.0.1:0 when empty; many hosts share one port on 127.0.0.2, 127.0.0.3
	// and so on
	Addr        string
	Behaviour   Behaviour     // to begin with
	Timeout     time.Duration // for each read and write; 0: 5 minutes
	MaxMessages int           // messages kept, the latest; 0: 10,000
	MaxBytes    int           // of bodies kept; 0: 256 MiB
	// the largest body taken where the behaviour sets no limit; 0: 64 MiB
	MaxBody int
	Discard bool         // keep no bodies, for benchmarks
	Log     *slog.Logger // tells the dialogue at debug level; nil: no one
}

// Server is a running mail server. Its methods may be called from any
// goroutine.
type Server struct {
	opts      Options
	listener  net.Listener
	ctx       context.Context
	cancel    context.CancelFunc
	wg        sync.WaitGroup
	ticketKey [32]byte
	ids       atomic.Int64

	mu      sync.Mutex
	state   *behaviourState
	open    map[*smtpconn.Conn]struct{}
	changed chan struct{} // closed and replaced when the store changes
	store   store
	rate    bucket
}

// Start listens and serves until Stop.
func Start(opts Options) (*Server, error) {
	fill(&opts.Addr, "127.0.0.1:0")
	fill(&opts.Timeout, 5*time.Minute)
	fill(&opts.MaxMessages, 10_000)
	fill(&opts.MaxBytes, 256<<20)
	fill(&opts.MaxBody, 64<<20)
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	listener, err := forks.Listen("tcp", opts.Addr)
	if err != nil {
		return nil, err
	}
	s := &Server{
		opts:     opts,
		listener: listener,
		open:     map[*smtpconn.Conn]struct{}{},
		changed:  make(chan struct{}),
	}
	s.store.counters.Verbs = map[string]int{}
	s.store.counters.Stages = map[Stage]int{}
	if _, err := rand.Read(s.ticketKey[:]); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.SetBehaviour(opts.Behaviour)
	s.wg.Go(s.accept)
	return s, nil
}

func fill[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Stop closes the listener and every connection and waits for all goroutines.
// What was received can still be read.
func (s *Server) Stop() error {
	s.cancel()
	err := s.listener.Close()
	s.DropConnections()
	s.wg.Wait()
	if errors.Is(err, net.ErrClosed) {
		return nil // stopped before
	}
	return err
}

// Addr returns host:port of the listener.
func (s *Server) Addr() string { return s.listener.Addr().String() }

// Behaviour returns the behaviour in force. Its maps and slices must not be
// changed.
func (s *Server) Behaviour() Behaviour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.Behaviour
}

// SetBehaviour gives the server another behaviour, from each session's next
// command on. Counts of Action start anew.
func (s *Server) SetBehaviour(h Behaviour) {
	r := newBehaviourState(h, s.ticketKey)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state = r
}

// DropConnections closes all open connections without a word, as a server does
// that was restarted or lost patience with idle clients. New connections are
// served.
func (s *Server) DropConnections() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn := range s.open {
		conn.Close()
	}
}

func (s *Server) accept() {
	for {
		raw, err := s.listener.Accept()
		if err != nil {
			select {
			case <-s.ctx.Done():
				return
			case <-time.After(5 * time.Millisecond):
				// out of descriptors, perhaps; do not spin
				continue
			}
		}
		conn := smtpconn.New(raw, smtpconn.Options{Timeout: s.opts.Timeout})
		x := &session{s: s, conn: conn}
		s.update(func(st *store) {
			s.open[conn] = struct{}{}
			c := &st.counters
			c.Connections++
			c.Open++
			c.Peak = max(c.Peak, c.Open)
			x.number, x.place = c.Connections, c.Open
		})
		// Stop may have looked before this one was there
		if s.ctx.Err() != nil {
			conn.Close()
		}
		s.wg.Go(func() {
			defer s.left(conn)
			x.run()
		})
	}
}

// left closes a connection and takes it off the list.
func (s *Server) left(conn *smtpconn.Conn) {
	conn.Close()
	s.update(func(st *store) {
		delete(s.open, conn)
		st.counters.Open--
		st.counters.Flights += conn.Flights()
	})
}

func (s *Server) behaviour() *behaviourState {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// take asks the behaviour in force what shall happen at a stage.
func (s *Server) take(stage Stage) Action {
	s.update(func(st *store) { st.counters.Stages[stage]++ })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state.take(stage)
}
