package plan

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
)

// defaultBytes is how many bytes the plans of a transport may take: room for
// some 30,000 domains.
const defaultBytes = 64 << 20

// Cache keeps the plans of all planners of a transport. It must be closed. It
// is safe for concurrent use.
type Cache struct {
	plans  *cache.Cache[cacheKey, *Plan]
	texts  *cache.Cache[textKey, keptText]
	serial atomic.Uint64 // of the last plan
}

type cacheKey struct {
	planner *Planner
	target  Target
}

// NewCache makes a Cache.
func NewCache() *Cache { return newCache(defaultBytes) }

func newCache(bytes int64) *Cache {
	c := &Cache{}
	c.plans = cache.New(c.load, cache.Options[cacheKey, *Plan]{
		Bytes: bytes,
		Cost:  func(_ cacheKey, e cache.Entry[*Plan]) int { return e.Value.cost() },
		// Those of a refresh look the known hosts up too.
		Timeout: 2 * lookupTimeout,
	})
	c.texts = newTexts(c, bytes/2)
	return c
}

// Stats gives the counters.
func (c *Cache) Stats() cache.Stats { return c.plans.Stats() }

// TextStats gives the counters of the texts.
func (c *Cache) TextStats() cache.Stats { return c.texts.Stats() }

// Close gives up the plans that are being made, and waits for them.
func (c *Cache) Close() {
	// The errors could only be those of the context, which has no end.
	_ = c.texts.Close(context.Background())
	_ = c.plans.Close(context.Background())
}

// validity says for how long a plan holds.
type validity struct {
	// rises from one plan to the next, when it is made; more of its hosts
	// change nothing
	serial     uint64
	expires    time.Time // when the first of the answers does; zero: at once
	generation uint64    // of the resolver, before it was asked
}

// earlier gives the earlier time, of which the zero one is the earliest. A host
// for which nothing had to be looked up never expires.
func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// generation is the resolver's; ok is false where it has none, and no one could
// tell when an answer was flushed.
func (p *Planner) generation() (n uint64, ok bool) {
	g, ok := p.cfg.Resolver.(interface{ Generation() uint64 })
	if !ok {
		return 0, false
	}
	return g.Generation(), true
}

// stillCurrent reports whether all that the DNS said for a plan still counts.
func (p *Planner) stillCurrent(plan *Plan) bool {
	generation, _ := p.generation()
	return time.Now().Before(plan.expires) && generation == plan.generation
}

// get gives a plan as far as it is known.
func (p *Planner) get(ctx context.Context, target Target) (*Plan, error) {
	plans, key := p.cfg.Cache.plans, cacheKey{p, target}
	begun := p.cfg.Cache.serial.Load()
	for {
		plan, err := plans.Get(ctx, key)
		switch {
		case err != nil:
			return nil, err
		case plan.serial > begun:
			// It was made for this call, or beside it. To hold it against a
			// policy that is on its way would have it made for ever.
			return plan, nil
		case p.stillCurrent(plan) && p.samePolicy(ctx, plan):
			return plan, nil
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		}
		plans.Flush(key)
	}
}

// policyValidity says for how long the policy of a plan need not be looked up
// again, to be found the same.
type policyValidity struct {
	until      time.Time
	generation uint64 // of the cache of policies, before it was asked
}

// samePolicy reports whether the domain's policy is still what it was. The
// policy has times of its own, and looking it up keeps it fresh; between these
// times it is looked up again only when the cache of policies has changed.
func (p *Planner) samePolicy(ctx context.Context, plan *Plan) bool {
	if plan.Policy == nil {
		return true
	}
	var generation uint64
	if p.policies != nil {
		generation = p.policies.Generation()
		if v := plan.made.policy.Load(); v != nil && v.generation == generation && time.Now().Before(v.until) {
			return true
		}
	}
	entry, same := p.policyOf(ctx, plan)
	if same && p.policies != nil {
		plan.made.policy.Store(&policyValidity{entry.Until, generation})
	}
	return same
}

// policyOf looks the policy of a plan up, and reports whether it is still what
// it was. It is nil where none is asked for.
func (p *Planner) policyOf(ctx context.Context, plan *Plan) (*policycache.Entry, bool) {
	if plan.Policy == nil {
		return nil, true
	}
	entry, err := p.cfg.Policies.Lookup(ctx, plan.Target.Domain)
	return &entry, err == nil && sameEntry(&entry, plan.Policy)
}

// sameEntry compares what is known of a policy. The same failure may come as a
// new error each time.
func sameEntry(a, b *policycache.Entry) bool {
	if a.State != b.State || a.ID != b.ID || a.RecordID != b.RecordID || !a.Expires.Equal(b.Expires) || a.Policy.Mode != b.Policy.Mode {
		return false
	}
	if a.Err == b.Err || a.Err == nil || b.Err == nil {
		return a.Err == b.Err
	}
	return a.Err.Failure == b.Err.Failure && a.Err.Error() == b.Err.Error()
}

// load makes a plan, for the cache. A refresh finds out about the hosts too
// that somebody needed before.
func (c *Cache) load(ctx context.Context, key cacheKey) (*Plan, time.Time, error) {
	p := key.planner
	plan := p.load(ctx, key.target)
	if old, known := c.plans.Entry(key); known && plan.Err == nil {
		plan = p.lookupHosts(ctx, plan, old.Value.knownIn(plan))
	}
	if ctx.Err() != nil {
		// what failed may have failed for want of time
		return nil, time.Time{}, context.Cause(ctx)
	}
	plan.serial = c.serial.Add(1)
	return plan, plan.expires, nil
}

// load makes a plan in which nothing is known of the hosts.
func (p *Planner) load(ctx context.Context, target Target) *Plan {
	generation, ok := p.generation()
	plan, expires := p.lookupRoute(ctx, target, anyMessage)
	plan.generation = generation
	if ok {
		plan.expires = expires
	}
	return plan
}

// knownIn lists the hosts of another plan for the same target that are known in
// this one.
func (p *Plan) knownIn(other *Plan) (list []int) {
	known := make(map[string]bool, len(p.Hosts))
	for _, h := range p.Hosts {
		if h != nil {
			known[h.Host.Name] = true
		}
	}
	for i, h := range other.Route.Hosts {
		if known[h.Name] {
			list = append(list, i)
		}
	}
	return list
}

// keep adds to a plan, and to the one that is kept if it is the same. It gives
// the one that is kept then.
func (p *Planner) keep(plan *Plan, add func(*Plan) *Plan) *Plan {
	var kept *Plan
	p.cfg.Cache.plans.Update(cacheKey{p, plan.Target}, func(e cache.Entry[*Plan]) (cache.Entry[*Plan], bool) {
		if e.Value.serial != plan.serial {
			return e, false
		}
		more := add(e.Value)
		if !p.stillCurrent(more) {
			return e, false
		}
		kept = more
		return cache.Entry[*Plan]{Value: more, Expires: more.expires}, true
	})
	if kept == nil {
		kept = add(plan)
	}
	return kept
}

// planSize, routeHostSize and hostSize are what the structs take in memory, in
// bytes, with some room.
const planSize, routeHostSize, hostSize = 768, 72, 1024

// cost is about what a plan takes in memory, in bytes.
func (p *Plan) cost() int {
	n := planSize + 2*len(p.Target.Domain) + len(p.Route.Canonical)
	for i := range p.Route.Hosts {
		n += routeHostSize + len(p.Route.Hosts[i].Name)
	}
	for i := range p.Route.Dropped {
		n += routeHostSize + len(p.Route.Dropped[i].Host.Name)
	}
	if p.Policy != nil {
		n += len(p.Policy.ID) + len(p.Policy.RecordID)
		for _, pattern := range p.Policy.Policy.MX {
			n += 16 + len(pattern)
		}
	}
	for _, h := range p.Hosts {
		n += 8
		if h != nil {
			n += h.cost()
		}
	}
	return n
}

// cost is about what a host takes in memory, in bytes.
func (h *Host) cost() int {
	n := hostSize + len(h.Addresses.Addrs)*24 + len(h.Addresses.Canonical) + len(h.Verdict.Reason)
	tlsa := &h.Facts.TLSA
	n += len(tlsa.Base)
	for _, name := range tlsa.Names {
		n += 16 + len(name)
	}
	return n + tlsa.Set.Size()
}
