package mx

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const host = "mx.lab.example"

// patience keeps a mistake from hanging the tests.
const patience = 20 * time.Second

func certificate(t *testing.T, spec ca.Spec) (*ca.Authority, tls.Certificate) {
	t.Helper()
	a, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(spec)
	if err != nil {
		t.Fatal(err)
	}
	return a, cert
}

func serve(t *testing.T, opts Options) *Server {
	t.Helper()
	s, err := Start(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// plain returns a behaviour with all extensions and without TLS.
func plain() Behaviour {
	return Behaviour{Keywords: AllKeywords, Size: 1 << 20, Recipients: UsualRecipients()}
}

// client is a client that sends what it is told and reads line by line.
type client struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func connect(t *testing.T, s *Server) *client {
	t.Helper()
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { conn.Close() })
	return &client{t, conn, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.t.Fatal(err)
	}
}

// reply reads a reply, its lines joined by \n.
func (c *client) reply() (string, error) {
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return strings.Join(append(lines, line), "\n"), err
		}
		line = strings.TrimSuffix(line, "\r\n")
		lines = append(lines, line)
		if len(line) < 4 || line[3] != '-' {
			return strings.Join(lines, "\n"), nil
		}
	}
}

// expect reads replies that begin like these.
func (c *client) expect(starts ...string) {
	c.t.Helper()
	for _, start := range starts {
		if got, err := c.reply(); err != nil || !strings.HasPrefix(got, start) {
			c.t.Fatalf("got %q, %v; want %s", got, err, start)
		}
	}
}

// over expects the end of the connection.
func (c *client) over() {
	c.t.Helper()
	if got, err := c.reply(); err == nil || got != "" {
		c.t.Fatalf("got %q, %v; want the end", got, err)
	}
}

// hello opens the session.
func (c *client) hello() *client {
	c.t.Helper()
	c.expect("220")
	c.send("EHLO client.example\r\n")
	c.expect("250")
	return c
}

// secure says STARTTLS and shakes hands.
func (c *client) secure(config *tls.Config) error {
	c.t.Helper()
	c.send("STARTTLS\r\n")
	c.expect("220")
	if n := c.r.Buffered(); n > 0 {
		return fmt.Errorf("%d bytes came before the handshake", n)
	}
	conn := tls.Client(c.conn, config)
	if err := conn.Handshake(); err != nil {
		return err
	}
	c.conn, c.r = conn, bufio.NewReader(conn)
	c.send("EHLO client.example\r\n")
	_, err := c.reply()
	return err
}

const envelope = "MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n"

// deliver sends one message in one flight and waits for the final reply.
func (c *client) deliver() {
	c.t.Helper()
	c.send(envelope + "BDAT 4 LAST\r\nhi\r\n")
	c.expect("250", "250", "250")
}

func wait(t *testing.T, s *Server, n int) []Message {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	messages, err := s.Wait(ctx, n)
	if err != nil {
		t.Fatal(err)
	}
	return messages
}

func until(t *testing.T, s *Server, what string, cond func(Counters) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.WaitUntil(ctx, cond); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

// keywords returns what an EHLO reply offers.
func keywords(c *client) map[string]string {
	c.t.Helper()
	c.send("EHLO client.example\r\n")
	reply, err := c.reply()
	if err != nil {
		c.t.Fatal(err)
	}
	offers := map[string]string{}
	for _, line := range strings.Split(reply, "\n")[1:] {
		word, rest, _ := strings.Cut(textproto.TrimString(line[4:]), " ")
		offers[word] = rest
	}
	return offers
}
