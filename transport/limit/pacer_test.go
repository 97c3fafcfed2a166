package limit_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
)

const host = "mx.example.org"

// open takes n permits, or fewer if no more come at once.
func open(t *testing.T, p *limit.Pacer, n int) (permits []*limit.HostPermit) {
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

func release(permits []*limit.HostPermit, served bool) {
	for _, permit := range permits {
		permit.Release(served)
	}
}

func allowed(p *limit.Pacer) int {
	for _, h := range p.List() {
		return h.Allowed
	}
	return 0
}

// impatient has permits that do not come at once not come at all.
var impatient = limit.Pacing{MaxWait: time.Nanosecond}

func TestHostThatNeverComplainedHasNoBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(limit.Pacing{})
		permits := open(t, p, 1000)
		want(t, "permits", len(permits), 1000)
		release(permits, false)
		want(t, "list", p.List(), []limit.Paced(nil))
	})
}

func TestOneBurstIsOneComplaintAndOneNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := limit.NewPacer(impatient)
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
		p := limit.NewPacer(impatient)
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
		p := limit.NewPacer(impatient)
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
		p := limit.NewPacer(impatient)
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
		p := limit.NewPacer(limit.Pacing{})
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
		p := limit.NewPacer(limit.Pacing{Keys: 10})
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
			p := limit.NewPacer(limit.Pacing{MaxWait: time.Minute})
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
