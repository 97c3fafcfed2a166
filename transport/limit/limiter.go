package limit

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// What a key takes, in bytes: beside its text, for the entry, its rule and its
// share of the map; and its text at the most, a domain name in brackets with a
// port.
const (
	keyCost = 384
	maxKey  = 261
)

// errTimeout says that there was no slot in time.
var errTimeout = errors.New("no slot in time")

// limiter gives out slots key by key: for each key first come, first served,
// when the key's rule allows it. It runs no goroutine; what waits is woken by
// what leaves, or by a timer when only time is lacking.
type limiter struct {
	newRule func(now time.Time) rule
	maxKeys int // how many keys are remembered

	mu      sync.Mutex
	entries map[string]*entry
	bytes   int64 // what the entries take
	// of entries with no slot taken and nothing waiting, the longest unused
	// first
	unused  list.List
	open    int
	waiting int
	waited  uint64
	late    uint64
}

// rule decides for one key. It is called with the limiter locked.
type rule interface {
	// admit gives one more slot beside the open ones, or says after which time
	// alone it could (0: time alone does not help).
	admit(open int, now time.Time) (ok bool, retry time.Duration)
	// undo takes an admission back that failed.
	undo()
	// forget reports whether a key unused since then need not be remembered.
	forget(since, now time.Time) bool
}

// entry is what is known of one key.
type entry struct {
	key  string
	rule rule
	open int
	// raised by a rule that tells later admissions from earlier ones
	round       int
	queue       list.List     // of *waiter, the first to come in front
	timer       *time.Timer   // wakes the queue when only time is lacking
	unused      *list.Element // in limiter.unused, when it stands there
	unusedSince time.Time
}

type waiter struct {
	ready    chan struct{} // closed when it is admitted
	admitted bool          // under limiter.mu
	round    int           // the entry's, when it was admitted
}

// admission is one slot of a key.
type admission struct {
	entry *entry
	round int // the entry's, when it began
}

func newLimiter(keys int, newRule func(now time.Time) rule) *limiter {
	return &limiter{newRule: newRule, maxKeys: keys, entries: make(map[string]*entry)}
}

// enter waits for a slot, at most for maxWait, and gives the time that it
// waited. The error is errTimeout or the cause of ctx's end. The slot is to be
// given back by leave.
func (g *limiter) enter(ctx context.Context, key string, maxWait time.Duration) (admission, time.Duration, error) {
	if ctx.Err() != nil {
		return admission{}, 0, context.Cause(ctx)
	}
	g.mu.Lock()
	now := time.Now()
	p := g.find(key, now)
	if p.queue.Len() == 0 {
		if ok, _ := p.rule.admit(p.open, now); ok {
			p.open++
			g.open++
			s := admission{p, p.round}
			g.mu.Unlock()
			return s, 0, nil
		}
	}
	w := &waiter{ready: make(chan struct{})}
	spot := p.queue.PushBack(w)
	g.waiting++
	g.waited++
	g.advance(p, now)
	g.mu.Unlock()

	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	waited := time.Since(now)

	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case w.admitted && ctx.Err() == nil:
		return admission{p, w.round}, waited, nil
	case w.admitted:
		g.exit(p, true)
		return admission{}, waited, context.Cause(ctx)
	}
	p.queue.Remove(spot)
	g.waiting--
	g.advance(p, time.Now())
	if ctx.Err() != nil {
		return admission{}, waited, context.Cause(ctx)
	}
	g.late++
	return admission{}, waited, errTimeout
}

// leave gives a slot back; with undo as if it had never been taken.
func (g *limiter) leave(p *entry, undo bool) {
	g.mu.Lock()
	g.exit(p, undo)
	g.mu.Unlock()
}

// exit is leave with the lock held.
func (g *limiter) exit(p *entry, undo bool) {
	p.open--
	g.open--
	if undo {
		p.rule.undo()
	}
	g.advance(p, time.Now())
}

// advance admits what waits and may have a slot now.
func (g *limiter) advance(p *entry, now time.Time) {
	for p.queue.Len() > 0 {
		ok, retry := p.rule.admit(p.open, now)
		if !ok {
			g.wakeIn(p, retry)
			return
		}
		w := p.queue.Remove(p.queue.Front()).(*waiter)
		w.admitted, w.round = true, p.round
		close(w.ready)
		p.open++
		g.open++
		g.waiting--
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.open > 0 {
		return
	}
	if p.rule.forget(now, now) {
		g.remove(p)
		return
	}
	p.unusedSince = now
	p.unused = g.unused.PushBack(p)
}

// wakeIn has the queue looked at again after a while.
func (g *limiter) wakeIn(p *entry, d time.Duration) {
	switch {
	case d <= 0:
	case p.timer != nil:
		p.timer.Reset(d)
	default:
		p.timer = time.AfterFunc(d, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if p.queue.Len() > 0 { // otherwise the timer was stopped too late
				g.advance(p, time.Now())
			}
		})
	}
}

// find gives the entry of a key, which is in use from then on.
func (g *limiter) find(key string, now time.Time) *entry {
	g.sweep(now)
	p := g.entries[key]
	if p == nil {
		for len(g.entries) >= g.maxKeys && g.unused.Len() > 0 {
			g.drop()
		}
		// A key is often a piece of a longer text, which must not stay with it.
		key = strings.Clone(key)
		p = &entry{key: key, rule: g.newRule(now)}
		g.entries[key] = p
		g.bytes += keyCost + int64(len(key))
	} else if p.unused != nil {
		g.unused.Remove(p.unused)
		p.unused = nil
	}
	return p
}

// sweep forgets keys not seen for long, a few at a time: more than can come
// anew meanwhile.
func (g *limiter) sweep(now time.Time) {
	for range 2 {
		front := g.unused.Front()
		if front == nil {
			return
		}
		if p := front.Value.(*entry); !p.rule.forget(p.unusedSince, now) {
			return
		}
		g.drop()
	}
}

// drop forgets the key that was unused for longest.
func (g *limiter) drop() {
	p := g.unused.Remove(g.unused.Front()).(*entry)
	p.unused = nil
	g.remove(p)
}

func (g *limiter) remove(p *entry) {
	delete(g.entries, p.key)
	g.bytes -= keyCost + int64(len(p.key))
}

// usage is how much the keys take, and may take.
func (g *limiter) usage() cache.Usage {
	g.mu.Lock()
	defer g.mu.Unlock()
	return cache.Usage{Entries: len(g.entries), Bytes: g.bytes, MaxBytes: int64(g.maxKeys) * (keyCost + maxKey)}
}
