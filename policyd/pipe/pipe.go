// Package pipe is the front end for mxpipe: one request a connection, over a
// unix socket, in the protocol of package wire.
//
// A request's life: the envelope is read; a place among the deliveries at
// once is waited for; the message is read into the spool; when the commit is
// there the transport delivers; the answer is written. A connection that
// closes before the commit drops the message. One that closes after it
// cancels the delivery, as far as that is still possible: what was delivered
// all the same is remembered (package served), so that the mail server's next
// try does not deliver it twice.
//
// Every wait is bounded: for the client's next bytes, for a place, for the
// delivery by the time-out that the client sent, for the answer to be taken.
package pipe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// stall is how long the client may send nothing, or take no answer.
	stall = 5 * time.Minute
	// turn is how long a message waits for a place among max_deliveries.
	turn = 5 * time.Second
	// answerTime is how long the client may take to read its answer.
	answerTime = 10 * time.Second
	// longest bounds the time-out that a client may ask for.
	longest = 24 * time.Hour
)

// Deliverer is a transport.
type Deliverer interface {
	Deliver(ctx context.Context, env *transport.Envelope, msg *transport.Message) []transport.Result
}

// Server serves mxpipe.
type Server struct {
	// Transport finds a transport by its name. What it returned is released
	// when the delivery is over.
	Transport func(name string) (way Deliverer, release func(), ok bool)
	Spool     *spool.Spool
	Served    *served.Memory
	// Places holds one unit for each delivery that may be under way.
	Places *semaphore.Weighted
	// MaxConnections bounds the connections that are open at once; more wait
	// in the socket's backlog.
	MaxConnections int
	Logger         *slog.Logger
}

// Serve accepts connections until ctx ends, and returns when the last of them
// is done. Connections that have not sent an envelope by then are closed; the
// others go on until deliveries, a context of its own, ends.
func (s *Server) Serve(ctx, deliveries context.Context, l net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	slots := make(chan struct{}, s.MaxConnections)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := l.Accept()
		switch {
		case err == nil:
			open.Go(func() {
				defer func() { <-slots }()
				s.serve(ctx, deliveries, conn)
			})
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.ENOBUFS):
			// The client waits in the backlog meanwhile; nothing is lost.
			<-slots
			s.Logger.Warn("can not accept a connection, trying again", "error", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil
			}
		default:
			return fmt.Errorf("accept on %v: %w", l.Addr(), err)
		}
	}
}

// request is one connection's work.
type request struct {
	*Server
	conn *client
	in   *wire.Reader
	env  transport.Envelope
	log  *slog.Logger
}

func (s *Server) serve(ctx, deliveries context.Context, c net.Conn) {
	conn := &client{Conn: c}
	defer conn.Close()
	r := &request{Server: s, conn: conn, in: wire.NewReader(conn), log: s.Logger}
	// Who has not yet said what it wants is sent away at the end.
	hangUp := context.AfterFunc(ctx, conn.end)
	asked, err := r.in.Envelope()
	if !hangUp() || err != nil {
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, io.EOF) {
			r.log.Warn("bad request on the pipe socket", "peer", peer(c), "error", err)
			r.answer(status.New(status.Temporary, 3, 0), "mxpolicyd does not understand the request: "+err.Error())
		}
		return
	}
	r.fill(&asked)
	limit := asked.Timeout
	if limit <= 0 || limit > longest {
		limit = longest
	}
	deliveries, cancel := context.WithTimeoutCause(deliveries, limit, transport.ErrTimeout)
	defer cancel()
	way, release, ok := s.Transport(asked.Transport)
	if !ok {
		r.answer(status.New(status.Temporary, 3, 5), fmt.Sprintf("mxpolicyd has no transport named %q", asked.Transport))
		return
	}
	defer release()
	if !r.place(deliveries) {
		r.log.Warn("no place for a delivery within 5 s, max_deliveries are under way", "queue_id", r.env.QueueID)
		r.answer(status.New(status.Temporary, 3, 2), "mxpolicyd is busy: max_deliveries are under way")
		return
	}
	defer s.Places.Release(1)
	r.handle(deliveries, way)
}

func (r *request) place(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, turn)
	defer cancel()
	return r.Places.Acquire(ctx, 1) == nil
}

// fill takes over the envelope.
func (r *request) fill(asked *wire.Envelope) {
	r.env = transport.Envelope{
		ID:          transport.NewID(),
		QueueID:     asked.QueueID,
		Peer:        peer(r.conn.Conn),
		Sender:      asked.Sender,
		Recipients:  make([]transport.Recipient, len(asked.Recipients)),
		Nexthop:     asked.Nexthop,
		EightBit:    asked.Body == "8bitmime",
		SMTPUTF8:    asked.SMTPUTF8,
		RequireTLS:  asked.RequireTLS,
		EnvID:       asked.EnvID,
		Quarantined: asked.Quarantined,
	}
	switch asked.Ret {
	case "full":
		r.env.Ret = "FULL"
	case "hdrs":
		r.env.Ret = "HDRS"
	}
	for i, rcpt := range asked.Recipients {
		r.env.Recipients[i] = transport.Recipient{Address: rcpt.Address, Notify: rcpt.Notify, ORcpt: rcpt.ORcpt}
	}
	r.log = r.Logger.With("id", r.env.ID, "queue_id", r.env.QueueID)
}

// handle reads the message, delivers it and answers.
func (r *request) handle(ctx context.Context, way Deliverer) {
	stop := context.AfterFunc(ctx, r.conn.end)
	msg, err := r.Spool.Receive(r.in)
	if !stop() && err == nil {
		msg.Close()
		err = context.Cause(ctx)
	}
	if err != nil {
		r.refuse(ctx, err)
		return
	}
	defer msg.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	watched := r.watch(cancel)
	results := r.deliver(ctx, way, msg)
	r.conn.end()
	<-watched
	cancel(nil)
	r.conclude(msg, results)
}

// refuse answers a message that did not come in whole.
func (r *request) refuse(ctx context.Context, err error) {
	var trouble *status.Error
	switch {
	case errors.As(err, &trouble):
		r.log.Warn("message not taken", "dsn", trouble.Code.String(), "text", trouble.Error())
		r.answer(trouble.Code, trouble.Error())
	case errors.Is(err, wire.ErrUncommitted):
		r.log.Info("dropped a message that was cut off", "uid", r.env.Peer.UID, "pid", r.env.Peer.PID)
	case ctx.Err() != nil:
		r.answer(status.New(status.Temporary, 3, 2), "message not taken: "+context.Cause(ctx).Error())
	default:
		r.log.Warn("message not taken", "error", err)
		r.answer(status.New(status.Temporary, 3, 0), "mxpolicyd could not read the message: "+err.Error())
	}
}

// watch cancels the delivery when the client goes. A client that sends
// anything after its commit breaks the protocol, and is treated alike.
func (r *request) watch(cancel context.CancelCauseFunc) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if !r.conn.quiet() {
			cancel(transport.ErrGone)
		}
	}()
	return done
}

func (r *request) answer(code status.Code, text string) error {
	r.conn.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := r.conn.Write(wire.AppendAnswer(nil, wire.Answer{Code: code.String(), Text: text}))
	return err
}

// peer asks the kernel who is at the other end (unix(7), SO_PEERCRED).
func peer(conn net.Conn) transport.Peer {
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
