package resolver_test

import (
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// A server that takes no EDNS is asked without it. Nothing that it says is
// validated, whatever flags it sets.
func TestServerWithoutEDNS(t *testing.T) {
	for _, fault := range []labdns.Fault{labdns.NoEDNS, labdns.NoEDNSLying} {
		s, c := lab(t, zone), newClock()
		s.Secure("", true)
		s.SetFault("", dns.TypeANY, fault)
		r := open(t, resolver.Config{Now: c.Now}, s)
		if a := lookup(t, r, "example.org", dns.TypeMX); a.Len() != 1 || a.Secure {
			t.Errorf("fault %d: %+v", fault, a)
		}
		if q := s.Last("example.org", dns.TypeMX); q.IsEdns0() != nil || q.AuthenticatedData {
			t.Errorf("fault %d: the last query was %v", fault, q)
		}
		// It is known now.
		lookup(t, r, "mx.example.org", dns.TypeA)
		lookup(t, r, "none.example.org", dns.TypeA)
		if n := s.Queries("mx.example.org", dns.TypeA).UDP + s.Queries("none.example.org", dns.TypeA).UDP; n != 2 {
			t.Errorf("fault %d: %d questions for two names", fault, n)
		}
		if !r.Servers()[0].NoEDNS {
			t.Errorf("fault %d: it does not show", fault)
		}
		// Another resolver may answer there some day.
		s.SetFault("", dns.TypeANY)
		c.Pass(10 * time.Minute)
		if a := lookup(t, r, "example.org", dns.TypeMX); !a.Secure || r.Servers()[0].NoEDNS {
			t.Errorf("fault %d: with EDNS again: %+v", fault, a)
		}
		s.SetFault("", dns.TypeANY, fault)
		c.Pass(time.Hour)
		if e := fails(t, r, "example.org", dns.TypeMX); e.Kind != resolver.FormErr && e.Kind != resolver.NotImp {
			t.Errorf("fault %d: %v", fault, e)
		}
	}
}

// No one may turn DANE off by what one zone's servers, or a middlebox, or a
// passing trouble make of EDNS.
func TestEDNSIsNotGivenUp(t *testing.T) {
	for _, tc := range []struct {
		what string
		ill  func(t *testing.T, s *labdns.Server, r *resolver.Resolver)
		kind resolver.Kind
	}{
		{"one name alone is refused", func(_ *testing.T, s *labdns.Server, _ *resolver.Resolver) {
			s.SetFault("example.org", dns.TypeMX, labdns.NoEDNS)
		}, resolver.FormErr},
		{"the root is not answered", func(_ *testing.T, s *labdns.Server, _ *resolver.Resolver) {
			s.SetFault("", dns.TypeANY, labdns.NoEDNS)
			s.SetFault(".", dns.TypeSOA, labdns.Silent)
		}, resolver.FormErr},
		{"the root fails otherwise", func(_ *testing.T, s *labdns.Server, _ *resolver.Resolver) {
			s.SetFault("", dns.TypeANY, labdns.NoEDNS)
			s.SetFault(".", dns.TypeSOA, labdns.ServFail)
		}, resolver.FormErr},
		{"everything is dropped", func(_ *testing.T, s *labdns.Server, _ *resolver.Resolver) {
			s.SetFault("", dns.TypeANY, labdns.Silent)
		}, resolver.Timeout},
		{"it refuses everything, without EDNS too", func(_ *testing.T, s *labdns.Server, _ *resolver.Resolver) {
			s.SetFault("", dns.TypeANY, labdns.FormErr)
		}, resolver.FormErr},
		{"it has validated before", func(t *testing.T, s *labdns.Server, r *resolver.Resolver) {
			lookup(t, r, "mx.example.org", dns.TypeA)
			s.SetFault("", dns.TypeANY, labdns.NoEDNS)
		}, resolver.FormErr},
	} {
		s, c := lab(t, zone), newClock()
		s.Secure("", true)
		r := open(t, resolver.Config{Attempts: 1, Timeout: labdns.Timeout, Now: c.Now}, s)
		tc.ill(t, s, r)
		if e := fails(t, r, "example.org", dns.TypeMX); e.Kind != tc.kind {
			t.Errorf("%s: %v", tc.what, e)
		}
		if r.Servers()[0].NoEDNS {
			t.Errorf("%s: it is asked without EDNS from now on", tc.what)
		}
		s.SetFault("", dns.TypeANY)
		s.SetFault(".", dns.TypeSOA)
		s.SetFault("example.org", dns.TypeMX)
		c.Pass(5 * time.Second)
		if a := lookup(t, r, "example.org", dns.TypeMX); !a.Secure {
			t.Errorf("%s: afterwards %+v", tc.what, a)
		}
	}
}

// Who looks for the reason why nothing is signed finds it.
func TestProbeTellsOfEDNS(t *testing.T) {
	s := lab(t, zone)
	s.Secure("", true)
	for fault, want := range map[labdns.Fault]bool{labdns.Normal: false, labdns.NoEDNS: true, labdns.NoEDNSLying: true, labdns.FormErr: false} {
		s.SetFault("", dns.TypeANY, fault)
		probes, err := resolver.ProbeServers(t.Context(), resolver.Config{Servers: []string{s.Addr()}}, "example.org.")
		if err != nil {
			t.Fatal(err)
		}
		p := probes[0]
		if p.NoEDNS != want || want && (p.AD || p.Err != nil || !p.Recursive || p.EDNS != 0) || (fault == labdns.FormErr) != (p.Err != nil) {
			t.Errorf("fault %d: %+v", fault, p)
		}
	}
}
