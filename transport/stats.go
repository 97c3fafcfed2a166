package transport

import (
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/source"
)

// Stats are what a transport counts beside its events: since it was made, and
// now.
type Stats struct {
	Deliveries int // under way now
	// connections that are open now, idle ones included
	Open   int
	Opened uint64 // connections made
	Dead   int    // hosts that cannot be reached now
	// providers that complained of too much, and are spared now by all
	// transports
	Slowed int
	// the sources of the pools, those of overrides included
	Sources SourceCount
	Pool    pool.Stats                // of the idle connections
	Limits  [limit.Scopes]limit.Stats // those of overrides included
	Memory  [Memories]cache.Usage     // of what is remembered
}

// SourceCount counts sources by what may leave from them now.
type SourceCount struct {
	Usable int
	Spent  int // they sent what they may on this day
	Out    int // this host has none of their addresses
}

// Memory is something that a transport remembers. All of it is bounded in
// bytes.
type Memory uint8

// What a transport remembers.
const (
	// where mail for a domain goes, and how secure hosts must be
	MemoryPlans     Memory = iota
	MemoryChains           // certificate chains that were verified
	MemorySessions         // TLS sessions that may be resumed
	MemoryChunking         // which hosts cannot do BDAT
	MemoryHellos           // which hosts need a plainer TLS hello
	MemoryDead             // which hosts are dead, or answered lately
	MemoryAddresses        // which address works where others do not
	MemoryLimits           // the keys of limits, those of overrides included
	MemoryTold             // hosts that the log has told of
	MemoryAnswers          // what Postfix is told of a domain that it asked for
	Memories               // how many there are
)

// Word gives the name for status and metrics.
func (m Memory) Word() string {
	return [...]string{
		"plans", "chains", "tls_sessions", "chunking", "hellos", "dead_hosts", "addresses", "limits", "told",
		"answers",
	}[m]
}

// Add adds what another transport counts, and has now.
func (s *Stats) Add(o *Stats) {
	s.Deliveries += o.Deliveries
	s.Open += o.Open
	s.Opened += o.Opened
	s.Dead += o.Dead
	s.Slowed = max(s.Slowed, o.Slowed)
	s.Sources.Usable += o.Sources.Usable
	s.Sources.Spent += o.Sources.Spent
	s.Sources.Out += o.Sources.Out
	s.Pool.Add(&o.Pool)
	for scope := range o.Limits {
		s.Limits[scope].Add(o.Limits[scope])
	}
	for m := range o.Memory {
		s.Memory[m].Add(o.Memory[m])
	}
}

// Snapshot is what a transport is doing at a moment.
type Snapshot struct {
	Name       string
	InProgress []InProgress // the oldest first
	Idle       pool.Stats
	IdleHosts  []IdleHost      // idle connections by host
	Dead       []deadhost.Dead // their Host is "host:port"
	// providers that complained of too many connections; all transports spare
	// them
	Slowed []limit.Paced
	// hosts that need a plainer TLS hello than the first
	Hellos []Hello
	Limits []LimitState // one for each scope that has a limit
	// what mail leaves from, in the order of the configuration; nil: no pool
	Sources []SourceState
}

// Hello is a host that needs a plainer TLS hello than the first.
type Hello = handshake.Remembered

// InProgress is a delivery that has not ended: the recipients of one message at
// one destination.
type InProgress struct {
	ID, QueueID string
	Destination string
	Host        string // that it is dealing with; empty before there is a route
	Recipients  int
	Since       time.Time
}

// IdleHost is how many idle connections there are to one host.
type IdleHost = session.IdleHost

// SourceState is a source at a moment.
type SourceState struct {
	Override string // that it belongs to; empty: the transport itself
	source.State
}

// LimitState is what a limit has to do.
type LimitState struct {
	Override string // that the limit belongs to; empty: the transport itself
	Scope    limit.Scope
	limit.Stats
}
