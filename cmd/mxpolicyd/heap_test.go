package main

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 400, 1 << 20: 400, 4 << 20: 400, 8 << 20: 200, 16 << 20: 100, 32 << 20: 50, 64 << 20: 50,
		96 << 20: 75, 128 << 20: 100, 1 << 30: 100,
	} {
		if got := garbagePercent(live); got != want {
			t.Errorf("%d MiB in use: %d, want %d", live>>20, got, want)
		}
	}
}

// What is in use steers the collector, and its end leaves things as they were.
func TestSteerHeap(t *testing.T) {
	t.Setenv("GOGC", "")
	before := debug.SetGCPercent(77)
	defer debug.SetGCPercent(before)
	now := func() int {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return int(sample[0].Value.Uint64())
	}
	stop := steerHeap()
	if got := now(); got != mostGarbage {
		t.Errorf("at first it is %d", got)
	}
	held := make([]byte, 48<<20)
	for now() != leastGarbage {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	runtime.KeepAlive(held)
	stop()
	if got := now(); got != 77 {
		t.Errorf("in the end it is %d", got)
	}
	t.Setenv("GOGC", "120")
	stop = steerHeap()
	defer stop()
	if got := now(); got != 77 {
		t.Errorf("the administrator's setting became %d", got)
	}
}
