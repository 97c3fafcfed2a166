package dnssec_test

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec/sample"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// serve starts a server, and a front before it.
func serve(t *testing.T, zones ...dnssec.Zone) (*dnssec.Server, *dnssec.Front) {
	t.Helper()
	s, err := dnssec.Start(zones...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	f, err := dnssec.NewFront(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return s, f
}

func ask(t *testing.T, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	reply, err := sample.Ask(addr, name, qtype)
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return reply
}

func TestFrontGivesEachVerdict(t *testing.T) {
	s, f := serve(t, sample.Zones()...)
	sample.Spoil(s)
	for _, want := range sample.Questions() {
		reply := ask(t, f.Addr(), want.Name, want.Type)
		want.Name = dns.Fqdn(want.Name)
		if got := sample.Read(reply); got != want {
			t.Errorf("got  %v\nwant %v\n%v", got, want, reply)
		}
	}
}

// The reasons of RFC 8914 are what an administrator sees in mxpolicyd's log.
func TestFrontSaysWhyValidationFails(t *testing.T) {
	s, f := serve(t, sample.Zones()...)
	sample.Spoil(s)
	s.Fault("good.test", dns.TypeSOA, dnssec.NoSignature)
	for name, code := range map[string]uint16{
		"mx.expired.test":      dns.ExtendedErrorCodeSignatureExpired,
		"mx.future.test":       dns.ExtendedErrorCodeSignatureNotYetValid,
		"mx.bad.test":          dns.ExtendedErrorCodeDNSBogus,
		"mx.wrongds.test":      dns.ExtendedErrorCodeDNSKEYMissing,
		"mx.stripped.test":     dns.ExtendedErrorCodeDNSKEYMissing,
		"expiredset.good.test": dns.ExtendedErrorCodeSignatureExpired,
		"nosig.good.test":      dns.ExtendedErrorCodeRRSIGsMissing,
		"nowhere.good.test":    dns.ExtendedErrorCodeRRSIGsMissing,
	} {
		reply := ask(t, f.Addr(), name, dns.TypeA)
		var got []uint16
		for _, option := range reply.IsEdns0().Option {
			if ede, ok := option.(*dns.EDNS0_EDE); ok {
				got = append(got, ede.InfoCode)
			}
		}
		if reply.Rcode != dns.RcodeServerFailure || !slices.Equal(got, []uint16{code}) {
			t.Errorf("%s: %s, %v, want %d", name, dns.RcodeToString[reply.Rcode], got, code)
		}
	}
}

// RFC 4035 §3.2, RFC 6840 §5.7: what a stub resolver gets depends on the flags
// it sets.
func TestFrontHeedsFlags(t *testing.T) {
	_, f := serve(t, sample.Zones()...)
	for _, c := range []struct {
		name                string
		ad, do, cd          bool
		wantAD, wantSigs    bool
		rcode, answer, tail int // tail: records in the authority section
	}{
		{name: "mx.good.test.", answer: 1},
		{name: "mx.good.test.", ad: true, wantAD: true, answer: 1},
		{name: "mx.good.test.", do: true, wantAD: true, wantSigs: true, answer: 2},
		{name: "mx.good.test.", cd: true, do: true, wantSigs: true, answer: 2},
		{name: "mx.bad.test.", ad: true, rcode: dns.RcodeServerFailure},
		{name: "mx.bad.test.", ad: true, cd: true, answer: 1},
		{name: "nowhere.good.test.", ad: true, wantAD: true, rcode: dns.RcodeNameError, tail: 1},
		{name: "nowhere.good.test.", do: true, wantAD: true, rcode: dns.RcodeNameError, tail: 6},
	} {
		query := new(dns.Msg).SetQuestion(c.name, dns.TypeA)
		query.AuthenticatedData, query.CheckingDisabled = c.ad, c.cd
		if c.do {
			query.SetEdns0(1232, true)
		}
		reply, _, err := (&dns.Client{Timeout: 10 * time.Second}).Exchange(query, f.Addr())
		if err != nil {
			t.Fatal(err)
		}
		sigs := slices.ContainsFunc(reply.Answer, func(rr dns.RR) bool { return rr.Header().Rrtype == dns.TypeRRSIG })
		if reply.Rcode != c.rcode || reply.AuthenticatedData != c.wantAD || sigs != c.wantSigs ||
			len(reply.Answer) != c.answer || len(reply.Ns) != c.tail || !reply.RecursionAvailable {
			t.Errorf("%+v:\n%v", c, reply)
		}
	}
}

func TestFrontRefusesWhatCannotBeLookedUp(t *testing.T) {
	_, f := serve(t)
	for qtype, rcode := range map[uint16]int{dns.TypeANY: dns.RcodeNotImplemented, dns.TypeAXFR: dns.RcodeNotImplemented, dns.TypeRRSIG: dns.RcodeNotImplemented} {
		if reply := ask(t, f.Addr(), "test", qtype); reply.Rcode != rcode {
			t.Errorf("%s: %v", dns.TypeToString[qtype], reply)
		}
	}
}

// A change is seen by the next question, whatever its TTL.
func TestFrontSeesChangesAtOnce(t *testing.T) {
	const name = "_25._tcp.mx.example.test"
	const record = name + ". 3600 IN TLSA 3 1 1 "
	s, f := serve(t, dnssec.Zone{Name: "example.test", Text: "mx 3600 IN A 127.0.0.1"})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		what   string
		change func()
		want   sample.Question
	}{
		{"no record", func() {}, sample.Question{Verdict: sample.Secure, Rcode: dns.RcodeNameError}},
		{"a record", func() { must(s.Add(record + strings.Repeat("00", 32))) }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"two records", func() { must(s.Add(record + strings.Repeat("11", 32))) }, sample.Question{Verdict: sample.Secure, Records: 2}},
		{"others", func() {
			must(s.Set(record + strings.Repeat("22", 32) + "\n" + record + strings.Repeat("33", 32) + "\n" + record + strings.Repeat("44", 32)))
		}, sample.Question{Verdict: sample.Secure, Records: 3}},
		{"a broken signature", func() { s.Fault(name, dns.TypeTLSA, dnssec.BadSignature) }, sample.Question{Verdict: sample.Failed}},
		{"mended", func() { s.Fault(name, dns.TypeTLSA, dnssec.Sound) }, sample.Question{Verdict: sample.Secure, Records: 3}},
		{"the zone expired", func() { must(s.SetSigning("example.test", dnssec.Expired)) }, sample.Question{Verdict: sample.Failed}},
		{"and signed again", func() { must(s.SetSigning("example.test", dnssec.Signed)) }, sample.Question{Verdict: sample.Secure, Records: 3}},
		{"gone", func() { s.Remove(name, dns.TypeTLSA) }, sample.Question{Verdict: sample.Secure, Rcode: dns.RcodeNameError}},
		{"unsigned", func() { must(s.SetSigning("example.test", dnssec.Unsigned)) }, sample.Question{Verdict: sample.Insecure, Rcode: dns.RcodeNameError}},
		{"a zone below", func() {
			must(s.AddZone(dnssec.Zone{Name: "mx.example.test", Text: "_25._tcp IN TLSA 3 1 1 " + strings.Repeat("00", 32)}))
		}, sample.Question{Verdict: sample.Insecure, Records: 1}},
		{"signed above it", func() { must(s.SetSigning("example.test", dnssec.Signed)) }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"a zone between", func() { must(s.AddZone(dnssec.Zone{Name: "test"})) }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"that is bogus", func() { must(s.SetSigning("test", dnssec.BadSignatures)) }, sample.Question{Verdict: sample.Failed}},
	} {
		step.change()
		step.want.Name, step.want.Type = name+".", dns.TypeTLSA
		if got := sample.Read(ask(t, f.Addr(), name, dns.TypeTLSA)); got != step.want {
			t.Errorf("%s:\ngot  %v\nwant %v", step.what, got, step.want)
		}
	}
}

func TestFrontIsStoppedAndComesBack(t *testing.T) {
	s, f := serve(t, dnssec.Zone{Name: "example.test", Text: "mx IN A 127.0.0.1"})
	addr := f.Addr()
	secure := func() {
		t.Helper()
		if got := sample.Read(ask(t, addr, "mx.example.test", dns.TypeA)); got.Verdict != sample.Secure {
			t.Fatal(got)
		}
	}
	secure()
	f.Stop()
	f.Stop()
	for _, network := range []string{"udp", "tcp"} {
		query := new(dns.Msg).SetQuestion("mx.example.test.", dns.TypeA)
		if reply, _, err := (&dns.Client{Net: network, Timeout: 10 * time.Second}).Exchange(query, addr); err == nil {
			t.Errorf("a stopped front answers over %s: %v", network, reply)
		}
	}
	if err := f.Restart(); err != nil {
		t.Fatal(err)
	}
	if err := f.Restart(); err != nil {
		t.Fatal(err)
	}
	secure()

	s.Stop()
	if got := sample.Read(ask(t, addr, "mx.example.test", dns.TypeA)); got.Verdict != sample.Failed {
		t.Errorf("without a server: %v", got)
	}
	if err := s.Restart(); err != nil {
		t.Fatal(err)
	}
	secure()
	if f.Addr() != addr {
		t.Errorf("the address changed from %s to %s", addr, f.Addr())
	}
	if n := f.Queries("MX.example.test", dns.TypeA); n != 4 {
		t.Errorf("%d queries", n)
	}
	if n := f.Queries("", dns.TypeANY); n != 4 {
		t.Errorf("%d queries at all", n)
	}
	f.Reset()
	if n := f.Queries("", dns.TypeANY); n != 0 {
		t.Errorf("%d queries after a reset", n)
	}
}

func TestFrontServesManyAtOnce(t *testing.T) {
	s, f := serve(t, sample.Zones()...)
	sample.Spoil(s)
	var group sync.WaitGroup
	defer group.Wait()
	for i := range 8 {
		group.Go(func() {
			for _, want := range sample.Questions()[i*5 : i*5+10] {
				reply, err := sample.Ask(f.Addr(), want.Name, want.Type)
				if err != nil {
					t.Error(err)
					return
				}
				want.Name = dns.Fqdn(want.Name)
				if got := sample.Read(reply); got != want {
					t.Errorf("got %v, want %v", got, want)
				}
			}
		})
	}
	for range 20 {
		if err := s.SetSigning("good.test", dnssec.Signed); err != nil {
			t.Error(err)
		}
	}
}
