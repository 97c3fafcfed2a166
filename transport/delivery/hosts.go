package delivery

import (
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport/limit"
)

// Hosts is what the deliveries of a transport remember of hosts. It is safe
// for concurrent use.
type Hosts struct {
	Pacer      *limit.Pacer // hosts that complained of too many connections
	noChunking noChunkingHosts
}

// NewHosts makes Hosts that remember nothing yet.
func NewHosts() *Hosts { return &Hosts{Pacer: limit.NewPacer(limit.Pacing{})} }

const (
	withoutChunking  = 24 * time.Hour
	maxWithoutChunks = 10000
)

// noChunkingHosts remembers, for a day, the hosts where BDAT broke, which are
// given DATA instead.
type noChunkingHosts struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (h *noChunkingHosts) add(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil || len(h.until) >= maxWithoutChunks {
		h.until = map[string]time.Time{} // at worst some hosts are tried anew
	}
	h.until[host] = time.Now().Add(withoutChunking)
}

func (h *noChunkingHosts) has(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until != nil && time.Now().Before(h.until[host])
}
