package config

import "strings"

// nearest gives the known word that a misspelt one most probably means, or ""
// when none is near. Letter case and the choice between "-" and "_" count for
// nothing; beyond that a third of the letters may be wrong, and three at most.
func nearest(word string, known []string) string {
	if len(word) > 64 {
		return ""
	}
	word = folded(word)
	best, least := "", 4
	for _, k := range known {
		d := distance(word, folded(k))
		if d < least && d <= max(1, max(len(word), len(k))/3) {
			best, least = k, d
		}
	}
	return best
}

func folded(s string) string {
	return strings.ReplaceAll(strings.ToLower(s), "-", "_")
}

// distance counts the insertions, deletions, replacements and swaps of
// neighbours that make b out of a (optimal string alignment).
func distance(a, b string) int {
	before := make([]int, len(b)+1)
	last := make([]int, len(b)+1)
	here := make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		here[0] = i
		for j := 1; j <= len(b); j++ {
			differs := 1
			if a[i-1] == b[j-1] {
				differs = 0
			}
			here[j] = min(last[j]+1, here[j-1]+1, last[j-1]+differs)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				here[j] = min(here[j], before[j-2]+1)
			}
		}
		before, last, here = last, here, before
	}
	return last[len(b)]
}
