package doctor

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
)

// proxyTime bounds the look at one proxy.
const proxyTime = 30 * time.Second

// proxies looks whether each configured proxy takes requests from this host,
// once: without it all of its mail waits.
func proxies(ctx context.Context, cfg *config.Config) (all []finding.Finding) {
	tried := map[string]bool{}
	try := func(c *transport.Config) {
		if c.Proxy == nil || tried[c.Proxy.String()+" "+c.Proxy.User] {
			return
		}
		tried[c.Proxy.String()+" "+c.Proxy.User] = true
		one := *c
		one.Name, one.Overrides = config.DefaultTransport, nil
		alone := *cfg
		alone.Transports = map[string]*transport.Config{config.DefaultTransport: &one}
		ctx, cancel := context.WithTimeout(ctx, proxyTime)
		defer cancel()
		if err := policyd.CheckProxy(ctx, &alone); err != nil {
			all = append(all, fail("check that it is up, and user and password_file of proxy in mxpolicyd.yaml", "proxy %s: no mail can be sent through it: %v", c.Proxy, err))
			return
		}
		all = append(all, ok("proxy %s: takes connections", c.Proxy))
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Transports)) {
		try(cfg.Transports[name])
		for _, o := range cfg.Transports[name].Overrides {
			try(o.Config)
		}
	}
	return all
}
