package pipe

import (
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
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const text = "Subject: a test\n\nHello.\n"

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
		Spool:     spool.New(b.state, 4<<20),
		Places:    semaphore.NewWeighted(10),
		Logger:    logger,
	}), accept.New(21, logger))
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
	b.path = filepath.Join(b.state, "pipe.sock")
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

// finish stops accepting and waits for the connections that are open.
func (b *bench) finish() {
	b.t.Helper()
	b.stop()
	if err := <-b.ended; err != nil {
		b.t.Errorf("Serve: %v", err)
	}
	b.ended <- nil
	b.Wait()
}

// end ends the server and checks that nothing is left.
func (b *bench) end() {
	b.t.Helper()
	b.stop()
	b.giveUp(transport.ErrStopping)
	b.finish()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.held != 0 {
		b.t.Errorf("%d transports were not released", b.held)
	}
	if n := b.UnderWay(); n != 0 {
		b.t.Errorf("%d messages have a place", n)
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

// envelope is an envelope to these recipients.
func envelope(rcpts ...string) wire.Envelope {
	e := wire.Envelope{Sender: "s@example.org", QueueID: "4XyZ"}
	for _, r := range rcpts {
		e.Recipients = append(e.Recipients, wire.Recipient{Address: r})
	}
	return e
}

// opening is the start of a request.
func opening(t *testing.T, e wire.Envelope) []byte {
	t.Helper()
	raw, err := wire.AppendEnvelope(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// whole is a whole request.
func whole(t *testing.T, e wire.Envelope) []byte {
	t.Helper()
	return wire.AppendCommit(wire.AppendData(opening(t, e), []byte(text)))
}

// connect connects and sends something.
func (b *bench) connect(raw []byte) *net.UnixConn {
	b.t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(raw); err != nil {
		b.t.Fatal(err)
	}
	return conn
}

// answer reads the answer, as "code text", and closes as mxpipe does.
func answer(conn net.Conn) string {
	defer conn.Close()
	a, err := wire.ReadAnswer(conn)
	if err != nil {
		return err.Error()
	}
	return a.Code + " " + a.Text
}

// send makes a whole request and gives its answer.
func (b *bench) send(e wire.Envelope) string {
	b.t.Helper()
	return answer(b.connect(whole(b.t, e)))
}

// want checks that a text starts with one thing, and has others in it.
func want(t *testing.T, got, start string, parts ...string) {
	t.Helper()
	if !strings.HasPrefix(got, start) {
		t.Errorf("%q, want %q", got, start)
	}
	for _, p := range parts {
		if !strings.Contains(got, p) {
			t.Errorf("%q is not in %q", p, got)
		}
	}
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
		case <-t.Context().Done():
			t.Fatalf("no line with %q in\n%s", parts, lines)
		case <-time.After(time.Minute):
			t.Fatalf("no line with %q in\n%s", parts, lines)
		}
	}
}
