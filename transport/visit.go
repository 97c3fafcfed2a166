package transport

import (
	"context"
	"errors"
	"regexp"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// maxPipelinedChunk is the largest message that is sent before the recipients'
	// replies are known, in bytes.
	maxPipelinedChunk = 256 << 10
	// maxRcptsPerTx is how many recipients a transaction has at most: what
	// every server must take (RFC 5321 §4.5.3.1.8).
	maxRcptsPerTx = 100
)

// hostDelivery is one host's part in a delivery: as many transactions as its
// recipients need, over one connection if that lasts.
type hostDelivery struct {
	*delivery
	host   *plan.Host
	budget time.Duration // what is left of connect_timeout
	conn   *hostConn     // nil: none
	room   int           // recipients that one transaction takes
}

// tryHost offers the message to one host and gives back the recipients for
// whom the next one should be tried.
func (d *delivery) tryHost(ctx context.Context, found *plan.Plan, host route.Host, rcpts []*recipient) []*recipient {
	start := time.Now()
	p := d.planner.Host(ctx, found, host, d.demands)
	d.spent(PhaseDNS, start)
	if p.Err != nil {
		return d.pass(rcpts, p.Err)
	}
	d.traceVerdict(&p)
	if f := p.Verdict.Refusal; f != nil {
		d.attempt(&p, Attempt{Failure: f})
		return d.pass(rcpts, &status.Error{Code: f.Code, Host: host.Name, Text: f.Text})
	}
	wait := time.Now()
	turn, err := d.pacer.Acquire(ctx, host.Name)
	d.spent(PhaseWait, wait)
	if err != nil {
		return d.pass(rcpts, d.reason(ctx, &p, outcome.Connect, err))
	}
	v := &hostDelivery{delivery: d, host: &p, budget: d.cfg.ConnectTimeout - time.Since(start), room: maxRcptsPerTx}
	left := v.run(ctx, rcpts)
	v.pace(&turn, rcpts, left)
	return left
}

// pace slows down towards a host that complained of too many connections.
func (v *hostDelivery) pace(turn *limit.HostPermit, rcpts, left []*recipient) {
	for _, r := range rcpts {
		said := r.result
		if said == nil && len(r.reasons) > 0 {
			said = r.reasons[len(r.reasons)-1]
		}
		if said != nil && isTooMany(said.Text) {
			if turn.Slow() {
				v.log.Info("the host complains of too many connections, slowing down", "host", v.host.Host.Name, "text", said.Text)
				v.idle.retire(v.host.Host.Name) // it counts them too
			}
			break
		}
	}
	turn.Release(len(left) < len(rcpts))
}

// tooManyConnections finds what servers say with 421 and 451 when there is too much at
// once; no code says it by itself.
var tooManyConnections = regexp.MustCompile(`(?i)^4[25]1\b.*(too many|too much|concurren|simultaneous|rate.?limit|(connection|session)s?\b.*(limit|exceed|rate)|(limit|exceed).*\b(connection|session))`)

// isTooMany says whether a reply asks for fewer connections.
func isTooMany(text string) bool { return tooManyConnections.MatchString(text) }

// run makes transactions until every recipient had its turn.
func (v *hostDelivery) run(ctx context.Context, rcpts []*recipient) (left []*recipient) {
	for len(rcpts) > 0 {
		if failed := v.arrive(ctx, true); failed != nil {
			return append(left, v.pass(rcpts, failed)...)
		}
		batch := rcpts[:min(len(rcpts), v.room)]
		rcpts = rcpts[len(batch):]
		send, unsuited := v.suited(v.conn, batch)
		left = append(left, unsuited...)
		if len(send) > 0 {
			again, more := v.transact(ctx, send)
			left = append(left, again...)
			rcpts = append(more, rcpts...)
		}
	}
	if v.conn != nil {
		v.keep(v.conn)
		v.part()
	}
	return left
}

// arrive sees to it that there is a connection, an idle one if that will do.
func (v *hostDelivery) arrive(ctx context.Context, idle bool) (failed *status.Error) {
	if v.conn != nil {
		return nil
	}
	if idle {
		if c, ok := v.reuse(v.host); ok {
			start := time.Now()
			var err error
			c.place, err = v.take(ctx, c.addr)
			v.spent(PhaseWait, start)
			if err != nil {
				v.keep(c)
				return v.reason(ctx, v.host, outcome.Connect, err)
			}
			v.judged(c, nil)
			v.conn = c
			return nil
		}
	}
	start := time.Now()
	v.conn, failed = v.connect(ctx, v.host, v.budget)
	v.budget -= time.Since(start)
	return failed
}

// part forgets the connection, which somebody else has now or which is closed.
func (v *hostDelivery) part() {
	v.conn.place.Release()
	v.conn = nil
}

// transact runs one transaction, a second time over a new connection if the
// first was for nothing.
func (v *hostDelivery) transact(ctx context.Context, rcpts []*recipient) (again, more []*recipient) {
	report := v.send(ctx, rcpts)
	for ctx.Err() == nil && v.inVain(report) {
		v.conn.session.Close()
		v.part()
		if failed := v.arrive(ctx, false); failed != nil {
			return v.pass(rcpts, failed), nil
		}
		report = v.send(ctx, rcpts)
	}
	again, more, state := v.judge(v.conn, rcpts, report)
	if len(more) > 0 {
		v.room = max(1, len(rcpts)-len(more))
	}
	v.settleConnection(ctx, report, state, len(more) > 0)
	return again, more
}

// inVain says whether a transaction that failed may be run once more, as if
// nothing had been: when a connection that had been idle died before the
// server can have accepted the message, or when the server does not know the
// BDAT that it offers.
func (v *hostDelivery) inVain(report *smtp.Report) bool {
	if v.conn.reused && (report.Ending.SafeToRetry() || report.Mail.Code == 421) {
		return true
	}
	if !v.conn.chunked || v.conn.reused && report.Mail.Code == 0 {
		return false // BDAT is not to blame for a connection that was dead by then
	}
	switch {
	case report.Final.Code >= 500 && report.Final.Code <= 502 && report.Accepted() > 0:
		// Some device between us and the server takes CHUNKING for noise.
		v.noChunking.mark(v.host.Host.Name)
		return true
	case report.Err != nil && !errors.Is(report.Err, ErrGone) && !report.Ending.SafeToRetry() && report.Stage >= outcome.Body:
		v.noChunking.mark(v.host.Host.Name)
	}
	return false
}

// send runs one transaction.
func (v *hostDelivery) send(ctx context.Context, rcpts []*recipient) *smtp.Report {
	defer v.spent(PhaseTransaction, time.Now())
	tx := &smtp.Transaction{
		From:        v.sender,
		Recipients:  make([]smtp.Recipient, len(rcpts)),
		Content:     v.msg.reader(),
		Size:        v.msg.Facts.Size,
		EightBit:    v.msg.Facts.EightBit || v.env.EightBit,
		UTF8:        v.useUTF8(v.conn, rcpts),
		RequireTLS:  v.demands.RequireTLS,
		Chunking:    v.chunking(),
		Ret:         v.ret(),
		EnvID:       v.env.EnvID,
		BeforeFinal: func() context.Context { return v.ctx },
	}
	for i, r := range rcpts {
		tx.Recipients[i] = r.Recipient
	}
	v.conn.chunked = tx.Chunking != smtp.ChunkingOff && v.conn.session.Extensions().Chunking
	v.conn.served++
	return v.conn.session.Send(ctx, tx)
}

// chunking says how a server that offers CHUNKING gets the message. One that
// refuses every recipient and forgets to swallow the chunk runs the message as
// commands; without a MAIL line in it nothing can come of that.
func (v *hostDelivery) chunking() smtp.Chunking {
	switch {
	case v.cfg.Chunking == ChunkingOff || v.noChunking.marked(v.host.Host.Name):
		return smtp.ChunkingOff
	case v.cfg.Chunking == ChunkingPipelined && v.msg.Facts.Size <= maxPipelinedChunk && !v.msg.Facts.LineStartsWithMAIL:
		return smtp.ChunkingPipelined
	}
	return smtp.ChunkingWaiting
}

// ret gives the RET parameter: a bounce of a message that requires TLS bears
// no more than its header (RFC 8689 §5).
func (v *hostDelivery) ret() string {
	if v.demands.RequireTLS && v.env.Ret == "FULL" {
		return "HDRS"
	}
	return v.env.Ret
}

// settleConnection keeps the connection for the next transaction, or parts
// with it. Nobody waits for a goodbye.
func (v *hostDelivery) settleConnection(ctx context.Context, report *smtp.Report, state outcome.ConnState, more bool) {
	c := v.conn
	switch {
	case !report.Ending.ConnUsable():
		c.session.Close()
	case state == outcome.Close:
		c.link.Close()
	case c.served >= v.cfg.ConnReuseLimit:
		v.keep(c) // the pool parts with it, and counts that
	case state == outcome.Reset && more:
		if c.session.Reset(ctx) == nil {
			return
		}
		c.session.Close()
	case state == outcome.Reset:
		v.afterwards(func(ctx context.Context) {
			if c.session.Reset(ctx) == nil {
				v.keep(c)
			} else {
				c.session.Close()
			}
		})
	default:
		return
	}
	v.part()
}
