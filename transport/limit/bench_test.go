package limit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
)

func BenchmarkAcquire(b *testing.B) {
	everything := limit.Limit{Rate: 1_000_000, Period: time.Millisecond, Concurrency: 1000}
	for name, cfg := range map[string]limit.Config{
		"none":        {},
		"concurrency": {Limits: limit.ByScope{limit.Destination: {Concurrency: 10}}},
		"one scope":   {Limits: limit.ByScope{limit.All: everything}},
		"four scopes": {Limits: limit.ByScope{everything, everything, everything, everything}},
	} {
		b.Run(name, func(b *testing.B) {
			l := limit.New(cfg)
			ctx := b.Context()
			b.ReportAllocs()
			for b.Loop() {
				t := l.Permit()
				if err := t.Acquire(ctx, limit.Want{Scope: limit.All}, limit.Want{Scope: limit.Source, Key: "example.org"},
					limit.Want{Scope: limit.Destination, Key: "example.net"}, limit.Want{Scope: limit.IP, Key: "192.0.2.1"}); err != nil {
					b.Fatal(err)
				}
				t.Release()
			}
		})
	}
}

// Every message has another of so many sender domains: the cost must stay
// about the same.
func BenchmarkAcquireSpread(b *testing.B) {
	for _, n := range []int{10, 1000, 100000, 1000000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := limit.New(limit.Config{Limits: limit.ByScope{limit.Source: {Rate: 1_000_000, Period: time.Hour, Concurrency: 10}}})
			keys := make([]string, n)
			for i := range keys {
				keys[i] = fmt.Sprintf("domain%d.example", i)
			}
			ctx := b.Context()
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i = (i + 7919) % n
				t := l.Permit()
				t.Acquire(ctx, limit.Want{Scope: limit.Source, Key: keys[i]})
				t.Release()
			}
		})
	}
}

func BenchmarkProvider(b *testing.B) {
	l := limit.New(limit.Config{})
	ctx := b.Context()
	b.ReportAllocs()
	for b.Loop() {
		permit := l.Permit()
		permit.Acquire(ctx, limit.Want{Scope: limit.Provider, Key: host})
		permit.Done(limit.Served)
	}
}
