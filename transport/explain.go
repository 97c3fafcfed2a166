package transport

import (
	"context"
	"time"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/mtasts/policies"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Explanation is what a message to a domain would meet, found out in the very
// way of a delivery, and why. Nothing is dialled for it.
type Explanation struct {
	Domain    string            // as A-labels
	Transport string            // the transport's name
	Override  string            // the match of the override that applies; empty: none does
	Route     route.Route       // Hosts in the order of trying
	STS       *policies.Entry   // the domain's MTA-STS policy; nil: not asked for
	Hosts     []HostExplanation // one for each host of the route
	Err       *status.Error     // why there is no route; nil: there is one
}

// HostExplanation is one host's part of an Explanation.
type HostExplanation struct {
	Host      route.Host
	Addresses route.Addresses
	Facts     verdict.Facts
	Verdict   verdict.Verdict
	Err       *status.Error // why its addresses are not known; the rest is empty then
}

// Explain explains a domain, or what stands in its place in an address, for a
// message that makes no demands of its own.
func (t *Transport) Explain(ctx context.Context, domain string) Explanation {
	e := Explanation{Domain: domain, Transport: t.base.cfg.Name}
	addr, err := address.Parse("postmaster@" + domain)
	if err != nil {
		e.Err = &status.Error{Code: status.New(status.Permanent, 1, 2), Text: "domain " + quote(domain), Err: err}
		return e
	}
	e.Domain = addr.ASCII
	p, dest, failed := t.destination(addr, "")
	if failed != nil {
		e.Err = failed
		return e
	}
	e.Override = t.overrideOf(addr.ASCII)
	if p.policies != nil && dest.Domain != "" && !dest.Nexthop {
		if entry, err := p.policies.Lookup(ctx, dest.Domain); err == nil {
			e.STS = &entry
		}
	}
	if e.Route, err = p.finder.Route(ctx, dest.Destination); err != nil {
		e.Err = noWay(ctx, err, dest)
		return e
	}
	sts := verdict.STS{}
	if e.STS != nil {
		sts = stsOf(*e.STS)
	}
	for _, host := range e.Route.Hosts {
		e.Hosts = append(e.Hosts, p.explainHost(ctx, &e.Route, host, sts))
	}
	return e
}

func (p *profile) explainHost(ctx context.Context, way *route.Route, host route.Host, sts verdict.STS) HostExplanation {
	ctx, cancel := context.WithTimeout(ctx, min(p.cfg.ConnectTimeout, time.Minute))
	defer cancel()
	s := p.survey(ctx, way, host, sts, verdict.Demands{Relaxed: true})
	e := HostExplanation{Host: host, Addresses: s.addresses, Facts: s.facts, Verdict: s.verdict}
	if s.err != nil {
		e.Err = asStatus(ctx, s.err, host.Name)
	}
	return e
}

func (t *Transport) overrideOf(domain string) string {
	for _, o := range t.overrides {
		if matches(o.match, domain) {
			return o.match
		}
	}
	return ""
}
