package tlsreport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// sendTimeout bounds one sending.
	sendTimeout = time.Minute
	// connectTimeout bounds the wait for one address, and maxAddrs how many
	// of a host's are tried.
	connectTimeout = 15 * time.Second
	maxAddrs       = 4
	// maxAnswer is how much of an answer by HTTPS is read.
	maxAnswer = 4 << 10
)

// Carrier takes reports to their places.
type Carrier struct {
	// Server is the host's own mail server, "127.0.0.1:25".
	Server string
	// the mail address that reports come from, and bounces go to
	From     string
	Hostname string
	// The rest is for https:. Lookup gives a host's addresses; nil: as the
	// system does.
	Lookup func(ctx context.Context, host string) ([]netip.Addr, error)
	// Private are networks that reports may go to beside what is public.
	Private []netip.Prefix
	// Dial connects to an address that Lookup gave, if that is allowed; nil:
	// as the system does.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Roots  *x509.CertPool // nil: the system's
	Client *http.Client   // nil: one by all of that
}

// Mail hands a message to the host's own mail server. Whatever that says, it
// is no answer of the place, and may be different later.
func (c *Carrier) Mail(ctx context.Context, to string, message []byte, last func() error) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Server)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	client := smtp.NewClient(conn)
	defer client.Close()
	if err := c.transact(client, to, message, last); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w", c.Server, err)
	}
	_ = client.Quit() // the message is theirs
	return nil
}

// transact has a mail server take a message.
func (c *Carrier) transact(client *smtp.Client, to string, message []byte, last func() error) error {
	if err := client.Hello(c.Hostname); err != nil {
		return err
	}
	if err := client.Mail(c.From, nil); err != nil {
		return err
	}
	if err := client.Rcpt(to, nil); err != nil {
		return err
	}
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(message); err != nil {
		return err
	}
	if err := last(); err != nil {
		return err // and the connection ends without the final dot
	}
	return w.Close()
}

// ErrRefused says that a place does not want the report.
var ErrRefused = errors.New("refused")

// errPrivate says that a name led to an address that Public refuses.
var errPrivate = fmt.Errorf("%w: no report goes to loopback or a private network", ErrRefused)

// Post sends a compressed report to an https: URI (RFC 8460 §5.4). Redirects
// are not followed. An error that wraps ErrRefused is for good; after any other
// the report is due again (§5.5).
func (c *Carrier) Post(ctx context.Context, uri string, gz []byte, last func() error) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, &body{left: gz, last: last})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	req.ContentLength = int64(len(gz))
	req.Header.Set("Content-Type", "application/tlsrpt+gzip")
	req.Header.Set("User-Agent", "mxpolicyd")
	answer, err := c.client().Do(req)
	if err != nil {
		var failed *url.Error
		if errors.As(err, &failed) {
			err = failed.Err // without the URI, which the caller has
		}
		return err
	}
	defer answer.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(answer.Body, maxAnswer))
	switch {
	case answer.StatusCode/100 == 2:
		return nil
	case answer.StatusCode/100 == 5, answer.StatusCode == http.StatusTooManyRequests, answer.StatusCode == http.StatusRequestTimeout:
		return fmt.Errorf("HTTP status %s", answer.Status)
	}
	return fmt.Errorf("%w: HTTP status %s", ErrRefused, answer.Status)
}

// body is a request's, which says before its last byte that it is the last.
type body struct {
	left []byte
	last func() error
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if len(b.left) == 0 {
		return 0, io.EOF
	}
	if len(p) >= len(b.left) {
		if err := b.last(); err != nil {
			return 0, err
		}
	}
	n := copy(p, b.left)
	b.left = b.left[n:]
	return n, nil
}

func (c *Carrier) client() *http.Client {
	if c.Client != nil {
		return c.Client
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: c.dial, DisableKeepAlives: true, TLSHandshakeTimeout: 30 * time.Second,
			TLSClientConfig:       &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: c.Roots},
			ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// dial connects to a host that a stranger's record names. The addresses that
// are looked at are the ones that are dialled, so that a name that has others
// the next time gains nothing.
func (c *Carrier) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	if one, err := netip.ParseAddr(host); err == nil {
		addrs = append(addrs, one)
	} else if addrs, err = c.lookup(ctx, host); err != nil {
		return nil, err
	}
	failed := fmt.Errorf("%s has no address", host)
	addrs = addrs[:min(len(addrs), maxAddrs)]
	if len(addrs) > 0 {
		failed = errPrivate
	}
	for _, addr := range addrs {
		if !c.allowed(addr) {
			continue
		}
		conn, err := c.connect(ctx, network, net.JoinHostPort(addr.String(), port))
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	return nil, failed
}

func (c *Carrier) lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if c.Lookup != nil {
		return c.Lookup(ctx, host)
	}
	return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
}

func (c *Carrier) connect(ctx context.Context, network, address string) (net.Conn, error) {
	if c.Dial != nil {
		return c.Dial(ctx, network, address)
	}
	return (&net.Dialer{Timeout: connectTimeout, Control: c.control}).DialContext(ctx, network, address)
}

// allowed reports whether reports may go to an address.
func (c *Carrier) allowed(addr netip.Addr) bool {
	if addr.Zone() != "" {
		return false
	}
	return Public(addr) || slices.ContainsFunc(c.Private, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) })
}

// control refuses to connect to what is not allowed, at the last moment.
func (c *Carrier) control(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !c.allowed(to.Addr()) {
		return errPrivate
	}
	return nil
}
