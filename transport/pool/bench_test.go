package pool_test

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/pool"
)

// One connection taken and given back, beside this many idle ones: the cost
// must stay about the same.
func BenchmarkGetPut(b *testing.B) {
	for _, n := range []int{0, 10, 1000, 100000} {
		b.Run(fmt.Sprintf("idle=%d", n), func(b *testing.B) {
			p := filled(n)
			defer p.Stop()
			limits := pool.Limits{IdleCount: 10, IdleTime: time.Hour, Uses: 10}
			p.Put(key, "example.org", fresh("x"), limits)
			b.ReportAllocs()
			for b.Loop() {
				c, _ := p.Get(key, anyone)
				p.Put(key, "example.org", c, limits)
			}
		})
	}
}

// Each delivery is for another of 100,000 domains.
func BenchmarkGetPutSpread(b *testing.B) {
	const n = 100000
	p := filled(n)
	defer p.Stop()
	keys, domains := names(n)
	limits := pool.Limits{IdleCount: 10, IdleTime: time.Hour, Uses: 10}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 7919) % n
		c, _ := p.Get(keys[i], anyone)
		p.Put(keys[i], domains[i], c, limits)
	}
}

// What the pool itself needs for one idle connection, names left out.
func BenchmarkMemory(b *testing.B) {
	const n = 100000
	keys, domains := names(n)
	conns := make([]conn, n)
	var before, after runtime.MemStats
	for b.Loop() {
		runtime.GC()
		runtime.ReadMemStats(&before)
		p := pool.New[*conn](n)
		for i := range keys {
			p.Put(keys[i], domains[i], &conns[i], pool.Limits{IdleCount: 10, IdleTime: time.Hour, Uses: 10})
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/n, "B/idle")
		p.Stop()
	}
}

func names(n int) (keys []pool.Key, domains []string) {
	for i := range n {
		domains = append(domains, fmt.Sprintf("domain%d.example", i))
		keys = append(keys, pool.Key{Transport: "default", Host: "mx." + domains[i], Port: 25})
	}
	return keys, domains
}

func filled(n int) *pool.Pool[*conn] {
	p := pool.New[*conn](n + 1)
	keys, domains := names(n)
	for i := range keys {
		p.Put(keys[i], domains[i], &conn{}, pool.Limits{IdleCount: 10, IdleTime: time.Hour, Uses: 10})
	}
	return p
}
