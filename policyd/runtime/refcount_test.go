package runtime

import (
	"fmt"
	"sync"
	"testing"
)

// Resources end when the last user releases them: one that uses others before
// these.
func TestResources(t *testing.T) {
	var rs resources
	var mu sync.Mutex
	var order []string
	named := func(name string, needs ...*resource) *resource {
		p := &resource{}
		p.end = func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}
		for _, n := range needs {
			rs.dependOn(p, n)
		}
		return p
	}
	ended := func(want ...string) {
		t.Helper()
		rs.wait()
		if fmt.Sprint(order) != fmt.Sprint(want) {
			t.Errorf("ended: %v, want %v", order, want)
		}
	}
	resolver := named("resolver")
	rs.acquire(resolver)
	cache := named("cache", resolver)
	old := named("old", resolver, cache)
	kept := named("kept", resolver, cache)
	rs.acquire(old)
	rs.acquire(kept)
	rs.acquire(kept) // a second configuration
	rs.acquire(old)  // a delivery
	rs.release(old)
	rs.release(kept)
	ended()
	rs.release(old)
	ended("old")
	rs.release(resolver)
	ended("old")
	rs.release(kept)
	ended("old", "kept", "cache", "resolver")
}

// What releases a resource does not wait for its end.
func TestReleaseDoesNotWait(t *testing.T) {
	var rs resources
	gate := make(chan struct{})
	slow := &resource{end: func() { <-gate }}
	other := &resource{end: func() {}}
	rs.acquire(slow)
	rs.acquire(other)
	rs.release(slow)
	rs.acquire(other)
	rs.release(other)
	rs.release(other)
	close(gate)
	rs.wait()
}
