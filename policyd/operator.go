package policyd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
)

// operator answers the administrator's questions about a daemon.
type operator struct{ *Daemon }

// standing is what became of configurations so far.
type standing struct {
	started  time.Time
	read     time.Time // the one in force
	rejected time.Time // the last wrong one since; zero: none
}

// Explain explains a domain by a configuration alone, without a daemon. What a
// daemon keeps on disk is read and left as it is; with no daemon nothing is
// known of dead hosts, limits and idle connections. The error is for the
// administrator.
func Explain(ctx context.Context, cfg *config.Config, name, domain string, depth transport.Depth) (*admin.Explanation, error) {
	ws := &ways{log: slog.New(slog.DiscardHandler), live: map[*way]struct{}{}, tallies: newTallies(), readOnly: true}
	defer ws.end()
	if err := ws.replace(cfg); err != nil {
		return nil, err
	}
	return ws.explain(ctx, name, domain, depth)
}

// explain has a transport explain a domain; without a name, the default one.
func (ws *ways) explain(ctx context.Context, name, domain string, depth transport.Depth) (*admin.Explanation, error) {
	w, err := ws.hand(cmp.Or(name, config.DefaultTransport))
	if err != nil {
		return nil, err
	}
	defer ws.release(&w.part)
	e := w.transport.Explain(ctx, domain, depth)
	return admin.NewExplanation(&e, depth), nil
}

// hand gives a transport by name, to be released.
func (ws *ways) hand(name string) (*way, error) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if ws.now == nil || ws.now.ways[name] == nil {
		return nil, fmt.Errorf("transport %q: %w", name, admin.ErrUnknown)
	}
	w := ws.now.ways[name]
	ws.hold(&w.part)
	return w, nil
}

// all gives every transport, those of former configurations too, and what is
// to be called when they are done with.
func (ws *ways) all() (list []*way, release func()) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.live {
		if ws.holdUsed(&w.part) {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b *way) int { return strings.Compare(a.made.cfg.Name, b.made.cfg.Name) })
	return list, func() {
		for _, w := range list {
			ws.release(&w.part)
		}
	}
}

// inForce gives the resolver and the MTA-STS caches of the configuration in
// force, each once, held by its transports.
func (ws *ways) inForce(list []*way) (r *asker, caches []*cache) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for _, w := range list {
		if ws.now == nil || ws.now.ways[w.made.cfg.Name] != w {
			continue
		}
		r = w.resolver
		for _, c := range w.caches {
			if !slices.Contains(caches, c) {
				caches = append(caches, c)
			}
		}
	}
	return r, caches
}

// Explain implements admin.Daemon.
func (o operator) Explain(ctx context.Context, name, domain string, depth transport.Depth) (*admin.Explanation, error) {
	e, err := o.ways.explain(ctx, name, domain, depth)
	if err == nil {
		e.Running = true
	}
	return e, err
}

// Status implements admin.Daemon.
func (o operator) Status() admin.Status {
	list, release := o.ways.all()
	defer release()
	r, caches := o.ways.inForce(list)
	o.mu.Lock()
	s := admin.Status{
		Version: o.options.Version, PID: os.Getpid(), UID: os.Getuid(),
		Started: o.standing.started.UTC(), Configured: o.standing.read.UTC(),
	}
	if at := o.standing.rejected; !at.IsZero() {
		at = at.UTC()
		s.Rejected = &at
	}
	o.mu.Unlock()
	s.MaxDeliveries, s.Messages, s.Overdue = o.places, o.desk.UnderWay(), o.desk.Overdue()
	s.Resolver.Servers, s.Policies, s.Transports = []string{}, []admin.Policies{}, []admin.Transport{}
	if r != nil {
		st := r.Stats()
		s.Resolver = admin.Resolver{Servers: r.cfg.Servers, Entries: st.Entries, Hits: st.Hits, Misses: st.Misses, Refreshes: st.Refreshes, Failures: st.Failures}
	}
	for _, c := range caches {
		st := c.Stats()
		p := admin.Policies{Dir: c.cfg.Dir, Domains: st.Domains, Lookups: st.Lookups, Hits: st.Hits, Fetches: st.Fetches, Refreshes: st.Refreshes, Store: st.StoreFailures}
		for _, n := range st.Failures {
			p.Failures += n
		}
		s.Policies = append(s.Policies, p)
	}
	for _, w := range list {
		t := admin.NewTransport(w.transport.Snapshot())
		t.Former = !o.ways.isNow(w)
		s.Transports = append(s.Transports, t)
	}
	s.Traces = admin.NewTraces(o.ways.traces.List())
	return s
}

func (ws *ways) isNow(w *way) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	return ws.now != nil && ws.now.ways[w.made.cfg.Name] == w
}

// CacheList implements admin.Daemon.
func (o operator) CacheList() (admin.CacheList, error) {
	l := admin.CacheList{Policies: []admin.CachedPolicy{}, Names: []admin.CachedName{}}
	err := o.caches(func(r *asker, caches []*cache) (err error) {
		l.Names = admin.NewNames(r.Cached())
		for _, c := range caches {
			domains, failed := c.Domains()
			err = errors.Join(err, failed)
			for _, domain := range domains {
				entry, failed := c.Cached(domain)
				err = errors.Join(err, failed)
				if failed == nil && entry.State == policycache.HasPolicy {
					l.Policies = append(l.Policies, admin.NewCachedPolicy(&entry, c.cfg.Dir))
				}
			}
		}
		return err
	})
	return l, err
}

// Cached implements admin.Daemon.
func (o operator) Cached(domain string) (admin.Cached, error) {
	d := admin.Cached{Domain: domain, Policies: []admin.CachedPolicy{}, Answers: []admin.Answer{}}
	err := o.caches(func(r *asker, caches []*cache) (err error) {
		for _, a := range r.Cached() {
			if name := strings.TrimSuffix(a.Name, "."); name == domain || strings.HasSuffix(name, "."+domain) {
				d.Answers = append(d.Answers, admin.NewAnswer(&a))
			}
		}
		slices.SortFunc(d.Answers, func(a, b admin.Answer) int {
			return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
		})
		for _, c := range caches {
			entry, failed := c.Cached(domain)
			if failed == nil && (entry.State != policycache.Failed || entry.Err != nil) {
				d.Policies = append(d.Policies, admin.NewCachedPolicy(&entry, c.cfg.Dir))
			}
			err = errors.Join(err, failed)
		}
		return err
	})
	return d, err
}

// Flush implements admin.Daemon.
func (o operator) Flush(domain string) (f admin.Flushed, err error) {
	err = o.caches(func(r *asker, caches []*cache) (err error) {
		f.Answers = r.Flush(domain)
		for _, c := range caches {
			domains, failed := c.Domains()
			err = errors.Join(err, failed)
			if domain != "" && !slices.Contains(domains, domain) {
				domains = append(domains, domain) // what failed is forgotten too
			}
			for _, name := range domains {
				if domain != "" && name != domain && !strings.HasSuffix(name, "."+domain) {
					continue
				}
				entry, _ := c.Cached(name)
				err = errors.Join(err, c.Flush(name))
				if entry.State == policycache.HasPolicy {
					f.Policies++
				}
			}
		}
		return err
	})
	return f, err
}

// caches has do look at the caches of the configuration in force.
func (o operator) caches(do func(r *asker, caches []*cache) error) error {
	list, release := o.ways.all()
	defer release()
	r, caches := o.ways.inForce(list)
	if r == nil {
		return errors.New("mxpolicyd is stopping")
	}
	return do(r, caches)
}
