package cache

import (
	"reflect"
	"time"
)

// item is an entry as it is kept. There may be hundreds of thousands, so it is
// small.
type item[K comparable, V any] struct {
	next, prev *item[K, V] // in the ring
	key        K
	value      V
	err        *error        // nil: it is no failure
	expires    time.Duration // since the cache was made
	refresh    time.Duration // from then on a use starts a refresh
	cost       uint32        // in bytes
	// Stats.Hits when it was last put in front, as far as it fits
	moved uint32
}

// putAfter puts an item into the ring after another one.
func (it *item[K, V]) putAfter(other *item[K, V]) {
	it.prev, it.next = other, other.next
	it.prev.next, it.next.prev = it, it
}

// takeOut takes an item out of the ring.
func (it *item[K, V]) takeOut() {
	it.prev.next, it.next.prev = it.next, it.prev
	it.prev, it.next = nil, nil
}

// slot is how many bytes an entry takes in a map beside its key, with the room
// that a map leaves.
const slot = 24

// overheadOf is what an entry takes, what it points to left out.
func overheadOf[K comparable, V any]() int64 {
	key := reflect.TypeFor[K]().Size()
	return int64(reflect.TypeFor[item[K, V]]().Size() + key + key/2 + slot)
}
