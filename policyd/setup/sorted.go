package setup

import (
	"iter"
	"maps"
	"slices"
)

// sorted goes over settings in the order of their names, so that a plan is the
// same each time.
func sorted(m map[string]string) iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			if !yield(name, m[name]) {
				return
			}
		}
	}
}
