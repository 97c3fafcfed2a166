package runtime

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts/fetch"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
)

// ramPolicies bounds the policies that are kept in memory only, in bytes.
const ramPolicies = 64 << 20

// Policies is an MTA-STS cache, for who wants to look at it.
type Policies struct {
	*policycache.Cache
	Dir string // on disk; empty: in memory alone
}

// policyCache is an MTA-STS cache in use. Transports whose policies are kept in
// the same place, and fetched from web servers that the same roots vouch for,
// share one.
type policyCache struct {
	resource
	*policycache.Cache
	cfg      transport.MTASTS
	resolver *liveResolver
	roots    *x509.CertPool
}

// policyCacheFor gives a transport that is being made an MTA-STS cache: one
// that it, another transport or the configuration before has, or a new one.
func (rt *Runtime) policyCacheFor(t *liveTransport, cfg transport.MTASTS, roots *x509.CertPool, others ...*generation) *policyCache {
	known := slices.Clone(t.caches)
	for _, g := range others {
		for _, other := range g.transports {
			known = append(known, other.caches...)
		}
	}
	for _, c := range known {
		if c.resolver == t.resolver && c.cfg == cfg && c.roots.Equal(roots) {
			return c
		}
	}
	return rt.newPolicyCache(t.resolver, cfg, roots)
}

// newPolicyCache makes an MTA-STS cache.
func (rt *Runtime) newPolicyCache(r *liveResolver, cfg transport.MTASTS, roots *x509.CertPool) *policyCache {
	var kept store.Store = store.NewRAM(ramPolicies)
	if cfg.OnDisk {
		fs, err := store.NewFS(store.FSConfig{Dir: cfg.Dir, ReadOnly: rt.readOnly})
		if err != nil {
			// Memory goes on alone until somebody mends the directory.
			rt.log.Error("the MTA-STS cache directory cannot be used", "error", err)
		}
		kept = fs
	}
	p := policycache.New(policycache.Config{
		Resolver: texts{r.Resolver},
		Fetcher: fetch.New(fetch.Config{
			Resolver: addresses{r.Resolver}, Dial: (&net.Dialer{}).DialContext, Roots: roots, Port: cfg.HTTPSPort,
		}),
		Store: kept,
		Log:   rt.log,
	})
	c := &policyCache{Cache: p, cfg: cfg, resolver: r, roots: roots}
	c.end = func() {
		p.Close()
		rt.totals.keepPolicyCache(c)
	}
	add(rt.totals, rt.totals.livePolicies, c)
	rt.resources.dependOn(&c.resource, &r.resource)
	return c
}

// texts looks TXT records up.
type texts struct{ *resolver.Resolver }

// TXT gives the bytes of each record. A failure holds for as long as the
// resolver says; its own silence, which its first answer ends, may be asked for
// again at once.
func (t texts) TXT(ctx context.Context, name string) (policycache.Answer, error) {
	a, err := t.LookupOnce(ctx, name, resolver.TypeTXT)
	if err != nil {
		expires := time.Now()
		var failed *resolver.Error
		if errors.As(err, &failed) && failed.Holds().After(expires) {
			expires = failed.Holds()
		}
		return policycache.Answer{Expires: expires}, err
	}
	return policycache.Answer{Found: a.Existence == resolver.Exists, Texts: a.Texts(), Expires: a.Expires}, nil
}

// addresses looks a web host's addresses up, as those of a mail server are: one
// family's failure is no matter as long as the other has addresses, nor is it
// waited for then.
type addresses struct{ *resolver.Resolver }

var errNoAddress = errors.New("the policy host has no address")

// Addresses gives IPv4 and IPv6 addresses.
func (r addresses) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	found, err := route.New(route.Config{Resolver: r.Resolver}).Addresses(ctx, route.Host{Name: host})
	var s *status.Error
	switch {
	case err == nil:
		slices.SortStableFunc(found.Addrs, func(a, b netip.Addr) int { return a.BitLen() - b.BitLen() })
		return found.Addrs, nil
	case errors.As(err, &s) && s.Err == nil:
		return nil, fmt.Errorf("%s: %w", host, errNoAddress)
	}
	return nil, err
}
