package route_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

type world struct {
	*labdns.Server
	resolver *resolver.Resolver
	cfg      route.Config
}

// internet starts a DNS server with a zone, and a resolver in front of it.
func internet(t *testing.T, zone string) *world {
	t.Helper()
	return patience(t, zone, 100*labdns.Timeout)
}

func patience(t *testing.T, zone string, timeout time.Duration) *world {
	t.Helper()
	s, err := labdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Add(zone); err != nil {
		t.Fatal(err)
	}
	r, err := resolver.New(resolver.Config{Servers: []string{s.Addr()}, Timeout: timeout, Attempts: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return &world{s, r, route.Config{Resolver: r, Shuffle: func(int, func(i, j int)) {}}}
}

func (w *world) add(t *testing.T, zone string) {
	t.Helper()
	if err := w.Add(zone); err != nil {
		t.Fatal(err)
	}
}

func (w *world) finder() *route.Finder { return route.New(w.cfg) }

func domain(t *testing.T, name string) route.Destination {
	t.Helper()
	d, err := route.ForDomain(name)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func nexthop(t *testing.T, text string) route.Destination {
	t.Helper()
	d, err := route.ParseNexthop(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func names(r route.Route) string {
	var list []string
	for _, h := range r.Hosts {
		list = append(list, h.Name)
	}
	return strings.Join(list, " ")
}

// hosts asserts the hosts of a route, in their order.
func (w *world) hosts(t *testing.T, d route.Destination, want string) route.Route {
	t.Helper()
	r, err := w.finder().Route(t.Context(), d)
	if err != nil {
		t.Fatalf("%s: %v", d, err)
	}
	if names(r) != want {
		t.Errorf("%s: hosts %q, want %q", d, names(r), want)
	}
	return r
}

// fails asserts the code of a route's failure.
func (w *world) fails(t *testing.T, d route.Destination, code string) {
	t.Helper()
	r, err := w.finder().Route(t.Context(), d)
	wantCode(t, d.String(), err, code)
	if len(r.Hosts) != 0 {
		t.Errorf("%s: hosts with an error: %q", d, names(r))
	}
}

func wantCode(t *testing.T, what string, err error, code string) {
	t.Helper()
	var s *status.Error
	if !errors.As(err, &s) || s.Code.String() != code {
		t.Errorf("%s: %v (%+v), want %s", what, err, s, code)
	}
}

const address = `
mx1.example. IN A 192.0.2.1
mx2.example. IN A 192.0.2.2
mx3.example. IN A 192.0.2.3
`

func TestMXByPreference(t *testing.T) {
	w := internet(t, address+`
example. IN MX 30 mx3.example.
example. IN MX 10 MX1.Example.
example. IN MX 20 mx2.example.
example. IN MX 40 mx1.example.
`)
	r := w.hosts(t, domain(t, "example"), "mx1.example mx2.example mx3.example")
	if r.Kind != route.ByMX || r.Secure || r.Canonical != "example" || r.Hosts[1].Preference != 20 {
		t.Errorf("%+v", r)
	}
}

// RFC 5321 §5.1: hosts of equal preference must be randomised, here for each
// delivery though the answer comes from the cache.
func TestEqualPreferencesAreShuffledForEachDelivery(t *testing.T) {
	w := internet(t, address+`
example. IN MX 10 mx1.example.
example. IN MX 10 mx2.example.
example. IN MX 20 mx3.example.
`)
	w.cfg.Shuffle = nil
	f := w.finder()
	first := map[string]int{}
	for range 60 {
		r, err := f.Route(t.Context(), domain(t, "example"))
		if err != nil {
			t.Fatal(err)
		}
		first[r.Hosts[0].Name]++
		if r.Hosts[2].Name != "mx3.example" {
			t.Fatalf("the worse host is tried earlier: %q", names(r))
		}
	}
	if first["mx1.example"] < 10 || first["mx2.example"] < 10 {
		t.Errorf("of 60 deliveries: %v", first)
	}
	if n := w.Queries("example", dns.TypeMX).UDP; n != 1 {
		t.Errorf("%d MX look-ups for 60 deliveries", n)
	}
}

// RFC 5321 §5.1: no MX records, so the domain's own addresses.
func TestImplicitMX(t *testing.T) {
	w := internet(t, `
example. IN A 192.0.2.1
alias.test. IN CNAME example.
`)
	w.Secure("example", true)
	r := w.hosts(t, domain(t, "example"), "example")
	if r.Kind != route.Implicit || !r.Secure {
		t.Errorf("%+v", r)
	}
	r = w.hosts(t, domain(t, "alias.test"), "alias.test")
	if r.Kind != route.Implicit || r.Secure || r.Canonical != "example" {
		t.Errorf("through an alias: %+v", r)
	}
}

func TestNoAddressesInPlaceOfMX(t *testing.T) {
	w := internet(t, `
example. IN A 192.0.2.9
example. IN MX 10 mx.dead.
`)
	w.SetFault("mx.dead", dns.TypeANY, labdns.ServFail)
	// The domain has an address, but also an MX record, however useless.
	w.hosts(t, domain(t, "example"), "mx.dead")
}

func TestNullMX(t *testing.T) {
	w := internet(t, address+`
null.example.    IN MX 0 .
twice.example.   IN MX 0 .
twice.example.   IN MX 10 .
beside.example.  IN MX 0 .
beside.example.  IN MX 10 mx1.example.
null.example.    IN A 192.0.2.1
`)
	w.fails(t, domain(t, "null.example"), "5.1.10") // RFC 7505 §3
	w.fails(t, domain(t, "twice.example"), "5.1.10")
	r := w.hosts(t, domain(t, "beside.example"), "mx1.example")
	if len(r.Dropped) != 1 || r.Dropped[0].Reason != route.BadName {
		t.Errorf("%+v", r.Dropped)
	}
}

func TestDomainThatDoesNotExist(t *testing.T) {
	w := internet(t, "empty.example. IN TXT x\nbelow.empty2.example. IN TXT x")
	w.fails(t, domain(t, "nowhere.example"), "5.4.4")
	// No MX record and no address, both proven.
	w.fails(t, domain(t, "empty.example"), "5.4.4")
	w.fails(t, domain(t, "empty2.example"), "5.4.4")
}

// A look-up that fails is temporary, never a bounce.
func TestFailuresAreTemporary(t *testing.T) {
	for what, habit := range map[string]labdns.Fault{
		"SERVFAIL": labdns.ServFail, "bogus": labdns.Bogus, "REFUSED": labdns.Refused, "NOTIMP": labdns.NotImp, "FORMERR": labdns.FormErr,
		"time-out": labdns.Silent, "garbage": labdns.Garbage, "cut off": labdns.LyingCount, "truncated, TCP closed": labdns.TruncateMute,
		"referral": labdns.Referral, "wrong id": labdns.WrongID, "wrong question": labdns.WrongQuestion,
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			timeout := 100 * labdns.Timeout
			if habit == labdns.Silent || habit == labdns.WrongID || habit == labdns.WrongQuestion {
				timeout = labdns.Timeout
			}
			w := patience(t, "mx.example. IN MX 10 mx1.example.\na.example. IN TXT x", timeout)
			w.SetFault("mx.example", dns.TypeMX, habit)
			w.SetFault("gone.example", dns.TypeMX, habit)
			w.SetFault("a.example", dns.TypeAAAA, habit)
			w.fails(t, domain(t, "mx.example"), "4.4.3")
			w.fails(t, domain(t, "gone.example"), "4.4.3")
			// There is no MX record and no A record, but about AAAA nothing is
			// known.
			w.fails(t, domain(t, "a.example"), "4.4.3")
		})
	}
	w := internet(t, "")
	w.Stop()
	w.fails(t, domain(t, "example"), "4.4.3")
}

func TestTruncatedAnswersAreAskedAgainOverTCP(t *testing.T) {
	w := internet(t, "")
	for i := range 40 {
		name := fmt.Sprintf("mail-exchanger-number-%02d.in-a-rather-long-domain.example.", i)
		w.add(t, fmt.Sprintf("big.example. IN MX %d %s\n%s IN A 192.0.2.%d", i, name, name, i+1))
	}
	r, err := w.finder().Route(t.Context(), domain(t, "big.example"))
	if err != nil || len(r.Hosts) != 40 {
		t.Fatalf("%d hosts, %v", len(r.Hosts), err)
	}
	if n := w.Queries("big.example", dns.TypeMX); n.TCP != 1 {
		t.Errorf("%+v", n)
	}
}

// Names that prove nothing when a server says them.
func TestSharedName(t *testing.T) {
	for name, shared := range map[string]bool{
		"localhost": true, "mail": true, "localhost.localdomain": true, "mail.localdomain": true, "mac.local": true, "x.localhost": true,
		"[127.0.0.1]": true, "[10.1.2.3]": true, "[IPv6:fe80::1]": true,
		"mx.example.org": false, "local.example.org": false, "localhostess.example": false, "[192.0.2.1]": false, "[IPv6:2001:db8::1]": false,
	} {
		if route.SharedName(name) != shared {
			t.Errorf("%s: want %v", name, shared)
		}
	}
}

// Addresses that no mail server can have are as good as none, unless a next hop
// in brackets names them.
func TestUnfitAddresses(t *testing.T) {
	w := internet(t, address+`
beside.example.  IN MX 10 multicast.example.
beside.example.  IN MX 20 mx1.example.
alone.example.   IN MX 10 multicast.example.
alone.example.   IN MX 10 broadcast.example.
implicit.example. IN A 255.255.255.255
unknown.example. IN MX 10 half.example.
multicast.example. IN A 224.0.0.1
multicast.example. IN A 239.255.1.1
multicast.example. IN AAAA ff02::1
broadcast.example. IN A 255.255.255.255
mixed.example.   IN A 169.254.169.254
mixed.example.   IN A 0.1.2.3
mixed.example.   IN A 192.0.2.9
mixed.example.   IN AAAA fe80::1
mixed.example.   IN AAAA 100::1
mixed.example.   IN MX 10 mixed.example.
half.example.    IN A 169.254.1.1
`)
	w.SetFault("half.example", dns.TypeAAAA, labdns.ServFail)
	r := w.hosts(t, domain(t, "beside.example"), "mx1.example")
	if len(r.Dropped) != 1 || r.Dropped[0].Reason != route.UnfitAddress {
		t.Errorf("%+v", r.Dropped)
	}
	w.fails(t, domain(t, "alone.example"), "5.4.4")
	w.fails(t, domain(t, "implicit.example"), "5.4.4")
	r = w.hosts(t, domain(t, "mixed.example"), "mixed.example")
	found, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	if err != nil || fmt.Sprint(found.Addrs) != "[192.0.2.9]" {
		t.Errorf("%v, %v", found.Addrs, err)
	}
	// What the other family has is not known.
	r = w.hosts(t, domain(t, "unknown.example"), "half.example")
	_, err = w.finder().Addresses(t.Context(), r.Hosts[0])
	wantCode(t, "half.example", err, "4.4.3")
	for _, literal := range []string{"[224.0.0.1]", "[255.255.255.255]", "[IPv6:ff02::1]", "[IPv6:fe80::1]", "[169.254.169.254]"} {
		w.fails(t, domain(t, literal), "5.4.4")
		if _, err := w.finder().Route(t.Context(), nexthop(t, literal)); err != nil {
			t.Errorf("next hop %s: %v", literal, err)
		}
	}
	r, err = w.finder().Route(t.Context(), nexthop(t, "[mixed.example]"))
	if err != nil {
		t.Fatal(err)
	}
	if found, err := w.finder().Addresses(t.Context(), r.Hosts[0]); err != nil || len(found.Addrs) != 5 {
		t.Errorf("%v, %v", found.Addrs, err)
	}
}

func TestOurselves(t *testing.T) {
	self := route.Self{
		Names:      []string{"[192.0.2.77]", "Us.Example.", "mail.us.example"},
		LocalIP:    []netip.Addr{netip.MustParseAddr("198.51.100.1")},
		Interfaces: []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1"), netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("fe80::1%eth0")},
	}
	const zone = address + `
us.example.     IN A    192.0.2.200
mail.us.example. IN A   192.0.2.201
behind.example. IN CNAME us.example.
pinned.example. IN A    198.51.100.1
iface.example.  IN A    203.0.113.1
loop4.example.  IN A    127.0.0.1
loop6.example.  IN AAAA ::1
loop9.example.  IN A    127.9.9.9
any6.example.   IN AAAA ::
mapped.example. IN AAAA ::ffff:127.0.0.1
any.example.    IN A    0.0.0.0
link.example.   IN AAAA fe80::1
dead.example.   IN TXT  x
`
	for _, tc := range []struct {
		mx   string
		port uint16
		want string // hosts, or a code
	}{
		{"10 mx1 20 us 30 mx2", 25, "mx1"},
		{"10 mx1 20 us 20 mx2", 25, "mx1"}, // equal preference goes too
		{"10 us 20 mx1", 25, "5.4.6"},
		{"10 us", 25, "5.4.6"},
		{"10 mail.us", 25, "5.4.6"}, // the mail server beside us
		{"10 mx1 20 behind 30 mx2", 25, "mx1"},
		{"10 mx1 20 us 30 us 15 mx2", 25, "mx1 mx2"},
		{"10 mx1 20 pinned 30 mx2", 25, "mx1"},
		{"10 mx1 20 pinned 30 mx2", 2525, "mx1"},
		{"10 mx1 20 iface 30 mx2", 2525, "mx1"},
		{"10 mx1 20 link 30 mx2", 25, "mx1"},
		{"10 mx1 20 loop4 30 mx2", 25, "mx1"},
		{"10 mx1 20 loop6 30 mx2", 25, "mx1"},
		{"10 mx1 20 mapped 30 mx2", 25, "mx1"},
		{"10 mx1 20 any 30 mx2", 25, "mx1"},
		{"10 mx1 20 any 30 mx2", 2525, "mx1"}, // it leads here at every port
		{"10 mx1 20 any6 30 mx2", 2525, "mx1"},
		{"10 mx1 20 loop9 30 mx2", 25, "mx1"}, // no interface has it
		{"10 mx1 20 loop9 30 mx2", 2525, "mx1 loop9 mx2"},
		// A lab on another port lives on loopback.
		{"10 mx1 20 loop4 30 mx2", 2525, "mx1 loop4 mx2"},
		{"10 mx1 20 loop6 30 mx2", 2525, "mx1 loop6 mx2"},
		// A backup of a primary without addresses gets its own mail back.
		{"10 dead 20 us", 25, "5.4.6"},
		{"10 broken 20 us", 25, "broken"}, // not known to be dead
		{"10 broken 20 mx1", 25, "broken mx1"},
	} {
		t.Run(fmt.Sprint(tc.mx, " ", tc.port), func(t *testing.T) {
			w := internet(t, zone)
			w.SetFault("broken.example", dns.TypeANY, labdns.ServFail)
			w.cfg.Self, w.cfg.Port = self, tc.port
			words := strings.Fields(tc.mx)
			for i := 0; i < len(words); i += 2 {
				w.add(t, "d.test. IN MX "+words[i]+" "+words[i+1]+".example.")
			}
			if strings.HasPrefix(tc.want, "5.") {
				w.fails(t, domain(t, "d.test"), tc.want)
				return
			}
			var want []string
			for _, name := range strings.Fields(tc.want) {
				want = append(want, name+".example")
			}
			w.hosts(t, domain(t, "d.test"), strings.Join(want, " "))
		})
	}

	w := internet(t, zone)
	w.cfg.Self = self
	w.fails(t, domain(t, "iface.example"), "5.4.6") // an implicit MX
	w.fails(t, domain(t, "us.example"), "5.4.6")
	w.fails(t, domain(t, "[203.0.113.1]"), "5.4.6")
	w.fails(t, domain(t, "[127.0.0.1]"), "5.4.6")
	w.fails(t, domain(t, "[IPv6:::ffff:127.0.0.1]"), "5.4.6")
	w.fails(t, domain(t, "[0.0.0.0]"), "5.4.6")
	// The port of the next hop decides, not the transport's.
	w.hosts(t, nexthop(t, "loop4.example:2525"), "loop4.example")
	w.fails(t, nexthop(t, "loop4.example"), "5.4.6")
	// A local content filter is named on purpose.
	w.hosts(t, nexthop(t, "[us.example]"), "us.example")
	w.hosts(t, nexthop(t, "[iface.example]:25"), "iface.example")
	w.hosts(t, nexthop(t, "[127.0.0.1]"), "[127.0.0.1]")
}

func TestThisHost(t *testing.T) {
	self, err := route.ThisHost()
	if err != nil || !slices.Contains(self.Interfaces, netip.MustParseAddr("127.0.0.1")) {
		t.Errorf("%+v, %v", self, err)
	}
}

// The host could not be looked up when the route was made, and turns out to be
// this host when it is its turn.
func TestOurselvesFoundLate(t *testing.T) {
	w := internet(t, address+"example. IN MX 10 late.example.\nlate.example. IN A 203.0.113.1")
	w.cfg.Self.Interfaces = []netip.Addr{netip.MustParseAddr("203.0.113.1")}
	w.SetFault("late.example", dns.TypeANY, labdns.ServFail)
	r := w.hosts(t, domain(t, "example"), "late.example")
	w.SetFault("late.example", dns.TypeANY)
	w.resolver.Flush("late.example") // the failure has expired
	_, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	wantCode(t, "late.example", err, "4.4.6")
}

func TestInternationalDomains(t *testing.T) {
	w := internet(t, `
xn--bcher-kva.example. IN MX 10 mx.xn--bcher-kva.example.
mx.xn--bcher-kva.example. IN A 192.0.2.1
`)
	for _, name := range []string{"bücher.example", "BÜCHER.Example", "xn--bcher-kva.example", "XN--BCHER-KVA.example."} {
		w.hosts(t, domain(t, name), "mx.xn--bcher-kva.example")
	}
}

func TestLiterals(t *testing.T) {
	w := internet(t, "")
	for text, addr := range map[string]string{"[192.0.2.1]": "192.0.2.1", "[IPv6:2001:db8::1]": "2001:db8::1"} {
		r := w.hosts(t, domain(t, text), text)
		if r.Kind != route.Literal || r.Secure || !r.Hosts[0].Literal() {
			t.Errorf("%+v", r)
		}
		found, err := w.finder().Addresses(t.Context(), r.Hosts[0])
		if err != nil || len(found.Addrs) != 1 || found.Addrs[0].String() != addr || found.Secure {
			t.Errorf("%+v, %v", found, err)
		}
	}
	w.cfg.ForceIPv4 = true
	r := w.hosts(t, domain(t, "[IPv6:2001:db8::1]"), "[IPv6:2001:db8::1]")
	_, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	wantCode(t, "an IPv6 literal with force_ipv4", err, "4.4.4")
	if n := w.Queries("", dns.TypeANY).UDP; n != 0 {
		t.Errorf("%d questions about literals", n)
	}
}

func TestExplicitHost(t *testing.T) {
	w := internet(t, address+"example. IN MX 10 mx1.example.\nexample. IN A 192.0.2.9")
	r := w.hosts(t, nexthop(t, "[Example]:2525"), "example")
	if r.Kind != route.Explicit || !r.Secure || r.Destination.Port != 2525 {
		t.Errorf("%+v", r)
	}
	if n := w.Queries("example", dns.TypeMX).UDP; n != 0 {
		t.Error("MX records of an explicit host were looked up")
	}
	w.hosts(t, nexthop(t, "example"), "mx1.example")
	// A wrong name in a configuration must not bounce mail.
	r = w.hosts(t, nexthop(t, "[nowhere.example]"), "nowhere.example")
	_, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	wantCode(t, "[nowhere.example]", err, "4.4.4")
}

func TestLocalhostNeedsNoDNS(t *testing.T) {
	w := internet(t, "")
	w.SetFault("", dns.TypeANY, labdns.ServFail)
	r := w.hosts(t, nexthop(t, "[localhost]:10025"), "localhost")
	found, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	if err != nil || fmt.Sprint(found.Addrs) != "[::1 127.0.0.1]" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestOneHostsBadDNSSpoilsOnlyThatHost(t *testing.T) {
	w := internet(t, address+`
example. IN MX 10 broken.example.
example. IN MX 20 empty.example.
example. IN MX 30 nowhere.example.
example. IN MX 40 mx1.example.
empty.example. IN TXT x
`)
	w.SetFault("broken.example", dns.TypeANY, labdns.ServFail)
	r := w.hosts(t, domain(t, "example"), "broken.example mx1.example")
	if len(r.Dropped) != 2 || r.Dropped[0].Reason != route.NoAddress || r.Dropped[1].Host.Name != "nowhere.example" {
		t.Errorf("%+v", r.Dropped)
	}
	_, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	wantCode(t, "broken.example", err, "4.4.3")
	found, err := w.finder().Addresses(t.Context(), r.Hosts[1])
	if err != nil || fmt.Sprint(found.Addrs) != "[192.0.2.1]" {
		t.Errorf("%+v, %v", found, err)
	}
}

// RFC 5321 §5.1: MX records, but none of them usable, is an error.
func TestNoUsableMailServer(t *testing.T) {
	w := internet(t, `
dead.example. IN MX 10 empty.example.
dead.example. IN MX 20 nowhere.example.
dead.example. IN A 192.0.2.1
empty.example. IN TXT x
number.example. IN MX 10 192.0.2.1.
strange.example. IN MX 10 a\ b.example.
half.example. IN MX 10 empty.example.
half.example. IN MX 20 broken.example.
`)
	w.SetFault("broken.example", dns.TypeANY, labdns.ServFail)
	w.fails(t, domain(t, "dead.example"), "5.4.4")
	w.fails(t, domain(t, "number.example"), "5.4.4")
	w.fails(t, domain(t, "strange.example"), "5.4.4")
	// not proven for all
	w.hosts(t, domain(t, "half.example"), "broken.example")
	if n := w.Queries("192.0.2.1", dns.TypeANY).UDP; n != 0 {
		t.Error("an address was looked up as a name")
	}
}

func TestAliasedHosts(t *testing.T) {
	w := internet(t, `
example. IN MX 10 alias.example.
alias.example. IN CNAME mx.provider.test.
mx.provider.test. IN A 192.0.2.1
mx.provider.test. IN AAAA 2001:db8::1
`)
	w.Secure("example", true)
	r := w.hosts(t, domain(t, "example"), "alias.example")
	if !r.Secure {
		t.Error("a signed MX set is not secure")
	}
	found, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	if err != nil || found.Canonical != "mx.provider.test" || found.Secure || len(found.Addrs) != 2 {
		t.Errorf("%+v, %v", found, err)
	}
	// RFC 7672 §2.2.2, "Insecure CNAME": the alias itself is signed.
	if a, err := w.resolver.Lookup(t.Context(), r.Hosts[0].Name, resolver.TypeCNAME); err != nil || !a.Secure {
		t.Errorf("%+v, %v", a, err)
	}
}

func TestForceIPv4(t *testing.T) {
	w := internet(t, `
example. IN MX 10 both.example.
example. IN MX 20 six.example.
both.example. IN A 192.0.2.1
both.example. IN AAAA 2001:db8::1
six.example. IN AAAA 2001:db8::2
only.example. IN MX 10 six.example.
gone.example. IN MX 10 nowhere.example.
`)
	w.cfg.ForceIPv4 = true
	r := w.hosts(t, domain(t, "example"), "both.example")
	found, err := w.finder().Addresses(t.Context(), r.Hosts[0])
	if err != nil || fmt.Sprint(found.Addrs) != "[192.0.2.1]" {
		t.Errorf("%+v, %v", found, err)
	}
	// That we do not use IPv6 is our own doing, and bounces nothing.
	w.fails(t, domain(t, "only.example"), "4.4.4")
	w.fails(t, domain(t, "six.example"), "4.4.4")
	w.fails(t, domain(t, "gone.example"), "5.4.4")
	if n := w.Queries("", dns.TypeAAAA).UDP; n != 0 {
		t.Errorf("AAAA was asked for %d times", n)
	}
}

// Each way in which the look-ups of the two families can end.
func TestAddressFamilies(t *testing.T) {
	for _, tc := range []struct {
		a, aaaa labdns.Fault
		zone    string // the families with records
		signed  bool
		want    string
		secure  bool
	}{
		{labdns.Normal, labdns.Normal, "4 6", true, "[2001:db8::1 192.0.2.1]", true},
		{labdns.Normal, labdns.Normal, "4 6", false, "[2001:db8::1 192.0.2.1]", false},
		{labdns.Normal, labdns.Normal, "4", true, "[192.0.2.1]", true},
		{labdns.Normal, labdns.Normal, "6", true, "[2001:db8::1]", true},
		{labdns.Normal, labdns.Normal, "6", false, "[2001:db8::1]", false},
		{labdns.Normal, labdns.Normal, "", true, "4.4.4", false},
		{labdns.Normal, labdns.Normal, "", false, "4.4.4", false},
		{labdns.Normal, labdns.ServFail, "4 6", true, "[192.0.2.1]", true},
		{labdns.ServFail, labdns.Normal, "4 6", true, "[2001:db8::1]", true},
		{labdns.Normal, labdns.Silent, "4 6", true, "[192.0.2.1]", true},
		{labdns.Silent, labdns.Normal, "4 6", false, "[2001:db8::1]", false},
		{labdns.Normal, labdns.Refused, "4 6", false, "[192.0.2.1]", false},
		{labdns.Normal, labdns.ServFail, "6", true, "4.4.3", false},
		{labdns.ServFail, labdns.Normal, "4", true, "4.4.3", false},
		{labdns.Normal, labdns.Silent, "", true, "4.4.3", false},
		{labdns.ServFail, labdns.ServFail, "4 6", true, "4.4.3", false},
		{labdns.Silent, labdns.Silent, "4 6", true, "4.4.3", false},
		{labdns.ServFail, labdns.Silent, "4 6", false, "4.4.3", false},
		{labdns.Refused, labdns.Refused, "4 6", false, "4.4.3", false},
	} {
		t.Run(fmt.Sprintf("A %d AAAA %d zone %q signed %v", tc.a, tc.aaaa, tc.zone, tc.signed), func(t *testing.T) {
			t.Parallel()
			w := patience(t, "mx.example. IN TXT x", 2*labdns.Timeout)
			if strings.Contains(tc.zone, "4") {
				w.add(t, "mx.example. IN A 192.0.2.1")
			}
			if strings.Contains(tc.zone, "6") {
				w.add(t, "mx.example. IN AAAA 2001:db8::1")
			}
			w.Secure("mx.example", tc.signed)
			w.SetFault("mx.example", dns.TypeA, tc.a)
			w.SetFault("mx.example", dns.TypeAAAA, tc.aaaa)
			found, err := w.finder().Addresses(t.Context(), route.Host{Name: "mx.example"})
			if !strings.HasPrefix(tc.want, "[") {
				wantCode(t, "mx.example", err, tc.want)
				return
			}
			if err != nil || fmt.Sprint(found.Addrs) != tc.want || found.Secure != tc.secure || found.Canonical != "mx.example" {
				t.Errorf("%+v, %v; want %s, secure %v", found, err, tc.want, tc.secure)
			}
			if (found.Partial != nil) != (tc.a != labdns.Normal || tc.aaaa != labdns.Normal) {
				t.Errorf("partial failure: %v", found.Partial)
			}
		})
	}
}

func TestSecureOnlyIfBothFamiliesAre(t *testing.T) {
	w := internet(t, "mx.example. IN A 192.0.2.1\nmx.example. IN CNAME six.test.")
	// A from the signed zone, AAAA through an alias into an unsigned one, as
	// a misbehaving load balancer has it.
	w.add(t, "six.test. IN AAAA 2001:db8::1")
	w.Secure("example", true)
	found, err := w.finder().Addresses(t.Context(), route.Host{Name: "mx.example"})
	if err != nil || len(found.Addrs) != 2 || found.Secure || found.Canonical != "mx.example" {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestBoundsOfARoute(t *testing.T) {
	w := internet(t, "")
	var zone strings.Builder
	for i := range 300 {
		fmt.Fprintf(&zone, "many.example. IN MX %d mx%03d.example.\nmx%03d.example. IN A 192.0.2.%d\n", i, i, i, i%250+1)
		fmt.Fprintf(&zone, "wide.example. IN A 10.0.%d.%d\n", i/100, i%100)
	}
	if err := w.Add(zone.String()); err != nil {
		t.Fatal(err)
	}
	r, err := w.finder().Route(t.Context(), domain(t, "many.example"))
	if err != nil || len(r.Hosts) != 100 || r.Hosts[99].Name != "mx099.example" || len(r.Dropped) != 1 || r.Dropped[0].Host.Name != "[200 others]" {
		t.Errorf("%d hosts, %v", len(r.Hosts), err)
	}
	if !r.Truncated() {
		t.Error("it does not say that hosts were left out")
	}
	for i := range 101 {
		if err := w.Add(fmt.Sprintf("bare.example. IN MX 10 bare%d.example.", i)); err != nil {
			t.Fatal(err)
		}
	}
	// The last one may have an address.
	if _, err := w.finder().Route(t.Context(), domain(t, "bare.example")); err == nil || !strings.HasPrefix(err.Error(), "none of the first 100") {
		t.Errorf("%v", err)
	} else if s := new(status.Error); !errors.As(err, &s) || s.Code.String() != "4.4.4" {
		t.Errorf("%v", err)
	}
	found, err := w.finder().Addresses(t.Context(), route.Host{Name: "wide.example"})
	if err != nil || len(found.Addrs) > 100 {
		t.Errorf("%d addresses, %v", len(found.Addrs), err)
	}
}

func TestRouteEndsWithItsContext(t *testing.T) {
	w := internet(t, "example. IN MX 10 mx1.example.")
	gone := errors.New("delivery cancelled: the local mail server disconnected")
	release := w.Hold("mx1.example", dns.TypeA)
	defer release()
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan error)
	go func() {
		_, err := w.finder().Route(ctx, domain(t, "example"))
		failed <- err
	}()
	for w.Queries("mx1.example", dns.TypeA).UDP == 0 {
		time.Sleep(time.Millisecond)
	}
	cancel(gone)
	err := <-failed
	wantCode(t, "a cancelled route", err, "4.4.3")
	if !errors.Is(err, gone) {
		t.Errorf("the cause is lost: %v", err)
	}
}

// A warm delivery asks no DNS.
func TestWarmRouteAsksNothing(t *testing.T) {
	w := internet(t, address+"example. IN MX 10 mx1.example.\nexample. IN MX 10 mx2.example.")
	f := w.finder()
	deliver := func() {
		r, err := f.Route(t.Context(), domain(t, "example"))
		if err != nil {
			t.Fatal(err)
		}
		for _, h := range r.Hosts {
			if _, err := f.Addresses(t.Context(), h); err != nil {
				t.Fatal(err)
			}
		}
	}
	deliver()
	before := w.Queries("", dns.TypeANY)
	for range 10 {
		deliver()
	}
	if after := w.Queries("", dns.TypeANY); after != before {
		t.Errorf("%+v questions became %+v", before, after)
	}
}
