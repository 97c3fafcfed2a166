package tlsreport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"syscall"
	"time"

	"github.com/emersion/go-smtp"
)

const (
	// sendTimeout bounds one sending.
	sendTimeout = 2 * time.Minute
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
	// Dial is for https:; nil: the system's, to public addresses alone.
	Dial   func(ctx context.Context, network, address string) (net.Conn, error)
	Client *http.Client // nil: one by Dial
}

// Mail hands a message to the host's own mail server. An error that wraps
// ErrRefused is for good.
func (c *Carrier) Mail(ctx context.Context, to string, message []byte) error {
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
	err = func() error {
		if err := client.Hello(c.Hostname); err != nil {
			return err
		}
		if err := client.SendMail(c.From, []string{to}, bytes.NewReader(message)); err != nil {
			return err
		}
		return nil
	}()
	var said *smtp.SMTPError
	switch {
	case err == nil:
		_ = client.Quit() // the message is theirs
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.As(err, &said) && said.Code/100 == 5:
		return fmt.Errorf("%w by %s: %w", ErrRefused, c.Server, said)
	}
	return err
}

// ErrRefused says that a place does not want the report.
var ErrRefused = errors.New("refused")

// errPrivate says that a name led to an address that Public refuses.
var errPrivate = fmt.Errorf("%w: no report goes to loopback or a private network", ErrRefused)

// Post sends a compressed report to an https: URI (RFC 8460 §5.4). Redirects
// are not followed. An error that wraps ErrRefused is for good.
func (c *Carrier) Post(ctx context.Context, uri string, gz []byte) error {
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, uri, bytes.NewReader(gz))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
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

func (c *Carrier) client() *http.Client {
	if c.Client != nil {
		return c.Client
	}
	dial := c.Dial
	if dial == nil {
		dial = (&net.Dialer{Timeout: 30 * time.Second, Control: toPublic}).DialContext
	}
	return &http.Client{
		Transport: &http.Transport{
			DialContext: dial, DisableKeepAlives: true, TLSHandshakeTimeout: 30 * time.Second,
			ResponseHeaderTimeout: time.Minute, MaxResponseHeaderBytes: 64 << 10,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// toPublic refuses to connect to what is not public.
func toPublic(_, address string, _ syscall.RawConn) error {
	to, err := netip.ParseAddrPort(address)
	if err != nil || !Public(to.Addr()) {
		return errPrivate
	}
	return nil
}
