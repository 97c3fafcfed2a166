package policyd

import (
	"flag"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/wire"
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

// What a warm message costs where something is broken about its domain, beside
// one to a healthy domain: messages go in turn, so that what disturbs the
// machine disturbs all alike. The figures are medians.
//
//	go test ./policyd -run TestWarmMessages -v -count 1 -args -warm 3000
func TestWarmMessages(t *testing.T) {
	l := newLab(t)
	bad, err := mx.Start(mx.Options{Addr: fmt.Sprintf("127.0.0.77:%d", l.port), Behaviour: mx.Behaviour{
		Keywords: mx.Pipelining, At: map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "450 4.7.25 no reverse DNS"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { bad.Stop() })
	kinds := []string{"healthy", "healthy-too", "AAAA-fails", "AAAA-silent", "TXT-silent", "dead-address", "450-address"}
	for i, kind := range kinds {
		l.zone(fmt.Sprintf("d%d.example. MX 10 mx.d%[1]d.example.\nmx.d%[1]d.example. A 127.0.0.1", i))
		domain := fmt.Sprintf("d%d.example", i)
		switch kind {
		case "AAAA-fails":
			l.dns.SetFault("mx."+domain, dns.TypeAAAA, labdns.ServFail)
		case "AAAA-silent":
			l.dns.SetFault("mx."+domain, dns.TypeAAAA, labdns.Silent)
		case "TXT-silent":
			l.dns.SetFault("_mta-sts."+domain, dns.TypeTXT, labdns.Silent)
		case "dead-address":
			l.zone("mx." + domain + ". A 127.0.0.78")
		case "450-address":
			l.zone("mx." + domain + ". A 127.0.0.77")
		}
	}
	r := l.daemon(l.yaml("", "    mx_auth: {dnssec: {}, dane: {}, mtasts: {cache: ram}}", ""))
	send := func(i int) time.Duration {
		start := time.Now()
		want(t, r.send(func(e *wire.Envelope) { e.Recipients[0].Address = fmt.Sprintf("b@d%d.example", i) }), "2.0.0")
		return time.Since(start)
	}
	took := make([][]time.Duration, len(kinds))
	for i := range kinds {
		send(i)
	}
	for n := range *warmMessages {
		for k := range kinds {
			i := (n + k) % len(kinds)
			took[i] = append(took[i], send(i))
		}
	}
	median := func(i int) float64 {
		slices.Sort(took[i])
		return float64(took[i][len(took[i])/2])
	}
	for i, kind := range kinds {
		t.Logf("%-14s %6.0f us, %.3f of a healthy one", kind, median(i)/1000, median(i)/median(0))
	}
}

var warmMessages = flag.Int("warm", 10, "how many warm messages go to each domain of TestWarmMessages")
