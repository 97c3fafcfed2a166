package limit

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// Pacing says how a Pacer works; what is 0 has the default that is named.
type Pacing struct {
	MaxWait   time.Duration // how long a slot is waited for; 5 seconds
	Successes int           // so many successes allow one more at once; 20
	// so much time without a complaint does too; 30 seconds
	Step time.Duration
	// a complaint within this time of the last one is no news; 15 minutes
	Memory time.Duration
	// how many hosts are remembered, slowed or in use; 100,000
	Keys int
}

// Pacer bounds how much goes to one host at once, after the host said that it
// is too much (421 or 451 "too many connections"). A host that never
// complained has no bound.
//
// A complaint halves what is allowed, counted from what is open at that
// moment; at least one stays. Everything that was open then belongs to the
// same complaint: a burst that is refused twenty times is slowed once. From
// there it climbs, by one for some successes or some time without a complaint,
// and when it is where the host first complained the bound is gone.
//
// A Pacer is safe for concurrent use and has nothing to stop.
type Pacer struct {
	pacing  Pacing
	limiter *limiter
}

// NewPacer makes a Pacer.
func NewPacer(p Pacing) *Pacer {
	p.MaxWait = cmp.Or(p.MaxWait, defaultMaxWait)
	p.Successes = cmp.Or(p.Successes, 20)
	p.Step = cmp.Or(p.Step, 30*time.Second)
	p.Memory = cmp.Or(p.Memory, 15*time.Minute)
	p.Keys = cmp.Or(p.Keys, defaultKeys)
	return &Pacer{pacing: p, limiter: newLimiter(p.Keys, func(time.Time) rule { return &pace{pacing: &p} })}
}

// HostPermit is the right to use a host, until Release. It belongs to one
// goroutine at a time and must not be copied once used.
type HostPermit struct {
	limiter   *limiter
	admission // its round counts the host's complaints
}

// Acquire waits for a slot at a host. The error is an *Error that wraps
// ErrBusy (the caller defers the work, 4.4.5), or the cause of ctx's end.
func (p *Pacer) Acquire(ctx context.Context, host string) (HostPermit, error) {
	in, _, err := p.limiter.enter(ctx, host, p.pacing.MaxWait)
	if err == errTimeout {
		err = &Error{Scope: Host, Key: host, MaxWait: p.pacing.MaxWait}
	}
	if err != nil {
		return HostPermit{}, err
	}
	return HostPermit{p.limiter, in}, nil
}

// Slow says that the host complained of too many connections while this permit
// was held, which is still to be released. It reports whether that is news, to
// be logged.
func (h *HostPermit) Slow() (news bool) {
	if h.entry == nil {
		return false
	}
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	if h.round != h.entry.round {
		return false // it began before the last complaint
	}
	h.entry.round++
	return h.entry.rule.(*pace).slow(h.entry.open, time.Now())
}

// Release gives the permit back; served says that the host took the message.
// Calling it again does nothing.
func (h *HostPermit) Release(served bool) {
	if h.entry == nil {
		return
	}
	h.limiter.mu.Lock()
	defer h.limiter.mu.Unlock()
	if served && h.round == h.entry.round {
		h.entry.rule.(*pace).success(time.Now())
	}
	h.limiter.exit(h.entry, false)
	h.entry = nil
}

// Paced is a host that is being slowed down towards.
type Paced struct {
	Host    string
	Allowed int // at once, now
	Open    int
	Waiting int
}

// Usage is how much the hosts take that are remembered, in bytes.
func (p *Pacer) Usage() cache.Usage { return p.limiter.usage() }

// Slowed gives the number of hosts that have a bound now.
func (p *Pacer) Slowed() int {
	n := 0
	p.each(func(Paced) { n++ })
	return n
}

// List gives the hosts that have a bound now, by name.
func (p *Pacer) List() []Paced {
	var list []Paced
	p.each(func(one Paced) { list = append(list, one) })
	slices.SortFunc(list, func(a, b Paced) int { return cmp.Compare(a.Host, b.Host) })
	return list
}

// each calls f, with the limiter locked, for each host that has a bound now.
func (p *Pacer) each(f func(Paced)) {
	p.limiter.mu.Lock()
	defer p.limiter.mu.Unlock()
	now := time.Now()
	for host, e := range p.limiter.entries {
		r := e.rule.(*pace)
		if r.climb(now); r.allowed > 0 {
			f(Paced{host, r.allowed, e.open, e.queue.Len()})
		}
	}
}

// pace is the rule of one host.
type pace struct {
	pacing    *Pacing
	allowed   int       // at once; 0: no bound
	goal      int       // where the bound goes away
	successes int       // since the last step
	stepped   time.Time // when allowed last changed
	slowed    time.Time // when the host last complained; zero: never
}

func (r *pace) admit(open int, now time.Time) (bool, time.Duration) {
	if r.climb(now); r.allowed == 0 || open < r.allowed {
		return true, 0
	}
	return false, r.stepped.Add(r.pacing.Step).Sub(now)
}

func (r *pace) undo() {}

func (r *pace) forget(since, now time.Time) bool {
	// By then the bound has long gone, unless it was beyond all measure.
	return r.slowed.IsZero() || now.Sub(since) >= r.pacing.Memory
}

func (r *pace) slow(open int, now time.Time) (news bool) {
	news = r.slowed.IsZero() || now.Sub(r.slowed) >= r.pacing.Memory
	if r.climb(now); r.allowed == 0 {
		r.goal = open
	}
	r.allowed = max(open/2, 1)
	r.successes, r.stepped, r.slowed = 0, now, now
	return news
}

func (r *pace) success(now time.Time) {
	if r.allowed == 0 {
		return
	}
	if r.successes++; r.successes >= r.pacing.Successes {
		r.rise(1, now)
	}
}

// climb takes the steps that time alone has brought.
func (r *pace) climb(now time.Time) {
	if r.allowed == 0 {
		return
	}
	if steps := now.Sub(r.stepped) / r.pacing.Step; steps > 0 {
		r.rise(int(steps), r.stepped.Add(steps*r.pacing.Step))
	}
}

func (r *pace) rise(steps int, at time.Time) {
	r.allowed += steps
	r.successes, r.stepped = 0, at
	if r.allowed >= r.goal {
		r.allowed = 0
	}
}
