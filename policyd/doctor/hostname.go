package doctor

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

const (
	// lookupTime bounds the look-ups about names.
	lookupTime = 20 * time.Second
	// maxNames bounds the names that are looked up.
	maxNames = 100
)

// hostnames looks at the names that EHLO says, and at the addresses that we
// send from. With no resolver to ask, which was said of the resolvers, names
// are judged by their form.
func (h Host) hostnames(ctx context.Context, cfg *config.Config, settings resolver.Config, ask bool) (all []finding.Finding) {
	ours, err := h.Interfaces()
	if err != nil {
		all = append(all, warn("check \"ip address\"", "addresses: %v", err))
	}
	look := func(sender) seen { return seen{} }
	if ask {
		r, err := resolver.New(settings)
		if err != nil {
			return all // which was said of the resolvers
		}
		defer r.Close()
		ctx, cancel := context.WithTimeout(ctx, lookupTime)
		defer cancel()
		look = func(s sender) seen { return lookName(ctx, r, s) }
	}
	list := senders(cfg)
	if more := len(list) - maxNames; more > 0 {
		list = list[:maxNames]
		all = append(all, warn("look at the others with host(1)", "hostname: %d more names of sources are not looked at", more))
	}
	for _, s := range list {
		all = append(all, judgeName(s, look(s))...)
		for _, ip := range s.local {
			if ours != nil && !slices.Contains(ours, ip) {
				all = append(all, fail("add it to an interface, or correct local_ip", "local_ip %s: not an address of this host, so no mail can be sent from it", ip))
			}
		}
	}
	for _, ip := range pooled(cfg) {
		if ours != nil && !slices.Contains(ours, ip) {
			all = append(all, warn("add it to an interface, or correct sources", "source %s: not an address of this host, so it is left out, and its mail leaves from the other sources", ip))
		}
	}
	return all
}

// pooled gives the addresses of all sources, each once.
func pooled(cfg *config.Config) (all []netip.Addr) {
	add := func(c *transport.Config) {
		for _, ip := range c.Sources.Addrs() {
			if !slices.Contains(all, ip) {
				all = append(all, ip)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(cfg.Transports)) {
		add(cfg.Transports[name])
		for _, o := range cfg.Transports[name].Overrides {
			add(o.Config)
		}
	}
	return all
}

// sender is a name with the addresses that it is said from; without any, the
// kernel chooses.
type sender struct {
	name  string
	local []netip.Addr // local_ip
	// sources that say it
	sources []netip.Addr
}

// from gives the addresses that it is said from; none: the kernel chooses.
func (s *sender) from() []netip.Addr { return slices.Concat(s.local, s.sources) }

// senders gives each name once.
func senders(cfg *config.Config) (all []sender) {
	of := func(name string) *sender {
		i := slices.IndexFunc(all, func(s sender) bool { return s.name == name })
		if i < 0 {
			i, all = len(all), append(all, sender{name: name})
		}
		return &all[i]
	}
	for _, t := range cfg.Transports {
		own := of(t.Hostname)
		if t.Proxy != nil {
			continue // which address its name belongs to is not known here
		}
		for _, ip := range t.LocalIP {
			if !slices.Contains(own.local, ip) {
				own.local = append(own.local, ip)
			}
		}
		if t.Sources == nil {
			continue
		}
		for _, s := range t.Sources.Pool {
			said := of(cmp.Or(s.Hostname, t.Hostname))
			said.sources = append(said.sources, s.IPs...)
		}
	}
	slices.SortFunc(all, func(a, b sender) int { return strings.Compare(a.name, b.name) })
	return all
}

// seen is what the DNS says about a name.
type seen struct {
	addrs   []netip.Addr
	missing bool  // proven: the name has no address
	err     error // it could not be looked up
	names   map[netip.Addr][]string
	failed  map[netip.Addr]error
}

// lookName looks a name up, and then the names of its addresses, or of those
// that it is said from.
func lookName(ctx context.Context, r *resolver.Resolver, s sender) seen {
	found := seen{names: map[netip.Addr][]string{}, failed: map[netip.Addr]error{}}
	if !strings.Contains(s.name, ".") || strings.HasPrefix(s.name, "[") {
		return found
	}
	for _, qtype := range []resolver.Type{resolver.TypeA, resolver.TypeAAAA} {
		a, err := r.Lookup(ctx, s.name, qtype)
		if err != nil {
			found.err = err
		}
		found.addrs = append(found.addrs, a.Addrs()...)
	}
	found.missing = found.err == nil && len(found.addrs) == 0
	from := found.addrs
	if own := s.from(); len(own) > 0 {
		from = own
	}
	for _, ip := range from[:min(len(from), 8)] {
		a, err := r.Lookup(ctx, resolver.ReverseName(ip), resolver.TypePTR)
		if err != nil {
			found.failed[ip] = err
			continue
		}
		names := []string{}
		for _, name := range a.Names() {
			names = append(names, strings.TrimSuffix(name, "."))
		}
		found.names[ip] = names
	}
	return found
}

// judgeName judges a name by what the DNS says.
func judgeName(s sender, found seen) (all []finding.Finding) {
	const set = "set hostname in mxpolicyd.yaml to a name that resolves to this host"
	if _, literal := address.Literal(s.name); literal {
		return []finding.Finding{warn(set, "hostname %s: an address instead of a name; many servers refuse mail from it", s.name)}
	}
	switch {
	case route.SharedName(s.name):
		return []finding.Finding{fail(set, "hostname %s: not a fully qualified public name: many servers refuse mail from it, and as other hosts use it too, mail that loops back to this host is not known by it", s.name)}
	case found.missing:
		return []finding.Finding{fail(set, "hostname %s: does not resolve to an address; many servers refuse mail from it", s.name)}
	case len(found.addrs) == 0 && found.err == nil:
		return nil
	case len(found.addrs) == 0:
		return []finding.Finding{warn("see the resolver checks above", "hostname %s: %v", s.name, found.err)}
	}
	var good []string
	for ip, err := range found.failed {
		all = append(all, warn("ask the owner of the address to fix its reverse DNS", "hostname %s: the reverse look-up of %s failed: %v", s.name, ip, err))
	}
	for ip, names := range found.names {
		mend := "ask the provider of " + ip.String() + " to set its reverse DNS to " + s.name
		switch {
		case len(s.from()) > 0 && !slices.Contains(found.addrs, ip):
			all = append(all, warn("add the address "+ip.String()+" to "+s.name, "hostname %s: does not resolve to %s, the address it is used with", s.name, ip))
		case len(names) == 0:
			all = append(all, fail(mend, "hostname %s: %s has no reverse DNS; many servers refuse mail from it", s.name, ip))
		case !slices.Contains(names, s.name):
			all = append(all, warn(mend, "hostname %s: the reverse DNS of %s is %s", s.name, ip, strings.Join(names[:min(len(names), 3)], ", ")))
		default:
			good = append(good, ip.String())
		}
	}
	slices.SortFunc(all, func(a, b finding.Finding) int { return strings.Compare(a.What, b.What) })
	if len(all) == 0 {
		slices.Sort(good)
		all = append(all, ok("hostname %s: resolves to %s and back", s.name, strings.Join(good, ", ")))
	}
	return all
}
