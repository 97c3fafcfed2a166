package route

import (
	"context"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Addresses are the addresses of one host.
type Addresses struct {
	// Addrs are the addresses, IPv6 first; at least one. Within a family they
	// are in random order, as a name server would rotate them for each
	// question if none was answered by a cache.
	Addrs []netip.Addr
	// Secure means that every address in Addrs was found by signed records,
	// each alias included (RFC 7672 §2.2.2).
	Secure bool
	// Canonical is the host's name after CNAME, lower case without a final
	// dot: the preferred TLSA base domain when Secure. It differs from the
	// host's name when that is an alias. An alias whose target is not secure
	// may be signed itself; a look-up of its CNAME record tells.
	Canonical string
	// Partial is why one family could not be looked up while the other's
	// addresses serve; nil when both could.
	Partial error
}

// Addresses finds the addresses of a host of a route. The error is always a
// temporary *status.Error: the caller goes on to the next host.
func (f *Finder) Addresses(ctx context.Context, h Host) (Addresses, error) {
	if h.Literal() {
		if f.cfg.ForceIPv4 && !h.Addr.Is4() {
			return Addresses{}, &status.Error{Code: codeNoAddress, Host: h.Name, Text: "an IPv6 address, and force_ipv4 is set"}
		}
		return Addresses{Addrs: []netip.Addr{h.Addr}}, nil
	}
	found := f.find(ctx, h.Name)
	switch {
	case found.failed != nil:
		return Addresses{}, &status.Error{Code: codeDNS, Host: h.Name, Text: "its addresses cannot be looked up", Err: found.failed}
	case found.noIPv4:
		return Addresses{}, &status.Error{Code: codeNoAddress, Host: h.Name, Text: "it has no IPv4 address, and force_ipv4 is set"}
	case found.absent:
		return Addresses{}, &status.Error{Code: codeNoAddress, Host: h.Name, Text: "it has no address"}
	case h.notPort != 0 && f.cfg.Self.is(h, found):
		// It could not be looked up, or was another's, when the route was made.
		return Addresses{}, &status.Error{Code: codeLoopHost, Host: h.Name, Text: "it is this host"}
	}
	return found.Addresses, nil
}

// addrResult is what could be learnt about the addresses of a name: one of
// addresses, absent, noIPv4 and failed.
type addrResult struct {
	Addresses
	absent bool  // it provably has none
	noIPv4 bool  // it has no IPv4 address, and no others were asked for
	failed error // nothing is known
}

// find looks both families up at once. What works is used.
func (f *Finder) find(ctx context.Context, name string) addrResult {
	if found, ok := f.known(name); ok {
		return found
	}
	var v4, v6 family
	if f.cfg.ForceIPv4 {
		v4 = f.family(ctx, name, resolver.TypeA)
	} else {
		var both sync.WaitGroup
		both.Go(func() { v6 = f.family(ctx, name, resolver.TypeAAAA) })
		v4 = f.family(ctx, name, resolver.TypeA)
		both.Wait()
	}
	return f.join(name, v4, v6)
}

// cachePeeker is a Resolver that can tell at once what it would tell without asking
// anybody. With it a delivery whose names are all known starts no goroutine
// to look them up.
type cachePeeker interface {
	Known(name string, qtype resolver.Type) (resolver.Answer, bool)
}

// known gives the finding for a name, if all of it can be had at once.
func (f *Finder) known(name string) (addrResult, bool) {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return f.localhost(name), true
	}
	k, ok := f.cfg.Resolver.(cachePeeker)
	if !ok {
		return addrResult{}, false
	}
	a, ok := k.Known(name, resolver.TypeA)
	if !ok {
		return addrResult{}, false
	}
	var v6 family
	if !f.cfg.ForceIPv4 {
		aaaa, ok := k.Known(name, resolver.TypeAAAA)
		if !ok {
			return addrResult{}, false
		}
		v6 = f.read(aaaa)
	}
	return f.join(name, f.read(a), v6), true
}

// join makes one finding of both families.
func (f *Finder) join(name string, v4, v6 family) addrResult {
	found := combine(name, v4, v6)
	if f.cfg.ForceIPv4 && found.absent && v4.existence == resolver.NoData {
		found.absent, found.noIPv4 = false, true
	}
	return found
}

// localhost needs no DNS, and must not depend on it (RFC 6761 §6.3).
func (f *Finder) localhost(name string) addrResult {
	found := addrResult{Addresses: Addresses{Canonical: name}}
	if !f.cfg.ForceIPv4 {
		found.Addrs = append(found.Addrs, netip.IPv6Loopback())
	}
	found.Addrs = append(found.Addrs, netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	return found
}

// family is what one look-up brought.
type family struct {
	addrs     []netip.Addr
	existence resolver.Existence
	secure    bool
	canonical string
	failed    error
}

func (f *Finder) family(ctx context.Context, name string, qtype resolver.Type) family {
	answer, err := f.cfg.Resolver.Lookup(ctx, name, qtype)
	if err != nil {
		return family{failed: err}
	}
	return f.read(answer)
}

// read takes the addresses out of an answer.
func (f *Finder) read(answer resolver.Answer) family {
	fam := family{existence: answer.Existence, secure: answer.Secure, canonical: strings.TrimSuffix(answer.Canonical, ".")}
	// The answer is everybody's; the order is this delivery's.
	fam.addrs = slices.Clone(answer.Addrs())
	f.cfg.Shuffle(len(fam.addrs), func(i, j int) { fam.addrs[i], fam.addrs[j] = fam.addrs[j], fam.addrs[i] })
	return fam
}

// combine joins what the look-ups of both families brought. The zero family is
// one that was not asked for.
func combine(name string, v4, v6 family) addrResult {
	var found addrResult
	found.Secure = true
	for _, fam := range []family{v6, v4} {
		if fam.failed != nil {
			found.Partial = fam.failed
		}
		if len(fam.addrs) == 0 {
			continue
		}
		found.Secure = found.Secure && fam.secure
		switch found.Canonical {
		case "", fam.canonical:
			found.Canonical = fam.canonical
		default:
			// Aliases that lead apart have no common end.
			found.Canonical = name
		}
		found.Addrs = append(found.Addrs, fam.addrs...)
	}
	switch {
	case len(found.Addrs) > 0:
		return found
	case found.Partial != nil:
		return addrResult{failed: found.Partial}
	}
	return addrResult{absent: true}
}
