package plan

import (
	"context"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// maxPlans bounds the plans that are kept.
const maxPlans = 5000

// Cache keeps the plans of all planners of a transport. It must be closed.
type Cache struct {
	plans *cache.Cache[cacheKey, *cachedPlan]
}

type cacheKey struct {
	planner *Planner
	target  Target
}

// NewCache makes a Cache.
func NewCache() *Cache {
	load := func(ctx context.Context, key cacheKey) (*cachedPlan, time.Time, error) {
		return key.planner.build(ctx, key.target)
	}
	return &Cache{cache.New(load, cache.Options[cacheKey, *cachedPlan]{Size: maxPlans, Timeout: lookupTimeout})}
}

// Close gives up the plans that are being made, and waits for them.
func (c *Cache) Close() {
	// The error could only be that of the context, which has no end.
	_ = c.plans.Close(context.Background())
}

// Plan gives the plan for a target as of now, for a message that makes no
// demands of its own. It is kept for as long as it would come out the same:
// before it is given again, every answer that it was made of is looked up
// again, from the caches that it came from, and has to be the very same. So
// nothing outlives its TTL, a flush or a changed policy, and what is asked for
// often is refreshed ahead of its expiry as for deliveries.
//
// The error is the cause of ctx, or says that the cache is closed.
func (p *Planner) Plan(ctx context.Context, target Target) (*Plan, error) {
	key := cacheKey{p, target}
	for {
		c, err := p.cfg.Cache.plans.Get(ctx, key)
		switch {
		case err != nil:
			return nil, err
		case !c.cacheable || p.stillCurrent(ctx, c):
			return &c.Plan, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		p.cfg.Cache.plans.Flush(key)
	}
}

// cachedPlan is a Plan and what it was made of.
type cachedPlan struct {
	Plan
	answers   []dnsAnswer
	cacheable bool // it may be given again
}

// stillCurrent reports whether all that a plan was made of is still so.
func (p *Planner) stillCurrent(ctx context.Context, c *cachedPlan) bool {
	for i := range c.answers {
		q := &c.answers[i]
		answer, err := p.resolver.Lookup(ctx, q.name, q.qtype)
		if err != nil || !sameAnswer(&answer, &q.answer) {
			return false
		}
	}
	old := c.Policy
	if old == nil {
		return c.STS.State != verdict.STSFailed
	}
	entry, err := p.cfg.Policies.Lookup(ctx, c.Target.Domain)
	return err == nil && entry.State == old.State && entry.ID == old.ID && entry.RecordID == old.RecordID &&
		entry.Expires.Equal(old.Expires) && entry.Err == old.Err && entry.Policy.Mode == old.Policy.Mode
}

// build makes a plan, for the cache.
func (p *Planner) build(ctx context.Context, target Target) (*cachedPlan, time.Time, error) {
	recorder := &recordingResolver{Resolver: p.resolver}
	recording := *p
	recording.resolver, recording.finder = recorder, p.finder.WithResolver(recorder)
	demands := verdict.Demands{Relaxed: true}
	c := &cachedPlan{Plan: *recording.Route(ctx, target, demands)}
	c.Hosts = recording.hosts(ctx, &c.Plan, demands)
	if ctx.Err() != nil {
		return nil, time.Time{}, context.Cause(ctx) // what failed may have failed for want of time
	}
	var expires time.Time
	if c.answers, expires = recorder.recorded(); time.Now().Before(expires) {
		c.cacheable = true
	}
	return c, expires, nil
}

// hosts finds out about the hosts of a plan, several at once.
func (p *Planner) hosts(ctx context.Context, plan *Plan, demands verdict.Demands) []Host {
	if plan.Err != nil {
		return nil
	}
	found := make([]Host, len(plan.Route.Hosts))
	var all errgroup.Group
	all.SetLimit(hostsAtOnce)
	for i, host := range plan.Route.Hosts {
		all.Go(func() error {
			found[i] = p.Host(ctx, plan, host, demands)
			return nil
		})
	}
	_ = all.Wait() // nobody returns an error
	for _, d := range plan.Route.Dropped {
		// Another mail server has its own reasons to leave hosts out.
		if d.Reason == route.NoIPv4 || d.Reason == route.TooMany {
			h := p.host(plan, d.Host)
			h.Err = &status.Error{Code: status.New(status.Temporary, 4, 4), Host: d.Host.Name, Text: d.Reason.String()}
			found = append(found, h)
		}
	}
	return found
}
