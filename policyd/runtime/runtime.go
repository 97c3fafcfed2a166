// Package runtime is what one configuration is made into: live transports, the
// resolver that they ask, the MTA-STS caches that they share.
//
// A Runtime has one generation in force, and Apply puts another one in its
// place: all of it, or on error none of it. What the new configuration does not
// change is the same thing as before, with its caches, limits and idle
// connections; what it changes lasts until the deliveries that began with it
// are over. So everything here is counted by its users (refcount.go): the
// generation in force, deliveries and look-ups under way, and whatever is made
// of it. A transport uses its resolver and its caches, a cache its resolver.
//
// What ends takes nothing away from what the daemon has counted: its counters
// go into the totals (totals.go), so that no total goes back because of a
// reload.
//
// The package opens no socket, writes no log of its own beyond what a cache
// directory asks for, and knows nothing of who asks. Everything of it may be
// used by several goroutines; Apply and Close by one at a time.
package runtime

import (
	"cmp"
	"fmt"
	"log/slog"
	"reflect"
	"slices"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// maxIdle bounds the idle connections of all transports together: a quarter of
// the descriptors that the unit allows.
const maxIdle = 16384

// Options are what a Runtime is made of.
type Options struct {
	Logger *slog.Logger
	// ReadOnly leaves the disk as it is.
	ReadOnly bool
	// Observer gives who is told of the deliveries of a transport, which asks
	// that resolver; nil: nothing is.
	Observer func(name string, r *resolver.Resolver) func(*transport.Event)
	// Suspended is what no transport delivers; nil: nothing.
	Suspended *suspension.List
	// Failing remembers since when destinations fail; nil: no fallback relay is
	// used.
	Failing *fallback.Memory
	// Daily counts the messages of sources; nil: each transport does so by
	// itself.
	Daily *source.Daily
}

// Runtime gives out the transports of the configuration in force.
type Runtime struct {
	log       *slog.Logger
	readOnly  bool
	observer  func(name string, r *resolver.Resolver) func(*transport.Event)
	suspended *suspension.List
	failing   *fallback.Memory
	daily     *source.Daily
	pauses    *pause.Pauses
	load      *limit.Providers // at each provider
	traces    transport.Traces
	resources resources
	totals    *totals

	mu      sync.Mutex
	current *generation                 // nil: before Apply and after Close
	live    map[*liveTransport]struct{} // that have not ended
}

// generation is what one configuration was made into. It uses its resolver and
// its transports; these use what they need.
type generation struct {
	readFile   readFile
	resolver   *liveResolver
	receivers  *receivers
	transports map[string]*liveTransport
}

// New makes a Runtime without a configuration. It must be closed.
func New(o Options) *Runtime {
	return &Runtime{
		log: o.Logger, readOnly: o.ReadOnly, observer: o.Observer,
		suspended: o.Suspended, failing: o.Failing, daily: o.Daily, pauses: pause.New(time.Now), load: limit.NewProviders(limit.Pacing{}),
		totals: newTotals(), live: map[*liveTransport]struct{}{},
	}
}

// Traces are the traces of all transports, those of former configurations too.
func (rt *Runtime) Traces() *transport.Traces { return &rt.traces }

// Apply makes what a configuration says and puts it in the place of what there
// was. What stays the same is kept. On error nothing has changed; it is for the
// administrator.
func (rt *Runtime) Apply(cfg *config.Config) error {
	rt.mu.Lock()
	old := rt.current
	rt.mu.Unlock()
	if old == nil {
		old = &generation{}
	}
	// Only one is applied at a time, and nothing else releases the old one.
	g, err := rt.build(cfg, old)
	if err != nil {
		rt.releaseAll(g)
		return err
	}
	rt.mu.Lock()
	rt.current = g
	rt.mu.Unlock()
	rt.releaseAll(old)
	return nil
}

// build makes a generation; with an error it gives what it had made of it.
func (rt *Runtime) build(cfg *config.Config, old *generation) (*generation, error) {
	g := &generation{readFile: filesOf(cfg), transports: map[string]*liveTransport{}}
	var err error
	if g.resolver, err = rt.newResolver(cfg, old.resolver); err != nil {
		return g, err
	}
	if g.receivers, err = newReceivers(cfg, old.receivers); err != nil {
		return g, err
	}
	self, err := route.ThisHost()
	if err != nil {
		return g, fmt.Errorf("this host's addresses: %w", err)
	}
	self.Names = []string{cfg.Hostname}
	for name, c := range cfg.Transports {
		files, err := digest(c, g.readFile)
		if err != nil {
			return g, fmt.Errorf("transport %s: %w", name, err)
		}
		inputs := transportInputs{c, self, files, g.receivers}
		t := old.transports[name]
		if t != nil && t.resolver == g.resolver && reflect.DeepEqual(t.inputs, inputs) {
			rt.resources.acquire(&t.resource)
			t.transport.RetryLogins()
		} else if t, err = rt.newTransport(inputs, maxIdle/len(cfg.Transports), g, old); err != nil {
			return g, fmt.Errorf("transport %s: %w", name, err)
		}
		g.transports[name] = t
	}
	return g, nil
}

// readFile gives the contents of a file that a configuration names.
type readFile func(name string) ([]byte, error)

// filesOf gives the files of a configuration as they were when it was read, so
// that applying it waits for no disk; of one whose files were left unread, what
// they hold now.
func filesOf(cfg *config.Config) readFile {
	if cfg.Files == nil {
		return config.ReadFile
	}
	return func(name string) ([]byte, error) {
		if text, ok := cfg.Files[name]; ok {
			return text, nil
		}
		return nil, fmt.Errorf("%s was not read with the configuration", name)
	}
}

// releaseAll releases what a generation uses.
func (rt *Runtime) releaseAll(g *generation) {
	for _, t := range g.transports {
		rt.resources.release(&t.resource)
	}
	if g.resolver != nil {
		rt.resources.release(&g.resolver.resource)
	}
}

// Acquire gives a transport of the configuration in force by its name, to be
// released; ok is false when there is none.
func (rt *Runtime) Acquire(name string) (h Handle, ok bool) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.current == nil || rt.current.transports[name] == nil {
		return Handle{}, false
	}
	t := rt.current.transports[name]
	rt.resources.acquire(&t.resource)
	return rt.handle(t), true
}

// handle is a transport that was acquired.
func (rt *Runtime) handle(t *liveTransport) Handle {
	return Handle{
		Name: t.inputs.cfg.Name, Transport: t.transport, ReplyTimeout: t.replyTimeout,
		Former:  rt.current == nil || rt.current.transports[t.inputs.cfg.Name] != t,
		Release: func() { rt.resources.release(&t.resource) },
	}
}

// InUse is everything that is in use at a moment.
type InUse struct {
	// Transports are all of them by name, those of former configurations too.
	Transports []Handle
	// Resolver, which asks Servers, and the MTA-STS caches are those of the
	// configuration in force; nil after Close.
	Resolver *resolver.Resolver
	Servers  []string
	Policies []Policies
}

// Release lets go of all of it, which lasts until then.
func (u *InUse) Release() {
	for _, t := range u.Transports {
		t.Release()
	}
}

// InUse gives everything that is in use, to be released.
func (rt *Runtime) InUse() *InUse {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	u := &InUse{}
	for t := range rt.live {
		if !rt.resources.tryAcquire(&t.resource) {
			continue
		}
		h := rt.handle(t)
		u.Transports = append(u.Transports, h)
		if h.Former {
			continue
		}
		u.Resolver, u.Servers = t.resolver.Resolver, t.resolver.cfg.Servers
		for _, c := range t.caches {
			if p := (Policies{c.Cache, c.cfg.Dir}); !slices.Contains(u.Policies, p) {
				u.Policies = append(u.Policies, p)
			}
		}
	}
	slices.SortFunc(u.Transports, func(a, b Handle) int { return cmp.Compare(a.Name, b.Name) })
	return u
}

// Abort gives up the deliveries under way, those of earlier configurations
// too.
func (rt *Runtime) Abort() {
	rt.mu.Lock()
	var all []*transport.Transport
	for t := range rt.live {
		all = append(all, t.transport)
	}
	rt.mu.Unlock()
	for _, t := range all {
		t.Abort()
	}
}

// Close lets everything go and waits until it has ended. Call it when no
// delivery is under way, and none will be.
func (rt *Runtime) Close() {
	rt.mu.Lock()
	g := rt.current
	rt.current = nil
	rt.mu.Unlock()
	if g != nil {
		rt.releaseAll(g)
	}
	rt.resources.wait()
}
