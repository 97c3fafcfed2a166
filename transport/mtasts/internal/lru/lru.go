// Package lru is a map that forgets what was not used for longest once its
// entries together cost more than it may hold. It exists because what MTA-STS
// remembers of a domain costs between a few hundred bytes and 64 KiB, as a
// stranger likes, so that a number of entries bounds nothing.
package lru

import (
	"container/list"
	"iter"
)

// Map is a bounded map by domain. It is not safe for concurrent use: its owner
// locks.
type Map[V any] struct {
	limit, cost int64
	byKey       map[string]*list.Element
	order       *list.List // of *entry[V], the last used in front
}

type entry[V any] struct {
	key   string
	value V
	cost  int64
}

// New makes a Map whose entries cost at most limit together. The entry last put
// stays whatever it costs.
func New[V any](limit int64) *Map[V] {
	return &Map[V]{limit: limit, byKey: make(map[string]*list.Element), order: list.New()}
}

// Get finds an entry and marks it as used.
func (m *Map[V]) Get(key string) (value V, ok bool) {
	el, ok := m.byKey[key]
	if !ok {
		return value, false
	}
	m.order.MoveToFront(el)
	return el.Value.(*entry[V]).value, true
}

// Put adds or replaces an entry, marks it as used, and forgets others while
// all cost too much.
func (m *Map[V]) Put(key string, value V, cost int64) {
	m.Delete(key)
	m.byKey[key] = m.order.PushFront(&entry[V]{key, value, cost})
	m.cost += cost
	for m.cost > m.limit && m.order.Len() > 1 {
		m.Delete(m.order.Back().Value.(*entry[V]).key)
	}
}

// Delete forgets an entry, if it is there.
func (m *Map[V]) Delete(key string) {
	if el, ok := m.byKey[key]; ok {
		m.cost -= el.Value.(*entry[V]).cost
		m.order.Remove(el)
		delete(m.byKey, key)
	}
}

// Len is the number of entries.
func (m *Map[V]) Len() int { return m.order.Len() }

// Cost is what all entries cost together.
func (m *Map[V]) Cost() int64 { return m.cost }

// All gives the entries, the last used first, without marking them as used.
// The Map must not change meanwhile.
func (m *Map[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for el := m.order.Front(); el != nil; el = el.Next() {
			e := el.Value.(*entry[V])
			if !yield(e.key, e.value) {
				return
			}
		}
	}
}
