package limit

import (
	"cmp"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// Pacing says how Providers slow down; what is 0 has the default that is named.
type Pacing struct {
	Successes int // so many successes allow one more at once; 20
	// so much time without a complaint does too; 30 seconds
	Step time.Duration
	// a complaint within this time of the last one is no news; 15 minutes
	Memory time.Duration
	// how many providers are remembered, slowed or in use; 100,000
	Keys int
}

// Providers are what all transports together have under way at each provider
// (package provider), by which the scope Provider counts: a provider does not
// care which transport of ours it was that came too often.
//
// They also bound how much goes to a provider at once that said that it is too
// much (421 or 451 "too many connections", or what a reply rule calls slow). A
// provider that never complained has no such bound. A complaint halves what is
// allowed, counted from what is open at that moment; at least one stays.
// Everything that was open then belongs to the same complaint: a burst that is
// refused twenty times is slowed once. From there it climbs, by one for some
// successes or some time without a complaint, and when it is where the provider
// first complained the bound is gone.
//
// Providers are safe for concurrent use and have nothing to stop.
type Providers struct {
	limiter *limiter
}

// NewProviders makes Providers with nothing under way.
func NewProviders(p Pacing) *Providers {
	p.Successes = cmp.Or(p.Successes, 20)
	p.Step = cmp.Or(p.Step, 30*time.Second)
	p.Memory = cmp.Or(p.Memory, 15*time.Minute)
	return &Providers{newLimiter(cmp.Or(p.Keys, defaultKeys), &p)}
}

// Slow says that the provider complained of too many connections while this
// permit was held, which is still to be released. It reports whether that is
// news, to be logged.
func (p *Permit) Slow() (news bool) {
	h := p.provider()
	if h == nil {
		return false
	}
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	if h.round != h.entry.round {
		return false // it began before the last complaint
	}
	h.entry.round++
	if h.entry.pace == nil {
		h.entry.pace = &pace{}
	}
	return h.entry.pace.slow(h.limiter.pacing, h.entry.open, time.Now())
}

// provider gives what is held of a provider; nil: nothing.
func (p *Permit) provider() *held {
	for i := range p.held {
		if p.held[i].limiter.pacing != nil {
			return &p.held[i]
		}
	}
	return nil
}

// Use is what became of a slot at a provider.
type Use uint8

// The uses.
const (
	Failed Use = iota // it was used, and the message was not taken
	Served            // the message was taken
	Unused            // nothing was dialled, so that it does not count
)

// Done gives back what is held of a provider, and nothing else.
func (p *Permit) Done(use Use) {
	h := p.provider()
	if h == nil {
		return
	}
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	if use == Served && h.round == h.entry.round && h.entry.pace != nil {
		h.entry.pace.success(h.limiter.pacing, time.Now())
	}
	h.limiter.exit(h.admission, use == Unused)
	*h = p.held[len(p.held)-1]
	p.held = p.held[:len(p.held)-1]
}

// Paced is a provider that is being slowed down towards.
type Paced struct {
	Host    string // the provider's name
	Allowed int    // at once, now
	Open    int
	Waiting int
}

// Usage is how much the providers take that are remembered, in bytes.
func (p *Providers) Usage() cache.Usage { return p.limiter.usage() }

// Slowed gives the number of providers that have a bound of this kind now.
func (p *Providers) Slowed() int {
	n := 0
	p.each(func(Paced) { n++ })
	return n
}

// List gives the providers that have a bound of this kind now, by name.
func (p *Providers) List() []Paced {
	var list []Paced
	p.each(func(one Paced) { list = append(list, one) })
	slices.SortFunc(list, func(a, b Paced) int { return cmp.Compare(a.Host, b.Host) })
	return list
}

// each calls f, with the limiter locked, for each provider that has a bound
// now.
func (p *Providers) each(f func(Paced)) {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	now := time.Now()
	for name, e := range p.limiter.entries {
		if e.pace == nil {
			continue
		}
		if e.pace.climb(p.limiter.pacing, now); e.pace.allowed > 0 {
			f(Paced{name, e.pace.allowed, e.open, e.waiting()})
		}
	}
}

// pace is how far one provider is slowed down. The zero pace is not.
type pace struct {
	allowed   int       // at once; 0: no bound
	goal      int       // where the bound goes away
	successes int       // since the last step
	stepped   time.Time // when allowed last changed
	slowed    time.Time // when it was last complained; zero: never
}

// admit reports whether there may be one more, or after which time alone.
func (r *pace) admit(by *Pacing, open int, now time.Time) (bool, time.Duration) {
	if r.climb(by, now); r.allowed == 0 || open < r.allowed {
		return true, 0
	}
	return false, r.stepped.Add(by.Step).Sub(now)
}

// forget: by then the bound has long gone, unless it was beyond all measure.
func (r *pace) forget(by *Pacing, since, now time.Time) bool {
	return r.slowed.IsZero() || now.Sub(since) >= by.Memory
}

func (r *pace) slow(by *Pacing, open int, now time.Time) (news bool) {
	news = r.slowed.IsZero() || now.Sub(r.slowed) >= by.Memory
	if r.climb(by, now); r.allowed == 0 {
		r.goal = open
	}
	r.allowed = max(open/2, 1)
	r.successes, r.stepped, r.slowed = 0, now, now
	return news
}

func (r *pace) success(by *Pacing, now time.Time) {
	if r.allowed == 0 {
		return
	}
	if r.successes++; r.successes >= by.Successes {
		r.rise(1, now)
	}
}

// climb takes the steps that time alone has brought.
func (r *pace) climb(by *Pacing, now time.Time) {
	if r.allowed == 0 {
		return
	}
	if steps := now.Sub(r.stepped) / by.Step; steps > 0 {
		r.rise(int(steps), r.stepped.Add(steps*by.Step))
	}
}

func (r *pace) rise(steps int, at time.Time) {
	r.allowed += steps
	r.successes, r.stepped = 0, at
	if r.allowed >= r.goal {
		r.allowed = 0
	}
}
