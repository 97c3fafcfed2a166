package transport

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/route"
)

// MaxTraces bounds the domains that are traced at once.
const MaxTraces = 100

// ErrTraces says that MaxTraces domains are traced already. The administrator
// ends one of them, or waits.
var ErrTraces = errors.New("too many domains are being traced")

// Traces are the domains whose mail is logged in full for a while: the route,
// each host's verdict, and the SMTP dialogue, never a message's body. All
// transports of a daemon share them. They are safe for concurrent use; a nil
// *Traces traces nothing.
type Traces struct {
	number atomic.Int32 // of domains in until, for those who pass by

	mu    sync.Mutex
	until map[string]time.Time // by domain, as A-labels
}

// Start traces a domain, given as A-labels in lower case, until a time. A
// later call for it changes that time. The error is ErrTraces.
func (t *Traces) Start(domain string, until time.Time) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	if _, there := t.until[domain]; !there && len(t.until) >= MaxTraces {
		return ErrTraces
	}
	if t.until == nil {
		t.until = map[string]time.Time{}
	}
	t.until[domain] = until
	t.number.Store(int32(len(t.until)))
	return nil
}

// Stop ends the trace of a domain and tells whether there was one.
func (t *Traces) Stop(domain string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	_, there := t.until[domain]
	delete(t.until, domain)
	t.number.Store(int32(len(t.until)))
	return there
}

// List gives the domains that are traced, with the times until which they are.
func (t *Traces) List() map[string]time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.sweep(time.Now())
	return maps.Clone(t.until)
}

// sweep forgets the traces whose time is over.
func (t *Traces) sweep(now time.Time) {
	maps.DeleteFunc(t.until, func(_ string, until time.Time) bool { return !now.Before(until) })
	t.number.Store(int32(len(t.until)))
}

// cover reports whether a delivery is to a domain that is traced: that of a
// recipient, or the next hop's.
func (t *Traces) cover(d *delivery) bool {
	if t == nil || t.number.Load() == 0 {
		return false
	}
	all := t.List()
	if _, ok := all[d.target.Domain]; ok && d.target.Domain != "" {
		return true
	}
	for i := range d.rcpts {
		if _, ok := all[d.rcpts[i].Address.ASCII]; ok {
			return true
		}
	}
	return false
}

// trace gives what logs the dialogue over a connection; nil: it is not logged.
// It keeps nothing of the delivery, which it may outlive in the pool.
func (d *delivery) trace(c *hostConn) func(who, line string) {
	if !d.cfg.Debug && !d.traced {
		return nil
	}
	log := d.log.With("host", c.host.Host.Name, "address", c.addr.String())
	return func(who, line string) { log.Info("smtp", who, reply.Clean(line)) }
}

// traceRoute logs which hosts a traced message may go to.
func (d *delivery) traceRoute(way *route.Route) {
	if !d.traced {
		return
	}
	hosts := make([]string, len(way.Hosts))
	for i, h := range way.Hosts {
		hosts[i] = h.Name
	}
	d.log.Info("route", "destination", d.target.String(), "kind", way.Kind.String(), "secure", way.Secure, "hosts", strings.Join(hosts, ","))
}

// traceVerdict logs what a host must show before it gets a traced message.
func (d *delivery) traceVerdict(p *plan.Host) {
	if !d.traced {
		return
	}
	refused := ""
	if p.Verdict.Refusal != nil {
		refused = clean(p.Verdict.Refusal.Text)
	}
	d.log.Info("verdict", "host", p.Host.Name, "mx_level", p.Verdict.MX.String(), "need", p.Verdict.Need.String(),
		"reason", clean(p.Verdict.Reason), "refused", refused)
}
