package plan

import (
	"context"

	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Host is one host of a plan, with all that must be known before it is
// dialled.
type Host struct {
	Host      route.Host
	Port      uint16 // where it listens
	Addresses route.Addresses
	Facts     verdict.Facts
	Verdict   verdict.Verdict
	// Err is why its addresses are not known, or why it is left out; then
	// Facts hold no TLSA records, and there is no verdict.
	Err *status.Error
}

// Host finds out about one host of a plan's route, for a message with such
// demands.
func (p *Planner) Host(ctx context.Context, plan *Plan, host route.Host, demands verdict.Demands) Host {
	limited, cancel := context.WithTimeout(ctx, p.cfg.HostTimeout)
	defer cancel()
	h := p.host(plan, host)
	var err error
	if h.Addresses, err = p.finder.Addresses(limited, host); err != nil {
		h.Err = failure(ctx, err, host.Name)
		return h
	}
	if p.cfg.Rules.DANE && !demands.TLSRequiredNo {
		h.Facts.TLSA = p.lookupTLSA(limited, &plan.Route, host, &h.Addresses)
	}
	h.Verdict = verdict.Decide(h.Facts, p.cfg.Rules, demands)
	return h
}

// host is a host of which nothing is known but what the plan says.
func (p *Planner) host(plan *Plan, host route.Host) Host {
	return Host{
		Host: host, Port: p.port(plan.Target),
		Facts: verdict.Facts{Host: host.Name, Signed: plan.Route.Secure, STS: plan.STS},
	}
}

// port is where a target's hosts listen.
func (p *Planner) port(target Target) uint16 {
	if target.Port != 0 {
		return target.Port
	}
	return p.cfg.Port
}
