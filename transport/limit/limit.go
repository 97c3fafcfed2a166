// Package limit holds work back: so many messages in a period (a rate), so many
// at once (concurrency). Its [Scope]s say what is counted: everything, one
// remote address, one sender domain, one destination, one provider; each but
// the first counts by keys of its own.
//
// A delivery gets a [Permit] and acquires the scopes that it needs, as it
// comes to know their keys. Where a limit is reached it waits for a slot: among
// those with the same key by destination and sender in turn (package
// fairqueue), so that one flood does not keep others from a slot. One permit
// waits no longer than MaxWait in all, 5 seconds by default; then the delivery
// is told [ErrBusy], and the mail server tries again later.
//
// What one call of Acquire asks for it gets as a whole or not at all. It takes
// the narrow scopes first (address, destination, sender domain, provider) and
// the transport as a whole last, so that a delivery that waits for one busy
// destination keeps no other from working. Tokens of the rate that were taken
// in vain go back; those of work that was done are spent, and only the slot is
// given back by [Permit.Release].
//
// A rate of N in a period is a bucket of N tokens that starts full and fills
// evenly: N at once, and N more spread over each period.
//
// Keys that were not seen for long are forgotten, and so is the longest unused
// one when there are too many. A key in use never is, so that a slot is always
// given back to where it came from. There is no goroutine.
//
// The limits belong to a transport, but for those by provider: what goes to one
// is counted over all transports that share [Providers], and each of them goes
// on as long as the number of all together is below its own limit. Providers
// are also where mail is slowed down that a receiver complains of, whether a
// limit is configured or not.
package limit

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/fairqueue"
)

// ErrBusy says that there was no slot in time. The caller defers the work,
// 4.4.5, with the text of the [*Error] that wraps it.
var ErrBusy = errors.New("a limit is reached")

// Error says which limit held the work back. It wraps ErrBusy.
type Error struct {
	Scope   Scope
	Key     string
	MaxWait time.Duration // within which there was no slot
	// it is a slow-down, which the receiver asked for
	Slowed bool
}

// Error gives the line for people.
func (e *Error) Error() string {
	switch {
	case e.Scope == All:
		return fmt.Sprintf("local limit for all mail of the transport: no slot within %v", e.MaxWait)
	case e.Slowed:
		return fmt.Sprintf("%s refused connections as too many: no slot within %v", e.Key, e.MaxWait)
	}
	return fmt.Sprintf("local limit for %v %s: no slot within %v", e.Scope, e.Key, e.MaxWait)
}

// Unwrap gives ErrBusy.
func (e *Error) Unwrap() error { return ErrBusy }

// Limit is what one scope allows for each of its keys: a token bucket (rate:
// N/period) and a bound on work at once (concurrency). The zero Limit allows
// everything.
type Limit struct {
	// tokens for each Period, 1 to 1000000; 0: no bound
	Rate        int
	Period      time.Duration // 1ms to 24h; 0 when Rate is 0
	Concurrency int           // work at once, 1 to 100000; 0: no bound
}

// ByScope holds the Limit of each scope, the zero Limit where there is none.
type ByScope [Scopes]Limit

// Config says what Limits hold back.
type Config struct {
	Limits ByScope
	// Providers are shared with other transports; nil: they are not.
	Providers *Providers
	// ByProvider are the limits of providers that have their own, by name, in
	// the place of that of the scope. It is not changed after New.
	ByProvider map[string]Limit
	// MaxWait is how long one permit waits in all; 0 means 5 seconds.
	MaxWait time.Duration
	// Keys is how many keys each scope but Provider remembers; 0 means 100,000.
	// More are remembered only while more are in use.
	Keys int
}

// defaults for what a Config or a Pacing leaves out.
const (
	defaultMaxWait = 5 * time.Second
	defaultKeys    = 100_000
)

// Limits are the limits of one transport. They are safe for concurrent use.
type Limits struct {
	limiters   [Scopes]*limiter // nil where nothing is limited
	limits     ByScope
	byProvider map[string]Limit
	counts     [Scopes]counts // each under its limiter's lock
	maxWait    time.Duration
}

// New makes limits. There is nothing to stop.
func New(cfg Config) *Limits {
	l := &Limits{maxWait: cfg.MaxWait, limits: cfg.Limits, byProvider: cfg.ByProvider}
	if l.maxWait == 0 {
		l.maxWait = defaultMaxWait
	}
	keys := cfg.Keys
	if keys == 0 {
		keys = defaultKeys
	}
	for scope := range Scopes {
		if l.Limited(scope) && scope != Provider {
			l.limiters[scope] = newLimiter(keys, nil)
		}
	}
	if cfg.Providers == nil {
		cfg.Providers = NewProviders(Pacing{})
	}
	l.limiters[Provider] = cfg.Providers.limiter
	return l
}

// Limited reports whether a scope has a limit, for some of its keys at least.
func (l *Limits) Limited(s Scope) bool {
	return s < Scopes && (l.limits[s] != Limit{} || s == Provider && len(l.byProvider) > 0)
}

// of gives the limit of a key.
func (l *Limits) of(s Scope, key string) Limit {
	if s == Provider {
		if own, ok := l.byProvider[key]; ok {
			return own
		}
	}
	return l.limits[s]
}

// Stats are what one scope has to do now, and how often it sent work away.
type Stats struct {
	Keys    int    // remembered, of Provider those of all transports
	Open    int    // at work
	Waiting int    // for a slot
	Waited  uint64 // slots that were not free at once
	Late    uint64 // of which none was free in time
}

// Add adds the state of other limits of the same scope.
func (s *Stats) Add(o Stats) {
	s.Keys += o.Keys
	s.Open += o.Open
	s.Waiting += o.Waiting
	s.Waited += o.Waited
	s.Late += o.Late
}

// Stats gives the state of one scope.
func (l *Limits) Stats(s Scope) Stats {
	if s >= Scopes || l.limiters[s] == nil {
		return Stats{}
	}
	g := l.limiters[s]
	g.mu.Lock()
	defer g.mu.Unlock()
	c := &l.counts[s]
	return Stats{Keys: len(g.entries), Open: c.open, Waiting: c.waiting, Waited: c.waited, Late: c.late}
}

// Usage is how much the keys of all scopes take that are not shared, in bytes.
func (l *Limits) Usage() (u cache.Usage) {
	for scope, g := range l.limiters {
		if g != nil && Scope(scope) != Provider {
			u.Add(g.usage())
		}
	}
	return u
}

// KeyState is what one key of a scope has to do now.
type KeyState struct {
	Limit   Limit   // what it is allowed
	Tokens  float64 // of the rate, left now
	Open    int     // at work
	Waiting int     // for a slot
}

// Full reports whether work for the key would find no slot: none is free, and
// no token comes within a time.
func (s *KeyState) Full(within time.Duration) bool {
	if s.Limit.Rate > 0 {
		comes := float64(s.Limit.Rate) * within.Seconds() / s.Limit.Period.Seconds()
		if s.Tokens+comes < 1 {
			return true
		}
	}
	return s.Limit.Concurrency > 0 && s.Open >= s.Limit.Concurrency
}

// MaxWait is how long one permit waits in all.
func (l *Limits) MaxWait() time.Duration { return l.maxWait }

// KeyState gives the state of one key without any effect; ok is false where it
// has no limit.
func (l *Limits) KeyState(s Scope, key string) (state KeyState, ok bool) {
	if s >= Scopes || l.of(s, key) == (Limit{}) {
		return KeyState{}, false
	}
	b := bucket{limit: l.of(s, key)}
	b.tokens = float64(b.limit.Rate)
	g := l.limiters[s]
	g.mu.Lock()
	defer g.mu.Unlock()
	at := g.entries[key]
	if at == nil {
		return KeyState{Limit: b.limit, Tokens: b.tokens}, true
	}
	for _, one := range at.gates {
		if one.limit == b.limit {
			b = one.bucket
			b.fill(time.Now())
		}
	}
	return KeyState{Limit: b.limit, Tokens: b.tokens, Open: at.open, Waiting: at.waiting()}, true
}

// bucket is the rule of one key: a token bucket, and a bound on work at once.
type bucket struct {
	limit  Limit
	tokens float64
	at     time.Time // when tokens was right
}

func (b *bucket) admit(open int, now time.Time) (bool, time.Duration) {
	if b.limit.Concurrency > 0 && open >= b.limit.Concurrency {
		return false, 0
	}
	if b.limit.Rate <= 0 {
		return true, 0
	}
	perToken := b.fill(now)
	if b.tokens < 1 {
		return false, time.Duration(math.Ceil((1 - b.tokens) * perToken))
	}
	b.tokens--
	return true, 0
}

// spend takes a token that was had elsewhere.
func (b *bucket) spend(now time.Time) {
	b.fill(now)
	b.tokens = max(0, b.tokens-1)
}

// fill adds the tokens that time has brought, and gives the time of one, in
// nanoseconds.
func (b *bucket) fill(now time.Time) (perToken float64) {
	if b.limit.Rate <= 0 {
		return 0
	}
	full := float64(b.limit.Rate)
	perToken = float64(b.limit.Period) / full
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(full, b.tokens+float64(passed)/perToken)
		b.at = now
	}
	return perToken
}

func (b *bucket) undo() {
	if b.limit.Rate > 0 {
		b.tokens = min(float64(b.limit.Rate), b.tokens+1)
	}
}

// forget: after a period the bucket is as full as a new one. A minute keeps
// the keys of lively traffic from being made anew all the time.
func (b *bucket) forget(since, now time.Time) bool {
	return b.limit == Limit{} || now.Sub(since) >= max(b.limit.Period, time.Minute)
}

// Want is one scope to acquire, with its key. Keys are compared as they are:
// the caller gives domains in lower case, and addresses in one form.
type Want struct {
	Scope Scope
	Key   string
}

// Permit is what one delivery holds of the limits. It belongs to one goroutine
// at a time, must not be copied once used, and is to be released in the end,
// whatever became of the delivery. The zero Permit meets no limits.
type Permit struct {
	// Flow is whose slot it waits for. It is not changed after the first
	// Acquire.
	Flow fairqueue.Flow

	limits   *Limits
	waitLeft time.Duration // of MaxWait
	held     []held
}

// held is one slot that a permit holds.
type held struct {
	limiter *limiter
	admission
}

// Permit gives a permit that holds nothing yet.
func (l *Limits) Permit() Permit { return Permit{limits: l, waitLeft: l.maxWait} }

// Acquire waits until every limit has a slot, and holds the slots until
// Release. The error is an *Error that wraps ErrBusy when the permit may wait
// no longer, or the cause of ctx's end; nothing of what this call asked for is
// held then, but what earlier calls acquired is. Of Provider one slot is held
// at a time: Done gives it back before the next.
func (p *Permit) Acquire(ctx context.Context, wants ...Want) error {
	if p.limits == nil {
		return nil
	}
	before := len(p.held)
	for _, scope := range narrowFirst {
		g := p.limits.limiters[scope]
		if g == nil {
			continue
		}
		for _, w := range wants {
			if w.Scope != scope {
				continue
			}
			in, waited, err := g.enter(ctx, &want{w.Key, p.limits.of(scope, w.Key), p.Flow, &p.limits.counts[scope]}, p.waitLeft)
			p.waitLeft = max(0, p.waitLeft-waited)
			if err != nil {
				for _, h := range p.held[before:] {
					h.limiter.leave(h.admission, true)
				}
				p.held = p.held[:before]
				if err == errTimeout || err == errSlowed {
					err = &Error{Scope: w.Scope, Key: w.Key, MaxWait: p.limits.maxWait, Slowed: err == errSlowed}
				}
				return err
			}
			p.held = append(p.held, held{g, in})
		}
	}
	return nil
}

// Release gives back all that the permit holds. Calling it again does nothing.
func (p *Permit) Release() {
	for _, h := range p.held {
		h.limiter.leave(h.admission, false)
	}
	p.held = nil
}
