package source

import (
	"fmt"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

func pool(weights ...int) []Source {
	var list []Source
	for i, w := range weights {
		list = append(list, Source{IPs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}, Weight: w})
	}
	return list
}

func keys(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("domain%d.example", i)
	}
	return list
}

// TestWeights: each source gets its share within 5 %.
func TestWeights(t *testing.T) {
	p := pool(3, 1, 0, 5)
	const n = 100_000
	got := make([]int, len(p))
	for _, k := range keys(n) {
		got[Pick(p, k, nil)]++
	}
	for i, share := range []float64{0.3, 0.1, 0.1, 0.5} {
		if f := float64(got[i]) / n; math.Abs(f-share) > share*0.05 {
			t.Errorf("source %d: %.4f of all, want %.2f", i, f, share)
		}
	}
}

// TestSticky: a key keeps its source; a source that is added takes keys from
// the others, and moves none between them; one that goes moves its own alone.
func TestSticky(t *testing.T) {
	three, four := pool(1, 1, 1), pool(1, 1, 1, 1)
	moved := 0
	const n = 20_000
	for _, k := range keys(n) {
		before, after := Pick(three, k, nil), Pick(four, k, nil)
		if before != Pick(three, k, nil) {
			t.Fatal("a key changed its source")
		}
		if before != after {
			moved++
			if after != 3 {
				t.Fatalf("%s moved from %d to %d", k, before, after)
			}
		}
		without := Pick(four, k, func(i int) bool { return i != 3 })
		if without != before {
			t.Fatalf("%s: %d without the fourth, %d before it", k, without, before)
		}
	}
	if f := float64(moved) / n; math.Abs(f-0.25) > 0.0125 {
		t.Errorf("%.4f of the keys moved, want a quarter", f)
	}
}

func TestNone(t *testing.T) {
	if i := Pick(nil, "k", nil); i != -1 {
		t.Error(i)
	}
	if i := Pick(pool(1, 1), "k", func(int) bool { return false }); i != -1 {
		t.Error(i)
	}
}

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func TestDaily(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC)}
	open := func() *Daily {
		d, err := OpenDaily(dir, "daily.json", c.now)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	d := open()
	for i := range 6 {
		if got, want := d.Take("192.0.2.1", 5), i < 5; got != want {
			t.Errorf("message %d: %v", i+1, got)
		}
	}
	if !d.Take("192.0.2.2", 0) || d.Sent("192.0.2.2") != 0 {
		t.Error("a source without a bound")
	}
	d.Give("192.0.2.1", 5)
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	d = open() // a restart
	if got := d.Sent("192.0.2.1"); got != 4 {
		t.Errorf("%d after a restart, want 4", got)
	}
	if !d.Take("192.0.2.1", 5) || d.Take("192.0.2.1", 5) {
		t.Error("the fifth may go, the sixth not")
	}
	c.at = c.at.Add(-2 * time.Hour) // the clock is set back within the day
	if d.Take("192.0.2.1", 5) {
		t.Error("a clock that was set back gave a new day")
	}
	c.at = c.at.Add(2*time.Hour + time.Minute)
	if !d.Take("192.0.2.1", 5) || d.Sent("192.0.2.1") != 1 {
		t.Error("midnight")
	}
	c.at = c.at.Add(-24 * time.Hour) // set back by a day
	if d.Sent("192.0.2.1") != 1 {
		t.Error("a clock that was set back by a day began it anew")
	}
}

func TestDailyDamaged(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(`{"day":`), 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := OpenDaily(dir, "f", time.Now)
	if err == nil {
		t.Error("a torn file was taken")
	}
	if !d.Take("a", 1) || d.Take("a", 1) {
		t.Error("the counts cannot be used")
	}
	if err := d.Save(); err != nil {
		t.Error(err)
	}
}

// TestDailyAtOnce: never one more than the limit, however many ask.
func TestDailyAtOnce(t *testing.T) {
	d, _ := OpenDaily("", "", time.Now)
	var all sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for range 50 {
		all.Go(func() {
			for range 10 {
				if d.Take("a", 100) {
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if n != 100 {
		t.Errorf("%d messages, want 100", n)
	}
}
