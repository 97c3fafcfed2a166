package policycache

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// "TXT record checked at most once a TTL" (DESIGN §7), and a warm look-up asks
// for nothing.
func TestRecordIsCheckedOnceATTL(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		e := w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceFetched)
		if e.RecordID != "1" || e.Err != nil || !e.Fetched.Equal(time.Now()) || !e.Expires.Equal(time.Now().Add(week)) {
			t.Errorf("%+v", e)
		}
		w.wantCalls(1, 1)
		for range 10 {
			w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
		}
		time.Sleep(ttl - time.Second)
		w.look(c)
		w.wantCalls(0, 0)
		time.Sleep(time.Second)
		w.look(c)
		w.look(c)
		w.wantCalls(1, 0)
	})
}

func TestRecordsTTLIsBounded(t *testing.T) {
	for _, tt := range []struct {
		name          string
		ttl           time.Duration
		before, after time.Duration
	}{
		{"none", 0, minRecordTTL - time.Second, minRecordTTL},
		{"in the past", -time.Hour, minRecordTTL - time.Second, minRecordTTL},
		{"a year", 365 * 24 * time.Hour, maxRecordTTL - time.Second, maxRecordTTL},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				w.texts = nil
				c.cfg.Resolver = resolverFunc(func(ctx context.Context, name string) (Answer, error) {
					a, err := w.TXT(ctx, name)
					a.Expires = time.Now().Add(tt.ttl)
					return a, err
				})
				w.look(c)
				w.wantCalls(1, 0)
				time.Sleep(tt.before)
				w.look(c)
				w.wantCalls(0, 0)
				time.Sleep(tt.after - tt.before)
				w.look(c)
				w.wantCalls(1, 0)
			})
		})
	}
}

type resolverFunc func(context.Context, string) (Answer, error)

func (f resolverFunc) TXT(ctx context.Context, name string) (Answer, error) { return f(ctx, name) }

// A missing record is proven absence; it is remembered for its TTL.
func TestNoRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.texts = nil
		w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
		w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
		w.wantCalls(1, 0)
		w.set(func() { w.texts = txt("1") })
		time.Sleep(ttl)
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
	})
}

func TestRecordThatDoesNotCount(t *testing.T) {
	for name, tt := range map[string]struct {
		texts   []string
		failure mtasts.Failure
	}{
		"RFC 8461 §3.1 other records":  {[]string{"v=spf1 -all"}, mtasts.FailureNone},
		"RFC 8461 §3.1 malformed":      {[]string{"v=STSv1; id=a-b"}, mtasts.FailureRecord},
		"RFC 8461 §3.1 two records":    {append(txt("1"), txt("2")...), mtasts.FailureRecord},
		"RFC 8461 §3.1 empty TXT":      {[]string{""}, mtasts.FailureNone},
		"RFC 8461 §3.1 later versions": {[]string{"v=STSv2; id=1"}, mtasts.FailureNone},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				w.texts = tt.texts
				w.wantNone(w.look(c), NoPolicy, tt.failure)
				w.wantCalls(1, 0)
			})
		})
	}
}

// A failed TXT look-up proves nothing: it is told apart, never kept as absence,
// and asked again soon.
func TestFailedRecordLookupIsNoProof(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.txtErr = errServfail
		e := w.look(c)
		w.wantNone(e, Failed, mtasts.FailureDNS)
		if !errors.Is(e.Err, errServfail) {
			t.Errorf("reason %v", e.Err)
		}
		w.look(c)
		w.wantCalls(1, 0)
		w.set(func() { w.txtErr = nil })
		time.Sleep(recordRetry)
		e = w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceFetched)
		if e.Err != nil {
			t.Errorf("the failure outlives its cause: %v", e.Err)
		}
	})
}

// Proven absence does not outlive a look-up that failed since.
func TestAbsenceEndsWithItsTTL(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.texts = nil
		w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
		time.Sleep(ttl)
		w.set(func() { w.txtErr = errServfail })
		w.wantNone(w.look(c), Failed, mtasts.FailureDNS)
	})
}

// "fetched again only when its id changes or the policy is near its end"
func TestFetchedAgainWhenTheIDChanges(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		for range 20 {
			time.Sleep(ttl)
			w.look(c)
		}
		w.wantCalls(21, 1)
		w.set(func() { w.texts, w.policy = txt("2"), enforce("mx2.example.org") })
		// within the TTL
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
		time.Sleep(ttl)
		// The changed policy counts for the very look-up that noticed it.
		e := w.look(c)
		w.wantPolicy(e, "2", "mx2.example.org", SourceFetched)
		if e.Policy.Match("mx1.example.org") {
			t.Error("the old policy still counts")
		}
		w.wantCalls(1, 1)
	})
}

// A changed policy is waited for as long as a first one; then the old one
// stands in.
func TestChangedIDFallsBackOnTheOldPolicy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		time.Sleep(ttl)
		w.set(func() { w.texts, w.policy, w.webWait = txt("2"), enforce("mx2.example.org"), 30*time.Second })
		e, took := w.timed(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
		if took != 10*time.Second || e.RecordID != "2" {
			t.Errorf("waited %v, record %q", took, e.RecordID)
		}
		time.Sleep(21 * time.Second)
		e, took = w.timed(c)
		w.wantPolicy(e, "2", "mx2.example.org", SourceCache)
		if took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}

func TestChangedIDWithAFailingServer(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		time.Sleep(ttl)
		w.set(func() { w.texts, w.webErr = txt("2"), errDown })
		e := w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
		if e.Failure() != mtasts.FailureFetch {
			t.Errorf("RFC 8461 §6: the failure is not told: %v", e.Err)
		}
		if w.logs.count("the cached one remains in effect") != 1 {
			t.Error("RFC 8461 §3.3: no warning")
		}
		w.wantCalls(2, 2)
		// No look-up waits for the second attempt.
		w.set(func() { w.webWait = 20 * time.Second })
		time.Sleep(5 * time.Minute)
		if e, took := w.timed(c); took != 0 || e.ID != "1" {
			t.Errorf("waited %v for policy %s", took, e.ID)
		}
		time.Sleep(time.Minute)
		w.wantCalls(1, 1)
		w.set(func() { w.webWait, w.webErr, w.policy = 0, nil, enforce("mx2.example.org") })
		time.Sleep(5 * time.Minute)
		w.look(c)
		synctest.Wait()
		e = w.look(c)
		w.wantPolicy(e, "2", "mx2.example.org", SourceCache)
		if e.Err != nil {
			t.Errorf("the failure outlives its cause: %v", e.Err)
		}
	})
}

// "fetches have a deadline of 60s of which the delivery that triggers a first
// fetch waits at most 10 (then it goes on without, as the RFC allows, and the
// fetch goes on behind)"
func TestFirstFetchIsWaitedForTenSeconds(t *testing.T) {
	for _, tt := range []struct {
		name  string
		takes time.Duration
		waits time.Duration
		later bool // there is a policy later
	}{
		{"at once", 0, 0, true},
		{"just in time", 10*time.Second - time.Millisecond, 10*time.Second - time.Millisecond, true},
		{"too late", 59 * time.Second, 10 * time.Second, true},
		{"never", 61 * time.Second, 10 * time.Second, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				w.webWait = tt.takes
				e, took := w.timed(c)
				if took != tt.waits {
					t.Errorf("waited %v, want %v", took, tt.waits)
				}
				if tt.takes < 10*time.Second {
					w.wantPolicy(e, "1", "mx1.example.org", SourceFetched)
					return
				}
				w.wantNone(e, Failed, mtasts.FailureFetch)
				if !errors.Is(e.Err, ErrPending) {
					t.Errorf("reason %v", e.Err)
				}
				// A look-up that comes while it goes on does not wait at all.
				if e, took = w.timed(c); took != 0 || !errors.Is(e.Err, ErrPending) {
					t.Errorf("the next waited %v: %v", took, e.Err)
				}
				time.Sleep(51 * time.Second)
				e, took = w.timed(c)
				if tt.later {
					w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
				} else {
					w.wantNone(e, Failed, mtasts.FailureFetch)
					if !errors.Is(e.Err, context.DeadlineExceeded) {
						t.Errorf("reason %v", e.Err)
					}
				}
				if took != 0 {
					t.Errorf("waited %v in the end", took)
				}
				w.wantCalls(1, 1)
			})
		})
	}
}

// The ten seconds include the TXT look-up.
func TestSlowDNSIsWaitedForTenSeconds(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.txtWait = 15 * time.Second
		e, took := w.timed(c)
		w.wantNone(e, Failed, mtasts.FailureDNS)
		if took != 10*time.Second || !errors.Is(e.Err, ErrPending) {
			t.Errorf("waited %v: %v", took, e.Err)
		}
		time.Sleep(6 * time.Second)
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
	})
}

func TestHangingDNSIsGivenUp(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.txtWait = time.Hour
		w.look(c)
		time.Sleep(recordTimeout)
		e, took := w.timed(c)
		w.wantNone(e, Failed, mtasts.FailureDNS)
		if took != 0 || !errors.Is(e.Err, context.DeadlineExceeded) {
			t.Errorf("waited %v: %v", took, e.Err)
		}
	})
}

// One flight a domain, however many ask and however the domain is written.
func TestOneFlightADomain(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.txtWait, w.webWait = time.Second, time.Second
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				name := []string{"example.org", "EXAMPLE.org", "example.org."}[i%3]
				e, err := c.Lookup(t.Context(), name)
				if err != nil || e.State != HasPolicy || e.Source != SourceFetched {
					t.Errorf("%s, %v", describe(e), err)
				}
			})
		}
		wg.Wait()
		w.wantCalls(1, 1)
	})
}

// "back-off 5 minutes after a failure", for each id (RFC 8461 §3.3)
func TestBackOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.webErr = errDown
		e := w.look(c)
		w.wantNone(e, Failed, mtasts.FailureFetch)
		if !errors.Is(e.Err, errDown) || e.RecordID != "1" {
			t.Errorf("%s", describe(e))
		}
		time.Sleep(5*time.Minute - time.Second)
		w.wantNone(w.look(c), Failed, mtasts.FailureFetch)
		w.wantCalls(1, 1)
		time.Sleep(time.Second)
		w.wantNone(w.look(c), Failed, mtasts.FailureFetch)
		w.wantCalls(1, 1)
		w.set(func() { w.webErr = nil })
		time.Sleep(5 * time.Minute)
		e = w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceFetched)
		if e.Err != nil {
			t.Errorf("the failure outlives its cause: %v", e.Err)
		}
	})
}

// What failed while there was a record is of no interest without one.
func TestFailureEndsWithTheRecord(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.webErr = errDown
		w.wantNone(w.look(c), Failed, mtasts.FailureFetch)
		w.set(func() { w.texts = nil })
		time.Sleep(ttl)
		w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
	})
}

func TestNewIDEndsTheBackOff(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.webErr = errDown
		c.cfg.Resolver = resolverFunc(func(ctx context.Context, name string) (Answer, error) {
			a, err := w.TXT(ctx, name)
			a.Expires = time.Now().Add(time.Minute)
			return a, err
		})
		w.look(c)
		time.Sleep(time.Minute)
		w.look(c)
		w.wantCalls(2, 1)
		w.set(func() { w.texts, w.webErr = txt("2"), nil })
		time.Sleep(time.Minute)
		w.wantPolicy(w.look(c), "2", "mx1.example.org", SourceFetched)
	})
}

func TestKindsOfFetchFailures(t *testing.T) {
	for want, err := range map[mtasts.Failure]error{
		mtasts.FailureFetch:   errors.New("a\x1b[31m plain error"),
		mtasts.FailureInvalid: &mtasts.Error{Failure: mtasts.FailureInvalid, Err: mtasts.ErrMalformed},
		mtasts.FailureWebPKI:  fmt.Errorf("wrapped: %w", &mtasts.Error{Failure: mtasts.FailureWebPKI, Err: errors.New("expired")}),
	} {
		inWorld(t, func(t *testing.T, w *world, c *Cache) {
			w.webErr = err
			e := w.look(c)
			w.wantNone(e, Failed, want)
			if strings.Contains(e.Err.Error(), "\x1b") || w.logs.count("\x1b") != 0 {
				t.Errorf("control characters in %q", e.Err)
			}
			if c.Stats().Failures[want] != 1 {
				t.Errorf("counters %+v", c.Stats())
			}
		})
	}
}

// "A cached policy outlives a missing record and a failing server until its
// max_age", and a failing TXT look-up.
func TestCachedPolicyOutlivesTrouble(t *testing.T) {
	for name, trouble := range map[string]func(w *world){
		"RFC 8461 §3.1 missing record":   func(w *world) { w.texts, w.webErr = nil, errDown },
		"RFC 8461 §3.1 malformed record": func(w *world) { w.texts, w.webErr = []string{"v=STSv1;"}, errDown },
		"RFC 8461 §3.1 two records":      func(w *world) { w.texts, w.webErr = append(txt("1"), txt("2")...), errDown },
		"RFC 8461 §3.3 failing server":   func(w *world) { w.webErr = errDown },
		"RFC 8461 §3.3 its next policy fails": func(w *world) {
			w.texts, w.webErr = txt("2"), &mtasts.Error{Failure: mtasts.FailureInvalid, Err: mtasts.ErrMalformed}
		},
		"RFC 8461 §10.2 failing DNS":      func(w *world) { w.txtErr, w.webErr = errServfail, errDown },
		"RFC 8461 §10.2 hanging DNS":      func(w *world) { w.txtWait, w.webErr = time.Hour, errDown },
		"RFC 8461 §10.2 hanging web host": func(w *world) { w.webWait = time.Hour },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				start := time.Now()
				w.look(c)
				w.set(func() { trouble(w) })
				for time.Since(start) < week-time.Hour {
					w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
					time.Sleep(47 * time.Minute)
				}
				time.Sleep(time.Until(start.Add(week - time.Minute)))
				w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
				time.Sleep(time.Until(start.Add(week)))
				if e := w.look(c); e.State == HasPolicy {
					t.Errorf("still in force after max_age: %s", describe(e))
				}
			})
		})
	}
}

// RFC 8461 §8.3: mode none ends the former policy; so does max_age 0.
func TestPolicyThatEndsPolicies(t *testing.T) {
	for name, last := range map[string]mtasts.Policy{
		"mode none":            {Mode: mtasts.ModeNone, MaxAge: 24 * time.Hour},
		"max_age 0":            aged(enforce("mx1.example.org"), 0),
		"mode none, max_age 0": {},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				w.look(c)
				synctest.Wait()
				if _, ok, _ := w.store.Load(domain); !ok {
					t.Error("not stored")
				}
				w.set(func() { w.texts, w.policy = txt("2"), last })
				time.Sleep(ttl)
				w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
				synctest.Wait()
				if _, ok, _ := w.store.Load(domain); ok {
					t.Error("still stored")
				}
				w.wantCalls(2, 2)
				w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
				w.wantCalls(0, 0)
				// It holds for its life, and for five minutes at least.
				for time.Sleep(ttl); last.MaxAge > 0 && c.cfg.Now().Before(c.memoryOf(domain).more.ended); time.Sleep(ttl) {
					w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
				}
				w.set(func() { w.fetched = 0 })
				w.look(c)
				w.set(func() {
					if w.fetched != 1 {
						t.Errorf("%d fetches after its life", w.fetched)
					}
					w.texts, w.policy = txt("3"), enforce("mx3.example.org")
				})
				time.Sleep(ttl)
				w.wantPolicy(w.look(c), "3", "mx3.example.org", SourceFetched)
				// Nor does an ended id stay ended: ids have no order.
				w.set(func() { w.texts, w.policy = txt("2"), enforce("mx2.example.org") })
				time.Sleep(ttl)
				w.wantPolicy(w.look(c), "2", "mx2.example.org", SourceFetched)
			})
		})
	}
}

// memoryOf gives what is remembered of a domain.
func (c *Cache) memoryOf(domain string) state {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, ok := c.memory.Get(domain)
	if !ok {
		return state{}
	}
	return *st
}

func TestTestingPolicyIsAPolicy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.policy.Mode = mtasts.ModeTesting
		e := w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceFetched)
		if e.Policy.Mode != mtasts.ModeTesting {
			t.Errorf("mode %v", e.Policy.Mode)
		}
	})
}

func TestNamesThatHaveNoPolicy(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		for _, name := range []string{"[192.0.2.1]", "[IPv6:2001:db8::1]", "", ".", "../x", "a b", strings.Repeat("a.", 122) + "de"} {
			if e, err := c.Lookup(t.Context(), name); err != nil || e.State != NoPolicy || !errors.Is(e.Err, mtasts.ErrDomain) {
				t.Errorf("RFC 8461 §3.4: Lookup(%q) = %s, %v", name, describe(e), err)
			}
		}
		w.wantCalls(0, 0)
	})
}

// RFC 8461 §3.4: a subdomain does not inherit.
func TestSubdomainsAskForThemselves(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		var names []string
		c.cfg.Resolver = resolverFunc(func(_ context.Context, name string) (Answer, error) {
			names = append(names, name)
			return Answer{Expires: time.Now().Add(ttl)}, nil
		})
		if e, err := c.Lookup(t.Context(), "Mail.B\u00fccher.example"); err != nil || e.State != NoPolicy {
			t.Errorf("%s, %v", describe(e), err)
		}
		if len(names) != 1 || names[0] != "_mta-sts.mail.xn--bcher-kva.example" {
			t.Errorf("asked at %v", names)
		}
	})
}

func TestLookupEndsWithItsContext(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.webWait = 5 * time.Second
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.Lookup(ctx, domain); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("after %v: %v", time.Since(start), err)
		}
		if _, err := c.Lookup(ctx, domain); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with a context that is over: %v", err)
		}
		// What it began goes on for others.
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		w.wantCalls(1, 1)
	})
}

func TestCloseCancelsAndWaits(t *testing.T) {
	for name, hang := range map[string]func(w *world){
		"in the DNS": func(w *world) { w.txtWait = 20 * time.Second },
		"in a fetch": func(w *world) { w.webWait = time.Minute },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				hang(w)
				c := w.open()
				ended := make(chan error)
				go func() {
					_, err := c.Lookup(t.Context(), domain)
					ended <- err
				}()
				time.Sleep(time.Second)
				start := time.Now()
				c.Close()
				if err := <-ended; !errors.Is(err, ErrClosed) || time.Since(start) != 0 {
					t.Errorf("after %v: %v", time.Since(start), err)
				}
				if _, err := c.Lookup(t.Context(), domain); !errors.Is(err, ErrClosed) {
					t.Errorf("Lookup after Close: %v", err)
				}
				if s := c.Stats(); s.Flights != 0 || s.Failures != [mtasts.Failures]uint64{} || w.logs.count("WARN") != 0 {
					t.Errorf("closing is told as a failure of the domain: %+v", s)
				}
				c.Close()
			})
		})
	}
}

// Our own bound on fetches is no failure of the domains that it holds back.
func TestFetchesAtOnceAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.webWait = 30 * time.Second
		var wg sync.WaitGroup
		for i := range maxFetches + 50 {
			wg.Go(func() {
				e, err := c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i))
				if err != nil || e.State != Failed {
					t.Errorf("%s, %v", describe(e), err)
				}
			})
		}
		wg.Wait()
		w.set(func() {
			if w.most != maxFetches {
				t.Errorf("%d fetches at once", w.most)
			}
		})
		time.Sleep(30 * time.Second)
		w.set(func() { w.webWait = 0 })
		for i := range maxFetches + 50 {
			if e, err := c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i)); err != nil || e.State != HasPolicy {
				t.Fatalf("afterwards: %s, %v", describe(e), err)
			}
		}
	})
}

// One owner of many domains, whose web hosts say nothing, keeps nobody else
// from getting a first policy.
func TestHostileZoneKeepsNobodyElseOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.mute = ".hostile.example"
		var wg sync.WaitGroup
		for i := range 3 * maxFetches {
			wg.Go(func() { _, _ = c.Lookup(t.Context(), fmt.Sprintf("d%d.hostile.example", i)) })
		}
		synctest.Wait()
		if w.set(func() {}); w.most != maxOwnerFetches {
			t.Errorf("%d fetches at once", w.most)
		}
		start := time.Now()
		if e, err := c.Lookup(t.Context(), "other.example"); err != nil || e.State != HasPolicy || time.Since(start) > 0 {
			t.Errorf("%s, %v after %v", describe(e), err, time.Since(start))
		}
		wg.Wait()
		time.Sleep(2 * time.Minute)
	})
}

func TestStats(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		w.look(c)
		time.Sleep(ttl)
		w.set(func() { w.txtErr = errServfail })
		w.look(c)
		want := Stats{Lookups: 3, Hits: 1, RecordChecks: 2, Fetches: 1, Domains: 1, MaxMemory: 64 << 20}
		want.Failures[mtasts.FailureDNS] = 1
		synctest.Wait()
		got := c.Stats()
		if got.Memory <= 0 {
			t.Errorf("memory %d", got.Memory)
		}
		got.Memory = 0
		if got != want {
			t.Errorf("%+v, want %+v", got, want)
		}
	})
}

// A resolver that remembers failures by itself is asked at each look-up; what
// it says again is no news.
func TestFailureThatTheResolverRemembers(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.txtErr, w.remembers = errServfail, true
		first := w.look(c)
		w.wantNone(first, Failed, mtasts.FailureDNS)
		if again := w.look(c); again.Err != first.Err {
			t.Errorf("another failure: %v", again.Err)
		}
		w.wantCalls(2, 0)
		if n := c.Stats().Failures[mtasts.FailureDNS]; n != 1 {
			t.Errorf("%d failures", n)
		}
		w.set(func() { w.txtErr = nil })
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
	})
}
