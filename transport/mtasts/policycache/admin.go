package policycache

import (
	"slices"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// Stats counts what happened since New. It is a value, for metrics and status.
type Stats struct {
	Lookups      uint64 // calls of Lookup
	Hits         uint64 // of which memory answered alone
	RecordChecks uint64 // TXT look-ups
	Fetches      uint64 // policy fetches, whatever came of them
	Refreshes    uint64 // of which no look-up waited for
	// Failures counts by kind: mtasts.FailureDNS and mtasts.FailureRecord of
	// TXT look-ups, the others of fetches.
	Failures      [mtasts.Failures]uint64
	StoreFailures uint64 // operations of the store that failed
	Domains       int    // in memory now, with or without policy
	Memory        int64  // bytes that they take, about
	MaxMemory     int64  // bytes that they may take
	Flights       int    // domains being looked up or refreshed now
}

// Add adds what another Cache counts, and holds now.
func (s *Stats) Add(o *Stats) {
	s.Lookups += o.Lookups
	s.Hits += o.Hits
	s.RecordChecks += o.RecordChecks
	s.Fetches += o.Fetches
	s.Refreshes += o.Refreshes
	for kind, n := range o.Failures {
		s.Failures[kind] += n
	}
	s.StoreFailures += o.StoreFailures
	s.Domains += o.Domains
	s.Memory += o.Memory
	s.MaxMemory += o.MaxMemory
	s.Flights += o.Flights
}

// Stats gives the counters as of now.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.stats
	s.Domains, s.Memory, s.Flights = c.memory.Len(), c.memory.Cost(), len(c.flights)
	s.MaxMemory = c.cfg.Memory
	return s
}

// Cached tells what is known of a domain without asking the DNS or the web:
// what memory knows, else what the store does, else Failed without an Err. The
// error is mtasts.ErrDomain or the store's.
func (c *Cache) Cached(domain string) (Entry, error) {
	name, err := mtasts.Domain(domain)
	if err != nil {
		return Entry{Domain: domain}, err
	}
	c.mu.Lock()
	now := c.cfg.Now()
	st, ok := c.memory.Get(name)
	if ok && st.loaded {
		e := st.entry(now)
		c.mu.Unlock()
		return e, nil
	}
	c.mu.Unlock()
	found := state{domain: name}
	cached, ok, err := c.cfg.Store.Load(name)
	if err != nil {
		return Entry{Domain: name}, err
	}
	if ok && cached.Policy.Mode != mtasts.ModeNone {
		found.keep(cached, now, 0)
	}
	return found.entry(now), nil
}

// Domains gives the domains with a cached policy, sorted. Those of the store
// may have expired; Cached tells. With an error, that of the store, the domains
// are those in memory.
func (c *Cache) Domains() ([]string, error) {
	domains, err := c.cfg.Store.Domains()
	c.mu.Lock()
	now := c.cfg.Now()
	for name, st := range c.memory.All() {
		if st.valid(now) {
			domains = append(domains, name)
		}
	}
	c.mu.Unlock()
	slices.Sort(domains)
	return slices.Compact(domains), err
}

// Flush forgets all about a domain, its back-off included, so that the next
// Lookup begins anew. What is being fetched just then is kept again. The error
// is mtasts.ErrDomain, or the store's; then memory has forgotten, and a restart
// may remember.
func (c *Cache) Flush(domain string) error {
	name, err := mtasts.Domain(domain)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.flights[name].forget() // before the store is, which it may be writing to
	c.mu.Unlock()
	err = c.cfg.Store.Remove(name)
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.memory.Get(name); !ok && c.flights[name] == nil && err == nil {
		return nil
	}
	st := c.remembered(name)
	c.flights[name].forget()
	// What could not be removed is not loaded again.
	st.knowledge = knowledge{used: st.used, serial: c.generation.Add(1), loaded: err != nil}
	return err
}
