// Package accept takes connections from the daemon's sockets, for every front
// end alike.
//
// A bounded number of connections of one socket is open at once; more wait in
// the socket's backlog, where nothing is lost. Trouble that passes, such as
// having no descriptor left, is waited out, longer and longer up to a second,
// and logged once; any other error ends the loop. The watchdog has each loop
// go round to see that it is not stuck.
package accept

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/transport"
)

// longestPause is the longest pause after accept(2) has failed.
const longestPause = time.Second

// Loops are the accept loops of one front end, and the connections that came
// of them. They are safe for concurrent use.
type Loops struct {
	// MaxConnections bounds the connections of one socket that are open at
	// once. It is not changed after Serve was called.
	MaxConnections int

	log  *slog.Logger
	open sync.WaitGroup // connections

	mu    sync.Mutex
	loops map[*loop]struct{}
}

// New makes the loops of a front end, none of which runs yet.
func New(maxConnections int, log *slog.Logger) *Loops {
	return &Loops{MaxConnections: maxConnections, log: log, loops: map[*loop]struct{}{}}
}

// Serve accepts connections until ctx ends, closes l and returns nil; an error
// means that l cannot be served any more. Each connection is given to serve,
// in a goroutine of its own; it is closed when serve returns. Connections may
// be open when Serve returns: see Wait.
func (ls *Loops) Serve(ctx context.Context, l net.Listener, serve func(net.Conn)) error {
	defer l.Close()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	p := &loop{Listener: l, ping: make(chan chan struct{}, 1)}
	ls.enter(p)
	defer ls.leave(p)
	slots := make(chan struct{}, ls.MaxConnections)
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
			p.recovered(ls.log)
			ls.open.Go(func() {
				defer func() { <-slots }()
				defer conn.Close()
				serve(conn)
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
			p.failed(ctx, ls.log, err)
		default:
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
	}
}

// Wait returns when no connection is open any more. Call it after Serve.
func (ls *Loops) Wait() { ls.open.Wait() }

func (ls *Loops) enter(p *loop) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.loops[p] = struct{}{}
}

func (ls *Loops) leave(p *loop) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	delete(ls.loops, p)
}

// Alive reports, before ctx ends, whether every Serve that has not returned
// still goes round: an error means that one of them is stuck.
func (ls *Loops) Alive(ctx context.Context) error {
	ls.mu.Lock()
	var loops []*loop
	for p := range ls.loops {
		loops = append(loops, p)
	}
	ls.mu.Unlock()
	for _, p := range loops {
		if err := p.alive(ctx); err != nil {
			return err
		}
	}
	return nil
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
		log.Warn("cannot accept connections, retrying", "address", p.Addr().String(), "error", err)
	}
	select {
	case <-time.After(p.pause):
		p.pause = min(2*p.pause, longestPause)
	case ack := <-p.ping:
		close(ack)
	case <-ctx.Done():
	}
}

func (p *loop) recovered(log *slog.Logger) {
	if p.pause > 0 {
		p.pause = 0
		log.Info("accepting connections again", "address", p.Addr().String())
	}
}

// Peer asks the kernel who is at the other end (unix(7), SO_PEERCRED); of a
// connection that is no unix socket's is not known.
func Peer(conn net.Conn) transport.Peer {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return transport.Peer{}
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return transport.Peer{}
	}
	var p transport.Peer
	raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			p = transport.Peer{UID: int(cred.Uid), PID: int(cred.Pid)}
		}
	})
	return p
}
