package pipe

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const text = "Subject: a test\n\nHello.\n"

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
	b.Server = New(b.NewDispatcher(4<<20), accept.New(2*intaketest.Slots+1, b.Logger))
	return b
}

// serve starts a server on a unix socket. It ends with the test.
func serve(t *testing.T, change func(*bench)) *bench {
	t.Helper()
	b := newBench(t)
	if change != nil {
		change(b)
	}
	b.path = b.StartAt(b.Server, "pipe.sock")
	t.Cleanup(func() { b.End(b.Dispatcher) })
	return b
}

// envelope is an envelope to these recipients.
func envelope(rcpts ...string) wire.Envelope {
	e := wire.Envelope{Sender: "s@example.org", QueueID: "4XyZ"}
	for _, r := range rcpts {
		e.Recipients = append(e.Recipients, wire.Recipient{Address: r})
	}
	return e
}

// milliseconds gives a time span as an envelope has it.
func milliseconds(d time.Duration) wire.Milliseconds {
	return wire.Milliseconds(d / time.Millisecond)
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
	b.T.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: b.path, Net: "unix"})
	if err != nil {
		b.T.Fatal(err)
	}
	b.T.Cleanup(func() { conn.Close() })
	if _, err := conn.Write(raw); err != nil {
		b.T.Fatal(err)
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
	b.T.Helper()
	return answer(b.connect(whole(b.T, e)))
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
