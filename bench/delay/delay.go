// Package delay puts distance between a client and a server on loopback. A
// [Proxy] passes on what both say, each byte a fixed time after it came, so
// that round trips show as time; and it counts the round trips, so that they
// show without a clock.
//
// A round trip is counted by what depends on what: whatever the server says
// came one trip after the latest thing of the client's that it had by then,
// and whatever the client says belongs to the trip of the latest thing of the
// server's that it had by then. Connecting to the server is no trip of its
// own, its greeting is one. TCP's own handshake is made by the kernel, which
// does not know of the distance: on a real line it is one more.
//
// Without a distance the count is exact as long as no side speaks without
// being asked, as TLS 1.3 servers do that send session tickets; with one, as
// long as both sides answer much sooner than the distance takes.
package delay

import (
	"context"
	"net"
	"sync"
	"time"
)

// inFlight is how many chunks are under way in one direction at most.
const inFlight = 1024

// Proxy is a line to one server. Its methods may be called from any goroutine.
type Proxy struct {
	server   string
	oneWay   time.Duration
	listener net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	mu    sync.Mutex
	trips int
	conns int
}

// Start listens at addr ("127.0.0.1:0" for a port of its own choice) for
// connections to server. What is said takes oneWay to arrive.
func Start(addr, server string, oneWay time.Duration) (*Proxy, error) {
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &Proxy{server: server, oneWay: oneWay, listener: listener}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	p.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			p.wg.Go(func() { p.serve(conn) })
		}
	})
	return p, nil
}

// Addr is host:port of the near end.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Stop closes all connections and waits for every goroutine.
func (p *Proxy) Stop() {
	p.cancel()
	p.listener.Close()
	p.wg.Wait()
}

// Trips is the number of round trips on all connections so far.
func (p *Proxy) Trips() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.trips
}

// connections is the number of connections so far.
func (p *Proxy) connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.conns
}

// line is one connection: how many trips have arrived at either end.
type line struct {
	*Proxy
	atClient, atServer int // under Proxy.mu
}

func (p *Proxy) serve(client net.Conn) {
	defer client.Close()
	p.mu.Lock()
	p.conns++
	p.mu.Unlock()
	// The server learns of the connection when the client's last word of the
	// TCP handshake arrives.
	if !p.wait(time.Now()) {
		return
	}
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	defer context.AfterFunc(p.ctx, func() {
		client.Close()
		server.Close()
	})()
	l := &line{Proxy: p}
	var both sync.WaitGroup
	both.Go(func() { l.pass(server, client, l.leaveClient, l.reachServer) })
	both.Go(func() { l.pass(client, server, l.leaveServer, l.reachClient) })
	both.Wait()
}

// chunk is something said.
type chunk struct {
	bytes []byte
	said  time.Time
	trip  int
}

// pass carries one direction.
func (l *line) pass(to, from net.Conn, leave func() int, reach func(trip int)) {
	under := make(chan chunk, inFlight)
	var reader sync.WaitGroup
	reader.Go(func() {
		defer close(under)
		for {
			buf := make([]byte, 32<<10)
			n, err := from.Read(buf)
			if n > 0 {
				under <- chunk{buf[:n], time.Now(), leave()}
			}
			if err != nil {
				return
			}
		}
	})
	for c := range under {
		l.wait(c.said)
		reach(c.trip)
		if _, err := to.Write(c.bytes); err != nil {
			from.Close() // ends the reader
		}
	}
	reader.Wait()
	l.wait(time.Now())
	if tcp, ok := to.(*net.TCPConn); ok {
		tcp.CloseWrite()
	}
}

// wait waits until what was said then arrives; false means that the proxy is
// being stopped.
func (p *Proxy) wait(said time.Time) bool {
	if p.oneWay > 0 {
		timer := time.NewTimer(time.Until(said.Add(p.oneWay)))
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-p.ctx.Done():
		}
	}
	return p.ctx.Err() == nil
}

func (l *line) leaveClient() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.atClient
}

func (l *line) reachServer(trip int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.atServer = max(l.atServer, trip)
}

func (l *line) leaveServer() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.atServer + 1
}

func (l *line) reachClient(trip int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if trip > l.atClient {
		l.trips += trip - l.atClient
		l.atClient = trip
	}
}
