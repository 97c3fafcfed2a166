package siege

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

const bad = "Subject: bad\r\n\r\nbad\r\n"

// zones are hostile zones.
func zones() []attack {
	return []attack{
		{
			name: "silent zone", most: 60,
			does: "mail to, and questions for, 600 names at a time of a zone whose servers are silent",
			run: func(ctx context.Context, f *field) error {
				name := func(n int) string {
					domain := fmt.Sprintf("n%d.silent.bad.example", n)
					f.dns.SetFault(domain, dns.TypeANY, labdns.Silent)
					return domain
				}
				var all sync.WaitGroup
				all.Go(func() { f.ask(ctx, f.n(500), func(n int) string { return name(2 * n) }) })
				all.Go(func() { f.mail(ctx, f.n(100), bad, func(n int) []string { return []string{"x@" + name(2*n+1)} }) })
				all.Wait()
				return nil
			},
		},
		{
			name: "thousands", most: 100,
			does: "mail to 50 domains with 1,000 MX records each, to hosts with 1,000 addresses each",
			run: func(ctx context.Context, f *field) error {
				domains := f.n(50)
				for d := range domains {
					var zone strings.Builder
					for i := range 1000 {
						fmt.Fprintf(&zone, "d%d.many.bad.example. MX %d h%d.many.bad.example.\n", d, i, (d*7+i)%domains)
						fmt.Fprintf(&zone, "h%d.many.bad.example. A 127.32.%d.%d\n", d, i/250, i%250+1)
					}
					if err := f.dns.Add(zone.String()); err != nil {
						return err
					}
				}
				f.mail(ctx, f.n(processes), bad, func(n int) []string { return []string{fmt.Sprintf("x@d%d.many.bad.example", n%domains)} })
				return nil
			},
		},
		{
			// Answers have 128 MiB, plans 64 MiB, histories and keys the rest.
			name: "made-up names", most: 400,
			does: "mail, 200 recipients each, to names that do not exist, of 200 bytes, with a sender domain each",
			run: func(ctx context.Context, f *field) error {
				long := strings.Repeat(strings.Repeat("a", 60)+".", 3)
				f.mail(ctx, f.n(processes), bad, func(n int) (list []string) {
					for i := range f.n(200) {
						list = append(list, fmt.Sprintf("x@%sn%d-%d.nowhere.bad.example", long, n, i))
					}
					return list
				})
				return nil
			},
		},
	}
}

// policies are hostile policy hosts.
func policies() []attack {
	publish := func(f *field, domain string, web string) error {
		return f.dns.Add(fmt.Sprintf("%s. MX 10 mx.%[1]s.\nmx.%[1]s. A 127.33.0.1\n_mta-sts.%[1]s. 1 TXT \"v=STSv1; id=1;\"\nmta-sts.%[1]s. A %[2]s\n", domain, web))
	}
	return []attack{
		{
			name: "silent policy hosts", most: 60,
			does: "mail to, and questions for, 220 domains at a time whose policy hosts accept TCP and never speak",
			run: func(ctx context.Context, f *field) error {
				addr := f.address()
				stop, err := f.listen(fmt.Sprintf("%s:%d", addr, f.web.Addr().Port()), func(conn net.Conn) { <-ctx.Done() })
				if err != nil {
					return err
				}
				defer stop()
				var failed error
				var mu sync.Mutex
				name := func(n int) string {
					domain := fmt.Sprintf("p%d.mute.bad.example", n)
					mu.Lock()
					defer mu.Unlock()
					failed = errors.Join(failed, publish(f, domain, addr))
					return domain
				}
				var all sync.WaitGroup
				all.Go(func() { f.ask(ctx, f.n(200), func(n int) string { return name(2 * n) }) })
				all.Go(func() {
					f.mail(ctx, f.n(processes), bad, func(n int) []string { return []string{"x@" + name(2*n+1)} })
				})
				all.Wait()
				return failed
			},
		},
		{
			name: "huge policies", most: 100,
			does: "mail to 100 domains whose policies are endless, too large, half, or behind a megabyte of header",
			run: func(ctx context.Context, f *field) error {
				domains, faults := f.n(100), []sts.Fault{sts.Endless, sts.Oversize, sts.HugeHeader, sts.HalfBody, sts.Silent}
				for i := range domains {
					domain := fmt.Sprintf("p%d.huge.bad.example", i)
					err := errors.Join(publish(f, domain, f.web.Addr().Addr().String()), f.web.Publish(domain, sts.Site{
						Policy: sts.Policy("enforce", time.Hour, "mx."+domain), Fault: faults[i%len(faults)],
					}))
					if err != nil {
						return err
					}
				}
				f.mail(ctx, f.n(processes), bad, func(n int) []string { return []string{fmt.Sprintf("x@p%d.huge.bad.example", n%domains)} })
				return nil
			},
		},
	}
}
