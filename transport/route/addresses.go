package route

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	// addresses serve; nil when both could. Secure is about the addresses
	// that there are.
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
	if h.notPort != 0 {
		switch found = found.fit(); {
		case found.failed != nil:
			return Addresses{}, &status.Error{Code: codeDNS, Host: h.Name, Text: "its addresses cannot be looked up", Err: found.failed}
		case found.unfit:
			return Addresses{}, &status.Error{Code: codeNoAddress, Host: h.Name, Text: UnfitAddress.String()}
		}
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
	unfit  bool  // it has addresses, and no mail server can be at any
}

// fit leaves out the addresses at which no mail server can be. They would be
// this host's trouble, when the kernel refuses them, or lead to servers that
// nobody meant to publish (as Exim's ignore_target_hosts is used for).
func (r addrResult) fit() addrResult {
	if !slices.ContainsFunc(r.Addrs, unfit) {
		return r
	}
	r.Addrs = slices.DeleteFunc(slices.Clone(r.Addrs), unfit)
	switch {
	case len(r.Addrs) > 0:
		return r
	case r.Partial != nil:
		return addrResult{failed: r.Partial}
	}
	return addrResult{unfit: true}
}

// unfit reports whether no mail server can be at an address: it is that of a
// group, of every host on a link, of a link alone, or of nobody (RFC 6890 §2.2,
// RFC 1112 §4, RFC 6666).
func unfit(addr netip.Addr) bool {
	return addr.IsMulticast() || addr.IsLinkLocalUnicast() || slices.ContainsFunc(nobodys, func(p netip.Prefix) bool { return p.Contains(addr) })
}

// nobodys are networks without hosts: "this network", the limited broadcast,
// and the one that discards.
var nobodys = []netip.Prefix{
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("255.255.255.255/32"),
	netip.MustParsePrefix("::/128"), netip.MustParsePrefix("100::/64"),
}

// find finds the addresses of a name.
func (f *Finder) find(ctx context.Context, name string) addrResult {
	if found, ok := f.known(name); ok {
		return found
	}
	if f.cfg.ForceIPv4 {
		return f.join(name, f.family(ctx, name, resolver.TypeA), family{})
	}
	v4, v6 := f.families(ctx, name)
	return f.join(name, v4, v6)
}

// families looks both families up at once. When one has given an address, the
// other is waited for a little longer only; when it is late it has failed.
//
// An attacker who drops the answers of one family gains nothing by it. The
// addresses that are used, and whether they are secure, come from the same
// answer: what is dropped can take away addresses and the signatures over them,
// but puts no unsigned address among signed ones. Without the other family the
// host is as secure as before or more so, never less, since both had to be
// signed (RFC 7672 §2.2.2). NODATA is no address: a family of which it is known
// that it has none does not make the other one hurry.
func (f *Finder) families(ctx context.Context, name string) (v4, v6 family) {
	late := &resolver.Error{Name: name, Kind: resolver.Timeout, Err: errLate}
	ctx, giveUp := context.WithCancelCause(ctx)
	defer giveUp(nil)
	type answer struct {
		qtype resolver.Type
		family
	}
	answers := make(chan answer, 2)
	for _, qtype := range []resolver.Type{resolver.TypeA, resolver.TypeAAAA} {
		go func() { answers <- answer{qtype, f.family(ctx, name, qtype)} }()
	}
	first := <-answers
	late.Type = resolver.TypeA + resolver.TypeAAAA - first.qtype
	if len(first.addrs) > 0 {
		wait := f.cfg.Patience
		if deadline, ok := ctx.Deadline(); ok {
			// the caller has other work to do
			wait = min(wait, time.Until(deadline)/2)
		}
		patience := time.AfterFunc(wait-f.pending(name, late.Type), func() { giveUp(late) })
		defer patience.Stop()
	}
	second := <-answers
	if second.failed != nil && context.Cause(ctx) == error(late) {
		second.failed = late
	}
	if first.qtype == resolver.TypeA {
		return first.family, second.family
	}
	return second.family, first.family
}

var errLate = errors.New("the other family has answered long since")

// cachePeeker is a Resolver that can tell at once what it would tell without
// asking. With it a delivery whose names are all known starts no goroutine to
// look them up.
type cachePeeker interface {
	// Known gives what Lookup would give at once, a remembered failure too.
	Known(name string, qtype resolver.Type) (a resolver.Answer, ok bool, err error)
	// Pending tells for how long a question has been under way.
	Pending(name string, qtype resolver.Type) (so time.Duration, ok bool)
}

// pending tells for how long a question has been under way; 0: it is not, or
// unknown.
func (f *Finder) pending(name string, qtype resolver.Type) time.Duration {
	if k, ok := f.cfg.Resolver.(cachePeeker); ok {
		so, _ := k.Pending(name, qtype)
		return so
	}
	return 0
}

// known gives the result for a name, if all of it can be had at once.
func (f *Finder) known(name string) (addrResult, bool) {
	if name == "localhost" || strings.HasSuffix(name, ".localhost") {
		return f.localhost(name), true
	}
	k, ok := f.cfg.Resolver.(cachePeeker)
	if !ok {
		return addrResult{}, false
	}
	v4, ok4 := f.knownFamily(k, name, resolver.TypeA)
	if f.cfg.ForceIPv4 {
		return f.join(name, v4, family{}), ok4
	}
	v6, ok6 := f.knownFamily(k, name, resolver.TypeAAAA)
	switch {
	case !ok4 && len(v6.addrs) > 0:
		v4, ok4 = f.late(name, resolver.TypeA)
	case !ok6 && len(v4.addrs) > 0:
		v6, ok6 = f.late(name, resolver.TypeAAAA)
	}
	return f.join(name, v4, v6), ok4 && ok6
}

// knownFamily gives what a look-up would give at once.
func (f *Finder) knownFamily(k cachePeeker, name string, qtype resolver.Type) (family, bool) {
	answer, ok, err := k.Known(name, qtype)
	if err != nil {
		return family{failed: err}, ok
	}
	return f.read(answer), ok
}

// late says that a family has failed whose answer others have waited for long
// enough already.
func (f *Finder) late(name string, qtype resolver.Type) (family, bool) {
	if f.pending(name, qtype) < f.cfg.Patience {
		return family{}, false
	}
	return family{failed: &resolver.Error{Name: name, Type: qtype, Kind: resolver.Timeout, Err: errLate}}, true
}

// join makes one result of both families.
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
