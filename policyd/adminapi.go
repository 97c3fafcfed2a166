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
	"github.com/mxpipe/mxpipe/policyd/listen"
	"github.com/mxpipe/mxpipe/policyd/runtime"
	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/suspension"
)

// adminAPI answers the administrator's questions about a daemon.
type adminAPI struct{ daemon *Daemon }

// configState is what became of configurations so far.
type configState struct {
	started  time.Time
	read     time.Time // the one in force
	rejected time.Time // the last wrong one since; zero: none
	reading  time.Time // since when one is being read; zero: none is
}

// Check makes what a configuration says, without a daemon, and lets it go: an
// error is why no daemon could be made of it here. Nothing is written, no
// socket opened and nothing asked.
func Check(cfg *config.Config) error {
	rt := runtime.New(runtime.Options{Logger: slog.New(slog.DiscardHandler), ReadOnly: true})
	defer rt.Close()
	if err := listen.Check(&cfg.Listen); err != nil {
		return err
	}
	return rt.Apply(cfg)
}

// Explain explains a domain by a configuration alone, without a daemon. What a
// daemon keeps on disk is read and left as it is; with no daemon nothing is
// known of dead hosts, limits and idle connections. The error is for the
// administrator.
func Explain(ctx context.Context, cfg *config.Config, name string, q *transport.Question) (*admin.Explanation, error) {
	rt := runtime.New(runtime.Options{Logger: slog.New(slog.DiscardHandler), ReadOnly: true})
	defer rt.Close()
	if err := rt.Apply(cfg); err != nil {
		return nil, err
	}
	return explain(ctx, rt, name, q)
}

// CheckProxy tries whether the proxy of a configuration's default transport
// takes requests from this host; nil says that it does, or that there is none.
func CheckProxy(ctx context.Context, cfg *config.Config) error {
	rt := runtime.New(runtime.Options{Logger: slog.New(slog.DiscardHandler), ReadOnly: true})
	defer rt.Close()
	if err := rt.Apply(cfg); err != nil {
		return err
	}
	h, ok := rt.Acquire(config.DefaultTransport)
	if !ok {
		return nil // there is always one
	}
	defer h.Release()
	return h.Transport.CheckProxy(ctx)
}

// explain has a transport explain a domain; without a name, the default one.
func explain(ctx context.Context, rt *runtime.Runtime, name string, q *transport.Question) (*admin.Explanation, error) {
	name = cmp.Or(name, config.DefaultTransport)
	h, ok := rt.Acquire(name)
	if !ok {
		return nil, fmt.Errorf("transport %q: %w", name, admin.ErrUnknown)
	}
	defer h.Release()
	e := h.Transport.Explain(ctx, q)
	return admin.NewExplanation(&e, q), nil
}

// Explain implements admin.Daemon.
func (a adminAPI) Explain(ctx context.Context, name string, q *transport.Question) (*admin.Explanation, error) {
	e, err := explain(ctx, a.daemon.runtime, name, q)
	if err == nil {
		e.Running, e.Warnings = true, a.daemon.currentWarnings()
	}
	return e, err
}

// Status implements admin.Daemon.
func (a adminAPI) Status() admin.Status {
	d := a.daemon
	inUse := d.runtime.InUse()
	defer inUse.Release()
	d.mu.Lock()
	s := admin.Status{
		Version: d.options.Version, PID: os.Getpid(), UID: os.Getuid(),
		Started: d.state.started.UTC(), Configured: d.state.read.UTC(),
	}
	if at := d.state.rejected; !at.IsZero() {
		at = at.UTC()
		s.Rejected = &at
	}
	d.mu.Unlock()
	s.MaxDeliveries, s.Messages, s.Overdue = d.slots, d.dispatcher.UnderWay(), d.dispatcher.Overdue()
	s.Uploads = d.dispatcher.Uploading()
	totals := d.runtime.Totals()
	s.Memory = d.memory(&totals)
	s.Resolver.Servers, s.Policies, s.Transports = []string{}, []admin.Policies{}, []admin.Transport{}
	if inUse.Resolver != nil {
		st := inUse.Resolver.Stats()
		s.Resolver = admin.Resolver{Servers: inUse.Servers, Entries: st.Entries, Hits: st.Hits, Misses: st.Misses, Refreshes: st.Refreshes, Failures: st.Failures, Bytes: st.Bytes, MaxBytes: st.MaxBytes}
	}
	for _, c := range inUse.Policies {
		st := c.Stats()
		p := admin.Policies{Dir: c.Dir, Domains: st.Domains, Lookups: st.Lookups, Hits: st.Hits, Fetches: st.Fetches, Refreshes: st.Refreshes, Store: st.StoreFailures}
		for _, n := range st.Failures {
			p.Failures += n
		}
		s.Policies = append(s.Policies, p)
	}
	for _, h := range inUse.Transports {
		t := admin.NewTransport(h.Transport.Snapshot())
		t.Former = h.Former
		s.Transports = append(s.Transports, t)
	}
	s.Traces = admin.NewTraces(d.runtime.Traces().List())
	s.Warnings, s.Suspended = d.currentWarnings(), admin.NewSuspended(d.suspended.All())
	s.Pauses = admin.NewPauses(d.runtime.Pauses().List())
	past := d.history.Stats()
	s.History = admin.HistorySize{Entries: past.Entries, MaxEntries: past.MaxEntries, Bytes: past.Bytes, MaxBytes: past.MaxBytes}
	if oldest := past.Oldest.UTC(); !oldest.IsZero() {
		s.History.Oldest = &oldest
	}
	if a.daemon.tlsReports != nil {
		r := a.daemon.tlsReports.Stats()
		s.TLSReports = &admin.TLSReports{Domains: r.Domains, Sent: r.Sent, Failed: r.Failed, Waiting: r.Waiting, Lost: r.Dropped}
	}
	return s
}

// CacheList implements admin.Daemon.
func (a adminAPI) CacheList() (admin.CacheList, error) {
	l := admin.CacheList{Policies: []admin.CachedPolicy{}, Names: []admin.CachedName{}}
	err := a.caches(func(r *resolver.Resolver, caches []runtime.Policies) (err error) {
		l.Names = admin.NewNames(r.Cached(), r.CachedFailures())
		for _, c := range caches {
			domains, failed := c.Domains()
			err = errors.Join(err, failed)
			for _, domain := range domains {
				entry, failed := c.Cached(domain)
				err = errors.Join(err, failed)
				if failed == nil && entry.State == policycache.HasPolicy {
					l.Policies = append(l.Policies, admin.NewCachedPolicy(&entry, c.Dir))
				}
			}
		}
		return err
	})
	return l, err
}

// Cached implements admin.Daemon.
func (a adminAPI) Cached(domain string) (admin.Cached, error) {
	d := admin.Cached{Domain: domain, Policies: []admin.CachedPolicy{}, Answers: []admin.Answer{}}
	err := a.caches(func(r *resolver.Resolver, caches []runtime.Policies) (err error) {
		for _, answer := range r.Cached() {
			if name := strings.TrimSuffix(answer.Name, "."); name == domain || strings.HasSuffix(name, "."+domain) {
				d.Answers = append(d.Answers, admin.NewAnswer(&answer))
			}
		}
		for _, failure := range r.CachedFailures() {
			if name := strings.TrimSuffix(failure.Name, "."); name == domain || strings.HasSuffix(name, "."+domain) {
				d.Answers = append(d.Answers, admin.NewFailure(failure))
			}
		}
		slices.SortFunc(d.Answers, func(a, b admin.Answer) int {
			return cmp.Or(cmp.Compare(len(a.Name), len(b.Name)), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Type, b.Type))
		})
		for _, c := range caches {
			entry, failed := c.Cached(domain)
			if failed == nil && (entry.State != policycache.Failed || entry.Err != nil) {
				d.Policies = append(d.Policies, admin.NewCachedPolicy(&entry, c.Dir))
			}
			err = errors.Join(err, failed)
		}
		return err
	})
	return d, err
}

// Flush implements admin.Daemon.
func (a adminAPI) Flush(domain string) (f admin.Flushed, err error) {
	err = a.caches(func(r *resolver.Resolver, caches []runtime.Policies) (err error) {
		f.Answers = r.Flush(domain)
		for _, c := range caches {
			domains, failed := c.Domains()
			err = errors.Join(err, failed)
			if domain != "" && !slices.Contains(domains, domain) {
				// what failed is forgotten too
				domains = append(domains, domain)
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
	inUse := a.daemon.runtime.InUse()
	defer inUse.Release()
	for _, held := range inUse.Transports {
		f.Hellos += held.Transport.FlushHellos(func(host string) bool {
			return domain == "" || host == domain || strings.HasSuffix(host, "."+domain)
		})
	}
	return f, err
}

// caches has do look at the caches of the configuration in force.
func (a adminAPI) caches(do func(r *resolver.Resolver, caches []runtime.Policies) error) error {
	inUse := a.daemon.runtime.InUse()
	defer inUse.Release()
	if inUse.Resolver == nil {
		return errors.New("mxpolicyd is stopping")
	}
	return do(inUse.Resolver, inUse.Policies)
}

// History implements admin.Daemon.
func (a adminAPI) History(q admin.HistoryQuery) admin.History {
	return admin.NewHistory(a.daemon.history, q, time.Now())
}

// Providers implements admin.Daemon.
func (a adminAPI) Providers(host string) admin.ProviderList {
	table := a.daemon.runtime.Providers()
	switch {
	case table == nil:
		return admin.NewProviders(nil)
	case host == "":
		return admin.NewProviders(table.List())
	}
	return admin.NewProviders([]provider.Provider{table.Of(strings.ToLower(strings.TrimSuffix(host, ".")))})
}

// Suspended implements admin.Daemon.
func (a adminAPI) Suspended() admin.SuspendedList {
	return admin.SuspendedList{Suspended: admin.NewSuspended(a.daemon.suspended.All())}
}

// Suspend implements admin.Daemon.
func (a adminAPI) Suspend(name string, lasts time.Duration, reason string) error {
	target, err := a.target(name)
	if err != nil {
		return err
	}
	var until time.Time
	if lasts > 0 {
		until = time.Now().Add(lasts)
	}
	if err := a.daemon.suspended.Suspend(target, until, reason); err != nil {
		return err
	}
	a.daemon.log.Warn("suspended", "target", target.String(), "text", reason)
	return nil
}

// Resume implements admin.Daemon.
func (a adminAPI) Resume(name string) error {
	target, err := a.target(name)
	if err != nil {
		return err
	}
	was, err := a.daemon.suspended.Resume(target)
	if err == nil && !was {
		err = fmt.Errorf("%s is not suspended: %w", target, admin.ErrUnknown)
	}
	if err == nil {
		a.daemon.log.Warn("resumed", "target", target.String())
	}
	return err
}

// target reads what the administrator calls a target: provider:NAME,
// transport:NAME, a domain, or a word without a dot, which is a provider of the
// configuration, else a transport.
func (a adminAPI) target(name string) (suspension.Target, error) {
	kind, rest, ok := strings.Cut(name, ":")
	switch {
	case ok && kind == string(suspension.Provider) && rest != "":
		return suspension.Target{Kind: suspension.Provider, Name: rest}, nil
	case !ok && !strings.Contains(name, ".") && a.isConfigured(name):
		return suspension.Target{Kind: suspension.Provider, Name: name}, nil
	case ok && kind == string(suspension.Transport), !ok && !strings.Contains(name, "."):
		if !ok {
			rest = name
		}
		if a.daemon.current().Transports[rest] == nil {
			return suspension.Target{}, fmt.Errorf("transport %q: %w", rest, admin.ErrUnknown)
		}
		return suspension.Target{Kind: suspension.Transport, Name: rest}, nil
	}
	domain, err := address.ASCIIDomain(name)
	if err != nil {
		return suspension.Target{}, fmt.Errorf("%q is no domain: %w", name, admin.ErrUnknown)
	}
	return suspension.Target{Kind: suspension.Domain, Name: domain}, nil
}

// isConfigured reports whether a name is that of a provider of the
// configuration.
func (a adminAPI) isConfigured(name string) bool {
	table := a.daemon.runtime.Providers()
	if table == nil {
		return false
	}
	p, ok := table.Named(name)
	return ok && p.Origin == provider.Configured
}

// errNoReports says that there is nothing to ask for.
var errNoReports = fmt.Errorf("no TLS reports are sent; tlsrpt.report in the configuration has them sent: %w", admin.ErrUnknown)

// Reports implements admin.Daemon.
func (a adminAPI) Reports() ([]tlsreport.Listed, error) {
	if a.daemon.tlsReports == nil {
		return nil, errNoReports
	}
	return a.daemon.tlsReports.List(), nil
}

// Report implements admin.Daemon.
func (a adminAPI) Report(domain string, day time.Time) (*tlsreport.Report, error) {
	if a.daemon.tlsReports == nil {
		return nil, errNoReports
	}
	r, err := a.daemon.tlsReports.Show(domain, day)
	if errors.Is(err, tlsreport.ErrNothing) {
		err = fmt.Errorf("%w: %w", err, admin.ErrUnknown)
	}
	return r, err
}

// SendReport implements admin.Daemon.
func (a adminAPI) SendReport(ctx context.Context, domain string) error {
	if a.daemon.tlsReports == nil {
		return errNoReports
	}
	return a.daemon.tlsReports.SendNow(ctx, domain)
}
