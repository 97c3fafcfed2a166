package limit

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"
)

// errLate says that no turn came in time.
var errLate = errors.New("no turn in time")

// limiter lets work in key by key: for each key first come, first served, when
// the key's rule allows it. It runs no goroutine; those who wait are woken by
// those who leave, or by a timer when only time is lacking.
type limiter struct {
	newRule func(now time.Time) rule
	keys    int // how many keys are remembered

	mu      sync.Mutex
	places  map[string]*place
	unused  list.List // of places that nobody is in or waits for, the longest unused first
	open    int
	waiting int
	waited  uint64
	late    uint64
}

// rule decides for one key. It is called with the gate locked.
type rule interface {
	// admit lets one more in beside those inside, or says after which time
	// alone it could (0: time alone does not help).
	admit(open int, now time.Time) (ok bool, retry time.Duration)
	// undo takes an admission back that came to nothing.
	undo()
	// forget reports whether a key unused since then need not be remembered.
	forget(since, now time.Time) bool
}

// place is what is known of one key.
type place struct {
	key    string
	rule   rule
	open   int
	round  int           // raised by whoever needs to tell later stays from earlier ones
	queue  list.List     // of *waiter, the first to come in front
	timer  *time.Timer   // wakes the queue when only time is lacking
	unused *list.Element // in gate.unused, when it stands there
	since  time.Time     // unused since
}

type waiter struct {
	ready chan struct{} // closed when it is let in
	in    bool          // under gate.mu: it was let in
	round int           // the place's, when it was let in
}

// admission is somebody's being in a place.
type admission struct {
	place *place
	round int // the place's, when it began
}

func newLimiter(keys int, newRule func(now time.Time) rule) *limiter {
	return &limiter{newRule: newRule, keys: keys, places: make(map[string]*place)}
}

// enter waits for a turn, at most for the patience, and gives the time that it
// waited. The error is errLate or the cause of ctx's end. What was entered is
// to be left.
func (g *limiter) enter(ctx context.Context, key string, patience time.Duration) (admission, time.Duration, error) {
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

	timer := time.NewTimer(patience)
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
	case w.in && ctx.Err() == nil:
		return admission{p, w.round}, waited, nil
	case w.in:
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
	return admission{}, waited, errLate
}

// leave gives a turn back; with undo as if it had never been.
func (g *limiter) leave(p *place, undo bool) {
	g.mu.Lock()
	g.exit(p, undo)
	g.mu.Unlock()
}

// exit is leave with the lock held.
func (g *limiter) exit(p *place, undo bool) {
	p.open--
	g.open--
	if undo {
		p.rule.undo()
	}
	g.advance(p, time.Now())
}

// advance lets in whoever may come in now.
func (g *limiter) advance(p *place, now time.Time) {
	for p.queue.Len() > 0 {
		ok, retry := p.rule.admit(p.open, now)
		if !ok {
			g.wakeIn(p, retry)
			return
		}
		w := p.queue.Remove(p.queue.Front()).(*waiter)
		w.in, w.round = true, p.round
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
		delete(g.places, p.key)
		return
	}
	p.since = now
	p.unused = g.unused.PushBack(p)
}

// wakeIn has the queue looked at again after a while.
func (g *limiter) wakeIn(p *place, d time.Duration) {
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

// find gives the place of a key, which is in use from then on.
func (g *limiter) find(key string, now time.Time) *place {
	g.sweep(now)
	p := g.places[key]
	if p == nil {
		for len(g.places) >= g.keys && g.unused.Len() > 0 {
			g.drop()
		}
		// A key is often a piece of a longer text, which must not stay with it.
		key = strings.Clone(key)
		p = &place{key: key, rule: g.newRule(now)}
		g.places[key] = p
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
		if p := front.Value.(*place); !p.rule.forget(p.since, now) {
			return
		}
		g.drop()
	}
}

// drop forgets the key that was unused for longest.
func (g *limiter) drop() {
	p := g.unused.Remove(g.unused.Front()).(*place)
	p.unused = nil
	delete(g.places, p.key)
}
