package session

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// maxSilence is how long a server may be silent in a handshake before a plainer
// hello is tried.
const maxSilence = 10 * time.Second

// helloError is a hello that failed before the server's certificate
// was judged, so that a plainer one may fare better.
type helloError struct{ handshake.Try }

// Error gives what went wrong.
func (e *helloError) Error() string { return handshake.Error{e.Try}.Error() }

// refusal is a server that refused STARTTLS by a reply.
type refusal struct {
	at      *smtp.Error
	refused *handshake.Refused
}

// Error quotes the reply.
func (r *refusal) Error() string { return r.refused.Error() }

// Unwrap gives what it is to the session, and to TLS.
func (r *refusal) Unwrap() []error { return []error{r.at, r.refused} }

// loopError is a server that has our own name, so that it is this host.
type loopError struct {
	name  string
	inTLS bool // it said so within TLS, where nobody in between can have
}

// Error says how that is known.
func (e *loopError) Error() string {
	return "loops back to this host: the server calls itself " + e.name + ", as we do"
}

// code is what it comes to. Where TLS is required, a name that was said outside
// of it bounces nothing; nor does a next hop that the administrator named.
func (e *loopError) code(h *plan.Host) status.Code {
	class := status.Permanent
	if h.Named || !e.inTLS && !h.Verdict.Plaintext() {
		class = status.Temporary
	}
	return status.New(class, 4, 6)
}

// loops fails when the server has called itself by a name of ours, and may not
// be this host.
func (o *opening) loops(s *smtp.Session) error {
	if name := s.OwnName(); name != "" && !o.Host.Host.MayBeUs() {
		return &loopError{name, s.TLS() != nil}
	}
	return nil
}

// open greets the server, starts TLS and has the connection judged. Where a
// hello comes to nothing the next one is tried, each over a connection of its
// own, and at last, where the verdict allows it, the message goes in the clear.
func (o *opening) open(ctx context.Context, c *Conn, conn *limitedConn) (err error) {
	v := &c.Host.Verdict
	floor := v.Floor()
	hellos := handshake.Order(o.cfg.TLS.hellos[floor], o.conns.Hellos.First(c.Host.Host.Name, floor))
	var tries handshake.Error
	for i, hello := range hellos {
		if i > 0 {
			conn, err = o.redial(ctx, c)
		}
		silence := maxSilence
		if i == len(hellos)-1 && floor == handshake.Required {
			// there is nothing else to try, so command_timeout counts
			silence = 0
		}
		if err == nil {
			err = o.greet(ctx, c, conn, silence, hello)
		}
		var failed *helloError
		if err != nil && !errors.As(err, &failed) {
			if len(tries) > 0 && !v.Plaintext() && ctx.Err() == nil {
				// which tells more than that it takes no further connection
				return v.NoTLS(tries)
			}
			return err
		}
		if err == nil {
			err = o.startTLS(ctx, c, hello)
		}
		switch {
		case errors.As(err, &failed):
			tries = append(tries, failed.Try)
			if c.session != nil {
				c.session.Close()
			}
			continue
		case err != nil:
			return o.noTLS(ctx, c, err)
		case c.proof.TLS != 0:
			o.conns.Hellos.Worked(c.Host.Host.Name, floor, hello.Step)
		case len(tries) > 0:
			c.TLSErr = tries // it offers STARTTLS no more
			o.probe.noTLS(tries)
		}
		return nil
	}
	if failed := v.NoTLS(tries); failed != nil {
		return failed
	}
	return o.inTheClear(ctx, c, tries)
}

// redial makes another connection to the same address.
func (o *opening) redial(ctx context.Context, c *Conn) (*limitedConn, error) {
	c.proof, c.handshake = verdict.Proof{}, 0
	c.permit.Release()
	conn, _, err := o.dial(ctx, []netip.Addr{c.addr})
	if err != nil {
		return nil, err
	}
	c.permit = conn.permit
	return conn, nil
}

// inTheClear goes on without TLS over another connection, which serves this
// message alone.
func (o *opening) inTheClear(ctx context.Context, c *Conn, why error) error {
	o.probe.noTLS(why)
	c.TLSErr = why
	conn, err := o.redial(ctx, c)
	if err != nil {
		return err
	}
	return o.greet(ctx, c, conn, 0, handshake.Hello{})
}

// noTLS decides what becomes of a connection with which TLS failed for a reason
// that no other hello will change.
func (o *opening) noTLS(ctx context.Context, c *Conn, err error) error {
	var at *smtp.Error
	if !c.Host.Verdict.Plaintext() || ctx.Err() != nil || !errors.As(err, &at) || errors.Is(err, smtp.ErrInjection) {
		c.session.Close()
		return err
	}
	decision := decideSession(at)
	if decision.TLSFailed && decision.Conn == outcome.Keep {
		o.probe.noTLS(err)
		c.TLSErr = err
		return nil // refused by a reply: the connection is as it was
	}
	c.session.Close()
	if !decision.TLSFailed {
		return err
	}
	return o.inTheClear(ctx, c, err)
}

// greet opens the session. silence and hello are for the handshake, which comes
// first with implicit TLS, and follows otherwise. On error the connection is
// closed; the errors of a handshake are those of startTLS.
func (o *opening) greet(ctx context.Context, c *Conn, conn *limitedConn, silence time.Duration, hello handshake.Hello) (err error) {
	defer Spend(&o.Record.Greeting, time.Now())
	cfg := smtp.Config{
		Hostname: c.hostname, OwnNames: o.cfg.OwnNames,
		CommandTimeout:    o.commandTimeout(),
		SubmissionTimeout: o.cfg.SubmissionTimeout,
		HandshakeSilence:  silence,
		Buffers:           &o.conns.buffers,
	}
	cfg.Trace = o.trace(o.Request, c.addr)
	var at *smtp.Error
	if o.cfg.Relay.TLS == relay.Implicit {
		config, judge := o.tlsConfig(c, hello)
		if c.session, err = smtp.OpenTLS(ctx, conn.Conn, cfg, config); err == nil {
			c.proof.Group = c.session.TLS().CurveID
		} else if errors.As(err, &at) && (at.Stage == outcome.Handshake || afterHandshake(at)) {
			return o.handshakeError(ctx, c, hello, judge, err)
		}
	} else {
		c.session, err = smtp.Open(ctx, conn.Conn, cfg)
	}
	if err == nil || errors.As(err, &at) && at.Err == nil {
		o.attempt.Succeeded()
	}
	if err != nil {
		return err
	}
	if err = o.loops(c.session); err == nil {
		if err = c.session.Hello(ctx); err == nil {
			err = o.loops(c.session)
		}
	}
	if err != nil {
		c.session.Close()
	}
	if junk := c.session.Junk(); junk.Lines > 0 {
		o.Log.Info("the server sent lines that are not replies; skipped", "host", c.Host.Host.Name, "address", c.addr.String(), "lines", junk.Lines, "first", junk.First)
	}
	return err
}

// startTLS starts TLS with a hello, if the server offers it, and has what it
// showed judged by the verdict. A *verdict.Failure says that the host may not
// have the message, a *helloError that another hello may fare better.
func (o *opening) startTLS(ctx context.Context, c *Conn, hello handshake.Hello) error {
	v := &c.Host.Verdict
	if c.session.Extensions().StartTLS && c.session.TLS() == nil && o.cfg.Relay.TLS != relay.NoTLS {
		start := time.Now()
		config, judge := o.tlsConfig(c, hello)
		err := c.session.StartTLS(ctx, config)
		Spend(&o.Record.TLS, start)
		if err != nil {
			return o.handshakeError(ctx, c, hello, judge, err)
		}
		c.proof.Group = c.session.TLS().CurveID
		if err := o.loops(c.session); err != nil {
			return err
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

// handshakeError says what a failure of STARTTLS, or of the handshake, comes
// to.
func (o *opening) handshakeError(ctx context.Context, c *Conn, hello handshake.Hello, judge *verifier, err error) error {
	v := &c.Host.Verdict
	var at *smtp.Error
	var failed *verdict.Failure
	switch {
	case errors.As(err, &failed):
		return failed
	case ctx.Err() != nil:
		return err
	case errors.As(err, &at) && afterHandshake(at):
		return o.orNoTLS(v, &smtp.Error{Stage: outcome.Handshake, Err: handshake.Error{{Offer: o.cfg.TLS.offer(v, hello, judge), Err: at.Err}}})
	case c.session != nil && c.session.TLS() != nil:
		return err
	case errors.As(err, &at) && at.Stage == outcome.STARTTLS && at.Err == nil:
		return o.orNoTLS(v, &refusal{at, &handshake.Refused{Code: at.Reply.Code, Text: at.Reply.Text()}})
	case errors.Is(err, smtp.ErrInjection) || !errors.As(err, &at) || at.Stage != outcome.Handshake:
		return o.orNoTLS(v, err)
	}
	try := handshake.Try{Offer: o.cfg.TLS.offer(v, hello, judge), Err: at.Err}
	if !judge.judged() && handshake.FaultOf(at.Err).PlainerHelps() {
		return &helloError{try}
	}
	return o.orNoTLS(v, &smtp.Error{Stage: at.Stage, Err: handshake.Error{try}})
}

// afterHandshake reports whether the server refused the handshake when we were
// through with it: a client is through with TLS 1.3 before the server has seen
// its part, so that what the server has against that comes as an alert in the
// place of its first reply.
func afterHandshake(at *smtp.Error) bool {
	return (at.Stage == outcome.EHLOAfterTLS || at.Stage == outcome.Greeting) &&
		at.Err != nil && handshake.FaultOf(at.Err).Kind == handshake.Alert
}

// orNoTLS gives a failure of STARTTLS as it is where plaintext will do, and
// else as that of the verdict.
func (o *opening) orNoTLS(v *verdict.Verdict, err error) error {
	if failed := v.NoTLS(err); failed != nil {
		return failed
	}
	return err
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
	var loop *loopError
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		// whose deadline the dialer and the connection obey too, and may see
		// sooner
		<-ctx.Done()
	}
	var login *LoginError
	switch {
	case errors.As(err, &login):
		return loginError(h, login)
	case errors.Is(err, limit.ErrBusy):
		return &status.Error{Code: status.New(status.Temporary, 4, 5), Host: h.Host.Name, Err: err}
	case errors.As(err, &failed):
		return &status.Error{Code: failed.Code, Host: h.Host.Name, Text: failed.Text}
	case errors.As(err, &loop):
		return &status.Error{Code: loop.code(h), Host: h.Host.Name, Text: loop.Error()}
	case errors.As(err, &at) && at.Err == nil:
		code := decideSession(at).Code
		if !h.Verdict.Plaintext() && at.Stage < outcome.EHLOAfterTLS {
			// Nothing has proven yet that it speaks for the host. A stranger's
			// word must not bounce what may not even be shown to it.
			code.Class = status.Temporary
		}
		return &status.Error{Code: code, Host: h.Host.Name, Text: at.Reply.Text(), Unreached: turnsAway(at.Stage)}
	case errors.As(err, &at):
		return &status.Error{Code: decideSession(at).Code, Host: h.Host.Name, Err: at, Unreached: turnsAway(at.Stage) && ctx.Err() == nil}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case errors.As(err, &dialled) && dialled.Local():
		// Nothing else is to blame.
		return &status.Error{Code: status.New(status.Temporary, 3, 0), Host: h.Host.Name, Err: err}
	}
	return &status.Error{Code: outcome.ForError(stage, err, 0).Code, Host: h.Host.Name, Err: err, Unreached: stage == outcome.Connect && ctx.Err() == nil}
}

// SourceFailed says why no connection could be made from the source, where that
// is why a host did not have the message; nil: it is not.
func SourceFailed(reason *status.Error) error {
	var dialled *dial.Error
	if errors.As(reason.Err, &dialled) && dialled.SourceFailed() {
		return dialled.Attempts[0].Err
	}
	return nil
}

// turnsAway tells the stages at which a server that fails has heard nothing of
// a message yet, nor of TLS.
func turnsAway(stage outcome.Stage) bool {
	switch stage {
	case outcome.Connect, outcome.Greeting, outcome.EHLO, outcome.HELO, outcome.EHLOAfterTLS:
		return true
	}
	return false
}
