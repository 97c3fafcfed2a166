package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// source answers every key with how often it was asked for anything.
type source struct {
	calls atomic.Int64
	ttl   time.Duration
	fail  atomic.Bool
}

var errSource = errors.New("the source is dead")

func (s *source) load(_ context.Context, _ string) (int64, time.Time, error) {
	n := s.calls.Add(1)
	if s.fail.Load() {
		return 0, time.Time{}, errSource
	}
	return n, time.Now().Add(s.ttl), nil
}

// in runs a test in a bubble of fake time, with a cache that is closed at the
// end.
func in[V any](t *testing.T, load cache.Loader[string, V], o cache.Options[string, V], f func(t *testing.T, c *cache.Cache[string, V])) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		c := cache.New(load, o)
		f(t, c)
		if err := c.Close(t.Context()); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
}

func want(t *testing.T, c *cache.Cache[string, int64], key string, value int64) {
	t.Helper()
	got, err := c.Get(t.Context(), key)
	if err != nil || got != value {
		t.Fatalf("Get(%q) = %d, %v; want %d", key, got, err, value)
	}
}

func TestEntryLivesUntilItsExpiry(t *testing.T) {
	s := &source{ttl: time.Minute}
	in(t, s.load, cache.Options[string, int64]{Size: 10}, func(t *testing.T, c *cache.Cache[string, int64]) {
		want(t, c, "a", 1)
		time.Sleep(50 * time.Second) // before the last tenth
		want(t, c, "a", 1)
		time.Sleep(10 * time.Second)
		want(t, c, "a", 2)
		if st := c.Stats(); st.Hits != 1 || st.Misses != 2 || st.Refreshes != 0 || st.Entries != 1 {
			t.Errorf("counters are %+v", st)
		}
	})
}

func TestOneFlightForAKey(t *testing.T) {
	var calls atomic.Int64
	gate := make(chan struct{})
	load := func(context.Context, string) (int64, time.Time, error) {
		calls.Add(1)
		<-gate
		return 7, time.Time{}, nil
	}
	c := cache.New(load, cache.Options[string, int64]{Size: 10})
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if v, err := c.Get(t.Context(), "a"); v != 7 || err != nil {
				t.Errorf("Get = %d, %v", v, err)
			}
		})
	}
	for c.Stats().Misses < 50 {
		runtime.Gosched() // until everyone waits for the flight
	}
	close(gate)
	all.Wait()
	if calls.Load() != 1 {
		t.Errorf("%d flights, want 1", calls.Load())
	}
	if st := c.Stats(); st.Entries != 0 {
		t.Errorf("an answer without expiry was kept: %+v", st)
	}
	if err := c.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestFlightOutlivesWhoBeganIt(t *testing.T) {
	var gate chan struct{}
	load := func(ctx context.Context, _ string) (int64, time.Time, error) {
		select {
		case <-gate:
			return 7, time.Now().Add(time.Hour), nil
		case <-ctx.Done():
			return 0, time.Time{}, ctx.Err()
		}
	}
	synctest.Test(t, func(t *testing.T) {
		gate = make(chan struct{})
		c := cache.New(load, cache.Options[string, int64]{Size: 10})
		gone := errors.New("gone")
		ctx, leave := context.WithCancelCause(t.Context())
		first := make(chan error)
		go func() {
			_, err := c.Get(ctx, "a")
			first <- err
		}()
		synctest.Wait()
		leave(gone)
		if err := <-first; !errors.Is(err, gone) {
			t.Errorf("who left got %v", err)
		}
		close(gate)
		want(t, c, "a", 7)
		if st := c.Stats(); st.Failures != 0 {
			t.Errorf("the flight was cancelled: %+v", st)
		}
		c.Close(t.Context())
	})
}

func TestFlightHasADeadline(t *testing.T) {
	load := func(ctx context.Context, _ string) (int64, time.Time, error) {
		<-ctx.Done()
		return 0, time.Time{}, ctx.Err()
	}
	in(t, load, cache.Options[string, int64]{Size: 1, Timeout: 3 * time.Second}, func(t *testing.T, c *cache.Cache[string, int64]) {
		begin := time.Now()
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(begin); took != 3*time.Second {
			t.Errorf("the flight took %v", took)
		}
	})
}

func TestFailureIsKeptOnlyWithAnExpiry(t *testing.T) {
	var calls atomic.Int64
	load := func(_ context.Context, key string) (int64, time.Time, error) {
		calls.Add(1)
		if key == "kept" {
			return 0, time.Now().Add(time.Minute), errSource
		}
		return 0, time.Time{}, errSource
	}
	in(t, load, cache.Options[string, int64]{Size: 10}, func(t *testing.T, c *cache.Cache[string, int64]) {
		for key, loads := range map[string]int64{"kept": 1, "forgotten": 2} {
			calls.Store(0)
			for range 2 {
				if _, err := c.Get(t.Context(), key); !errors.Is(err, errSource) {
					t.Errorf("%s: %v", key, err)
				}
			}
			if calls.Load() != loads {
				t.Errorf("%s: loaded %d times, want %d", key, calls.Load(), loads)
			}
		}
	})
}

func TestBoundHoldsAndTheLeastUsedGoes(t *testing.T) {
	s := &source{ttl: time.Hour}
	in(t, s.load, cache.Options[string, int64]{Size: 3}, func(t *testing.T, c *cache.Cache[string, int64]) {
		for _, key := range []string{"a", "b", "c", "a", "d"} {
			if _, err := c.Get(t.Context(), key); err != nil {
				t.Fatal(err)
			}
		}
		if got := c.Keys(); !slices.Equal(got, []string{"d", "a", "c"}) {
			t.Errorf("kept %q", got)
		}
		for i := range 1000 {
			c.Get(t.Context(), fmt.Sprint(i))
		}
		if st := c.Stats(); st.Entries != 3 || st.Evictions != 1001 {
			t.Errorf("counters are %+v", st)
		}
	})
}

func TestRefreshAhead(t *testing.T) {
	s := &source{ttl: 100 * time.Second}
	in(t, s.load, cache.Options[string, int64]{Size: 10}, func(t *testing.T, c *cache.Cache[string, int64]) {
		want(t, c, "a", 1)
		time.Sleep(90*time.Second - 1)
		want(t, c, "a", 1)
		synctest.Wait()
		if st := c.Stats(); st.Refreshes != 0 {
			t.Fatal("refreshed before the last tenth of its life")
		}
		time.Sleep(10 * time.Second) // a nanosecond before its end
		want(t, c, "a", 1)           // the old one, at once
		synctest.Wait()
		want(t, c, "a", 2)
		if st := c.Stats(); st.Refreshes != 1 || st.Misses != 1 {
			t.Errorf("counters are %+v", st)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if s.calls.Load() != 2 {
			t.Error("an entry that is not used was refreshed")
		}
	})
}

func TestRefreshesAreSpreadOut(t *testing.T) {
	s := &source{ttl: 100 * time.Second}
	in(t, s.load, cache.Options[string, int64]{Size: 1000, Refreshes: 1000}, func(t *testing.T, c *cache.Cache[string, int64]) {
		const n = 500
		for i := range n {
			c.Get(t.Context(), fmt.Sprint(i))
		}
		time.Sleep(95 * time.Second)
		for i := range n {
			c.Get(t.Context(), fmt.Sprint(i))
		}
		synctest.Wait()
		if got := c.Stats().Refreshes; got < n/4 || got > n*3/4 {
			t.Errorf("%d of %d were refreshed in the middle of the last tenth", got, n)
		}
	})
}

func TestFailedRefreshKeepsWhatIsGood(t *testing.T) {
	s := &source{ttl: 100 * time.Second}
	in(t, s.load, cache.Options[string, int64]{Size: 10}, func(t *testing.T, c *cache.Cache[string, int64]) {
		want(t, c, "a", 1)
		s.fail.Store(true)
		time.Sleep(100*time.Second - 16)
		for range 5 {
			want(t, c, "a", 1)
			synctest.Wait()
		}
		if st := c.Stats(); st.Refreshes != 1 || st.Failures != 1 {
			t.Errorf("a dead source was asked at every use: %+v", st)
		}
		time.Sleep(8 * time.Nanosecond)
		want(t, c, "a", 1)
		synctest.Wait()
		if st := c.Stats(); st.Refreshes != 2 {
			t.Errorf("no second try: %+v", st)
		}
		time.Sleep(8 * time.Nanosecond)
		if _, err := c.Get(t.Context(), "a"); !errors.Is(err, errSource) {
			t.Errorf("after its expiry: %v", err)
		}
	})
}

// raise makes most at least n, though others do so at the same time.
func raise(most *atomic.Int64, n int64) {
	for was := most.Load(); was < n && !most.CompareAndSwap(was, n); was = most.Load() {
	}
}

func TestRefreshesAtOnceAreBounded(t *testing.T) {
	var at, most, total atomic.Int64
	load := func(context.Context, string) (int64, time.Time, error) {
		raise(&most, at.Add(1))
		defer at.Add(-1)
		if total.Add(1) > 100 {
			time.Sleep(time.Nanosecond)
		}
		return 1, time.Now().Add(100 * time.Second), nil
	}
	in(t, load, cache.Options[string, int64]{Size: 200, Refreshes: 4}, func(t *testing.T, c *cache.Cache[string, int64]) {
		for i := range 100 {
			want(t, c, fmt.Sprint(i), 1)
		}
		time.Sleep(100*time.Second - 10)
		for i := range 100 {
			want(t, c, fmt.Sprint(i), 1)
		}
		synctest.Wait()
		if most.Load() > 4 {
			t.Errorf("%d refreshes at once", most.Load())
		}
	})
}

func TestPeekAndFlush(t *testing.T) {
	s := &source{ttl: time.Minute}
	in(t, s.load, cache.Options[string, int64]{Size: 10}, func(t *testing.T, c *cache.Cache[string, int64]) {
		if _, ok := c.Entry("a"); ok || c.Flush("a") {
			t.Error("found what was never loaded")
		}
		want(t, c, "a", 1)
		e, ok := c.Entry("a")
		if !ok || e.Value != 1 || !e.Expires.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("Peek = %+v, %v", e, ok)
		}
		if !c.Flush("a") {
			t.Error("Flush found nothing")
		}
		want(t, c, "a", 2)
		time.Sleep(time.Minute)
		if _, ok := c.Entry("a"); ok || len(c.Keys()) != 0 {
			t.Error("an expired entry shows")
		}
	})
}

func TestFlushOutrunsAFlight(t *testing.T) {
	gates := make(chan chan int64, 2)
	load := func(context.Context, string) (int64, time.Time, error) {
		gate := make(chan int64)
		gates <- gate
		return <-gate, time.Now().Add(time.Hour), nil
	}
	c := cache.New(load, cache.Options[string, int64]{Size: 10})
	old, fresh := make(chan int64), make(chan int64)
	get := func(to chan int64) {
		v, _ := c.Get(t.Context(), "a")
		to <- v
	}
	go get(old)
	first := <-gates
	c.Flush("a")
	go get(fresh)
	second := <-gates
	second <- 2
	if v := <-fresh; v != 2 {
		t.Errorf("after the flush: %d", v)
	}
	first <- 1
	if v := <-old; v != 1 {
		t.Errorf("who waited before the flush: %d", v)
	}
	if e, ok := c.Entry("a"); !ok || e.Value != 2 {
		t.Errorf("kept %+v, %v: the flushed flight's answer came back", e, ok)
	}
	c.Close(t.Context())
}

func TestClose(t *testing.T) {
	began, release := make(chan struct{}), make(chan struct{})
	var cause error
	load := func(ctx context.Context, _ string) (int64, time.Time, error) {
		close(began)
		<-ctx.Done()
		cause = context.Cause(ctx)
		<-release
		return 0, time.Time{}, cause
	}
	c := cache.New(load, cache.Options[string, int64]{Size: 1})
	got := make(chan error)
	go func() {
		_, err := c.Get(context.Background(), "a")
		got <- err
	}()
	<-began
	late := errors.New("late")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(late)
	if err := c.Close(ctx); !errors.Is(err, late) {
		t.Errorf("Close while a flight runs: %v", err)
	}
	close(release)
	if err := c.Close(t.Context()); err != nil {
		t.Errorf("Close: %v", err)
	}
	if err := <-got; !errors.Is(err, cache.ErrClosed) || !errors.Is(cause, cache.ErrClosed) {
		t.Errorf("who waited got %v", err)
	}
	if _, err := c.Get(t.Context(), "b"); !errors.Is(err, cache.ErrClosed) {
		t.Errorf("Get after Close: %v", err)
	}
}

// An entry is put in another's place with its own expiry and cost, and never
// brings back what has expired.
func TestUpdate(t *testing.T) {
	s := &source{ttl: time.Minute}
	in(t, s.load, cache.Options[string, int64]{Bytes: 1 << 20, Cost: func(_ string, e cache.Entry[int64]) int { return int(e.Value) }},
		func(t *testing.T, c *cache.Cache[string, int64]) {
			add := func(n int64, life time.Duration) func(cache.Entry[int64]) (cache.Entry[int64], bool) {
				return func(e cache.Entry[int64]) (cache.Entry[int64], bool) {
					return cache.Entry[int64]{Value: e.Value + n, Expires: time.Now().Add(life)}, n > 0
				}
			}
			c.Update("a", add(1000, time.Hour))
			if _, ok := c.Entry("a"); ok {
				t.Error("an entry was made of nothing")
			}
			want(t, c, "a", 1)
			before := c.Stats().Bytes
			c.Update("a", add(1000, time.Hour))
			want(t, c, "a", 1001)
			if grown := c.Stats().Bytes - before; grown != 1000 {
				t.Errorf("it grew by %d bytes", grown)
			}
			c.Update("a", add(0, 0))
			want(t, c, "a", 1001)
			time.Sleep(2 * time.Minute)
			want(t, c, "a", 1001)
			time.Sleep(time.Hour)
			c.Update("a", add(1000, time.Hour))
			want(t, c, "a", 2)
		})
}
