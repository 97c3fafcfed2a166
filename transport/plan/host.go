package plan

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Host is one host of a plan, with all that must be known before it is
// dialled. It is shared, and never changed.
type Host struct {
	Host      route.Host
	Port      uint16 // where it listens
	Named     bool   // as in Target
	Addresses route.Addresses
	Facts     verdict.Facts
	Verdict   verdict.Verdict
	// Err is why its addresses are not known, or why it is left out; then
	// Facts hold no TLSA records, and there is no verdict.
	Err *status.Error
}

// Addrs gives the host's addresses, IPv6 first, and within each family in an
// order that is drawn anew each time, however long they are known.
func (h *Host) Addrs() []netip.Addr {
	addrs := slices.Clone(h.Addresses.Addrs)
	shuffleGroups(addrs, func(a, b netip.Addr) bool { return a.Is4() == b.Is4() })
	return addrs
}

// shuffleGroups brings each run of things that are alike into random order.
func shuffleGroups[T any](list []T, alike func(a, b T) bool) {
	for len(list) > 1 {
		n := 1
		for n < len(list) && alike(list[0], list[n]) {
			n++
		}
		rand.Shuffle(n, func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[n:]
	}
}

// Host gives the host i of a plan's route, for a message with such demands:
// from the plan, where it is known and still holds, or looked up.
func (p *Planner) Host(ctx context.Context, plan *Plan, i int, demands verdict.Demands) *Host {
	h := plan.Hosts[i]
	if h == nil || !p.stillCurrent(plan) {
		h = p.lookupHosts(ctx, plan, []int{i}).Hosts[i]
	}
	if h.Err != nil || !demands.RequireTLS {
		return h // nothing else of the demands makes a difference to this plan
	}
	own := *h
	own.Verdict = verdict.Decide(h.Facts, p.cfg.Rules, demands)
	return &own
}

// unknown lists the hosts that nothing has asked for yet.
func (p *Plan) unknown() (list []int) {
	for i, h := range p.Hosts {
		if h == nil {
			list = append(list, i)
		}
	}
	return list
}

// lookupHosts finds out about hosts of a plan, several at once. It gives the
// plan that has them, and keeps it.
func (p *Planner) lookupHosts(ctx context.Context, plan *Plan, which []int) *Plan {
	if len(which) == 0 {
		return plan
	}
	found := make([]*Host, len(which))
	expires := make([]time.Time, len(which))
	if len(which) == 1 {
		found[0], expires[0] = p.lookupHost(ctx, plan, plan.Route.Hosts[which[0]])
	} else {
		var all errgroup.Group
		all.SetLimit(hostsAtOnce)
		for n, i := range which {
			all.Go(func() error {
				found[n], expires[n] = p.lookupHost(ctx, plan, plan.Route.Hosts[i])
				return nil
			})
		}
		_ = all.Wait() // none returns an error
	}
	return p.keep(plan, func(to *Plan) *Plan { return withHosts(to, which, found, expires) })
}

// withHosts gives a plan that knows more hosts. What was made of it before is
// none of its texts.
func withHosts(plan *Plan, which []int, found []*Host, expires []time.Time) *Plan {
	more := *plan
	more.Hosts = slices.Clone(plan.Hosts)
	more.made = new(made)
	for n, i := range which {
		more.Hosts[i] = found[n]
		more.expires = earlier(more.expires, expires[n])
	}
	return &more
}

// lookupHost finds out about one host, and until when that holds.
func (p *Planner) lookupHost(ctx context.Context, plan *Plan, host route.Host) (*Host, time.Time) {
	limited, cancel := context.WithTimeout(ctx, p.cfg.HostTimeout)
	defer cancel()
	asked, recorder := p.recording()
	h := p.host(plan, host)
	var err error
	if h.Addresses, err = asked.finder.Addresses(limited, host); err != nil {
		h.Err = failure(ctx, err, host.Name)
		return h, recorder.recorded()
	}
	if p.cfg.Rules.DANE && !plan.demands.TLSRequiredNo {
		h.Facts.TLSA = asked.lookupTLSA(limited, &plan.Route, host, &h.Addresses)
	}
	h.Verdict = verdict.Decide(h.Facts, p.cfg.Rules, plan.demands)
	expires := recorder.recorded()
	if late := h.Addresses.Partial; late != nil {
		// The other family's answer may only have been late.
		expires = earlier(expires, remembered(late))
	}
	return h, expires
}

// host is a host of which nothing is known but what the plan says.
func (p *Planner) host(plan *Plan, host route.Host) *Host {
	return &Host{
		Host: host, Port: p.port(plan.Target), Named: plan.Target.Named,
		Facts: verdict.Facts{Host: host.Name, Signed: plan.Route.Secure, STS: plan.STS},
	}
}

// leftOut are the hosts that only a setting of ours leaves out. Another mail
// server has its own reasons.
func (p *Planner) leftOut(plan *Plan) (hosts []*Host) {
	for _, d := range plan.Route.Dropped {
		if d.Reason == route.NoIPv4 || d.Reason == route.TooMany {
			h := p.host(plan, d.Host)
			h.Err = &status.Error{Code: status.New(status.Temporary, 4, 4), Host: d.Host.Name, Text: d.Reason.String()}
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// port is where a target's hosts listen.
func (p *Planner) port(target Target) uint16 {
	if target.Port != 0 {
		return target.Port
	}
	return p.cfg.Port
}
