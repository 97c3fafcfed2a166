package delivery

import (
	"errors"
	"maps"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/reply"
)

// maxTraces bounds the domains that are traced at once.
const maxTraces = 100

// ErrTraces says that maxTraces domains are traced already. The administrator
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
	if _, there := t.until[domain]; !there && len(t.until) >= maxTraces {
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

// Covers reports whether a domain is traced, given as A-labels in lower case;
// an empty one is not.
func (t *Traces) Covers(domain string) bool {
	if t == nil || domain == "" || t.number.Load() == 0 {
		return false
	}
	_, ok := t.List()[domain]
	return ok
}

// traceRoute logs which hosts a traced message may go to.
func (d *Delivery) traceRoute(way *plan.Plan, order []int) {
	if !d.msg.Traced {
		return
	}
	hosts := make([]string, len(order))
	for n, i := range order {
		hosts[n] = way.Route.Hosts[i].Name
	}
	d.msg.Log.Info("route", "destination", d.msg.Target.String(), "kind", way.Route.Kind.String(), "secure", way.Route.Secure, "hosts", strings.Join(hosts, ","))
}

// traceVerdict logs what a host must show before it gets a traced message.
func (d *Delivery) traceVerdict(h *plan.Host) {
	if !d.msg.Traced {
		return
	}
	refused := ""
	if h.Verdict.Refusal != nil {
		refused = reply.Line(h.Verdict.Refusal.Text)
	}
	d.msg.Log.Info("verdict", "host", h.Host.Name, "mx_level", h.Verdict.MX.String(), "need", h.Verdict.Need.String(),
		"reason", reply.Line(h.Verdict.Reason), "refused", refused)
}
