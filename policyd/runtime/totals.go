package runtime

import (
	"maps"
	"slices"
	"sync"

	answers "github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// Totals are what everything has counted since the start, of this and of former
// configurations.
type Totals struct {
	Transports map[string]*transport.Stats // by name
	Servers    []resolver.ServerStats      // those that are asked, sorted
	DNS        answers.Stats
	Policies   policycache.Stats
}

// totals know the resources that count for themselves. What one has counted
// when it ends is kept, so that no total of the daemon goes back because of a
// reload.
type totals struct {
	mu             sync.Mutex
	liveTransports map[*liveTransport]struct{}
	liveResolvers  map[*liveResolver]struct{}
	livePolicies   map[*policyCache]struct{}

	// of those that have ended
	transports map[string]*transport.Stats
	servers    map[string]*resolver.ServerStats
	dns        answers.Stats
	policies   policycache.Stats
}

func newTotals() *totals {
	return &totals{
		liveTransports: map[*liveTransport]struct{}{}, liveResolvers: map[*liveResolver]struct{}{}, livePolicies: map[*policyCache]struct{}{},
		transports: map[string]*transport.Stats{}, servers: map[string]*resolver.ServerStats{},
	}
}

// add has a resource counted from now on.
func add[R comparable](t *totals, set map[R]struct{}, r R) {
	t.mu.Lock()
	defer t.mu.Unlock()
	set[r] = struct{}{}
}

// keepTransport keeps what a transport has counted that is closed.
func (t *totals) keepTransport(live *liveTransport) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, in := t.liveTransports[live]; !in {
		return // it was never made
	}
	delete(t.liveTransports, live)
	addTransport(t.transports, live)
}

// keepResolver keeps what a resolver has counted that is closed.
func (t *totals) keepResolver(r *liveResolver) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.liveResolvers, r)
	t.dns.Add(ended(r.Stats()))
	for _, s := range r.Servers() {
		addServer(t.servers, &s)
	}
}

// ended takes away from a cache's counters what is there no more.
func ended(s answers.Stats) answers.Stats {
	s.Entries, s.Bytes, s.MaxBytes = 0, 0, 0
	return s
}

// keepPolicyCache keeps what an MTA-STS cache has counted that is closed.
func (t *totals) keepPolicyCache(c *policyCache) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.livePolicies, c)
	s := c.Stats()
	s.Domains, s.Memory, s.MaxMemory, s.Flights = 0, 0, 0, 0
	t.policies.Add(&s)
}

// Totals gives what was counted until now.
func (rt *Runtime) Totals() Totals { return rt.totals.sum() }

func (t *totals) sum() Totals {
	t.mu.Lock()
	defer t.mu.Unlock()
	sum := Totals{Transports: map[string]*transport.Stats{}, DNS: t.dns, Policies: t.policies}
	for name, s := range t.transports {
		past := *s
		// Nothing of it is there any more.
		past.Sources = transport.SourceCount{}
		past.Deliveries, past.Open, past.Dead, past.Slowed, past.Pool.Idle = 0, 0, 0, 0, 0
		past.Memory = [transport.Memories]answers.Usage{}
		for scope := range limit.Scopes {
			l := &past.Limits[scope]
			l.Keys, l.Open, l.Waiting = 0, 0, 0
		}
		sum.Transports[name] = &past
	}
	for live := range t.liveTransports {
		addTransport(sum.Transports, live)
	}
	servers := map[string]*resolver.ServerStats{}
	for r := range t.liveResolvers {
		sum.DNS.Add(r.Stats())
		for _, s := range r.Servers() {
			addServer(servers, &s)
		}
	}
	for name, s := range t.servers {
		// one that is asked no more is of no interest
		if _, used := servers[name]; used {
			addServer(servers, s)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		sum.Servers = append(sum.Servers, *servers[name])
	}
	for c := range t.livePolicies {
		s := c.Stats()
		sum.Policies.Add(&s)
	}
	return sum
}

func addTransport(to map[string]*transport.Stats, live *liveTransport) {
	name := live.inputs.cfg.Name
	if to[name] == nil {
		to[name] = &transport.Stats{}
	}
	s := live.transport.Stats()
	to[name].Add(&s)
}

func addServer(to map[string]*resolver.ServerStats, s *resolver.ServerStats) {
	if to[s.Server] == nil {
		to[s.Server] = &resolver.ServerStats{Server: s.Server}
	}
	to[s.Server].Add(s)
	to[s.Server].Down = to[s.Server].Down || s.Down
}
