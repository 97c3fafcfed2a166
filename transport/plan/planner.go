// Package plan says where mail for a destination goes, and how secure the
// connection to each host there must be. It is the one answer that a delivery,
// an explanation and the policy map read, so that they cannot disagree.
//
// A [Planner] belongs to one set of policies: those of a transport, or of one
// of its overrides. For a [Target] it finds
//
//  1. the route, which names the hosts (package route), and side by side with
//     it the domain's MTA-STS policy (package policycache);
//  2. for each host its addresses, then its TLSA records (RFC 7672 §2.2), and
//     from all of this the verdict: what the host must show before it may have
//     a message (package verdict).
//
// [Planner.Plan] does both, for everybody who wants to know about a domain,
// and keeps the plan. A delivery, which needs no more than the first host that
// takes the message, does 1 with [Planner.Route] and 2 host by host with
// [Planner.Host]: a message must not wait for the TLSA records of ten hosts.
//
// A policy or a record that cannot be looked up is a fact like any other, and
// the verdict says what follows from it. Only an ended context is an error.
// Route and policy have [lookupTimeout] together, and each host has it, or the
// transport's connect_timeout where that is less.
//
// Package plan knows no connections, no messages and no limits.
package plan

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// lookupTimeout bounds the look-ups of a route with its policy, and those of
// one host.
const lookupTimeout = time.Minute

// hostsAtOnce bounds how many hosts are looked at at the same time.
const hostsAtOnce = 8

// Config is what a Planner is made from.
type Config struct {
	// Override is the match of the override that the policies belong to;
	// empty: they are the transport's. OwnPolicies says that they differ from
	// the transport's. Both are for whoever reads a Plan.
	Override    string
	OwnPolicies bool
	Rules       verdict.Rules
	Resolver    route.Resolver
	Self        route.Self
	ForceIPv4   bool
	Port        uint16   // where hosts listen unless the destination says otherwise
	Policies    Policies // nil: no MTA-STS
	// HostTimeout bounds the look-ups of one host further; 0: it does not.
	HostTimeout time.Duration
	Cache       *Cache // of all planners of a transport
}

// Planner makes plans. It is safe for concurrent use.
type Planner struct {
	cfg      Config
	resolver route.Resolver
	finder   *route.Finder
}

// New makes a Planner.
func New(cfg Config) *Planner {
	if cfg.HostTimeout <= 0 || cfg.HostTimeout > lookupTimeout {
		cfg.HostTimeout = lookupTimeout
	}
	return &Planner{
		cfg: cfg, resolver: cfg.Resolver,
		finder: route.New(route.Config{Resolver: cfg.Resolver, Self: cfg.Self, ForceIPv4: cfg.ForceIPv4, Port: cfg.Port}),
	}
}

// Rules gives the policies that hosts are judged by.
func (p *Planner) Rules() verdict.Rules { return p.cfg.Rules }

// Target is where mail is to go. It is comparable.
type Target struct {
	route.Destination
	// Named says that the administrator named it: it is no fault of an address
	// then when there is nothing there.
	Named bool
}

// Plan is where the mail for a target goes. One that [Planner.Plan] gives is
// shared, and never changed.
type Plan struct {
	Target      Target
	Override    string // the match of the override that applies; empty: none does
	OwnPolicies bool   // the override has another mx_auth than the transport
	Rules       verdict.Rules
	Route       route.Route        // its hosts in the order of trying; Secure: the MX set, or its absence, is DNSSEC-validated
	STS         verdict.STS        // what is known of the MTA-STS policy, as in the Facts of each host
	Policy      *policycache.Entry // and where it comes from; nil: it was not asked for
	Err         *status.Error      // why there are no hosts; nil: there are some
	// Hosts are those of the route in the same order, and after them those
	// that only force_ipv4 or their number leaves out here. Empty when the plan
	// comes from Route.
	Hosts []Host
}

// Route finds the hosts of a target, and at the same time the domain's MTA-STS
// policy. Nothing is known of the hosts yet but their names.
func (p *Planner) Route(ctx context.Context, target Target, demands verdict.Demands) *Plan {
	plan := &Plan{Target: target, Override: p.cfg.Override, OwnPolicies: p.cfg.OwnPolicies, Rules: p.cfg.Rules}
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var both errgroup.Group
	if p.asksPolicy(target, demands) {
		both.Go(func() error {
			plan.Policy, plan.STS = p.lookupPolicy(limited, target.Domain)
			return nil
		})
	}
	found, err := p.finder.Route(limited, target.Destination)
	_ = both.Wait() // nobody returns an error
	plan.Route = found
	if err != nil {
		failed := *failure(ctx, err, target.String())
		if target.Named { // a next hop that leads nowhere is a mistake on our side, and bounces nothing
			failed.Code.Class = status.Temporary
		}
		plan.Err = &failed
	}
	return plan
}

// failure takes a look-up's error as it is, or says why ctx ended.
func failure(ctx context.Context, err error, host string) *status.Error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return status.From(err, status.New(status.Temporary, 4, 3), host)
}
