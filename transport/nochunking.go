package transport

import (
	"sync"
	"time"
)

const (
	withoutChunking = 24 * time.Hour
	maxMarked       = 10000
)

// noChunkingHosts remembers, for a day, the hosts where BDAT broke, which are given
// DATA instead.
type noChunkingHosts struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (h *noChunkingHosts) mark(host string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil || len(h.until) >= maxMarked {
		h.until = map[string]time.Time{} // at worst some hosts are tried anew
	}
	h.until[host] = time.Now().Add(withoutChunking)
}

func (h *noChunkingHosts) marked(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until != nil && time.Now().Before(h.until[host])
}
