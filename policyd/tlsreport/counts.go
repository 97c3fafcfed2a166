package tlsreport

import (
	"cmp"
	"crypto/sha256"
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
	// MaxBytes is how much all of a day takes, by what its lines take in the
	// day's file; sessions that need more are not counted.
	MaxBytes = 16 << 20
	// MaxDomainBytes is how much of it one domain takes before its further
	// policies and failures are counted together.
	MaxDomainBytes = 256 << 10
	// maxPolicyText is how much of a policy is reported, in bytes: of its text,
	// and of its MX hosts. Lines beyond are left out.
	maxPolicyText = 8 << 10
	// lineCost is what a line takes beside its texts, in memory or on disk.
	lineCost = 400
)

// Counts are the sessions of one UTC day, by domain. They are not safe for
// concurrent use; the zero Counts is empty.
type Counts struct {
	domains map[string]*domainCounts
	bytes   int // that the entries take
	// Dropped are sessions with domains beyond MaxDomains, or beyond MaxBytes.
	Dropped uint64
}

type domainCounts struct {
	policies []*policyCounts
	failures int // entries of all policies
	bytes    int
}

type policyCounts struct {
	policy   Policy
	key      [sha256.Size]byte
	bytes    int // that a line of it takes
	success  uint64
	failure  uint64
	failures map[Failure]uint64
}

// Add counts n sessions with a domain under a policy; failed nil: they
// succeeded. It gives the line of the day's file that says the same; ok is
// false when they are not counted, since there is no room.
func (c *Counts) Add(domain string, p Policy, failed *Failure, n uint64) (l line, ok bool) {
	d := c.domains[domain]
	known := d != nil
	if !known {
		d = &domainCounts{}
	}
	counts, more := d.of(p)
	var f Failure
	if failed != nil {
		f = *failed
		if _, there := counts.failures[f]; !there {
			if d.failures >= MaxFailures || d.bytes >= MaxDomainBytes {
				f = Failure{Result: f.Result, Reason: "and more"}
			}
			if _, there := counts.failures[f]; !there {
				// At most one more for each result type and policy.
				more += counts.bytes + f.size()
			}
		}
	}
	if more > 0 && c.bytes+more > MaxBytes || !known && len(c.domains) >= MaxDomains {
		c.Dropped += n
		return line{}, false
	}
	c.bytes += more
	d.bytes += more
	if !known {
		if c.domains == nil {
			c.domains = map[string]*domainCounts{}
		}
		c.domains[domain] = d
	}
	if !slices.Contains(d.policies, counts) {
		d.policies = append(d.policies, counts)
	}
	if failed == nil {
		counts.success += n
		return line{domain, counts.policy, nil, n}, true
	}
	counts.failure += n
	if _, there := counts.failures[f]; !there {
		d.failures++
	}
	counts.failures[f] += n
	return line{domain, counts.policy, &f, n}, true
}

// of finds a policy's counts, or makes some that are not among the domain's
// yet, and then tells how much they take.
func (d *domainCounts) of(p Policy) (counts *policyCounts, more int) {
	p.Text, p.MXHosts = cutTo(p.Text, maxPolicyText), cutTo(p.MXHosts, maxPolicyText)
	key := p.key()
	for _, counts := range d.policies {
		if counts.key == key {
			return counts, 0
		}
	}
	if n := len(d.policies); n >= MaxPolicies || n > 0 && d.bytes >= MaxDomainBytes {
		return d.policies[n-1], 0
	}
	counts = &policyCounts{policy: p, key: key, bytes: lineCost + p.size(), failures: map[Failure]uint64{}}
	return counts, counts.bytes
}

// cutTo leaves out the lines that go beyond so many bytes.
func cutTo(lines []string, most int) []string {
	for i, line := range lines {
		if most -= len(line); most < 0 {
			return lines[:i:i]
		}
	}
	return lines
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
