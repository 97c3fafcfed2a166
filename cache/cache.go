// Package cache holds answers to questions that are dear to ask: bounded in
// number and in bytes, each with its own expiry, one flight a key, refreshed
// ahead of expiry. It knows nothing of what is in it.
//
// A cache is made around a [Loader], which answers one key. [Cache.Get] works
// in this order:
//
//  1. An entry that has not expired is the answer. When it is in the last
//     tenth of its life, a refresh is started in the background. Each entry
//     has its own moment in that tenth, so that entries of the same age are
//     not refreshed together.
//  2. Otherwise the caller waits for the key's flight, and begins it if there
//     is none. The flight belongs to the cache: it has its own deadline, and
//     goes on when the caller that began it leaves.
//  3. When the flight lands, everyone who waited gets what it brought. It is
//     kept when it has an expiry in the future.
//
// A failure is kept only if the loader gives it an expiry; a refresh that
// fails never replaces what is still good. When the cache is full, the entries
// that were not used for about the longest make room.
package cache

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"
)

// ErrClosed is the cause of every failure after Close.
var ErrClosed = errors.New("the cache is closed")

// Loader answers a key. What it returns is kept until expires; with the zero
// time, or one that has passed, it is handed to those who wait for it and then
// forgotten. ctx has the deadline of Options.Timeout and ends with the cache.
// A Loader is called by several goroutines at once, but never twice for the
// same key, unless the key was flushed meanwhile.
type Loader[K comparable, V any] func(ctx context.Context, key K) (value V, expires time.Time, err error)

// Options say how much a cache keeps and how long a flight may take.
type Options[K comparable, V any] struct {
	// Size is how many entries are kept; 0 means any number where Bytes bounds
	// them, and otherwise 1.
	Size int
	// Bytes is how many bytes the entries may take together, by Cost; 0 means
	// any number. An entry that takes more than an eighth of it is not kept:
	// one answer never costs most of the others.
	Bytes int64
	// Cost is how many bytes that take to which a key, and what is kept under
	// it, point; nil means none. What the cache itself needs for an entry, key
	// and value among it, is added.
	Cost func(key K, entry Entry[V]) int
	// Keep says whether what a flight brought is kept; nil: always. Those who
	// wait for it get it in any case. What is not kept is in nobody's
	// place: the entry before it is forgotten.
	Keep func(key K, entry Entry[V]) bool
	// Timeout is the deadline of one flight; 0 means one minute.
	Timeout time.Duration
	// Refreshes is how many refreshes may be under way at once; 0 means 16.
	// One that finds no place is tried again when its entry is next used.
	Refreshes int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Entry is what a cache holds under a key.
type Entry[V any] struct {
	Value   V
	Err     error // the failure, if it is one that the loader wanted kept
	Expires time.Time
}

// Cache is a bounded cache. It is safe for concurrent use.
type Cache[K comparable, V any] struct {
	load Loader[K, V]
	opts Options[K, V]
	ctx  context.Context
	stop context.CancelCauseFunc

	begun    time.Time // that the times of items are counted from
	overhead int64     // what an item takes itself, in bytes

	mu         sync.Mutex
	entries    map[K]*item[K, V]
	used       item[K, V] // the ring of all: the last used comes next
	bytes      int64      // what the entries take
	flights    map[K]*flight[V]
	running    int // flights, those of flushed keys included
	refreshing int
	closed     bool
	// closed when the cache is closed and no flight runs
	idle  chan struct{}
	stats Stats
}

// New makes a cache. It must be closed.
func New[K comparable, V any](load Loader[K, V], o Options[K, V]) *Cache[K, V] {
	if o.Size <= 0 {
		o.Size = 1
		if o.Bytes > 0 {
			o.Size = math.MaxInt
		}
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Minute
	}
	if o.Refreshes <= 0 {
		o.Refreshes = 16
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	c := &Cache[K, V]{
		load: load, opts: o,
		begun: o.Now(), overhead: overheadOf[K, V](),
		entries: make(map[K]*item[K, V]), flights: make(map[K]*flight[V]),
		idle: make(chan struct{}),
	}
	c.used.next, c.used.prev = &c.used, &c.used
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	return c
}

// Get answers a key, from the cache or by loading it. It returns the cause of
// ctx when that ends first, ErrClosed after Close, and otherwise what the
// loader returned. Values are shared with other callers: do not change them.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	entry, _, err := c.get(ctx, key)
	return entry.Value, err
}

// GetEntry is Get, and tells as well until when the answer is kept. The error
// is the entry's, where there is one.
func (c *Cache[K, V]) GetEntry(ctx context.Context, key K) (Entry[V], error) {
	entry, _, err := c.get(ctx, key)
	return entry, err
}

// Hit is Get, and tells as well whether the answer was there: it was made
// before the call then.
func (c *Cache[K, V]) Hit(ctx context.Context, key K) (value V, hit bool, err error) {
	entry, hit, err := c.get(ctx, key)
	return entry.Value, hit, err
}

func (c *Cache[K, V]) get(ctx context.Context, key K) (entry Entry[V], hit bool, err error) {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Entry[V]{}, false, ErrClosed
	}
	if it := c.hit(key); it != nil {
		entry = c.entryOf(it)
		c.mu.Unlock()
		return entry, true, entry.Err
	}
	c.stats.Misses++
	f := c.flights[key]
	if f == nil {
		f = c.begin(key, false)
	}
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.entry, false, f.entry.Err
	case <-ctx.Done():
		return Entry[V]{}, false, context.Cause(ctx)
	}
}

// Peek gives what the cache has of a key at this moment, as Get would; without
// it nothing is loaded, and ok is false.
func (c *Cache[K, V]) Peek(key K) (entry Entry[V], ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return Entry[V]{}, false
	}
	if it := c.hit(key); it != nil {
		return c.entryOf(it), true
	}
	return Entry[V]{}, false
}

// now is the time as items have it.
func (c *Cache[K, V]) now() time.Duration { return c.opts.Now().Sub(c.begun) }

// entryOf gives an item as others see it.
func (c *Cache[K, V]) entryOf(it *item[K, V]) Entry[V] {
	return Entry[V]{Value: it.value, Err: it.failure(), Expires: c.begun.Add(it.expires)}
}

// failure is the item's error; nil: it is none.
func (it *item[K, V]) failure() error {
	if it.err == nil {
		return nil
	}
	return *it.err
}

// hit finds an entry that is used now.
func (c *Cache[K, V]) hit(key K) *item[K, V] {
	now := c.now()
	it := c.entries[key]
	if it == nil || now >= it.expires {
		return nil
	}
	c.stats.Hits++
	// One that is among the first sixteenth is near enough to the front: to
	// move it would touch its neighbours, wherever in memory they are.
	if hits := uint32(c.stats.Hits); int64(hits-it.moved) > int64(len(c.entries)/16) {
		it.moved = hits
		it.takeOut()
		it.putAfter(&c.used)
	}
	if now >= it.refresh {
		c.refreshAhead(key)
	}
	return it
}

// Entry looks at an entry without loading, counting or using it.
func (c *Cache[K, V]) Entry(key K) (Entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.fresh(key, c.now()); it != nil {
		return c.entryOf(it), true
	}
	return Entry[V]{}, false
}

// Last looks at what the cache last kept of a key, which may have expired, as
// Entry does. A loader sees by it what it is about to replace. Nothing is there
// when it made room for others.
func (c *Cache[K, V]) Last(key K) (Entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.entries[key]; it != nil {
		return c.entryOf(it), true
	}
	return Entry[V]{}, false
}

// Pending reports whether Get would have to wait for a flight that is under way
// already, and since when that is.
func (c *Cache[K, V]) Pending(key K) (since time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil && c.fresh(key, c.now()) == nil {
		return f.begun, true
	}
	return time.Time{}, false
}

// Update puts what change makes of a key's entry in its place. change is called
// with the cache locked, for an entry that has not expired; with false the
// entry stays as it is.
func (c *Cache[K, V]) Update(key K, change func(Entry[V]) (Entry[V], bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.fresh(key, c.now())
	if it == nil {
		return
	}
	if entry, ok := change(c.entryOf(it)); ok {
		c.keep(key, entry)
	}
}

// Keys lists the keys of the entries that have not expired, the last used
// first.
func (c *Cache[K, V]) Keys() []K {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	keys := make([]K, 0, len(c.entries))
	for it := c.used.next; it != &c.used; it = it.next {
		if now < it.expires {
			keys = append(keys, it.key)
		}
	}
	return keys
}

// Flush forgets a key and reports whether there was an entry. A flight under
// way lands for those who wait for it already, but the next Get begins another.
func (c *Cache[K, V]) Flush(key K) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flush(key, c.now())
}

// FlushAll forgets every key that matches, those that have expired and those of
// flights under way included, and tells how many entries there were that had
// not expired. match is called with the cache locked.
func (c *Cache[K, V]) FlushAll(match func(K) bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for key := range c.flights {
		if match(key) && c.flush(key, now) {
			n++
		}
	}
	for key := range c.entries {
		if match(key) && c.flush(key, now) {
			n++
		}
	}
	return n
}

func (c *Cache[K, V]) flush(key K, now time.Duration) bool {
	if f := c.flights[key]; f != nil {
		f.flushed = true
		delete(c.flights, key)
	}
	found := c.fresh(key, now) != nil
	c.drop(key)
	return found
}

// Stats gives the counters.
func (c *Cache[K, V]) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Entries, s.Bytes, s.MaxBytes = len(c.entries), c.bytes, c.opts.Bytes
	return s
}

// Close cancels the flights and waits until the last has ended, or until ctx
// does; then it returns the cause of ctx. From then on every Get fails.
func (c *Cache[K, V]) Close(ctx context.Context) error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		c.stop(ErrClosed)
		if c.running == 0 {
			close(c.idle)
		}
	}
	c.mu.Unlock()
	select {
	case <-c.idle:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// fresh finds an entry that has not expired.
func (c *Cache[K, V]) fresh(key K, now time.Duration) *item[K, V] {
	if it := c.entries[key]; it != nil && now < it.expires {
		return it
	}
	return nil
}

func (c *Cache[K, V]) drop(key K) {
	if it := c.entries[key]; it != nil {
		it.takeOut()
		c.bytes -= int64(it.cost)
		delete(c.entries, key)
	}
}
