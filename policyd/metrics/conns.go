package metrics

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// maxConnections bounds the connections of one socket that are open at once.
const maxConnections = 64

// conns are the connections of one socket. Any local user may open one; when
// there are too many, the one goes that has been without a request for longest,
// and if each has one, that whose answer has not been read for longest: a
// scraper always comes in, and nobody takes the daemon's descriptors.
type conns struct {
	mu   sync.Mutex
	open map[net.Conn]*conn
}

// conn is an open connection.
type conn struct {
	// of its last request, its last answer, or its beginning
	since time.Time
	busy  bool // a request is being answered
}

type connKey struct{}

// changed is for http.Server.ConnState.
func (cs *conns) changed(c net.Conn, state http.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch state {
	case http.StateNew:
		if len(cs.open) >= maxConnections {
			cs.evict()
		}
		cs.open[c] = &conn{since: time.Now()}
	case http.StateClosed, http.StateHijacked:
		delete(cs.open, c)
	}
}

// evict closes the connection that is missed least. The caller has mu, and
// knows that there is one.
func (cs *conns) evict() {
	var least net.Conn
	for c, one := range cs.open {
		if least == nil || one.before(cs.open[least]) {
			least = c
		}
	}
	delete(cs.open, least)
	least.Close()
}

// before reports whether a connection goes before another one does.
func (c *conn) before(other *conn) bool {
	if c.busy != other.busy {
		return other.busy
	}
	return c.since.Before(other.since)
}

// named is for http.Server.ConnContext.
func (cs *conns) named(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c)
}

// answering notes which connections a handler is busy with.
func (cs *conns) answering(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, _ := r.Context().Value(connKey{}).(net.Conn)
		cs.mark(c, true)
		defer cs.mark(c, false)
		h.ServeHTTP(w, r)
	})
}

func (cs *conns) mark(c net.Conn, busy bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if one := cs.open[c]; one != nil {
		one.busy, one.since = busy, time.Now()
	}
}
