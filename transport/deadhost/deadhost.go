// Package deadhost remembers which hosts cannot be reached, so that mail for
// them fails fast, and temporarily, instead of holding a process of the mail
// server for as long as a connection attempt takes to time out. It is a circuit
// breaker per host: closed while the host answers, open while it is dead, and
// half-open while one trial at a time finds out whether it is back.
//
// Before it connects to a host, a delivery calls [Hosts.Begin]. It gets an
// [Attempt], with which it tries and then says what came of it, or a [*Dead]
// error. What it gets depends on what the host did lately:
//
//   - It answered within the last minute: every delivery goes on. This is the
//     common case, and costs one look-up.
//   - Nothing is known of it: the first goes on, alone. Deliveries that come
//     meanwhile wait for what becomes of that attempt. When the host answers,
//     all of them go on; a healthy host costs them one greeting's wait, once.
//     When it fails, all of them fail.
//   - An attempt has had no answer for 10 seconds, and no other had one since
//     it began: deliveries that wait, and those that come, fail fast, until
//     the attempt is over. The time is long enough for three lost SYN
//     segments (7 seconds) and for the pause of servers that greet late on
//     purpose, and short enough that a black hole holds one process for the
//     time-out and the others for seconds. A host that once took longer is
//     given twice as long as it took last, at most a minute. This holds for a
//     host that answered lately, too: that is how its death is first seen.
//   - It failed: it is dead for 1 minute, and all fail fast (open). After that
//     the next to come is the trial, and the others go on failing fast until
//     it has an outcome (half-open). A trial that fails makes the host dead
//     for 2, 4, 8, and from then on 15 minutes.
//
// An answer clears a host at once, whichever attempt got it. A failure counts
// only if no attempt had an answer since the failed one began, and of the
// attempts that were under way when the host was found dead only the first
// failure counts: a burst does not make it dead for longer. A trial that is
// abandoned says nothing; the next to come is the trial then. A dead host that
// was not tried for a quarter of an hour after its time is forgotten, so that
// the burst of mail that comes next waits for the first attempt rather than
// failing beside it.
//
// The number of hosts remembered is bounded. There is no goroutine and no
// timer but those of the waiting callers themselves.
package deadhost

import (
	"cmp"
	"container/list"
	"context"
	"slices"
	"strings"
	"sync"
	"time"
)

// Options say how long a host is dead; what is 0 has the default that is
// named.
type Options struct {
	Min time.Duration // the first time; 1 minute
	// the longest time, and how long after it a host is forgotten; 15 minutes
	Max time.Duration
	// for an attempt under way to get an answer; 10 seconds
	Wait    time.Duration
	Longest time.Duration // Wait for a host known to be slow; 1 minute
	Fresh   time.Duration // how long an answer speaks for the host; 1 minute
	// hosts remembered; 50,000. More are only while more are being tried
	Size int
}

// defaultSize is Options.Size where that is 0.
const defaultSize = 50_000

// Hosts is what is known of hosts. It is safe for concurrent use. There is
// nothing to stop.
type Hosts struct {
	o Options

	mu     sync.Mutex
	byName map[string]*host
	used   list.List // of *host, the longest unused first
}

// host is one host. An epoch ends with each answer and each failure that
// counts; attempts of an older epoch say nothing about the present one.
type host struct {
	name     string
	used     *list.Element
	asked    time.Time // when Begin was last called for it
	epoch    uint64
	pending  int           // attempts of this epoch without an outcome
	since    time.Time     // when the first of them began
	answered time.Time     // when it last answered; zero: never
	took     time.Duration // how long that answer took
	outcome  chan struct{} // closed when there is one; nil when nothing waits

	failures int // that counted, since the last answer; 0: not dead
	deadFrom time.Time
	until    time.Time
	cause    string
}

// New makes a memory in which every host is unknown.
func New(o Options) *Hosts {
	o.Min = cmp.Or(o.Min, time.Minute)
	o.Max = cmp.Or(o.Max, 15*time.Minute)
	o.Wait = cmp.Or(o.Wait, 10*time.Second)
	o.Longest = max(cmp.Or(o.Longest, time.Minute), o.Wait)
	o.Fresh = cmp.Or(o.Fresh, time.Minute)
	o.Size = cmp.Or(o.Size, defaultSize)
	return &Hosts{o: o, byName: make(map[string]*host)}
}

// Attempt is one attempt to reach a host. Exactly one of Succeeded, Failed and
// Abandoned says what came of it; all but the first call do nothing, so that
// Abandoned can be deferred. An Attempt must not be copied. The zero Attempt
// does nothing.
type Attempt struct {
	hosts *Hosts
	host  *host
	epoch uint64
	began time.Time
}

// Begin begins an attempt to reach a host. Its name is whatever is reached or
// not as one: the host's name with its port. Begin waits at most Options.Wait,
// or what a slow host is given, for an attempt that is under way. The error is
// a *Dead (the caller tries the next host, and in the end defers the mail), or
// the cause of ctx's end. To be called right before dialling: the time until
// the attempt has its outcome counts as the host's silence.
func (h *Hosts) Begin(ctx context.Context, name string) (Attempt, error) {
	now := time.Now()
	giveUp := time.Time{} // when this caller waits no longer
	for {
		h.mu.Lock()
		e := h.find(name, now)
		switch h.decide(e, now, giveUp) {
		case proceed:
			if e.pending++; e.pending == 1 {
				e.since = now
			}
			a := Attempt{hosts: h, host: e, epoch: e.epoch, began: now}
			h.mu.Unlock()
			return a, nil
		case dead:
			err := e.dead(now)
			h.mu.Unlock()
			return Attempt{}, err
		}
		if giveUp.IsZero() {
			giveUp = now.Add(h.maxSilence(e))
		}
		until := earlier(giveUp, e.since.Add(h.maxSilence(e)))
		if e.outcome == nil {
			e.outcome = make(chan struct{})
		}
		outcome := e.outcome
		h.mu.Unlock()

		timer := time.NewTimer(until.Sub(now))
		select {
		case <-outcome:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return Attempt{}, context.Cause(ctx)
		}
		timer.Stop()
		now = time.Now()
	}
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// decision is what Begin's caller may do.
type decision uint8

const (
	wait decision = iota
	proceed
	dead
)

// decide applies the rules of the package comment. giveUp is when a caller that
// has waited already will wait no longer; zero when it has not waited.
func (h *Hosts) decide(e *host, now, giveUp time.Time) decision {
	switch {
	case e.failures > 0 && (e.pending > 0 || now.Before(e.until)):
		return dead
	case e.pending == 0: // of a dead host it is the trial
		return proceed
	case !now.Before(e.since.Add(h.maxSilence(e))):
		return dead
	case !e.answered.IsZero() && now.Sub(e.answered) < h.o.Fresh:
		return proceed
	case !giveUp.IsZero() && !now.Before(giveUp):
		return dead
	}
	return wait
}

// maxSilence is how long a host may take to answer.
func (h *Hosts) maxSilence(e *host) time.Duration {
	return min(max(h.o.Wait, 2*e.took), h.o.Longest)
}

// Succeeded says that the host answered: it was reached and greeted, however
// unfriendly the greeting. It is to be called as soon as that is known, since
// others wait for it.
func (a *Attempt) Succeeded() {
	if h, e := a.done(); h != nil {
		defer h.mu.Unlock()
		now := time.Now()
		e.answered, e.took = now, now.Sub(a.began)
		e.failures, e.cause = 0, ""
		e.newEpoch()
	}
}

// Failed says that the host could not be reached: no address of it took the
// connection, or none greeted. The cause is shown to those who fail fast.
func (a *Attempt) Failed(cause error) {
	h, e := a.done()
	if h == nil {
		return
	}
	defer h.mu.Unlock()
	if a.epoch != e.epoch {
		return // it answered meanwhile, or was found dead already
	}
	now := time.Now()
	if e.failures == 0 {
		e.deadFrom = now
	}
	e.until = now.Add(h.deadTime(e.failures))
	e.failures++
	e.cause = clean(cause)
	e.newEpoch()
}

// deadTime is how long a host is dead that failed so many times before.
func (h *Hosts) deadTime(failures int) time.Duration {
	d := h.o.Min
	for ; failures > 0 && d < h.o.Max; failures-- {
		d *= 2
	}
	return min(d, h.o.Max)
}

// Abandoned says that the attempt was given up for a reason that is not the
// host's: it is as if it had not been.
func (a *Attempt) Abandoned() {
	h, e := a.done()
	if h == nil {
		return
	}
	defer h.mu.Unlock()
	if a.epoch != e.epoch {
		return
	}
	if e.pending--; e.pending == 0 {
		e.wake() // one of those that wait is the next to try
	}
}

// done ends the attempt, and locks the hosts if it had not ended.
func (a *Attempt) done() (*Hosts, *host) {
	h, e := a.hosts, a.host
	a.hosts, a.host = nil, nil
	if h != nil {
		h.mu.Lock()
	}
	return h, e
}

// newEpoch begins a new epoch.
func (e *host) newEpoch() {
	e.epoch++
	e.pending = 0
	e.wake()
}

// wake has those that wait look again.
func (e *host) wake() {
	if e.outcome != nil {
		close(e.outcome)
		e.outcome = nil
	}
}

// find gives what is known of a host, and notes that it is in use.
func (h *Hosts) find(name string, now time.Time) *host {
	e := h.byName[name]
	if e == nil {
		h.makeRoom(now)
		e = &host{name: strings.Clone(name)}
		e.used = h.used.PushBack(e)
		h.byName[e.name] = e
	} else {
		h.used.MoveToBack(e.used)
	}
	if e.failures > 0 && e.pending == 0 && now.Sub(e.until) >= h.o.Max {
		e.failures, e.cause = 0, ""
	}
	e.asked = now
	return e
}

// makeRoom forgets hosts that have nothing left to say, a few at a time, and
// when there are too many, the longest unused one with no attempt under way.
func (h *Hosts) makeRoom(now time.Time) {
	for range 2 {
		front := h.used.Front()
		if front == nil {
			return
		}
		e := front.Value.(*host)
		if e.pending > 0 || now.Sub(e.asked) < 2*h.o.Max || now.Sub(e.until) < h.o.Max {
			break
		}
		h.drop(e)
	}
	// Hosts being tried at the front of the list are skipped once, and
	// then stand at its back.
	for looked := 0; len(h.byName) >= h.o.Size && looked < 10; looked++ {
		e := h.used.Front().Value.(*host)
		if e.pending == 0 {
			h.drop(e)
		} else {
			h.used.MoveToBack(e.used)
		}
	}
}

func (h *Hosts) drop(e *host) {
	h.used.Remove(e.used)
	delete(h.byName, e.name)
}

// Answered says that a host was reached without an Attempt: by an
// administrator's own look. A dead host is cleared by it.
func (h *Hosts) Answered(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.byName[name]; e != nil && e.failures > 0 {
		e.answered, e.failures, e.cause = time.Now(), 0, ""
		e.newEpoch()
	}
}

// State tells whether mail for a host would fail fast now, as Begin would find
// it, without any effect; nil: it would not.
func (h *Hosts) State(name string) *Dead {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	e := h.byName[name]
	if e == nil || e.failures > 0 && e.pending == 0 && now.Sub(e.until) >= h.o.Max || h.decide(e, now, time.Time{}) != dead {
		return nil
	}
	return e.dead(now)
}

// Dead gives the number of hosts that are dead.
func (h *Hosts) Dead() int {
	now := time.Now()
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, e := range h.byName {
		if h.isDead(e, now) {
			n++
		}
	}
	return n
}

func (h *Hosts) isDead(e *host, now time.Time) bool {
	return e.failures > 0 && (e.pending > 0 || now.Sub(e.until) < h.o.Max)
}

// List gives the hosts that are dead, by name.
func (h *Hosts) List() []Dead {
	now := time.Now()
	var all []Dead
	h.mu.Lock()
	for _, e := range h.byName {
		if h.isDead(e, now) {
			all = append(all, *e.dead(now))
		}
	}
	h.mu.Unlock()
	slices.SortFunc(all, func(a, b Dead) int { return cmp.Compare(a.Host, b.Host) })
	return all
}
