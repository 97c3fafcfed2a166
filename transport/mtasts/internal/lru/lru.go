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
	"container/list"
	"iter"
	"math/bits"

	"github.com/mxpipe/mxpipe/transport/mtasts/internal/registrable"
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
	byKey       map[string]*list.Element // of *entry[V]
	holders     map[string]*holder
	// of *holder by class, the last used in front
	bySize [classes]list.List
}

// holder is a registrable domain with the entries below it.
type holder struct {
	domain  string
	cost    int64
	class   int
	entries list.List     // of *entry[V], the last used in front
	at      *list.Element // in bySize[class]
}

type entry[V any] struct {
	key    string
	value  V
	cost   int64
	holder *holder
}

// New makes a Map whose entries cost at most limit together. The entry last put
// stays whatever it costs.
func New[V any](limit int64) *Map[V] {
	return &Map[V]{limit: limit, byKey: make(map[string]*list.Element), holders: make(map[string]*holder)}
}

// Get finds an entry and marks it as used.
func (m *Map[V]) Get(key string) (value V, ok bool) {
	el, ok := m.byKey[key]
	if !ok {
		return value, false
	}
	e := el.Value.(*entry[V])
	e.holder.entries.MoveToFront(el)
	m.bySize[e.holder.class].MoveToFront(e.holder.at)
	return e.value, true
}

// Put adds or replaces an entry, marks it as used, and forgets others while
// all cost too much.
func (m *Map[V]) Put(key string, value V, cost int64) {
	m.Delete(key)
	domain := registrable.Domain(key)
	h := m.holders[domain]
	if h == nil {
		h = &holder{domain: domain}
		h.at = m.bySize[0].PushFront(h)
		m.holders[domain] = h
	}
	m.byKey[key] = h.entries.PushFront(&entry[V]{key, value, cost, h})
	m.count(h, cost)
	m.bySize[h.class].MoveToFront(h.at)
	for m.cost > m.limit && len(m.byKey) > 1 {
		m.Delete(m.victim(key))
	}
}

// victim gives the entry to forget: the one that was not used for longest, of
// the holder that holds most, of which kept is none.
func (m *Map[V]) victim(kept string) string {
	for class := classes - 1; class >= 0; class-- {
		for at := m.bySize[class].Back(); at != nil; at = at.Prev() {
			if e := at.Value.(*holder).entries.Back().Value.(*entry[V]); e.key != kept {
				return e.key
			}
		}
	}
	return "" // there is another entry than kept
}

// Delete forgets an entry, if it is there.
func (m *Map[V]) Delete(key string) {
	el, ok := m.byKey[key]
	if !ok {
		return
	}
	e := el.Value.(*entry[V])
	e.holder.entries.Remove(el)
	delete(m.byKey, key)
	m.count(e.holder, -e.cost)
	if e.holder.entries.Len() == 0 {
		m.bySize[e.holder.class].Remove(e.holder.at)
		delete(m.holders, e.holder.domain)
	}
}

// count adds to what a holder holds, and puts it among its like.
func (m *Map[V]) count(h *holder, cost int64) {
	m.cost += cost
	h.cost += cost
	if class := bits.Len64(uint64(h.cost / little)); class != h.class {
		m.bySize[h.class].Remove(h.at)
		h.class = class
		h.at = m.bySize[class].PushFront(h)
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
		for key, el := range m.byKey {
			if !yield(key, el.Value.(*entry[V]).value) {
				return
			}
		}
	}
}
