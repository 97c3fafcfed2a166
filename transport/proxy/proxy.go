// Package proxy connects to mail servers through a SOCKS5 proxy (RFC 1928),
// where somebody logs in by user and password (RFC 1929) or not.
//
// The proxy is given addresses, never names: who a mail server is decides the
// resolver of this host alone, with DNSSEC. What goes wrong with the proxy, or
// is said by it, is our own trouble, whatever the mail server may have to do
// with it: nothing tells a proxy that is broken from a host that is down, and
// a host must not be taken for dead because of the former.
//
// A proxy that cannot be reached, is silent, or refuses the login is left alone
// for some seconds, in which mail is deferred at once: thousands of messages
// would else wait for it one by one.
package proxy

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	socks "golang.org/x/net/proxy"

	"github.com/mxpipe/mxpipe/transport/dial"
)

const (
	// DefaultPort is that of SOCKS (RFC 1928 §3).
	DefaultPort = 1080
	// MaxLogin bounds the user and the password, in bytes (RFC 1929 §2).
	MaxLogin = 255
	// reachTimeout is how long it may take to reach the proxy, and again until
	// its first word.
	reachTimeout = 10 * time.Second
	// forgetAfter is how long one that failed is left alone.
	forgetAfter = 5 * time.Second
)

// Config is one proxy (proxy).
type Config struct {
	Host string     // a name; empty: Addr
	Addr netip.Addr // valid without Host alone
	Port uint16
	User string // who logs in; empty: nobody
	// PasswordFile is the absolute path of the file with the password.
	PasswordFile string
}

// String gives host:port, for people.
func (c *Config) String() string {
	host := c.Host
	if host == "" {
		host = c.Addr.String()
	}
	return net.JoinHostPort(host, strconv.Itoa(int(c.Port)))
}

// URL gives the proxy as the configuration has it.
func (c *Config) URL() string { return "socks5://" + c.String() }

// Options are what a Proxy needs of the world.
type Options struct {
	Password string
	// Lookup finds the addresses of the proxy.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	Now    func() time.Time // nil: time.Now
	// Timeout is for reaching it, and for its first word; 0: 10 seconds.
	Timeout time.Duration
}

// Proxy connects through one proxy. It is safe for concurrent use.
type Proxy struct {
	cfg     Config
	options Options

	mu     sync.Mutex
	failed error // when it was last tried; nil: it did not fail
	until  time.Time
}

// New makes a Proxy.
func New(cfg *Config, o Options) *Proxy {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Timeout == 0 {
		o.Timeout = reachTimeout
	}
	return &Proxy{cfg: *cfg, options: o}
}

// String names the proxy, for people and logs.
func (p *Proxy) String() string { return "the SOCKS5 proxy " + p.cfg.String() }

var (
	// errNone says that the proxy has no address.
	errNone = errors.New("it has no address")
	// errWantsLogin says that there is nobody who could log in.
	errWantsLogin = errors.New("it wants a login, and no user is configured")
)

// stage is how far a connection through the proxy came.
type stage int

const (
	reaching stage = iota // it has said nothing yet
	loggingIn
	asking // it takes requests from us
)

// Connect connects to a mail server. locals are our own addresses to leave
// from, towards the proxy. The error is a *dial.LocalError that names the
// proxy, or the cause of ctx.
func (p *Proxy) Connect(ctx context.Context, locals []netip.Addr, remote netip.AddrPort) (*net.TCPConn, error) {
	if err := p.recent(); err != nil {
		return nil, p.named(err)
	}
	conn, at, err := p.connect(ctx, locals, remote)
	if err == nil {
		p.note(nil)
		return conn, nil
	}
	if end, ok := ctx.Deadline(); ok && !time.Now().Before(end) {
		// which the connection obeys too, and may see sooner
		<-ctx.Done()
	}
	if ctx.Err() != nil {
		// Who waits has no more time; that says little about the proxy.
		return nil, p.named(context.Cause(ctx))
	}
	var local *dial.LocalError
	if errors.As(err, &local) && local.Source {
		return nil, local // another address of ours may reach it
	}
	if at < asking {
		p.note(err)
	}
	return nil, p.named(err)
}

// Check tries whether the proxy can be reached and takes requests from us: nil
// says that it does. It is asked for itself.
func (p *Proxy) Check(ctx context.Context, locals []netip.Addr) error {
	addrs, err := p.lookup(ctx)
	if err != nil {
		return p.named(err)
	}
	conn, at, err := p.connect(ctx, locals, netip.AddrPortFrom(addrs[0], p.cfg.Port))
	if err == nil {
		return conn.Close()
	}
	if at == asking && ctx.Err() == nil {
		return nil // what it thinks of this request does not matter
	}
	return p.named(err)
}

func (p *Proxy) connect(ctx context.Context, locals []netip.Addr, remote netip.AddrPort) (*net.TCPConn, stage, error) {
	conn, err := p.reach(ctx, locals)
	if err != nil {
		return nil, reaching, err
	}
	var auth *socks.Auth
	if p.cfg.User != "" {
		auth = &socks.Auth{User: p.cfg.User, Password: p.options.Password}
	}
	line := &line{TCPConn: conn, ctx: ctx, timeout: p.options.Timeout, login: auth != nil}
	dialer, err := socks.SOCKS5("tcp", p.cfg.String(), auth, line)
	if err == nil {
		through, ok := dialer.(socks.ContextDialer)
		if !ok {
			panic("x/net/proxy: a SOCKS5 dialer that knows no context")
		}
		_, err = through.DialContext(ctx, "tcp", remote.String())
	}
	if err != nil {
		_ = conn.Close() // x/net may have done so already
		return nil, line.stage(), err
	}
	return conn, asking, nil
}

// reach connects to the proxy itself.
func (p *Proxy) reach(ctx context.Context, locals []netip.Addr) (*net.TCPConn, error) {
	addrs, err := p.lookup(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, p.options.Timeout, context.DeadlineExceeded)
	defer cancel()
	dialer := dial.Dialer{LocalIPs: locals}
	conn, _, err := dialer.Dial(ctx, addrs, p.cfg.Port)
	if err != nil {
		return nil, err
	}
	return conn.(*net.TCPConn), nil // as dial.TCP gives
}

func (p *Proxy) lookup(ctx context.Context) ([]netip.Addr, error) {
	if p.cfg.Host == "" {
		return []netip.Addr{p.cfg.Addr}, nil
	}
	addrs, err := p.options.Lookup(ctx, p.cfg.Host)
	if err == nil && len(addrs) == 0 {
		err = errNone
	}
	return addrs, err
}

// recent gives why the proxy is left alone now; nil: it is not.
func (p *Proxy) recent() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if left := p.until.Sub(p.options.Now()); p.failed != nil && left > 0 && left <= forgetAfter {
		return p.failed
	}
	return nil
}

// note remembers what came of the proxy.
func (p *Proxy) note(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.failed, p.until = err, p.options.Now().Add(forgetAfter)
}

// named is an error as the proxy's, and our own trouble.
func (p *Proxy) named(err error) error {
	return &dial.LocalError{What: p.String() + ": " + words(err), Err: err}
}

// words says what is wrong, without what names the addresses again. Nothing in
// it comes from the proxy but numbers.
func words(err error) string {
	var failed *dial.Error
	var op *net.OpError
	var timeout net.Error
	switch {
	case errors.As(err, &failed):
		return failed.Error()
	case errors.As(err, &op) && strings.HasPrefix(op.Op, "socks "):
		return words(op.Err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timed out"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it closed the connection"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return strings.TrimPrefix(err.Error(), "unknown error ")
}

// line is the connection to the proxy while SOCKS is spoken. It is the dialer
// that x/net/proxy has as its way to the proxy, too.
type line struct {
	*net.TCPConn
	ctx     context.Context
	timeout time.Duration // until the first word
	login   bool          // somebody can log in

	said []byte // the first bytes of the proxy, up to four
}

// DialContext implements proxy.ContextDialer.
func (l *line) DialContext(context.Context, string, string) (net.Conn, error) { return l, nil }

// Dial implements proxy.Dialer.
func (l *line) Dial(string, string) (net.Conn, error) { return l, nil }

// Read implements net.Conn. The first word comes soon, or never.
func (l *line) Read(b []byte) (int, error) {
	if len(l.said) == 0 {
		end := time.Now().Add(l.timeout)
		deadline, bounded := l.ctx.Deadline()
		if !bounded || end.Before(deadline) {
			l.setDeadline(end)
			defer func() { l.setDeadline(deadline) }()
		}
	}
	n, err := l.TCPConn.Read(b)
	l.said = append(l.said, b[:min(n, 4-len(l.said))]...)
	return n, err
}

// Write implements net.Conn. x/net/proxy would go on without a login that the
// proxy wants.
func (l *line) Write(b []byte) (int, error) {
	if len(l.said) >= 2 && l.said[0] == 5 && l.said[1] == 2 && !l.login {
		return 0, errWantsLogin
	}
	return l.TCPConn.Write(b)
}

// setDeadline sets that of reading; the end of ctx, for which x/net/proxy sets
// another one, comes before it.
func (l *line) setDeadline(at time.Time) {
	_ = l.TCPConn.SetReadDeadline(at) // a connection that is closed says so
	if l.ctx.Err() != nil {
		_ = l.TCPConn.SetReadDeadline(time.Unix(1, 0))
	}
}

// stage tells how far it came, by what the proxy has said: two bytes that
// choose a method, and where that is user and password (2) two about these.
func (l *line) stage() stage {
	switch {
	case len(l.said) < 2:
		return reaching
	case l.said[1] == 0, l.said[1] == 2 && len(l.said) == 4 && l.said[3] == 0:
		return asking
	}
	return loggingIn
}
