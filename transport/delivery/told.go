package delivery

import (
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

const (
	toldFor = 24 * time.Hour
	maxTold = 10_000
)

// toldHosts remembers, for a day, about which hosts the log has told something
// already.
type toldHosts struct {
	mu    sync.Mutex
	until map[string]time.Time
}

// Told is how much is remembered of the hosts that the log told of, in bytes.
func (h *Hosts) Told() cache.Usage {
	t := &h.eightBit
	t.mu.Lock()
	defer t.mu.Unlock()
	u := cache.Usage{Entries: len(t.until), MaxBytes: maxTold * (hostCost + maxHostName)}
	for host := range t.until {
		u.Bytes += hostCost + int64(len(host))
	}
	return u
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
