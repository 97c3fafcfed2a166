package session

import (
	"context"
	"crypto/tls"
	"net/netip"
	"strings"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Conn is a connection that may carry the message it was asked for: greeted,
// and judged. It belongs to one goroutine at a time, and is ended by exactly
// one of Put, PutAfterReset, Quit and Close, which give back the place at the
// remote address; what its fields and Addr, Local, Proof and Via tell can be
// read also after that.
type Conn struct {
	Host   *plan.Host
	Reused bool // it served a message before
	// what a policy in testing mode has against it
	TestingFailure *verdict.Failure
	// why it is in the clear although the server offers STARTTLS
	TLSErr  error
	Attempt int // its place in the Record

	dialer      *Dialer
	destination string        // that it is counted under when it is idle
	permit      *limit.Permit // at the address
	via         string        // once it is asked for
	*persistConn
}

// Addr is the remote address.
func (c *Conn) Addr() netip.Addr { return c.addr }

// Local is our own address; not valid where the connection has none.
func (c *Conn) Local() netip.Addr { return c.local }

// Source names the source that it was made from; empty: there is no pool.
func (c *Conn) Source() string { return c.source }

// Relay names the relay that the connection leads to, host:port; empty: none.
func (c *Conn) Relay() string { return c.dialer.cfg.Relay.Name }

// Proof is what the server proved.
func (c *Conn) Proof() *verdict.Proof { return &c.proof }

// Extensions are those of the last EHLO reply.
func (c *Conn) Extensions() smtp.Extensions { return c.session.Extensions() }

// Send runs one transaction.
func (c *Conn) Send(ctx context.Context, tx *smtp.Transaction) *smtp.Report {
	c.served++
	return c.session.Send(ctx, tx)
}

// Reset ends a failed transaction, so that another can follow.
func (c *Conn) Reset(ctx context.Context) error { return c.session.Reset(ctx) }

// Spent reports whether the connection has carried as many messages as it may.
func (c *Conn) Spent() bool { return c.served >= c.dialer.cfg.ReuseLimit }

// Put gives the connection back for other messages.
func (c *Conn) Put() {
	c.putIdle()
	c.permit.Release()
}

// PutAfterReset gives the connection back after a failed transaction, when it
// has been reset; nothing waits for that.
func (c *Conn) PutAfterReset() {
	c.conns.background(func(ctx context.Context) {
		if c.session.Reset(ctx) == nil {
			c.putIdle()
		} else {
			c.session.Close()
		}
	})
	c.permit.Release()
}

// Quit says goodbye and closes the connection; nothing waits for that.
func (c *Conn) Quit() {
	c.persistConn.Close()
	c.permit.Release()
}

// Close closes the connection without a word.
func (c *Conn) Close() {
	c.session.Close()
	c.permit.Release()
}

// record notes a connection that was judged: one that carries the message, or
// one that failed a policy.
func (c *Conn) record(r *Record, failed *verdict.Failure) {
	c.Attempt = r.Add(Attempt{
		Facts: &c.Host.Facts, Verdict: &c.Host.Verdict,
		Addr: c.addr, Local: c.local, HELO: c.serverName(), Proof: c.proof,
		Failure: failed, TestingFailure: c.TestingFailure, TLSErr: c.TLSErr, Reused: c.Reused,
	})
}

// serverName is what the server called itself by.
func (c *Conn) serverName() string {
	if c.session == nil {
		return ""
	}
	return c.session.Name()
}

// Via says where the message went, and how safely: a status.Error's Via.
func (c *Conn) Via() string {
	if c.via == "" {
		c.via = c.describe()
	}
	return c.via
}

func (c *Conn) describe() string {
	via := c.addr.String()
	if c.dialer.cfg.Relay.Fallback {
		via += ", via relay " + c.Host.Host.Name
	}
	switch {
	case c.proof.TLS == 0 && c.Reused:
		return via + ", plaintext, reused"
	case c.proof.TLS == 0:
		return via + ", plaintext"
	case c.proof.Weak():
		via += ", weak TLS"
	case c.proof.DANE != nil && c.Host.Verdict.MX < verdict.MXDNSSEC:
		// Never to be read as secure delivery to the domain (RFC 7672 §2.2.1).
		via += ", dane for an unsigned MX"
	case c.proof.DANE != nil:
		via += ", dane"
	case c.Host.Verdict.Need == verdict.NeedWebPKI:
		via += ", mtasts"
	case c.proof.WebPKI != "":
		via += ", webpki"
	case c.proof.Pin != pin.Pin{}:
		via += ", pin"
	default:
		via += ", encrypted"
	}
	via += ", " + tlsVersion(c.proof.TLS)
	if c.Reused {
		via += ", reused"
	}
	return via
}

// tlsVersion names a TLS version without a blank, for texts and logs.
func tlsVersion(v uint16) string { return strings.ReplaceAll(tls.VersionName(v), " ", "") }
