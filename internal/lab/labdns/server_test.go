package labdns_test

import (
	"errors"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func start(t *testing.T, zone string) *labdns.Server {
	t.Helper()
	s, err := labdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Add(zone); err != nil {
		t.Fatal(err)
	}
	return s
}

func ask(t *testing.T, s *labdns.Server, name string, qtype uint16, network string) *dns.Msg {
	t.Helper()
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	query.SetEdns0(1232, true)
	reply, _, err := (&dns.Client{Net: network, Timeout: 10 * labdns.Timeout}).ExchangeContext(t.Context(), query, s.Addr())
	if err != nil {
		t.Fatalf("%s %s over %s: %v", name, dns.TypeToString[qtype], network, err)
	}
	return reply
}

const zone = `
$ORIGIN example.org.
@      3600 IN SOA ns hostmaster 1 3600 600 86400 60
@      IN MX 10 mx
@      IN MX 20 mx.b
mx     IN A 192.0.2.1
alias  IN CNAME mx
plain  IN CNAME outside.example.
outside.example. IN A 192.0.2.9
`

// A server that is down has its ports closed, and is itself again afterwards.
func TestDown(t *testing.T) {
	s := start(t, zone)
	ask(t, s, "mx.example.org", dns.TypeA, "udp")
	up := s.Down()
	for _, network := range []string{"udp", "tcp"} {
		query := new(dns.Msg).SetQuestion("mx.example.org.", dns.TypeA)
		if _, _, err := (&dns.Client{Net: network}).ExchangeContext(t.Context(), query, s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("%s: %v", network, err)
		}
	}
	if err := up(); err != nil {
		t.Fatal(err)
	}
	for _, network := range []string{"udp", "tcp"} {
		if r := ask(t, s, "mx.example.org", dns.TypeA, network); len(r.Answer) != 1 {
			t.Errorf("%s: %v", network, r)
		}
	}
	s.Down()
	s.Stop()
}

func TestAnswers(t *testing.T) {
	s := start(t, zone)
	s.Secure("example.org", true)
	s.Secure("unsigned.example.org", false)
	for _, c := range []struct {
		name   string
		qtype  uint16
		rcode  int
		answer int
		secure bool
	}{
		{"example.org", dns.TypeMX, dns.RcodeSuccess, 2, true},
		{"EXAMPLE.org", dns.TypeMX, dns.RcodeSuccess, 2, true},
		{"alias.example.org", dns.TypeA, dns.RcodeSuccess, 2, true},
		{"alias.example.org", dns.TypeAAAA, dns.RcodeSuccess, 1, true},
		{"alias.example.org", dns.TypeCNAME, dns.RcodeSuccess, 1, true},
		{"plain.example.org", dns.TypeA, dns.RcodeSuccess, 2, false},
		{"mx.example.org", dns.TypeAAAA, dns.RcodeSuccess, 0, true},
		{"none.example.org", dns.TypeA, dns.RcodeNameError, 0, true},
		{"none.unsigned.example.org", dns.TypeA, dns.RcodeNameError, 0, false},
		// an empty non-terminal (RFC 8020 §2)
		{"example", dns.TypeA, dns.RcodeSuccess, 0, false},
		{"nowhere.test", dns.TypeA, dns.RcodeNameError, 0, false},
	} {
		r := ask(t, s, c.name, c.qtype, "udp")
		if r.Rcode != c.rcode || len(r.Answer) != c.answer || r.AuthenticatedData != c.secure {
			t.Errorf("%s %s: %s, %d records, AD %v", c.name, dns.TypeToString[c.qtype], dns.RcodeToString[r.Rcode], len(r.Answer), r.AuthenticatedData)
		}
		negative := len(r.Ns) == 1 && r.Ns[0].Header().Rrtype == dns.TypeSOA
		if last := c.answer == 0; last != negative && c.qtype != dns.TypeAAAA {
			t.Errorf("%s: SOA %v", c.name, negative)
		}
	}
	r := ask(t, s, "none.example.org", dns.TypeA, "tcp")
	if soa, ok := r.Ns[0].(*dns.SOA); !ok || soa.Hdr.Name != "example.org." || soa.Minttl != 60 {
		t.Errorf("a negative answer carries %v", r.Ns[0])
	}
}

func TestFaults(t *testing.T) {
	s := start(t, zone)
	for fault, rcode := range map[labdns.Fault]int{
		labdns.Normal: dns.RcodeSuccess, labdns.ServFail: dns.RcodeServerFailure, labdns.Bogus: dns.RcodeServerFailure,
		labdns.Refused: dns.RcodeRefused, labdns.NotImp: dns.RcodeNotImplemented, labdns.FormErr: dns.RcodeFormatError,
		labdns.BareRefused: dns.RcodeRefused, labdns.NoEDNS: dns.RcodeFormatError, labdns.NoEDNSLying: dns.RcodeNotImplemented,
	} {
		s.SetFault("mx.example.org", dns.TypeA, fault)
		if r := ask(t, s, "mx.example.org", dns.TypeA, "udp"); r.Rcode != rcode {
			t.Errorf("fault %d: %s", fault, dns.RcodeToString[r.Rcode])
		}
	}
	s.SetFault("mx.example.org", dns.TypeA, labdns.Refused)
	s.SetFault("mx.example.org", dns.TypeANY, labdns.ServFail)
	if r := ask(t, s, "mx.example.org", dns.TypeA, "udp"); r.Rcode != dns.RcodeRefused {
		t.Errorf("the fault of the type does not outrank that of the name: %s", dns.RcodeToString[r.Rcode])
	}
	if r := ask(t, s, "mx.example.org", dns.TypeAAAA, "udp"); r.Rcode != dns.RcodeServerFailure {
		t.Errorf("a fault for all types: %s", dns.RcodeToString[r.Rcode])
	}
	s.SetFault("", dns.TypeMX, labdns.ServFail, labdns.Refused, labdns.Normal)
	var got []int
	for range 4 {
		got = append(got, ask(t, s, "example.org", dns.TypeMX, "udp").Rcode)
	}
	if !slices.Equal(got, []int{dns.RcodeServerFailure, dns.RcodeRefused, 0, 0}) {
		t.Errorf("faults in a row: %v", got)
	}
	s.SetFault("example.org", dns.TypeMX, labdns.Truncate)
	if r := ask(t, s, "example.org", dns.TypeMX, "udp"); !r.Truncated || len(r.Answer) != 0 {
		t.Error("not truncated over UDP")
	}
	if r := ask(t, s, "example.org", dns.TypeMX, "tcp"); r.Truncated || len(r.Answer) != 2 {
		t.Error("truncated over TCP")
	}
}

func TestLargeAnswersAreTruncatedByThemselves(t *testing.T) {
	s := start(t, "")
	var b strings.Builder
	for i := range 60 {
		b.WriteString("big.example. IN TXT " + strings.Repeat(string(rune('a'+i%26)), 100) + "\n")
	}
	if err := s.Add(b.String()); err != nil {
		t.Fatal(err)
	}
	if r := ask(t, s, "big.example", dns.TypeTXT, "udp"); !r.Truncated {
		t.Error("not truncated over UDP")
	}
	if r := ask(t, s, "big.example", dns.TypeTXT, "tcp"); r.Truncated || len(r.Answer) != 60 {
		t.Error("not whole over TCP")
	}
}

func TestCountsHoldsAndChanges(t *testing.T) {
	s := start(t, zone)
	release := s.Hold("mx.example.org", dns.TypeA)
	got := make(chan *dns.Msg)
	go func() { got <- ask(t, s, "mx.example.org", dns.TypeA, "tcp") }()
	for s.Queries("mx.example.org", dns.TypeA).TCP == 0 {
		select {
		case <-got:
			t.Fatal("answered while held")
		default:
			runtime.Gosched()
		}
	}
	release()
	if r := <-got; len(r.Answer) != 1 {
		t.Error("no answer after the release")
	}
	ask(t, s, "Example.ORG", dns.TypeMX, "udp")
	if n := s.Queries("", dns.TypeANY); n != (labdns.Count{UDP: 1, TCP: 1}) {
		t.Errorf("counted %+v", n)
	}
	if s.Last("example.org", dns.TypeMX).IsEdns0() == nil || s.Last("mx.example.org", dns.TypeMX) != nil {
		t.Error("the last query is not the last query")
	}
	s.Reset()
	if n := s.Queries("", dns.TypeANY); n != (labdns.Count{}) {
		t.Errorf("after Reset %+v", n)
	}
	s.Remove("mx.example.org", dns.TypeA)
	if r := ask(t, s, "mx.example.org", dns.TypeA, "udp"); r.Rcode != dns.RcodeNameError {
		t.Errorf("after Remove: %s", dns.RcodeToString[r.Rcode])
	}
	if err := s.Add("not a record"); err == nil {
		t.Error("Add took nonsense")
	}
}

func TestStopWithQueriesHeld(t *testing.T) {
	s := start(t, zone)
	s.Hold("", dns.TypeANY)
	failed := make(chan error)
	go func() {
		query := new(dns.Msg).SetQuestion("example.org.", dns.TypeMX)
		_, _, err := (&dns.Client{Net: "tcp"}).Exchange(query, s.Addr())
		failed <- err
	}()
	for s.Queries("", dns.TypeANY).TCP == 0 {
		runtime.Gosched()
	}
	s.Stop()
	s.Stop()
	if err := <-failed; err == nil {
		t.Error("a held query was answered by a stopped server")
	}
}
