package doctor

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// relays connects to each configured relay, and logs in there, once: a login
// that fails has all its mail wait.
func relays(ctx context.Context, cfg *config.Config) (all []finding.Finding) {
	tried := map[string]bool{}
	try := func(c *transport.Config, r *relay.Relay) {
		if name := r.String() + " " + r.User; !tried[name] {
			tried[name] = true
			all = append(all, tryRelay(ctx, cfg, c, r))
		}
	}
	of := func(c *transport.Config) {
		if c.Relay != nil {
			try(c, c.Relay)
		}
		if c.FallbackRelay != nil {
			try(c, &c.FallbackRelay.Relay)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Transports)) {
		of(cfg.Transports[name])
		for _, o := range cfg.Transports[name].Overrides {
			of(o.Config)
		}
	}
	return all
}

// tryRelay tries one, with the settings of a transport or an override.
func tryRelay(ctx context.Context, cfg *config.Config, c *transport.Config, r *relay.Relay) finding.Finding {
	one := *c
	one.Name, one.Relay, one.FallbackRelay, one.Overrides = config.DefaultTransport, r, nil, nil
	alone := *cfg
	alone.Transports = map[string]*transport.Config{config.DefaultTransport: &one}
	e, err := policyd.Explain(ctx, &alone, config.DefaultTransport, &transport.Question{Domain: anywhere, Depth: transport.Connect})
	switch {
	case err != nil:
		return fail("correct the relay in mxpolicyd.yaml", "relay %s: cannot be used: %v", r, err)
	case e.Error != nil && e.Error.Status == "4.7.8":
		return fail("correct user, password_file and auth of the relay, then systemctl reload mxpolicyd", "relay %s: cannot be used: %s %s", r, e.Error.Status, e.Error.Text)
	case e.Error != nil && strings.HasPrefix(e.Error.Status, "4.7."):
		return fail("name the relay as its certificate does, trust its authority by tls_client.root_ca, or pin its key in overrides", "relay %s: cannot be used: %s %s", r, e.Error.Status, e.Error.Text)
	case e.Error != nil:
		return fail("check that it is up, and that the network or the provider lets this host connect to it", "relay %s: cannot be used: %s %s", r, e.Error.Status, e.Error.Text)
	}
	for _, h := range e.Hosts {
		if h.Connection != nil && h.Connection.Error == nil {
			return ok("relay %s: %s", r, h.Connection.Via)
		}
	}
	return fail("correct its host", "relay %s: no host to connect to", r)
}
