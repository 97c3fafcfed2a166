package transport

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// delivery is one message on its way to the recipients of one destination.
type delivery struct {
	*Transport
	*profile
	env     *Envelope
	msg     *Message
	demands verdict.Demands
	sender  address.Address
	target  plan.Target
	rcpts   []recipient
	ticket  limit.Permit
	log     *slog.Logger
	tried   []string                   // each host's reason, for the log
	traced  bool                       // the dialogue is logged, as with debug
	at      atomic.Pointer[route.Host] // that it is dealing with
	watch   *Probe                     // what is to be seen of a connection; nil but for a probe
	event   *Event                     // what is found on the way; nil: nobody observes
}

// recipient is one recipient of a delivery.
type recipient struct {
	smtp.Recipient
	index   int             // in the envelope
	reasons []*status.Error // why each host tried so far did not take it
	conn    *hostConn       // the last one it was offered over
	result  *status.Error   // what became of it in the end
}

// run takes the hosts in their order until every recipient has its result.
func (d *delivery) run(ctx context.Context) {
	left := make([]*recipient, len(d.rcpts))
	for i := range d.rcpts {
		left[i] = &d.rcpts[i]
	}
	if err := d.refuse(); err != nil {
		d.settle(left, err)
		return
	}
	d.ticket = d.limits.Permit()
	defer d.ticket.Release()
	start := time.Now()
	if err := d.ticket.Acquire(ctx, limit.Want{Scope: limit.All},
		limit.Want{Scope: limit.Source, Key: d.sender.ASCII}, limit.Want{Scope: limit.Destination, Key: d.target.String()}); err != nil {
		d.spent(PhaseWait, start)
		d.settle(left, statusOf(ctx, err, d.target.String()))
		return
	}
	d.spent(PhaseWait, start)
	start = time.Now()
	found := d.planner.Route(ctx, d.target, d.demands)
	d.spent(PhaseDNS, start)
	if d.event != nil {
		d.event.STS = found.STS
	}
	if found.Err != nil {
		d.settle(left, found.Err)
		return
	}
	d.traceRoute(&found.Route)
	for _, host := range found.Route.Hosts {
		d.at.Store(&host)
		left = d.tryHost(ctx, found, host, left)
		if len(left) == 0 {
			return
		}
		if ctx.Err() != nil {
			// The hosts that were not tried might have taken it.
			left = d.pass(left, statusOf(ctx, nil, d.target.String()))
			break
		}
	}
	if found.Route.Truncated() && len(left) > 0 {
		left = d.pass(left, &status.Error{Code: status.New(status.Temporary, 4, 4), Text: d.target.String() + " has more mail servers than are tried"})
	}
	for _, r := range left {
		r.result = outcome.MostTemporary(r.reasons)
	}
}

// refuse gives the reason for which the message goes nowhere.
func (d *delivery) refuse() *status.Error {
	quarantined := d.env.Quarantined
	if name, value, ok := strings.Cut(d.cfg.QuarantineHeader, ":"); ok {
		quarantined = quarantined || d.msg.Header.Has(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	if quarantined {
		return &status.Error{Code: status.New(status.Permanent, 7, 0), Text: "the message is quarantined"}
	}
	return nil
}

// suited parts the recipients that this server can take from those that it
// cannot: for its SIZE limit, or because it lacks SMTPUTF8. Another host may
// do better.
func (d *delivery) suited(c *hostConn, rcpts []*recipient) (send, left []*recipient) {
	ext := c.session.Extensions()
	if ext.MaxSize > 0 && d.msg.Facts.Size > ext.MaxSize {
		return nil, d.pass(rcpts, &status.Error{Code: status.New(status.Permanent, 3, 4), Host: c.host.Host.Name,
			Text: "the message has " + size(d.msg.Facts.Size) + ", the server takes at most " + size(ext.MaxSize)})
	}
	if ext.SMTPUTF8 {
		return rcpts, nil
	}
	noUTF8 := &status.Error{Code: status.New(status.Permanent, 6, 7), Host: c.host.Host.Name,
		Text: "the message needs SMTPUTF8, which the server does not offer"}
	if d.sender.NeedsUTF8() || d.env.SMTPUTF8 && d.msg.Facts.HeaderEightBit {
		return nil, d.pass(rcpts, noUTF8)
	}
	for _, r := range rcpts {
		if r.Address.NeedsUTF8() {
			left = append(left, r)
		} else {
			send = append(send, r)
		}
	}
	return send, d.pass(left, noUTF8)
}

// useUTF8 says whether the transaction is one with SMTPUTF8 (RFC 6531 §3.1).
func (d *delivery) useUTF8(c *hostConn, rcpts []*recipient) bool {
	use := d.env.SMTPUTF8 || d.sender.NeedsUTF8()
	for _, r := range rcpts {
		use = use || r.Address.NeedsUTF8()
	}
	return use && c.session.Extensions().SMTPUTF8
}

// judge turns the server's replies into results. It gives back the recipients
// for whom the next host should be tried, those who did not fit into this
// transaction, and what has become of the connection.
func (d *delivery) judge(c *hostConn, rcpts []*recipient, report *smtp.Report) (again, more []*recipient, state outcome.ConnState) {
	for i, r := range rcpts {
		decision, text := decide(report, i)
		state = max(state, decision.Conn)
		reason := &status.Error{Code: decision.Code, Host: c.host.Host.Name, Via: c.via(), Text: text}
		r.conn = c
		switch {
		case decision.MoreLater:
			more = append(more, r)
		case decision.NextHost:
			r.reasons = append(r.reasons, reason)
			again = append(again, r)
		default:
			// The host spoke for the domain: what other hosts failed with
			// before no longer matters.
			r.result = reason
		}
	}
	if len(again) > 0 {
		d.note(again[0].reasons[len(again[0].reasons)-1])
	}
	if !report.Ending.ConnUsable() {
		state = outcome.Close
	}
	return again, more, state
}

// pass notes why a host was passed over and gives the recipients back.
func (d *delivery) pass(rcpts []*recipient, err *status.Error) []*recipient {
	if len(rcpts) > 0 {
		d.note(err)
	}
	for _, r := range rcpts {
		r.reasons = append(r.reasons, err)
	}
	return rcpts
}

// note keeps a host's reason for the log line of the delivery.
func (d *delivery) note(err *status.Error) {
	d.tried = append(d.tried, err.Code.String()+" "+clean(err.Error()))
}

// settle gives all of rcpts the same result.
func (d *delivery) settle(rcpts []*recipient, err *status.Error) {
	for _, r := range rcpts {
		r.result = err
	}
}

// statusOf takes a route's error as it is, or says why ctx ended.
func statusOf(ctx context.Context, err error, host string) *status.Error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	var s *status.Error
	if errors.As(err, &s) {
		return s
	}
	if errors.Is(err, limit.ErrBusy) {
		return &status.Error{Code: status.New(status.Temporary, 4, 5), Host: host, Err: err}
	}
	return &status.Error{Code: status.New(status.Temporary, 4, 3), Host: host, Err: err}
}
