package transport

import (
	"cmp"
	"slices"
	"sync"

	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/source"
)

// Stats gives the counters. It is safe for concurrent use, also after Close.
func (t *Transport) Stats() Stats {
	conns := t.conns.Stats()
	s := Stats{
		Deliveries: t.inProgress.len(), Open: conns.Open, Opened: conns.Opened,
		Dead: conns.Dead, Slowed: t.load.Slowed(), Pool: conns.Pool,
	}
	for _, source := range t.sources() {
		switch {
		case source.Gone:
			s.Sources.Out++
		case source.Spent():
			s.Sources.Spent++
		default:
			s.Sources.Usable++
		}
	}
	s.Memory[MemoryPlans], s.Memory[MemoryChunking] = t.plans.Stats().Usage(), t.hosts.Chunking()
	s.Memory[MemoryAnswers] = t.plans.TextStats().Usage()
	s.Memory[MemoryChains], s.Memory[MemorySessions] = t.base.dialer.Chains(), t.conns.Sessions()
	for _, o := range t.overrides {
		s.Memory[MemoryChains].Add(o.dialer.Chains())
	}
	s.Memory[MemoryHellos], s.Memory[MemoryDead] = t.conns.Hellos.Usage(), t.conns.Dead.Usage()
	s.Memory[MemoryAddresses], s.Memory[MemoryLimits] = t.conns.History.Usage(), t.base.limits.Usage()
	s.Memory[MemoryTold] = t.hosts.Told()
	for _, o := range t.overrides {
		if o.limits != t.base.limits {
			s.Memory[MemoryLimits].Add(o.limits.Usage())
		}
	}
	for scope := range limit.Scopes {
		s.Limits[scope].Add(t.base.limits.Stats(scope))
		for _, o := range t.overrides {
			if o.limits != t.base.limits {
				s.Limits[scope].Add(o.limits.Stats(scope))
			}
		}
	}
	return s
}

// Snapshot tells what the transport is doing, and what its pool holds: a pool
// is a transport's own.
func (t *Transport) Snapshot() Snapshot {
	s := Snapshot{
		Name: t.base.cfg.Name, InProgress: t.inProgress.list(), Dead: t.conns.DeadHosts(), Slowed: t.load.List(), Hellos: t.conns.Hellos.List(),
		Idle: t.conns.Stats().Pool, IdleHosts: t.conns.IdleHosts(), Limits: limitStates("", t.base.limits),
		Sources: t.sources(),
	}
	for _, o := range t.overrides {
		if o.limits != t.base.limits {
			s.Limits = append(s.Limits, limitStates(o.match, o.limits)...)
		}
	}
	return s
}

// sources gives what mail leaves from: the transport's pool, then those of
// overrides that have their own.
func (t *Transport) sources() (all []SourceState) {
	add := func(override string, p *source.Pool) {
		for _, s := range p.States() {
			all = append(all, SourceState{override, s})
		}
	}
	if t.base.sources != nil {
		add("", t.base.sources)
	}
	for _, o := range t.overrides {
		if o.sources != nil && o.sources != t.base.sources {
			add(o.match, o.sources)
		}
	}
	return all
}

// FlushHellos forgets what was found out about TLS hellos with the hosts that
// match, and gives their number.
func (t *Transport) FlushHellos(match func(host string) bool) int {
	return t.conns.Hellos.Forget(match)
}

// limitStates gives the scopes in which something is limited.
func limitStates(override string, l *limit.Limits) (all []LimitState) {
	for scope := range limit.Scopes {
		if l.Limited(scope) {
			all = append(all, LimitState{override, scope, l.Stats(scope)})
		}
	}
	return all
}

// inProgress are the deliveries that have not ended.
type inProgress struct {
	mu  sync.Mutex
	all map[*delivery.Delivery]InProgress
}

// begin notes a delivery, and gives what is to be called at its end.
func (p *inProgress) begin(d *delivery.Delivery, one InProgress) (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.all == nil {
		p.all = map[*delivery.Delivery]InProgress{}
	}
	p.all[d] = one
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.all, d)
	}
}

func (p *inProgress) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.all)
}

func (p *inProgress) list() []InProgress {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := make([]InProgress, 0, len(p.all))
	for d, one := range p.all {
		one.Host = d.Host()
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b InProgress) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}
