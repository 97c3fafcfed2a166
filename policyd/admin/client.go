package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

// Errors of a Client, beside those of the network and what the daemon says.
var (
	// ErrNotRunning means that nothing listens on the socket. The caller says
	// so, or does without the daemon.
	ErrNotRunning = errors.New("daemon not running, or started with another listen.admin")
	// ErrForbidden means that the socket is not for this user. The
	// administrator becomes root.
	ErrForbidden = errors.New("only root may ask the daemon")
)

// maxAnswer bounds an answer, in bytes: a hundred thousand cached names.
const maxAnswer = 64 << 20

// Client asks a daemon. It is safe for concurrent use, and keeps nothing open.
type Client struct {
	socket string
	http   http.Client
}

// NewClient makes a client for the socket at a path.
func NewClient(socket string) *Client {
	c := &Client{socket: socket}
	c.http.Transport = &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: headTime}).DialContext(ctx, "unix", socket)
		},
	}
	return c
}

// Status asks what the daemon is doing.
func (c *Client) Status(ctx context.Context) (s Status, err error) {
	return s, c.ask(ctx, http.MethodGet, "/v1/status", &s)
}

// Explain asks what a message to a domain would meet.
func (c *Client) Explain(ctx context.Context, name string, q *transport.Question) (*Explanation, error) {
	query := queryOf(q)
	query.Set("transport", name)
	var e Explanation
	if err := c.ask(ctx, http.MethodGet, "/v1/explain?"+query.Encode(), &e); err != nil {
		return nil, err
	}
	return &e, nil
}

// CacheList asks what is cached.
func (c *Client) CacheList(ctx context.Context) (l CacheList, err error) {
	return l, c.ask(ctx, http.MethodGet, "/v1/cache", &l)
}

// Cached asks what is cached for a domain.
func (c *Client) Cached(ctx context.Context, domain string) (d Cached, err error) {
	return d, c.ask(ctx, http.MethodGet, "/v1/cache/"+url.PathEscape(domain), &d)
}

// Flush has a domain forgotten, or everything for an empty one.
func (c *Client) Flush(ctx context.Context, domain string) (f Flushed, err error) {
	path := "/v1/cache"
	if domain != "" {
		path += "/" + url.PathEscape(domain)
	}
	return f, c.ask(ctx, http.MethodDelete, path, &f)
}

// Traces asks what is traced.
func (c *Client) Traces(ctx context.Context) (l TraceList, err error) {
	return l, c.ask(ctx, http.MethodGet, "/v1/trace", &l)
}

// Trace has a domain traced for a while.
func (c *Client) Trace(ctx context.Context, domain string, lasts time.Duration) (l TraceList, err error) {
	return l, c.ask(ctx, http.MethodPut, "/v1/trace/"+url.PathEscape(domain)+"?for="+lasts.String(), &l)
}

// Untrace ends the trace of a domain.
func (c *Client) Untrace(ctx context.Context, domain string) (l TraceList, err error) {
	return l, c.ask(ctx, http.MethodDelete, "/v1/trace/"+url.PathEscape(domain), &l)
}

// ask makes one request and reads its answer.
func (c *Client) ask(ctx context.Context, method, path string, answer any) error {
	ctx, cancel := context.WithTimeout(ctx, answerTime+headTime)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://mxpolicyd"+path, nil)
	if err != nil {
		return err
	}
	response, err := c.http.Do(request)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w", c.socket, ErrNotRunning)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s: %w", c.socket, ErrForbidden)
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%s: timed out after %v (waiting for the daemon's answer)", c.socket, answerTime+headTime)
	case err != nil:
		// without the URL, which is none
		return fmt.Errorf("%s: %w", c.socket, errors.Unwrap(err))
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("%s: %w", c.socket, err)
	}
	if response.StatusCode == http.StatusOK {
		return json.Unmarshal(text, answer)
	}
	var failure Failure
	if json.Unmarshal(text, &failure) != nil || failure.Error == "" {
		return fmt.Errorf("%s: the daemon answered %s", c.socket, response.Status)
	}
	return errors.New(failure.Error)
}
