package transport

import (
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Event is what a delivery found: one message on its way to the recipients of
// one destination. It is for metrics and for TLS reports. Whoever gets one may
// keep it, and changes nothing that it points to.
type Event struct {
	Transport     string            // the transport's name
	Destination   route.Destination // zero for a recipient that has none
	Named         bool              // the administrator named the destination; the domain's own policies do not count then
	TLSRequiredNo bool              // "TLS-Required: No": no policy was asked for
	Results       []status.Code     // one for each recipient
	Took          time.Duration
	// Phases is the time spent in each phase, all hosts together; 0 when the
	// delivery never came to it, as with connect, greeting and TLS over a
	// connection that was open already.
	Phases   [Phases]time.Duration
	STS      verdict.STS // what was known of the domain's MTA-STS policy
	Attempts []Attempt   // the hosts that were judged, in the order of trying

	// Most deliveries are of one recipient, and need one host.
	result  [1]status.Code
	attempt [1]Attempt
}

func newEvent() *Event {
	e := &Event{}
	e.Results, e.Attempts = e.result[:0], e.attempt[:0]
	return e
}

// Attempt is one host, or one of its addresses, with which TLS came about or
// did not. One that was lost before that could be told is none.
type Attempt struct {
	Facts   *verdict.Facts
	Verdict *verdict.Verdict
	// Addr and Local are the two ends of the connection. Both are invalid when
	// the host failed its verdict before it was dialled.
	Addr, Local    netip.Addr
	Proof          verdict.Proof
	Failure        *verdict.Failure // the policy that the host failed; nil: none
	TestingFailure *verdict.Failure // what a policy in testing mode has against it; nil: nothing
	// TLSErr is why a server that offers STARTTLS got the message in the
	// clear; nil: that did not happen.
	TLSErr    error
	Reused    bool // over a connection that had carried another message before
	Delivered bool // the host took the message for a recipient
}

// Phase is a part of a delivery's time.
type Phase uint8

// The phases, in the order of a delivery to one host.
const (
	PhaseWait        Phase = iota // for a turn: max_deliveries, limits, a host that complained of too much
	PhaseDNS                      // route, addresses, TLSA records, MTA-STS policy
	PhaseConnect                  // TCP, and the wait for another delivery's trial of the same host
	PhaseGreeting                 // the server's greeting and the first EHLO
	PhaseTLS                      // STARTTLS, the handshake and the second EHLO
	PhaseTransaction              // MAIL to the reply to the whole message
	Phases
)

// String gives a word for metrics.
func (p Phase) String() string {
	if p >= Phases {
		return "unknown"
	}
	return [Phases]string{"wait", "dns", "connect", "greeting", "tls", "transaction"}[p]
}

// spent adds the time since start to a phase, and at least a nanosecond, to
// show that the delivery came to it.
func (d *delivery) spent(p Phase, start time.Time) {
	if d.event == nil {
		return
	}
	d.event.Phases[p] += max(time.Since(start), 1)
}

// attempt notes a host that was judged, and gives its place among them.
func (d *delivery) attempt(p *plan.Host, a Attempt) int {
	if d.event == nil {
		return 0
	}
	a.Facts, a.Verdict = &p.Facts, &p.Verdict
	d.event.Attempts = append(d.event.Attempts, a)
	return len(d.event.Attempts) - 1
}

// judged notes a connection: one that carries the message, or one that failed
// a policy.
func (d *delivery) judged(c *hostConn, failed *verdict.Failure) {
	c.attempt = d.attempt(c.host, Attempt{
		Addr: c.addr, Local: c.local, Proof: c.proof,
		Failure: failed, TestingFailure: c.tested, TLSErr: c.tlsErr, Reused: c.reused,
	})
}

// tell tells who observes what became of the delivery.
func (d *delivery) tell(start time.Time) {
	e := d.event
	if e == nil {
		return
	}
	e.Transport, e.Destination, e.Named, e.TLSRequiredNo = d.cfg.Name, d.target.Destination, d.target.Named, d.demands.TLSRequiredNo
	if d.env.Waited > 0 {
		e.Phases[PhaseWait] += d.env.Waited
	}
	e.Took = time.Since(start)
	for _, r := range d.rcpts {
		e.Results = append(e.Results, r.result.Code)
		if r.conn != nil && r.result.Code.Class == status.Success {
			e.Attempts[r.conn.attempt].Delivered = true
		}
	}
	d.observe(e)
}

// Stats are what a transport counts beside its events: since it was made, and
// now.
type Stats struct {
	Deliveries int                       // under way now
	Open       int                       // connections that are open now, idle ones included
	Opened     uint64                    // connections made
	Dead       int                       // hosts that cannot be reached now
	Slowed     int                       // hosts that complained of too much, and are spared now
	Pool       pool.Stats                // of the idle connections
	Limits     [limit.Scopes]limit.Stats // those of overrides included
}

// Add adds what another transport counts, and has now.
func (s *Stats) Add(o *Stats) {
	s.Deliveries += o.Deliveries
	s.Open += o.Open
	s.Opened += o.Opened
	s.Dead += o.Dead
	s.Slowed += o.Slowed
	s.Pool.Add(&o.Pool)
	for scope := range o.Limits {
		s.Limits[scope].Add(o.Limits[scope])
	}
}

// Stats gives the counters. It is safe for concurrent use, also after Close.
func (t *Transport) Stats() Stats {
	s := Stats{
		Deliveries: t.underway.len(), Open: int(t.connections.Load()), Opened: t.opened.Load(),
		Dead: t.dead.Dead(), Slowed: t.pacer.Slowed(),
	}
	if t.idle != nil {
		s.Pool = t.idle.Stats()
	}
	seen := map[*limit.Limits]bool{}
	for _, p := range t.profiles() {
		if seen[p.limits] {
			continue
		}
		seen[p.limits] = true
		for scope := range limit.Scopes {
			s.Limits[scope].Add(p.limits.Stats(scope))
		}
	}
	return s
}

// profiles lists the transport's own and those of its overrides.
func (t *Transport) profiles() []*profile {
	all := []*profile{t.base}
	for _, o := range t.overrides {
		all = append(all, o.profile)
	}
	return all
}

// counted is a TCP connection that is counted until it is closed.
type counted struct {
	*net.TCPConn // with all that it can do beside net.Conn
	open         *atomic.Int64
	closed       atomic.Bool
}

func count(conn *net.TCPConn, open *atomic.Int64) *counted {
	open.Add(1)
	return &counted{TCPConn: conn, open: open}
}

// Close implements net.Conn.
func (c *counted) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.TCPConn.Close()
}
