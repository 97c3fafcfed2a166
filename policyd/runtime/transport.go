package runtime

import (
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
)

// Handle is a transport that somebody uses. It lasts until Release, which is
// called once.
type Handle struct {
	Name      string
	Transport *transport.Transport
	// ReplyTimeout is how long a server's last reply may be waited for.
	ReplyTimeout time.Duration
	// Former tells that the configuration in force has another one of this
	// name, or none.
	Former  bool
	Release func()
}

// liveTransport is a transport in use, with the idle connections that it alone
// uses.
type liveTransport struct {
	resource
	inputs       transportInputs
	replyTimeout time.Duration
	resolver     *liveResolver
	caches       []*policyCache
	idle         *transport.Idle
	transport    *transport.Transport
}

// transportInputs is all that a transport depends on beside its resolver.
type transportInputs struct {
	cfg   *transport.Config
	self  route.Self
	files [sha256.Size]byte // a digest of the files that cfg names

	receivers *receivers
}

// newTransport makes a transport of generation g with room for so many idle
// connections.
func (rt *Runtime) newTransport(inputs transportInputs, idle int, g, old *generation) (*liveTransport, error) {
	t := &liveTransport{
		inputs: inputs, replyTimeout: replyTimeout(inputs.cfg), resolver: g.resolver, idle: transport.NewIdle(max(idle, 1)),
	}
	t.end = func() {
		t.idle.Stop() // before the transport, which waits for the goodbyes
		if t.transport != nil {
			t.transport.Close()
		}
		rt.totals.keepTransport(t)
		rt.mu.Lock()
		defer rt.mu.Unlock()
		delete(rt.live, t)
	}
	rt.resources.acquire(&t.resource)
	rt.resources.dependOn(&t.resource, &g.resolver.resource)
	deps := transport.Deps{
		ReadFile: g.readFile,
		Resolver: g.resolver.Resolver, Self: inputs.self, Idle: t.idle, Traces: &rt.traces, Logger: rt.log,
		Failing: rt.failing, Daily: rt.daily,
		Traffic: transport.Traffic{
			Suspended: rt.suspended, Pauses: rt.pauses, Providers: inputs.receivers.providers, Rules: inputs.receivers.rules,
			Load: rt.load, ProviderLimits: inputs.receivers.limits,
		},
		Policies: func(cfg *transport.MTASTS, roots *x509.CertPool) (plan.Policies, error) {
			c := rt.policyCacheFor(t, *cfg, roots, g, old)
			t.caches = append(t.caches, c)
			rt.resources.dependOn(&t.resource, &c.resource)
			return c.Cache, nil
		},
	}
	if rt.observer != nil {
		deps.Observe = rt.observer(inputs.cfg.Name, g.resolver.Resolver)
	}
	var err error
	if t.transport, err = transport.New(inputs.cfg, deps); err != nil {
		rt.resources.release(&t.resource)
		return nil, err
	}
	add(rt.totals, rt.totals.liveTransports, t)
	rt.mu.Lock()
	defer rt.mu.Unlock()
	rt.live[t] = struct{}{}
	return t, nil
}

// replyTimeout is how long a server's last reply may be waited for.
func replyTimeout(cfg *transport.Config) time.Duration {
	longest := cfg.SubmissionTimeout
	for _, o := range cfg.Overrides {
		longest = max(longest, replyTimeout(o.Config))
	}
	return longest
}

// digest is that of the files that a transport and its overrides name, so that
// a certificate that was renewed in place, or a password, counts as a change.
func digest(cfg *transport.Config, read readFile) (sum [sha256.Size]byte, err error) {
	h := sha256.New()
	add := func(c *transport.Config) {
		names := append([]string{c.TLSClient.Cert, c.TLSClient.Key}, c.TLSClient.RootCA...)
		if c.Relay != nil {
			names = append(names, c.Relay.PasswordFile)
		}
		if c.FallbackRelay != nil {
			names = append(names, c.FallbackRelay.PasswordFile)
		}
		if c.Proxy != nil {
			names = append(names, c.Proxy.PasswordFile)
		}
		for _, name := range names {
			if name == "" {
				continue
			}
			text, failed := read(name)
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
