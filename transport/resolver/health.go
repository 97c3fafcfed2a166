package resolver

import (
	"sync/atomic"
	"time"
)

// ServerStats is one server's health since the resolver was made.
type ServerStats struct {
	Server string // host:port
	Down   bool   // it did not answer lately, and is asked last now
	NoEDNS bool   // it takes no EDNS, and is asked without now
	// questions put to it, each with its repetition by TCP
	Queries  uint64
	Secure   uint64        // answers with an AD flag that counts
	Insecure uint64        // answers without one
	Failures [Kinds]uint64 // questions that it did not answer, by Kind
	Took     time.Duration // by all questions together
}

// Add adds the counters of another resolver about the same server.
func (s *ServerStats) Add(o *ServerStats) {
	s.Queries += o.Queries
	s.Secure += o.Secure
	s.Insecure += o.Insecure
	s.Took += o.Took
	for kind, n := range o.Failures {
		s.Failures[kind] += n
	}
}

// Servers tells how the servers do, in the order in which they are configured.
func (r *Resolver) Servers() []ServerStats {
	all := make([]ServerStats, len(r.servers))
	now := r.cfg.Now().UnixNano()
	for i, s := range r.servers {
		all[i] = s.health.stats()
		all[i].Server, all[i].Down = s.addr, s.down.Load() > now
		all[i].NoEDNS = s.plain.Load() > now
	}
	return all
}

// health is what is counted of a server.
type health struct {
	queries, secure, insecure atomic.Uint64
	took                      atomic.Int64 // nanoseconds
	failures                  [Kinds]atomic.Uint64
}

// note counts a question and what came of it.
func (h *health) note(p response, failed *Error, took time.Duration) {
	h.queries.Add(1)
	h.took.Add(int64(took))
	switch {
	case failed != nil:
		h.failures[failed.Kind].Add(1)
	case p.secure:
		h.secure.Add(1)
	default:
		h.insecure.Add(1)
	}
}

func (h *health) stats() ServerStats {
	s := ServerStats{
		Queries: h.queries.Load(), Secure: h.secure.Load(), Insecure: h.insecure.Load(), Took: time.Duration(h.took.Load()),
	}
	for kind := range h.failures {
		s.Failures[kind] = h.failures[kind].Load()
	}
	return s
}
