package limit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/limit"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// allZero checks that every slot was given back.
func allZero(t *testing.T, l *limit.Limits) {
	t.Helper()
	for s := range limit.Scopes {
		if st := l.Stats(s); st.Open != 0 || st.Waiting != 0 {
			t.Errorf("%v: %d open, %d waiting in the end", s, st.Open, st.Waiting)
		}
	}
}

func TestNoLimits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	l := limit.New(limit.Config{})
	for _, permit := range []limit.Permit{l.Permit(), {}} {
		if err := permit.Acquire(ctx, limit.Want{Scope: limit.All}, limit.Want{Scope: limit.IP, Key: "192.0.2.1"}); err != nil {
			t.Error(err)
		}
		permit.Release()
	}
	ctx = t.Context()
	if n := testing.AllocsPerRun(100, func() {
		permit := l.Permit()
		permit.Acquire(ctx, limit.Want{Scope: limit.All}, limit.Want{Scope: limit.IP, Key: "192.0.2.1"})
		permit.Release()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// The bucket starts full, and fills evenly.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Source: {Rate: 20, Period: time.Second}}})
		start := time.Now()
		for i := range 100 {
			permit := l.Permit()
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "example.org"}); err != nil {
				t.Fatal(err)
			}
			permit.Release() // a token is spent all the same
			due := max(0, time.Duration(i-19)*50*time.Millisecond)
			if at := time.Since(start); at < due || at > due+time.Microsecond {
				t.Errorf("message %d after %v, want %v", i, at, due)
			}
		}
		time.Sleep(30 * time.Second) // it gets no fuller than full
		start = time.Now()
		for range 21 {
			permit := l.Permit()
			permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "example.org"})
		}
		want(t, "the 21st waits", time.Since(start).Round(time.Millisecond), 50*time.Millisecond)
		want(t, "slots waited for", l.Stats(limit.Source).Waited, uint64(81))
	})
}

// Whatever the numbers, no stretch of time sees more than N and what the time
// itself brings, and a taker who never pauses gets that much.
func TestRateNumbers(t *testing.T) {
	for _, c := range []limit.Limit{
		{Rate: 1, Period: time.Millisecond}, {Rate: 3, Period: time.Second}, {Rate: 7, Period: 10 * time.Second},
		{Rate: 700, Period: time.Millisecond}, {Rate: 100, Period: time.Minute}, {Rate: 1000, Period: 24 * time.Hour},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: c}, MaxWait: 24 * time.Hour})
			start := time.Now()
			n := 3 * c.Rate
			for range n {
				permit := l.Permit()
				if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}); err != nil {
					t.Fatal(err)
				}
			}
			// The first N at once, the others in two periods; a wait is rounded
			// up to whole nanoseconds.
			got := time.Since(start)
			if got < 2*c.Period-time.Microsecond || got > 2*c.Period+time.Duration(n) {
				t.Errorf("%d per %v: %d took %v", c.Rate, c.Period, n, got)
			}
		})
	}
}

// raise makes most at least n, though others do so at the same time.
func raise(most *atomic.Int32, n int32) {
	for was := most.Load(); was < n && !most.CompareAndSwap(was, n); was = most.Load() {
	}
}

func TestConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Destination: {Concurrency: 3}}})
		var now, most, busy atomic.Int32
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				permit := l.Permit()
				defer permit.Release()
				err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Destination, Key: "example.org"})
				if err != nil {
					busy.Add(1)
					return
				}
				raise(&most, now.Add(1))
				time.Sleep(time.Second)
				now.Add(-1)
			})
		}
		// Another destination is not held back.
		other := l.Permit()
		start := time.Now()
		other.Acquire(t.Context(), limit.Want{Scope: limit.Destination, Key: "example.net"})
		want(t, "another key waited", time.Since(start), time.Duration(0))
		other.Release()
		wg.Wait()
		want(t, "at once", most.Load(), 3)
		// Three each at 0, 1, 2, 3, 4 s; at 5 s the wait's end and a slot come
		// together.
		if n := busy.Load(); n < 12 || n > 15 {
			t.Errorf("%d were sent away, want 12 to 15", n)
		}
		want(t, "late", l.Stats(limit.Destination).Late, busy.Load())
		allZero(t, l)
	})
}

func TestMaxWaitIsSharedAndSaysSo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		one := limit.Limit{Concurrency: 1}
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: one, limit.IP: one, limit.Source: one}})
		all, ip := l.Permit(), l.Permit()
		all.Acquire(t.Context(), limit.Want{Scope: limit.All})
		ip.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: "192.0.2.1"})
		time.AfterFunc(3*time.Second, all.Release)

		permit := l.Permit()
		start := time.Now()
		if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}); err != nil {
			t.Fatal(err)
		}
		want(t, "waited for all", time.Since(start), 3*time.Second)
		time.Sleep(time.Hour) // work is not waiting
		start = time.Now()
		err := permit.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: "192.0.2.1"})
		want(t, "waited for ip", time.Since(start), 2*time.Second)
		var busy *limit.Error
		if !errors.Is(err, limit.ErrBusy) || !errors.As(err, &busy) {
			t.Fatalf("got %v", err)
		}
		want(t, "text", err, "local limit for address 192.0.2.1: no slot within 5s")
		want(t, "error", *busy, limit.Error{Scope: limit.IP, Key: "192.0.2.1", MaxWait: 5 * time.Second})

		// With no wait left, what is free can still be had.
		if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "example.org"}); err != nil {
			t.Error(err)
		}
		permit.Release()
		permit.Release()
		ip.Release()
		allZero(t, l)
	})
}

// A scope that was added to the list needs its words: the configuration's key,
// the metrics' label and the noun in texts.
func TestEveryScopeHasItsWords(t *testing.T) {
	seen := map[string]limit.Scope{}
	for s := range limit.Scopes {
		word, noun := s.Word(), s.String()
		if word == "" || word == "unknown" || noun == "" || noun == "unknown" {
			t.Errorf("scope %d has the words %q and %q", uint8(s), word, noun)
		}
		if other, double := seen[word]; double {
			t.Errorf("scopes %d and %d are both %q", uint8(other), uint8(s), word)
		}
		seen[word] = s
	}
	want(t, "words", []string{limit.All.Word(), limit.IP.Word(), limit.Source.Word(), limit.Destination.Word(), limit.Provider.Word(), limit.SourceIP.Word()},
		[]string{"all", "ip", "source", "destination", "provider", "source_ip"})
	want(t, "beyond", limit.Scopes.Word()+" "+limit.Scopes.String(), "unknown unknown")
}

func TestErrorTexts(t *testing.T) {
	for scope, text := range map[limit.Scope]string{
		limit.All:         "local limit for all mail of the transport: no slot within 5s",
		limit.Source:      "local limit for sender domain x: no slot within 5s",
		limit.Destination: "local limit for destination x: no slot within 5s",
		limit.Provider:    "local limit for provider x: no slot within 5s",
		limit.SourceIP:    "local limit for source address x: no slot within 5s",
	} {
		want(t, scope.String(), &limit.Error{Scope: scope, Key: "x", MaxWait: 5 * time.Second}, text)
	}
	want(t, "slowed", &limit.Error{Scope: limit.Provider, Key: "x", MaxWait: 5 * time.Second, Slowed: true},
		"x refused connections as too many: no slot within 5s")
}

// What a call took before it failed goes back, tokens included.
func TestAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{
			limit.All:         {Concurrency: 1},
			limit.Source:      {Rate: 2, Period: time.Hour},
			limit.Destination: {Concurrency: 1},
		}})
		holder := l.Permit()
		holder.Acquire(t.Context(), limit.Want{Scope: limit.All})
		for range 5 {
			permit := l.Permit()
			err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All},
				limit.Want{Scope: limit.Source, Key: "a.example"}, limit.Want{Scope: limit.Destination, Key: "b.example"})
			if !errors.Is(err, limit.ErrBusy) {
				t.Fatalf("got %v", err)
			}
			want(t, "destination held", l.Stats(limit.Destination).Open, 0)
			permit.Release()
		}
		holder.Release()
		for range 2 {
			permit := l.Permit()
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "a.example"}); err != nil {
				t.Fatalf("a token was lost: %v", err)
			}
			permit.Release()
		}
		allZero(t, l)
	})
}

// Waiting for one busy destination keeps no other mail from its way, though
// all of it goes through one narrow transport.
func TestNarrowBeforeWide(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: {Concurrency: 2}, limit.Destination: {Concurrency: 1}}})
		deliver := func(domain string) limit.Permit {
			permit := l.Permit()
			permit.Acquire(t.Context(), limit.Want{Scope: limit.All}, limit.Want{Scope: limit.Destination, Key: domain})
			return permit
		}
		busy := deliver("busy.example")
		for range 10 {
			go func() { permit := deliver("busy.example"); permit.Release() }()
		}
		synctest.Wait()
		start := time.Now()
		other := deliver("other.example")
		want(t, "the other waited", time.Since(start), time.Duration(0))
		other.Release()
		busy.Release()
		synctest.Wait()
		allZero(t, l)
	})
}

func TestFirstComeFirstServed(t *testing.T) {
	for name, limits := range map[string]limit.Limit{
		"concurrency": {Concurrency: 1},
		"rate":        {Rate: 1, Period: 10 * time.Millisecond},
		"both":        {Rate: 1, Period: 10 * time.Millisecond, Concurrency: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: limits}})
				var order []int
				for i := range 50 {
					go func() {
						permit := l.Permit()
						if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}); err != nil {
							t.Error(err)
						}
						order = append(order, i) // one at a time
						time.Sleep(time.Millisecond)
						permit.Release()
					}()
					synctest.Wait()
				}
				time.Sleep(time.Second)
				synctest.Wait()
				for i, got := range order {
					want(t, "order in the queue", got, i)
				}
				want(t, "served", len(order), 50)
				allZero(t, l)
			})
		})
	}
}

// Somebody in the queue goes away: the others still get their slots.
func TestCancelledInTheQueue(t *testing.T) {
	gone := errors.New("delivery cancelled: the local mail server disconnected")
	for _, limits := range []limit.Limit{{Concurrency: 1}, {Rate: 1, Period: time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: limits}})
			first := l.Permit()
			first.Acquire(t.Context(), limit.Want{Scope: limit.All})
			ctx, cancel := context.WithCancelCause(t.Context())
			var served int
			for i := range 5 {
				go func() {
					use := t.Context()
					if i%2 == 0 { // the head of the queue among them
						use = ctx
					}
					permit := l.Permit()
					defer permit.Release()
					switch err := permit.Acquire(use, limit.Want{Scope: limit.All}); {
					case i%2 == 0 && err != gone:
						t.Errorf("got %v, want the cause", err)
					case i%2 == 1 && err != nil:
						t.Error(err)
					case i%2 == 1:
						served++
					}
				}()
				synctest.Wait()
			}
			cancel(gone)
			synctest.Wait()
			want(t, "waiting", l.Stats(limit.All).Waiting, 2)
			first.Release()
			time.Sleep(3 * time.Second)
			synctest.Wait()
			want(t, "served", served, 2)
			allZero(t, l)
		})
	}
}

// A slot that comes together with the end of the context is given back whole.
func TestCancelledWhenItsSlotComes(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: {Rate: 2, Period: time.Hour, Concurrency: 1}}})
			first := l.Permit()
			first.Acquire(t.Context(), limit.Want{Scope: limit.All})
			ctx, cancel := context.WithCancel(t.Context())
			var err error
			go func() {
				permit := l.Permit()
				err = permit.Acquire(ctx, limit.Want{Scope: limit.All})
				permit.Release()
			}()
			synctest.Wait()
			first.Release()
			cancel()
			synctest.Wait()
			next := l.Permit()
			spent := next.Acquire(t.Context(), limit.Want{Scope: limit.All})
			if err != nil && spent != nil {
				t.Error("cancelled, and the token is gone")
			}
			next.Release()
			allZero(t, l)
		})
	}
}

// Who comes at the very moment at which the first in the queue is due comes
// behind it.
func TestNobodyPushesIn(t *testing.T) {
	for range 200 {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: {Rate: 1, Period: time.Second}}})
			used := l.Permit()
			used.Acquire(t.Context(), limit.Want{Scope: limit.All})
			began := time.Now()
			var at [2]time.Duration
			var wg sync.WaitGroup
			for i, comes := range []time.Duration{0, time.Second} {
				wg.Go(func() {
					time.Sleep(comes)
					permit := l.Permit()
					permit.Acquire(t.Context(), limit.Want{Scope: limit.All})
					at[i] = time.Since(began)
					permit.Release()
				})
			}
			wg.Wait()
			want(t, "slots", at, [2]time.Duration{time.Second, 2 * time.Second})
		})
	}
}

func TestCancelledBefore(t *testing.T) {
	l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: {Rate: 1, Period: time.Hour}}})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	permit := l.Permit()
	if err := permit.Acquire(ctx, limit.Want{Scope: limit.All}); err != context.Canceled {
		t.Errorf("got %v", err)
	}
	if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}); err != nil {
		t.Errorf("the token was spent: %v", err)
	}
}

// Deliveries that fail, wait in vain and are cancelled at every point: no
// bound is ever passed, and in the end all is as in the beginning.
func TestNothingIsLostOrExceeded(t *testing.T) {
	cfg := limit.Config{
		Limits: limit.ByScope{
			limit.All:         {Concurrency: 12, Rate: 400, Period: time.Second},
			limit.IP:          {Concurrency: 4},
			limit.Source:      {Rate: 50, Period: time.Second, Concurrency: 5},
			limit.Destination: {Concurrency: 3},
		},
		Keys: 3, // keys are forgotten all the time
	}
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			l := limit.New(cfg)
			var mu sync.Mutex
			open := map[limit.Want]int{}
			most := map[limit.Scope]int{limit.All: 12, limit.IP: 4, limit.Source: 5, limit.Destination: 3}
			count := func(by int, wants ...limit.Want) {
				mu.Lock()
				defer mu.Unlock()
				for _, w := range wants {
					if open[w] += by; open[w] > most[w.Scope] {
						t.Errorf("%d at once in %v", open[w], w)
					}
				}
			}
			var done, failed atomic.Int32
			var wg sync.WaitGroup
			for w := range 200 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(w)))
					for range 20 {
						ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rnd.ExpFloat64()*float64(4*time.Second)))
						permit := l.Permit()
						key := func(s limit.Scope) limit.Want {
							if s == limit.All {
								return limit.Want{Scope: s}
							}
							return limit.Want{Scope: s, Key: fmt.Sprint(rnd.IntN(6))}
						}
						a := []limit.Want{key(limit.All), key(limit.Source), key(limit.Destination)}
						ip := key(limit.IP)
						if permit.Acquire(ctx, a...) == nil {
							count(1, a...)
							if permit.Acquire(ctx, ip) == nil {
								count(1, ip)
								time.Sleep(time.Duration(rnd.IntN(200)) * time.Millisecond)
								count(-1, ip)
								done.Add(1)
							} else {
								failed.Add(1)
							}
							count(-1, a...)
						} else {
							failed.Add(1)
						}
						for range rnd.IntN(3) {
							permit.Release()
						}
						permit.Release()
						cancel()
					}
				})
			}
			wg.Wait()
			allZero(t, l)
			if done.Load() < 200 || failed.Load() < 200 {
				t.Errorf("%d done, %d failed: the test tests little", done.Load(), failed.Load())
			}
			// Every bucket is whole again.
			time.Sleep(time.Second)
			for i := range 12 {
				permit := l.Permit()
				start := time.Now()
				if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}); err != nil || time.Since(start) > 0 {
					t.Errorf("slot %d is lost: %v", i, err)
				}
			}
		})
	}
}

// The same with real threads and no sleeping, for the race detector.
func TestNothingIsLostInParallel(t *testing.T) {
	l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: {Concurrency: 4}, limit.Source: {Concurrency: 2, Rate: 100000, Period: time.Second}}, Keys: 2})
	var wg sync.WaitGroup
	for w := range 16 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			for range 500 {
				ctx, cancel := context.WithCancel(t.Context())
				if rnd.IntN(3) == 0 {
					go cancel()
				}
				permit := l.Permit()
				permit.Acquire(ctx, limit.Want{Scope: limit.All}, limit.Want{Scope: limit.Source, Key: fmt.Sprint(rnd.IntN(4))})
				permit.Release()
				cancel()
			}
		})
	}
	wg.Wait()
	allZero(t, l)
}

func TestKeysAreForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Source: {Rate: 1, Period: 5 * time.Minute, Concurrency: 2}}, Keys: 1000})
		keys := func() int { return l.Stats(limit.Source).Keys }
		acquire := func(key string) (limit.Permit, error) {
			permit := l.Permit()
			return permit, permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: key})
		}
		acquire("in use")
		for i := range 5000 { // beyond the bound, the longest unused goes
			permit := l.Permit()
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			permit.Release()
			if keys() > 1000 {
				t.Fatalf("%d keys", keys())
			}
		}
		if _, err := acquire("in use"); !errors.Is(err, limit.ErrBusy) {
			t.Error("a key in use was forgotten")
		}
		if _, err := acquire("4999"); !errors.Is(err, limit.ErrBusy) {
			t.Error("the key used last was forgotten")
		}
		if _, err := acquire("0"); err != nil {
			t.Error("the longest unused key was not forgotten")
		}

		time.Sleep(5 * time.Minute)
		for range 1000 { // as traffic goes on, old keys go a few at a time
			permit := l.Permit()
			permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "lively"})
			permit.Release()
		}
		if n := keys(); n > 3 {
			t.Errorf("%d keys long after", n)
		}
	})
}

// What the keys take is bounded in bytes, however long the names are that a
// stranger makes up, and is given back.
func TestUsage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Source: {Rate: 1, Period: time.Minute}, limit.All: {Concurrency: 9}}, Keys: 1000})
		for i := range 5000 {
			permit := l.Permit()
			key := fmt.Sprintf("[%0251d]:65535", i)
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}, limit.Want{Scope: limit.Source, Key: key}); err != nil {
				t.Fatal(err)
			}
			permit.Release()
		}
		u := l.Usage()
		if u.Entries != 1001 || u.Bytes < 500_000 || u.Bytes > u.MaxBytes || u.MaxBytes != 2*1000*(384+261) {
			t.Errorf("%+v", u)
		}
		time.Sleep(5 * time.Minute)
		for range 1000 {
			permit := l.Permit()
			permit.Acquire(t.Context(), limit.Want{Scope: limit.Source, Key: "lively"})
			permit.Release()
		}
		if u := l.Usage(); u.Entries > 4 || u.Bytes > 4*(384+261) {
			t.Errorf("long after: %+v", u)
		}
	})
}

// More keys in use than are to be remembered: all of them count.
func TestMoreKeysInUseThanRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.IP: {Concurrency: 1}}, Keys: 5})
		var permits []*limit.Permit
		for i := range 20 {
			permit := l.Permit()
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			permits = append(permits, &permit)
		}
		for i := range 20 {
			permit := l.Permit()
			if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: fmt.Sprint(i)}); err == nil {
				t.Errorf("key %d is counted twice", i)
			}
		}
		for _, permit := range permits {
			permit.Release()
		}
		permit := l.Permit()
		permit.Acquire(t.Context(), limit.Want{Scope: limit.IP, Key: strings.Repeat("x", 9)})
		if n := l.Stats(limit.IP).Keys; n > 20 {
			t.Errorf("%d keys", n)
		}
		permit.Release()
		allZero(t, l)
	})
}

// KeyState tells what a key has to do, and takes nothing of it.
func TestPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		two := limit.Limit{Rate: 2, Period: time.Minute, Concurrency: 5}
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Destination: two}})
		if _, ok := l.KeyState(limit.IP, "192.0.2.1"); ok {
			t.Error("a scope without a limit has a state")
		}
		see := func(what string, want limit.KeyState) {
			t.Helper()
			if p, ok := l.KeyState(limit.Destination, "a.example"); !ok || p != want {
				t.Errorf("%s: %+v, want %+v", what, p, want)
			}
		}
		see("never seen", limit.KeyState{Limit: two, Tokens: 2})
		permit := l.Permit()
		if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Destination, Key: "a.example"}); err != nil {
			t.Fatal(err)
		}
		see("at work", limit.KeyState{Limit: two, Tokens: 1, Open: 1})
		time.Sleep(15 * time.Second)
		see("after a while", limit.KeyState{Limit: two, Tokens: 1.5, Open: 1})
		permit.Release()
		see("released", limit.KeyState{Limit: two, Tokens: 1.5})
		want(t, "keys", l.Stats(limit.Destination).Keys, 1)
	})
}
