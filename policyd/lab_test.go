package policyd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

func TestMain(m *testing.M) {
	if file := os.Getenv(activatedEnv); file != "" {
		activatedDaemon(file)
		return
	}
	leaks.VerifyTestMain(m)
}

// patience is how long a test waits for what must come.
const patience = time.Minute

// lab is a small internet, one mail server that is a.example's, and systemd.
type lab struct {
	t       *testing.T
	dns     *labdns.Server
	mx      *mx.Server
	port    uint16
	dir     string
	systemd *testlog.Log // what NOTIFY_SOCKET was told
	logged  *testlog.Log
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, dir: t.TempDir(), logged: testlog.New()}
	var err error
	if l.dns, err = labdns.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.dns.Stop() })
	if l.mx, err = mx.Start(mx.Options{Behaviour: mx.Behaviour{Keywords: mx.Pipelining}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.mx.Stop() })
	l.port = netip.MustParseAddrPort(l.mx.Addr()).Port()
	if err = l.dns.Add("a.example. MX 10 mx.a.example.\nmx.a.example. A 127.0.0.1"); err != nil {
		t.Fatal(err)
	}
	l.systemd = listenNotices(t, filepath.Join(l.dir, "notify"))
	return l
}

// yaml is a configuration; other comes after the transports, two blanks deep.
func (l *lab) yaml(top, transport, other string) string {
	return fmt.Sprintf(`hostname: client.example
state_dir: %[1]s/state
dns: {servers: ["%[2]s"], timeout: 2s, attempts: 1}
listen: {pipe: {path: %[1]s/pipe.sock, mode: "0600"}}
%[3]s
transports:
  default:
    port: %[4]d
%[5]s
%[6]s
`, l.dir, l.dns.Addr(), top, l.port, transport, other)
}

func (l *lab) parse(text string) *config.Config {
	l.t.Helper()
	cfg, err := config.Parse("test.yaml", []byte(text), config.Environment{ReadFile: config.ReadFile})
	if err != nil {
		l.t.Fatal(err)
	}
	return cfg
}

// running is a daemon at work.
type running struct {
	*lab
	*Daemon
	hangUp chan os.Signal
	stop   context.CancelFunc
	ended  chan error

	mu   sync.Mutex
	text string // of the configuration
	fail error  // of reading it
	// gone has files vanish after they were looked at.
	gone bool
	// stuck, when it is not nil, is what a disk that does not answer waits for.
	stuck chan struct{}
}

// daemon makes a daemon and has it serve until the end of the test.
func (l *lab) daemon(text string) *running {
	l.t.Helper()
	r := &running{lab: l, hangUp: make(chan os.Signal), ended: make(chan error, 1), text: text}
	log := logging.New(config.Log{Level: slog.LevelInfo}, l.logged)
	var err error
	r.Daemon, err = New(l.t.Context(), Options{Config: l.parse(text), HangUp: r.hangUp, Load: r.load, Log: log, Version: "7.7.7"})
	if err != nil {
		l.t.Fatal(err)
	}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.ended <- r.Serve(ctx)
	}()
	l.t.Cleanup(func() { r.end() })
	if l.systemd.Find(done, "READY=1") == "" {
		l.t.Fatalf("it is not ready: %v", r.end())
	}
	return r
}

// end ends the daemon and gives what Serve returned.
func (r *running) end() error {
	r.t.Helper()
	r.stop()
	err := <-r.ended
	r.ended <- err
	if err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	if r.t.Failed() {
		r.t.Log(r.logged)
	}
	return err
}

func (r *running) load() (*config.Config, error) {
	r.mu.Lock()
	text, fail, stuck, env := r.text, r.fail, r.stuck, config.Environment{ReadFile: config.ReadFile}
	if r.gone {
		env.ReadFile = nil
	}
	r.mu.Unlock()
	if stuck != nil {
		<-stuck
	}
	if fail != nil {
		return nil, fail
	}
	return config.Parse("test.yaml", []byte(text), env)
}

// reload has the daemon read another configuration, and waits until it says
// what came of it.
func (r *running) reload(text, said string) {
	r.t.Helper()
	r.mu.Lock()
	r.text = text
	r.mu.Unlock()
	r.logged.Forget()
	r.systemd.Forget()
	r.hangUp <- syscall.SIGHUP
	r.logged.Wait(r.t, said)
	r.systemd.Wait(r.t, "STATUS=")
}

// call sends a message to b@a.example and gives the connection on which the
// answer comes.
func (r *running) call(change func(*wire.Envelope)) net.Conn {
	r.t.Helper()
	conn, err := net.Dial("unix", filepath.Join(r.dir, "pipe.sock"))
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	e := wire.Envelope{Sender: "s@example.org", QueueID: "4XyZ", Recipients: []wire.Recipient{{Address: "b@a.example"}}}
	if change != nil {
		change(&e)
	}
	raw, err := wire.AppendEnvelope(nil, &e)
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := conn.Write(wire.AppendCommit(wire.AppendData(raw, []byte("Subject: a test\n\nHello.\n")))); err != nil {
		r.t.Fatal(err)
	}
	return conn
}

// send sends a message and gives the answer.
func (r *running) send(change func(*wire.Envelope)) string { return answer(r.call(change)) }

func answer(conn net.Conn) string {
	defer conn.Close()
	a, err := wire.ReadAnswer(conn)
	if err != nil {
		return err.Error()
	}
	return a.Code + " " + a.Text
}

// through names a transport.
func through(name string) func(*wire.Envelope) {
	return func(e *wire.Envelope) { e.Transport = name }
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

// hold has the mail server hold its answer at a stage, once.
func (l *lab) hold(stage mx.Stage) (release func()) {
	gate := make(chan struct{})
	h := l.mx.Behaviour()
	h.At = map[mx.Stage]mx.Action{stage: {Hold: gate, Times: 1}}
	l.mx.SetBehaviour(h)
	return sync.OnceFunc(func() { close(gate) })
}

// until waits for the mail server's counters.
func (l *lab) until(what string, cond func(mx.Counters) bool) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := l.mx.WaitUntil(ctx, cond); err != nil {
		l.t.Fatalf("waiting for %s: %v, %+v\n%s", what, err, l.mx.Counters(), l.logged)
	}
}

// listenNotices plays systemd's part in sd_notify(3).
func listenNotices(t *testing.T, path string) *testlog.Log {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	words := testlog.New()
	var reader sync.WaitGroup
	reader.Go(func() {
		buf := make([]byte, 8192)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Error(err)
				}
				return
			}
			words.Write(append(buf[:n:n], '\n'))
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reader.Wait()
	})
	t.Setenv("NOTIFY_SOCKET", path)
	return words
}
