package delivery

import (
	"sync"
	"time"
)

const (
	toldFor = 24 * time.Hour
	maxTold = 10000
)

// toldHosts remembers, for a day, about which hosts the log has told something
// already.
type toldHosts struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// first reports whether the log has to tell of a host, and remembers that it
// does.
func (h *toldHosts) first(host string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if now.Before(h.until[host]) {
		return false
	}
	if h.until == nil || len(h.until) >= maxTold {
		// at worst some hosts are told of again
		h.until = map[string]time.Time{}
	}
	h.until[host] = now.Add(toldFor)
	return true
}
