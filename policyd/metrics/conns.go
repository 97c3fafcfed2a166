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
// so that a scraper always comes in, and none takes the daemon's
// descriptors.
type conns struct {
	mu   sync.Mutex
	open map[net.Conn]*conn
}

// conn is an open connection.
type conn struct {
	since time.Time // of its last request, or of its beginning
	busy  bool      // a request is being answered
}

type connKey struct{}

// changed is for http.Server.ConnState.
func (cs *conns) changed(c net.Conn, state http.ConnState) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch state {
	case http.StateNew:
		if len(cs.open) >= maxConnections && !cs.evict() {
			c.Close() // all others are being answered
		}
		cs.open[c] = &conn{since: time.Now()}
	case http.StateClosed, http.StateHijacked:
		delete(cs.open, c)
	}
}

// evict closes the connection that has been without a request for longest. The
// caller has mu.
func (cs *conns) evict() bool {
	var oldest net.Conn
	for c, one := range cs.open {
		if !one.busy && (oldest == nil || one.since.Before(cs.open[oldest].since)) {
			oldest = c
		}
	}
	if oldest == nil {
		return false
	}
	delete(cs.open, oldest)
	oldest.Close()
	return true
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
