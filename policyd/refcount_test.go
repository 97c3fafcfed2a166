package policyd

import (
	"fmt"
	"sync"
	"testing"
)

// Parts end when the last user lets them go: whoever needs others before these.
func TestParts(t *testing.T) {
	var ps parts
	var mu sync.Mutex
	var order []string
	named := func(name string, needs ...*part) *part {
		p := &part{}
		p.end = func() {
			mu.Lock()
			defer mu.Unlock()
			order = append(order, name)
		}
		for _, n := range needs {
			ps.need(p, n)
		}
		return p
	}
	ended := func(want ...string) {
		t.Helper()
		ps.wait()
		if fmt.Sprint(order) != fmt.Sprint(want) {
			t.Errorf("ended: %v, want %v", order, want)
		}
	}
	resolver := named("resolver")
	ps.hold(resolver)
	cache := named("cache", resolver)
	old := named("old", resolver, cache)
	kept := named("kept", resolver, cache)
	ps.hold(old)
	ps.hold(kept)
	ps.hold(kept) // a second configuration
	ps.hold(old)  // a delivery
	ps.release(old)
	ps.release(kept)
	ended()
	ps.release(old)
	ended("old")
	ps.release(resolver)
	ended("old")
	ps.release(kept)
	ended("old", "kept", "cache", "resolver")
}

// Nobody waits for what ends: whoever lets a part go has other things to do.
func TestReleaseDoesNotWait(t *testing.T) {
	var ps parts
	gate := make(chan struct{})
	slow := &part{end: func() { <-gate }}
	other := &part{end: func() {}}
	ps.hold(slow)
	ps.hold(other)
	ps.release(slow)
	ps.hold(other)
	ps.release(other)
	ps.release(other)
	close(gate)
	ps.wait()
}
