package fairqueue_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

// flow reads "destination/sender".
func flow(s string) fairqueue.Flow {
	destination, sender, _ := strings.Cut(s, "/")
	return fairqueue.Flow{Destination: destination, Sender: sender}
}

// drain pops all that waits.
func drain(q *fairqueue.Queue[int]) (order []int) {
	for it := q.Pop(); it != nil; it = q.Pop() {
		order = append(order, it.Value)
	}
	return order
}

func TestOrder(t *testing.T) {
	for name, c := range map[string]struct {
		waits string
		want  string
	}{
		"nothing":                       {"", "[]"},
		"one flow: first come":          {"x/a x/a x/a", "[0 1 2]"},
		"destinations in turn":          {"x/a x/a x/a y/a z/a", "[0 3 4 1 2]"},
		"senders in turn":               {"x/a x/a x/a x/b x/c", "[0 3 4 1 2]"},
		"a flood to one destination":    {"x/a x/b x/c x/d x/e x/f y/g", "[0 1 6 2 3 4 5]"},
		"a sender's flood":              {"q/a r/a s/a t/a u/a v/a y/g", "[0 6 1 2 3 4 5]"},
		"empty keys are keys like any":  {"/ / x/a", "[0 2 1]"},
		"both floods, and a message by": {"x/a x/a x/a p/b q/b r/b y/c", "[0 3 4 6 5 1 2]"},
	} {
		t.Run(name, func(t *testing.T) {
			var q fairqueue.Queue[int]
			for i, f := range strings.Fields(c.waits) {
				q.Push(flow(f), i)
			}
			got := drain(&q)
			if got == nil {
				got = []int{}
			}
			if fmt.Sprint(got) != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
			if q.Len() != 0 || q.Bytes() != 0 {
				t.Errorf("%d left, %d bytes", q.Len(), q.Bytes())
			}
		})
	}
}

func TestPopFor(t *testing.T) {
	var q fairqueue.Queue[int]
	for i, f := range strings.Fields("x/a x/a y/b z/c") {
		q.Push(flow(f), i)
	}
	not := func(busy string) func(string) bool {
		return func(destination string) bool { return !strings.Contains(busy, destination) }
	}
	for _, c := range []struct {
		busy string
		want int // -1: none
	}{{"xyz", -1}, {"x", 2}, {"xy", 3}, {"xz", -1}, {"", 0}} {
		got := -1
		if it := q.PopFor(not(c.busy)); it != nil {
			got = it.Value
		}
		if got != c.want {
			t.Errorf("with %q busy: got %d, want %d", c.busy, got, c.want)
		}
	}
	if fmt.Sprint(drain(&q)) != "[1]" {
		t.Error("something is lost")
	}
}

func TestRemove(t *testing.T) {
	var q fairqueue.Queue[int]
	first := q.Push(flow("x/a"), 0)
	second := q.Push(flow("x/a"), 1)
	q.Push(flow("y/a"), 2)
	if want := 3*fairqueue.Cost + 6; q.Bytes() != want {
		t.Errorf("%d bytes, want %d", q.Bytes(), want)
	}
	q.Remove(first)
	q.Remove(first) // twice
	if it := q.Pop(); it != second {
		t.Errorf("popped %+v", it)
	}
	q.Remove(second) // which waits no longer
	if got := drain(&q); fmt.Sprint(got) != "[2]" || q.Bytes() != 0 {
		t.Errorf("left %v, %d bytes", got, q.Bytes())
	}
}

// model is the same in plain words: a list in the order of coming, and the
// keys in the order of their turns.
type model struct {
	items []entry
	turns [2][]string
	turn  int
}

type entry struct {
	keys  [2]string
	value int
}

func (m *model) push(f fairqueue.Flow, v int) {
	e := entry{[2]string{f.Destination, f.Sender}, v}
	m.items = append(m.items, e)
	for i := range m.turns {
		if !slices.Contains(m.turns[i], e.keys[i]) {
			m.turns[i] = append(m.turns[i], e.keys[i])
		}
	}
}

func (m *model) pop() (int, bool) {
	if len(m.items) == 0 {
		return 0, false
	}
	i := m.turn
	switch {
	case len(m.turns[1]) == 1:
		i = 0
	case len(m.turns[0]) == 1:
		i = 1
	default:
		m.turn = 1 - i
	}
	return m.serve(i, m.turns[i][0]), true
}

func (m *model) popFor(may func(string) bool) (int, bool) {
	for _, key := range m.turns[0] {
		if may(key) {
			return m.serve(0, key), true
		}
	}
	return 0, false
}

func (m *model) serve(i int, key string) int {
	at := slices.IndexFunc(m.items, func(e entry) bool { return e.keys[i] == key })
	e := m.items[at]
	for i := range m.turns {
		m.turns[i] = append(slices.DeleteFunc(m.turns[i], func(k string) bool { return k == e.keys[i] }), e.keys[i])
	}
	m.remove(e.value)
	return e.value
}

func (m *model) remove(v int) {
	m.items = slices.DeleteFunc(m.items, func(e entry) bool { return e.value == v })
	for i := range m.turns {
		m.turns[i] = slices.DeleteFunc(m.turns[i], func(k string) bool {
			return !slices.ContainsFunc(m.items, func(e entry) bool { return e.keys[i] == k })
		})
	}
}

// Whatever comes and goes, the queue does what the model does.
func TestModel(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var q fairqueue.Queue[int]
		var m model
		waiting := map[int]*fairqueue.Item[int]{}
		for n := range 500 {
			switch rnd.IntN(7) {
			case 0, 1, 2, 3:
				f := fairqueue.Flow{Destination: fmt.Sprint(rnd.IntN(1 + n%9)), Sender: fmt.Sprint(rnd.IntN(4))}
				waiting[n] = q.Push(f, n)
				m.push(f, n)
			case 4:
				got, want := -1, -1
				if it := q.Pop(); it != nil {
					got = it.Value
				}
				if v, ok := m.pop(); ok {
					want = v
				}
				if got != want {
					t.Fatalf("seed %d, step %d: popped %d, want %d", seed, n, got, want)
				}
				delete(waiting, got)
			case 5:
				may := func(d string) bool { return len(d) == 1 && d[0]%3 != byte(n%3) }
				got, want := -1, -1
				if it := q.PopFor(may); it != nil {
					got = it.Value
				}
				if v, ok := m.popFor(may); ok {
					want = v
				}
				if got != want {
					t.Fatalf("seed %d, step %d: popped %d, want %d", seed, n, got, want)
				}
				delete(waiting, got)
			case 6:
				if len(m.items) > 0 {
					v := m.items[rnd.IntN(len(m.items))].value
					m.remove(v)
					q.Remove(waiting[v])
					delete(waiting, v)
				}
			}
			if q.Len() != len(m.items) {
				t.Fatalf("seed %d, step %d: %d wait, want %d", seed, n, q.Len(), len(m.items))
			}
		}
	}
}

// However much waits for others, the first of a destination and of a sender
// has its slot within twice as many slots as there are destinations, or
// senders.
func TestBound(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 2))
		var q fairqueue.Queue[int]
		destinations, senders := 1+rnd.IntN(20), 1+rnd.IntN(20)
		for n := range 2000 {
			q.Push(fairqueue.Flow{Destination: fmt.Sprint(rnd.IntN(destinations)), Sender: fmt.Sprint(rnd.IntN(senders))}, n)
		}
		q.Push(flow("new/new"), -1)
		within := 2 * (min(destinations, senders) + 1)
		for slot := 1; ; slot++ {
			if q.Pop().Value == -1 {
				break
			}
			if slot >= within {
				t.Fatalf("seed %d: not within %d slots of %d destinations and %d senders", seed, within, destinations, senders)
			}
		}
	}
}
