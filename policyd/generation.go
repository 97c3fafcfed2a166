package policyd

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/pipe"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// generation is everything that a reload replaces at once: the resolver and
// the transports made from one configuration. Deliveries that began with it
// keep it; the last of them closes it once it is retired.
type generation struct {
	resolver   *resolver.Resolver
	policies   *policyCaches
	idle       *transport.Idle
	transports map[string]*transport.Transport

	mu      sync.Mutex
	users   int
	retired bool
	closed  chan struct{}
}

// newGeneration makes the transports of a configuration.
func newGeneration(cfg *config.Config, log *slog.Logger) (*generation, error) {
	servers := cfg.DNS.Servers
	if len(servers) == 0 {
		var err error
		if servers, err = resolver.FromResolvConf("/etc/resolv.conf"); err != nil {
			return nil, fmt.Errorf("dns.servers is not set and /etc/resolv.conf gives none: %w", err)
		}
	}
	res, err := resolver.New(resolver.Config{
		Servers: servers, TrustAD: trust(cfg.DNS.TrustAD), Timeout: cfg.DNS.Timeout, Attempts: cfg.DNS.Attempts, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	g := &generation{
		resolver:   res,
		policies:   &policyCaches{resolver: res, log: log},
		idle:       transport.NewIdle(maxIdle),
		transports: map[string]*transport.Transport{},
		closed:     make(chan struct{}),
	}
	self, err := route.ThisHost()
	if err != nil {
		g.close()
		return nil, fmt.Errorf("this host's addresses: %w", err)
	}
	deps := transport.Deps{Resolver: res, Self: self, Policies: g.policies.get, Idle: g.idle, Logger: log}
	for name, c := range cfg.Transports {
		if g.transports[name], err = transport.New(c, deps); err != nil {
			g.close()
			return nil, fmt.Errorf("transport %s: %w", name, err)
		}
	}
	return g, nil
}

// maxIdle bounds the idle connections of all transports together: a quarter of
// the descriptors that the unit allows.
const maxIdle = 16384

func trust(t config.TrustAD) resolver.TrustAD {
	switch t {
	case config.TrustAll:
		return resolver.TrustAll
	case config.TrustNone:
		return resolver.TrustNone
	}
	return resolver.TrustLoopback
}

// retire lets the generation close as soon as nobody uses it.
func (g *generation) retire() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.retired = true
	if g.users == 0 {
		g.close()
	}
}

func (g *generation) release() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users--; g.retired && g.users == 0 {
		g.close()
	}
}

// abort gives up the deliveries under way.
func (g *generation) abort() {
	for _, t := range g.transports {
		t.Close()
	}
}

func (g *generation) close() {
	g.idle.Stop()
	for _, t := range g.transports {
		if t != nil {
			t.Close()
		}
	}
	g.policies.close()
	g.resolver.Close()
	close(g.closed)
}

// generations gives out the current one.
type generations struct {
	mu  sync.Mutex
	now *generation
}

// use finds a transport by name; release is called when it is no longer used.
func (gs *generations) use(name string) (way pipe.Deliverer, release func(), ok bool) {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	t, ok := gs.now.transports[name]
	if !ok {
		return nil, nil, false
	}
	gs.now.mu.Lock()
	defer gs.now.mu.Unlock()
	gs.now.users++
	return t, gs.now.release, true
}

// abort gives up what is under way in the current generation.
func (gs *generations) abort() {
	gs.mu.Lock()
	defer gs.mu.Unlock()
	gs.now.abort()
}

// replace puts a new generation in the place of the current one.
func (gs *generations) replace(g *generation) {
	gs.mu.Lock()
	old := gs.now
	gs.now = g
	gs.mu.Unlock()
	old.retire()
}
