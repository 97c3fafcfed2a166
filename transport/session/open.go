package session

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// open greets the server, starts TLS and has the connection judged, where the
// verdict allows plaintext over a second connection in the clear.
func (o *opening) open(ctx context.Context, c *Conn, conn *limitedConn) error {
	if err := o.greet(ctx, c, conn); err != nil {
		return err
	}
	err := o.startTLS(ctx, c)
	if err == nil {
		return nil
	}
	var at *smtp.Error
	if !c.Host.Verdict.Plaintext() || ctx.Err() != nil || !errors.As(err, &at) || errors.Is(err, smtp.ErrInjection) {
		c.session.Close()
		return err
	}
	o.probe.noTLS(at)
	decision := decideSession(at)
	c.TLSErr = at
	if decision.TLSFailed && decision.Conn == outcome.Keep {
		return nil // refused by a reply: the connection is as it was
	}
	c.session.Close()
	if !decision.TLSFailed {
		return err
	}
	c.proof, c.handshake = verdict.Proof{}, 0
	c.permit.Release()
	if conn, _, err = o.dial(ctx, []netip.Addr{c.addr}); err != nil {
		return err
	}
	c.permit = conn.permit
	return o.greet(ctx, c, conn)
}

// greet opens the session. On error the connection is closed.
func (o *opening) greet(ctx context.Context, c *Conn, conn *limitedConn) (err error) {
	defer Spend(&o.Record.Greeting, time.Now())
	cfg := smtp.Config{
		Hostname:          o.cfg.Hostname,
		CommandTimeout:    o.cfg.CommandTimeout,
		SubmissionTimeout: o.cfg.SubmissionTimeout,
		Buffers:           &o.conns.buffers,
	}
	cfg.Trace = o.trace(o.Request, c.addr)
	c.session, err = smtp.Open(ctx, conn.Conn, cfg)
	var at *smtp.Error
	if err == nil || errors.As(err, &at) && at.Err == nil {
		o.attempt.Succeeded()
	}
	if err != nil {
		return err
	}
	if err = c.session.Hello(ctx); err != nil {
		c.session.Close()
	}
	if junk := c.session.Junk(); junk.Lines > 0 {
		o.Log.Info("the server says what is no reply, which was passed over", "host", c.Host.Host.Name, "address", c.addr.String(), "lines", junk.Lines, "first", junk.First)
	}
	return err
}

// startTLS starts TLS if the server offers it, and has what it showed judged by
// the verdict. A *verdict.Failure says that the host may not have the message.
func (o *opening) startTLS(ctx context.Context, c *Conn) error {
	v := &c.Host.Verdict
	if c.session.Extensions().StartTLS {
		start := time.Now()
		err := c.session.StartTLS(ctx, o.probe.over(o.cfg.TLS.config(v, c.persistConn, o.cfg.Name)))
		Spend(&o.Record.TLS, start)
		var failed *verdict.Failure
		switch {
		case err == nil:
		case errors.As(err, &failed):
			return failed
		case v.Plaintext() || ctx.Err() != nil || c.session.TLS() != nil:
			return err
		default:
			return v.NoTLS(err)
		}
	}
	if failed := v.Judge(&c.proof); failed != nil {
		return failed
	}
	if failed := v.JudgeExtension(c.session.Extensions().RequireTLS); failed != nil {
		return failed
	}
	return nil
}

// decideSession says what a failure before the transaction means.
func decideSession(err *smtp.Error) outcome.Decision {
	if err.Err != nil {
		return outcome.ForError(err.Stage, err.Err, 0)
	}
	return outcome.ForReply(err.Stage, err.Reply, 0)
}

// hostError makes a host's reason out of an error; stage is where it happened,
// unless the error itself knows better.
func hostError(ctx context.Context, h *plan.Host, stage outcome.Stage, err error) *status.Error {
	var at *smtp.Error
	var failed *verdict.Failure
	var dialled *dial.Error
	switch {
	case errors.Is(err, limit.ErrBusy):
		return &status.Error{Code: status.New(status.Temporary, 4, 5), Host: h.Host.Name, Err: err}
	case errors.As(err, &failed):
		return &status.Error{Code: failed.Code, Host: h.Host.Name, Text: failed.Text}
	case errors.As(err, &at) && at.Err == nil:
		code := decideSession(at).Code
		if !h.Verdict.Plaintext() && at.Stage < outcome.EHLOAfterTLS {
			// Nobody has proven yet that he speaks for the host. A stranger's
			// word must not bounce what may not even be shown to him.
			code.Class = status.Temporary
		}
		return &status.Error{Code: code, Host: h.Host.Name, Text: at.Reply.Text()}
	case errors.As(err, &at):
		return &status.Error{Code: decideSession(at).Code, Host: h.Host.Name, Err: at}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &dialled) && dialled.Local():
		// Nobody else is to blame.
		return &status.Error{Code: status.New(status.Temporary, 3, 0), Host: h.Host.Name, Err: err}
	}
	return &status.Error{Code: outcome.ForError(stage, err, 0).Code, Host: h.Host.Name, Err: err}
}
