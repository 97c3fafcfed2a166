package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/smtp"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// maxGreetings bounds how many addresses of one host are tried that accept a
// connection but do not come as far as a mail transaction.
const maxGreetings = 5

// hostConn is a session that may carry the message: greeted, and judged.
type hostConn struct {
	host *plan.Host
	*link
	place   *limit.Permit     // at the address, for as long as a delivery has the connection
	pass    *deadhost.Attempt // of a new connection
	reused  bool              // it served a message before this delivery had it
	chunked bool              // the message went by BDAT
	tested  *verdict.Failure  // what a policy in testing mode has against it
	tlsErr  error             // why it is in the clear although the server offers STARTTLS
	attempt int               // its place among the delivery's attempts
}

// via says where the message went, and how safely: a status.Error's Via.
func (c *hostConn) via() string {
	via := c.addr.String()
	switch {
	case c.proof.TLS == 0 && c.reused:
		return via + ", plaintext, reused"
	case c.proof.TLS == 0:
		return via + ", plaintext"
	case c.proof.DANE != nil && c.host.Verdict.MX < verdict.MXDNSSEC:
		// Never to be read as secure delivery to the domain (RFC 7672 §2.2.1).
		via += ", dane for an unsigned MX"
	case c.proof.DANE != nil:
		via += ", dane"
	case c.host.Verdict.Need == verdict.NeedWebPKI:
		via += ", mtasts"
	case c.proof.WebPKI != "":
		via += ", webpki"
	default:
		via += ", encrypted"
	}
	via += ", " + tlsVersion(c.proof.TLS)
	if c.reused {
		via += ", reused"
	}
	return via
}

// tlsVersion names a TLS version without a blank, for texts and logs.
func tlsVersion(v uint16) string { return strings.ReplaceAll(tls.VersionName(v), " ", "") }

// connect opens a session with a host: its addresses are raced, and when one
// does not come as far as a transaction the ones left are tried. A host that
// was found dead lately is not even tried. The error is the most temporary of
// the addresses' reasons.
func (d *delivery) connect(ctx context.Context, p *plan.Host, budget time.Duration) (*hostConn, *status.Error) {
	start := time.Now()
	pass, err := d.dead.Begin(ctx, d.deadKey(p))
	d.spent(PhaseConnect, start)
	if err != nil {
		var dead *deadhost.Dead
		if errors.As(err, &dead) {
			dead.Host = "the host" // the reason names it, and our key for it is for nobody to read
		}
		return nil, d.reason(ctx, p, outcome.Connect, err)
	}
	defer pass.Abandoned()
	c, reasons := d.reach(ctx, p, &pass, budget)
	if c != nil {
		return c, nil
	}
	failed := outcome.MostTemporary(reasons)
	if ctx.Err() == nil {
		said := *failed
		said.Host = ""     // as above
		pass.Failed(&said) // unless it greeted, which was said already
	}
	return nil, failed
}

// deadKey is what a host is remembered by when it cannot be reached.
func (p *profile) deadKey(h *plan.Host) string {
	return p.id + " " + h.Host.Name + ":" + strconv.Itoa(int(h.Port))
}

// reach tries the addresses of a host until one of them comes as far as a
// transaction, and gives the reasons of those that did not.
func (d *delivery) reach(ctx context.Context, p *plan.Host, pass *deadhost.Attempt, budget time.Duration) (*hostConn, []*status.Error) {
	var reasons []*status.Error
	left := p.Addresses.Addrs
	for len(left) > 0 && len(reasons) < maxGreetings {
		start := time.Now()
		conn, addr, err := d.dial(ctx, left, p.Port, budget)
		budget -= time.Since(start)
		if err != nil {
			reasons = append(reasons, d.reason(ctx, p, outcome.Connect, err))
			if errors.Is(err, limit.ErrBusy) {
				pass.Abandoned() // it was us who did not try
			}
			break
		}
		c := &hostConn{host: p, link: &link{addr: addr, local: near(conn), lifted: d.demands.TLSRequiredNo, owner: d.Transport}, place: conn.place, pass: pass}
		if err = d.open(ctx, c, conn, budget); err == nil {
			c.tested = c.host.Verdict.TestingFailure(&c.proof)
			d.judged(c, nil)
			return c, reasons
		}
		var failed *verdict.Failure
		if errors.As(err, &failed) {
			d.judged(c, failed)
		}
		c.place.Release()
		reason := d.reason(ctx, p, outcome.Greeting, err)
		reason.Via = addr.String()
		reasons = append(reasons, reason)
		if ctx.Err() != nil {
			break
		}
		left = slices.DeleteFunc(slices.Clone(left), func(a netip.Addr) bool { return a == addr })
	}
	return nil, reasons
}

// take acquires a place at one remote address.
func (d *delivery) take(ctx context.Context, addr netip.Addr) (*limit.Permit, error) {
	place := d.limits.Permit()
	err := place.Acquire(ctx, limit.Want{Scope: limit.IP, Key: addr.String()})
	return &place, err
}

// limitedConn is a TCP connection with the place at the remote address that it
// holds. Whoever closes it gives the place back.
type limitedConn struct {
	net.Conn
	place *limit.Permit
}

// Close implements net.Conn.
func (p *limitedConn) Close() error {
	defer p.place.Release()
	return p.Conn.Close()
}

// dial connects to one of the addresses within the budget, and to none that
// there is no place at.
func (d *delivery) dial(ctx context.Context, addrs []netip.Addr, port uint16, budget time.Duration) (*limitedConn, netip.Addr, error) {
	defer d.spent(PhaseConnect, time.Now())
	ctx, cancel := context.WithTimeout(ctx, budget)
	defer cancel()
	dialer := *d.dialer
	dialer.Connect = func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
		place, err := d.take(ctx, remote.Addr())
		if err != nil {
			return nil, err
		}
		conn, err := dial.TCP(ctx, local, remote)
		if err != nil {
			place.Release()
			return nil, err
		}
		return &limitedConn{count(conn.(*net.TCPConn), &d.connections), place}, nil
	}
	conn, addr, err := dialer.Dial(ctx, addrs, port)
	if err != nil {
		return nil, addr, err
	}
	d.opened.Add(1)
	return conn.(*limitedConn), addr, nil
}

// near gives this host's address of a connection.
func near(conn net.Conn) netip.Addr {
	if addr, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

// open greets the server, starts TLS and has the connection judged. Where the
// verdict allows plaintext and the handshake fails, the message goes in the
// clear over a second connection (opportunistic TLS, RFC 7435): no attacker
// gains what stripping STARTTLS would not have given him.
func (d *delivery) open(ctx context.Context, c *hostConn, conn *limitedConn, budget time.Duration) error {
	if err := d.greet(ctx, c, conn.Conn); err != nil {
		return err
	}
	err := d.secure(ctx, c)
	if err == nil {
		return nil
	}
	var at *smtp.Error
	if !c.host.Verdict.Plaintext() || ctx.Err() != nil || !errors.As(err, &at) || errors.Is(err, smtp.ErrInjection) {
		c.session.Close()
		return err
	}
	d.watch.noTLS(at)
	decision := decideSession(at)
	c.tlsErr = at
	if decision.TLSFailed && decision.Conn == outcome.Keep {
		return nil // refused by a reply: the connection is as it was
	}
	c.session.Close()
	if !decision.TLSFailed {
		return err
	}
	c.proof = verdict.Proof{}
	c.place.Release()
	if conn, _, err = d.dial(ctx, []netip.Addr{c.addr}, c.host.Port, budget); err != nil {
		return err
	}
	c.place = conn.place
	return d.greet(ctx, c, conn.Conn)
}

// greet opens the session. On error the connection is closed.
func (d *delivery) greet(ctx context.Context, c *hostConn, conn net.Conn) (err error) {
	defer d.spent(PhaseGreeting, time.Now())
	cfg := smtp.Config{
		Hostname:          d.cfg.Hostname,
		CommandTimeout:    d.cfg.CommandTimeout,
		SubmissionTimeout: d.cfg.SubmissionTimeout,
		Buffers:           &d.buffers,
	}
	cfg.Trace = d.trace(c)
	c.session, err = smtp.Open(ctx, conn, cfg)
	var at *smtp.Error
	if err == nil || errors.As(err, &at) && at.Err == nil {
		c.pass.Succeeded()
	}
	if err != nil {
		return err
	}
	if err = c.session.Hello(ctx); err != nil {
		c.session.Close()
	}
	return err
}

// secure starts TLS if the server offers it, and has what it showed judged by
// the verdict. A *verdict.Failure says that the host may not have the message.
func (d *delivery) secure(ctx context.Context, c *hostConn) error {
	v := &c.host.Verdict
	if c.session.Extensions().StartTLS {
		start := time.Now()
		err := c.session.StartTLS(ctx, d.watch.over(d.tls.config(v, &c.proof)))
		d.spent(PhaseTLS, start)
		var failed *verdict.Failure
		switch {
		case err == nil:
		case errors.As(err, &failed):
			return failed
		case v.Plaintext() || ctx.Err() != nil || c.session.TLS() != nil:
			return err
		default:
			return v.NoTLS(err)
		}
	}
	if failed := v.Judge(&c.proof); failed != nil {
		return failed
	}
	if failed := v.JudgeExtension(c.session.Extensions().RequireTLS); failed != nil {
		return failed
	}
	return nil
}

// decideSession says what a failure before the transaction means.
func decideSession(err *smtp.Error) outcome.Decision {
	if err.Err != nil {
		return outcome.ForError(err.Stage, err.Err, 0)
	}
	return outcome.ForReply(err.Stage, err.Reply, 0)
}

// reason makes a host's reason out of an error; stage is where it happened,
// unless the error itself knows better.
func (d *delivery) reason(ctx context.Context, p *plan.Host, stage outcome.Stage, err error) *status.Error {
	var at *smtp.Error
	var failed *verdict.Failure
	switch {
	case errors.Is(err, limit.ErrBusy):
		return &status.Error{Code: status.New(status.Temporary, 4, 5), Host: p.Host.Name, Err: err}
	case errors.As(err, &failed):
		return &status.Error{Code: failed.Code, Host: p.Host.Name, Text: failed.Text}
	case errors.As(err, &at) && at.Err == nil:
		code := decideSession(at).Code
		if !p.Verdict.Plaintext() && at.Stage < outcome.EHLOAfterTLS {
			// Nobody has proven yet that he speaks for the host. A stranger's
			// word must not bounce what may not even be shown to him.
			code.Class = status.Temporary
		}
		return &status.Error{Code: code, Host: p.Host.Name, Text: at.Reply.Text()}
	case errors.As(err, &at):
		return &status.Error{Code: decideSession(at).Code, Host: p.Host.Name, Err: at}
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	}
	return &status.Error{Code: outcome.ForError(stage, err, 0).Code, Host: p.Host.Name, Err: err}
}
