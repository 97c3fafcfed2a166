package session

import (
	"context"
	"net/netip"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Idle keeps the idle connections of transports. Stop it before the transports
// are closed, so that the goodbyes are waited for.
type Idle struct {
	pool *pool.Pool[*persistConn]
}

// NewIdle makes a pool of at most total idle connections.
func NewIdle(total int) *Idle { return &Idle{pool.New[*persistConn](total)} }

// Stop closes all idle connections; no more are kept.
func (i *Idle) Stop() { i.pool.Stop() }

// Stats gives the pool's counters.
func (i *Idle) Stats() pool.Stats { return i.pool.Stats() }

// IdleConn is an idle connection, to look at.
type IdleConn struct {
	Host  string
	Addr  netip.Addr
	Proof verdict.Proof
	Stale bool // the server has closed it, or spoke unasked
}

// Retire closes the idle connections that match, and gives their number.
func (i *Idle) Retire(match func(IdleConn) bool) int {
	return i.pool.Retire(func(key pool.Key, c *persistConn) bool {
		return match(IdleConn{Host: key.Host, Addr: c.addr, Proof: c.proof, Stale: c.session.Stale()})
	})
}

// persistConn is what lasts of a connection from one message to the next: the
// session, and what it proved.
type persistConn struct {
	session *smtp.Session
	addr    netip.Addr
	local   netip.Addr
	// the source that it was made from, and what EHLO said
	source, hostname string
	proof            verdict.Proof
	// tlsRequiredNo: it was opened for a message with "TLS-Required: No", and
	// serves only such.
	tlsRequiredNo bool
	served        int // messages
	// what is kept of the server's part in the handshake, in bytes
	handshake int
	conns     *Conns
}

// Served is the number of messages sent over the connection.
func (c *persistConn) Served() int { return c.served }

// Close says goodbye in the background.
func (c *persistConn) Close() { c.conns.quitLater(c.session) }

// fits says whether an idle connection may carry a message: it leads to an
// address that the host has now, and is judged by the verdict of the day, as a
// new one would be.
func (c *persistConn) fits(h *plan.Host, tlsRequiredNo bool) pool.Fit {
	v := &h.Verdict
	listed := slices.Contains(h.Addresses.Addrs, c.addr)
	switch {
	case !listed && h.Addresses.Partial != nil:
		return pool.Skip // it may be listed where the look-up failed
	case !listed:
		return pool.Moved
	case c.tlsRequiredNo && !tlsRequiredNo:
		return pool.Skip
	case !c.tlsRequiredNo && !tlsRequiredNo && c.proof.TLSA != v.TLSA.Fingerprint():
		// the host's records have changed, came or went since
		return pool.Retire
	case c.session.Stale():
		return pool.Gone
	case v.Judge(&c.proof) != nil, v.JudgeExtension(c.session.Extensions().RequireTLS) != nil:
		return pool.Skip
	}
	return pool.Use
}

// poolKey is what the idle connections to a host are kept by, that were made
// from a source by its name, and with a name in EHLO.
func (d *Dialer) poolKey(h *plan.Host, source, hostname string) pool.Key {
	return pool.Key{Transport: d.cfg.Name, Host: h.Host.Name, Port: h.Port, User: d.cfg.Relay.user(), Source: source, Hostname: hostname, Proxy: d.proxyName()}
}

// proxyName names what connections go through; empty: nothing.
func (d *Dialer) proxyName() string {
	if d.cfg.Proxy == nil {
		return ""
	}
	return d.cfg.Proxy.String()
}

// IdleCount is how many idle connections there are to a host from a source.
func (d *Dialer) IdleCount(h *plan.Host, from *source.Choice) int {
	if d.conns.idle == nil {
		return 0
	}
	return d.conns.idle.pool.Count(d.poolKey(h, from.From(), d.hostname(from)))
}

// Idle gives an idle connection that the host's verdict is satisfied with; nil
// without an error: there is none.
func (d *Dialer) Idle(ctx context.Context, r *Request) (*Conn, *status.Error) {
	c := d.getIdle(r)
	if c == nil {
		return nil, nil
	}
	start := time.Now()
	permit, err := d.acquireAddr(ctx, c.addr, d.localKey(r.Source, c.local, netip.AddrPort{}))
	Spend(&r.Record.Wait, start)
	if err != nil {
		c.putIdle()
		return nil, hostError(ctx, r.Host, outcome.Connect, err)
	}
	c.permit = permit
	c.record(r.Record, nil)
	return c, nil
}

// getIdle takes an idle connection that the verdict is satisfied with; nil:
// there is none.
func (d *Dialer) getIdle(r *Request) *Conn {
	if d.conns.idle == nil || d.cfg.ReuseLimit == 0 {
		return nil
	}
	p, ok := d.conns.idle.pool.Get(d.poolKey(r.Host, r.Source.From(), d.hostname(r.Source)), func(p *persistConn) pool.Fit {
		if slices.Contains(r.Avoid, p.addr) {
			return pool.Skip
		}
		fit := p.fits(r.Host, r.TLSRequiredNo)
		r.OutOfStep = r.OutOfStep || fit == pool.Gone && p.session.OutOfStep()
		return fit
	})
	if !ok {
		return nil
	}
	c := &Conn{Host: r.Host, Reused: true, dialer: d, destination: r.Destination, persistConn: p}
	p.session.Trace(d.trace(r, p.addr))
	c.TestingFailure = r.Host.Verdict.TestingFailure(&p.proof)
	return c
}

// putIdle gives a connection back for other messages.
func (c *Conn) putIdle() {
	d := c.dialer
	if d.conns.idle == nil || c.handshake > maxHandshake || c.TLSErr != nil {
		// One that fell back to plaintext would have more messages go that way
		// than need to.
		c.persistConn.Close()
		return
	}
	if !d.cfg.Debug {
		c.session.Trace(nil) // its end concerns no message
	}
	d.conns.idle.pool.Put(d.poolKey(c.Host, c.source, c.hostname), c.destination, c.persistConn, pool.Limits{
		IdleCount: d.cfg.IdleCount, IdleTime: d.cfg.IdleTime, Uses: d.cfg.ReuseLimit,
	})
}
