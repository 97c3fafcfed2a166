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
// [Planner.Plan] does both, for everybody who wants to know about a domain. A
// delivery, which needs no more than the first host that takes the message,
// does 1 with [Planner.Route] and 2 host by host with [Planner.Host]: a message
// must not wait for the TLSA records of ten hosts.
//
// # What is kept
//
// A plan is kept as far as somebody needed it, and given again for as long as
// all that it was made of still holds: until the first of its DNS answers
// expires, or the resolver's generation changes, which a flush does. The
// domain's policy, which has times and a refresh of its own, is looked up anew
// each time, and has to be the very same. So nothing outlives its TTL, a flush
// or a changed policy, and what is asked for often is refreshed ahead of its
// expiry. A warm plan asks no DNS cache for ten answers.
//
// Who wants no more of a whole plan than a text, as Postfix does that asks for
// a domain's policy, gets it from [Planner.Text]. The text is kept by the same
// rules, and in place of the plan: it takes a few hundred bytes, where the plan
// takes thousands.
//
// # What fails
//
// A policy or a record that cannot be looked up is a fact like any other, and
// the verdict says what follows from it; it is kept as long as the resolver
// remembers the failure. Only an ended context is an error. Route and policy
// have a minute together, and each host has one, or the transport's
// connect_timeout where that is less. Of a policy that does not come only the
// look-up that has it fetched waits, ten seconds.
//
// Package plan knows no connections, no messages and no limits.
package plan

import (
	"context"
	"sync/atomic"
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
	// the transport's. Both are for readers of a Plan.
	Override    string
	OwnPolicies bool
	Rules       verdict.Rules
	// plans are kept if it has a Generation, as *resolver.Resolver has
	Resolver  route.Resolver
	Self      route.Self
	ForceIPv4 bool
	// where hosts listen unless the destination says otherwise
	Port     uint16
	Policies Policies // nil: no MTA-STS
	// HostTimeout bounds the look-ups of one host further; 0: it does not.
	HostTimeout time.Duration
	Cache       *Cache // of all planners of a transport
}

// Planner makes plans. It is safe for concurrent use.
type Planner struct {
	cfg      Config
	resolver route.Resolver
	finder   *route.Finder
	policies changing // cfg.Policies, if they tell when they change
	sources  sources
}

// changing is what tells when it changes.
type changing interface {
	Generation() uint64
	Unchanged(domain string, serial uint64) bool
}

// New makes a Planner.
func New(cfg Config) *Planner {
	if cfg.HostTimeout <= 0 || cfg.HostTimeout > lookupTimeout {
		cfg.HostTimeout = lookupTimeout
	}
	policies, _ := cfg.Policies.(changing)
	return &Planner{
		cfg: cfg, resolver: cfg.Resolver, policies: policies,
		finder: route.New(route.Config{Resolver: cfg.Resolver, Self: cfg.Self, ForceIPv4: cfg.ForceIPv4, Port: cfg.Port}),
	}
}

// Rules gives the policies that hosts are judged by.
func (p *Planner) Rules() verdict.Rules { return p.cfg.Rules }

// Under gives a planner that judges hosts by other rules, which are those of an
// override.
func (p *Planner) Under(rules verdict.Rules, override string) *Planner {
	cfg := p.cfg
	cfg.Rules, cfg.Override = rules, override
	return New(cfg)
}

// recording gives the same planner with a resolver that records.
func (p *Planner) recording() (*Planner, *recordingResolver) {
	recorder := &recordingResolver{Resolver: p.cfg.Resolver}
	return &Planner{
		cfg: p.cfg, policies: p.policies, resolver: recorder, finder: p.finder.WithResolver(recorder),
	}, recorder
}

// Target is where mail is to go. It is comparable.
type Target struct {
	route.Destination
	// Named says that the administrator named it: it is no fault of an address
	// then when there is nothing there.
	Named bool
}

// Plan is where the mail for a target goes. It is shared, and never changed.
type Plan struct {
	Target Target
	// the match of the override that applies; empty: none does
	Override    string
	OwnPolicies bool // the override has another mx_auth than the transport
	Rules       verdict.Rules
	// its hosts in the order of preference; Secure: the MX set, or its absence,
	// is DNSSEC-validated
	Route route.Route
	// what is known of the MTA-STS policy, as in the Facts of each host
	STS verdict.STS
	// and where it comes from; nil: it was not asked for
	Policy *policycache.Entry
	// why there are no hosts; nil: there are some
	Err *status.Error
	// Hosts are those of the route in the same order, and after them those
	// that only force_ipv4 or their number leaves out here. From Route, some
	// may be nil: nothing has asked for them yet.
	Hosts []*Host

	demands verdict.Demands // that the verdicts are for
	made    *made
	validity
}

// made is what is found out about a plan after it was made. A plan itself never
// changes.
type made struct {
	policy atomic.Pointer[policyValidity]
}

// Order gives the indexes of the route's hosts in the order of trying: those of
// equal preference in an order that is drawn anew each time (RFC 5321 §5.1),
// however long the plan is kept.
func (p *Plan) Order() []int {
	hosts := p.Route.Hosts
	order := make([]int, len(hosts))
	for i := range order {
		order[i] = i
	}
	shuffleGroups(order, func(a, b int) bool { return hosts[a].Preference == hosts[b].Preference })
	return order
}

// Route gives the hosts of a target, and what is known of the domain's MTA-STS
// policy, for a message with such demands. Nothing need be known of the hosts
// yet but their names. When ctx ends that is the plan's Err.
func (p *Planner) Route(ctx context.Context, target Target, demands verdict.Demands) *Plan {
	if demands.TLSRequiredNo {
		// No policy and no record is asked for.
		plan, _ := p.lookupRoute(ctx, target, verdict.Demands{TLSRequiredNo: true})
		return plan
	}
	plan, err := p.get(ctx, target)
	if err != nil {
		plan = p.newPlan(target, anyMessage)
		plan.Err = failure(ctx, err, target.String())
	}
	return plan
}

// Plan gives the whole plan for a target as of now, for a message that makes no
// demands of its own. The error is the cause of ctx, or says that the cache is
// closed.
func (p *Planner) Plan(ctx context.Context, target Target) (*Plan, error) {
	plan, err := p.get(ctx, target)
	if err != nil {
		return nil, err
	}
	if plan = p.lookupHosts(ctx, plan, plan.unknown()); ctx.Err() != nil {
		// what failed may have failed for want of time
		return nil, context.Cause(ctx)
	}
	return plan, nil
}

// anyMessage is a message that makes no demands of its own.
var anyMessage = verdict.Demands{Relaxed: true}

func (p *Planner) newPlan(target Target, demands verdict.Demands) *Plan {
	return &Plan{
		Target: target, Override: p.cfg.Override, OwnPolicies: p.cfg.OwnPolicies, Rules: p.cfg.Rules, demands: demands,
		made: new(made),
	}
}

// lookupRoute finds the hosts of a target, and at the same time the domain's
// MTA-STS policy, and tells until when that holds.
func (p *Planner) lookupRoute(ctx context.Context, target Target, demands verdict.Demands) (*Plan, time.Time) {
	plan := p.newPlan(target, demands)
	asked, recorder := p.recording()
	limited, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var both errgroup.Group
	if p.asksPolicy(target, demands) {
		both.Go(func() error {
			plan.Policy, plan.STS = p.lookupPolicy(limited, target.Domain)
			return nil
		})
	}
	found, err := asked.finder.Route(limited, target.Destination)
	_ = both.Wait() // none returns an error
	plan.Route = found
	if err != nil {
		failed := *failure(ctx, err, target.String())
		// a next hop that leads nowhere is a mistake on our side, and bounces
		// nothing
		if target.Named {
			failed.Code.Class = status.Temporary
		}
		plan.Err = &failed
	}
	plan.Hosts = append(make([]*Host, len(found.Hosts)), p.leftOut(plan)...)
	expires := recorder.recorded()
	if plan.STS.State == verdict.STSFailed && plan.Policy == nil {
		expires = time.Time{} // not even the cache of policies could be asked
	}
	return plan, expires
}

// failure takes a look-up's error as it is, or says why ctx ended.
func failure(ctx context.Context, err error, host string) *status.Error {
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return status.From(err, status.New(status.Temporary, 4, 3), host)
}
