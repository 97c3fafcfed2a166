package deadhost_test

import (
	"fmt"
	"testing"

	"github.com/mxpipe/mxpipe/transport/deadhost"
)

// What a delivery pays for a host that is alive: no allocation, and the same
// whether ten hosts are remembered or fifty thousand.
func BenchmarkEnterLiving(b *testing.B) {
	for _, n := range []int{1, 1000, 50000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			h := deadhost.New(deadhost.Options{})
			names := make([]string, n)
			for i := range names {
				names[i] = fmt.Sprintf("mx.domain%d.example:25", i)
				p, _ := h.Begin(b.Context(), names[i])
				p.Succeeded()
			}
			ctx := b.Context()
			i := 0
			b.ReportAllocs()
			for b.Loop() {
				i = (i + 7919) % n
				p, _ := h.Begin(ctx, names[i])
				p.Succeeded()
			}
		})
	}
}

func BenchmarkEnterDead(b *testing.B) {
	h := deadhost.New(deadhost.Options{})
	p, _ := h.Begin(b.Context(), host)
	p.Failed(errTimeout)
	b.ReportAllocs()
	for b.Loop() {
		h.Begin(b.Context(), host)
	}
}

func TestEnteringALivingHostAllocatesNothing(t *testing.T) {
	h := deadhost.New(deadhost.Options{})
	begin := func() {
		p, _ := h.Begin(t.Context(), host)
		p.Succeeded()
	}
	begin()
	if n := testing.AllocsPerRun(100, begin); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
