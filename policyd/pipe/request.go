package pipe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"time"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

// request is one connection's work.
type request struct {
	*Server
	conn *client
	in   *wire.Reader
	env  transport.Envelope
	log  *slog.Logger
}

// serve does the work of one connection. ctx ends when the
// daemon takes no more work, deliveries when work is to end.
func (s *Server) serve(ctx, deliveries context.Context, c net.Conn) {
	r := &request{Server: s, conn: &client{Conn: c}, log: s.Logger}
	r.in = s.reader(r.conn)
	defer s.done(r.in)
	envelope := s.Envelope()
	defer envelope.End()
	r.in.Hold = envelope.Add
	if r.env.Peer = accept.Peer(c); r.env.Peer != (transport.Peer{}) {
		r.log = r.log.With("uid", r.env.Peer.UID, "pid", r.env.Peer.PID)
	}
	asked, err := r.hear(ctx)
	if err != nil {
		r.refuse(err)
		return
	}
	r.fill(&asked)

	limit := time.Duration(asked.Timeout) * time.Millisecond
	if limit <= 0 || limit > longest {
		limit = longest
	}
	deliveries, cancel := context.WithTimeoutCause(deliveries, limit, transport.ErrTimeout)
	defer cancel()
	upload, err := s.Upload(deliveries, asked.Transport)
	if err != nil {
		r.refuse(err)
		return
	}
	defer upload.End()
	msg, err := r.receive(deliveries, upload)
	if err != nil {
		r.refuse(err)
		return
	}
	defer msg.Close()
	slot, err := upload.Admit(deliveries, &r.env)
	if err != nil {
		r.refuse(err)
		return
	}
	defer slot.Release()
	r.handle(deliveries, slot, msg)
}

// reader gives a connection what reads it.
func (s *Server) reader(conn *client) *wire.Reader {
	if in, ok := s.readers.Get().(*wire.Reader); ok {
		in.Reset(conn)
		return in
	}
	return wire.NewReader(conn)
}

// done takes a reader back that nothing uses any more.
func (s *Server) done(in *wire.Reader) {
	in.Reset(nil)
	s.readers.Put(in)
}

// hear reads the envelope.
func (r *request) hear(ctx context.Context) (wire.Envelope, error) {
	bounded, cancel := context.WithTimeoutCause(ctx, intake.UploadStall, os.ErrDeadlineExceeded)
	defer cancel()
	cut := context.AfterFunc(bounded, r.conn.end)
	asked, err := r.in.Envelope()
	if !cut() {
		// ctx has ended: who has not said by now what it wants has come too
		// late.
		err = context.Cause(bounded)
		if ctx.Err() != nil {
			err = transport.ErrStopping
		}
	}
	return asked, err
}

// fill takes over the envelope.
func (r *request) fill(asked *wire.Envelope) {
	r.env = transport.Envelope{
		ID:          transport.NewID(),
		QueueID:     asked.QueueID,
		Peer:        r.env.Peer,
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
	r.log = r.log.With("id", r.env.ID, "queue_id", r.env.QueueID)
}

// receive reads the message.
func (r *request) receive(ctx context.Context, upload *intake.Upload) (*spool.Message, error) {
	ctx, cancel := upload.Receiving(ctx)
	defer cancel()
	cut := context.AfterFunc(ctx, r.conn.end)
	msg, err := r.Spool.Receive(r.in)
	if cut() {
		return msg, err
	}
	if err == nil {
		msg.Close()
	}
	return nil, context.Cause(ctx)
}

// refuse answers a request whose message is not taken.
func (r *request) refuse(err error) {
	var answer *status.Error
	switch {
	case errors.As(err, &answer):
	case errors.Is(err, wire.ErrUncommitted):
		if r.env.ID == "" {
			r.log.Debug("a client disconnected without a request")
		} else {
			r.log.Info("dropped a truncated message")
		}
		return
	case errors.Is(err, wire.ErrProtocol):
		answer = &status.Error{Code: status.New(status.Temporary, 3, 5), Text: "mxpolicyd does not understand the request", Err: err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		errors.As(intake.ErrStalled, &answer)
	default:
		answer = &status.Error{Code: status.New(status.Temporary, 3, 0), Text: "mxpolicyd could not read the message", Err: err}
	}
	intake.NotTaken(r.log, answer)
	// who does not hear it tries again as well
	r.conn.answer(answer.Code, answer.Error())
}

// handle delivers the message and answers.
func (r *request) handle(ctx context.Context, slot *intake.Slot, msg *spool.Message) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	w := r.watch(cancel)
	defer func() {
		r.conn.end()
		<-w.over
	}()
	d := slot.Deliver(ctx, &r.env, msg, r.log)
	defer d.End()
	r.conclude(d, w)
}

// watch is an eye on the client while its message is delivered.
type watch struct {
	over chan struct{}
	err  error // of client.silence, when over is closed
}

// gone reports whether the client has left, or broken the protocol.
func (w *watch) gone() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

// watch cancels the delivery when the client goes. A client that sends
// anything after its commit breaks the protocol, and is treated alike. Its
// caller ends the connection and waits for the watch to be over.
func (r *request) watch(cancel context.CancelCauseFunc) *watch {
	w := &watch{over: make(chan struct{})}
	r.conn.until(time.Time{}) // before the goroutine runs: later deadlines stay
	go func() {
		defer close(w.over)
		w.err = r.conn.silence()
		if !errors.Is(w.err, os.ErrDeadlineExceeded) {
			cancel(transport.ErrGone)
		}
	}()
	return w
}
