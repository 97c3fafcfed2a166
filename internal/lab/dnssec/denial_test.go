package dnssec

import (
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// The order of RFC 4034 §6.1.
func TestCanonicalOrder(t *testing.T) {
	want := []string{
		".", "example.", "a.example.", `yljkjljk.a.example.`, "Z.a.example.", "zABC.a.EXAMPLE.", "z.example.",
		`\001.z.example.`, "*.z.example.", `\200.z.example.`,
	}
	got := slices.Clone(want)
	slices.Reverse(got)
	slices.SortStableFunc(got, func(a, b string) int { return strings.Compare(orderKey(a), orderKey(b)) })
	if !slices.Equal(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	for _, pair := range [][2]string{
		{`\000.example.`, `\001.example.`}, {`\000\000.example.`, `\000\001.example.`}, {`a.\000.example.`, `\001.example.`},
		{`a.\000.example.`, `\000\000.example.`}, {`example.`, `\000.example.`}, {`a.example.`, `a\000.example.`}, {`z.a.example.`, `a\000.example.`},
	} {
		if orderKey(pair[0]) >= orderKey(pair[1]) {
			t.Errorf("%s is not before %s", pair[0], pair[1])
		}
	}
}

func nsecs(t *testing.T, lines ...string) []*dns.NSEC {
	t.Helper()
	var list []*dns.NSEC
	for _, line := range lines {
		owner, rest, _ := strings.Cut(line, " ")
		rr, err := dns.NewRR(owner + " 60 IN NSEC " + rest)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, rr.(*dns.NSEC))
	}
	return list
}

// A resolver that takes a proof for what it does not prove can be told that
// TLSA records are not there.
func TestDenial(t *testing.T) {
	const mx, tlsa, ds = dns.TypeMX, dns.TypeTLSA, dns.TypeDS
	for _, c := range []struct {
		what   string
		name   string
		qtype  uint16 // 0: does the name exist?
		chain  []string
		proven bool
	}{
		{what: "both names covered", name: "c.x.", chain: []string{"b.x. d.x. A", "x. a.x. SOA NS"}, proven: true},
		{what: "both covered by one", name: "a.x.", chain: []string{"x. d.x. SOA NS"}, proven: true},
		{what: "the last record of the zone", name: "z.x.", chain: []string{"y.x. x. A", "x. a.x. SOA NS"}, proven: true},
		{what: "the only record of the zone", name: "z.x.", chain: []string{"x. x. SOA NS"}, proven: true},
		{what: "the wildcard is not denied", name: "c.x.", chain: []string{"b.x. d.x. A"}},
		{what: "the wildcard is there", name: "c.x.", chain: []string{"b.x. d.x. A", "*.x. a.x. A"}},
		{what: "the name is not denied", name: "c.x.", chain: []string{"x. a.x. SOA NS"}},
		{what: "the name is the next", name: "d.x.", chain: []string{"b.x. d.x. A", "x. a.x. SOA NS"}},
		{what: "the name is the owner", name: "b.x.", chain: []string{"b.x. d.x. A", "x. a.x. SOA NS"}},
		{what: "an empty non-terminal is there", name: "c.x.", chain: []string{"b.x. a.c.x. A", "x. a.x. SOA NS"}},
		{what: "below a delegation (RFC 6840 §4.1)", name: "a.b.x.", chain: []string{"b.x. d.x. NS", "x. a.x. SOA NS"}},
		{what: "below a DNAME (RFC 6840 §4.1)", name: "a.b.x.", chain: []string{"b.x. d.x. DNAME", "x. a.x. SOA NS"}},
		{what: "below a name with records", name: "a.b.x.", chain: []string{"b.x. d.x. A"}, proven: true},
		{what: "no record at all", name: "c.x."},

		{what: "no such type", name: "b.x.", qtype: mx, chain: []string{"b.x. d.x. A"}, proven: true},
		{what: "the type is there", name: "b.x.", qtype: mx, chain: []string{"b.x. d.x. A MX"}},
		{what: "an alias is there", name: "b.x.", qtype: mx, chain: []string{"b.x. d.x. CNAME"}},
		{what: "an empty non-terminal", name: "c.x.", qtype: mx, chain: []string{"b.x. a.c.x. A"}, proven: true},
		{what: "an empty non-terminal with a type", name: "_tcp.b.x.", qtype: tlsa, chain: []string{"b.x. _25._tcp.b.x. A"}, proven: true},
		{what: "another name's record", name: "c.x.", qtype: mx, chain: []string{"b.x. d.x. A"}},
		{what: "the parent speaks for the child (RFC 6840 §4.1)", name: "b.x.", qtype: mx, chain: []string{"b.x. d.x. NS"}},
		{what: "the parent has no DS", name: "b.x.", qtype: ds, chain: []string{"b.x. d.x. NS"}, proven: true},
		{what: "the parent has a DS", name: "b.x.", qtype: ds, chain: []string{"b.x. d.x. NS DS"}},
		{what: "the child speaks of DS (RFC 6840 §4.4)", name: "b.x.", qtype: ds, chain: []string{"b.x. a.b.x. SOA NS"}},
		{what: "at a wildcard", name: "c.x.", qtype: mx, chain: []string{"*.x. d.x. A"}, proven: true},
		{what: "the wildcard has the type", name: "c.x.", qtype: mx, chain: []string{"*.x. d.x. MX"}},
		{what: "a wildcard elsewhere", name: "c.y.x.", qtype: mx, chain: []string{"*.x. d.x. A", "a.y.x. z.x. A"}},
		{what: "a wildcard, and the name not denied", name: "z.x.", qtype: mx, chain: []string{"*.x. d.x. A"}},
	} {
		chain := nsecs(t, c.chain...)
		got := false
		if c.qtype == 0 {
			got = noName(chain, c.name)
		} else {
			got = new(part).noData(chain, question{c.name, c.qtype})
		}
		if got != c.proven {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}
