package limit_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/fairqueue"
	"github.com/mxpipe/mxpipe/transport/limit"
)

const host = "mx.example.org"

// pacer is one transport's view of Providers without a limit, which waits for
// so long.
type pacer struct {
	*limit.Providers
	limits *limit.Limits
}

func newPacer(p limit.Pacing, maxWait time.Duration) *pacer {
	providers := limit.NewProviders(p)
	return &pacer{providers, limit.New(limit.Config{Providers: providers, MaxWait: maxWait})}
}

func (p *pacer) Acquire(ctx context.Context, name string) (hostPermit, error) {
	permit := p.limits.Permit()
	err := permit.Acquire(ctx, limit.Want{Scope: limit.Provider, Key: name})
	return hostPermit{permit}, err
}

type hostPermit struct{ limit.Permit }

func (h *hostPermit) Release(served bool) {
	if served {
		h.Done(limit.Served)
	} else {
		h.Done(limit.Failed)
	}
}

// open takes n permits, or fewer if no more come at once.
func open(t *testing.T, p *pacer, n int) (permits []*hostPermit) {
	t.Helper()
	for range n {
		permit, err := p.Acquire(t.Context(), host)
		if errors.Is(err, limit.ErrBusy) {
			return permits
		}
		if err != nil {
			t.Fatal(err)
		}
		permits = append(permits, &permit)
	}
	return permits
}

func release(permits []*hostPermit, served bool) {
	for _, permit := range permits {
		permit.Release(served)
	}
}

func allowed(p *pacer) int {
	for _, h := range p.List() {
		return h.Allowed
	}
	return 0
}

// impatient has permits that do not come at once not come at all.
const impatient = time.Nanosecond

func TestHostThatNeverComplainedHasNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, 0)
		permits := open(t, p, 1000)
		want(t, "permits", len(permits), 1000)
		release(permits, false)
		want(t, "list", p.List(), []limit.Paced(nil))
	})
}

func TestOneBurstIsOneComplaintAndOneNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, impatient)
		permits := open(t, p, 20)
		news := 0
		for _, permit := range permits[:15] { // 15 of 20 refused
			if permit.Slow() {
				news++
			}
			permit.Slow() // said twice
			permit.Release(false)
		}
		want(t, "news", news, 1)
		want(t, "allowed", allowed(p), 10)
		more := open(t, p, 20)
		want(t, "opened beside the five left", len(more), 5)

		// Refused again with ten open: half of that, and no news.
		want(t, "news", more[0].Slow(), false)
		want(t, "allowed", allowed(p), 5)
		want(t, "an old permit's complaint", permits[16].Slow(), false)
		want(t, "allowed", allowed(p), 5)
		release(permits, true)
		release(more, false)
		want(t, "opened", len(open(t, p, 20)), 5)
	})
}

func TestClimbsByTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, impatient)
		permits := open(t, p, 6)
		permits[0].Slow()
		release(permits, false)
		for _, n := range []int{3, 4, 5, 0} {
			want(t, "allowed", allowed(p), n)
			time.Sleep(30 * time.Second)
		}
		permits = open(t, p, 100)
		want(t, "permits without a bound", len(permits), 100)

		// Within a quarter of an hour it is no news, after it it is.
		want(t, "news", permits[0].Slow(), false)
		release(permits, false)
		time.Sleep(15*time.Minute - time.Second)
		permits = open(t, p, 2)
		want(t, "news", permits[0].Slow(), false)
		release(permits, false)
		time.Sleep(15 * time.Minute)
		permits = open(t, p, 2)
		want(t, "news", permits[0].Slow(), true)
		release(permits, false)
	})
}

func TestClimbsBySuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, impatient)
		permits := open(t, p, 4)
		permits[0].Slow()
		release(permits, true) // older than the complaint: no success
		for served := range 40 {
			want(t, "allowed", allowed(p), 2+served/20)
			one := open(t, p, 1)
			one[0].Release(true)
			one[0].Release(true) // once only
			one = open(t, p, 1)
			one[0].Release(false)
		}
		want(t, "bound", allowed(p), 0)
	})
}

// A host that refuses the only connection there is gets one at a time.
func TestAtLeastOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, impatient)
		for range 3 {
			permits := open(t, p, 1)
			permits[0].Slow()
			want(t, "allowed", allowed(p), 1)
			release(permits, false)
		}
		want(t, "permits", len(open(t, p, 2)), 1)
	})
}

func TestWaitsForATurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{}, 0)
		permits := open(t, p, 2)
		permits[0].Slow()
		permits[0].Release(false)
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { permits[1].Release(true) })
		permit, err := p.Acquire(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "waited", time.Since(start), 3*time.Second)
		_, err = p.Acquire(t.Context(), host)
		want(t, "error", err, "mx.example.org refused connections as too many: no slot within 5s")
		if !errors.Is(err, limit.ErrBusy) {
			t.Error("it is not ErrBusy")
		}
		// The step that time brings lets a waiting one in, though none
		// leaves.
		time.Sleep(20 * time.Second)
		start = time.Now()
		second, err := p.Acquire(t.Context(), host)
		if err != nil {
			t.Fatal(err)
		}
		want(t, "waited for the step", time.Since(start), 2*time.Second)
		permit.Release(true)
		second.Release(true)
	})
}

func TestPacerForgets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPacer(limit.Pacing{Keys: 10}, 0)
		for _, name := range []string{"a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"} {
			permit, _ := p.Acquire(t.Context(), name+".example")
			permit.Slow()
			permit.Release(false)
		}
		want(t, "hosts", len(p.List()), 10)
		want(t, "the first", p.List()[0].Host, "d.example")
		// Hosts that never complained take no room, but for the one in use.
		for i := range 100 {
			permit, _ := p.Acquire(t.Context(), fmt.Sprint(i))
			permit.Release(true)
		}
		want(t, "hosts", len(p.List()), 9)
		want(t, "counted", p.Slowed(), 9)
	})
}

// However hosts complain, what is open never passes what is allowed, permits
// are all given back, and after a quiet time there is no bound.
func TestPacerProperty(t *testing.T) {
	for seed := range uint64(4) {
		synctest.Test(t, func(t *testing.T) {
			p := newPacer(limit.Pacing{}, time.Minute)
			const takes = 7 // what the host really takes at once
			var mu sync.Mutex
			now, refused := 0, 0
			var wg sync.WaitGroup
			for w := range 40 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(w)))
					for range 30 {
						permit, err := p.Acquire(t.Context(), host)
						if err != nil {
							continue
						}
						mu.Lock()
						now++
						ok := now <= takes
						mu.Unlock()
						if !ok {
							permit.Slow()
							mu.Lock()
							refused++
							mu.Unlock()
						}
						time.Sleep(time.Duration(rnd.IntN(1000)) * time.Millisecond)
						mu.Lock()
						now--
						mu.Unlock()
						permit.Release(ok)
					}
				})
			}
			wg.Wait()
			for _, h := range p.List() {
				want(t, "open in the end", h.Open+h.Waiting, 0)
			}
			if refused > 300 {
				t.Errorf("%d of 1200 were refused: the pacer does not pace", refused)
			}
			time.Sleep(time.Hour)
			want(t, "bounds in the end", len(p.List()), 0)
			want(t, "permits", len(open(t, p, 100)), 100)
		})
	}
}

// takeAt takes a slot at a provider, or gives the error.
func takeAt(t *testing.T, l *limit.Limits, name string) (*limit.Permit, error) {
	t.Helper()
	permit := l.Permit()
	err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Provider, Key: name})
	return &permit, err
}

// What goes to a provider counts over all transports: each goes on until all
// together are at its own limit.
func TestProviderOverTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := limit.NewProviders(limit.Pacing{})
		with := func(l limit.Limit) *limit.Limits {
			return limit.New(limit.Config{Limits: limit.ByScope{limit.Provider: l}, Providers: shared, MaxWait: impatient})
		}
		few, many, none := with(limit.Limit{Concurrency: 2}), with(limit.Limit{Concurrency: 4}), with(limit.Limit{})
		var permits []*limit.Permit
		for i, c := range []struct {
			by *limit.Limits
			ok bool
		}{{few, true}, {many, true}, {few, false}, {many, true}, {none, true}, {many, false}, {none, true}} {
			permit, err := takeAt(t, c.by, "big")
			want(t, fmt.Sprint("slot ", i), err == nil, c.ok)
			if err == nil {
				permits = append(permits, permit)
			} else {
				want(t, "error", err, "local limit for provider big: no slot within 1ns")
			}
		}
		if _, err := takeAt(t, few, "other"); err != nil {
			t.Error("another provider: ", err)
		}
		want(t, "few", few.Stats(limit.Provider), limit.Stats{Keys: 2, Open: 2, Waited: 1, Late: 1})
		want(t, "many", many.Stats(limit.Provider), limit.Stats{Keys: 2, Open: 2, Waited: 1, Late: 1})
		state, _ := few.KeyState(limit.Provider, "big")
		want(t, "state", state, limit.KeyState{Limit: limit.Limit{Concurrency: 2}, Open: 5})
		for _, permit := range permits {
			permit.Release()
		}
		_, err := takeAt(t, few, "big")
		want(t, "in the end", err, nil)
	})
}

// A token that one transport spends is spent for all.
func TestProviderRateOverTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		shared := limit.NewProviders(limit.Pacing{})
		a := limit.New(limit.Config{Limits: limit.ByScope{limit.Provider: {Rate: 3, Period: time.Hour}}, Providers: shared, MaxWait: impatient})
		b := limit.New(limit.Config{Limits: limit.ByScope{limit.Provider: {Rate: 4, Period: time.Hour}}, Providers: shared, MaxWait: impatient})
		for _, l := range []*limit.Limits{a, b, a} {
			permit, err := takeAt(t, l, "big")
			if err != nil {
				t.Fatal(err)
			}
			permit.Done(limit.Served)
		}
		_, err := takeAt(t, a, "big")
		want(t, "a is through", err != nil, true)
		for range 3 { // in vain
			permit, err := takeAt(t, b, "big")
			want(t, "b has one left", err, nil)
			permit.Done(limit.Unused)
			permit.Done(limit.Unused) // once only
		}
		_, err = takeAt(t, a, "big")
		want(t, "what b gives back was not a's", err != nil, true)
		permit, err := takeAt(t, b, "big")
		want(t, "b's last", err, nil)
		permit.Release()
		_, err = takeAt(t, b, "big")
		want(t, "b is through", err != nil, true)
	})
}

// A provider with a limit of its own has that one, whatever the transport says
// of providers.
func TestProviderOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{
			Limits: limit.ByScope{limit.Provider: {Concurrency: 1}}, ByProvider: map[string]limit.Limit{"big": {Concurrency: 2}}, MaxWait: impatient,
		})
		for name, slots := range map[string]int{"big": 2, "small": 1} {
			n := 0
			for {
				if _, err := takeAt(t, l, name); err != nil {
					break
				}
				n++
			}
			want(t, name, n, slots)
		}
		only := limit.New(limit.Config{ByProvider: map[string]limit.Limit{"big": {Concurrency: 2}}})
		want(t, "limited", only.Limited(limit.Provider), true)
		_, ok := only.KeyState(limit.Provider, "small")
		want(t, "another has a limit", ok, false)
	})
}

// What waits for a provider keeps nothing of what is wider, nor does what waits
// for a destination or a sender keep a provider's slot.
func TestNarrowFirst(t *testing.T) {
	for busy, free := range map[limit.Scope][]limit.Scope{
		limit.Provider:    {limit.All},
		limit.Source:      {limit.Provider, limit.All},
		limit.Destination: {limit.Source, limit.Provider, limit.All},
	} {
		synctest.Test(t, func(t *testing.T) {
			one := limit.Limit{Concurrency: 1}
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.All: one, limit.Source: one, limit.Destination: one, limit.Provider: one}})
			holder := l.Permit()
			if err := holder.Acquire(t.Context(), limit.Want{Scope: busy}); err != nil {
				t.Fatal(err)
			}
			var wg sync.WaitGroup
			wg.Go(func() {
				permit := l.Permit()
				err := permit.Acquire(t.Context(), limit.Want{Scope: limit.All}, limit.Want{Scope: limit.Source}, limit.Want{Scope: limit.Destination}, limit.Want{Scope: limit.Provider})
				want(t, busy.String(), errors.Is(err, limit.ErrBusy), true)
			})
			synctest.Wait()
			for _, s := range free {
				want(t, fmt.Sprint(s, " while one waits for ", busy), l.Stats(s).Open, 0)
			}
			wg.Wait()
			holder.Release()
			allZero(t, l)
		})
	}
}

// One flood at a limit does not keep others from a slot: those of another
// destination, or of another sender, come next.
func TestFloodAtALimit(t *testing.T) {
	for name, flood := range map[string]func(i int) fairqueue.Flow{
		"to one destination": func(i int) fairqueue.Flow {
			return fairqueue.Flow{Destination: "slow.example", Sender: fmt.Sprint(i)}
		},
		"of one sender": func(i int) fairqueue.Flow {
			return fairqueue.Flow{Destination: fmt.Sprint(i), Sender: "bulk.example"}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limit.New(limit.Config{Limits: limit.ByScope{limit.Provider: {Concurrency: 1}}, MaxWait: time.Hour})
				holder, err := takeAt(t, l, "big")
				if err != nil {
					t.Fatal(err)
				}
				var served []string // under mu
				var mu sync.Mutex
				var wg sync.WaitGroup
				send := func(name string, flow fairqueue.Flow) {
					wg.Go(func() {
						permit := l.Permit()
						permit.Flow = flow
						if err := permit.Acquire(t.Context(), limit.Want{Scope: limit.Provider, Key: "big"}); err != nil {
							t.Error(err)
						}
						mu.Lock()
						served = append(served, name)
						mu.Unlock()
						permit.Release()
					})
					synctest.Wait()
				}
				for i := range 100 {
					send("flood", flood(i))
				}
				send("other", fairqueue.Flow{Destination: "quiet.example", Sender: "people.example"})
				holder.Release()
				wg.Wait()
				if at := slices.Index(served, "other"); at > 3 {
					t.Errorf("%d of the flood went first", at)
				}
				want(t, "served", len(served), 101)
			})
		})
	}
}

// More than may wait are told at once.
func TestWaitingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(limit.Config{Limits: limit.ByScope{limit.Provider: {Concurrency: 1}}, MaxWait: time.Hour})
		holder, err := takeAt(t, l, "big")
		if err != nil {
			t.Fatal(err)
		}
		long := fairqueue.Flow{Destination: strings.Repeat("x", 4<<20)}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 16 { // 64 MiB
			wg.Go(func() {
				permit := l.Permit()
				permit.Flow = long
				if err := permit.Acquire(ctx, limit.Want{Scope: limit.Provider, Key: "big"}); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		_, err = takeAt(t, l, "big")
		want(t, "it is busy", errors.Is(err, limit.ErrBusy), true)
		want(t, "after", time.Since(start), time.Duration(0))
		cancel()
		wg.Wait()
		holder.Release()
		allZero(t, l)
		_, err = takeAt(t, l, "big")
		want(t, "in the end", err, nil)
	})
}
