// Package policycache answers the question "which MTA-STS policy does this
// domain have now?" (RFC 8461 §5.1), fast and again and again. It joins the TXT
// record, the fetched policy and the store, and remembers all three.
//
// # What a look-up does
//
//  1. The TXT record is asked for when the last answer's TTL has run out, so at
//     most once a TTL, and never when memory knows better.
//  2. Without a valid cached policy, a record means a fetch. With one, a record
//     with another id means a fetch; the same id means that the policy stands.
//  3. A fetch has a minute. The look-up that began it, or that came upon it,
//     waits until ten seconds after it began and then goes on with what is
//     there; the fetch goes on, and later look-ups have its result. This holds
//     for a changed id as well: an administrator who fixed a policy expects it
//     to count at once, and a look-up that cannot have it in time falls back on
//     the old one.
//  4. After a failed fetch that id is left alone for five minutes (§3.3). A new
//     id may be fetched at once. While an old policy is in force, no
//     look-up waits for the second fetch of an id and those after it.
//
// There is one such flight for each domain at a time, which all look-ups share
// that need it.
//
// # What outlives what
//
// A cached policy stays in force until its max_age has passed since the fetch,
// whatever becomes of the record, the resolver and the web host (§3.1, §3.3,
// §5.1), since to make them fail is the first thing an attacker would do. Only
// a newly fetched policy changes it: another one replaces it, and one of mode
// none or with max_age 0 ends it (§8.3).
//
// Near its end, in the last tenth to three tenths of its life at random, a
// policy is fetched again in the background whatever the record says (§10.2),
// as long as it was asked for in the last thirty days. Such a refresh delays
// no look-up. When it fails it is tried again after a tenth of the time that is
// left, at most six hours and at least five minutes, and each failure is a
// warning in the log (§3.3).
//
// # What it refuses to conclude
//
// A failed TXT look-up proves nothing: the answer is Failed, not NoPolicy, and
// is asked for again after half a minute, or as soon as the resolver says,
// which remembers failures by itself. A file whose fetch lies in the future is
// believed for max_age from now at most, and refreshed at once. When the store
// fails, that is logged once, and memory goes on alone; a domain whose file
// could not be read is Failed, not NoPolicy, until it can be read or a policy
// is fetched, and every look-up tries.
package policycache

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/inflight"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/internal/lru"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

// The times of MTA-STS, as DESIGN and RFC 8461 §3.3 set them.
const (
	// how long a look-up waits for a flight, from the flight's start
	firstWait    = 10 * time.Second
	fetchTimeout = time.Minute     // for one fetch
	backOff      = 5 * time.Minute // after a failed fetch
)

const (
	// for one TXT look-up, whatever the resolver's own time-out
	recordTimeout = 30 * time.Second
	recordRetry   = 30 * time.Second // after a failed TXT look-up
	// a TTL of 0 still counts for one burst of mail
	minRecordTTL = 10 * time.Second
	maxRecordTTL = 24 * time.Hour // RFC 8461 §8.1: updates must be seen
	// the longest pause between refreshes that fail
	maxRefresh = 6 * time.Hour
	// policies not asked for so long are not refreshed
	keepWarm = 30 * 24 * time.Hour
	// how often policies are looked through for refreshes
	sweepEvery = time.Minute
	// fetches at once that look-ups wait for
	maxFetches   = 100
	maxRefreshes = 8 // refreshes at once
	// of those fetches, for domains that one owner has registered, whose web
	// hosts may be silent
	maxOwnerFetches = 20
	// of those refreshes, for the same
	maxOwnerRefreshes = 4
	memoryDefault     = 64 << 20
)

// ErrClosed says that Close was called. The caller is shutting down and gives
// its message back, temporarily.
var ErrClosed = errors.New("the MTA-STS policy cache is closed")

// ErrPending is the cause of an Entry that is Failed because firstWait is over
// while the look-up goes on.
var ErrPending = errors.New("the policy did not arrive in time; the fetch continues")

// errBusy is the cause when our own bound on fetches held one back. It says
// nothing about the domain.
var errBusy = errors.New("too many policy fetches at once")

// Answer is what the DNS says about TXT records at a name.
type Answer struct {
	// Texts holds the records, the strings of each joined without blanks.
	Texts []string
	// Found is false when the DNS proves that there are none (NXDOMAIN or an
	// empty answer).
	Found bool
	// Expires is when the answer's TTL runs out. Beside an error it is when it
	// may be asked for again, at the latest after half a minute; the zero time
	// is that.
	Expires time.Time
}

// Resolver looks up TXT records, following CNAMEs (RFC 8461 §3.1). It must be
// safe for concurrent use.
type Resolver interface {
	// TXT gives the records at name. An error means that nothing is known:
	// SERVFAIL, a time-out, a refusal.
	TXT(ctx context.Context, name string) (Answer, error)
}

// Fetcher gets policies from web hosts; fetch.Client is one. It must be safe
// for concurrent use, obey its context, and give errors of type *mtasts.Error;
// other errors count as FailureFetch.
type Fetcher interface {
	Fetch(ctx context.Context, domain string) (mtasts.Policy, error)
}

// Config says what a Cache works with. Resolver, Fetcher and Store must be set.
type Config struct {
	Resolver Resolver
	Fetcher  Fetcher
	Store    store.Store
	// Log gets changed policies and failures; nil means nowhere.
	Log *slog.Logger
	// Now is the wall clock; nil means time.Now.
	Now func() time.Time
	// Jitter gives numbers from 0 up to 1 that spread refreshes; nil means
	// math/rand/v2. It must be safe for concurrent use.
	Jitter func() float64
	// Memory bounds what is remembered of domains, in bytes; 0 means 64 MiB,
	// enough for 100,000 domains. Policies that memory forgets are read from
	// the store again.
	Memory int64
}

// Cache knows the MTA-STS policies of domains. It is safe for concurrent use.
// Close it to end its goroutines.
type Cache struct {
	cfg    Config
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup // flights and the sweeper

	fetches   *inflight.Places // fetches that look-ups wait for
	refreshes chan struct{}    // a slot for each refresh at once

	// generation changes with each change of any domain's state.
	generation atomic.Uint64

	mu          sync.Mutex // never held across I/O
	closed      bool
	memory      *lru.Map[*state]
	flights     map[string]*flight
	refreshing  map[string]int // refreshes under way, by owner
	stats       Stats
	storeFailed bool // and that was logged
}

// New makes a Cache and starts the goroutine that refreshes its policies.
func New(cfg Config) *Cache {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Jitter == nil {
		cfg.Jitter = rand.Float64
	}
	if cfg.Memory <= 0 {
		cfg.Memory = memoryDefault
	}
	c := &Cache{
		cfg:        cfg,
		fetches:    inflight.New(maxFetches, maxOwnerFetches, firstWait),
		refreshes:  make(chan struct{}, maxRefreshes),
		memory:     lru.New[*state](cfg.Memory),
		flights:    make(map[string]*flight),
		refreshing: make(map[string]int),
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.work.Go(c.sweep)
	return c
}

// Close cancels what is under way and waits for it. Look-ups that wait return
// ErrClosed.
func (c *Cache) Close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.cancel()
	c.work.Wait()
}

// Generation is a number that changes whenever what a look-up said of a domain
// may be another for another reason than the time, which [Entry] has: a record
// or a policy that came, a failure, a flush.
func (c *Cache) Generation() uint64 { return c.generation.Load() }

// Unchanged reports whether a look-up would still say of a domain what an Entry
// with that Serial says, but for the time, which that Entry has, and counts as
// a look-up if so. It is for those who made something of the Entry when others'
// entries have changed Generation since. The domain is that of the Entry.
func (c *Cache) Unchanged(domain string, serial uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, ok := c.memory.Get(domain)
	if !ok || serial == 0 || st.serial != serial || c.closed {
		return false
	}
	c.stats.Lookups++
	c.stats.Hits++
	st.used = c.cfg.Now()
	return true
}

// Lookup gives a domain's policy as of now. It waits only when memory does not
// know, and at most firstWait. The error is that of the context, or ErrClosed;
// everything that went wrong with the policy itself is in the Entry. A name
// that cannot have a policy, such as an address literal, has none.
func (c *Cache) Lookup(ctx context.Context, domain string) (Entry, error) {
	name, err := mtasts.Domain(domain)
	if err != nil {
		return Entry{Domain: domain, State: NoPolicy, Err: &mtasts.Error{Failure: mtasts.FailureNone, Err: err}}, nil
	}
	if err := ctx.Err(); err != nil {
		return Entry{Domain: name}, err
	}
	c.landed(ctx, name)
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return Entry{Domain: name}, ErrClosed
	}
	now := c.cfg.Now()
	c.stats.Lookups++
	st := c.remembered(name)
	st.used = now
	st.expire(now)
	f := c.flights[name]
	need := st.need(now)
	if need != needCheck || f != nil && f.refresh && st.valid(now) {
		c.stats.Hits++
		if need == needRefresh && f == nil {
			c.tryRefresh(st)
		}
		e := st.entry(now)
		c.mu.Unlock()
		return e, nil
	}
	if f == nil {
		f = c.start(st, false)
	}
	c.mu.Unlock()
	return c.await(ctx, f)
}

// landed waits for a flight that has told its outcome and was flushed while it
// still writes to the store. Who came upon it would get nothing from it.
func (c *Cache) landed(ctx context.Context, name string) {
	c.mu.Lock()
	f := c.flights[name]
	flushed := f != nil && f.flushed
	c.mu.Unlock()
	if !flushed {
		return
	}
	waited := time.NewTimer(time.Until(f.waitUntil))
	defer waited.Stop()
	select {
	case <-f.ended:
	case <-waited.C:
	case <-ctx.Done():
	}
}

// await waits for a flight and tells what is known then.
func (c *Cache) await(ctx context.Context, f *flight) (Entry, error) {
	waited := time.NewTimer(time.Until(f.waitUntil))
	defer waited.Stop()
	done := false
	select {
	case <-f.done:
		done = true
	case <-waited.C:
		select { // both may have happened
		case <-f.done:
			done = true
		default:
		}
	case <-ctx.Done():
		return Entry{Domain: f.st.domain}, ctx.Err()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return Entry{Domain: f.st.domain}, ErrClosed
	}
	now := c.cfg.Now()
	f.st.expire(now)
	e := f.st.entry(now)
	switch {
	case done && f.fetched && e.State == HasPolicy:
		e.Source = SourceFetched
	case !done && e.State != HasPolicy, e.State == Failed && e.Err == nil:
		kind := mtasts.FailureFetch
		if !now.Before(f.st.recheck) {
			kind = mtasts.FailureDNS // not even the record is known
		}
		e = Entry{Domain: e.Domain, RecordID: e.RecordID, State: Failed, Err: &mtasts.Error{Failure: kind, Err: ErrPending}}
	}
	return e, nil
}

// remembered gives a domain's state, a new one if memory has none. The caller
// holds c.mu.
func (c *Cache) remembered(domain string) *state {
	if st, ok := c.memory.Get(domain); ok {
		return st
	}
	st := &state{domain: domain}
	if f := c.flights[domain]; f != nil {
		st = f.st // memory forgot it while it was on its way
	}
	c.memory.Put(domain, st, st.cost())
	return st
}
