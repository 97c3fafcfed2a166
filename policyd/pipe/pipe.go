// Package pipe is the front end for mxpipe: one request a connection, over a
// unix socket, in the protocol of package wire.
//
// A request's life: the envelope is read; a place among the deliveries at
// once is waited for; the message is read into the spool; when the commit is
// there the transport delivers; the answer is written. A connection that
// closes before the commit drops the message. One that closes after it
// cancels the delivery, as far as that is still possible: what was delivered
// all the same is remembered (package served), so that the mail server's next
// try does not deliver it twice. A try that comes while an earlier one of the
// same message is still on its way to the same recipient is put off.
//
// A request keeps the transport that it began with, whatever is reloaded
// meanwhile.
//
// Every wait is bounded: five minutes for the whole envelope and then for the
// client's next bytes, five seconds for a place, the time that the client sent
// for all of it, and ten seconds for the answer to be taken. What the daemon
// itself refuses is temporary, but for a message beyond max_message_size.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
)

const (
	// stall is how long the client may take for its envelope, and then for its
	// next bytes.
	stall = 5 * time.Minute
	// turn is how long a message waits for a place among max_deliveries.
	turn = 5 * time.Second
	// answerTime is how long the client may take to read its answer.
	answerTime = 10 * time.Second
	// longest bounds the time-out that a client may ask for.
	longest = 24 * time.Hour
	// slack is what a delivery may take beyond its time before it is overdue.
	slack = 5 * time.Minute
	// acceptPause is the longest pause after accept(2) has failed.
	acceptPause = time.Second
)

// Deliverer is a transport.
type Deliverer interface {
	// Deliver gives one result for each recipient, in their order, and ends
	// soon after ctx.
	Deliver(ctx context.Context, env *transport.Envelope, msg *transport.Message) []transport.Result
}

// Way is a transport that is held for one delivery.
type Way struct {
	Deliverer
	// Release is called once, when the delivery is over.
	Release func()
	// Overtime is how long Deliver may go on after its context has ended,
	// because the server's last answer is waited for.
	Overtime time.Duration
}

// Config is what a Server works with. All of it must be set.
type Config struct {
	// Transport finds a transport by its name; ok is false when there is none.
	Transport func(name string) (way Way, ok bool)
	Spool     *spool.Spool
	Served    *served.Memory
	// Places holds one unit for each delivery that may be under way, over all
	// front ends.
	Places *semaphore.Weighted
	// MaxConnections bounds the connections of one socket that are open at
	// once; more wait in the socket's backlog.
	MaxConnections int
	Logger         *slog.Logger
}

// Server serves mxpipe. It is safe for concurrent use.
type Server struct {
	Config
	open    sync.WaitGroup // connections
	flights flights

	mu      sync.Mutex
	loops   map[*loop]struct{}
	running map[*request]time.Time // until when each must be over
}

// New makes a server.
func New(cfg Config) *Server {
	return &Server{
		Config:  cfg,
		flights: flights{all: map[flight]struct{}{}},
		loops:   map[*loop]struct{}{},
		running: map[*request]time.Time{},
	}
}

// Serve accepts connections until ctx ends, closes l and returns nil; an error
// means that l can not be served any more. Connections may be open then: see
// Wait. Those that have not sent an envelope by the end of ctx are turned away;
// the others go on until deliveries, a context of its own, ends.
func (s *Server) Serve(ctx, deliveries context.Context, l net.Listener) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	p := &loop{Listener: l, ping: make(chan chan struct{}, 1)}
	s.enter(p)
	defer s.leave(p)
	slots := make(chan struct{}, s.MaxConnections)
	for {
		select {
		case slots <- struct{}{}:
		case ack := <-p.ping:
			close(ack)
			continue
		case <-ctx.Done():
			return nil
		}
		conn, err := p.Accept()
		if err == nil {
			p.recovered(s.Logger)
			s.open.Go(func() {
				defer func() { <-slots }()
				s.serve(ctx, deliveries, conn)
			})
			continue
		}
		<-slots
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, os.ErrDeadlineExceeded):
			p.answer()
		case passing(err):
			p.failed(ctx, s.Logger, err)
		default:
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
	}
}

// Wait returns when no connection is open any more. Call it after Serve.
func (s *Server) Wait() { s.open.Wait() }

func (s *Server) enter(p *loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.loops[p] = struct{}{}
}

func (s *Server) leave(p *loop) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.loops, p)
}

// Alive reports, before ctx ends, whether every Serve that has not returned
// still goes round: an error means that one of them is stuck.
func (s *Server) Alive(ctx context.Context) error {
	s.mu.Lock()
	var loops []*loop
	for p := range s.loops {
		loops = append(loops, p)
	}
	s.mu.Unlock()
	for _, p := range loops {
		if err := p.alive(ctx); err != nil {
			return err
		}
	}
	return nil
}

// Overdue counts the deliveries that go on although their time, and all that
// may come on top of it, was over some minutes ago. There is no reason for one,
// but that something in the daemon waits for ever.
func (s *Server) Overdue() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, due := range s.running {
		if time.Now().After(due) {
			n++
		}
	}
	return n
}

func (s *Server) begin(r *request, due time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running[r] = due
}

func (s *Server) end(r *request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, r)
}

// loop is one Serve.
type loop struct {
	net.Listener
	ping  chan chan struct{} // what comes is closed by the loop
	pause time.Duration      // 0 when accept works
}

// alive has the loop go round once.
func (p *loop) alive(ctx context.Context) error {
	waker, ok := p.Listener.(interface{ SetDeadline(time.Time) error })
	if !ok {
		return nil
	}
	ack := make(chan struct{})
	select {
	case p.ping <- ack:
	case <-ctx.Done():
		return fmt.Errorf("accept on %v: %w", p.Addr(), ctx.Err())
	}
	waker.SetDeadline(time.Unix(1, 0)) // an error means that the loop is ending
	select {
	case <-ack:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("accept on %v: %w", p.Addr(), ctx.Err())
	}
}

// answer tells who asked that the loop goes round.
func (p *loop) answer() {
	// In this order: the deadline of a question that comes after it stays.
	p.Listener.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Time{})
	select {
	case ack := <-p.ping:
		close(ack)
	default:
	}
}

// passing reports whether accept(2) may work again after a while. The client
// waits in the backlog meanwhile; nothing is lost.
func passing(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS, unix.ECONNABORTED, unix.EPERM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// failed waits a little, longer each time.
func (p *loop) failed(ctx context.Context, log *slog.Logger, err error) {
	if p.pause == 0 {
		p.pause = 5 * time.Millisecond
		log.Warn("can not accept connections, trying on", "address", p.Addr().String(), "error", err)
	}
	select {
	case <-time.After(p.pause):
		p.pause = min(2*p.pause, acceptPause)
	case ack := <-p.ping:
		close(ack)
	case <-ctx.Done():
	}
}

func (p *loop) recovered(log *slog.Logger) {
	if p.pause > 0 {
		p.pause = 0
		log.Info("connections are accepted again", "address", p.Addr().String())
	}
}
