package runtime

import "sync"

// resource is something that a configuration is made into: a resolver, an
// MTA-STS cache, a transport. It is used by the configuration in force, by
// deliveries, and by other resources; when the last of these releases it, it
// ends.
type resource struct {
	users int         // guarded by resources.mu
	deps  []*resource // what it uses itself
	end   func()      // may wait; called once
}

// resources counts the users of resources, and ends resources without anybody
// waiting for it but wait. A resource that a reload does not change goes on as
// it is, with its caches, limits and idle connections; one that it changes
// lasts until the deliveries that began with it are over.
type resources struct {
	mu     sync.Mutex
	ending sync.WaitGroup
}

// acquire adds a user. Somebody must be using the resource already, or it is
// new.
func (rs *resources) acquire(r *resource) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r.users++
}

// tryAcquire adds a user, unless the resource is ending.
func (rs *resources) tryAcquire(r *resource) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.users == 0 {
		return false
	}
	r.users++
	return true
}

// dependOn has a resource use another one until it has ended. The resource is
// still being made.
func (rs *resources) dependOn(r, dep *resource) {
	rs.acquire(dep)
	r.deps = append(r.deps, dep)
}

// release takes a user away.
func (rs *resources) release(r *resource) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if r.users--; r.users > 0 {
		return
	}
	rs.ending.Go(func() {
		r.end()
		for _, dep := range r.deps {
			rs.release(dep)
		}
	})
}

// wait returns when all resources have ended that nothing uses. Call it when no
// more is released but by resources that end.
func (rs *resources) wait() { rs.ending.Wait() }
