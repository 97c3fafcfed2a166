package dial

import (
	"container/list"
	"net/netip"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

const (
	// memory is for how long an address is tried first (RFC 6555 §4.2: on the
	// order of ten minutes). It is not prolonged while the address works: then
	// the others are tried again, and the preference holds again.
	memory = 10 * time.Minute
	// maxHistory bounds the hosts that are remembered.
	maxHistory = 10_000
	// hostCost is what a host takes beside its name, in bytes, and maxName
	// bounds the name, port included.
	hostCost = 256
	maxName  = 261
)

// History remembers which address of a host worked when others before it did
// not, so that the next connections begin with it: a family that is broken
// costs its delay once, not each time. Hosts whose first address works are not
// remembered, so that connections go on being spread over all of them. It is
// bounded, and safe for concurrent use.
type History struct {
	now func() time.Time

	mu     sync.Mutex
	byHost map[string]*list.Element // of *worked
	used   list.List                // the oldest in front
}

type worked struct {
	host  string
	addr  netip.Addr
	until time.Time
}

// NewHistory makes an empty History. now is its clock; nil means time.Now.
func NewHistory(now func() time.Time) *History {
	if now == nil {
		now = time.Now
	}
	return &History{now: now, byHost: map[string]*list.Element{}}
}

// First gives the address of a host to begin with; it is not valid when none is
// known to be better than the others. The host's name is whatever is reached or
// not as one.
func (h *History) First(host string) netip.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	el := h.byHost[host]
	if el == nil {
		return netip.Addr{}
	}
	w := el.Value.(*worked)
	if !h.now().Before(w.until) {
		h.drop(el)
		return netip.Addr{}
	}
	return w.addr
}

// Worked notes that an address took what another one did not.
func (h *History) Worked(host string, addr netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.now()
	if el := h.byHost[host]; el != nil {
		if w := el.Value.(*worked); w.addr == addr && now.Before(w.until) {
			return
		}
		h.drop(el)
	}
	h.byHost[host] = h.used.PushBack(&worked{host, addr, now.Add(memory)})
	if h.used.Len() > maxHistory {
		h.drop(h.used.Front())
	}
}

// Failed notes that an address did not take what it was to take. It is not
// begun with any more.
func (h *History) Failed(host string, addr netip.Addr) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if el := h.byHost[host]; el != nil && el.Value.(*worked).addr == addr {
		h.drop(el)
	}
}

// Usage is how much the hosts take that are remembered, in bytes.
func (h *History) Usage() cache.Usage {
	h.mu.Lock()
	defer h.mu.Unlock()
	u := cache.Usage{Entries: len(h.byHost), MaxBytes: maxHistory * (hostCost + maxName)}
	for host := range h.byHost {
		u.Bytes += hostCost + int64(len(host))
	}
	return u
}

// Len is how many hosts are remembered.
func (h *History) Len() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.used.Len()
}

func (h *History) drop(el *list.Element) {
	delete(h.byHost, el.Value.(*worked).host)
	h.used.Remove(el)
}
