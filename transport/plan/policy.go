package plan

import (
	"context"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Policies knows the MTA-STS policies of domains; *policycache.Cache is one.
type Policies interface {
	Lookup(ctx context.Context, domain string) (policycache.Entry, error)
}

// asksPolicy says whether a target has an MTA-STS policy to ask for: the
// domain's own, a relay's under its name (RFC 8461 §3.4), or none where MX
// records are not what leads to the hosts.
func (p *Planner) asksPolicy(target Target, demands verdict.Demands) bool {
	return p.cfg.Policies != nil && !demands.TLSRequiredNo && target.Domain != "" && (!target.Nexthop || p.cfg.Rules.Relay == verdict.RelayTLS)
}

// lookupPolicy finds the MTA-STS policy of a domain. One that cannot be looked
// up may exist.
func (p *Planner) lookupPolicy(ctx context.Context, domain string) (*policycache.Entry, verdict.STS) {
	entry, err := p.cfg.Policies.Lookup(ctx, domain)
	if err != nil {
		return nil, verdict.STS{State: verdict.STSFailed, Err: err}
	}
	return &entry, stsOf(&entry)
}

// stsOf is what an entry means for a verdict.
func stsOf(e *policycache.Entry) verdict.STS {
	switch e.State {
	case policycache.HasPolicy:
		return verdict.STS{State: verdict.STSFound, Policy: e.Policy}
	case policycache.Failed:
		sts := verdict.STS{State: verdict.STSFailed}
		if e.Err != nil {
			sts.Err = e.Err
		}
		return sts
	}
	return verdict.STS{State: verdict.STSNone}
}
