package policycache

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/mxpipe/mxpipe/transport/inflight"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/registrable"
)

// flight is the one piece of work under way for a domain: a check of store,
// record and policy that look-ups wait for, or a refresh that none waits for.
type flight struct {
	st        *state
	refresh   bool
	waitUntil time.Time     // when look-ups go on without
	done      chan struct{} // closed when the state tells the outcome
	ended     chan struct{} // closed when all of it is over
	flushed   bool          // the outcome was forgotten after it was told
	fetched   bool          // a policy was fetched; read after done
}

// start begins a flight for a domain that has none. The caller holds c.mu and
// knows that Close was not called.
func (c *Cache) start(st *state, refresh bool) *flight {
	f := &flight{st: st, refresh: refresh, waitUntil: time.Now().Add(firstWait), done: make(chan struct{}), ended: make(chan struct{})}
	c.flights[st.domain] = f
	if refresh {
		c.refreshing[registrable.Domain(st.domain)]++
	}
	c.work.Go(func() { c.run(f) })
	return f
}

// tryRefresh begins a refresh when there is a slot for it; otherwise the
// sweeper will. The caller holds c.mu.
func (c *Cache) tryRefresh(st *state) {
	if c.refreshing[registrable.Domain(st.domain)] >= maxOwnerRefreshes {
		return
	}
	select {
	case c.refreshes <- struct{}{}:
		c.start(st, true)
	default:
	}
}

// forget notes that a flight's outcome is flushed, if it has told it. A nil
// flight has none. The caller holds the cache's lock.
func (f *flight) forget() {
	if f == nil {
		return
	}
	select {
	case <-f.done:
		f.flushed = true
	default:
	}
}

// run does a flight's work in its order. One that has told its outcome, and
// has nothing left to do, is not among the flights any more: a look-up that
// asks for more than that came to begins another.
func (c *Cache) run(f *flight) {
	if !f.refresh {
		c.load(f.st)
		c.checkRecord(f.st)
	}
	job, id := c.plan(f)
	told := job == jobQuiet
	if told {
		close(f.done) // what is there will do
	}
	var write func() error
	if job != jobNone {
		write = c.fetch(f, id)
	}
	if write != nil {
		if !told {
			close(f.done) // the answer does not wait for the disk
			told = true
		}
		c.noteStore(write())
	}
	c.mu.Lock()
	if f.flushed {
		// Meanwhile, and what was written may have been written after that.
		c.mu.Unlock()
		c.noteStore(c.cfg.Store.Remove(f.st.domain))
		c.mu.Lock()
	}
	delete(c.flights, f.st.domain)
	if owner := registrable.Domain(f.st.domain); f.refresh {
		if c.refreshing[owner]--; c.refreshing[owner] == 0 {
			delete(c.refreshing, owner)
		}
	}
	c.mu.Unlock()
	if !told {
		close(f.done)
	}
	close(f.ended)
	if f.refresh {
		<-c.refreshes
	}
}

// load asks the store, once it answers never again. Only "there is none" and
// "what is there is damaged" are answers; a disk that fails, or a descriptor
// that could not be had, says nothing, and the next look-up asks again.
func (c *Cache) load(st *state) {
	c.mu.Lock()
	loaded := st.loaded
	c.mu.Unlock()
	if loaded {
		return
	}
	cached, ok, err := c.cfg.Store.Load(st.domain)
	if errors.Is(err, store.ErrDamaged) {
		c.cfg.Log.Warn("cached MTA-STS policy ignored", slog.String("domain", st.domain), slog.Any("error", err))
		err, ok = nil, false
	} else if err != nil {
		c.noteStore(err)
	}
	jitter := c.cfg.Jitter()
	c.mu.Lock()
	defer c.mu.Unlock()
	st.serial = c.generation.Add(1)
	st.loaded = err == nil
	if err != nil {
		if d := st.change(); d.unread == nil || d.unread.Err.Error() != err.Error() {
			d.unread = &mtasts.Error{Failure: mtasts.FailureStore, Err: err}
		}
		c.stats.Failures[mtasts.FailureStore]++
		c.memory.Put(st.domain, st, st.cost())
		return
	}
	if st.more != nil {
		st.more.unread = nil
	}
	if !ok || cached.Domain != st.domain || cached.Policy.Mode == mtasts.ModeNone {
		return
	}
	now := c.cfg.Now()
	st.keep(cached, now, jitter)
	st.expire(now)
	c.memory.Put(st.domain, st, st.cost())
}

// checkRecord asks for the TXT record when the last answer is over.
func (c *Cache) checkRecord(st *state) {
	c.mu.Lock()
	due := !c.cfg.Now().Before(st.recheck)
	c.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(c.ctx, recordTimeout)
	defer cancel()
	answer, err := c.cfg.Resolver.TXT(ctx, mtasts.RecordName(st.domain))
	if c.ctx.Err() != nil {
		return // closing says nothing about the domain
	}
	if err != nil && c.sameFailure(st, answer, err) {
		return
	}
	var rec mtasts.Record
	var problem *mtasts.Error
	known := recordAbsent
	if err != nil {
		known, problem = recordUnknown, &mtasts.Error{Failure: mtasts.FailureDNS, Err: err}
	} else if answer.Found {
		rec, err = mtasts.ParseRecord(answer.Texts)
		switch {
		case err == nil:
			known = recordPresent
		case errors.Is(err, mtasts.ErrSeveralRecords), errors.Is(err, mtasts.ErrMalformed):
			problem = &mtasts.Error{Failure: mtasts.FailureRecord, Err: err}
		}
	}
	if problem != nil {
		c.cfg.Log.Info("no usable MTA-STS record", slog.String("domain", st.domain),
			slog.String("failure", problem.Failure.String()), slog.Any("error", problem))
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.cfg.Now()
	st.serial = c.generation.Add(1)
	c.stats.RecordChecks++
	if st.noteRecord(known, rec.ID, problem); st.more != nil {
		c.memory.Put(st.domain, st, st.cost())
	}
	if known == recordUnknown {
		st.recheck = recheckAfter(now, answer)
	} else {
		st.recheck = latest(now.Add(minRecordTTL), earliest(answer.Expires, now.Add(maxRecordTTL)))
	}
	if known == recordAbsent && !st.valid(now) && st.more != nil {
		st.more.failure = nil // of a policy that is no more promised
	}
	if problem != nil {
		c.stats.Failures[problem.Failure]++
	}
}

// sameFailure reports whether a look-up failed by what the resolver remembers
// of the one before: nothing was asked, and nothing is new to tell.
func (c *Cache) sameFailure(st *state, answer Answer, err error) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	problem := st.details().problem
	if st.record != recordUnknown || problem == nil || !errors.Is(err, problem.Err) {
		return false
	}
	st.recheck = recheckAfter(c.cfg.Now(), answer)
	return true
}

// recheckAfter is when a record whose look-up failed is asked for again.
func recheckAfter(now time.Time, answer Answer) time.Time {
	if answer.Expires.IsZero() {
		return now.Add(recordRetry)
	}
	// the resolver remembers failures
	return earliest(now.Add(recordRetry), answer.Expires)
}

// job is what a flight still has to do when the record is known.
type job uint8

const (
	jobNone   job = iota
	jobQuiet      // a fetch that look-ups need not wait for
	jobUrgent     // a fetch that they do
)

// plan decides whether the flight fetches, and for which id.
func (c *Cache) plan(f *flight) (job, string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	st, now := f.st, c.cfg.Now()
	d := st.details()
	switch {
	case c.closed:
	case !f.refresh && st.wantsFetch(now):
		if st.mayWait(now) {
			return jobQuiet, d.recordID
		}
		return jobUrgent, d.recordID
	case f.refresh && d.recordID != "":
		return jobUrgent, d.recordID
	case f.refresh && d.policy != nil:
		return jobUrgent, d.policy.ID
	}
	return jobNone, ""
}

// fetch gets the policy for an id, takes the outcome into the state, and
// returns what then must be written to the store.
func (c *Cache) fetch(f *flight, id string) (write func() error) {
	policy, failure := c.ask(f)
	if c.ctx.Err() != nil {
		return nil // closing says nothing about the domain
	}
	if failure != nil {
		c.logFailure(f.st.domain, failure, c.noteFailure(f, id, failure))
		return nil
	}
	c.cfg.Log.Info("MTA-STS policy fetched", slog.String("domain", f.st.domain), slog.String("id", id),
		slog.String("mode", policy.Mode.String()), slog.Duration("max_age", policy.MaxAge))
	return c.notePolicy(f, id, policy)
}

// notePolicy takes a fetched policy into the state.
func (c *Cache) notePolicy(f *flight, id string, policy mtasts.Policy) (write func() error) {
	now, jitter, st := c.cfg.Now(), c.cfg.Jitter(), f.st
	fetched := store.Policy{Domain: st.domain, ID: id, Fetched: now.UTC().Truncate(time.Second), Policy: policy}
	c.mu.Lock()
	defer c.mu.Unlock()
	st.serial = c.generation.Add(1)
	c.countFetch(f)
	f.fetched = true
	if st.more != nil {
		st.more.failure, st.more.failedID = nil, ""
	}
	if policy.Mode == mtasts.ModeNone || policy.MaxAge == 0 {
		st.end(id, policy.MaxAge, now)
		write = func() error { return c.cfg.Store.Remove(fetched.Domain) }
	} else {
		st.keep(fetched, now, jitter)
		write = func() error { return c.cfg.Store.Save(fetched) }
	}
	c.memory.Put(st.domain, st, st.cost())
	return write
}

// noteFailure takes a failed fetch into the state and tells when the policy
// that stays in force ends, zero if there is none.
func (c *Cache) noteFailure(f *flight, id string, failure *mtasts.Error) (until time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.st.serial = c.generation.Add(1)
	c.countFetch(f)
	c.stats.Failures[failure.Failure]++
	now := c.cfg.Now()
	f.st.fail(id, failure, now)
	if f.st.valid(now) {
		return f.st.more.ends
	}
	return time.Time{}
}

// countFetch counts. The caller holds c.mu.
func (c *Cache) countFetch(f *flight) {
	c.stats.Fetches++
	if f.refresh {
		c.stats.Refreshes++
	}
}

// ask fetches a policy within its bounds.
func (c *Cache) ask(f *flight) (mtasts.Policy, *mtasts.Error) {
	if !f.refresh { // a refresh has its slot already
		// No look-up waits longer for the fetch than for its place.
		leave, err := c.fetches.Enter(c.ctx, f.st.domain)
		switch {
		case errors.Is(err, inflight.ErrBusy):
			return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: errBusy}
		case err != nil:
			return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: ErrClosed}
		}
		defer leave()
	}
	ctx, cancel := context.WithTimeout(c.ctx, fetchTimeout)
	defer cancel()
	policy, err := c.cfg.Fetcher.Fetch(ctx, f.st.domain)
	if err == nil {
		return policy, nil
	}
	var failure *mtasts.Error
	if !errors.As(err, &failure) {
		failure = &mtasts.Error{Failure: mtasts.FailureFetch, Err: err}
	}
	return mtasts.Policy{}, failure
}

// logFailure warns that a refresh failed, long before the cached policy ends
// (RFC 8461 §3.3, §10.2): the administrator may ask the domain. One that never
// worked is the domain's own matter. Policies of mode none are never cached, so
// that their silence needs no care.
func (c *Cache) logFailure(domain string, failure *mtasts.Error, until time.Time) {
	attrs := []any{slog.String("domain", domain), slog.String("failure", failure.Failure.String()), slog.Any("error", failure)}
	switch {
	case !until.IsZero():
		c.cfg.Log.Warn("MTA-STS policy not refreshed; the cached one remains in effect", append(attrs, slog.Time("until", until))...)
	case errors.Is(failure, errBusy):
		c.cfg.Log.Debug("MTA-STS policy not fetched; delivering without it", attrs...)
	default:
		c.cfg.Log.Info("MTA-STS policy not fetched; delivering without it", attrs...)
	}
}

// noteStore logs the first of a series of the store's failures, and their end.
func (c *Cache) noteStore(err error) {
	c.mu.Lock()
	before := c.storeFailed
	c.storeFailed = err != nil
	if err != nil {
		c.stats.StoreFailures++
	}
	c.mu.Unlock()
	switch {
	case err != nil && !before:
		c.cfg.Log.Error("cannot store MTA-STS policies; keeping them in memory only", slog.Any("error", err))
	case err == nil && before:
		c.cfg.Log.Info("storing MTA-STS policies again")
	}
}

// sweep refreshes policies near their end, whether or not they are asked for.
func (c *Cache) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-c.ctx.Done():
			return
		case <-tick.C:
		}
		for _, st := range c.due() {
			select {
			case <-c.ctx.Done():
				return
			case c.refreshes <- struct{}{}:
			}
			if !c.startRefresh(st) {
				<-c.refreshes
			}
		}
	}
}

// due gives the domains to refresh.
func (c *Cache) due() []*state {
	c.mu.Lock()
	defer c.mu.Unlock()
	var due []*state
	now := c.cfg.Now()
	for _, st := range c.memory.All() {
		if c.isDue(st, now) {
			due = append(due, st)
		}
	}
	return due
}

// isDue decides about one domain. The caller holds c.mu.
func (c *Cache) isDue(st *state, now time.Time) bool {
	return st.valid(now) && !now.Before(st.more.refresh) && now.Sub(st.used) < keepWarm && c.flights[st.domain] == nil
}

// startRefresh begins a refresh that has its slot, if it is still due.
func (c *Cache) startRefresh(st *state) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed || !c.isDue(st, c.cfg.Now()) || c.refreshing[registrable.Domain(st.domain)] >= maxOwnerRefreshes {
		return false
	}
	c.start(st, true)
	return true
}

func earliest(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func latest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
