// Package store keeps fetched MTA-STS policies for as long as they may be used
// (RFC 8461 §3.2, §5.1): in memory, or on disk where they survive a restart.
//
// A store keeps what it is given and judges nothing: whether a policy is still
// valid is its caller's business. It is bounded, and forgets first what it
// needs least. What a store cannot keep is lost without harm, since a policy
// can be fetched again, so its callers log an error and go on.
package store

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/internal/lru"
)

// The errors of stores.
var (
	// ErrDomain means that a domain is not in the form that mtasts.Domain
	// gives. It is the caller's mistake.
	ErrDomain = errors.New("not a canonical policy domain")
	// ErrDamaged means that something lies where a domain's policy should be
	// and is none that we wrote. The caller treats it as missing; the next
	// Save replaces it.
	ErrDamaged = errors.New("not a file that we wrote whole")
)

// Policy is a policy with what must be known to use it later.
type Policy struct {
	// Domain is the policy domain as mtasts.Domain gives it.
	Domain string
	// ID is the id of the TXT record that led to the policy.
	ID string
	// Fetched is when, in UTC by the wall clock and whole seconds.
	Fetched time.Time
	// Policy is the policy.
	Policy mtasts.Policy
}

// Cost is about how many bytes of memory the policy takes.
func (p Policy) Cost() int64 {
	cost := 300 + len(p.Domain) + len(p.ID)
	for _, pattern := range p.Policy.MX {
		cost += 16 + len(pattern)
	}
	return int64(cost)
}

// Store keeps policies by domain. Domains are in the form of mtasts.Domain. All
// methods may be called at the same time; different domains do not wait for
// each other's disk.
type Store interface {
	// Load gives a domain's policy, and false when there is none. With an
	// error there is none either.
	Load(domain string) (Policy, bool, error)
	// Save keeps a policy in place of the domain's former one. After an error
	// the former one or the new one is there, whole.
	Save(Policy) error
	// Remove forgets a domain's policy; it is no error when there is none.
	Remove(domain string) error
	// Domains gives the domains with policies, sorted.
	Domains() ([]string, error)
}

// RAM keeps policies in memory and forgets those that were not used for longest
// when they take too much.
type RAM struct {
	mu       sync.Mutex
	policies *lru.Map[Policy]
}

// NewRAM makes a store that takes at most about so many bytes of memory.
func NewRAM(bytes int64) *RAM { return &RAM{policies: lru.New[Policy](bytes)} }

// Load gives a domain's policy.
func (r *RAM) Load(domain string) (Policy, bool, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p, ok := r.policies.Get(domain)
	return p, ok, nil
}

// Save keeps a policy.
func (r *RAM) Save(p Policy) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policies.Put(p.Domain, p, p.Cost())
	return nil
}

// Remove forgets a domain's policy.
func (r *RAM) Remove(domain string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.policies.Delete(domain)
	return nil
}

// Domains gives the domains with policies.
func (r *RAM) Domains() ([]string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var domains []string
	for d := range r.policies.All() {
		domains = append(domains, d)
	}
	slices.Sort(domains)
	return domains, nil
}
