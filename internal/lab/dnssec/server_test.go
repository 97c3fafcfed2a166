package dnssec_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
)

// askServer asks as a resolver that follows no referrals.
func askServer(t *testing.T, s *dnssec.Server, name string, qtype uint16, dnssecOK bool) *dns.Msg {
	t.Helper()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	query.RecursionDesired = false
	query.SetEdns0(4096, dnssecOK)
	reply, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(query, s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	return reply
}

// section shows a section's records as "name type", in order.
func section(list []dns.RR) string {
	var out []string
	for _, rr := range list {
		line := rr.Header().Name + " " + dns.TypeToString[rr.Header().Rrtype]
		if sig, ok := rr.(*dns.RRSIG); ok {
			line += "(" + dns.TypeToString[sig.TypeCovered] + ")"
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return strings.Join(out, ", ")
}

func TestServerAnswers(t *testing.T) {
	s, err := dnssec.Start(
		dnssec.Zone{Name: "example.test", Text: `
@        IN MX 10 mx
mx       IN A 127.0.0.1
*.wild   IN A 127.0.0.2
away     IN NS ns.away
away     IN DS 1 13 2 0000000000000000000000000000000000000000000000000000000000000000
ns.away  IN A 127.0.0.3
far      IN NS ns.elsewhere.invalid.
hidden.far IN A 127.0.0.4
`},
		dnssec.Zone{Name: "Sub.Example.TEST.", Signing: dnssec.Unsigned, Text: "@ IN SOA ns hostmaster 7 1 1 1 9\n@ IN NS ns\nns IN A 127.0.0.5"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	const denial = "example.test. RRSIG(SOA), example.test. SOA"
	for _, c := range []struct {
		name      string
		qtype     uint16
		rcode     int
		aa        bool
		answer    string
		authority string
		extra     string
	}{
		{name: "example.test", qtype: dns.TypeMX, aa: true, answer: "example.test. MX, example.test. RRSIG(MX)"},
		{name: "mx.example.test", qtype: dns.TypeMX, aa: true, authority: denial + ", mx.example.test. NSEC, mx.example.test. RRSIG(NSEC)"},
		// One record may prove both that the name and that the wildcard is not
		// there.
		{name: "ma.example.test", qtype: dns.TypeA, rcode: dns.RcodeNameError, aa: true,
			authority: denial + ", example.test. NSEC, example.test. RRSIG(NSEC), far.example.test. NSEC, far.example.test. RRSIG(NSEC)"},
		{name: "aa.example.test", qtype: dns.TypeA, rcode: dns.RcodeNameError, aa: true,
			authority: "example.test. NSEC, example.test. RRSIG(NSEC), " + denial},
		{name: "X.wild.example.test", qtype: dns.TypeA, aa: true, answer: "X.wild.example.test. A, X.wild.example.test. RRSIG(A)",
			authority: "*.wild.example.test. NSEC, *.wild.example.test. RRSIG(NSEC)"},
		{name: "x.wild.example.test", qtype: dns.TypeMX, aa: true, authority: "*.wild.example.test. NSEC, *.wild.example.test. RRSIG(NSEC), " + denial},
		{name: "x.away.example.test", qtype: dns.TypeA,
			authority: "away.example.test. DS, away.example.test. NS, away.example.test. RRSIG(DS)", extra: "ns.away.example.test. A"},
		{name: "hidden.far.example.test", qtype: dns.TypeA,
			authority: "far.example.test. NS, far.example.test. NSEC, far.example.test. RRSIG(NSEC)"},
		{name: "sub.example.test", qtype: dns.TypeSOA, aa: true, answer: "sub.example.test. SOA"},
		{name: "sub.example.test", qtype: dns.TypeDS, aa: true, authority: denial + ", sub.example.test. NSEC, sub.example.test. RRSIG(NSEC)"},
		{name: "none.sub.example.test", qtype: dns.TypeA, rcode: dns.RcodeNameError, aa: true, authority: "sub.example.test. SOA"},
		// There is no zone "test", only a name without records in the root.
		{name: "test", qtype: dns.TypeA, aa: true, authority: ". NSEC, . RRSIG(NSEC), . RRSIG(SOA), . SOA"},
	} {
		reply := askServer(t, s, c.name, c.qtype, true)
		extra := slices.DeleteFunc(askServer(t, s, c.name, c.qtype, true).Extra, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeOPT })
		want := strings.Split(c.authority, ", ")
		slices.Sort(want)
		if reply.Rcode != c.rcode || reply.Authoritative != c.aa || section(reply.Answer) != c.answer ||
			section(reply.Ns) != strings.Join(want, ", ") || section(extra) != c.extra {
			t.Errorf("%s %s: %s\nanswer    %s\nauthority %s\nextra     %s", c.name, dns.TypeToString[c.qtype],
				dns.RcodeToString[reply.Rcode], section(reply.Answer), section(reply.Ns), section(extra))
		}
		for _, rr := range slices.Concat(askServer(t, s, c.name, c.qtype, false).Answer, askServer(t, s, c.name, c.qtype, false).Ns) {
			if h := rr.Header(); h.Rrtype == dns.TypeRRSIG || h.Rrtype == dns.TypeNSEC || h.Rrtype == dns.TypeDS {
				t.Errorf("without DO: %v", rr)
			}
		}
	}
	if got, want := strings.Join(s.Zones(), " "), ". example.test. sub.example.test."; got != want {
		t.Errorf("zones %s, want %s", got, want)
	}
}

// A cache must not hold what a test is about to change.
func TestServerTTLs(t *testing.T) {
	s, err := dnssec.Start(
		dnssec.Zone{Name: "low.test", Text: "a IN A 127.0.0.1\nb 500 IN A 127.0.0.1\nc IN A 127.0.0.1"},
		dnssec.Zone{Name: "set.test", TTL: 40, NegativeTTL: 50, Text: "a IN A 127.0.0.1\nb 500 IN A 127.0.0.1\nc IN A 127.0.0.1"},
		dnssec.Zone{Name: "soa.test", Text: "@ 70 IN SOA ns h 1 1 1 1 60"},
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Add("d.low.test. IN A 127.0.0.1\nd.set.test. IN A 127.0.0.1\ne.set.test. 7 IN A 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]uint32{
		"a.low.test": 1, "b.low.test": 500, "c.low.test": 1, "d.low.test": 1, "nowhere.low.test": 1,
		"a.set.test": 40, "b.set.test": 500, "c.set.test": 40, "d.set.test": 40, "e.set.test": 7, "nowhere.set.test": 50,
		"nowhere.soa.test": 60,
	} {
		reply := askServer(t, s, name, dns.TypeA, true)
		got := uint32(1 << 31)
		for _, rr := range reply.Answer {
			got = min(got, rr.Header().Ttl)
		}
		for _, rr := range reply.Ns {
			got = min(got, rr.Header().Ttl)
			if soa, ok := rr.(*dns.SOA); ok {
				got = min(got, soa.Minttl)
			}
		}
		if got != want {
			t.Errorf("%s: TTL %d, want %d", name, got, want)
		}
	}
}

func TestMalformedZonesAreRefused(t *testing.T) {
	for _, zones := range [][]dnssec.Zone{
		{{Name: "example.test", Text: "mx IN A not-an-address"}},
		{{Name: "example.test", Text: "elsewhere.test. IN A 127.0.0.1"}},
		{{Name: "example..test"}},
		{{Name: "example.test"}, {Name: "Example.Test."}},
		{{Name: "."}, {Name: "."}},
	} {
		if s, err := dnssec.Start(zones...); err == nil {
			t.Errorf("accepted: %v", zones)
			s.Stop()
		}
	}
	s, err := dnssec.Start(dnssec.Zone{Name: "example.test", Text: "a IN A 127.0.0.1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Set("a.example.test. IN A 127.0.0.2\na.example.test. IN A rubbish"); err == nil {
		t.Error("a malformed change is accepted")
	}
	if reply := askServer(t, s, "a.example.test", dns.TypeA, false); !strings.Contains(reply.String(), "127.0.0.1") {
		t.Errorf("half of it was done: %v", reply)
	}
	if err := s.SetSigning("nowhere.test", dnssec.Signed); !errors.Is(err, dnssec.ErrNoZone) {
		t.Errorf("signing a zone that is not there: %v", err)
	}
}
