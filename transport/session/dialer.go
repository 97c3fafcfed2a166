// Package session gets a connection to one host that may carry a message: an
// idle one that fits, or a new one, which is dialled, greeted and judged.
//
// [Dialer.Idle] takes from the pool what the verdict is satisfied with (package
// pool). [Dialer.Connect] makes a new connection, unless the host was found
// dead lately (package deadhost): its addresses are raced (package dial);
// greeting, EHLO and STARTTLS follow (package smtp), and what the server proves
// is judged by the verdict while the handshake lasts. When one address does
// not come as far as a transaction the others are tried. [Dialer.Probe] does
// the same for somebody who only wants to look, and ends before MAIL.
//
// Where the verdict allows plaintext and the handshake fails, the message goes
// in the clear over a second connection (opportunistic TLS, RFC 7435): no
// attacker gains what stripping STARTTLS would not have given.
//
// Package session knows what [plan.Host] says of a host, and limits by address;
// it knows no recipients, no results and no overrides.
package session

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"time"

	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/dial"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// maxGreetings bounds how many addresses of one host are tried that accept a
// connection but do not come as far as a mail transaction.
const maxGreetings = 5

// MaxAddrs is how many addresses of one host are asked to take a message that
// put it off, or end before they have it (RFC 5321 §5.1).
const MaxAddrs = 2

// Config is how one transport, or one of its overrides, connects.
type Config struct {
	// Name is that of the settings. A connection made under one name is used
	// under no other.
	Name     string
	Hostname string // for EHLO, of what has no name of its own
	// OwnNames are this host's. A server that calls itself by one is this
	// host.
	OwnNames []string
	// source addresses, at most one of each family
	LocalIPs          []netip.Addr
	Prefer            dial.Family // is dialled first
	ConnectTimeout    time.Duration
	CommandTimeout    time.Duration
	SubmissionTimeout time.Duration
	ReuseLimit        int // messages over one connection; 0: no reuse
	IdleCount         int // idle connections for one destination
	IdleTime          time.Duration
	Debug             bool // the dialogue is logged
	TLS               *TLS
	Limits            *limit.Limits
	// Proxy is what connections go through; nil: nothing.
	Proxy *proxy.Proxy
	// Relay is for a relay; the zero Relay is none.
	Relay Relay
}

// Dialer gets connections. It is safe for concurrent use.
type Dialer struct {
	cfg   Config
	conns *Conns
}

// New makes a Dialer.
func New(cfg Config, conns *Conns) *Dialer { return &Dialer{cfg, conns} }

// Request is what a connection is wanted for.
type Request struct {
	Host *plan.Host
	// the message has "TLS-Required: No", and it may be honoured
	TLSRequiredNo bool
	Destination   string // the idle connection is counted under it
	// Avoid are addresses to which no connection will do. Connect adds those
	// that did not come as far as a transaction.
	Avoid []netip.Addr
	// Source is what the connection is made from; nil: the Config's LocalIPs,
	// and its Hostname.
	Source *source.Choice
	// PutOff is how many addresses answered but did not have the message for
	// now; Connect counts them too, up to MaxAddrs.
	PutOff int
	// what is left of connect_timeout; Connect takes from it
	Budget time.Duration
	// OutOfStep: an idle connection was found over which the server had said
	// something unasked; Idle notes it.
	OutOfStep bool
	Log       *slog.Logger // for the dialogue
	Traced    bool         // the dialogue is logged, as with Config.Debug
	Record    *Record      // what is found is written there
}

// Reaches gives those of a host's addresses that can be reached from a source.
// Through a proxy that is not for the source to say.
func (d *Dialer) Reaches(from *source.Choice, addrs []netip.Addr) []netip.Addr {
	if d.cfg.Proxy != nil {
		return addrs
	}
	return from.Reaches(addrs)
}

// CheckProxy tries whether the proxy can be reached and takes requests from us;
// nil says that it does, or that there is none.
func (d *Dialer) CheckProxy(ctx context.Context) error {
	if d.cfg.Proxy == nil {
		return nil
	}
	return d.cfg.Proxy.Check(ctx, d.cfg.LocalIPs)
}

// Proxied reports whether connections go through a proxy.
func (d *Dialer) Proxied() bool { return d.cfg.Proxy != nil }

// hostname is what EHLO says over a connection from a source.
func (d *Dialer) hostname(from *source.Choice) string {
	if from == nil {
		return d.cfg.Hostname
	}
	return cmp.Or(from.Hostname, d.cfg.Hostname)
}

// localIPs are the addresses that a connection from a source is made from.
func (d *Dialer) localIPs(from *source.Choice) []netip.Addr {
	if from == nil {
		return d.cfg.LocalIPs
	}
	return from.IPs
}

// trace gives what logs the dialogue over a connection; nil: it is not logged.
// It keeps nothing of the request, which it may outlive in the pool.
func (d *Dialer) trace(r *Request, addr netip.Addr) func(who, line string) {
	if !d.cfg.Debug && !r.Traced {
		return nil
	}
	log := r.Log.With("host", r.Host.Host.Name, "address", addr.String())
	return func(who, line string) { log.Info("smtp", who, reply.Clean(line)) }
}

// Connect opens a session with a host: its addresses are raced, and when one
// does not come as far as a transaction the ones left are tried. A host that
// was found dead lately is not even tried. The error is the most temporary of
// the addresses' reasons.
func (d *Dialer) Connect(ctx context.Context, r *Request) (*Conn, *status.Error) {
	start := time.Now()
	defer func() { r.Budget -= time.Since(start) }()
	if held := d.LoginHeld(r.Host); held != nil {
		return nil, held
	}
	attempt, err := d.conns.Dead.Begin(ctx, d.deadKey(r.Host, r.Source))
	Spend(&r.Record.Connect, start)
	var dead *deadhost.Dead
	switch {
	case errors.As(err, &dead):
		return nil, DeadError(r.Host.Host.Name, dead)
	case err != nil:
		return nil, hostError(ctx, r.Host, outcome.Connect, err)
	}
	defer attempt.Abandoned()
	o := opening{Dialer: d, Request: r, attempt: &attempt, budget: r.Budget}
	c, reasons := o.tryAddresses(ctx)
	if c != nil {
		return c, nil
	}
	if len(reasons) == 0 {
		return nil, hostError(ctx, r.Host, outcome.Connect, dial.ErrNoAddress)
	}
	failed := outcome.MostTemporary(reasons)
	// Through a proxy nothing tells a host that is down from one that the proxy
	// has lost.
	if ctx.Err() == nil && d.cfg.Proxy == nil {
		said := *failed
		said.Host = ""        // which our key names
		attempt.Failed(&said) // unless it greeted, which was said already
	}
	return nil, failed
}

// deadKey is what a host is remembered by when it cannot be reached from a
// source. From another one it may be.
func (d *Dialer) deadKey(h *plan.Host, from *source.Choice) string {
	key := d.cfg.Name
	if from != nil {
		key += " from " + from.Name
	}
	return key + " " + h.Host.Name + ":" + strconv.Itoa(int(h.Port))
}

// DeadError is a host's reason where it is not even tried: the one for which it
// was found dead, and the moment.
func DeadError(host string, dead *deadhost.Dead) *status.Error {
	return &status.Error{
		Code: outcome.ForError(outcome.Connect, dead, 0).Code, Host: host,
		Text: cmp.Or(dead.Cause, "no answer to the attempt that is under way"), Moment: dead.Moment(), Unreached: true,
	}
}

// DeadState tells whether mail for a host from a source fails fast now; nil: it
// does not.
func (d *Dialer) DeadState(h *plan.Host, from *source.Choice) *deadhost.Dead {
	return d.conns.Dead.State(d.deadKey(h, from))
}

// Hello gives the hello with which TLS begins at a host.
func (d *Dialer) Hello(h *plan.Host) handshake.Step {
	floor := h.Verdict.Floor()
	return handshake.Order(d.cfg.TLS.hellos[floor], d.conns.Hellos.First(h.Host.Name, floor))[0].Step
}

// acquireAddr acquires a place at one remote address, and at one of our own.
func (d *Dialer) acquireAddr(ctx context.Context, addr netip.Addr, local string) (*limit.Permit, error) {
	permit := d.cfg.Limits.Permit()
	err := permit.Acquire(ctx, limit.Want{Scope: limit.IP, Key: addr.String()}, limit.Want{Scope: limit.SourceIP, Key: local})
	return &permit, err
}

// localKey is the address of ours that a connection will have, for the limit:
// local, or what the kernel will choose where that is not valid. Through a
// proxy a source goes by its name.
func (d *Dialer) localKey(from *source.Choice, local netip.Addr, remote netip.AddrPort) string {
	switch _, limited := d.cfg.Limits.KeyState(limit.SourceIP, ""); {
	case !limited:
		return ""
	case from != nil && d.cfg.Proxy != nil:
		return from.Name
	case local.IsValid():
		return local.String()
	}
	if local = dial.Leaves(remote); local.IsValid() {
		return local.String()
	}
	return ""
}

// opening is one try to open a session with a host.
type opening struct {
	*Dialer
	*Request
	attempt *deadhost.Attempt
	// what is to be seen of the connection; nil but for a probe
	probe  *Probe
	budget time.Duration // for TCP
	first  netip.Addr    // the address to begin with; not valid: any
}

// commandTimeout is how long a reply is waited for.
func (o *opening) commandTimeout() time.Duration {
	if o.probe != nil {
		return min(o.cfg.CommandTimeout, probeStep)
	}
	return o.cfg.CommandTimeout
}

// tryAddresses tries the addresses of a host until one of them comes as far as
// a transaction, and gives the reasons of those that did not.
func (o *opening) tryAddresses(ctx context.Context) (*Conn, []*status.Error) {
	var reasons []*status.Error
	left := slices.DeleteFunc(o.Reaches(o.Source, o.Host.Addrs()), func(a netip.Addr) bool { return slices.Contains(o.Avoid, a) })
	history, key := o.conns.History, o.deadKey(o.Host, o.Source)
	for _, a := range o.Avoid {
		history.Failed(key, a)
	}
	o.first = history.First(key)
	begin := dial.Order(left, o.cfg.Prefer, o.first)
	for len(left) > 0 && len(reasons) < maxGreetings && (len(reasons) == 0 || o.PutOff < MaxAddrs) {
		start := time.Now()
		conn, addr, err := o.dial(ctx, left)
		o.budget -= time.Since(start)
		if err != nil {
			reasons = append(reasons, hostError(ctx, o.Host, outcome.Connect, err))
			var failed *dial.Error
			if errors.Is(err, limit.ErrBusy) || errors.As(err, &failed) && failed.Local() {
				o.attempt.Abandoned() // it was us who did not try
			}
			break
		}
		c := &Conn{
			Host: o.Host, dialer: o.Dialer, destination: o.Destination, permit: conn.permit,
			persistConn: &persistConn{addr: addr, local: localAddr(conn), source: o.Source.From(), hostname: o.hostname(o.Source), tlsRequiredNo: o.TLSRequiredNo, conns: o.conns},
		}
		if err = o.open(ctx, c, conn); err == nil {
			err = o.login(ctx, c)
		}
		if err == nil {
			if addr != begin[0] || len(o.Avoid) > 0 {
				history.Worked(key, addr)
			}
			c.TestingFailure = c.Host.Verdict.TestingFailure(&c.proof)
			c.record(o.Record, nil)
			return c, reasons
		}
		var failed *verdict.Failure
		if errors.As(err, &failed) {
			c.record(o.Record, failed)
		}
		c.permit.Release()
		reason := hostError(ctx, o.Host, outcome.Greeting, err)
		reason.Via = addr.String()
		reasons = append(reasons, reason)
		if ctx.Err() != nil || reason.Code == codeLogin {
			break // another address would say the same, and count it
		}
		history.Failed(key, addr)
		o.Avoid = append(o.Avoid, addr)
		if failed == nil && reason.Code.Class == status.Temporary {
			o.PutOff++
		}
		left = slices.DeleteFunc(slices.Clone(left), func(a netip.Addr) bool { return a == addr })
	}
	return nil, reasons
}

// limitedConn is a TCP connection with the place at the remote address that it
// holds. Close gives the place back.
type limitedConn struct {
	net.Conn
	permit *limit.Permit
}

// Close implements net.Conn.
func (c *limitedConn) Close() error {
	defer c.permit.Release()
	return c.Conn.Close()
}

// dial connects to one of the addresses within the budget, and to none that
// there is no place at.
func (o *opening) dial(ctx context.Context, addrs []netip.Addr) (*limitedConn, netip.Addr, error) {
	defer Spend(&o.Record.Connect, time.Now())
	ctx, cancel := context.WithTimeout(ctx, o.budget)
	defer cancel()
	dialer := dial.Dialer{LocalIPs: o.localIPs(o.Source), Prefer: o.cfg.Prefer, First: o.first, Delay: o.conns.Delay}
	connect := dial.TCP
	if through := o.cfg.Proxy; through != nil {
		dialer.Through = through.String()
		connect = func(ctx context.Context, _ netip.Addr, remote netip.AddrPort) (net.Conn, error) {
			conn, err := through.Connect(ctx, o.localIPs(o.Source), remote)
			if err != nil {
				return nil, err // not a *net.TCPConn of nil in a net.Conn
			}
			return conn, nil
		}
	}
	dialer.Connect = func(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
		permit, err := o.acquireAddr(ctx, remote.Addr(), o.localKey(o.Source, local, remote))
		if err != nil {
			return nil, err
		}
		conn, err := connect(ctx, local, remote)
		if err != nil {
			permit.Release()
			return nil, err
		}
		return &limitedConn{count(conn.(*net.TCPConn), &o.conns.open), permit}, nil
	}
	conn, addr, err := dialer.Dial(ctx, addrs, o.Host.Port)
	if err != nil {
		return nil, addr, err
	}
	o.conns.opened.Add(1)
	return conn.(*limitedConn), addr, nil
}

// localAddr gives this host's address of a connection.
func localAddr(conn net.Conn) netip.Addr {
	if addr, ok := conn.LocalAddr().(*net.TCPAddr); ok {
		return addr.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
