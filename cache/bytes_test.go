package cache_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// sized answers a key with as many bytes as its number says.
func sized(_ context.Context, key int) ([]byte, time.Time, error) {
	return make([]byte, key), time.Now().Add(time.Hour), nil
}

func costOf(_ int, e cache.Entry[[]byte]) int { return len(e.Value) }

// What was not used for longest makes room for what is new, until the bytes of
// all are within the bound.
func TestBoundedByBytes(t *testing.T) {
	const bound = 80_000
	c := cache.New(sized, cache.Options[int, []byte]{Bytes: bound, Cost: costOf})
	defer c.Close(t.Context())
	get := func(key int) {
		t.Helper()
		if v, err := c.Get(t.Context(), key); err != nil || len(v) != key {
			t.Fatalf("%d: %d bytes, %v", key, len(v), err)
		}
		if st := c.Stats(); st.Bytes > bound || st.MaxBytes != bound {
			t.Fatalf("after %d: %+v", key, st)
		}
	}
	for key := range 7 {
		get(9000 + key) // 9,256 each with what the cache needs
	}
	if st := c.Stats(); st.Entries != 7 || st.Evictions != 0 || st.Bytes < 7*9000 {
		t.Fatalf("%+v", st)
	}
	get(9000) // used last now
	get(9500)
	get(9501)
	if keys := c.Keys(); !slices.Equal(keys, []int{9501, 9500, 9000, 9006, 9005, 9004, 9003, 9002}) {
		t.Errorf("left are %v", keys)
	}
	if st := c.Stats(); st.Evictions != 1 {
		t.Errorf("%+v", st)
	}
	// A large one is answered, but drives no one out.
	get(10_001)
	if st := c.Stats(); st.Entries != 8 {
		t.Errorf("%+v", st)
	}
	for _, key := range c.Keys() {
		c.Flush(key)
	}
	if st := c.Stats(); st.Bytes != 0 || st.Entries != 0 {
		t.Errorf("an empty cache: %+v", st)
	}
}

// Many small entries are bounded by what the cache itself needs for them, which
// is about what is counted.
func TestBytesAreThoseOfTheHeap(t *testing.T) {
	type key struct {
		name  string
		qtype uint16
	}
	load := func(_ context.Context, k key) (string, time.Time, error) {
		return fmt.Sprintf("%0100d", 7), time.Now().Add(time.Hour), nil
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	c := cache.New(load, cache.Options[key, string]{
		Bytes: 8 << 20, Cost: func(k key, e cache.Entry[string]) int { return len(k.name) + len(e.Value) },
	})
	defer c.Close(t.Context())
	for i := range 60_000 {
		if _, err := c.Get(t.Context(), key{fmt.Sprintf("d%06d.example.", i), 1}); err != nil {
			t.Fatal(err)
		}
	}
	used, st := heap()-before, c.Stats()
	if used > st.Bytes*14/10 || used < st.Bytes*6/10 {
		t.Errorf("%d bytes of the heap are counted as %d for %d entries", used, st.Bytes, st.Entries)
	}
	if st.Bytes > st.MaxBytes || st.Evictions == 0 {
		t.Errorf("%+v", st)
	}
}

// A failure that is kept is replaced by the next one, and the loader sees what
// it replaces, expired or not.
func TestFailureAfterFailure(t *testing.T) {
	var c *cache.Cache[string, int]
	var seen []error
	pause := time.Second
	load := func(context.Context, string) (int, time.Time, error) {
		last, _ := c.Last("a")
		seen = append(seen, last.Err)
		pause *= 10
		return 0, time.Now().Add(pause), fmt.Errorf("failure %d", len(seen))
	}
	in(t, load, cache.Options[string, int]{}, func(t *testing.T, made *cache.Cache[string, int]) {
		c = made
		for _, step := range []struct {
			wait time.Duration
			want string
		}{
			{0, "failure 1"},
			{9999 * time.Millisecond, "failure 1"}, // begins a refresh
			// within the hundred seconds of the second
			{time.Second, "failure 2"},
			{80 * time.Second, "failure 2"},
			{time.Hour, "failure 3"},
		} {
			time.Sleep(step.wait)
			if _, err := c.Get(t.Context(), "a"); err == nil || err.Error() != step.want {
				t.Fatalf("after %v: %v, want %s", step.wait, err, step.want)
			}
		}
		if len(seen) != 3 || seen[0] != nil || seen[1].Error() != "failure 1" || seen[2].Error() != "failure 2" {
			t.Errorf("the loader saw %v", seen)
		}
	})
}

func TestPending(t *testing.T) {
	gate := make(chan struct{})
	failed := errors.New("failed")
	load := func(context.Context, string) (int, time.Time, error) {
		<-gate
		return 0, time.Time{}, failed
	}
	now := time.Unix(1000, 0)
	c := cache.New(load, cache.Options[string, int]{Now: func() time.Time { return now }})
	defer c.Close(t.Context())
	if _, ok := c.Pending("a"); ok {
		t.Error("a flight that was not begun")
	}
	done := make(chan error)
	go func() {
		_, err := c.Get(t.Context(), "a")
		done <- err
	}()
	for c.Stats().Misses == 0 {
		runtime.Gosched()
	}
	if since, ok := c.Pending("a"); !ok || !since.Equal(now) {
		t.Errorf("since %v, %v", since, ok)
	}
	close(gate)
	if err := <-done; err != failed {
		t.Error(err)
	}
	if _, ok := c.Pending("a"); ok {
		t.Error("a flight that has landed")
	}
}
