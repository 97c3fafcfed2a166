// Package delivery brings one message to the recipients of one target.
//
// The order of work:
//
//  1. A place within the limits (package limit).
//  2. The route and the domain's policy (package plan).
//  3. For each host in turn what it must show (package plan again). A host that
//     fails its verdict already is not dialled.
//  4. A connection that satisfies the verdict, idle or new (package session).
//  5. One transaction, or several when the recipients are many. What each
//     reply means is looked up in package outcome, which also says whether
//     another host may still do better.
//
// Recipients that no host took get the most temporary of the reasons: a
// message is refused for good only when nothing is left that could change.
//
// # Once more
//
// A transaction that failed is run once more where the server cannot have the
// message: over a fresh connection after a reused one, by DATA where the host
// does not know the BDAT that it offers, at the host's next address where one
// address had nothing of it or put everybody off (two in all), and at the next
// host. A connection that ended before a word was said about the message leaves
// that open; the message goes on all the same, twice at most, because the mail
// server would do no better some minutes later.
//
// # The end
//
// A delivery ends when its context does, as long as the message was not written
// whole. From then on the server may have accepted it, and its answer is the
// only way to know: it is waited for until the later of the delivery's own time
// and the submission time-out, whatever trickles, or until [Config.End].
//
// Package delivery knows no overrides, no other targets of a message, and not
// who asked.
package delivery

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Config is how the deliveries of one transport, or of one of its overrides,
// are made. It is not changed while one is under way.
type Config struct {
	Planner *plan.Planner
	Dialer  *session.Dialer
	Limits  *limit.Limits
	Conns   *session.Conns
	// what deliveries of the transport remember of hosts
	Hosts    *Hosts
	Traffic  Traffic       // what holds mail back or slows it down
	Sources  *source.Pool  // what mail leaves from; nil: Dialer's own addresses
	Chunking smtp.Chunking // the most that is made of CHUNKING
	Relay    bool          // the target is a relay
	// for the look-ups of one host and TCP to all of its addresses together
	ConnectTimeout time.Duration
	// for TCP to one host while another is left; 0: 30s
	NextHostAfter time.Duration
	// End ends the wait for servers that may have a message already.
	End context.Context
}

// Message is one message for the recipients of one target.
type Message struct {
	Target     plan.Target
	Sender     address.Address
	Name       string // the mail server's, or ours, where it keeps a source
	Recipients []smtp.Recipient
	// Facts.Size bytes in canonical form (package message)
	Content io.ReaderAt
	Facts   message.Facts
	Demands verdict.Demands

	EightBit bool          // BODY=8BITMIME was declared
	SMTPUTF8 bool          // RFC 6531
	Ret      string        // RFC 3461 §4.3: "", "FULL" or "HDRS"
	EnvID    string        // RFC 3461 §4.4, plain text
	Refused  *status.Error // why it goes nowhere; nil: it does

	Log     *slog.Logger // names the message
	LogTail []slog.Attr  // what the lines about results tell besides
	// why the message did not go directly, by a relay that takes what the
	// domain's own hosts do not; empty: this is no such relay
	Direct string
	Traced bool // its way is logged step by step
}

// Delivery is a Message on its way.
type Delivery struct {
	cfg      *Config
	msg      *Message
	rcpts    []recipient
	permit   limit.Permit
	admitted bool     // it holds what the limits ask for beside the provider's
	tried    []string // each host's reason, for the log
	spared   string   // the provider whose hosts get no more of this message
	current  atomic.Pointer[string]
	record   *session.Record
	resends  int    // of a message that may have arrived already
	policy   string // that a host is under; empty: none
	found    Found
}

// recipient is one recipient of a delivery.
type recipient struct {
	*smtp.Recipient
	reasons []*status.Error // why each host tried so far did not take it
	conn    *session.Conn   // the last one it was offered over
	unheard bool            // nothing was heard when it was last sent
	result  *status.Error   // what became of it in the end
}

// New makes a delivery, for one Run.
func New(cfg *Config, msg *Message) *Delivery {
	d := &Delivery{cfg: cfg, msg: msg, rcpts: make([]recipient, len(msg.Recipients)), record: &session.Record{}}
	for i := range d.rcpts {
		d.rcpts[i].Recipient = &msg.Recipients[i]
	}
	return d
}

// Host names the host that the delivery is dealing with; empty: none yet. It is
// safe for concurrent use.
func (d *Delivery) Host() string {
	if host := d.current.Load(); host != nil {
		return *host
	}
	return ""
}

// Result says, after Run, what became of a recipient.
func (d *Delivery) Result(i int) *status.Error { return d.rcpts[i].result }

// Found gives, after Run, what was found on the way.
func (d *Delivery) Found() Found {
	f := d.found
	r := d.record
	f.Phases[PhaseWait] += r.Wait
	f.Phases[PhaseConnect], f.Phases[PhaseGreeting], f.Phases[PhaseTLS] = r.Connect, r.Greeting, r.TLS
	for i := range d.rcpts {
		if c := d.rcpts[i].conn; c != nil && d.rcpts[i].result.Code.Class == status.Success {
			r.Attempts[c.Attempt].Delivered = true
		}
	}
	f.Attempts = r.Attempts
	return f
}

// Run takes the hosts in their order until every recipient has its result.
func (d *Delivery) Run(ctx context.Context) {
	start := time.Now()
	left := make([]*recipient, len(d.rcpts))
	for i := range d.rcpts {
		left[i] = &d.rcpts[i]
	}
	d.run(ctx, left)
	d.found.Took = time.Since(start)
}

// Unreached says, after Run, that no host had anything to do with the message
// for a recipient, so that it may go by another way: none could be reached, or
// all turned us away. A cut that leaves open whether the message arrived is no
// such thing.
func (d *Delivery) Unreached(i int) bool {
	r := &d.rcpts[i]
	if r.result.Code.Class == status.Success || !r.result.Unreached {
		return false
	}
	return !slices.ContainsFunc(r.reasons, func(s *status.Error) bool { return !s.Unreached })
}

// Policy says, after Run, which policy the hosts are under, so that no other
// way keeps it; empty: none.
func (d *Delivery) Policy() string { return d.policy }

// notePolicy notes what a host must show.
func (d *Delivery) notePolicy(h *plan.Host) {
	switch {
	case d.policy != "" || d.cfg.Relay:
	case h.Verdict.Rule != verdict.NoRule:
		d.policy = h.Verdict.Rule.Name()
	case h.Verdict.Refusal != nil:
		d.policy = h.Verdict.Refusal.Rule.Name()
	case d.cfg.Planner.Rules().MinMX > verdict.MXNone && !d.msg.Demands.TLSRequiredNo:
		d.policy = verdict.LocalPolicy.Name()
	}
}

// Waits has the recipients wait whom Unreached tells of and who were refused
// for good: another way will take them later.
func (d *Delivery) Waits() {
	for i := range d.rcpts {
		if r := &d.rcpts[i]; d.Unreached(i) {
			waits := *r.result
			waits.Code.Class = status.Temporary
			r.result = &waits
		}
	}
}

func (d *Delivery) run(ctx context.Context, left []*recipient) {
	if d.msg.Refused != nil {
		setResult(left, d.msg.Refused)
		return
	}
	destination := d.msg.Target.String()
	if held := d.cfg.Traffic.TargetHeld(&d.msg.Target); held != nil {
		setResult(left, held)
		return
	}
	d.permit = d.cfg.Limits.Permit()
	d.permit.Flow = fairqueue.Flow{Destination: destination, Sender: d.msg.Sender.ASCII}
	defer d.permit.Release()
	way := d.lookupRoute(ctx)
	if way.Err != nil {
		setResult(left, way.Err)
		return
	}
	order := way.Order()
	d.traceRoute(way, order)
	for n, i := range order {
		d.current.Store(&way.Route.Hosts[i].Name)
		left = d.tryHost(ctx, way, i, n == len(order)-1, left)
		if len(left) == 0 {
			return
		}
		if ctx.Err() != nil {
			// The hosts that were not tried might have taken it.
			left = d.skipHost(left, statusOf(ctx, nil, destination))
			break
		}
	}
	if way.Route.Truncated() && len(left) > 0 {
		left = d.skipHost(left, &status.Error{Code: status.New(status.Temporary, 4, 4), Text: destination + " has more mail servers than are tried"})
	}
	for _, r := range left {
		r.result = outcome.MostTemporary(r.reasons)
	}
}

// lookupRoute finds the hosts, and what is known of the domain's policy.
func (d *Delivery) lookupRoute(ctx context.Context) *plan.Plan {
	defer d.addPhase(PhaseDNS, time.Now())
	way := d.cfg.Planner.Route(ctx, d.msg.Target, d.msg.Demands)
	d.found.STS = way.STS
	return way
}

// splitByExtensions parts the recipients that this server can take from those
// that it cannot: for its SIZE limit, or because it lacks SMTPUTF8. Another
// host may do better.
func (d *Delivery) splitByExtensions(c *session.Conn, rcpts []*recipient) (send, left []*recipient) {
	ext, size := c.Extensions(), d.msg.Facts.Size
	if large := ext.TooLarge(size); large != nil {
		large.Host = c.Host.Host.Name
		return nil, d.skipHost(rcpts, large)
	}
	if ext.SMTPUTF8 {
		return rcpts, nil
	}
	noUTF8 := ext.NoUTF8()
	noUTF8.Host = c.Host.Host.Name
	if d.msg.Sender.NeedsUTF8() || d.msg.SMTPUTF8 && d.msg.Facts.HeaderEightBit {
		return nil, d.skipHost(rcpts, noUTF8)
	}
	for _, r := range rcpts {
		if r.Address.NeedsUTF8() {
			left = append(left, r)
		} else {
			send = append(send, r)
		}
	}
	return send, d.skipHost(left, noUTF8)
}

// skipHost notes why a host was skipped and gives the recipients back.
func (d *Delivery) skipHost(rcpts []*recipient, err *status.Error) []*recipient {
	if len(rcpts) > 0 {
		d.noteTried(err)
	}
	for _, r := range rcpts {
		r.reasons = append(r.reasons, err)
	}
	return rcpts
}

// noteTried keeps a host's reason for the log line of the delivery.
func (d *Delivery) noteTried(err *status.Error) {
	d.tried = append(d.tried, err.Code.String()+" "+reply.Line(err.Error()))
}

// setResult gives all of rcpts the same result.
func setResult(rcpts []*recipient, err *status.Error) {
	for _, r := range rcpts {
		r.result = err
	}
}

// statusOf takes an error as it is, or says why ctx ended.
func statusOf(ctx context.Context, err error, host string) *status.Error {
	code := status.New(status.Temporary, 4, 3)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	} else if errors.Is(err, limit.ErrBusy) {
		code.Detail = 5
	}
	return status.From(err, code, host)
}
