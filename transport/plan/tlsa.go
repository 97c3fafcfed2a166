package plan

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// lookupTLSA finds the TLSA records of a host (RFC 7672 §2.2.2, §2.2.3), after
// its addresses: where those are not signed there is nothing to ask for, and
// asking would fail at the name servers of some large providers.
func (p *Planner) lookupTLSA(ctx context.Context, way *route.Route, host route.Host, found *route.Addresses) verdict.TLSA {
	if host.Literal() {
		return verdict.TLSA{}
	}
	bases, err := p.tlsaBases(ctx, host, found)
	if err != nil {
		return verdict.TLSA{State: verdict.TLSAFailed, Err: err}
	}
	for _, base := range bases {
		answer, err := p.resolver.Lookup(ctx, fmt.Sprintf("_%d._tcp.%s", p.port(Target{Destination: way.Destination}), base), resolver.TypeTLSA)
		if err != nil {
			return verdict.TLSA{State: verdict.TLSAFailed, Err: err}
		}
		if !answer.Secure || answer.Len() == 0 {
			continue
		}
		set := dane.NewSet(daneRecords(answer.TLSAs()))
		if answer.Omitted > 0 && !set.Usable() {
			// One that is left out may be usable.
			return verdict.TLSA{State: verdict.TLSAFailed, Err: errManyTLSA}
		}
		return verdict.TLSA{
			State: verdict.TLSAPresent,
			Set:   set,
			Base:  base,
			Names: referenceNames(way, host, base),
		}
	}
	return verdict.TLSA{}
}

var errManyTLSA = errors.New("none of the first TLSA records is usable, and there are more")

// daneRecords turns what the DNS says into what a certificate is held against.
func daneRecords(all []resolver.TLSA) []dane.Record {
	records := make([]dane.Record, len(all))
	for i, t := range all {
		records[i] = dane.Record{
			Usage: dane.Usage(t.Usage), Selector: dane.Selector(t.Selector), Matching: dane.Matching(t.Matching), Data: t.Data,
		}
	}
	return records
}

// tlsaBases lists the candidates for the TLSA base domain. An alias into an
// unsigned zone still counts by its own name if the alias itself is signed.
func (p *Planner) tlsaBases(ctx context.Context, host route.Host, found *route.Addresses) ([]string, error) {
	canonical := strings.TrimSuffix(found.Canonical, ".")
	switch {
	case found.Secure && canonical != host.Name:
		return []string{canonical, host.Name}, nil
	case found.Secure:
		return []string{host.Name}, nil
	case canonical == host.Name:
		return nil, nil
	}
	alias, err := p.resolver.Lookup(ctx, host.Name, resolver.TypeCNAME)
	if err != nil || !alias.Secure {
		return nil, err
	}
	return []string{host.Name}, nil
}

// referenceNames lists the names that a DANE-TA certificate may bear: the TLSA
// base domain first, then the host's name, and where the MX set is signed the
// next-hop domain before and after its own CNAME (RFC 7672 §3.2.2).
func referenceNames(way *route.Route, host route.Host, base string) []string {
	names := []string{base}
	add := func(name string) {
		name = strings.TrimSuffix(name, ".")
		for _, n := range names {
			if n == name || name == "" {
				return
			}
		}
		names = append(names, name)
	}
	add(host.Name)
	if way.Secure {
		add(way.Destination.Domain)
		add(way.Canonical)
	}
	return names
}
