package lmtp

import (
	"bufio"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// text is a message as a mail server hands it over, with its queue id.
const text = "Received: from x (y [192.0.2.1])\r\n\tby mail.example.org (Postfix) with ESMTP id 4XyZ;\r\n\tSun, 23 Nov 2025 12:00:00 +0000\r\nSubject: a test\r\n\r\nHello.\r\n"

// patience is how long a test waits for what must come.
const patience = time.Minute

// maxSize is max_message_size here.
const maxSize = 5 << 18

// bench is a server, and what stands around it.
type bench struct {
	*Server
	*intaketest.Bench
	path string
}

// newBench makes a server that delivers everything; it is not started.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{Bench: intaketest.New(t)}
	b.Server = New(b.NewDispatcher(maxSize), accept.New(2*intaketest.Slots+1, b.Logger), "default", "mx.example.org")
	return b
}

// serve starts a server on a unix socket. It ends with the test.
func serve(t *testing.T, change func(*bench)) *bench {
	t.Helper()
	b := newBench(t)
	if change != nil {
		change(b)
	}
	b.path = b.StartAt(b.Server, "lmtp.sock")
	t.Cleanup(b.end)
	return b
}

// end ends the server and checks that nothing is left.
func (b *bench) end() {
	b.T.Helper()
	b.End(b.Dispatcher)
	if n := b.Log.Count("LMTP server error"); n != 0 {
		b.T.Errorf("the library complains\n%s", b.Log)
	}
}

// client is a mail server.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// connect connects, and says LHLO.
func (b *bench) connect() *client {
	b.T.Helper()
	c := b.dial()
	c.want("220 mx.example.org ")
	c.say("LHLO client.example.org")
	c.until("250 ")
	return c
}

// dial connects.
func (b *bench) dial() *client {
	b.T.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return newClient(b.T, conn)
}

func newClient(t *testing.T, conn net.Conn) *client {
	return &client{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// say sends lines.
func (c *client) say(lines ...string) {
	c.t.Helper()
	c.send(strings.Join(lines, "\r\n") + "\r\n")
}

// send sends bytes.
func (c *client) send(raw string) {
	c.t.Helper()
	if _, err := c.Write([]byte(raw)); err != nil {
		c.t.Fatal(err)
	}
}

// line reads a line of a reply; at the end it is empty.
func (c *client) line() string {
	line, err := c.r.ReadString('\n')
	if err != nil {
		return ""
	}
	return strings.TrimSuffix(line, "\r\n")
}

// want reads a line for each start that is wanted.
func (c *client) want(starts ...string) {
	c.t.Helper()
	for _, start := range starts {
		if got := c.line(); !strings.HasPrefix(got, start) || start == "" && got != "" {
			c.t.Errorf("%q, want %q", got, start)
		}
	}
}

// until reads lines until one begins so, and gives all of them.
func (c *client) until(start string) []string {
	c.t.Helper()
	var lines []string
	for {
		line := c.line()
		lines = append(lines, line)
		if strings.HasPrefix(line, start) {
			return lines
		}
		if line == "" {
			c.t.Fatalf("%q, and no %q", lines, start)
		}
	}
}

// envelope is the start of a message to these recipients.
func envelope(rcpts ...string) []string {
	lines := []string{"MAIL FROM:<s@example.org>"}
	for _, r := range rcpts {
		lines = append(lines, "RCPT TO:<"+r+"@example.net>")
	}
	return lines
}

// offer sends the envelope and DATA, and reads the replies.
func (c *client) offer(rcpts ...string) {
	c.t.Helper()
	c.say(append(envelope(rcpts...), "DATA")...)
	for range len(rcpts) + 1 {
		c.want("250 2.0.0 ")
	}
	c.want("354 ")
}

// mail sends a whole message, whose replies are to be read.
func (c *client) mail(rcpts ...string) {
	c.t.Helper()
	c.offer(rcpts...)
	c.send(text + ".\r\n")
}
