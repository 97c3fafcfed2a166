package policyd

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/socketmap"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// maxIdle bounds the idle connections of all transports together: a quarter of
// the descriptors that the unit allows.
const maxIdle = 16384

// generation is what one configuration was made into. It holds its resolver
// and its transports; these hold what they need.
type generation struct {
	resolver *asker
	ways     map[string]*way
}

// asker is a resolver.
type asker struct {
	part
	cfg resolver.Config
	*resolver.Resolver
}

// way is a transport, with the idle connections that it alone uses.
type way struct {
	part
	made      making
	resolver  *asker
	caches    []*cache
	idle      *transport.Idle
	transport *transport.Transport
}

// making is all that a transport depends on beside its resolver.
type making struct {
	cfg   *transport.Config
	self  route.Self
	files [sha256.Size]byte // a digest of the files that cfg names
}

// ways gives out the transports of the configuration in force.
type ways struct {
	parts
	log      *slog.Logger
	traces   transport.Traces
	readOnly bool // nothing is written to disk
	tallies  *tallies
	// observer gives who is told of a transport's deliveries; nil: nobody is.
	observer func(name string, r *resolver.Resolver) func(*transport.Event)

	mu   sync.Mutex
	now  *generation       // nil when it is all over
	live map[*way]struct{} // that have not ended
}

// replace makes what a configuration says and puts it in the place of what
// there was. What stays the same is kept. On error nothing has changed; it is
// for the administrator.
func (ws *ways) replace(cfg *config.Config) error {
	ws.mu.Lock()
	old := ws.now
	ws.mu.Unlock()
	if old == nil {
		old = &generation{}
	}
	// Only one reload is made at a time, and nobody else lets old go.
	g, err := ws.build(cfg, old)
	if err != nil {
		ws.let(g)
		return err
	}
	ws.mu.Lock()
	ws.now = g
	ws.mu.Unlock()
	ws.let(old)
	return nil
}

// build makes a generation; with an error it gives what it had made of it.
func (ws *ways) build(cfg *config.Config, old *generation) (*generation, error) {
	g := &generation{ways: map[string]*way{}}
	var err error
	if g.resolver, err = ws.asker(cfg, old.resolver); err != nil {
		return g, err
	}
	self, err := route.ThisHost()
	if err != nil {
		return g, fmt.Errorf("this host's addresses: %w", err)
	}
	for name, c := range cfg.Transports {
		files, err := digest(c)
		if err != nil {
			return g, fmt.Errorf("transport %s: %w", name, err)
		}
		made := making{c, self, files}
		w := old.ways[name]
		if w != nil && w.resolver == g.resolver && reflect.DeepEqual(w.made, made) {
			ws.hold(&w.part)
		} else if w, err = ws.make(made, maxIdle/len(cfg.Transports), g, old); err != nil {
			return g, fmt.Errorf("transport %s: %w", name, err)
		}
		g.ways[name] = w
	}
	return g, nil
}

// let lets a generation go.
func (ws *ways) let(g *generation) {
	for _, w := range g.ways {
		ws.release(&w.part)
	}
	if g.resolver != nil {
		ws.release(&g.resolver.part)
	}
}

// asker makes the resolver, or holds the old one when it would be the same.
func (ws *ways) asker(cfg *config.Config, old *asker) (*asker, error) {
	settings, err := ResolverConfig(cfg, "/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	settings.Logger = ws.log
	if old != nil && reflect.DeepEqual(old.cfg, settings) {
		ws.hold(&old.part)
		return old, nil
	}
	r, err := resolver.New(settings)
	if err != nil {
		return nil, err
	}
	a := &asker{cfg: settings, Resolver: r}
	a.end = func() {
		r.Close()
		ws.tallies.askerEnds(a)
	}
	enter(ws.tallies, ws.tallies.askers, a)
	ws.hold(&a.part)
	return a, nil
}

// ResolverConfig says whom a configuration has asked, and whom it believes.
// Where it does not say, the file in the form of resolv.conf(5) does; the error
// is that of reading it.
func ResolverConfig(cfg *config.Config, resolvConf string) (resolver.Config, error) {
	servers := cfg.DNS.Servers
	if len(servers) == 0 {
		var err error
		if servers, err = resolver.FromResolvConf(resolvConf); err != nil {
			return resolver.Config{}, fmt.Errorf("dns.servers is not set and %s gives none: %w", resolvConf, err)
		}
	}
	return resolver.Config{Servers: servers, TrustAD: trust(cfg.DNS.TrustAD), Timeout: cfg.DNS.Timeout, Attempts: cfg.DNS.Attempts}, nil
}

func trust(t config.TrustAD) resolver.TrustAD {
	switch t {
	case config.TrustAll:
		return resolver.TrustAll
	case config.TrustNone:
		return resolver.TrustNone
	}
	return resolver.TrustLoopback
}

// make makes a transport of generation g with room for so many idle
// connections.
func (ws *ways) make(made making, idle int, g, old *generation) (*way, error) {
	w := &way{made: made, resolver: g.resolver, idle: transport.NewIdle(max(idle, 1))}
	w.end = func() {
		w.idle.Stop() // before the transport, which waits for the goodbyes
		if w.transport != nil {
			w.transport.Close()
		}
		ws.tallies.wayEnds(w)
		ws.mu.Lock()
		defer ws.mu.Unlock()
		delete(ws.live, w)
	}
	ws.hold(&w.part)
	ws.need(&w.part, &g.resolver.part)
	var err error
	w.transport, err = transport.New(made.cfg, transport.Deps{
		Resolver: g.resolver, Self: made.self, Idle: w.idle, Traces: &ws.traces, Logger: ws.log, Observe: ws.observe(made.cfg.Name, g.resolver),
		Policies: func(cfg *transport.MTASTS, roots *x509.CertPool) (transport.Policies, error) {
			c := ws.cacheFor(w, *cfg, roots, g, old)
			w.caches = append(w.caches, c)
			ws.need(&w.part, &c.part)
			return c.Cache, nil
		},
	})
	if err != nil {
		ws.release(&w.part)
		return nil, err
	}
	enter(ws.tallies, ws.tallies.ways, w)
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.live[w] = struct{}{}
	return w, nil
}

// observe gives who is told of a transport's deliveries.
func (ws *ways) observe(name string, a *asker) func(*transport.Event) {
	if ws.observer == nil {
		return nil
	}
	return ws.observer(name, a.Resolver)
}

// take finds a transport by name and holds it; nil: there is none.
func (ws *ways) take(name string) *way {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.now == nil || ws.now.ways[name] == nil {
		return nil
	}
	w := ws.now.ways[name]
	ws.hold(&w.part)
	return w
}

// use finds a transport by name, for one delivery.
func (ws *ways) use(name string) (intake.Transport, bool) {
	w := ws.take(name)
	if w == nil {
		return intake.Transport{}, false
	}
	return intake.Transport{
		Deliverer: w.transport,
		Release:   func() { ws.release(&w.part) },
		Overtime:  overtime(w.made.cfg),
	}, true
}

// look finds a transport by name, for one look-up.
func (ws *ways) look(name string) (socketmap.Transport, bool) {
	w := ws.take(name)
	if w == nil {
		return socketmap.Transport{}, false
	}
	return socketmap.Transport{PlanSource: w.transport, Release: func() { ws.release(&w.part) }}, true
}

// overtime is how long a server's last answer may be waited for.
func overtime(cfg *transport.Config) time.Duration {
	longest := cfg.SubmissionTimeout
	for _, o := range cfg.Overrides {
		longest = max(longest, overtime(o.Config))
	}
	return longest
}

// abort gives up the deliveries under way, those of earlier configurations
// too.
func (ws *ways) abort() {
	ws.mu.Lock()
	var all []*transport.Transport
	for w := range ws.live {
		all = append(all, w.transport)
	}
	ws.mu.Unlock()
	for _, t := range all {
		t.Abort()
	}
}

// end lets everything go and waits until it has ended. Call it when no delivery
// is under way, and none will be.
func (ws *ways) end() {
	ws.mu.Lock()
	g := ws.now
	ws.now = nil
	ws.mu.Unlock()
	if g != nil {
		ws.let(g)
	}
	ws.wait()
}

// digest reads the files that a transport and its overrides name, so that a
// certificate that was renewed in place counts as a change.
func digest(cfg *transport.Config) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	add := func(c *transport.Config) {
		for _, name := range append([]string{c.TLSClient.Cert, c.TLSClient.Key}, c.TLSClient.RootCA...) {
			if name == "" {
				continue
			}
			text, failed := os.ReadFile(name)
			err = errors.Join(err, failed)
			one := sha256.Sum256(text)
			h.Write(one[:])
		}
	}
	add(cfg)
	for _, o := range cfg.Overrides {
		add(o.Config)
	}
	return [sha256.Size]byte(h.Sum(nil)), err
}
