package policyd

import (
	"maps"
	"slices"
	"sync"

	answers "github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/policyd/metrics"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// tallies know the parts that count for themselves. What a part has counted
// when it ends is kept, so that no total of the daemon goes back because of a
// reload.
type tallies struct {
	mu     sync.Mutex
	ways   map[*way]struct{}
	askers map[*asker]struct{}
	caches map[*cache]struct{}

	// of those that have ended
	transports map[string]*transport.Stats
	servers    map[string]*resolver.ServerStats
	dns        answers.Stats
	policies   policycache.Stats
}

func newTallies() *tallies {
	return &tallies{
		ways: map[*way]struct{}{}, askers: map[*asker]struct{}{}, caches: map[*cache]struct{}{},
		transports: map[string]*transport.Stats{}, servers: map[string]*resolver.ServerStats{},
	}
}

// enter has a part counted from now on.
func enter[P comparable](t *tallies, set map[P]struct{}, part P) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set[part] = struct{}{}
}

// wayEnds keeps what a transport has counted that is closed.
func (t *tallies) wayEnds(w *way) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, in := t.ways[w]; !in {
		return // it was never made
	}
	delete(t.ways, w)
	addTransport(t.transports, w)
}

// askerEnds keeps what a resolver has counted that is closed.
func (t *tallies) askerEnds(a *asker) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.askers, a)
	t.dns.Add(ended(a.Stats()))
	for _, s := range a.Servers() {
		addServer(t.servers, &s)
	}
}

// ended takes away from a cache's counters what is there no more.
func ended(s answers.Stats) answers.Stats {
	s.Entries = 0
	return s
}

// cacheEnds keeps what an MTA-STS cache has counted that is closed.
func (t *tallies) cacheEnds(c *cache) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.caches, c)
	s := c.Stats()
	s.Domains, s.Memory, s.Flights = 0, 0, 0
	t.policies.Add(&s)
}

// sum writes all that was counted into c.
func (t *tallies) sum(c *metrics.Counts) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c.Transports = map[string]*transport.Stats{}
	for name, s := range t.transports {
		past := *s
		// Nothing of it is there any more.
		past.Deliveries, past.Open, past.Dead, past.Slowed, past.Pool.Idle = 0, 0, 0, 0, 0
		for scope := range limit.Scopes {
			l := &past.Limits[scope]
			l.Keys, l.Open, l.Waiting = 0, 0, 0
		}
		c.Transports[name] = &past
	}
	for w := range t.ways {
		addTransport(c.Transports, w)
	}
	c.DNS, c.Policies = t.dns, t.policies
	servers := map[string]*resolver.ServerStats{}
	for a := range t.askers {
		c.DNS.Add(a.Stats())
		for _, s := range a.Servers() {
			addServer(servers, &s)
		}
	}
	for name, s := range t.servers {
		if _, used := servers[name]; used { // one that is asked no more is of no interest
			addServer(servers, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		c.Servers = append(c.Servers, *servers[name])
	}
	for one := range t.caches {
		s := one.Stats()
		c.Policies.Add(&s)
	}
}

func addTransport(to map[string]*transport.Stats, w *way) {
	name := w.made.cfg.Name
	if to[name] == nil {
		to[name] = &transport.Stats{}
	}
	s := w.transport.Stats()
	to[name].Add(&s)
}

func addServer(to map[string]*resolver.ServerStats, s *resolver.ServerStats) {
	if to[s.Server] == nil {
		to[s.Server] = &resolver.ServerStats{Server: s.Server}
	}
	to[s.Server].Add(s)
	to[s.Server].Down = to[s.Server].Down || s.Down
}

// counts is what the daemon tells metrics.
func (d *Daemon) counts() metrics.Counts {
	c := metrics.Counts{
		MaxDeliveries: d.places, TLSRPT: d.reports.Stats(), Socketmap: d.lookups.Stats(),
		Warnings: d.options.Log.repeats.warnings.Load(), Errors: d.options.Log.repeats.errors.Load(),
	}
	d.tallies.sum(&c)
	d.mu.Lock()
	c.Reloaded, c.Mistaken = d.standing.read, !d.standing.rejected.IsZero()
	d.mu.Unlock()
	if d.desk != nil { // which comes last
		c.Messages, c.Busy = d.desk.UnderWay(), d.desk.Busy()
	}
	return c
}
