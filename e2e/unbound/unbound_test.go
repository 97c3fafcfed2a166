// Package unbound_test asks a real Unbound about the lab's signed zones: it
// must come to the verdicts that the lab's own validating front gives, and that
// all other tests rely on.
package unbound_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec/sample"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// serve starts a server and an Unbound before it.
func serve(t *testing.T, zones ...dnssec.Zone) (*dnssec.Server, *dnssec.Unbound) {
	t.Helper()
	s, err := dnssec.Start(zones...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	u, err := dnssec.StartUnbound(t.Context(), s, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(u.Stop)
	return s, u
}

func ask(t *testing.T, addr, name string, qtype uint16) *dns.Msg {
	t.Helper()
	reply, err := sample.Ask(addr, name, qtype)
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return reply
}

func TestUnboundAndTheLabsFrontAgree(t *testing.T) {
	t.Parallel()
	s, u := serve(t, sample.Zones()...)
	sample.Spoil(s)
	f, err := dnssec.NewFront(s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	for _, want := range sample.Questions() {
		real, own := ask(t, u.Addr(), want.Name, want.Type), ask(t, f.Addr(), want.Name, want.Type)
		want.Name = dns.Fqdn(want.Name)
		if got := sample.Read(real); got != want {
			t.Errorf("Unbound: %v\nwant     %v\n%v", got, want, real)
		}
		if got := sample.Read(own); got != want {
			t.Errorf("front: %v\nwant   %v\n%v", got, want, own)
		}
	}
	if t.Failed() {
		t.Log(u.Log())
	}
}

// A mended record is seen as soon as its TTL has passed, and one that Unbound
// could not find or believe a second later.
func TestUnboundSeesChangesSoon(t *testing.T) {
	t.Parallel()
	const name = "_25._tcp.mx.example.test"
	s, u := serve(t, dnssec.Zone{Name: "example.test", Text: "mx IN A 127.0.0.1"})
	steps := []struct {
		what   string
		change func() error
		want   sample.Question
	}{
		{"no record", func() error { return nil }, sample.Question{Verdict: sample.Secure, Rcode: dns.RcodeNameError}},
		{"a record", func() error { return s.Add(name + ". IN TLSA 3 1 1 " + strings.Repeat("00", 32)) }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"two records", func() error { return s.Add(name + ". IN TLSA 3 1 1 " + strings.Repeat("11", 32)) }, sample.Question{Verdict: sample.Secure, Records: 2}},
		{"another record", func() error { return s.Set(name + ". IN TLSA 3 1 1 " + strings.Repeat("22", 32)) }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"a broken signature", func() error { s.Fault(name, dns.TypeTLSA, dnssec.BadSignature); return nil }, sample.Question{Verdict: sample.Failed}},
		{"mended", func() error { s.Fault(name, dns.TypeTLSA, dnssec.Sound); return nil }, sample.Question{Verdict: sample.Secure, Records: 1}},
		{"gone", func() error { s.Remove(name, dns.TypeTLSA); return nil }, sample.Question{Verdict: sample.Secure, Rcode: dns.RcodeNameError}},
		{"unsigned", func() error { return s.SetSigning("example.test", dnssec.Unsigned) }, sample.Question{Verdict: sample.Insecure, Rcode: dns.RcodeNameError}},
		{"a new zone", func() error {
			return s.AddZone(dnssec.Zone{Name: "mx.example.test", Text: "_25._tcp IN TLSA 3 1 1 " + strings.Repeat("00", 32)})
		}, sample.Question{Verdict: sample.Insecure, Records: 1}},
	}
	for _, step := range steps {
		if err := step.change(); err != nil {
			t.Fatal(err)
		}
		step.want.Name, step.want.Type = name+".", dns.TypeTLSA
		got := sample.Question{}
		for deadline := time.Now().Add(time.Minute); got != step.want; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s: got %v, want %v\n%s", step.what, got, step.want, u.Log())
			}
			got = sample.Read(ask(t, u.Addr(), name, dns.TypeTLSA))
		}
	}
}

func TestUnboundIsStoppedAndComesBack(t *testing.T) {
	t.Parallel()
	s, u := serve(t, dnssec.Zone{Name: "example.test", Text: "mx 600 IN A 127.0.0.1"})
	if got := sample.Read(ask(t, u.Addr(), "mx.example.test", dns.TypeA)); got.Verdict != sample.Secure {
		t.Fatal(got)
	}
	u.Stop()
	u.Stop()
	if reply, err := sample.Ask(u.Addr(), "mx.example.test", dns.TypeA); err == nil {
		t.Fatalf("a stopped Unbound answers: %v", reply)
	}
	addr := u.Addr()
	if err := u.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := sample.Read(ask(t, addr, "mx.example.test", dns.TypeA)); got.Verdict != sample.Secure || got.Records != 1 {
		t.Fatal(got)
	}
	if n := s.Queries("mx.example.test", dns.TypeA); n < 2 {
		t.Errorf("%d queries reached the server: the cache was kept", n)
	}
}

func TestUnboundThatCannotRunSaysWhy(t *testing.T) {
	t.Parallel()
	s, _ := serve(t)
	if _, err := dnssec.StartUnbound(t.Context(), s, t.TempDir()+"/none"); err == nil {
		t.Fatal("it runs in a directory that does not exist")
	}
	// A directory whose name cannot stand in a configuration.
	dir := t.TempDir() + "/quoted\" name"
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := dnssec.StartUnbound(t.Context(), s, dir)
	if err == nil || !strings.Contains(err.Error(), "unbound.conf:") {
		t.Fatalf("the error does not show what Unbound says: %v", err)
	}
}
