package measure

import (
	"math"
	"slices"
	"time"
)

// Sample is the same thing measured several times.
type Sample []float64

// Median is the middle value, 0 of none.
func (s Sample) Median() float64 { return s.quantile(0.5) }

// Min is the least value, 0 of none.
func (s Sample) Min() float64 { return s.quantile(0) }

// Max is the greatest value, 0 of none.
func (s Sample) Max() float64 { return s.quantile(1) }

// quantile interpolates between the two values next to the place.
func (s Sample) quantile(q float64) float64 {
	if len(s) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(s))
	at := q * float64(len(sorted)-1)
	low, high := sorted[int(math.Floor(at))], sorted[int(math.Ceil(at))]
	return low + (high-low)*(at-math.Floor(at))
}

// Over gives the ratios of two samples round by round: what the rounds had to
// bear together falls out.
func (s Sample) Over(other Sample) Sample {
	var ratios Sample
	for i := range min(len(s), len(other)) {
		if other[i] != 0 {
			ratios = append(ratios, s[i]/other[i])
		}
	}
	return ratios
}

// Latencies are the times of single events.
type Latencies []time.Duration

// Percentile is the smallest time that p percent of the events did not exceed.
func (l Latencies) Percentile(p float64) time.Duration {
	if len(l) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(l))
	at := int(math.Ceil(p/100*float64(len(sorted)))) - 1
	return sorted[min(max(at, 0), len(sorted)-1)]
}
