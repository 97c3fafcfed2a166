package resolver_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// asks counts the questions about a name and type that a look-up puts to a
// server.
func asks(t *testing.T, r *resolver.Resolver, s *labdns.Server, name string, qtype uint16) int {
	t.Helper()
	before := s.Queries(name, qtype).UDP
	r.Lookup(t.Context(), name, resolver.Type(qtype))
	return s.Queries(name, qtype).UDP - before
}

// RFC 9520 §3.2: a question that fails is left alone, for longer each time
// while somebody asks, and for five minutes at most.
func TestFailuresAreRemembered(t *testing.T) {
	for fault, kind := range map[labdns.Fault]resolver.Kind{
		labdns.ServFail: resolver.ServFail, labdns.Refused: resolver.Refused, labdns.NotImp: resolver.NotImp, labdns.FormErr: resolver.FormErr,
		labdns.Garbage: resolver.Malformed, labdns.Referral: resolver.Malformed, labdns.Silent: resolver.Timeout,
	} {
		t.Run(kind.String(), func(t *testing.T) {
			t.Parallel()
			s, c := lab(t, zone), newClock()
			s.SetFault("mx.example.org", dns.TypeAAAA, fault)
			cfg := resolver.Config{Attempts: 1, Now: c.Now, Timeout: 100 * labdns.Timeout}
			if fault == labdns.Silent {
				cfg.Timeout = labdns.Timeout / 10
			}
			r := open(t, cfg, s)
			again := func(n int) {
				t.Helper()
				if got := asks(t, r, s, "mx.example.org", dns.TypeAAAA); got != n {
					t.Fatalf("asked %d times, want %d", got, n)
				}
				e := fails(t, r, "mx.example.org", dns.TypeAAAA)
				if e.Kind != kind || !e.Expires.After(c.Now()) || !e.Holds().Before(e.Expires) {
					t.Fatalf("%v until %v, holds until %v", e, e.Expires, e.Holds())
				}
			}
			again(1)
			for _, pause := range []time.Duration{5, 10, 20, 40, 80, 160, 300, 300} {
				pause *= time.Second
				c.Pass(pause * 8 / 10) // before a refresh
				again(0)
				c.Pass(pause * 2 / 10)
				again(1)
			}
			// Not asked for long: that it still fails is news.
			c.Pass(10*time.Minute + 1)
			again(1)
			c.Pass(5 * time.Second)
			again(1)
			// It is over: what works is found at once when it is asked for.
			s.SetFault("mx.example.org", dns.TypeAAAA)
			c.Pass(10 * time.Second)
			if n := asks(t, r, s, "mx.example.org", dns.TypeAAAA); n != 1 {
				t.Errorf("asked %d times", n)
			}
			if a := lookup(t, r, "mx.example.org", dns.TypeAAAA); a.Existence != resolver.NoData {
				t.Errorf("%+v", a)
			}
			// And the next failure is a first one.
			s.SetFault("mx.example.org", dns.TypeAAAA, fault)
			c.Pass(time.Hour)
			again(1)
			c.Pass(5 * time.Second)
			again(1)
		})
	}
}

// Somebody who goes on asking does not wait for a question that failed last
// time: it is put again in the background before the failure expires.
func TestFailureIsAskedAgainAhead(t *testing.T) {
	s, c := lab(t, zone), newClock()
	s.SetFault("example.org", dns.TypeMX, labdns.ServFail)
	r := open(t, resolver.Config{Attempts: 1, Now: c.Now}, s)
	first := fails(t, r, "example.org", dns.TypeMX)
	c.Pass(5*time.Second - 1)
	if e := fails(t, r, "example.org", dns.TypeMX); e != first {
		t.Errorf("waited for %v", e)
	}
	for r.CachedFailures()[0] == first {
		runtime.Gosched() // until the refresh has landed
	}
	c.Pass(5 * time.Second)
	if again := fails(t, r, "example.org", dns.TypeMX); !again.Expires.After(first.Expires) || s.Queries("example.org", dns.TypeMX).UDP != 2 {
		t.Errorf("until %v and then %v", first.Expires, again.Expires)
	}
}

// A question that is dropped while others are answered fails by itself: other
// answers do not bring it back.
func TestSilenceAboutOneQuestion(t *testing.T) {
	s, c := lab(t, zone), newClock()
	s.SetFault("mx.example.org", dns.TypeAAAA, labdns.Silent)
	r := open(t, resolver.Config{Attempts: 1, Timeout: labdns.Timeout, Now: c.Now}, s)
	generation := r.Generation()
	fails(t, r, "mx.example.org", dns.TypeAAAA)
	for i := range 5 {
		lookup(t, r, fmt.Sprintf("none%d.example.org", i), dns.TypeA)
		fails(t, r, "mx.example.org", dns.TypeAAAA)
	}
	if n := s.Queries("mx.example.org", dns.TypeAAAA).UDP; n != 1 {
		t.Errorf("%d questions", n)
	}
	if r.Generation() != generation {
		t.Error("the generation has changed though everything holds")
	}
}

// A resolver that is away answers nothing. Its first answer, to whatever it is,
// voids what was remembered meanwhile.
func TestSilenceOfTheResolver(t *testing.T) {
	for _, mute := range []bool{false, true} {
		s, c := lab(t, zone), newClock()
		r := open(t, resolver.Config{Attempts: 1, Timeout: labdns.Timeout, Now: c.Now}, s)
		lookup(t, r, "mx.example.org", dns.TypeA)
		up := func() error { s.SetFault("", dns.TypeANY); return nil }
		if mute {
			s.SetFault("", dns.TypeANY, labdns.Silent)
		} else {
			up = s.Down()
		}
		generation := r.Generation()
		// However long it lasts, nothing is left alone for long.
		for range 4 {
			if e := fails(t, r, "example.org", dns.TypeMX); e.Expires.Sub(c.Now()) != 5*time.Second || !e.Holds().IsZero() {
				t.Errorf("remembered for %v", e.Expires.Sub(c.Now()))
			}
			c.Pass(5 * time.Second)
		}
		fails(t, r, "example.org", dns.TypeMX)
		if len(r.CachedFailures()) != 1 {
			t.Errorf("remembered: %v", r.CachedFailures())
		}
		if r.Generation() != generation {
			t.Error("nothing was heard, and the generation has changed")
		}
		if err := up(); err != nil {
			t.Fatal(err)
		}
		fails(t, r, "example.org", dns.TypeMX) // not known yet
		lookup(t, r, "alias.example.org", dns.TypeA)
		if r.Generation() == generation {
			t.Error("the generation is the same though a failure no longer holds")
		}
		if list := r.CachedFailures(); len(list) != 0 {
			t.Errorf("remembered: %v", list)
		}
		if _, ok, _ := r.Known("example.org", resolver.TypeMX); ok {
			t.Error("a failure is known that was void")
		}
		lookup(t, r, "example.org", dns.TypeMX)
		lookup(t, r, "mx.example.org", dns.TypeA)
		if n := s.Queries("mx.example.org", dns.TypeA).UDP; n != 1 {
			t.Errorf("%d questions: good answers are void too", n)
		}
	}
}

func TestFlushForgetsFailures(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("mx.example.org", dns.TypeANY, labdns.ServFail)
	r := open(t, resolver.Config{}, s)
	fails(t, r, "mx.example.org", dns.TypeA)
	if _, ok, err := r.Known("mx.example.org", resolver.TypeA); !ok || err == nil || !strings.Contains(err.Error(), "SERVFAIL") {
		t.Errorf("known: %v, %v", err, ok)
	}
	generation := r.Generation()
	s.SetFault("mx.example.org", dns.TypeANY)
	if n := r.Flush("example.org"); n != 1 || r.Generation() == generation {
		t.Errorf("%d flushed, generation %d after %d", n, r.Generation(), generation)
	}
	lookup(t, r, "mx.example.org", dns.TypeA)
}

// What is flushed is asked as if it had never failed, and nothing that was
// asked before the flush is kept after it.
func TestFlushForgetsForHowLongItFailed(t *testing.T) {
	s, c := lab(t, zone), newClock()
	s.SetFault("example.org", dns.TypeMX, labdns.ServFail)
	r := open(t, resolver.Config{Attempts: 1, Now: c.Now}, s)
	for _, pause := range []time.Duration{5, 10, 20} {
		fails(t, r, "example.org", dns.TypeMX)
		c.Pass(pause * time.Second)
	}
	r.Flush("example.org")
	if e := fails(t, r, "example.org", dns.TypeMX); e.Expires.Sub(c.Now()) != 5*time.Second {
		t.Errorf("remembered for %v", e.Expires.Sub(c.Now()))
	}
	release := s.Hold("mx.example.org", dns.TypeA)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.Lookup(t.Context(), "mx.example.org", resolver.TypeA)
	}()
	for s.Queries("mx.example.org", dns.TypeA).UDP == 0 {
		runtime.Gosched()
	}
	r.Flush("")
	release()
	<-done
	if _, ok, _ := r.Known("mx.example.org", resolver.TypeA); ok {
		t.Error("an answer from before the flush is kept")
	}
}

// Neither what the caller did nor a name that cannot be asked for says anything
// about the servers.
func TestNotRemembered(t *testing.T) {
	s := lab(t, zone)
	r := open(t, resolver.Config{}, s)
	if e := fails(t, r, "a..b", dns.TypeA); !e.Expires.IsZero() {
		t.Errorf("%v until %v", e, e.Expires)
	}
	if e := fails(t, r, "example.org", dns.TypeSRV); e.Kind != resolver.BadName || s.Queries("", dns.TypeANY).UDP != 0 {
		t.Errorf("a type that cannot be read: %v", e)
	}
	if list := r.CachedFailures(); len(list) != 0 {
		t.Errorf("remembered: %v", list)
	}
}

// A zone whose answers are as large as a message can be takes no more of the
// memory than what a delivery can use of them, and all together no more than
// the bound.
func TestCacheIsBoundedByBytes(t *testing.T) {
	s := lab(t, "")
	var zone strings.Builder
	const names = 100
	for i := range names {
		for j := range 1000 {
			fmt.Fprintf(&zone, "host%d.hostile.example. 300 IN A 10.%d.%d.%d\n", i, i, j>>8, j&255)
		}
	}
	if err := s.Add(zone.String()); err != nil {
		t.Fatal(err)
	}
	const bound = 100_000
	r := open(t, resolver.Config{CacheBytes: bound}, s)
	for i := range names {
		a := lookup(t, r, fmt.Sprintf("host%d.hostile.example", i), dns.TypeA)
		if len(a.Addrs()) != 50 || a.Omitted != 950 {
			t.Fatalf("%d addresses, %d omitted", len(a.Addrs()), a.Omitted)
		}
		if st := r.Stats(); st.Bytes > bound || st.MaxBytes != bound {
			t.Fatalf("%+v", st)
		}
	}
	if st := r.Stats(); st.Entries < 40 || st.Evictions == 0 {
		t.Errorf("%+v", st)
	}
}
