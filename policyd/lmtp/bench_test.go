package lmtp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// text is a message as a mail server hands it over, with its queue id.
const text = "Received: from x (y [192.0.2.1])\r\n\tby mail.example.org (Postfix) with ESMTP id 4XyZ;\r\n\tSun, 23 Nov 2025 12:00:00 +0000\r\nSubject: a test\r\n\r\nHello.\r\n"

// patience is how long a test waits for what must come.
const patience = time.Minute

// maxSize is max_message_size here.
const maxSize = 5 << 18

// call is one call of Deliver.
type call struct {
	env  transport.Envelope
	body string
}

// bench is a server on a unix socket, with a transport that does what the test
// says.
type bench struct {
	*Server
	t      *testing.T
	path   string
	state  string
	log    *logbook
	stop   context.CancelFunc // TERM
	giveUp context.CancelCauseFunc
	ended  chan error // what Serve returned

	deliver func(ctx context.Context, env *transport.Envelope) []transport.Result

	mu    sync.Mutex
	calls []call
	held  int // ways that were not released
}

// newBench makes a server that delivers everything; it is not started.
func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, state: t.TempDir(), log: newLogbook(), ended: make(chan error, 1)}
	b.deliver = func(_ context.Context, env *transport.Envelope) []transport.Result {
		return all(env, "2.0.0 delivered")
	}
	logger := slog.New(slog.NewTextHandler(b.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.Server = New(intake.New(intake.Config{
		Transport: b.find,
		Spool:     spool.New(b.state, maxSize),
		Places:    semaphore.NewWeighted(10),
		Logger:    logger,
	}), accept.New(21, logger), "default", "mx.example.org")
	b.restart()
	return b
}

// restart has the server's memory read anew.
func (b *bench) restart() {
	b.t.Helper()
	var err error
	if b.Served, err = served.Open(filepath.Join(b.state, "served"), time.Now); err != nil {
		b.t.Fatal(err)
	}
}

// serve starts a server on a unix socket. It ends with the test.
func serve(t *testing.T, change func(*bench)) *bench {
	t.Helper()
	b := newBench(t)
	if change != nil {
		change(b)
	}
	b.path = filepath.Join(b.state, "lmtp.sock")
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.start(l)
	t.Cleanup(b.end)
	return b
}

func (b *bench) start(l net.Listener) {
	var ctx, deliveries context.Context
	ctx, b.stop = context.WithCancel(context.Background())
	deliveries, b.giveUp = context.WithCancelCause(context.Background())
	go func() { b.ended <- b.Serve(ctx, deliveries, l) }()
}

// end ends the server and checks that nothing is left.
func (b *bench) end() {
	b.t.Helper()
	b.stop()
	b.giveUp(transport.ErrStopping)
	if err := <-b.ended; err != nil {
		b.t.Errorf("Serve: %v", err)
	}
	b.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.UnderWay(); n != 0 || b.held != 0 {
		b.t.Errorf("%d messages have a place, %d transports were not released", n, b.held)
	}
	if strings.Contains(b.log.String(), "complains") {
		b.t.Error("the library complains")
	}
	if b.t.Failed() {
		b.t.Log(b.log)
	}
}

func (b *bench) find(name string) (intake.Way, bool) {
	if name != "default" {
		return intake.Way{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held++
	return intake.Way{Deliverer: b, Overtime: time.Minute, Release: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held--
	}}, true
}

func (b *bench) Deliver(ctx context.Context, env *transport.Envelope, msg *transport.Message) []transport.Result {
	body, err := io.ReadAll(io.NewSectionReader(msg.Content, 0, msg.Facts.Size))
	if err != nil {
		b.t.Errorf("reading the message: %v", err)
	}
	b.mu.Lock()
	b.calls = append(b.calls, call{*env, string(body)})
	b.mu.Unlock()
	return b.deliver(ctx, env)
}

// delivered gives the calls of Deliver so far.
func (b *bench) delivered() []call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// wantCalls checks to whom Deliver was asked to deliver, call by call.
func (b *bench) wantCalls(want ...string) {
	b.t.Helper()
	var got []string
	for _, c := range b.delivered() {
		var rcpts []string
		for _, r := range c.env.Recipients {
			rcpts = append(rcpts, r.Address)
		}
		got = append(got, strings.Join(rcpts, " "))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
		b.t.Errorf("delivered to %q, want %q", got, want)
	}
}

// all gives every recipient the same result.
func all(env *transport.Envelope, result string) []transport.Result {
	return by(env, func(string) string { return result })
}

// by gives each recipient the result that it is said to have.
func by(env *transport.Envelope, result func(rcpt string) string) []transport.Result {
	list := make([]transport.Result, len(env.Recipients))
	for i, r := range env.Recipients {
		code, rest, _ := status.Parse(result(r.Address))
		list[i] = transport.Result{Recipient: r.Address, Code: code, Text: rest}
	}
	return list
}

// until gives what became of a delivery that went on until its context ended.
func until(ctx context.Context, env *transport.Envelope) []transport.Result {
	<-ctx.Done()
	return all(env, "4.0.0 "+context.Cause(ctx).Error())
}

// client is a mail server.
type client struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// connect connects, and says LHLO.
func (b *bench) connect() *client {
	b.t.Helper()
	c := b.dial()
	c.want("220 mx.example.org ")
	c.say("LHLO client.example.org")
	c.until("250 ")
	return c
}

// dial connects.
func (b *bench) dial() *client {
	b.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	return newClient(b.t, conn)
}

func newClient(t *testing.T, conn net.Conn) *client {
	return &client{Conn: conn, t: t, r: bufio.NewReader(conn)}
}

// say sends lines.
func (c *client) say(lines ...string) {
	c.t.Helper()
	c.send(strings.Join(lines, "\r\n") + "\r\n")
}

// send sends octets.
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

// logbook keeps what is logged.
type logbook struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{}
}

func newLogbook() *logbook { return &logbook{changed: make(chan struct{})} }

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.changed)
	l.changed = make(chan struct{})
	return l.text.Write(p)
}

func (l *logbook) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// wait waits for a line that has all of the parts, and gives it.
func (l *logbook) wait(t *testing.T, parts ...string) string {
	t.Helper()
	late := time.After(patience)
	for {
		l.mu.Lock()
		lines, changed := l.text.String(), l.changed
		l.mu.Unlock()
	next:
		for line := range strings.Lines(lines) {
			for _, p := range parts {
				if !strings.Contains(line, p) {
					continue next
				}
			}
			return line
		}
		select {
		case <-changed:
		case <-late:
			t.Fatalf("no line with %q in\n%s", parts, lines)
		}
	}
}
