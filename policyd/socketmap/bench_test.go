package socketmap

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// internet is a transport that has all mechanisms on, before a DNS server that
// makes up domains of two hosts each: with DANE, with MTA-STS, with neither. It
// costs as little as a DNS server can, as it is not what is measured.
type internet struct {
	*transport.Transport
	questions atomic.Int64
	cold      atomic.Int64 // domains that were never asked for
}

// domains is how many there are of a sort.
const domains = 300

// warm gives one of the domains that are asked for again and again.
func warm(i int) string {
	return fmt.Sprintf("%s%d.example", [...]string{"dane", "sts", "none"}[i%3], i/3%domains)
}

// unseen gives a domain that was not asked for before.
func (n *internet) unseen() string { return fmt.Sprintf("new%d.example", n.cold.Add(1)) }

// ServeDNS implements dns.Handler.
func (n *internet) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	n.questions.Add(1)
	answer := new(dns.Msg).SetReply(query)
	q := query.Question[0]
	answer.AuthenticatedData = strings.Contains(q.Name, "dane")
	header := dns.RR_Header{Name: q.Name, Rrtype: q.Qtype, Class: dns.ClassINET, Ttl: 3600}
	switch {
	case q.Qtype == dns.TypeMX:
		answer.Answer = []dns.RR{&dns.MX{Hdr: header, Preference: 10, Mx: "mx1." + q.Name}, &dns.MX{Hdr: header, Preference: 20, Mx: "mx2." + q.Name}}
	case q.Qtype == dns.TypeA:
		answer.Answer = []dns.RR{&dns.A{Hdr: header, A: net.IPv4(192, 0, 2, 1)}}
	case q.Qtype == dns.TypeTLSA && answer.AuthenticatedData:
		answer.Answer = []dns.RR{&dns.TLSA{Hdr: header, Usage: 3, Selector: 1, MatchingType: 1, Certificate: strings.Repeat("ab", 32)}}
	case q.Qtype == dns.TypeTXT && strings.HasPrefix(q.Name, "_mta-sts.sts"):
		answer.Answer = []dns.RR{&dns.TXT{Hdr: header, Txt: []string{"v=STSv1; id=1;"}}}
	default:
		header.Name, header.Rrtype = "example.", dns.TypeSOA
		answer.Ns = []dns.RR{&dns.SOA{Hdr: header, Ns: "ns.example.", Mbox: "hostmaster.example.", Serial: 1, Refresh: 1, Retry: 1, Expire: 1, Minttl: 3600}}
	}
	// The resolver notices when an answer does not come.
	_ = w.WriteMsg(answer)
}

func newInternet(b *testing.B) *internet {
	n := &internet{}
	must := func(err error) {
		b.Helper()
		if err != nil {
			b.Fatal(err)
		}
	}
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	must(err)
	server := &dns.Server{PacketConn: packets, Handler: n}
	ended := make(chan error, 1)
	go func() { ended <- server.ActivateAndServe() }()
	b.Cleanup(func() {
		must(server.Shutdown())
		must(<-ended)
	})
	r, err := resolver.New(resolver.Config{Servers: []string{packets.LocalAddr().String()}})
	must(err)
	b.Cleanup(r.Close)
	known := policycache.New(policycache.Config{Resolver: texts{r}, Fetcher: web{}, Store: store.NewRAM(1 << 20)})
	b.Cleanup(known.Close)
	n.Transport, err = transport.New(&transport.Config{
		Name: "default", Hostname: "client.example", Port: 25, ConnectTimeout: time.Minute,
		MXAuth: transport.PolicySet{DNSSEC: true, DANE: true, MTASTS: &transport.MTASTS{}},
	}, transport.Deps{
		Resolver: r, Logger: slog.New(slog.DiscardHandler),
		Policies: func(*transport.MTASTS, *x509.CertPool) (plan.Policies, error) { return known, nil },
	})
	must(err)
	b.Cleanup(n.Close)
	return n
}

// texts looks TXT records up.
type texts struct{ *resolver.Resolver }

// TXT implements policycache.Resolver.
func (t texts) TXT(ctx context.Context, name string) (policycache.Answer, error) {
	a, err := t.Lookup(ctx, name, resolver.TypeTXT)
	if err != nil {
		return policycache.Answer{Expires: time.Now()}, err
	}
	return policycache.Answer{Found: a.Existence == resolver.Exists, Texts: a.Texts(), Expires: a.Expires}, nil
}

// web has the same policy for everybody.
type web struct{}

// Fetch implements policycache.Fetcher.
func (web) Fetch(_ context.Context, domain string) (mtasts.Policy, error) {
	return mtasts.Policy{Mode: mtasts.ModeEnforce, MaxAge: time.Hour, MX: []string{"*." + domain}}, nil
}

// BenchmarkLookup measures look-ups over a unix socket, as many at once as
// there are processors for both sides, each connection waiting for its reply as
// Postfix does: warm, and with one domain in ten that nothing asked for before.
func BenchmarkLookup(b *testing.B) {
	for _, tt := range []struct {
		name  string
		every int // one in so many is a miss; 0: none
	}{{"warm", 0}, {"misses=10%", 10}} {
		b.Run(tt.name, func(b *testing.B) {
			n := newInternet(b)
			log := slog.New(slog.DiscardHandler)
			s := New(Config{Default: "default", Logger: log, Transport: func(string) (Transport, bool) { return Transport{n, func() {}}, true }}, accept.New(1000, log))
			l, err := net.Listen("unix", filepath.Join(b.TempDir(), "s"))
			if err != nil {
				b.Fatal(err)
			}
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- s.Serve(ctx, ctx, l) }()
			defer func() {
				stop()
				if err := <-ended; err != nil {
					b.Error(err)
				}
				s.Wait()
			}()
			for i := range 3 * domains {
				if _, err := n.Text(ctx, warm(i), 0, policyWriter); err != nil {
					b.Fatal(err)
				}
			}
			asked := n.questions.Load()
			b.ReportAllocs()
			b.SetParallelism(8)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				conn, err := net.Dial("unix", l.Addr().String())
				if err != nil {
					b.Error(err)
					return
				}
				defer conn.Close()
				in := netstring.NewReader(conn, maxReply)
				var out []byte
				for i := 0; pb.Next(); i++ {
					domain, want := warm(i), [...]string{"OK dane-only", "OK secure", "NOTFOUND"}[i%3]
					if tt.every > 0 && i%tt.every == tt.every-1 {
						domain, want = n.unseen(), "NOTFOUND"
					}
					out = netstring.Append(out[:0], "policy "+domain)
					if _, err := conn.Write(out); err != nil {
						b.Error(err)
						return
					}
					if got, err := in.Next(); err != nil || !strings.HasPrefix(string(got), want) {
						b.Errorf("%s: %q, %v", domain, got, err)
						return
					}
				}
			})
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "lookups/s")
			b.ReportMetric(float64(n.questions.Load()-asked)/float64(b.N), "questions/op")
		})
	}
}

// BenchmarkText measures what is behind a warm look-up.
func BenchmarkText(b *testing.B) {
	for i, name := range []string{"dane", "sts", "none"} {
		b.Run(name, func(b *testing.B) {
			n := newInternet(b)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := n.Text(b.Context(), warm(i), 0, policyWriter); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
