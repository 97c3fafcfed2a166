package lru

import (
	"slices"
	"testing"
)

func keys(m *Map[int]) []string {
	var out []string
	for k := range m.All() {
		out = append(out, k)
	}
	return out
}

func TestMapForgetsTheLeastRecentlyUsed(t *testing.T) {
	m := New[int](10)
	m.Put("a", 1, 4)
	m.Put("b", 2, 4)
	if v, ok := m.Get("a"); !ok || v != 1 {
		t.Fatalf("Get(a) = %d, %t", v, ok)
	}
	m.Put("c", 3, 4)
	if got := keys(m); !slices.Equal(got, []string{"c", "a"}) {
		t.Errorf("entries %v, want c and a", got)
	}
	if m.Cost() != 8 || m.Len() != 2 {
		t.Errorf("cost %d, len %d", m.Cost(), m.Len())
	}
	m.Put("a", 1, 1) // cheaper than before
	if m.Cost() != 5 {
		t.Errorf("cost %d after replacing, want 5", m.Cost())
	}
	m.Put("big", 4, 100)
	if got := keys(m); !slices.Equal(got, []string{"big"}) {
		t.Errorf("entries %v, want only the one just put", got)
	}
	m.Delete("big")
	m.Delete("never")
	if m.Cost() != 0 || m.Len() != 0 {
		t.Errorf("cost %d, len %d of an empty map", m.Cost(), m.Len())
	}
}
