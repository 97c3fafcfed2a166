package metrics

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// maxProviders is how many providers have series of their own; all others
	// are otherProvider together.
	maxProviders  = 50
	otherProvider = "other"
	// maxCandidates bounds the providers that are counted to know which are
	// the largest.
	maxCandidates = 2000
)

// providers counts the results at the largest providers. Who is among them
// changes with the traffic: one that comes in begins at zero, and what one had
// that goes out is from then on counted with the others, so that no counter
// ever goes back but by ending.
type providers struct {
	desc *prometheus.Desc

	mu     sync.Mutex
	scores map[string]uint64 // of candidates, for their order
	named  map[string]*[results]uint64
	others [results]uint64
}

func newProviders() *providers {
	return &providers{
		desc:   prometheus.NewDesc(byProvider.Name, byProvider.Help, byProvider.Labels, nil),
		scores: map[string]uint64{}, named: map[string]*[results]uint64{},
	}
}

// Provider counts what became of a recipient whose mail a provider's host
// decided about.
func (m *Metrics) Provider(name string, code status.Code) { m.providers.count(name, resultOf(code)) }

func (p *providers) count(name string, r result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.score(name)
	of := p.named[name]
	if of == nil && p.rises(name) {
		of = new([results]uint64)
		p.named[name] = of
	}
	if of == nil {
		of = &p.others
	}
	of[r]++
}

// score counts a candidate. When there are too many, all lose half of what they
// have, and those that have nothing then are forgotten.
func (p *providers) score(name string) {
	if _, known := p.scores[name]; !known && len(p.scores) >= maxCandidates {
		for other, n := range p.scores {
			if p.scores[other] = n / 2; n/2 == 0 && p.named[other] == nil {
				delete(p.scores, other)
			}
		}
		if len(p.scores) >= maxCandidates {
			return
		}
	}
	p.scores[name]++
}

// rises makes room for a provider that is clearly larger than the smallest that
// has a series.
func (p *providers) rises(name string) bool {
	if len(p.named) < maxProviders {
		return true
	}
	least := slices.MinFunc(slices.Collect(maps.Keys(p.named)), func(a, b string) int {
		return cmp.Or(cmp.Compare(p.scores[a], p.scores[b]), cmp.Compare(a, b))
	})
	if p.scores[name] <= p.scores[least]+p.scores[least]/10 {
		return false
	}
	for r, n := range p.named[least] {
		p.others[r] += n
	}
	delete(p.named, least)
	return true
}

// Describe implements prometheus.Collector.
func (p *providers) Describe(to chan<- *prometheus.Desc) { to <- p.desc }

// Collect implements prometheus.Collector.
func (p *providers) Collect(to chan<- prometheus.Metric) {
	p.mu.Lock()
	defer p.mu.Unlock()
	put := func(name string, of *[results]uint64) {
		for r := range results {
			to <- prometheus.MustNewConstMetric(p.desc, prometheus.CounterValue, float64(of[r]), name, r.String())
		}
	}
	for name, of := range p.named {
		put(name, of)
	}
	put(otherProvider, &p.others)
}
