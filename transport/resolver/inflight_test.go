package resolver_test

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// A zone that answers nothing, asked about under a thousand names, keeps no one
// else from asking.
func TestHostileZoneKeepsNobodyElseOut(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("", dns.TypeTXT, labdns.Silent)
	r := open(t, resolver.Config{}, s)
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	const hostile = 1000
	for i := range hostile {
		all.Go(func() { _, _ = r.Lookup(ctx, fmt.Sprintf("h%d.hostile.co.uk", i), resolver.TypeTXT) })
	}
	for r.Stats().Misses < hostile || s.Queries("", dns.TypeTXT).UDP < 50 {
		runtime.Gosched()
	}
	patience, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	// Its neighbour under the same public suffix is somebody else.
	for _, name := range []string{"example.org", "friendly.co.uk", "co.uk", "uk"} {
		if _, err := r.Lookup(patience, name, resolver.TypeMX); err != nil {
			t.Fatal(err)
		}
	}
	if n := s.Queries("", dns.TypeTXT).UDP; n != 50 {
		t.Errorf("%d questions to one zone at once", n)
	}
}
