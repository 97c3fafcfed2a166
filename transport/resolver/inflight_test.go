package resolver_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
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

// A question that waits for a place gives up when a server would have, and not
// when all of its time is over: of those of a silent zone that nobody waits for
// any more, few are left at any moment.
func TestWaitForAPlaceIsBounded(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("", dns.TypeTXT, labdns.Silent)
	r := open(t, resolver.Config{Timeout: labdns.Timeout, Attempts: 1000}, s)
	// The others have their places for 1,000 time-outs.
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	for i := range 50 {
		all.Go(func() { _, _ = r.Lookup(ctx, fmt.Sprintf("h%d.hostile.co.uk", i), resolver.TypeTXT) })
	}
	for s.Queries("", dns.TypeTXT).UDP < 50 {
		runtime.Gosched()
	}
	_, err := r.Lookup(t.Context(), "one.more.hostile.co.uk", resolver.TypeTXT)
	if err == nil || !strings.Contains(err.Error(), "too many DNS queries in progress") {
		t.Fatal(err)
	}
	if n := s.Queries("one.more.hostile.co.uk", dns.TypeTXT).UDP; n != 0 {
		t.Errorf("it was asked %d times", n)
	}
	if n := s.Queries(".", dns.TypeSOA).UDP; n != 0 {
		t.Errorf("the server was asked %d times whether it is there", n)
	}
}
