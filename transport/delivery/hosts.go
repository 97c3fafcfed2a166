package delivery

import (
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
)

// Hosts is what the deliveries of a transport remember of hosts. It is safe
// for concurrent use.
type Hosts struct {
	chunking chunkingHosts
	eightBit toldHosts // that get 8-bit text without having offered 8BITMIME
}

// NewHosts makes Hosts that remember nothing yet.
func NewHosts() *Hosts { return &Hosts{} }

const (
	// chunkingMemory is how long what is known of a host's BDAT counts.
	chunkingMemory = 24 * time.Hour
	// maxChunkingHosts bounds the hosts that are remembered.
	maxChunkingHosts = 10000
	// hostCost is what one takes beside its name, in bytes, and maxHostName
	// bounds that, port included.
	hostCost    = 128
	maxHostName = 261
)

// chunking is what is known of a host's BDAT.
type chunking uint8

const (
	unknown chunking = iota // the first message by it is followed by NOOP
	trusted                 // it answers BDAT with one reply, as it should
	// BDAT broke there, or is answered in a way of its own
	givenData
)

// chunkingHosts remembers, for a day, what is known of hosts' BDAT.
type chunkingHosts struct {
	mu    sync.Mutex
	known map[string]knownChunking
}

type knownChunking struct {
	chunking
	until time.Time
}

// set remembers a host. When there are too many, some of the others are
// forgotten: they are got to know anew.
func (h *chunkingHosts) set(host string, is chunking) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	if h.known == nil {
		h.known = map[string]knownChunking{}
	}
	h.known[host] = knownChunking{is, now.Add(chunkingMemory)}
	if len(h.known) <= maxChunkingHosts {
		return
	}
	for other, k := range h.known {
		if !now.Before(k.until) {
			delete(h.known, other)
		}
	}
	for other := range h.known {
		if len(h.known) <= maxChunkingHosts*9/10 {
			break
		}
		if other != host {
			delete(h.known, other)
		}
	}
}

// distrust has a host that was trusted given DATA.
func (h *chunkingHosts) distrust(host string) {
	if h.get(host) == trusted {
		h.set(host, givenData)
	}
}

// Chunking tells how much is remembered of hosts' BDAT.
func (h *Hosts) Chunking() cache.Usage {
	c := &h.chunking
	c.mu.Lock()
	defer c.mu.Unlock()
	u := cache.Usage{Entries: len(c.known), MaxBytes: maxChunkingHosts * (hostCost + maxHostName)}
	for host := range c.known {
		u.Bytes += int64(len(host)) + hostCost
	}
	return u
}

// get tells what is known of a host.
func (h *chunkingHosts) get(host string) chunking {
	h.mu.Lock()
	defer h.mu.Unlock()
	if k, ok := h.known[host]; ok && time.Now().Before(k.until) {
		return k.chunking
	}
	return unknown
}
