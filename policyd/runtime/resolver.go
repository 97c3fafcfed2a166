package runtime

import (
	"fmt"
	"reflect"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// liveResolver is a resolver in use.
type liveResolver struct {
	resource
	*resolver.Resolver
	cfg resolver.Config
}

// newResolver makes the resolver, or uses the old one when it would be the
// same.
func (rt *Runtime) newResolver(cfg *config.Config, old *liveResolver) (*liveResolver, error) {
	settings, err := ResolverConfig(cfg, "/etc/resolv.conf")
	if err != nil {
		return nil, err
	}
	settings.Logger = rt.log
	if old != nil && reflect.DeepEqual(old.cfg, settings) {
		rt.resources.acquire(&old.resource)
		return old, nil
	}
	r, err := resolver.New(settings)
	if err != nil {
		return nil, err
	}
	live := &liveResolver{Resolver: r, cfg: settings}
	live.end = func() {
		r.Close()
		rt.totals.keepResolver(live)
	}
	add(rt.totals, rt.totals.liveResolvers, live)
	rt.resources.acquire(&live.resource)
	return live, nil
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
