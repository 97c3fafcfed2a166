package session

import (
	"cmp"
	"context"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/smtp"
)

// goodbyeTimeout is how long the replies to RSET and QUIT may take.
const goodbyeTimeout = 10 * time.Second

// Conns are the connections of one transport, which the Dialers of its
// overrides share. They are safe for concurrent use.
type Conns struct {
	Dead   *deadhost.Hosts   // the hosts that cannot be reached
	Hellos *handshake.Memory // the hosts that need a plainer TLS hello
	// the addresses that worked where others did not, by the key of Dead
	History *dial.History
	// Delay is the time between attempts to reach two of a host's addresses; 0:
	// that of package dial. It is not changed while a Dialer is in use.
	Delay time.Duration

	ctx      context.Context // ends with the transport
	idle     *Idle           // nil: no connection is used twice
	buffers  smtp.Buffers
	sessions sessionCache
	open     atomic.Int64
	opened   atomic.Uint64
	closing  sync.WaitGroup // connections saying goodbye
}

// NewConns makes the Conns of a transport. What goes on in the background ends
// with ctx.
func NewConns(ctx context.Context, idle *Idle) *Conns {
	return &Conns{
		ctx: ctx, idle: idle,
		Dead: deadhost.New(deadhost.Options{}), Hellos: handshake.NewMemory(time.Now), History: dial.NewHistory(nil),
	}
}

// Stats are counts since the Conns were made, and of now.
type Stats struct {
	Open   int        // connections that are open now, idle ones included
	Opened uint64     // connections made
	Dead   int        // hosts that cannot be reached now
	Pool   pool.Stats // of the idle connections
}

// Stats gives the counters.
func (c *Conns) Stats() Stats {
	s := Stats{Open: int(c.open.Load()), Opened: c.opened.Load(), Dead: c.Dead.Dead()}
	if c.idle != nil {
		s.Pool = c.idle.Stats()
	}
	return s
}

// DeadHosts lists the hosts that cannot be reached. Their Host is "host:port".
func (c *Conns) DeadHosts() []deadhost.Dead {
	list := c.Dead.List()
	for i := range list {
		list[i].Host = list[i].Host[strings.LastIndexByte(list[i].Host, ' ')+1:]
	}
	return list
}

// IdleHost is how many idle connections there are to one host.
type IdleHost struct {
	Host  string
	Port  uint16
	Count int
}

// IdleHosts counts the idle connections by host, the most first.
func (c *Conns) IdleHosts() []IdleHost {
	if c.idle == nil {
		return nil
	}
	byHost := map[IdleHost]int{}
	for key, n := range c.idle.pool.Held() {
		byHost[IdleHost{Host: key.Host, Port: key.Port}] += n
	}
	var list []IdleHost
	for h, n := range byHost {
		h.Count = n
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b IdleHost) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Host, b.Host), cmp.Compare(a.Port, b.Port))
	})
	return list
}

// Retire closes the idle connections to a host.
func (c *Conns) Retire(host string) {
	if c.idle != nil {
		c.idle.pool.Retire(func(key pool.Key, _ *persistConn) bool { return key.Host == host })
	}
}

// Wait waits until every connection has said goodbye. No Dialer may be in use.
func (c *Conns) Wait() { c.closing.Wait() }

// quitLater says goodbye over a session, without anybody waiting for it.
func (c *Conns) quitLater(s *smtp.Session) { c.background(s.Quit) }

// background runs what no delivery has to wait for.
func (c *Conns) background(f func(ctx context.Context)) {
	c.closing.Go(func() {
		ctx, cancel := context.WithTimeout(c.ctx, goodbyeTimeout)
		defer cancel()
		f(ctx)
	})
}

// counted is a TCP connection that is counted until it is closed.
type counted struct {
	*net.TCPConn // with all that it can do beside net.Conn
	open         *atomic.Int64
	closed       atomic.Bool
}

func count(conn *net.TCPConn, open *atomic.Int64) *counted {
	open.Add(1)
	return &counted{TCPConn: conn, open: open}
}

// Close implements net.Conn.
func (c *counted) Close() error {
	if c.closed.CompareAndSwap(false, true) {
		c.open.Add(-1)
	}
	return c.TCPConn.Close()
}
