package transport

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pool"
)

// Snapshot is what a transport is doing at a moment.
type Snapshot struct {
	Name       string
	InProgress []InProgress // the oldest first
	Idle       pool.Stats
	IdleHosts  []IdleHost      // idle connections by host
	Dead       []deadhost.Dead // their Host is "host:port"
	Slowed     []limit.Paced   // hosts that complained of too many connections
	Limits     []LimitState    // one for each scope that has a limit
}

// InProgress is a delivery that has not ended: the recipients of one message at
// one destination.
type InProgress struct {
	ID, QueueID string
	Destination string
	Host        string // that it is dealing with; empty before there is a route
	Recipients  int
	Since       time.Time
}

// IdleHost is how many idle connections there are to one host.
type IdleHost struct {
	Host  string
	Port  uint16
	Count int
}

// LimitState is what a limit has to do.
type LimitState struct {
	Override string // that the limit belongs to; empty: the transport itself
	Scope    limit.Scope
	limit.Stats
}

// Snapshot tells what the transport is doing, and what its pool holds: a pool
// is a transport's own.
func (t *Transport) Snapshot() Snapshot {
	s := Snapshot{Name: t.base.cfg.Name, InProgress: t.underway.list(), Dead: t.dead.List(), Slowed: t.pacer.List()}
	for i := range s.Dead {
		s.Dead[i].Host = s.Dead[i].Host[strings.LastIndexByte(s.Dead[i].Host, ' ')+1:]
	}
	s.Limits = limitStates("", t.base.limits)
	for _, o := range t.overrides {
		if o.limits != t.base.limits {
			s.Limits = append(s.Limits, limitStates(o.match, o.limits)...)
		}
	}
	if t.idle == nil {
		return s
	}
	s.Idle = t.idle.Stats()
	byHost := map[IdleHost]int{}
	for key, n := range t.idle.Held() {
		byHost[IdleHost{Host: key.Host, Port: key.Port}] += n
	}
	for h, n := range byHost {
		h.Count = n
		s.IdleHosts = append(s.IdleHosts, h)
	}
	slices.SortFunc(s.IdleHosts, func(a, b IdleHost) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return s
}

// limitStates gives the scopes in which something is limited.
func limitStates(override string, l *limit.Limits) (all []LimitState) {
	for scope := range limit.Scopes {
		if _, limited := l.KeyState(scope, ""); limited {
			all = append(all, LimitState{override, scope, l.Stats(scope)})
		}
	}
	return all
}

// inProgress are the deliveries that have not ended.
type inProgress struct {
	mu  sync.Mutex
	all map[*delivery]time.Time // since when
}

func (u *inProgress) begin(d *delivery, since time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.all == nil {
		u.all = map[*delivery]time.Time{}
	}
	u.all[d] = since
}

func (u *inProgress) end(d *delivery) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.all, d)
}

func (u *inProgress) len() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.all)
}

func (u *inProgress) list() []InProgress {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := make([]InProgress, 0, len(u.all))
	for d, since := range u.all {
		one := InProgress{ID: d.env.ID, QueueID: d.env.QueueID, Destination: d.target.String(), Recipients: len(d.rcpts), Since: since}
		if host := d.at.Load(); host != nil {
			one.Host = host.Name
		}
		list = append(list, one)
	}
	slices.SortFunc(list, func(a, b InProgress) int { return cmp.Or(a.Since.Compare(b.Since), cmp.Compare(a.ID, b.ID)) })
	return list
}
