package main

import (
	"os"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

const (
	// headroom is how much garbage may gather at the least before it is
	// collected. By its own rule the collector would run after 4 MiB when
	// little is in use: at some thousands of messages a second all the time.
	headroom = 16 << 20
	// The part of what is in use that may be garbage on top of it, in per
	// cent: the least, the usual and the most. The least is less than usual,
	// as what a busy daemon holds is idle connections, by the thousand. But a
	// collection takes the longer the more is in use: from much on it is the
	// usual again, or remembering 100,000 domains would double what a message
	// costs.
	leastGarbage, usualGarbage, mostGarbage = 50, 100, 400
	largeHeap                               = 128 << 20
)

// garbagePercent is the garbage collector's setting (GOGC) when so many bytes
// are in use.
func garbagePercent(live uint64) int {
	if live == 0 {
		return mostGarbage
	}
	percent := min(max(headroom*100/live, leastGarbage), mostGarbage)
	return int(max(percent, min(usualGarbage*live/largeHeap, usualGarbage)))
}

// steerHeap has the garbage collector keep a balance between time and memory
// that suits a mail daemon, until stop is called: few collections while little
// is in use, and little memory beyond what is in use while that is much. It
// is for the whole process, and leaves a setting of the administrator's
// (GOGC) alone.
func steerHeap() (stop func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	h := &heap{percent: mostGarbage}
	h.before = debug.SetGCPercent(h.percent)
	h.arm()
	return h.stop
}

// heap adjusts the collector after each collection.
type heap struct {
	mu      sync.Mutex
	percent int
	before  int
	stopped bool
}

// gcSentinel is unreachable at once, so that the next collection finds it. Of
// the pointer nothing is wanted but that the runtime gives the value a place of
// its own, since it packs small values without one together.
type gcSentinel struct{ _ *byte }

// arm has adjust called after the next collection.
func (h *heap) arm() {
	runtime.AddCleanup(&gcSentinel{}, (*heap).adjust, h)
}

func (h *heap) adjust() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.stopped {
		return
	}
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	// A change stops the world for a moment, so a small one is not worth it.
	if percent := garbagePercent(sample[0].Value.Uint64()); percent*10 < h.percent*9 || percent*10 > h.percent*11 {
		h.percent = percent
		debug.SetGCPercent(percent)
	}
	h.arm()
}

func (h *heap) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	debug.SetGCPercent(h.before)
}
