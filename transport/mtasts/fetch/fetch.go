// Package fetch gets a domain's MTA-STS policy from its web host (RFC 8461
// §3.3).
//
// A fetch looks up the addresses of mta-sts.DOMAIN with the resolver it was
// given, connects to port 443, and speaks TLS 1.2 or better with a server whose
// certificate is valid for that very name. Only then it sends one GET for
// /.well-known/mta-sts.txt. The answer counts when its status is 200, its media
// type text/plain, and its body, of at most 64 KiB, a policy.
//
// It refuses redirects, and knows no proxy (the environment is not asked), no
// cookies, no HTTP cache, no compression and no connection kept for the next
// time: what the policy host's certificate vouches for is this answer and
// nothing else. All of it together takes at most a minute.
package fetch

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
	"strings"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/transport/certerror"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

const (
	// Timeout bounds a whole fetch, as RFC 8461 §3.3 suggests.
	Timeout = time.Minute
	// maxHeader bounds what the server says before the body, in bytes.
	maxHeader = 64 << 10
	userAgent = "mxpolicyd (MTA-STS, RFC 8461)"
)

// Resolver finds addresses. It must be safe for concurrent use.
type Resolver interface {
	// Addresses gives a host's IPv4 and IPv6 addresses. No addresses is an
	// error.
	Addresses(ctx context.Context, host string) ([]netip.Addr, error)
}

// Config says how to reach web hosts.
type Config struct {
	Resolver Resolver
	// Dial opens a TCP connection to an address and port, as the method
	// DialContext of net.Dialer does.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Roots are the certification authorities to trust; nil means the
	// system's.
	Roots *x509.CertPool
	// Port is where web hosts listen; 0 means 443. Another is for labs.
	Port uint16
	// Now is the clock that certificates are judged by; nil means time.Now.
	Now func() time.Time
}

// Client fetches policies. It is safe for concurrent use and keeps nothing
// between fetches.
type Client struct {
	cfg Config
}

// New makes a Client.
func New(cfg Config) *Client {
	if cfg.Port == 0 {
		cfg.Port = 443
	}
	return &Client{cfg: cfg}
}

// Fetch gets a domain's policy. The domain is in the form of mtasts.Domain. An
// error is always an *mtasts.Error; its Failure says whether the host was not
// reached (FailureFetch), was not who it should be (FailureWebPKI), or gave no
// policy (FailureInvalid). The caller goes on with what it has, and does not
// ask again for five minutes.
func (c *Client) Fetch(ctx context.Context, domain string) (mtasts.Policy, error) {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, Timeout)
	defer cancel()
	failure := func(err error) *mtasts.Error { return failure(err, time.Since(start)) }
	if d, err := mtasts.Domain(domain); err != nil || d != domain {
		return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: mtasts.ErrDomain}
	}
	conn, err := c.connect(ctx, mtasts.PolicyHost(domain))
	if err != nil {
		return mtasts.Policy{}, failure(err)
	}
	defer conn.Close()
	body, err := c.get(ctx, conn, domain)
	if err != nil {
		return mtasts.Policy{}, failure(err)
	}
	policy, err := mtasts.ParsePolicy(body)
	if err != nil {
		return mtasts.Policy{}, failure(err)
	}
	return policy, nil
}

// stepError tells at which step a fetch failed.
type stepError struct {
	step    string
	err     error
	timeout time.Duration // after which time was up; 0: that was not the reason
}

// Error tells the step after a time-out too, of which nothing else is known.
func (e *stepError) Error() string {
	if e.timeout > 0 {
		return fmt.Sprintf("timed out after %v (%s)", e.timeout, e.step)
	}
	return e.step + ": " + e.err.Error()
}

// Unwrap returns the cause.
func (e *stepError) Unwrap() error { return e.err }

// failure sorts an error, after a fetch of some length, into the kinds of RFC
// 8460 §4.3.2.2.
func failure(err error, took time.Duration) *mtasts.Error {
	kind := mtasts.FailureFetch
	var step *stepError
	if errors.Is(err, context.DeadlineExceeded) && errors.As(err, &step) {
		step.timeout = max(took.Round(time.Second), time.Second)
	}
	var cert *tls.CertificateVerificationError
	switch {
	case errors.As(err, &cert):
		kind = mtasts.FailureWebPKI
	case errors.Is(err, mtasts.ErrMalformed), errors.Is(err, mtasts.ErrTooLarge):
		kind = mtasts.FailureInvalid
	}
	return &mtasts.Error{Failure: kind, Err: err}
}

// connect opens a connection to the policy host and checks its certificate
// (RFC 8461 §3.3), with SNI (§7.1).
func (c *Client) connect(ctx context.Context, host string) (net.Conn, error) {
	addrs, err := c.cfg.Resolver.Addresses(ctx, host)
	if err != nil {
		return nil, &stepError{step: "looking up " + host, err: err}
	}
	raw, err := c.race(ctx, addrs)
	if err != nil {
		return nil, &stepError{step: "connecting to " + host, err: err}
	}
	conn := tls.Client(raw, &tls.Config{
		ServerName: host,
		RootCAs:    c.cfg.Roots,
		MinVersion: tls.VersionTLS12,
		Time:       c.cfg.Now,
		NextProtos: []string{"http/1.1"},
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, &stepError{step: "TLS handshake with " + host, err: certerror.Words(err)}
	}
	return secured{conn, raw}, nil
}

// secured is a TLS connection that closes without saying goodbye, which could
// wait for a server that reads no more.
type secured struct {
	net.Conn
	raw net.Conn
}

func (s secured) Close() error { return s.raw.Close() }

// errSpent is never seen: the transport below opens no second connection.
var errSpent = errors.New("the connection was used already")

// get asks for the policy over conn and gives the answer's body.
func (c *Client) get(ctx context.Context, conn net.Conn, domain string) ([]byte, error) {
	// net/http goes on dialling after a request was cancelled. We dialled, so
	// that nothing is left behind; it speaks HTTP and no more.
	var used atomic.Bool
	transport := &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			if used.Swap(true) {
				return nil, errSpent
			}
			return conn, nil
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeader,
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, mtasts.PolicyURL(domain, c.cfg.Port), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", userAgent)
	req.Header.Set("Accept", "text/plain")
	// RoundTrip, and no http.Client: redirects are answers like any other.
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return nil, &stepError{step: "requesting the policy", err: err}
	}
	defer resp.Body.Close()
	if err := check(resp); err != nil {
		return nil, err
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, mtasts.MaxPolicySize+1))
	if err != nil {
		return nil, &stepError{step: "reading the policy", err: err}
	}
	if len(body) > mtasts.MaxPolicySize {
		return nil, mtasts.ErrTooLarge
	}
	return body, nil
}

// check judges an answer before its body is read.
func check(resp *http.Response) error {
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the web server answered %d instead of 200", resp.StatusCode)
	}
	contentType := resp.Header.Get("Content-Type")
	// Parameters mean nothing (RFC 8461 §3.2), so that they may be malformed.
	media, _, _ := strings.Cut(contentType, ";")
	if !strings.EqualFold(strings.Trim(media, " \t"), "text/plain") {
		return fmt.Errorf("the web server sent the media type %.60q instead of text/plain", contentType)
	}
	if encoding := resp.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return fmt.Errorf("the web server encoded the policy as %.60q, which was not requested", encoding)
	}
	if resp.ContentLength > mtasts.MaxPolicySize {
		return mtasts.ErrTooLarge
	}
	return nil
}
