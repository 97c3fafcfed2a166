// Package route finds the hosts that take mail for a destination, in the order
// to try them, and the addresses of each (RFC 5321 §5.1).
//
// A [Destination] comes from a recipient's domain or from a next hop that the
// mail server names. [Finder.Route] then goes this way:
//
//  1. An address literal, and an explicit next hop "[host]", is its own only
//     host. Nothing is looked up.
//  2. The domain's MX records are looked up. A domain that does not exist is
//     5.4.4; a failed look-up is 4.4.3, and never means that there are none.
//  3. A null MX record that is alone in its set is 5.1.10 (RFC 7505); beside
//     others it is ignored, and so are names that cannot be host names, above
//     all addresses written in place of names.
//  4. Without MX records the domain itself is the host (implicit MX).
//  5. Hosts are sorted by preference. Those of equal preference are shuffled
//     anew for each delivery, however long the records are cached.
//  6. Every host's addresses are looked up at once. A host that is ourselves
//     is dropped, with every host of equal or worse preference; nothing left
//     is 5.4.6. A host that provably has no address, or none that a mail
//     server can be at, is dropped. One whose look-up fails stays, as no more
//     is known of it than that it must be tried later: one host's bad DNS
//     spoils only that host.
//
// When every host was dropped because it provably has no address, or cannot be
// a host name, the answer is 5.4.4. RFC 5321 §5.1 has this reported as an
// error, and Postfix does so too; it takes a proof for every single host, and
// never rests on a family that force_ipv4 kept us from asking for.
//
// [Finder.Addresses] gives the addresses of one host when it is its turn. Its
// errors are temporary, since other hosts may do better.
//
// Bounds: 100 hosts, 100 addresses a host, 8 look-ups at once, 10 seconds for
// the look-ups of step 6 together.
package route

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Bounds of a route.
const (
	maxHosts      = 100
	lookupsAtOnce = 8
	lookupTimeout = 10 * time.Second
	patience      = 2 * time.Second
)

// smtpPort is where mail servers listen (RFC 5321 §4.5.4.2).
const smtpPort = 25

// The codes of a route (RFC 3463, RFC 7505 §4.1).
var (
	codeNullMX     = status.New(status.Permanent, 1, 10)
	codeNoServers  = status.New(status.Permanent, 4, 4)
	codeLoop       = status.New(status.Permanent, 4, 6)
	codeLoopHost   = status.New(status.Temporary, 4, 6)
	codeDNS        = status.New(status.Temporary, 4, 3)
	codeNoAddress  = status.New(status.Temporary, 4, 4)
	codeImpossible = status.New(status.Temporary, 3, 5)
)

// Resolver looks names up; [resolver.Resolver] does it with the DNS.
type Resolver interface {
	Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error)
}

// Config is what a Finder needs to know.
type Config struct {
	Resolver  Resolver
	Self      Self
	ForceIPv4 bool // IPv6 addresses are neither asked for nor used
	// where hosts listen unless the destination says otherwise; 0 means 25
	Port uint16
	// Patience is for how long a family's answer is waited for when the other
	// family has given an address, counted from the question; 0 means 2 s.
	Patience time.Duration
	// Shuffle brings n things into random order; nil means math/rand's.
	Shuffle func(n int, swap func(i, j int))
}

// Finder finds routes. It is safe for concurrent use.
type Finder struct{ cfg Config }

// New makes a Finder.
func New(cfg Config) *Finder {
	if cfg.Port == 0 {
		cfg.Port = smtpPort
	}
	cfg.Patience = cmp.Or(max(cfg.Patience, 0), patience)
	if cfg.Shuffle == nil {
		cfg.Shuffle = rand.Shuffle
	}
	names := cfg.Self.Names
	cfg.Self.Names = nil
	for _, name := range names {
		if name = normalHost(name); name != "" {
			cfg.Self.Names = append(cfg.Self.Names, name)
		}
	}
	return &Finder{cfg}
}

// WithResolver gives a Finder that asks another resolver and is otherwise the
// same.
func (f *Finder) WithResolver(r Resolver) *Finder {
	other := *f
	other.cfg.Resolver = r
	return &other
}

// Kind is how the hosts of a Route were found.
type Kind uint8

// The kinds of routes.
const (
	ByMX Kind = iota // MX records name them
	// there is no MX record, so the domain itself is the host (RFC 5321 §5.1)
	Implicit
	Explicit // the next hop named the host
	Literal  // the destination is an address
)

// String gives the word for people.
func (k Kind) String() string {
	switch k {
	case Implicit:
		return "implicit MX"
	case Explicit:
		return "explicit host"
	case Literal:
		return "address literal"
	}
	return "MX"
}

// Host is one host that may take the mail.
type Host struct {
	// Name is the host's name as A-labels, lower case, without a final dot:
	// the name before any CNAME. For an address it is the literal, as in
	// "[192.0.2.1]".
	Name string
	// Preference is that of its MX record; lower ones come first.
	Preference uint16
	// Addr is the address of a literal; not valid for a host with a name.
	Addr netip.Addr

	// notPort: it must not be ourselves at this port; 0: it may be.
	notPort uint16
}

// MayBeUs reports whether the host may be this very one: the administrator
// named it, as with a filter that listens on loopback. No other host may.
func (h Host) MayBeUs() bool { return h.notPort == 0 }

// Literal reports whether the host is an address, and has no name.
func (h Host) Literal() bool { return h.Addr.IsValid() }

// Route is the way to a destination.
type Route struct {
	Destination Destination
	Kind        Kind
	Hosts       []Host // in the order to try them; at least one
	// Secure means that no one on the way can have changed the names of the
	// hosts: the MX set, or its absence, is signed with each alias that led
	// to it (RFC 7672 §2.2.1), or the next hop named the host. An address
	// literal, which DANE knows nothing of, is not secure.
	Secure bool
	// Canonical is the domain after CNAME; empty for a literal.
	Canonical string
	// Dropped are the hosts that are not tried, and why.
	Dropped []Dropped
}

// Dropped is a host that a route leaves out. For TooMany it can stand for
// several whose names are not known: it is called "[7 others]" then.
type Dropped struct {
	Host   Host
	Reason Reason
}

// Reason is why a host is not tried.
type Reason uint8

// The reasons.
const (
	// it cannot be a host name, or is the null MX beside others (RFC 7505 §3)
	BadName      Reason = iota
	NoAddress           // it provably has no address
	NoIPv4              // it has no IPv4 address, and force_ipv4 is set
	UnfitAddress        // no mail server can be at its addresses
	Ourselves           // the name or an address is ours
	// its preference is equal to ours, or worse (RFC 5321 §5.1)
	NotBetter
	TooMany // there are 100 better ones
)

// String gives the reason for people.
func (r Reason) String() string {
	switch r {
	case BadName:
		return "not a host name"
	case NoAddress:
		return "has no address"
	case NoIPv4:
		return "has no IPv4 address (force_ipv4)"
	case UnfitAddress:
		return "has no address that a mail server can be at"
	case Ourselves:
		return "is this host"
	case NotBetter:
		return "not better than this host"
	case TooMany:
		return "too many hosts"
	}
	return "unknown reason"
}

// Route finds the hosts for a destination. The error is always a
// *status.Error; a permanent one rests on what the DNS proves. With an error
// the Route has no hosts, but Dropped tells what became of them.
func (f *Finder) Route(ctx context.Context, d Destination) (Route, error) {
	switch {
	case d.Literal.IsValid():
		return f.literal(d)
	case d.Domain == "":
		return Route{}, &status.Error{Code: codeImpossible, Text: "there is no destination"}
	case d.Nexthop:
		return Route{
			Destination: d, Kind: Explicit, Secure: true, Canonical: d.Domain,
			Hosts: []Host{{Name: d.Domain}},
		}, nil
	}
	answer, err := f.cfg.Resolver.Lookup(ctx, d.Domain, resolver.TypeMX)
	if err != nil {
		return Route{}, &status.Error{Code: codeDNS, Text: "the mail servers of " + d.Domain + " cannot be looked up", Err: err}
	}
	r := Route{Destination: d, Secure: answer.Secure, Canonical: strings.TrimSuffix(answer.Canonical, ".")}
	switch answer.Existence {
	case resolver.NXDomain:
		return Route{}, &status.Error{Code: codeNoServers, Text: "the domain " + d.Domain + " does not exist"}
	case resolver.NoData:
		r.Kind = Implicit
		r.Hosts = []Host{{Name: d.Domain}}
	default:
		var null bool
		if r.Hosts, r.Dropped, null = readMX(answer.MXs(), answer.Omitted); null {
			return Route{}, &status.Error{Code: codeNullMX, Text: "the domain " + d.Domain + " takes no mail (null MX)"}
		}
	}
	for i := range r.Hosts {
		r.Hosts[i].notPort = f.port(d)
	}
	f.arrange(&r)
	if err := f.dropUnusable(ctx, &r); err != nil {
		r.Hosts = nil
		return r, err
	}
	return r, nil
}

// literal is the route to an address.
func (f *Finder) literal(d Destination) (Route, error) {
	host := Host{Name: address.FormatLiteral(d.Literal), Addr: d.Literal}
	if !d.Nexthop {
		host.notPort = f.port(d)
		if f.cfg.Self.owns(d.Literal, host.notPort) {
			return Route{}, loop(d)
		}
		if unfit(d.Literal) {
			return Route{}, &status.Error{Code: codeNoServers, Text: "no mail server can be at " + d.String()}
		}
	}
	return Route{Destination: d, Kind: Literal, Hosts: []Host{host}}, nil
}

func (f *Finder) port(d Destination) uint16 {
	if d.Port != 0 {
		return d.Port
	}
	return f.cfg.Port
}

func loop(d Destination) *status.Error {
	return &status.Error{Code: codeLoop, Text: "mail for " + d.String() + " loops back to this host"}
}

// readMX sorts MX records by preference, and within it by name, and leaves out
// what is no host. Records that the answer leaves out, because there are so
// many, are dropped as one. null means that the domain takes no mail.
func readMX(records []resolver.MX, omitted int) (hosts []Host, dropped []Dropped, null bool) {
	nulls := 0
	for _, mx := range records {
		h := Host{Name: normalHost(mx.Host), Preference: mx.Preference}
		switch {
		case mx.Host == ".":
			nulls++
			h.Name = "."
			dropped = append(dropped, Dropped{h, BadName})
		case h.Name == "":
			h.Name = strings.TrimSuffix(mx.Host, ".")
			dropped = append(dropped, Dropped{h, BadName})
		default:
			hosts = append(hosts, h)
		}
	}
	if omitted > 0 {
		last := records[len(records)-1].Preference
		dropped = append(dropped, Dropped{Host{Name: fmt.Sprintf("[%d others]", omitted), Preference: last}, TooMany})
	} else if nulls > 0 && nulls == len(records) {
		return nil, nil, true
	}
	slices.SortFunc(hosts, func(a, b Host) int {
		if a.Preference != b.Preference {
			return int(a.Preference) - int(b.Preference)
		}
		return strings.Compare(a.Name, b.Name)
	})
	seen := map[string]bool{}
	hosts = slices.DeleteFunc(hosts, func(h Host) bool {
		again := seen[h.Name]
		seen[h.Name] = true
		return again
	})
	return hosts, dropped, false
}

// arrange shuffles hosts of equal preference, which is every delivery's own
// draw (RFC 5321 §5.1), and bounds their number.
func (f *Finder) arrange(r *Route) {
	for rest := r.Hosts; len(rest) > 0; {
		n := 1
		for n < len(rest) && rest[n].Preference == rest[0].Preference {
			n++
		}
		group := rest[:n]
		f.cfg.Shuffle(n, func(i, j int) { group[i], group[j] = group[j], group[i] })
		rest = rest[n:]
	}
	if len(r.Hosts) > maxHosts {
		r.drop(TooMany, r.Hosts[maxHosts:]...)
		r.Hosts = r.Hosts[:maxHosts]
	}
}

// Truncated reports whether there are hosts that are not tried because there
// are so many: nothing is proven about the domain then.
func (r *Route) Truncated() bool {
	return slices.ContainsFunc(r.Dropped, func(d Dropped) bool { return d.Reason == TooMany })
}

func (r *Route) drop(why Reason, hosts ...Host) {
	for _, h := range hosts {
		r.Dropped = append(r.Dropped, Dropped{h, why})
	}
}

// dropUnusable looks the hosts' addresses up, and leaves out the hosts that
// cannot take the mail. It fails when none is left.
func (f *Finder) dropUnusable(ctx context.Context, r *Route) error {
	found := f.lookupAddresses(ctx, r.Hosts)
	if ctx.Err() != nil {
		return &status.Error{Code: codeDNS, Text: "the mail servers of " + r.Destination.Domain + " cannot be looked up", Err: context.Cause(ctx)}
	}
	if r.Kind == Implicit && found[0].failed != nil {
		return &status.Error{Code: codeDNS, Text: "the mail servers of " + r.Destination.Domain + " cannot be looked up", Err: found[0].failed}
	}
	looped := r.dropSelf(f.cfg.Self, found)
	switch {
	case len(r.Hosts) > 0:
		return nil
	case looped:
		return loop(r.Destination)
	case r.Kind == Implicit && (r.Dropped[0].Reason == NoAddress || r.Dropped[0].Reason == UnfitAddress):
		return &status.Error{Code: codeNoServers, Text: "the domain " + r.Destination.Domain + " has neither mail servers nor an address of one"}
	}
	if r.Truncated() {
		return &status.Error{Code: codeNoAddress, Text: fmt.Sprintf("none of the first %d mail servers of %s has an address", maxHosts, r.Destination.Domain)}
	}
	for _, d := range r.Dropped {
		if d.Reason == NoIPv4 {
			return &status.Error{Code: codeNoAddress, Text: "no mail server of " + r.Destination.Domain + " has an IPv4 address, and force_ipv4 is set"}
		}
	}
	text := "none of the mail servers of " + r.Destination.Domain + " has an address"
	switch d := r.Dropped[0]; d.Reason {
	case BadName:
		text += ": " + d.Host.Name + " is " + d.Reason.String()
	case UnfitAddress:
		text += ": " + d.Host.Name + " " + d.Reason.String()
	}
	return &status.Error{Code: codeNoServers, Text: text}
}

// lookupAddresses looks the addresses of hosts up, several at once. What is not
// there in time has failed.
func (f *Finder) lookupAddresses(ctx context.Context, hosts []Host) []addrResult {
	found := make([]addrResult, len(hosts))
	var unknown []int
	for i, h := range hosts {
		var ok bool
		if found[i], ok = f.known(h.Name); !ok {
			unknown = append(unknown, i)
		}
	}
	if len(unknown) == 0 {
		return found
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	var all errgroup.Group
	all.SetLimit(lookupsAtOnce)
	for _, i := range unknown {
		h := hosts[i]
		all.Go(func() error {
			found[i] = f.find(ctx, h.Name)
			return nil
		})
	}
	// Failures are in the results.
	_ = all.Wait()
	return found
}

// dropSelf drops ourselves, with every host that is not better, and hosts
// without an address. It reports whether ourselves were among them.
func (r *Route) dropSelf(self Self, found []addrResult) (looped bool) {
	var ours uint16
	for i, h := range r.Hosts {
		if self.is(h, found[i]) && (!looped || h.Preference < ours) {
			looped, ours = true, h.Preference
		}
	}
	hosts := r.Hosts
	r.Hosts = nil
	for i, h := range hosts {
		switch {
		case looped && self.is(h, found[i]):
			r.drop(Ourselves, h)
		case looped && h.Preference >= ours:
			r.drop(NotBetter, h)
		case found[i].absent:
			r.drop(NoAddress, h)
		case found[i].fit().unfit:
			r.drop(UnfitAddress, h)
		case found[i].noIPv4:
			r.drop(NoIPv4, h)
		default:
			r.Hosts = append(r.Hosts, h)
		}
	}
	return looped
}
