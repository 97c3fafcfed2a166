package policycache

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/fetch"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

var _ Fetcher = (*fetch.Client)(nil)

// steady is a DNS and a web where every domain has the same policy for ever.
type steady struct{ policy mtasts.Policy }

func (s steady) TXT(context.Context, string) (Answer, error) {
	return Answer{Texts: txt("1"), Found: true, Expires: time.Now().Add(24 * time.Hour)}, nil
}

func (s steady) Fetch(context.Context, string) (mtasts.Policy, error) { return s.policy, nil }

// BenchmarkWarmLookup shows that a warm look-up costs the same however many
// domains there are.
func BenchmarkWarmLookup(b *testing.B) {
	for _, domains := range []int{10, 1000, 50_000} {
		b.Run(fmt.Sprint(domains), func(b *testing.B) {
			s := steady{enforce("mx1.example.org", "mx2.example.org")}
			c := New(Config{Resolver: s, Fetcher: s, Store: store.NewRAM(256 << 20), Memory: 256 << 20})
			defer c.Close()
			names := make([]string, domains)
			for i := range names {
				names[i] = fmt.Sprintf("d%d.example", i)
				if e, err := c.Lookup(b.Context(), names[i]); err != nil || e.State != HasPolicy {
					b.Fatal(e, err)
				}
			}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if e, _ := c.Lookup(b.Context(), names[i%domains]); e.Source != SourceCache {
					b.Fatal(describe(e))
				}
			}
		})
	}
}
