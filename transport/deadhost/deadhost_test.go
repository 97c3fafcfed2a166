package deadhost_test

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
	"github.com/mxpipe/mxpipe/transport/deadhost"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const (
	host           = "mx.example.org:25"
	connectTimeout = 5 * time.Minute
)

var errTimeout = errors.New("i/o timeout")

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

// begin is for a host that should let one in at once.
func begin(t *testing.T, h *deadhost.Hosts) *deadhost.Attempt {
	t.Helper()
	start := time.Now()
	p, err := h.Begin(t.Context(), host)
	if err != nil {
		t.Fatalf("not let in: %v", err)
	}
	if waited := time.Since(start); waited > 0 {
		t.Fatalf("waited for %v", waited)
	}
	return &p
}

// trying tells whether a trial probes a dead host now.
func trying(h *deadhost.Hosts, name string) bool {
	d := h.State(name)
	return d != nil && d.Failures > 0 && d.Trying
}

// refused is for a host that should let none in, at once.
func refused(t *testing.T, h *deadhost.Hosts) *deadhost.Dead {
	t.Helper()
	start := time.Now()
	p, err := h.Begin(t.Context(), host)
	var dead *deadhost.Dead
	if !errors.As(err, &dead) {
		p.Abandoned()
		t.Fatalf("let in, or another error: %v", err)
	}
	if waited := time.Since(start); waited > 0 {
		t.Fatalf("waited for %v", waited)
	}
	return dead
}

// tally counts what many deliveries at once meet.
type tally struct {
	sync.WaitGroup
	dialled, delivered, timedOut, fast atomic.Int32
	slowest                            atomic.Int64 // of those that failed fast
	texts                              sync.Map
}

// raise makes most at least n, though others do so at the same time.
func raise(most *atomic.Int64, n int64) {
	for was := most.Load(); was < n && !most.CompareAndSwap(was, n); was = most.Load() {
	}
}

// deliver starts n deliveries to a host that answers after so long, or never
// when that is more than the time-out.
func (c *tally) deliver(ctx context.Context, h *deadhost.Hosts, n int, answersAfter time.Duration) {
	for range n {
		c.Go(func() {
			start := time.Now()
			p, err := h.Begin(ctx, host)
			if err != nil {
				c.fast.Add(1)
				raise(&c.slowest, int64(time.Since(start)))
				c.texts.Store(err.Error(), true)
				return
			}
			defer p.Abandoned()
			c.dialled.Add(1)
			if answersAfter > connectTimeout {
				time.Sleep(connectTimeout)
				p.Failed(errTimeout)
				c.timedOut.Add(1)
				return
			}
			time.Sleep(answersAfter)
			p.Succeeded()
			c.delivered.Add(1)
		})
	}
}

// 200 at once to a black hole of which nothing is known: one waits for its
// time-out, the others fail within seconds; then one trial at a time; and when
// the host is back, mail flows.
func TestBlackHole(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		var first tally
		first.deliver(t.Context(), h, 150, time.Hour)
		time.Sleep(6 * time.Second)
		first.deliver(t.Context(), h, 50, time.Hour) // these wait for less
		time.Sleep(4 * time.Second)
		synctest.Wait()
		want(t, "dialled", first.dialled.Load(), 1)
		want(t, "failed fast", first.fast.Load(), 199)
		want(t, "the slowest of them", time.Duration(first.slowest.Load()), 10*time.Second)
		first.texts.Range(func(text, _ any) bool {
			want(t, "text", text, host+": no answer to the current attempt for 10s")
			return true
		})

		// While that attempt goes on, those who come do not wait at all.
		var second tally
		second.deliver(t.Context(), h, 200, time.Hour)
		second.Wait()
		want(t, "failed fast", second.fast.Load(), 200)
		want(t, "the slowest of them", second.slowest.Load(), 0)
		first.Wait()
		want(t, "timed out", first.timedOut.Load(), 1)

		// Dead for a minute; then one trial at a time.
		d := refused(t, h)
		want(t, "text", d, host+" could not be reached 0s ago (i/o timeout), next attempt in 1m0s")
		time.Sleep(time.Minute)
		var third tally
		third.deliver(t.Context(), h, 200, time.Hour)
		synctest.Wait()
		want(t, "trials", third.dialled.Load(), 1)
		want(t, "failed at once", third.fast.Load(), 199)
		want(t, "text", refused(t, h), host+" could not be reached 1m0s ago (i/o timeout), being tried again now")
		third.Wait()
		d = refused(t, h)
		want(t, "text", d, host+" cannot be reached for 6m0s (i/o timeout), next attempt in 2m0s")

		// The host comes back.
		time.Sleep(2 * time.Minute)
		var fourth tally
		fourth.deliver(t.Context(), h, 200, 100*time.Millisecond)
		fourth.Wait()
		want(t, "delivered by the trial", fourth.delivered.Load(), 1)
		var fifth tally
		fifth.deliver(t.Context(), h, 200, 100*time.Millisecond)
		fifth.Wait()
		want(t, "delivered", fifth.delivered.Load(), 200)
		want(t, "list", h.List(), []deadhost.Dead(nil))
	})
}

// A host that is alive, however slowly it answers, has nothing deferred: not
// when it is new, not when it was seen long ago, not when it was just seen.
func TestLivingHostDefersNothing(t *testing.T) {
	for _, answers := range []time.Duration{0, 20 * time.Millisecond, 3 * time.Second, 7 * time.Second, 9900 * time.Millisecond} {
		t.Run(answers.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := deadhost.New(deadhost.Options{})
				for _, pause := range []time.Duration{0, 0, 30 * time.Second, 10 * time.Minute, 24 * time.Hour} {
					time.Sleep(pause)
					var c tally
					start := time.Now()
					c.deliver(t.Context(), h, 100, answers)
					// some come while the first is under way
					time.Sleep(answers / 3)
					c.deliver(t.Context(), h, 100, answers)
					c.Wait()
					want(t, "delivered", c.delivered.Load(), 200)
					if took := time.Since(start); took > 2*answers {
						t.Errorf("took %v: more than one greeting's wait was added", took)
					}
				}
			})
		})
	}
}

// A host that greets after 25 s defers at its first sight only; once it is
// known to be slow it is given its time.
func TestVerySlowHostIsLearnt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		var first tally
		first.deliver(t.Context(), h, 50, 25*time.Second)
		first.Wait()
		want(t, "first delivered", first.delivered.Load(), 1)
		for _, pause := range []time.Duration{0, 5 * time.Minute} {
			time.Sleep(pause)
			var c tally
			for range 20 { // a steady stream
				c.deliver(t.Context(), h, 5, 25*time.Second)
				time.Sleep(7 * time.Second)
			}
			c.Wait()
			want(t, "delivered", c.delivered.Load(), 100)
		}
	})
}

func TestDeadTimeGrows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Failed(errTimeout)
		since := time.Now()
		for i, minutes := range []int{1, 2, 4, 8, 15, 15, 15} {
			d := refused(t, h)
			want(t, "until", time.Until(d.Until), time.Duration(minutes)*time.Minute)
			want(t, "since", d.Since, since)
			want(t, "failures", d.Failures, i+1)
			want(t, "list", fmt.Sprint(h.List()), fmt.Sprint([]deadhost.Dead{*d}))
			time.Sleep(time.Duration(minutes)*time.Minute - time.Nanosecond)
			refused(t, h)
			time.Sleep(time.Nanosecond)
			p := begin(t, h)
			want(t, "is the trial", trying(h, host), true)
			want(t, "trying", refused(t, h).Trying, true)
			p.Failed(errTimeout)
			p.Succeeded() // too late: it had its outcome
		}
		time.Sleep(15 * time.Minute)
		begin(t, h).Succeeded()
		begin(t, h)
		want(t, "is a trial", trying(h, host), false)
		begin(t, h).Failed(errTimeout)
		want(t, "dead for", time.Until(refused(t, h).Until), time.Minute)
	})
}

func TestAbandonedTrial(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Failed(errTimeout)
		time.Sleep(time.Minute)
		p := begin(t, h)
		time.Sleep(time.Minute)
		p.Abandoned()
		p.Abandoned()
		next := begin(t, h)
		want(t, "the next is the trial", trying(h, host), true)
		refused(t, h)
		next.Failed(errTimeout)
		want(t, "dead for", time.Until(refused(t, h).Until), 2*time.Minute)
	})
}

// The first attempt is given up: one of those who wait is the next, and no
// more than one.
func TestAbandonedFirstAttempt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		first := begin(t, h)
		var c tally
		c.deliver(t.Context(), h, 50, 3*time.Second)
		time.Sleep(4 * time.Second)
		first.Abandoned()
		synctest.Wait()
		want(t, "dialled", c.dialled.Load(), 1)
		c.Wait()
		want(t, "delivered", c.delivered.Load(), 50)
	})
}

// However often the first attempt is given up, none waits for longer than
// the host may be silent.
func TestWaitingIsBoundedOverAbandonedAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				start := time.Now()
				p, err := h.Begin(t.Context(), host)
				if waited := time.Since(start); waited > 10*time.Second {
					t.Errorf("waited for %v", waited)
				}
				if err == nil {
					time.Sleep(time.Second)
					p.Abandoned()
				}
			})
		}
		wg.Wait()
	})
}

func TestCancelledWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		first := begin(t, h)
		gone := errors.New("delivery cancelled: the local mail server disconnected")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(gone) })
		if _, err := h.Begin(ctx, host); err != gone {
			t.Errorf("got %v, want the cause", err)
		}
		first.Succeeded()
		begin(t, h).Abandoned()
	})
}

// The first failure reaches those who wait at once.
func TestFailureWakesThoseWhoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		first := begin(t, h)
		var c tally
		c.deliver(t.Context(), h, 50, 0)
		time.Sleep(50 * time.Millisecond)
		first.Failed(errors.New("connection refused"))
		c.Wait()
		want(t, "failed fast", c.fast.Load(), 50)
		want(t, "after", time.Duration(c.slowest.Load()), 50*time.Millisecond)
		c.texts.Range(func(text, _ any) bool {
			want(t, "text", text, host+" could not be reached 0s ago (connection refused), next attempt in 1m0s")
			return true
		})
	})
}

// A burst of attempts at a host that just died makes it dead once.
func TestOneBurstIsOneFailure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Succeeded()
		var burst []*deadhost.Attempt
		for range 50 {
			burst = append(burst, begin(t, h))
		}
		time.Sleep(10 * time.Second)
		refused(t, h) // silent, though it answered lately
		time.Sleep(20 * time.Second)
		for _, p := range burst {
			p.Failed(errTimeout)
			time.Sleep(time.Second)
		}
		d := refused(t, h)
		want(t, "failures", d.Failures, 1)
		want(t, "until", time.Until(d.Until), 10*time.Second)
	})
}

func TestAnswerOutweighsOlderAttempts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Succeeded()
		lost, late := begin(t, h), begin(t, h)

		// One is lost on the way; another gets an answer after it began.
		time.Sleep(time.Second)
		begin(t, h).Succeeded()
		time.Sleep(50 * time.Second)
		lost.Failed(errTimeout)
		begin(t, h).Abandoned()

		// The host is found dead, and then an attempt from before is answered.
		begin(t, h).Failed(errTimeout)
		refused(t, h)
		late.Succeeded()
		begin(t, h).Abandoned()

		// A trial that fails after somebody else had an answer says nothing.
		straggler := begin(t, h)
		begin(t, h).Failed(errTimeout)
		time.Sleep(time.Minute)
		trial := begin(t, h)
		straggler.Succeeded()
		trial.Failed(errTimeout)
		begin(t, h).Abandoned()
	})
}

// After a long time a dead host is as good as unknown: the burst that comes
// then waits for the first attempt instead of failing beside it.
func TestDeadIsForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Failed(errTimeout)
		time.Sleep(16*time.Minute - time.Nanosecond)
		want(t, "listed", len(h.List()), 1)
		time.Sleep(time.Nanosecond)
		want(t, "listed", len(h.List()), 0)
		want(t, "counted", h.Dead(), 0)
		var c tally
		c.deliver(t.Context(), h, 100, time.Second)
		c.Wait()
		want(t, "delivered", c.delivered.Load(), 100)
	})
}

func TestHostsAreApart(t *testing.T) {
	h := deadhost.New(deadhost.Options{})
	for _, name := range []string{"b", "a", "c"} {
		p, _ := h.Begin(t.Context(), name)
		p.Failed(errTimeout)
	}
	p, err := h.Begin(t.Context(), "d")
	if err != nil {
		t.Error(err)
	}
	p.Succeeded()
	var names []string
	for _, d := range h.List() {
		names = append(names, d.Host)
	}
	want(t, "list", names, []string{"a", "b", "c"})
}

func TestZeroAttempt(t *testing.T) {
	var p deadhost.Attempt
	p.Succeeded()
	p.Failed(nil)
	p.Abandoned()
}

func TestCauseIsOneShortPrintableLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Failed(errors.New("554 go\r\naway\x1b[31m\u202e " + strings.Repeat("ü", 500)))
		cause := refused(t, h).Cause
		if !strings.HasPrefix(cause, "554 go??away?[31m? ü") || len(cause) > 200 {
			t.Errorf("%d bytes: %q", len(cause), cause)
		}
		h = deadhost.New(deadhost.Options{})
		begin(t, h).Failed(nil)
		want(t, "text without a cause", refused(t, h), host+" could not be reached 0s ago, next attempt in 1m0s")
	})
}

func TestTextWhenTheTimeIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		begin(t, h).Failed(errTimeout)
		time.Sleep(90 * time.Second)
		d := h.List()[0]
		want(t, "text", &d, host+" could not be reached 1m30s ago (i/o timeout), to be tried again with the next message")
	})
}

func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{Size: 100})
		// Being tried, a host is not forgotten, whatever comes.
		pending := begin(t, h)
		for i := range 1000 {
			p, err := h.Begin(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Fatal(err)
			}
			p.Failed(errTimeout)
		}
		want(t, "dead hosts remembered", len(h.List()), 99)
		want(t, "the oldest of them", h.List()[0].Host, "901")
		pending.Failed(errTimeout)
		refused(t, h)

		// A host that is asked for stays, though many others come.
		for i := range 1000 {
			p, _ := h.Begin(t.Context(), fmt.Sprint("other", i))
			p.Succeeded()
			refused(t, h)
		}
		want(t, "remembered", h.Len(), 100)

		// What is old goes by and by, when others come.
		time.Sleep(time.Hour)
		for i := range 60 {
			p, _ := h.Begin(t.Context(), fmt.Sprint("new", i))
			p.Succeeded()
		}
		want(t, "remembered", h.Len(), 60)

		// More being tried than are remembered: all of them count.
		h = deadhost.New(deadhost.Options{Size: 5})
		var attempts []*deadhost.Attempt
		for i := range 50 {
			p, _ := h.Begin(t.Context(), fmt.Sprint(i))
			attempts = append(attempts, &p)
		}
		for _, p := range attempts {
			p.Failed(errTimeout)
		}
		want(t, "dead hosts", len(h.List()), 50)
		want(t, "counted", h.Dead(), 50)

		// The longest names and causes are within the bound in bytes.
		h = deadhost.New(deadhost.Options{Size: 100})
		for i := range 500 {
			p, _ := h.Begin(t.Context(), fmt.Sprintf("[%0253d]:65535", i)[:261])
			p.Failed(errors.New(strings.Repeat("x", 5000)))
		}
		if u := h.Usage(); u.Entries != 100 || u.Bytes != u.MaxBytes || u.MaxBytes != 100*(320+261+200) {
			t.Errorf("%+v", u)
		}
	})
}

// Many deliveries to hosts that come and go: while a host is dead none but
// one trial tries it, none waits for longer than the bound, and when it is
// alive in the end, mail flows.
func TestHostsThatComeAndGo(t *testing.T) {
	for seed := range uint64(5) {
		synctest.Test(t, func(t *testing.T) {
			h := deadhost.New(deadhost.Options{Size: 50})
			const names = 4
			var alive [names]atomic.Bool
			var trials [names]atomic.Int32
			var end atomic.Bool
			var wg sync.WaitGroup
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(seed, 0))
				for range 200 {
					alive[rnd.IntN(names)].Store(rnd.IntN(2) == 0)
					time.Sleep(time.Duration(rnd.IntN(120)) * time.Second)
				}
				end.Store(true)
			})
			var tried, fast int32
			for w := range 30 {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(seed, uint64(w+1)))
					for !end.Load() {
						time.Sleep(time.Duration(rnd.IntN(20000)) * time.Millisecond)
						n := rnd.IntN(names)
						start := time.Now()
						p, err := h.Begin(t.Context(), fmt.Sprint(n))
						if waited := time.Since(start); waited > time.Minute {
							t.Errorf("waited for %v", waited)
						}
						if err != nil {
							atomic.AddInt32(&fast, 1)
							continue
						}
						atomic.AddInt32(&tried, 1)
						trial := trying(h, fmt.Sprint(n))
						if trial && trials[n].Add(1) > 1 {
							t.Error("two trials at once")
						}
						up := alive[n].Load()
						time.Sleep(time.Duration(rnd.IntN(5)) * time.Second)
						if !up {
							time.Sleep(25 * time.Second)
						}
						if trial {
							trials[n].Add(-1)
						}
						switch {
						case rnd.IntN(10) == 0:
							p.Abandoned()
						case up:
							p.Succeeded()
						default:
							p.Failed(errTimeout)
						}
					}
				})
			}
			wg.Wait()
			if tried < 100 || fast < 100 {
				t.Errorf("%d tried, %d failed fast: the test tests little", tried, fast)
			}
			time.Sleep(31 * time.Minute)
			for n := range names {
				for range 3 {
					p, err := h.Begin(t.Context(), fmt.Sprint(n))
					if err != nil {
						t.Errorf("not let in: %v", err)
					}
					p.Succeeded()
				}
			}
		})
	}
}

// With real threads, for the race detector.
func TestParallel(t *testing.T) {
	h := deadhost.New(deadhost.Options{Min: time.Microsecond, Max: time.Millisecond, Wait: time.Millisecond, Fresh: time.Microsecond, Size: 3})
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			for range 2000 {
				p, err := h.Begin(t.Context(), fmt.Sprint(rnd.IntN(5)))
				if err != nil {
					_ = err.Error()
					continue
				}
				switch rnd.IntN(4) {
				case 0:
					p.Failed(errTimeout)
				case 1:
					p.Abandoned()
				default:
					p.Succeeded()
				}
				h.List()
			}
		})
	}
	wg.Wait()
}

// State looks without touching, and an answer without an attempt
// clears a host as any other does.
func TestStateAndAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := deadhost.New(deadhost.Options{})
		want(t, "of an unknown host", h.State(host) == nil, true)
		h.Answered(host)
		want(t, "hosts", h.Len(), 0)
		begin(t, h).Failed(errTimeout)
		d := h.State(host)
		if d == nil || d.Failures != 1 || d.Cause != errTimeout.Error() {
			t.Fatalf("%+v", d)
		}
		refused(t, h)
		h.Answered(host)
		want(t, "after an answer", h.State(host) == nil, true)
		begin(t, h).Failed(errTimeout)
		time.Sleep(time.Minute)
		want(t, "when the next one is the trial", h.State(host) == nil, true)
		p := begin(t, h)
		want(t, "during the trial", h.State(host) != nil, true)
		p.Abandoned()
		time.Sleep(time.Hour)
		want(t, "long after", h.State(host) == nil, true)
	})
}
