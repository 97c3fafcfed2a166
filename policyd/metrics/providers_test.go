package metrics

import (
	"fmt"
	"testing"
)

// However many providers there are, fifty at most have a series, the largest
// do, and nothing is lost from the sum.
func TestProvidersAreBounded(t *testing.T) {
	p := newProviders()
	sum := func() (n uint64) {
		for _, of := range p.named {
			n += of[delivered]
		}
		return n + p.others[delivered]
	}
	var counted, others uint64
	count := func(name string) {
		p.count(name, delivered)
		counted++
		if p.others[delivered] < others || sum() != counted || len(p.named) > maxProviders || len(p.scores) > maxCandidates {
			t.Fatalf("after %d: %d in sum, others %d after %d, %d names, %d candidates", counted, sum(), p.others[delivered], others, len(p.named), len(p.scores))
		}
		others = p.others[delivered]
	}
	for i := range 5000 { // small ones come first, each once
		count(fmt.Sprint(i, ".example"))
	}
	for range 100 {
		for i := range 40 {
			count(fmt.Sprint("large", i))
		}
		count(fmt.Sprint(counted, ".example"))
	}
	for i := range 40 {
		if p.named[fmt.Sprint("large", i)] == nil {
			t.Errorf("large%d has no series", i)
		}
	}
}
