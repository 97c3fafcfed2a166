// Package lru is a map by domain that forgets what was not used for longest
// once its entries together cost more than it may hold. It exists because what
// MTA-STS remembers of a domain costs between a few hundred bytes and 64 KiB,
// as a stranger likes, so that a number of entries bounds nothing.
//
// Nor would their sum alone: a stranger who has thousands of large policies
// below one domain could push out all others. So entries are counted by
// registrable domain, and those of the domains that hold most go first. To hold
// most is meant roughly, by powers of two from 4 KiB on: among domains that
// hold about the same, and so among all that hold little, use alone decides.
package lru

import (
	"iter"
	"math/bits"

	"github.com/mxpipe/mxpipe/transport/registrable"
)

// little is the cost up to which all holders are alike.
const little = 4 << 10

// classes are how many sizes of holders are told apart: those that hold little,
// and one for each power of two of 64 bits.
const classes = 65

// Map is a bounded map by domain. It is not safe for concurrent use: its owner
// locks.
type Map[V any] struct {
	limit, cost int64
	byKey       map[string]*entry[V]
	holders     map[string]*holder[V]
	bySize      [classes]*holder[V] // by class, the one last used
}

// holder is a registrable domain with the entries below it. The holders of a
// class are a ring: from the last used to the one before that, and so on.
type holder[V any] struct {
	next, prev *holder[V]
	domain     string
	cost       int64
	class      int
	newest     *entry[V] // the last used
}

// entry is in the ring of its holder's.
type entry[V any] struct {
	next, prev *entry[V]
	key        string
	value      V
	cost       int64
	holder     *holder[V]
}

// New makes a Map whose entries cost at most limit together. The entry last put
// stays whatever it costs.
func New[V any](limit int64) *Map[V] {
	return &Map[V]{limit: limit, byKey: make(map[string]*entry[V]), holders: make(map[string]*holder[V])}
}

// Get finds an entry and marks it as used.
func (m *Map[V]) Get(key string) (value V, ok bool) {
	e, ok := m.byKey[key]
	if !ok {
		return value, false
	}
	m.use(e)
	return e.value, true
}

// use marks an entry as used, and its holder.
func (m *Map[V]) use(e *entry[V]) {
	h := e.holder
	if h.newest != e {
		h.takeOut(e)
		h.put(e)
	}
	if m.bySize[h.class] != h {
		m.takeOut(h)
		m.put(h)
	}
}

// Put adds or replaces an entry, marks it as used, and forgets others while
// all cost too much.
func (m *Map[V]) Put(key string, value V, cost int64) {
	m.Delete(key)
	domain := registrable.Domain(key)
	h := m.holders[domain]
	if h == nil {
		h = &holder[V]{domain: domain}
		m.put(h)
		m.holders[domain] = h
	}
	e := &entry[V]{key: key, value: value, cost: cost, holder: h}
	m.byKey[key] = e
	h.put(e)
	m.count(h, cost)
	m.use(e)
	for m.cost > m.limit && len(m.byKey) > 1 {
		m.Delete(m.victim(key))
	}
}

// victim gives the entry to forget: the one that was not used for longest, of
// the holder that holds most, of which kept is none.
func (m *Map[V]) victim(kept string) string {
	for class := classes - 1; class >= 0; class-- {
		newest := m.bySize[class]
		if newest == nil {
			continue
		}
		for h := newest.prev; ; h = h.prev {
			if e := h.newest.prev; e.key != kept {
				return e.key
			}
			if h == newest {
				break
			}
		}
	}
	return "" // there is another entry than kept
}

// Delete forgets an entry, if it is there.
func (m *Map[V]) Delete(key string) {
	e, ok := m.byKey[key]
	if !ok {
		return
	}
	h := e.holder
	h.takeOut(e)
	delete(m.byKey, key)
	m.count(h, -e.cost)
	if h.newest == nil {
		m.takeOut(h)
		delete(m.holders, h.domain)
	}
}

// count adds to what a holder holds, and puts it among its like.
func (m *Map[V]) count(h *holder[V], cost int64) {
	m.cost += cost
	h.cost += cost
	if class := bits.Len64(uint64(h.cost / little)); class != h.class {
		m.takeOut(h)
		h.class = class
		m.put(h)
	}
}

// put puts a holder among its like, as the one last used.
func (m *Map[V]) put(h *holder[V]) {
	newest := m.bySize[h.class]
	m.bySize[h.class] = h
	if newest == nil {
		h.next, h.prev = h, h
		return
	}
	h.next, h.prev = newest, newest.prev
	h.next.prev, h.prev.next = h, h
}

// takeOut takes a holder from among its like.
func (m *Map[V]) takeOut(h *holder[V]) {
	if h.next == h {
		m.bySize[h.class] = nil
		return
	}
	h.next.prev, h.prev.next = h.prev, h.next
	if m.bySize[h.class] == h {
		m.bySize[h.class] = h.next
	}
}

// put puts an entry among the holder's, as the one last used.
func (h *holder[V]) put(e *entry[V]) {
	newest := h.newest
	h.newest = e
	if newest == nil {
		e.next, e.prev = e, e
		return
	}
	e.next, e.prev = newest, newest.prev
	e.next.prev, e.prev.next = e, e
}

// takeOut takes an entry from among the holder's.
func (h *holder[V]) takeOut(e *entry[V]) {
	if e.next == e {
		h.newest = nil
		return
	}
	e.next.prev, e.prev.next = e.prev, e.next
	if h.newest == e {
		h.newest = e.next
	}
}

// Len is the number of entries.
func (m *Map[V]) Len() int { return len(m.byKey) }

// Cost is what all entries cost together.
func (m *Map[V]) Cost() int64 { return m.cost }

// All gives the entries, in no order, without marking them as used. The Map
// must not change meanwhile.
func (m *Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for key, e := range m.byKey {
			if !yield(key, e.value) {
				return
			}
		}
	}
}
