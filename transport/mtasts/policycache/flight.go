package policycache

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

// flight is the one piece of work under way for a domain: a check of store,
// record and policy that look-ups wait for, or a refresh that nobody does.
type flight struct {
	st        *state
	refresh   bool
	waitUntil time.Time     // when look-ups go on without
	done      chan struct{} // closed when the state tells the outcome
	fetched   bool          // a policy was fetched; read after done
}

// start begins a flight for a domain that has none. The caller holds p.mu and
// knows that Close was not called.
func (p *Cache) start(st *state, refresh bool) *flight {
	f := &flight{st: st, refresh: refresh, waitUntil: time.Now().Add(FirstWait), done: make(chan struct{})}
	p.flights[st.domain] = f
	p.work.Go(func() { p.run(f) })
	return f
}

// tryRefresh begins a refresh when there is a place for it; otherwise the
// sweeper will. The caller holds p.mu.
func (p *Cache) tryRefresh(st *state) {
	select {
	case p.refreshes <- struct{}{}:
		p.start(st, true)
	default:
	}
}

// run does a flight's work in its order.
func (p *Cache) run(f *flight) {
	if !f.refresh {
		p.load(f.st)
		p.checkRecord(f.st)
	}
	job, id := p.plan(f)
	if job != jobUrgent {
		close(f.done) // there is nothing to wait for
	}
	var write func() error
	if job != jobNone {
		write = p.fetch(f, id)
	}
	if job == jobUrgent {
		close(f.done) // the answer does not wait for the disk
	}
	if write != nil {
		p.noteStore(write())
	}
	p.mu.Lock()
	delete(p.flights, f.st.domain)
	p.mu.Unlock()
	if f.refresh {
		<-p.refreshes
	}
}

// load asks the store once.
func (p *Cache) load(st *state) {
	p.mu.Lock()
	loaded := st.loaded
	p.mu.Unlock()
	if loaded {
		return
	}
	cached, ok, err := p.cfg.Store.Load(st.domain)
	if errors.Is(err, store.ErrDamaged) {
		p.cfg.Log.Warn("cached MTA-STS policy ignored", slog.String("domain", st.domain), slog.Any("error", err))
	} else if err != nil {
		p.noteStore(err)
	}
	lot := p.cfg.Jitter()
	p.mu.Lock()
	defer p.mu.Unlock()
	st.loaded = true
	if !ok || err != nil || cached.Domain != st.domain || cached.Policy.Mode == mtasts.ModeNone {
		return
	}
	now := p.cfg.Now()
	st.keep(cached, now, lot)
	st.expire(now)
	p.memory.Put(st.domain, st, st.cost())
}

// checkRecord asks for the TXT record when the last answer is over.
func (p *Cache) checkRecord(st *state) {
	p.mu.Lock()
	due := !p.cfg.Now().Before(st.recheck)
	p.mu.Unlock()
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(p.ctx, recordTimeout)
	defer cancel()
	answer, err := p.cfg.Resolver.TXT(ctx, mtasts.RecordName(st.domain))
	if p.ctx.Err() != nil {
		return // closing says nothing about the domain
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
		p.cfg.Log.Info("no usable MTA-STS record", slog.String("domain", st.domain),
			slog.String("failure", problem.Failure.String()), slog.Any("error", problem))
	}

	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.cfg.Now()
	p.stats.RecordChecks++
	st.record, st.recordID, st.problem = known, rec.ID, problem
	if known == recordUnknown {
		st.recheck = now.Add(recordRetry)
	} else {
		st.recheck = latest(now.Add(minRecordTTL), earliest(answer.Expires, now.Add(maxRecordTTL)))
	}
	if known == recordAbsent && !st.valid(now) {
		st.failure = nil // of a policy that is no more promised
	}
	if problem != nil {
		p.stats.Failures[problem.Failure]++
	}
}

// job is what a flight still has to do when the record is known.
type job uint8

const (
	jobNone   job = iota
	jobQuiet      // a fetch that look-ups need not wait for
	jobUrgent     // a fetch that they do
)

// plan decides whether the flight fetches, and for which id.
func (p *Cache) plan(f *flight) (job, string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, now := f.st, p.cfg.Now()
	switch {
	case p.closed:
	case !f.refresh && st.wantsFetch(now):
		if st.mayWait(now) {
			return jobQuiet, st.recordID
		}
		return jobUrgent, st.recordID
	case f.refresh && st.recordID != "":
		return jobUrgent, st.recordID
	case f.refresh && st.policy != nil:
		return jobUrgent, st.policy.ID
	}
	return jobNone, ""
}

// fetch gets the policy for an id, takes the outcome into the state, and
// returns what then must be written to the store.
func (p *Cache) fetch(f *flight, id string) (write func() error) {
	policy, failure := p.ask(f)
	if p.ctx.Err() != nil {
		return nil // closing says nothing about the domain
	}
	if failure != nil {
		p.logFailure(f.st.domain, failure, p.noteFailure(f, id, failure))
		return nil
	}
	p.cfg.Log.Info("MTA-STS policy fetched", slog.String("domain", f.st.domain), slog.String("id", id),
		slog.String("mode", policy.Mode.String()), slog.Duration("max_age", policy.MaxAge))
	return p.notePolicy(f, id, policy)
}

// notePolicy takes a fetched policy into the state.
func (p *Cache) notePolicy(f *flight, id string, policy mtasts.Policy) (write func() error) {
	now, lot, st := p.cfg.Now(), p.cfg.Jitter(), f.st
	fetched := store.Policy{Domain: st.domain, ID: id, Fetched: now.UTC().Truncate(time.Second), Policy: policy}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countFetch(f)
	f.fetched = true
	st.failure, st.failedID = nil, ""
	if policy.Mode == mtasts.ModeNone || policy.MaxAge == 0 {
		st.end(id, policy.MaxAge, now)
		write = func() error { return p.cfg.Store.Remove(fetched.Domain) }
	} else {
		st.keep(fetched, now, lot)
		write = func() error { return p.cfg.Store.Save(fetched) }
	}
	p.memory.Put(st.domain, st, st.cost())
	return write
}

// noteFailure takes a failed fetch into the state and tells when the policy that
// stays in force ends, zero if there is none.
func (p *Cache) noteFailure(f *flight, id string, failure *mtasts.Error) (until time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.countFetch(f)
	p.stats.Failures[failure.Failure]++
	now := p.cfg.Now()
	f.st.fail(id, failure, now)
	if f.st.valid(now) {
		return f.st.ends
	}
	return time.Time{}
}

// countFetch counts. The caller holds p.mu.
func (p *Cache) countFetch(f *flight) {
	p.stats.Fetches++
	if f.refresh {
		p.stats.Refreshes++
	}
}

// ask fetches a policy within its bounds.
func (p *Cache) ask(f *flight) (mtasts.Policy, *mtasts.Error) {
	if !f.refresh { // a refresh has its place already
		// Nobody waits longer for the fetch than this, so it need not queue
		// longer for its place.
		patience := time.NewTimer(FirstWait)
		defer patience.Stop()
		select {
		case p.fetches <- struct{}{}:
			defer func() { <-p.fetches }()
		case <-patience.C:
			return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: errBusy}
		case <-p.ctx.Done():
			return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: ErrClosed}
		}
	}
	ctx, cancel := context.WithTimeout(p.ctx, FetchTimeout)
	defer cancel()
	policy, err := p.cfg.Fetcher.Fetch(ctx, f.st.domain)
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
// (RFC 8461 §3.3, §10.2): somebody should ask the domain. One that never worked
// is the domain's own matter. Policies of mode none are never cached, so that
// their silence needs no care.
func (p *Cache) logFailure(domain string, failure *mtasts.Error, until time.Time) {
	attrs := []any{slog.String("domain", domain), slog.String("failure", failure.Failure.String()), slog.Any("error", failure)}
	switch {
	case !until.IsZero():
		p.cfg.Log.Warn("MTA-STS policy not refreshed; the cached one stays in force", append(attrs, slog.Time("until", until))...)
	case errors.Is(failure, errBusy):
		p.cfg.Log.Debug("MTA-STS policy not fetched; deliveries go on without", attrs...)
	default:
		p.cfg.Log.Info("MTA-STS policy not fetched; deliveries go on without", attrs...)
	}
}

// noteStore logs the first of a series of the store's failures, and their end.
func (p *Cache) noteStore(err error) {
	p.mu.Lock()
	before := p.storeFailed
	p.storeFailed = err != nil
	if err != nil {
		p.stats.StoreFailures++
	}
	p.mu.Unlock()
	switch {
	case err != nil && !before:
		p.cfg.Log.Error("MTA-STS policies cannot be stored; they are kept in memory alone", slog.Any("error", err))
	case err == nil && before:
		p.cfg.Log.Info("MTA-STS policies are stored again")
	}
}

// sweep refreshes policies near their end, whether or not somebody asks.
func (p *Cache) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.ctx.Done():
			return
		case <-tick.C:
		}
		for _, st := range p.due() {
			select {
			case <-p.ctx.Done():
				return
			case p.refreshes <- struct{}{}:
			}
			if !p.startRefresh(st) {
				<-p.refreshes
			}
		}
	}
}

// due gives the domains to refresh.
func (p *Cache) due() []*state {
	p.mu.Lock()
	defer p.mu.Unlock()
	var due []*state
	now := p.cfg.Now()
	for _, st := range p.memory.All() {
		if p.isDue(st, now) {
			due = append(due, st)
		}
	}
	return due
}

// isDue decides about one domain. The caller holds p.mu.
func (p *Cache) isDue(st *state, now time.Time) bool {
	return st.valid(now) && !now.Before(st.refresh) && now.Sub(st.used) < keepWarm && p.flights[st.domain] == nil
}

// startRefresh begins a refresh that has its place, if it is still due.
func (p *Cache) startRefresh(st *state) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || !p.isDue(st, p.cfg.Now()) {
		return false
	}
	p.start(st, true)
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
