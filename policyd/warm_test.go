package policyd

import (
	"fmt"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// A warm message asks no DNS, whatever is broken about it.
func TestWarmMessageAsksNoDNS(t *testing.T) {
	const everything = "    mx_auth: {dnssec: {}, dane: {}, mtasts: {cache: ram}}"
	for _, tt := range []struct {
		name string
		ill  func(*lab)
		want string
	}{
		{"healthy", func(*lab) {}, "2.0.0"},
		{"AAAA fails", func(l *lab) { l.dns.SetFault("mx.a.example", dns.TypeAAAA, labdns.ServFail) }, "2.0.0"},
		{"AAAA silent", func(l *lab) { l.dns.SetFault("mx.a.example", dns.TypeAAAA, labdns.Silent) }, "2.0.0"},
		{"A fails and AAAA is there", func(l *lab) {
			l.dns.SetFault("mx.a.example", dns.TypeA, labdns.ServFail)
			l.zone("mx.a.example. AAAA ::ffff:127.0.0.1")
		}, "2.0.0"},
		{"TXT fails", func(l *lab) { l.dns.SetFault("_mta-sts.a.example", dns.TypeTXT, labdns.ServFail) }, "2.0.0"},
		{"TXT silent", func(l *lab) { l.dns.SetFault("_mta-sts.a.example", dns.TypeTXT, labdns.Silent) }, "2.0.0"},
		{"one dead address", func(l *lab) { l.zone("mx.a.example. A 127.0.0.77") }, "2.0.0"},
		{"one address that says 450", func(l *lab) {
			bad, err := mx.Start(mx.Options{Addr: fmt.Sprintf("127.0.0.77:%d", l.port), Behaviour: mx.Behaviour{
				Keywords: mx.Pipelining, At: map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "450 4.7.25 no reverse DNS"}},
			}})
			if err != nil {
				l.t.Fatal(err)
			}
			l.t.Cleanup(func() { bad.Stop() })
			l.zone("mx.a.example. A 127.0.0.77")
		}, "2.0.0"},
		{"TLSA fails at a signed host", func(l *lab) {
			l.dns.Secure("a.example", true)
			l.dns.SetFault("", dns.TypeTLSA, labdns.ServFail)
		}, "4.7.5"},
		{"everything fails", func(l *lab) { l.dns.SetFault("", dns.TypeANY, labdns.ServFail) }, "4.4.3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab(t)
			tt.ill(l)
			r := l.daemon(l.yaml("", everything, ""))
			for range 10 {
				r.send(nil) // makes it warm
				begun, before := time.Now(), l.dns.Queries("", dns.TypeANY)
				for range 10 {
					want(t, r.send(nil), tt.want)
				}
				after := l.dns.Queries("", dns.TypeANY)
				if after == before {
					return
				}
				if time.Since(begun) < 4*time.Second {
					t.Fatalf("ten warm messages had %+v questions become %+v", before, after)
				}
				// A failure is remembered for five seconds at first, and
				// this machine is so slow that they are over.
			}
			t.Error("this machine is too slow to tell")
		})
	}
}

func (l *lab) zone(text string) {
	l.t.Helper()
	if err := l.dns.Add(text); err != nil {
		l.t.Fatal(err)
	}
}
