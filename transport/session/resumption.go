package session

import (
	"container/list"
	"crypto/tls"
	"sync"

	"github.com/mxpipe/mxpipe/cache"
)

const (
	// maxHandshake is how much of what a server sent in its handshake is kept,
	// in bytes: as a session to resume, or with an idle connection. Chains of
	// five large certificates are below it; one of a thousand tiny ones, which
	// takes megabytes when it is parsed, is not.
	maxHandshake = 16 << 10
	// maxSessionBytes bounds the sessions of a transport together: room for
	// some 2,000.
	maxSessionBytes = 16 << 20
	// sessionSize is what a session takes beside what the server sent.
	sessionSize = 1 << 10
)

// handshakeBytes is about what is kept of a server's part in a handshake, in
// bytes.
func handshakeBytes(state *tls.ConnectionState) int {
	n := len(state.OCSPResponse)
	for _, sct := range state.SignedCertificateTimestamps {
		n += len(sct)
	}
	for _, cert := range state.PeerCertificates {
		n += len(cert.Raw) + 1<<10 // and what it is parsed into
	}
	return n
}

// sessionCache keeps TLS sessions for resumption, bounded in bytes; those not
// used for longest make room. It is safe for concurrent use.
type sessionCache struct {
	mu    sync.Mutex
	byKey map[string]*list.Element // of *keptSession
	used  list.List                // the last used in front
	bytes int
}

type keptSession struct {
	key   string
	state *tls.ClientSessionState
	bytes int
}

// get gives a session.
func (c *sessionCache) get(key string) (*tls.ClientSessionState, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	el := c.byKey[key]
	if el == nil {
		return nil, false
	}
	c.used.MoveToFront(el)
	return el.Value.(*keptSession).state, true
}

// put keeps a session of so many bytes; nil takes away what there was.
func (c *sessionCache) put(key string, state *tls.ClientSessionState, bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if el := c.byKey[key]; el != nil {
		c.drop(el)
	}
	if state == nil {
		return
	}
	if c.byKey == nil {
		c.byKey = map[string]*list.Element{}
	}
	c.byKey[key] = c.used.PushFront(&keptSession{key, state, bytes})
	for c.bytes += bytes; c.bytes > maxSessionBytes; {
		c.drop(c.used.Back())
	}
}

func (c *sessionCache) drop(el *list.Element) {
	s := c.used.Remove(el).(*keptSession)
	delete(c.byKey, s.key)
	c.bytes -= s.bytes
}

// Sessions is how much the TLS sessions take that may be resumed.
func (c *Conns) Sessions() cache.Usage {
	s := &c.sessions
	s.mu.Lock()
	defer s.mu.Unlock()
	return cache.Usage{Entries: len(s.byKey), Bytes: int64(s.bytes), MaxBytes: maxSessionBytes}
}

// scopedSessions are the sessions of one host under one verdict: what was set
// up under another is not even offered. It is the tls.ClientSessionCache of one
// connection.
type scopedSessions struct {
	cache     *sessionCache
	prefix    string
	handshake *int // of the connection's handshake
}

// Get implements tls.ClientSessionCache.
func (s scopedSessions) Get(key string) (*tls.ClientSessionState, bool) {
	return s.cache.get(s.prefix + key)
}

// Put implements tls.ClientSessionCache.
func (s scopedSessions) Put(key string, state *tls.ClientSessionState) {
	bytes := sessionSize + len(s.prefix) + len(key) + *s.handshake
	if state != nil {
		ticket, _, err := state.ResumptionState()
		if bytes += len(ticket); err != nil || bytes > sessionSize+maxHandshake {
			state = nil
		}
	}
	s.cache.put(s.prefix+key, state, bytes)
}
