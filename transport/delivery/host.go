package delivery

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// maxPipelinedChunk is the largest message that is sent before the
	// recipients' replies are known, in bytes.
	maxPipelinedChunk = 256 << 10
	// maxRcptsPerTx is how many recipients a transaction has at most: what
	// every server must take (RFC 5321 §4.5.3.1.8).
	maxRcptsPerTx = 100
	// nextHostAfter ends the attempts to connect to one host while another is
	// left.
	nextHostAfter = 30 * time.Second
)

// hostDelivery is one host's part in a delivery: as many transactions as its
// recipients need, over one connection if that lasts.
type hostDelivery struct {
	*Delivery
	request  session.Request
	host     *plan.Host
	conn     *session.Conn // nil: none
	provider string
	trial    *pause.Trial // of what was paused; nil: nothing was
	not      []string     // sources that will not do
	answered bool         // the server has replied to a transaction
	chunked  bool         // the last message over it went by BDAT
	maxRcpts int          // recipients that one transaction takes
	last     bool         // no other host is left
}

// tryHost offers the message to one host and gives back the recipients for
// whom the next one should be tried.
func (d *Delivery) tryHost(ctx context.Context, way *plan.Plan, i int, last bool, rcpts []*recipient) []*recipient {
	start := time.Now()
	h := d.cfg.Planner.Host(ctx, way, i, d.msg.Demands)
	d.addPhase(PhaseDNS, start)
	if h.Err != nil {
		return d.skipHost(rcpts, h.Err)
	}
	d.traceVerdict(h)
	d.notePolicy(h)
	if f := h.Verdict.Refusal; f != nil {
		d.record.Add(session.Attempt{Facts: &h.Facts, Verdict: &h.Verdict, Failure: f})
		return d.skipHost(rcpts, &status.Error{Code: f.Code, Host: h.Host.Name, Text: f.Text})
	}
	provider := d.cfg.Traffic.Provider(h.Host.Name)
	if provider == d.spared {
		// It has said that it is enough, and was not asked about this message:
		// what another host of it refused may not be its last word.
		return d.skipHost(rcpts, &status.Error{
			Code: status.New(status.Temporary, 4, 5), Host: h.Host.Name, Unreached: true,
			Text: "not tried, since its provider " + provider + " has just asked for a rest",
		})
	}
	from, held := d.takeSource(h, provider)
	if held != nil {
		return d.skipHost(rcpts, held)
	}
	trial, held, whole := d.admit(ctx, h, provider, from.From())
	if held != nil {
		from.Unsent()
		if whole {
			setResult(rcpts, held)
			return nil
		}
		return d.skipHost(rcpts, held)
	}
	v := &hostDelivery{Delivery: d, host: h, provider: provider, trial: trial, maxRcpts: maxRcptsPerTx, last: last}
	v.request = session.Request{
		Host: h, Source: from, TLSRequiredNo: d.msg.Demands.TLSRequiredNo, Destination: d.msg.Target.String(),
		Budget: d.budget(time.Since(start), last),
		Log:    d.msg.Log, Traced: d.msg.Traced, Record: d.record,
	}
	left := v.run(ctx, rcpts)
	v.request.Source.Unsent()
	if v.heed(v.trial, rcpts) {
		d.spared = provider
	}
	use := limit.Failed
	if len(left) < len(rcpts) {
		use = limit.Served
	}
	d.permit.Done(use)
	return left
}

// admit waits until the limits let the message go to a host from a source,
// and asks for leave to try it: the trial, which may be nil, is to be ended.
// held is why the host gets no mail now, and nothing is held of its provider
// then; whole says that no other host would either.
//
// What is held up by more than a limit waits for none. After a wait all is
// asked again, since a suspension or a pause may have begun meanwhile.
func (d *Delivery) admit(ctx context.Context, h *plan.Host, provider, from string) (trial *pause.Trial, held *status.Error, whole bool) {
	if held = d.cfg.Traffic.HostHeld(&d.msg.Target, h.Host.Name, from); held != nil {
		return nil, held, false
	}
	first, start := !d.admitted, time.Now()
	err := d.acquire(ctx, provider)
	d.addPhase(PhaseWait, start)
	var at *limit.Error
	switch {
	case err != nil && (!first || errors.As(err, &at) && at.Scope == limit.Provider):
		return nil, waitError(ctx, err, h.Host.Name), false
	case err != nil:
		return nil, statusOf(ctx, err, d.msg.Target.String()), true
	}
	if held = d.cfg.Traffic.TargetHeld(&d.msg.Target); held != nil {
		return nil, held, true
	}
	if trial, held = d.cfg.Traffic.begin(&d.msg.Target, provider, from); held != nil {
		d.permit.Done(limit.Unused)
	}
	return trial, held, false
}

// acquire acquires a slot at a provider, and before the first the others that
// a delivery needs.
func (d *Delivery) acquire(ctx context.Context, provider string) error {
	at := limit.Want{Scope: limit.Provider, Key: provider}
	if d.admitted {
		return d.permit.Acquire(ctx, at)
	}
	err := d.permit.Acquire(ctx, at, limit.Want{Scope: limit.All},
		limit.Want{Scope: limit.Source, Key: d.msg.Sender.ASCII}, limit.Want{Scope: limit.Destination, Key: d.msg.Target.String()})
	d.admitted = err == nil
	return err
}

// budget is how long connecting to a host may take, when its look-ups took so
// long already.
func (d *Delivery) budget(spent time.Duration, last bool) time.Duration {
	left := d.cfg.ConnectTimeout - spent
	if last {
		return left
	}
	return min(left, cmp.Or(d.cfg.NextHostAfter, nextHostAfter))
}

// waitError is the reason of a host that there is no turn at.
func waitError(ctx context.Context, err error, host string) *status.Error {
	if errors.Is(err, limit.ErrBusy) {
		return &status.Error{Code: status.New(status.Temporary, 4, 5), Host: host, Err: err}
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &status.Error{Code: outcome.ForError(outcome.Connect, err, 0).Code, Host: host, Err: err}
}

// run makes transactions until every recipient had its turn.
func (v *hostDelivery) run(ctx context.Context, rcpts []*recipient) (left []*recipient) {
	for len(rcpts) > 0 {
		if failed := v.getConn(ctx, true); failed != nil {
			return append(left, v.skipHost(rcpts, failed)...)
		}
		batch := rcpts[:min(len(rcpts), v.maxRcpts)]
		rcpts = rcpts[len(batch):]
		send, unsuited := v.splitByExtensions(v.conn, batch)
		left = append(left, unsuited...)
		if len(send) > 0 {
			nextHost, nextTx, otherAddr := v.transact(ctx, send)
			rcpts = append(nextTx, rcpts...)
			if otherAddr {
				rcpts = append(nextHost, rcpts...)
			} else {
				left = append(left, nextHost...)
			}
		}
	}
	if v.conn != nil {
		v.conn.Put()
		v.conn = nil
	}
	return left
}

// getConn sees to it that there is a connection, an idle one if that will do.
func (v *hostDelivery) getConn(ctx context.Context, idle bool) (failed *status.Error) {
	if v.conn != nil {
		return nil
	}
	if idle {
		v.conn, failed = v.cfg.Dialer.Idle(ctx, &v.request)
		if v.request.OutOfStep {
			v.cfg.Hosts.chunking.distrust(v.host.Host.Name)
		}
		if v.conn != nil || failed != nil {
			return failed
		}
	}
	ctx, cancel := v.share(ctx)
	defer cancel()
	v.conn, failed = v.cfg.Dialer.Connect(ctx, &v.request)
	for failed != nil && v.otherSource(failed) {
		v.conn, failed = v.cfg.Dialer.Connect(ctx, &v.request)
	}
	return failed
}

// errShare ends the attempt to connect to a host that takes so long that the
// next one would have no time left.
var errShare = fmt.Errorf("%w: half of the time that the delivery had left is for the next host", os.ErrDeadlineExceeded)

// share leaves half of a delivery's time to the hosts after this one, which may
// be silent in one handshake after the other.
func (v *hostDelivery) share(ctx context.Context) (context.Context, context.CancelFunc) {
	end, bounded := ctx.Deadline()
	if v.last || !bounded {
		return ctx, func() {}
	}
	return context.WithTimeoutCause(ctx, time.Until(end)/2, errShare)
}

// dropConn closes a connection that is of no use any more.
func (v *hostDelivery) dropConn() {
	v.conn.Close()
	v.conn = nil
}

// transact runs one transaction, again over a fresh connection where the first
// was for nothing. otherAddr says that nextHost are to be tried at another
// address of this host first.
func (v *hostDelivery) transact(ctx context.Context, rcpts []*recipient) (nextHost, nextTx []*recipient, otherAddr bool) {
	report := v.send(ctx, rcpts)
	for ctx.Err() == nil && v.shouldRetry(report) {
		if report.Ending == smtp.Ended {
			v.resends++
		}
		v.dropConn()
		if failed := v.getConn(ctx, false); failed != nil {
			return v.skipHost(rcpts, failed), nil, false
		}
		report = v.send(ctx, rcpts)
	}
	v.answered = v.answered || report.Mail.Code != 0
	nextHost, nextTx, state := v.applyReplies(v.conn, rcpts, report)
	v.noteSent(rcpts)
	if ctx.Err() == nil && v.goesOn(report) {
		v.resends++
		nextHost = v.sendOn(rcpts)
	}
	if len(nextTx) > 0 {
		v.maxRcpts = max(1, len(rcpts)-len(nextTx))
	}
	otherAddr = len(nextHost) > 0 && ctx.Err() == nil && v.otherAddr(report)
	if otherAddr {
		v.request.Avoid = append(v.request.Avoid, v.conn.Addr())
		v.request.PutOff++
	}
	v.putConn(ctx, report, state, len(nextTx) > 0)
	return nextHost, nextTx, otherAddr
}

const (
	// maxResends is how many times in a delivery a message goes on that may
	// have arrived already, because the connection ended before any reply
	// came. The mail server would do the same some minutes later, at the same
	// risk.
	maxResends = 2
)

// shouldRetry says whether a transaction that failed may be run once more over
// a fresh connection to the same host, as if nothing had been: when a
// connection that had been idle died before the server can have accepted the
// message, or before it said a word about it; or when the server does not know
// the BDAT that it offers.
func (v *hostDelivery) shouldRetry(report *smtp.Report) bool {
	if v.conn.Reused && (report.Ending.SafeToRetry() || report.Mail.Code == 421) {
		return true
	}
	if v.conn.Reused && report.Ending == smtp.Ended {
		return v.resends < maxResends
	}
	return v.chunked && refusesChunk(report)
}

// goesOn says whether a message goes on to the next address or host after a
// fresh connection that ended before the server said a word about it.
func (v *hostDelivery) goesOn(report *smtp.Report) bool {
	return report.Ending == smtp.Ended && !v.conn.Reused && v.resends < maxResends
}

// sendOn has the recipients tried elsewhere, whatever was decided about them.
func (v *hostDelivery) sendOn(rcpts []*recipient) []*recipient {
	for _, r := range rcpts {
		r.reasons, r.result = append(r.reasons, r.result), nil
	}
	v.noteTried(rcpts[0].reasons[len(rcpts[0].reasons)-1])
	return rcpts
}

// otherAddr says whether recipients are tried at another address of this host
// before the next host. Each address counts (RFC 5321 §5.1), where no one was
// accepted or the server had nothing of the message.
func (v *hostDelivery) otherAddr(report *smtp.Report) bool {
	if len(v.request.Avoid)+1 >= len(v.cfg.Dialer.Reaches(v.request.Source, v.host.Addresses.Addrs)) {
		return false
	}
	if report.Ending == smtp.Ended {
		return true
	}
	return v.request.PutOff+1 < session.MaxAddrs && (report.Accepted() == 0 || report.Ending == smtp.CutOff)
}

// refusesChunk reports whether the server does not know the BDAT that it
// offers: some device between us and the server takes it for noise.
func refusesChunk(report *smtp.Report) bool {
	return report.Final.Code >= 500 && report.Final.Code <= 502 && report.Accepted() > 0
}

// breaksChunk reports whether a message by BDAT went wrong in a way that DATA
// may not. BDAT is not to blame for a connection that was dead by then, and
// for none that we ended.
func (v *hostDelivery) breaksChunk(ctx context.Context, report *smtp.Report) bool {
	switch {
	case !v.chunked || ctx.Err() != nil || v.cfg.End.Err() != nil:
		return false
	case report.Ending == smtp.OutOfStep:
		return true // whatever it was that it answered more than once
	case v.conn.Reused && (report.Mail.Code == 0 || report.Mail.Code == 421):
		return false
	}
	return refusesChunk(report) || report.Err != nil && !report.Ending.SafeToRetry() && report.Stage >= outcome.Body
}

// send runs one transaction.
func (v *hostDelivery) send(ctx context.Context, rcpts []*recipient) *smtp.Report {
	defer v.addPhase(PhaseTransaction, time.Now())
	tx := &smtp.Transaction{
		From:        v.msg.Sender,
		Recipients:  make([]smtp.Recipient, len(rcpts)),
		Content:     io.NewSectionReader(v.msg.Content, 0, v.msg.Facts.Size),
		Size:        v.msg.Facts.Size,
		EightBit:    v.msg.Facts.EightBit || v.msg.EightBit,
		UTF8:        v.useUTF8(rcpts),
		RequireTLS:  v.msg.Demands.RequireTLS,
		Chunking:    v.chunking(),
		Ret:         v.ret(),
		EnvID:       v.msg.EnvID,
		BeforeFinal: func() context.Context { return v.cfg.End },
	}
	again := false
	for i, r := range rcpts {
		tx.Recipients[i] = *r.Recipient
		again = again || r.unheard
	}
	if again {
		v.found.Resent++
	}
	if v.msg.Facts.EightBit && !v.conn.Extensions().EightBitMIME && v.cfg.Hosts.eightBit.first(v.host.Host.Name) {
		v.msg.Log.Info("8-bit text goes as it is to a server that does not offer 8BITMIME", "host", v.host.Host.Name)
	}
	v.chunked = tx.Chunking != smtp.ChunkingOff && v.conn.Extensions().Chunking
	tx.Confirm = v.chunked && v.cfg.Hosts.chunking.get(v.host.Host.Name) != trusted
	report := v.conn.Send(ctx, tx)
	for _, r := range rcpts {
		r.unheard = report.Ending == smtp.Ended
	}
	switch {
	case v.breaksChunk(ctx, report), report.Confirmation == smtp.Unconfirmed:
		v.cfg.Hosts.chunking.set(v.host.Host.Name, givenData)
	case report.Confirmation == smtp.Confirmed:
		v.cfg.Hosts.chunking.set(v.host.Host.Name, trusted)
	}
	return report
}

// useUTF8 says whether the transaction is one with SMTPUTF8 (RFC 6531 §3.1).
func (v *hostDelivery) useUTF8(rcpts []*recipient) bool {
	use := v.msg.SMTPUTF8 || v.msg.Sender.NeedsUTF8()
	for _, r := range rcpts {
		use = use || r.Address.NeedsUTF8()
	}
	return use && v.conn.Extensions().SMTPUTF8
}

// chunking says how a server that offers CHUNKING gets the message. One that
// refuses every recipient and forgets to swallow the chunk, or does not know
// BDAT, runs the message as commands; without a line in it that is one of a
// transaction's nothing can come of that.
func (v *hostDelivery) chunking() smtp.Chunking {
	switch {
	case v.cfg.Chunking == smtp.ChunkingOff, v.msg.Facts.LineStartsWithCommand, v.cfg.Hosts.chunking.get(v.host.Host.Name) == givenData:
		return smtp.ChunkingOff
	case v.cfg.Chunking == smtp.ChunkingPipelined && v.msg.Facts.Size <= maxPipelinedChunk:
		return smtp.ChunkingPipelined
	}
	return smtp.ChunkingWaiting
}

// ret gives the RET parameter: a bounce of a message that requires TLS bears
// no more than its header (RFC 8689 §5).
func (v *hostDelivery) ret() string {
	if v.msg.Demands.RequireTLS && v.msg.Ret == "FULL" {
		return "HDRS"
	}
	return v.msg.Ret
}

// putConn keeps the connection for the next transaction, or gives it away.
// Nothing waits for a goodbye.
func (v *hostDelivery) putConn(ctx context.Context, report *smtp.Report, state outcome.ConnState, more bool) {
	c := v.conn
	switch {
	case !report.Ending.ConnUsable():
		c.Close()
	case state == outcome.Close:
		c.Quit()
	case c.Spent():
		c.Put() // the pool closes it, and counts that
	case state == outcome.Reset && more:
		if c.Reset(ctx) == nil {
			return
		}
		c.Close()
	case state == outcome.Reset:
		c.PutAfterReset()
	default:
		return
	}
	v.conn = nil
}
