package cache

import (
	"context"
	"math"
	"math/rand/v2"
	"time"
)

// flight is one question to the loader, for all who wait for its answer.
type flight[V any] struct {
	begun   time.Time
	done    chan struct{}
	refresh bool
	flushed bool // the key was flushed: what lands is not kept
	entry   Entry[V]
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
	switch {
	case f.flushed:
	case c.opts.Keep != nil && !c.opts.Keep(key, f.entry):
		c.drop(key)
	default:
		c.keep(key, f.entry)
	}
	c.running--
	if c.closed && c.running == 0 {
		close(c.idle)
	}
}

// keep stores what a flight brought.
func (c *Cache[K, V]) keep(key K, entry Entry[V]) {
	now, expires := c.now(), entry.Expires.Sub(c.begun)
	if old := c.fresh(key, now); old != nil && old.err == nil && entry.Err != nil {
		// What is there outlives a failed refresh. The next one is tried in
		// the middle of what is left, so that a dead source is not asked at
		// every use.
		old.refresh = now + (old.expires-now)/2
		return
	}
	c.drop(key)
	if expires <= now {
		return
	}
	cost := c.overhead
	if c.opts.Cost != nil {
		cost += int64(max(c.opts.Cost(key, entry), 0))
	}
	if c.opts.Bytes > 0 && cost > c.opts.Bytes/8 {
		return
	}
	ahead := time.Duration(rand.Float64() * float64(expires-now) / 10)
	it := &item[K, V]{
		key: key, value: entry.Value, expires: expires, refresh: expires - ahead,
		cost: uint32(min(cost, math.MaxUint32)), moved: uint32(c.stats.Hits),
	}
	if entry.Err != nil {
		it.err = &entry.Err
	}
	c.entries[key] = it
	it.putAfter(&c.used)
	c.bytes += int64(it.cost)
	for len(c.entries) > c.opts.Size || c.opts.Bytes > 0 && c.bytes > c.opts.Bytes {
		last := c.used.prev
		if now < last.expires {
			c.stats.Evictions++
		}
		c.drop(last.key)
	}
}
