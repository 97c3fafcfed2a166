package policyd

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts/fetch"
	"github.com/mxpipe/mxpipe/transport/mtasts/policies"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// ramPolicies bounds the policies that are kept in memory only, in bytes.
const ramPolicies = 64 << 20

// policyCaches are the MTA-STS caches of one generation. Transports whose
// policies are kept in the same place share one.
type policyCaches struct {
	resolver *resolver.Resolver
	log      *slog.Logger
	made     []madePolicies
}

type madePolicies struct {
	cfg   transport.MTASTS
	roots *x509.CertPool
	*policies.Policies
}

// get gives the cache for a configuration, making it at its first use.
func (c *policyCaches) get(cfg *transport.MTASTS, roots *x509.CertPool) (transport.Policies, error) {
	for _, m := range c.made {
		if m.cfg == *cfg && m.roots.Equal(roots) {
			return m.Policies, nil
		}
	}
	var kept store.Store = store.NewRAM(ramPolicies)
	if cfg.OnDisk {
		fs, err := store.NewFS(store.FSConfig{Dir: cfg.Dir})
		if err != nil {
			// Memory goes on alone until somebody mends the directory.
			c.log.Error("the MTA-STS cache directory can not be used", "error", err)
		}
		kept = fs
	}
	p := policies.New(policies.Config{
		Resolver: texts{c.resolver},
		Fetcher: fetch.New(fetch.Config{
			Resolver: addresses{c.resolver}, Dial: (&net.Dialer{}).DialContext, Roots: roots, Port: cfg.HTTPSPort,
		}),
		Store: kept,
		Log:   c.log,
	})
	c.made = append(c.made, madePolicies{*cfg, roots, p})
	return p, nil
}

func (c *policyCaches) close() {
	for _, m := range c.made {
		m.Close()
	}
}

// texts looks TXT records up.
type texts struct{ *resolver.Resolver }

// TXT joins the strings of each record (RFC 8461 §3.1).
func (t texts) TXT(ctx context.Context, name string) (policies.Answer, error) {
	a, err := t.Lookup(ctx, name, dns.TypeTXT)
	if err != nil {
		return policies.Answer{}, err
	}
	answer := policies.Answer{Found: a.Existence == resolver.Exists, Expires: a.Expires}
	for _, rr := range a.RRs {
		if txt, ok := rr.(*dns.TXT); ok {
			answer.Texts = append(answer.Texts, strings.Join(txt.Txt, ""))
		}
	}
	return answer, nil
}

// addresses looks a web host's addresses up. One family's failure is no matter
// as long as the other has addresses.
type addresses struct{ *resolver.Resolver }

var errNoAddress = errors.New("the policy host has no address")

// Addresses gives IPv4 and IPv6 addresses.
func (r addresses) Addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var found []netip.Addr
	var failed error
	for _, qtype := range []uint16{dns.TypeA, dns.TypeAAAA} {
		a, err := r.Lookup(ctx, host, qtype)
		failed = errors.Join(failed, err)
		for _, rr := range a.RRs {
			var ip net.IP
			switch rr := rr.(type) {
			case *dns.A:
				ip = rr.A
			case *dns.AAAA:
				ip = rr.AAAA
			}
			if addr, ok := netip.AddrFromSlice(ip); ok {
				found = append(found, addr.Unmap())
			}
		}
	}
	switch {
	case len(found) > 0:
		return found, nil
	case failed != nil:
		return nil, failed
	}
	return nil, fmt.Errorf("%s: %w", host, errNoAddress)
}
