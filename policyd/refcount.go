package policyd

import "sync"

// part is something that a configuration is made into: a resolver, an MTA-STS
// cache, a transport. It is used by the configuration in force, by deliveries,
// and by other parts; when the last of these lets it go, it ends.
type part struct {
	users int     // guarded by parts.mu
	needs []*part // what it uses itself
	end   func()  // may wait; called once
}

// parts counts the users of parts, and ends parts without anybody waiting for
// it but wait. A part that a reload does not change goes on as it is, with its
// caches, limits and idle connections; one that it changes lasts until the
// deliveries that began with it are over.
type parts struct {
	mu     sync.Mutex
	ending sync.WaitGroup
}

// hold adds a user. Somebody must be using the part already, or it is new.
func (ps *parts) hold(p *part) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	p.users++
}

// holdUsed adds a user, unless the part is ending.
func (ps *parts) holdUsed(p *part) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.users == 0 {
		return false
	}
	p.users++
	return true
}

// need has a part hold another one until it has ended. The part is still being
// made.
func (ps *parts) need(p, needed *part) {
	ps.hold(needed)
	p.needs = append(p.needs, needed)
}

// release takes a user away.
func (ps *parts) release(p *part) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if p.users--; p.users > 0 {
		return
	}
	ps.ending.Go(func() {
		p.end()
		for _, n := range p.needs {
			ps.release(n)
		}
	})
}

// wait returns when all parts have ended that nobody uses. Call it when no
// more is released but by parts that end.
func (ps *parts) wait() { ps.ending.Wait() }
