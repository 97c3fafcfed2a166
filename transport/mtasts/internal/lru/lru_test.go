package lru

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

func keys(m *Map[int]) []string {
	var out []string
	for k := range m.All() {
		out = append(out, k)
	}
	slices.Sort(out)
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
	if got := keys(m); !slices.Equal(got, []string{"a", "c"}) {
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

// Thousands of large entries below one domain push out one another, and no one
// else's.
func TestMapForgetsOfTheHolderThatHoldsMost(t *testing.T) {
	m := New[int](1 << 20)
	m.Put("victim.example", 1, 800)
	for i := range 200 {
		m.Put(fmt.Sprintf("bystander%d.example", i), 1, 800)
	}
	for i := range 5000 {
		m.Put(fmt.Sprintf("d%d.attacker.example", i), 1, 64<<10)
		if m.Cost() > 1<<20 {
			t.Fatalf("%d bytes", m.Cost())
		}
	}
	for i := range 200 {
		if _, ok := m.Get(fmt.Sprintf("bystander%d.example", i)); !ok {
			t.Errorf("bystander %d was forgotten", i)
		}
	}
	if _, ok := m.Get("victim.example"); !ok {
		t.Error("the victim was forgotten")
	}
	if _, ok := m.Get("d4999.attacker.example"); !ok {
		t.Error("the entry last put was forgotten")
	}
}

// Nor do many domains that hold much push out those that hold little.
func TestMapForgetsThoseThatHoldMuchFirst(t *testing.T) {
	m := New[int](1 << 20)
	m.Put("victim.example", 1, 800)
	for i := range 1000 {
		m.Put(fmt.Sprintf("d.attacker%d.example", i), 1, 64<<10)
	}
	if _, ok := m.Get("victim.example"); !ok {
		t.Error("the victim was forgotten")
	}
}

// Among those that hold little use alone decides, however their sizes differ.
func TestMapForgetsByUseAmongTheSmall(t *testing.T) {
	m := New[int](100 * 1000)
	m.Put("used.example", 1, 3000)
	for i := range 1000 {
		m.Put(fmt.Sprintf("d%d.example", i), 1, 500)
		if _, ok := m.Get("used.example"); !ok {
			t.Fatalf("what is used all the time was forgotten after %d", i)
		}
	}
}

// Whatever comes and goes, the sums are right.
func TestMapCounts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	m := New[int](1 << 18)
	costs := map[string]int64{}
	for range 20000 {
		key := fmt.Sprintf("d%d.h%d.example", rnd.IntN(50), rnd.IntN(20))
		switch rnd.IntN(4) {
		case 0:
			m.Delete(key)
		case 1:
			m.Get(key)
		default:
			costs[key] = rnd.Int64N(20000)
			m.Put(key, 1, costs[key])
		}
		var sum int64
		n := 0
		for key := range m.All() {
			sum += costs[key]
			n++
		}
		if sum != m.Cost() || n != m.Len() || m.Cost() > 1<<18 {
			t.Fatalf("%d entries of %d bytes, counted as %d of %d", n, sum, m.Len(), m.Cost())
		}
		held := 0
		for _, h := range m.holders {
			held++
			for e := h.newest.next; e != h.newest; e = e.next {
				held++
			}
		}
		if held != n {
			t.Fatalf("%d entries with holders of %d", held, n)
		}
	}
}
