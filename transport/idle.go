package transport

import (
	"net/netip"

	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/pool"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Idle keeps the idle connections of transports. Stop it before the transports
// are closed, so that the goodbyes are waited for.
type Idle struct {
	*pool.Pool[*link]
}

// NewIdle makes a pool of at most total idle connections.
func NewIdle(total int) *Idle { return &Idle{pool.New[*link](total)} }

// retire parts with a host's idle connections.
func (i *Idle) retire(host string) {
	if i != nil {
		i.Retire(func(key pool.Key, _ *link) bool { return key.Host == host })
	}
}

// link is what lasts of a connection from one message to the next: the
// session, and what it proved.
type link struct {
	session *smtp.Session
	addr    netip.Addr
	local   netip.Addr
	proof   verdict.Proof
	// lifted: it was opened for a message with "TLS-Required: No", and serves
	// only such.
	lifted bool
	served int // messages
	owner  *Transport
}

// Served is the number of messages sent over the connection.
func (l *link) Served() int { return l.served }

// Close says goodbye in the background.
func (l *link) Close() { l.owner.later(l.session) }

// fits says whether an idle connection may carry a message: it is judged by
// the verdict of the day, as a new one would be.
func (l *link) fits(v *verdict.Verdict, demands verdict.Demands) pool.Fit {
	switch {
	case l.lifted && !demands.TLSRequiredNo:
		return pool.Skip
	case !l.lifted && !demands.TLSRequiredNo && l.proof.TLSA != v.TLSA.Fingerprint():
		return pool.Retire // the host's records have changed, came or went since
	case l.session.Stale():
		return pool.Gone
	case v.Judge(&l.proof) != nil, v.JudgeExtension(l.session.Extensions().RequireTLS) != nil:
		return pool.Skip
	}
	return pool.Use
}

// poolKey is what the idle connections to a host are kept by.
func (p *profile) poolKey(h *plan.Host) pool.Key {
	return pool.Key{Transport: p.id, Host: h.Host.Name, Port: h.Port}
}

// reuse takes an idle connection that the verdict is satisfied with.
func (d *delivery) reuse(p *plan.Host) (*hostConn, bool) {
	if d.idle == nil || d.cfg.ConnReuseLimit == 0 {
		return nil, false
	}
	l, ok := d.idle.Get(d.poolKey(p), func(l *link) pool.Fit { return l.fits(&p.Verdict, d.demands) })
	if !ok {
		return nil, false
	}
	c := &hostConn{host: p, link: l, reused: true}
	l.session.Trace(d.trace(c))
	c.tested = c.host.Verdict.TestingFailure(&c.proof)
	return c, true
}

// keep gives a connection back for other messages.
func (d *delivery) keep(c *hostConn) {
	if d.idle == nil {
		c.link.Close()
		return
	}
	if d.traced && !d.cfg.Debug {
		c.session.Trace(nil) // its end is nobody's matter
	}
	d.idle.Put(d.poolKey(c.host), d.target.String(), c.link, pool.Limits{
		IdleCount: d.cfg.ConnMaxIdleCount, IdleTime: d.cfg.ConnMaxIdleTime, Uses: d.cfg.ConnReuseLimit,
	})
}
