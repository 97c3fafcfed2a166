package tlsreport

import (
	"cmp"
	"maps"
	"slices"
)

// The bounds of a day's counts.
const (
	// MaxDomains is how many domains are counted; sessions with more are not.
	MaxDomains = 10_000
	// MaxPolicies is how many policies of one domain are counted apart. A
	// domain that changes its policy at each look-up has the last one swell.
	MaxPolicies = 50
	// MaxFailures is how many kinds of failure one domain has entries for;
	// what comes beyond is counted by result type alone.
	MaxFailures = 100
)

// Counts are the sessions of one UTC day, by domain. They are not safe for
// concurrent use; the zero Counts is empty.
type Counts struct {
	domains map[string]*domainCounts
	Dropped uint64 // sessions with domains beyond MaxDomains
}

type domainCounts struct {
	policies []*policyCounts
	failures int // entries of all policies
}

type policyCounts struct {
	policy   Policy
	key      string
	success  uint64
	failure  uint64
	failures map[Failure]uint64
}

// Add counts n sessions with a domain under a policy; failed nil: they
// succeeded.
func (c *Counts) Add(domain string, p Policy, failed *Failure, n uint64) {
	if c.domains == nil {
		c.domains = map[string]*domainCounts{}
	}
	d := c.domains[domain]
	if d == nil {
		if len(c.domains) >= MaxDomains {
			c.Dropped += n
			return
		}
		d = &domainCounts{}
		c.domains[domain] = d
	}
	counts := d.of(p)
	if failed == nil {
		counts.success += n
		return
	}
	counts.failure += n
	f := *failed
	if _, known := counts.failures[f]; !known {
		if d.failures >= MaxFailures {
			f = Failure{Result: f.Result, Reason: "and more"}
		}
		if _, known := counts.failures[f]; !known {
			d.failures++ // at most one more for each result type and policy
		}
	}
	counts.failures[f] += n
}

// of finds a policy's counts, or makes them.
func (d *domainCounts) of(p Policy) *policyCounts {
	key := p.key()
	for _, counts := range d.policies {
		if counts.key == key {
			return counts
		}
	}
	if len(d.policies) >= MaxPolicies {
		return d.policies[len(d.policies)-1]
	}
	counts := &policyCounts{policy: p, key: key, failures: map[Failure]uint64{}}
	d.policies = append(d.policies, counts)
	return counts
}

// Domains lists the domains that were counted, sorted.
func (c *Counts) Domains() []string { return slices.Sorted(maps.Keys(c.domains)) }

// Sessions gives a domain's successes and failures.
func (c *Counts) Sessions(domain string) (success, failure uint64) {
	if d := c.domains[domain]; d != nil {
		for _, p := range d.policies {
			success += p.success
			failure += p.failure
		}
	}
	return success, failure
}

// results gives a domain's part of its report, in an order that depends on
// nothing but the counts: the most frequent failure first.
func (c *Counts) results(domain string) []PolicyResult {
	d := c.domains[domain]
	if d == nil {
		return nil
	}
	list := make([]PolicyResult, 0, len(d.policies))
	for _, p := range d.policies {
		r := PolicyResult{Policy: p.policy, Summary: Summary{Success: p.success, Failure: p.failure}}
		for f, n := range p.failures {
			r.Failures = append(r.Failures, FailureDetails{Failure: f, Count: n})
		}
		slices.SortFunc(r.Failures, func(a, b FailureDetails) int {
			return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Result, b.Result), cmp.Compare(a.Host, b.Host),
				cmp.Compare(a.Receiver, b.Receiver), cmp.Compare(a.Sending, b.Sending), cmp.Compare(a.Reason, b.Reason), cmp.Compare(a.HELO, b.HELO))
		})
		list = append(list, r)
	}
	slices.SortFunc(list, func(a, b PolicyResult) int { return a.Policy.compare(&b.Policy) })
	return list
}

// each calls f with every count, for the file of the day.
func (c *Counts) each(f func(line)) {
	for _, domain := range c.Domains() {
		for _, p := range c.domains[domain].policies {
			if p.success > 0 {
				f(line{Domain: domain, Policy: p.policy, Count: p.success})
			}
			for failed, n := range p.failures {
				f(line{Domain: domain, Policy: p.policy, Failure: &failed, Count: n})
			}
		}
	}
}
