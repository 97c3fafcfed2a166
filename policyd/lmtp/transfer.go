package lmtp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

// LMTPData takes the message that r gives, delivers it, and says what became of
// each recipient. The error is for all of them.
func (s *session) LMTPData(r io.Reader, replies smtp.StatusCollector) error {
	s.transfer.Add(1)
	defer s.transfer.Done()
	s.conn.begin()
	defer s.conn.end()

	if s.conn.data {
		r = &body{conn: s.conn, begins: true}
	}
	s.env.ID = transport.NewID()
	log := s.conn.log.With("id", s.env.ID)
	upload, err := s.Upload(s.conn.deliveries, s.transport)
	if err != nil {
		return s.refuse(r, err, log)
	}
	defer upload.End()
	msg, err := s.receive(upload, r)
	if err != nil {
		return s.refuse(r, err, log)
	}
	defer msg.Close()
	s.env.QueueID = queueID(msg.Header)
	log = log.With("queue_id", s.env.QueueID)
	ctx, cancel := context.WithTimeoutCause(s.conn.deliveries, deliveryTime, transport.ErrTimeout)
	defer cancel()
	slot, err := upload.Admit(ctx, &s.env)
	if err != nil {
		return s.refuse(r, err, log) // r is at its end
	}
	defer slot.Release()
	d := s.deliver(ctx, slot, msg, log)
	for i, result := range d.Results {
		replies.SetStatus(s.names[i], replyTo(result.Code, result.Text))
	}
	switch owing := (unconfirmed{d, log}); {
	case s.conn.err != nil: // nothing will read the replies
		owing.writeDown(s.conn.err)
	case d.Detach():
		s.conn.unconfirmed = append(s.conn.unconfirmed, owing)
	}
	return errNoResult
}

// errNoResult is the reply for a recipient of the library's whom we do not
// know, which would be a defect of ours. Without it the library would say that
// the message was delivered.
var errNoResult = replyTo(status.New(status.Temporary, 3, 0), "nothing was done for this recipient")

// receive reads the message.
func (s *session) receive(upload *intake.Upload, r io.Reader) (*spool.Message, error) {
	ctx, cancel := upload.Receiving(s.conn.deliveries)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if s.conn.deliveries.Err() == nil {
			s.conn.cut(intake.ErrSlow)
		}
	})()
	msg, err := s.Spool.Receive(r)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return msg, err
}

// deliver delivers the message, unless the client goes.
func (s *session) deliver(ctx context.Context, slot *intake.Slot, msg *spool.Message, log *slog.Logger) *intake.Delivery {
	ctx, leave := context.WithCancelCause(ctx)
	defer leave(nil)
	defer s.conn.watch(func() { leave(transport.ErrGone) })()
	return slot.Deliver(ctx, &s.env, msg, log)
}

// refuse gives the reply for a message that is not taken, for all of its
// recipients. The rest of the message is read first: what is left of it must
// not be taken for commands, and a reply in its middle would be one for all.
func (s *session) refuse(r io.Reader, err error, log *slog.Logger) error {
	var answer *status.Error
	switch {
	case errors.As(err, &answer):
		io.Copy(io.Discard, r)
	case cameShort(err):
		s.broken = errors.Is(err, smtp.ErrDataReset)
		log.Info("dropped a truncated message")
		return replyTo(status.New(status.Temporary, 3, 2), transport.ErrGone.Error())
	default:
		answer = &status.Error{Code: status.New(status.Temporary, 3, 0), Text: "mxpolicyd could not read the message", Err: err}
		io.Copy(io.Discard, r)
	}
	intake.NotTaken(log, answer)
	return replyTo(answer.Code, answer.Error())
}

// cameShort reports whether an error of reading a message means that the client
// did not send all of it.
func cameShort(err error) bool {
	return errors.Is(err, net.ErrClosed) || errors.Is(err, smtp.ErrDataReset)
}

// replyTo makes a recipient's reply. The mail server acts on the first digit of
// its code, and logs the text.
func replyTo(code status.Code, text string) *smtp.SMTPError {
	if code.IsZero() {
		code = status.New(status.Temporary, 3, 0) // a defect of ours
	}
	return &smtp.SMTPError{
		Code:         basic(code),
		EnhancedCode: smtp.EnhancedCode{int(code.Class), int(code.Subject), int(code.Detail)},
		Message:      text,
	}
}

// basic gives the reply code that goes with an enhanced one (RFC 5321 §4.2.3,
// RFC 5248).
func basic(code status.Code) int {
	full := code.Subject == 2 && code.Detail == 2 || code.Subject == 3 && (code.Detail == 1 || code.Detail == 4)
	switch code.Class {
	case status.Success:
		return 250
	case status.Permanent:
		switch {
		case full:
			return 552
		case code.Subject == 1 && code.Detail == 3:
			return 553
		case code.Subject == 5 || code.Subject == 6:
			return 554
		}
		return 550
	}
	if full {
		return 452
	}
	return 451
}
