package socketmap

import (
	"strings"
	"sync/atomic"
)

// Counts are the look-ups of all sockets, by what was replied. They are safe
// for concurrent use; the zero Counts is ready.
type Counts struct {
	policies, none, temporary atomic.Uint64
}

// Stats are Counts at a moment.
type Stats struct {
	Policies uint64 // answered with a policy
	// with NOTFOUND: nothing is to be asked of the domain's servers
	None      uint64
	Temporary uint64 // with TEMP: Postfix defers the mail
}

// Stats gives the numbers.
func (c *Counts) Stats() Stats {
	return Stats{c.policies.Load(), c.none.Load(), c.temporary.Load()}
}

// add counts a reply.
func (c *Counts) add(reply string) {
	switch {
	case strings.HasPrefix(reply, "OK "):
		c.policies.Add(1)
	case reply == notFound:
		c.none.Add(1)
	default:
		c.temporary.Add(1)
	}
}
