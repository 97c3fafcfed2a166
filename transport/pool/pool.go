// Package pool keeps idle connections until somebody has a use for them.
//
// A connection that is open and has proven itself is the dearest thing a
// delivery makes: name server, handshake and greeting together cost several
// round trips. [Pool.Put] takes one that has just carried a message, and
// [Pool.Get] hands it to the next delivery for the same host, whichever
// recipient domain that one is for. In between it belongs to the pool, which
// closes it
//
//   - when it has been idle for its idle time, counted from the Put, whether
//     or not anybody calls;
//   - when it has carried as many messages as it may;
//   - when the domain it served last has too many idle connections, or the
//     pool as a whole has: the one that was idle for longest goes;
//   - when [Pool.Get] or [Pool.Retire] is told that what it once proved no
//     longer counts, that it leads to an address that the host no longer has,
//     or that the other side has closed it;
//   - when the pool is stopped.
//
// The newest idle connection is handed out first, so that those which a burst
// of mail left behind grow old and go, and the few that are needed stay warm.
// No connection is probed before it is handed out: that would cost the round
// trip that the pool is there to save.
//
// The pool never calls Close with its lock held. It knows nothing of what a
// connection speaks. Get and Put cost the same with ten idle connections as
// with a hundred thousand, apart from the logarithm of their number.
package pool

import (
	"container/heap"
	"sync"
	"time"
)

// maxLook bounds how many connections to one host a single Get looks at, so
// that thousands which do not fit cannot hold up everybody else.
const maxLook = 100

// Conn is what a pool keeps.
type Conn interface {
	// Served is the number of messages the connection has carried so far. The
	// pool asks once for each Put.
	Served() int
	// Close ends the connection for good. It must return at once; a goodbye
	// that takes time is said in the background. The pool calls it at most
	// once, and does not touch the connection afterwards.
	Close()
}

// Key names the host that a connection leads to. Connections with equal keys
// are offered to the same deliveries. Which of the host's addresses it was and
// what it proved is the connection's own matter, and judged by Get's fits.
// Package session makes the key (idle.go).
type Key struct {
	Transport string // whose settings the connection was made with
	Host      string // the MX host's name, or an address literal
	Port      uint16
	User      string // who logged in over it; empty: nobody
	Source    string // that it was made from; empty: there is no pool
	Hostname  string // that EHLO said
	Proxy     string // that it goes through; empty: none
}

// Fit is what a delivery thinks of an idle connection.
type Fit uint8

// The answers. Skip is the zero Fit.
const (
	Skip Fit = iota // good, but not for this delivery
	Use             // take this one
	// what it proved is good for no delivery any more: close it
	Retire
	Moved // the host no longer has its address: close it
	Gone  // the other side has closed it
)

// Limits say what may be kept. A zero in any field keeps nothing.
type Limits struct {
	// IdleCount is how many idle connections are kept for one recipient
	// domain of one transport (conn_max_idle_count).
	IdleCount int
	// IdleTime is for how long, counted from Put (conn_max_idle_time).
	IdleTime time.Duration
	// Uses is how many messages go over one connection in all
	// (conn_reuse_limit): a connection that has served as many is closed.
	Uses int
}

// Reason is why the pool closed a connection.
type Reason uint8

// The reasons.
const (
	IdleTime   Reason = iota // nothing wanted it for its idle time
	ReuseLimit               // it carried as many messages as it may
	// it was the longest idle of too many for one domain
	Count
	Total // it was the longest idle of too many in all
	// what it proved no longer counts, or its transport changed
	Policy
	Address // DNS no longer lists the address that it leads to
	// the other side closed it meanwhile, or spoke unasked
	Closed
	Stopped // the pool is stopped
	Reasons // how many reasons there are
)

// String gives the reason as a word for metrics and logs.
func (r Reason) String() string {
	if r >= Reasons {
		return "unknown"
	}
	return [Reasons]string{"idle_time", "reuse_limit", "count", "total", "policy", "address", "closed", "stopped"}[r]
}

// Stats are a pool's counters since it was made, and what it holds now.
type Stats struct {
	Idle    int             // connections held now
	Reused  uint64          // Gets that found one
	Missed  uint64          // Gets that found none
	Retired [Reasons]uint64 // connections closed, by Reason
}

// Add adds the counters of another pool, and what it holds.
func (s *Stats) Add(o *Stats) {
	s.Idle += o.Idle
	s.Reused += o.Reused
	s.Missed += o.Missed
	for why, n := range o.Retired {
		s.Retired[why] += n
	}
}

// Pool holds idle connections. It is safe for concurrent use. Make one with
// New and end it with Stop.
type Pool[C Conn] struct {
	total int
	quit  chan struct{} // closed by Stop
	done  chan struct{} // closed when the pool's goroutine has ended

	mu      sync.Mutex
	stopped bool
	hosts   map[Key]*chain[C]
	domains map[domain]*chain[C]
	all     chain[C]
	expiry  expiryHeap[C]
	timer   *time.Timer
	wake    time.Time // when the timer fires; zero when it does not
	stats   Stats
}

// domain is what IdleCount counts by.
type domain struct{ transport, name string }

// New makes a pool that holds at most total idle connections, whatever the
// Limits of each; with 0 it holds none. It runs one goroutine until Stop.
func New[C Conn](total int) *Pool[C] {
	p := &Pool[C]{
		total:   total,
		quit:    make(chan struct{}),
		done:    make(chan struct{}),
		hosts:   make(map[Key]*chain[C]),
		domains: make(map[domain]*chain[C]),
		all:     chain[C]{order: byAge},
		timer:   time.NewTimer(time.Hour),
	}
	p.timer.Stop()
	go p.expireLoop()
	return p
}

// Get takes the newest idle connection to a host that fits; it is the caller's
// from then on, to be given back with Put or closed. fits is called with the
// pool locked: it must decide from what is at hand, wait for nothing, and not
// call the pool.
func (p *Pool[C]) Get(key Key, fits func(C) Fit) (conn C, ok bool) {
	conn, ok, gone := p.take(key, fits)
	closeAll(gone)
	return conn, ok
}

func (p *Pool[C]) take(key Key, fits func(C) Fit) (conn C, ok bool, gone []C) {
	p.mu.Lock()
	defer p.mu.Unlock() // also when fits panics
	now := time.Now()
	var e, older *entry[C]
	if host := p.hosts[key]; host != nil {
		e = host.newest
	}
	for looked := 0; e != nil && looked < maxLook; looked++ {
		older = e.links[byHost].older
		if !now.Before(e.expires) {
			gone = append(gone, p.retire(e, IdleTime))
			e = older
			continue
		}
		switch fits(e.conn) {
		case Use:
			p.unlink(e)
			p.stats.Reused++
			return e.conn, true, gone
		case Retire:
			gone = append(gone, p.retire(e, Policy))
		case Moved:
			gone = append(gone, p.retire(e, Address))
		case Gone:
			gone = append(gone, p.retire(e, Closed))
		}
		e = older
	}
	p.stats.Missed++
	return conn, false, gone
}

// Put gives a connection to the pool after it has carried a message for a
// recipient domain. Its idle time counts from now. Put reports whether the
// connection was kept; if not, the pool has closed it. Either way the caller
// must not touch it any more.
func (p *Pool[C]) Put(key Key, recipientDomain string, conn C, limits Limits) bool {
	spent := conn.Served() >= limits.Uses
	p.mu.Lock()
	var gone []C
	refused := Reasons
	switch {
	case p.stopped:
		refused = Stopped
	case spent:
		refused = ReuseLimit
	case limits.IdleTime <= 0:
		refused = IdleTime
	case limits.IdleCount <= 0:
		refused = Count
	case p.total <= 0:
		refused = Total
	}
	if refused != Reasons {
		p.stats.Retired[refused]++
		gone = append(gone, conn)
	} else {
		gone = p.makeRoom(domain{key.Transport, recipientDomain}, limits.IdleCount)
		p.link(&entry[C]{
			conn:    conn,
			key:     key,
			domain:  recipientDomain,
			expires: time.Now().Add(limits.IdleTime),
		})
	}
	p.mu.Unlock()
	closeAll(gone)
	return refused == Reasons
}

// makeRoom has one more connection of a domain fit into the bounds.
func (p *Pool[C]) makeRoom(d domain, idleCount int) (gone []C) {
	// More than one goes when the configuration allows fewer than before.
	for list := p.domains[d]; list != nil && list.n >= idleCount; list = p.domains[d] {
		gone = append(gone, p.retire(list.oldest, Count))
	}
	for p.all.n >= p.total {
		gone = append(gone, p.retire(p.all.oldest, Total))
	}
	return gone
}

// Retire closes the idle connections that match and gives their number. match
// is called for every idle connection with the pool locked, as fits is in Get.
func (p *Pool[C]) Retire(match func(Key, C) bool) int {
	gone := p.takeMatching(match)
	closeAll(gone)
	return len(gone)
}

func (p *Pool[C]) takeMatching(match func(Key, C) bool) (gone []C) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for e := p.all.oldest; e != nil; {
		newer := e.links[byAge].newer
		if match(e.key, e.conn) {
			gone = append(gone, p.retire(e, Policy))
		}
		e = newer
	}
	return gone
}

// Stop closes all idle connections and waits for the pool's goroutine. From
// then on Get finds nothing and Put closes what it is given. A second Stop
// does nothing.
func (p *Pool[C]) Stop() {
	p.mu.Lock()
	var gone []C
	if !p.stopped {
		p.stopped = true
		p.timer.Stop()
		close(p.quit)
		for p.all.oldest != nil {
			gone = append(gone, p.retire(p.all.oldest, Stopped))
		}
	}
	p.mu.Unlock()
	closeAll(gone)
	<-p.done
}

// Stats gives the counters.
func (p *Pool[C]) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Idle = p.all.n
	return s
}

// Held gives how many idle connections there are to each host.
func (p *Pool[C]) Held() map[Key]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := make(map[Key]int, len(p.hosts))
	for key, list := range p.hosts {
		held[key] = list.n
	}
	return held
}

// Count gives how many idle connections there are to one host.
func (p *Pool[C]) Count(key Key) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if list := p.hosts[key]; list != nil {
		return list.n
	}
	return 0
}

// expireLoop closes connections whose time has come.
func (p *Pool[C]) expireLoop() {
	defer close(p.done)
	for {
		select {
		case <-p.timer.C:
			closeAll(p.takeExpired())
		case <-p.quit:
			return
		}
	}
}

func (p *Pool[C]) takeExpired() (gone []C) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	for len(p.expiry) > 0 && !now.Before(p.expiry[0].expires) {
		gone = append(gone, p.retire(p.expiry[0], IdleTime))
	}
	p.wake = time.Time{}
	if len(p.expiry) > 0 {
		p.wakeAt(p.expiry[0].expires)
	}
	return gone
}

// wakeAt has the timer fire at t or before. It is not set back when the
// connection it was set for is taken: on a busy pool that would cost more than
// waking up once for nothing.
func (p *Pool[C]) wakeAt(t time.Time) {
	if p.wake.IsZero() || t.Before(p.wake) {
		p.wake = t
		p.timer.Reset(time.Until(t))
	}
}

// retire takes a connection out for good and gives it back to be closed.
func (p *Pool[C]) retire(e *entry[C], why Reason) C {
	p.unlink(e)
	p.stats.Retired[why]++
	return e.conn
}

func (p *Pool[C]) link(e *entry[C]) {
	join(p.hosts, e.key, byHost, e)
	join(p.domains, domain{e.key.Transport, e.domain}, byDomain, e)
	p.all.push(e)
	heap.Push(&p.expiry, e)
	p.wakeAt(e.expires)
}

func (p *Pool[C]) unlink(e *entry[C]) {
	leave(p.hosts, e.key, e)
	leave(p.domains, domain{e.key.Transport, e.domain}, e)
	p.all.remove(e)
	heap.Remove(&p.expiry, e.place)
}

func closeAll[C Conn](conns []C) {
	for _, c := range conns {
		c.Close()
	}
}
