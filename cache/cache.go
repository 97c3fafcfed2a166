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
	"container/list"
	"context"
	"errors"
	"math"
	"math/rand/v2"
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
	// Cost is how many bytes a key and what is kept under it take, what they
	// point to included; nil means none. What the cache itself needs for an
	// entry is added.
	Cost func(key K, entry Entry[V]) int
	// Timeout is the deadline of one flight; 0 means one minute.
	Timeout time.Duration
	// Refreshes is how many refreshes may be under way at once; 0 means 16.
	// One that finds no place is tried again when its entry is next used.
	Refreshes int
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// Stats are a cache's counters since it was made, and its present size.
type Stats struct {
	Hits      uint64 // Get answered by an entry
	Misses    uint64 // Get that had to wait for a flight
	Refreshes uint64 // flights begun ahead of expiry
	Failures  uint64 // flights, refreshes included, that ended in an error
	Evictions uint64 // entries that made room for others before they expired
	// entries now, expired ones that nothing asked for included
	Entries  int
	Bytes    int64 // what they take, by Options.Cost
	MaxBytes int64 // what they may take; 0: there is no such bound
}

// Add adds the counters of another cache, and its size.
func (s *Stats) Add(o Stats) {
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.Refreshes += o.Refreshes
	s.Failures += o.Failures
	s.Evictions += o.Evictions
	s.Entries += o.Entries
	s.Bytes += o.Bytes
	s.MaxBytes += o.MaxBytes
}

// Usage is how much of its bound something takes that remembers.
type Usage struct {
	Entries  int
	Bytes    int64 // that they take
	MaxBytes int64 // that they may take
}

// Add adds what another one takes.
func (u *Usage) Add(o Usage) {
	u.Entries += o.Entries
	u.Bytes += o.Bytes
	u.MaxBytes += o.MaxBytes
}

// Usage gives the present size alone.
func (s Stats) Usage() Usage { return Usage{s.Entries, s.Bytes, s.MaxBytes} }

// overhead is what an entry takes beside its key and value, in bytes: its
// places in the map and in the list, and its own fields.
const overhead = 256

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

	mu         sync.Mutex
	entries    map[K]*list.Element // of *item[K, V]
	used       *list.List          // the last used in front
	bytes      int64               // what the entries take
	flights    map[K]*flight[V]
	running    int // flights, those of flushed keys included
	refreshing int
	closed     bool
	// closed when the cache is closed and no flight runs
	idle  chan struct{}
	stats Stats
}

type item[K comparable, V any] struct {
	key     K
	entry   Entry[V]
	refresh time.Time // from then on a use starts a refresh
	cost    int64     // in bytes
	moved   uint64    // Stats.Hits when it was last put in front
}

type flight[V any] struct {
	begun   time.Time
	done    chan struct{}
	refresh bool
	flushed bool // the key was flushed: what lands is not kept
	entry   Entry[V]
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
		entries: make(map[K]*list.Element), used: list.New(), flights: make(map[K]*flight[V]),
		idle: make(chan struct{}),
	}
	c.ctx, c.stop = context.WithCancelCause(context.Background())
	return c
}

// Get answers a key, from the cache or by loading it. It returns the cause of
// ctx when that ends first, ErrClosed after Close, and otherwise what the
// loader returned. Values are shared with other callers: do not change them.
func (c *Cache[K, V]) Get(ctx context.Context, key K) (V, error) {
	var none V
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return none, ErrClosed
	}
	if it := c.hit(key); it != nil {
		entry := it.entry
		c.mu.Unlock()
		return entry.Value, entry.Err
	}
	c.stats.Misses++
	f := c.flights[key]
	if f == nil {
		f = c.begin(key, false)
	}
	c.mu.Unlock()

	select {
	case <-f.done:
		return f.entry.Value, f.entry.Err
	case <-ctx.Done():
		return none, context.Cause(ctx)
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
		return it.entry, true
	}
	return Entry[V]{}, false
}

// hit finds an entry that is used now.
func (c *Cache[K, V]) hit(key K) *item[K, V] {
	now := c.opts.Now()
	el := c.entries[key]
	if el == nil {
		return nil
	}
	it := el.Value.(*item[K, V])
	if !now.Before(it.entry.Expires) {
		return nil
	}
	c.stats.Hits++
	// One that is among the first sixteenth is near enough to the front: to
	// move it would touch its neighbours, wherever in memory they are.
	if c.stats.Hits-it.moved > uint64(len(c.entries)/16) {
		it.moved = c.stats.Hits
		c.used.MoveToFront(el)
	}
	if !now.Before(it.refresh) {
		c.refreshAhead(key)
	}
	return it
}

// Entry looks at an entry without loading, counting or using it.
func (c *Cache[K, V]) Entry(key K) (Entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if it := c.fresh(key, c.opts.Now()); it != nil {
		return it.entry, true
	}
	return Entry[V]{}, false
}

// Last looks at what the cache last kept of a key, which may have expired, as
// Entry does. A loader sees by it what it is about to replace. Nothing is there
// when it made room for others.
func (c *Cache[K, V]) Last(key K) (Entry[V], bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.entries[key]; el != nil {
		return el.Value.(*item[K, V]).entry, true
	}
	return Entry[V]{}, false
}

// Pending reports whether Get would have to wait for a flight that is under way
// already, and since when that is.
func (c *Cache[K, V]) Pending(key K) (since time.Time, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.flights[key]; f != nil && c.fresh(key, c.opts.Now()) == nil {
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
	it := c.fresh(key, c.opts.Now())
	if it == nil {
		return
	}
	if entry, ok := change(it.entry); ok {
		c.keep(key, entry)
	}
}

// Keys lists the keys of the entries that have not expired, the last used
// first.
func (c *Cache[K, V]) Keys() []K {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Now()
	keys := make([]K, 0, c.used.Len())
	for el := c.used.Front(); el != nil; el = el.Next() {
		if it := el.Value.(*item[K, V]); now.Before(it.entry.Expires) {
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
	return c.flush(key, c.opts.Now())
}

// FlushAll forgets every key that matches, those that have expired and those of
// flights under way included, and tells how many entries there were that had
// not expired. match is called with the cache locked.
func (c *Cache[K, V]) FlushAll(match func(K) bool) (n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.opts.Now()
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

func (c *Cache[K, V]) flush(key K, now time.Time) bool {
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
func (c *Cache[K, V]) fresh(key K, now time.Time) *item[K, V] {
	el := c.entries[key]
	if el == nil {
		return nil
	}
	if it := el.Value.(*item[K, V]); now.Before(it.entry.Expires) {
		return it
	}
	return nil
}

func (c *Cache[K, V]) drop(key K) {
	if el := c.entries[key]; el != nil {
		c.used.Remove(el)
		c.bytes -= el.Value.(*item[K, V]).cost
		delete(c.entries, key)
	}
}

func (c *Cache[K, V]) refreshAhead(key K) {
	if c.flights[key] != nil || c.refreshing >= c.opts.Refreshes {
		return
	}
	c.stats.Refreshes++
	c.refreshing++
	c.begin(key, true)
}

// begin starts a key's flight. The caller holds the lock.
func (c *Cache[K, V]) begin(key K, refresh bool) *flight[V] {
	f := &flight[V]{begun: c.opts.Now(), done: make(chan struct{}), refresh: refresh}
	c.flights[key] = f
	c.running++
	go func() {
		ctx, cancel := context.WithTimeout(c.ctx, c.opts.Timeout)
		defer cancel()
		f.entry.Value, f.entry.Expires, f.entry.Err = c.load(ctx, key)
		c.land(key, f)
	}()
	return f
}

func (c *Cache[K, V]) land(key K, f *flight[V]) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A waiter goes on when what it gets is kept, not before.
	defer close(f.done)
	if c.flights[key] == f {
		delete(c.flights, key)
	}
	if f.refresh {
		c.refreshing--
	}
	if f.entry.Err != nil {
		c.stats.Failures++
	}
	if !f.flushed {
		c.keep(key, f.entry)
	}
	c.running--
	if c.closed && c.running == 0 {
		close(c.idle)
	}
}

// keep stores what a flight brought.
func (c *Cache[K, V]) keep(key K, entry Entry[V]) {
	now := c.opts.Now()
	if old := c.fresh(key, now); old != nil && old.entry.Err == nil && entry.Err != nil {
		// What is there outlives a failed refresh. The next one is tried in
		// the middle of what is left, so that a dead source is not asked at
		// every use.
		old.refresh = now.Add(old.entry.Expires.Sub(now) / 2)
		return
	}
	c.drop(key)
	life := entry.Expires.Sub(now)
	if life <= 0 {
		return
	}
	ahead := time.Duration(rand.Float64() * float64(life/10))
	it := &item[K, V]{key: key, entry: entry, refresh: entry.Expires.Add(-ahead), cost: overhead, moved: c.stats.Hits}
	if c.opts.Cost != nil {
		it.cost += int64(max(c.opts.Cost(key, entry), 0))
	}
	if c.opts.Bytes > 0 && it.cost > c.opts.Bytes/8 {
		return
	}
	c.entries[key] = c.used.PushFront(it)
	c.bytes += it.cost
	for len(c.entries) > c.opts.Size || c.opts.Bytes > 0 && c.bytes > c.opts.Bytes {
		last := c.used.Back().Value.(*item[K, V])
		if now.Before(last.entry.Expires) {
			c.stats.Evictions++
		}
		c.drop(last.key)
	}
}
