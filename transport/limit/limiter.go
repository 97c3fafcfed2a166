package limit

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

// What a key takes, in bytes: beside its text, for the entry, its rules and its
// share of the map; and its text at the most, a domain name in brackets with a
// port.
const (
	keyCost = 384
	maxKey  = 261
)

// What may wait at one limiter, in number and in bytes. What comes beyond that
// is told at once that there is no slot.
const (
	maxWaiting      = 50_000
	maxWaitingBytes = 64 << 20
)

// errTimeout says that there was no slot in time, errSlowed that it is a
// slow-down that had none.
var (
	errTimeout = errors.New("no slot in time")
	errSlowed  = errors.New("no slot in time while slowed down")
)

// limiter gives out slots key by key, when the key's rules allow it; those that
// wait for the same key have their turns as package fairqueue says. It runs no
// goroutine; what waits is woken by what leaves, or by a timer when only time
// is lacking.
type limiter struct {
	pacing  *Pacing // of keys that may be slowed down; nil: none is
	maxKeys int     // how many keys are remembered

	mu      sync.Mutex
	entries map[string]*entry
	bytes   int64 // what the entries take
	// of entries with no slot taken and nothing waiting, the longest unused
	// first
	unused       list.List
	waiting      int
	waitingBytes int // what all that waits takes
}

// counts are what those who share a limiter count of it, each for itself. They
// are under limiter.mu.
type counts struct {
	open, waiting int
	waited, late  uint64
}

// want is a slot that is wanted.
type want struct {
	key    string
	limit  Limit
	flow   fairqueue.Flow // whose it is
	counts *counts        // by whom it is wanted
}

// entry is what is known of one key.
type entry struct {
	key   string
	open  int
	round int     // raised by each slow-down
	pace  *pace   // nil: it was never slowed down
	gates []*gate // by Limit: one, but for a key that several share
	first gate    // the one that nearly all have alone
	list  [1]*gate
	// the first to be asked next, so that none keeps the others waiting
	turn        int
	timer       *time.Timer   // wakes what waits when only time is lacking
	unused      *list.Element // in limiter.unused, when it stands there
	unusedSince time.Time
}

// gate is a Limit for a key, with what waits for it. Slots of all gates count
// for each: one that is taken through another is not there any more.
type gate struct {
	bucket
	queue *fairqueue.Queue[*waiter] // nil while nothing waits
}

func (at *gate) waiting() int {
	if at.queue == nil {
		return 0
	}
	return at.queue.Len()
}

type waiter struct {
	ready    chan struct{} // closed when it is admitted
	counts   *counts
	admitted bool // under limiter.mu
	round    int  // the entry's, when it was admitted
}

// admission is one slot of a key.
type admission struct {
	entry  *entry
	gate   *gate // that it came through
	counts *counts
	round  int // the entry's, when it began
}

func newLimiter(keys int, pacing *Pacing) *limiter {
	return &limiter{pacing: pacing, maxKeys: keys, entries: make(map[string]*entry)}
}

// enter waits for a slot, at most for maxWait, and gives the time that it
// waited. The error is errTimeout, errSlowed or the cause of ctx's end. The
// slot is to be given back by leave.
func (g *limiter) enter(ctx context.Context, w *want, maxWait time.Duration) (admission, time.Duration, error) {
	if ctx.Err() != nil {
		return admission{}, 0, context.Cause(ctx)
	}
	g.mu.Lock()
	now := time.Now()
	p := g.find(w.key, now)
	at := p.gate(w.limit, now)
	if at.waiting() == 0 {
		if ok, _ := g.admit(p, at, now); ok {
			w.counts.open++
			s := admission{p, at, w.counts, p.round}
			g.mu.Unlock()
			return s, 0, nil
		}
	}
	w.counts.waited++
	if g.waiting >= maxWaiting || g.waitingBytes >= maxWaitingBytes {
		defer g.mu.Unlock()
		return admission{}, 0, g.late(p, w, now)
	}
	me := &waiter{ready: make(chan struct{}), counts: w.counts}
	if at.queue == nil {
		at.queue = new(fairqueue.Queue[*waiter])
	}
	spot := at.queue.Push(w.flow, me)
	g.wait(1, spot)
	g.advance(p, now)
	g.mu.Unlock()

	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	select {
	case <-me.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	waited := time.Since(now)

	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case me.admitted && ctx.Err() == nil:
		return admission{p, at, w.counts, me.round}, waited, nil
	case me.admitted:
		g.exit(admission{p, at, w.counts, me.round}, true)
		return admission{}, waited, context.Cause(ctx)
	}
	at.queue.Remove(spot) // it is there, as this waits in it
	g.wait(-1, spot)
	if ctx.Err() != nil {
		g.advance(p, time.Now())
		return admission{}, waited, context.Cause(ctx)
	}
	return admission{}, waited, g.late(p, w, time.Now())
}

// wait counts something that waits, or waits no longer.
func (g *limiter) wait(n int, it *fairqueue.Item[*waiter]) {
	it.Value.counts.waiting += n
	g.waiting += n
	g.waitingBytes += n * (fairqueue.Cost + len(it.Flow.Destination) + len(it.Flow.Sender))
}

// late counts one that had no slot in time, and says why.
func (g *limiter) late(p *entry, w *want, now time.Time) error {
	w.counts.late++
	slowed := p.pace != nil && p.pace.allowed > 0 && p.open >= p.pace.allowed
	g.advance(p, now)
	if slowed {
		return errSlowed
	}
	return errTimeout
}

// gate gives the gate for a Limit. A new one lacks the tokens that the others
// lack, and takes the place of those that hold nothing back any more.
func (p *entry) gate(l Limit, now time.Time) *gate {
	for _, at := range p.gates {
		if at.limit == l {
			return at
		}
	}
	spent := 0.0
	kept := p.gates[:0]
	for _, at := range p.gates {
		at.fill(now)
		lacks := float64(at.limit.Rate) - at.tokens
		spent = max(spent, lacks)
		if at.waiting() > 0 || lacks > 0 {
			kept = append(kept, at)
		}
	}
	clear(p.gates[len(kept):])
	at := &p.first
	if p.gates == nil {
		kept = p.list[:0]
	} else {
		at = new(gate)
	}
	at.bucket = bucket{limit: l, tokens: max(0, float64(l.Rate)-spent), at: now}
	p.gates, p.turn = append(kept, at), 0
	return at
}

// admit takes a slot through a gate, or says after which time alone there could
// be one (0: time alone does not help).
func (g *limiter) admit(p *entry, at *gate, now time.Time) (ok bool, retry time.Duration) {
	if p.pace != nil {
		if ok, retry = p.pace.admit(g.pacing, p.open, now); !ok {
			return false, retry
		}
	}
	if ok, retry = at.bucket.admit(p.open, now); !ok {
		return false, retry
	}
	for _, other := range p.gates {
		if other != at {
			other.spend(now)
		}
	}
	p.open++
	return true, 0
}

// leave gives a slot back; with undo as if it had never been taken.
func (g *limiter) leave(s admission, undo bool) {
	g.mu.Lock()
	g.exit(s, undo)
	g.mu.Unlock()
}

// exit is leave with the lock held. What was spent elsewhere for a slot that is
// undone stays spent: it may have been nothing.
func (g *limiter) exit(s admission, undo bool) {
	s.entry.open--
	s.counts.open--
	if undo {
		s.gate.undo()
	}
	g.advance(s.entry, time.Now())
}

// advance admits what waits and may have a slot now, and has the key forgotten
// when nothing is left.
func (g *limiter) advance(p *entry, now time.Time) {
	left, retry := 0, time.Duration(0)
	for held := 0; held < len(p.gates); {
		at := p.gates[p.turn%len(p.gates)]
		p.turn++
		if at.waiting() == 0 {
			at.queue = nil
			held++
			continue
		}
		ok, after := g.admit(p, at, now)
		if !ok {
			held, left = held+1, 1
			if after > 0 && (retry == 0 || after < retry) {
				retry = after
			}
			continue
		}
		held = 0
		it := at.queue.Pop()
		g.wait(-1, it)
		w := it.Value
		w.admitted, w.round = true, p.round
		w.counts.open++
		close(w.ready)
	}
	p.turn %= max(1, len(p.gates))
	if left > 0 {
		g.wakeIn(p, retry)
		return
	}
	if p.timer != nil {
		p.timer.Stop()
	}
	if p.open > 0 || p.unused != nil {
		return
	}
	if g.forgets(p, now, now) {
		g.remove(p)
		return
	}
	p.unusedSince = now
	p.unused = g.unused.PushBack(p)
}

// wakeIn has what waits looked at again after a while.
func (g *limiter) wakeIn(p *entry, d time.Duration) {
	switch {
	case d <= 0:
	case p.timer != nil:
		p.timer.Reset(d)
	default:
		p.timer = time.AfterFunc(d, func() {
			g.mu.Lock()
			defer g.mu.Unlock()
			if p.waiting() > 0 { // otherwise the timer was stopped too late
				g.advance(p, time.Now())
			}
		})
	}
}

// waiting is how many wait for a key.
func (p *entry) waiting() (n int) {
	for _, at := range p.gates {
		n += at.waiting()
	}
	return n
}

// forgets reports whether a key unused since then need not be remembered.
func (g *limiter) forgets(p *entry, since, now time.Time) bool {
	if p.pace != nil && !p.pace.forget(g.pacing, since, now) {
		return false
	}
	for _, at := range p.gates {
		if !at.forget(since, now) {
			return false
		}
	}
	return true
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
		p = &entry{key: key}
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
		if p := front.Value.(*entry); !g.forgets(p, p.unusedSince, now) {
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
