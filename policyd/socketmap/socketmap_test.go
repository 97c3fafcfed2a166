package socketmap

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// fake is a transport that knows some domains, and waits for the last.
type fake struct {
	plans    map[string]*plan.Plan
	asked    atomic.Int32
	released atomic.Int32
	hold     chan struct{} // what slow.example waits for
}

func newFake() *fake {
	return &fake{hold: make(chan struct{}), plans: map[string]*plan.Plan{
		"dane.example":   scene{signed: true, rules: all, hosts: []sort{usable}}.plan(),
		"sts.example":    scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all, hosts: []sort{bare}}.plan(),
		"open.example":   scene{rules: all, hosts: []sort{bare}}.plan(),
		"broken.example": scene{rules: all, err: &status.Error{Code: status.New(status.Temporary, 4, 3), Text: "SERVFAIL"}}.plan(),
	}}
}

// Text implements PlanSource.
func (f *fake) Text(ctx context.Context, domain string, port uint16, w *plan.Writer) (string, error) {
	f.asked.Add(1)
	if domain == "port.example" && port == 2525 {
		domain = "dane.example"
	}
	if domain == "slow.example" {
		select {
		case <-f.hold:
		case <-ctx.Done():
			return "", context.Cause(ctx)
		}
	}
	if o := f.plans[domain]; o != nil {
		return w.Write(o), nil
	}
	return w.Write(f.plans["open.example"]), nil
}

func (f *fake) find(name string) (Transport, bool) {
	if name != "default" && name != "bulk" {
		return Transport{}, false
	}
	return Transport{PlanSource: f, Release: func() { f.released.Add(1) }}, true
}

// bench is a server at work, at connections that the test makes.
type bench struct {
	*fake
	*Server
	t        testing.TB
	log      *words
	taking   context.Context
	stop     context.CancelFunc
	lookups  context.Context
	giveUp   context.CancelCauseFunc
	sessions sync.WaitGroup
}

func newBench(t testing.TB) *bench {
	b := &bench{fake: newFake(), t: t, log: &words{}}
	log := slog.New(slog.NewTextHandler(b.log, nil))
	b.Server = New(Config{Transport: b.find, Default: "default", Logger: log}, accept.New(100, log))
	b.taking, b.stop = context.WithCancel(context.Background())
	b.lookups, b.giveUp = context.WithCancelCause(context.Background())
	t.Cleanup(func() {
		b.stop()
		b.giveUp(nil)
		b.sessions.Wait()
		if b.asked.Load() != b.released.Load() {
			t.Errorf("%d look-ups, %d transports let go", b.asked.Load(), b.released.Load())
		}
	})
	return b
}

// connect gives the other end of a connection that is served.
func (b *bench) connect() net.Conn {
	ours, theirs := net.Pipe()
	b.sessions.Go(func() {
		defer theirs.Close()
		b.serve(b.taking, b.lookups, theirs)
	})
	b.t.Cleanup(func() { ours.Close() })
	return ours
}

// words collects a log.
type words struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (w *words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.Write(p)
}

func (w *words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.b.String()
}

// replies reads so many replies.
func replies(t testing.TB, r io.Reader, n int) (list []string) {
	t.Helper()
	in := netstring.NewReader(r, maxReply)
	for range n {
		s, err := in.Next()
		if err != nil {
			t.Fatalf("reply %d: %v", len(list)+1, err)
		}
		list = append(list, string(s))
	}
	return list
}

func requests(texts ...string) (b []byte) {
	for _, text := range texts {
		b = netstring.Append(b, text)
	}
	return b
}

const secure = "OK secure match=mx1.a.example servername=hostname protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"

func TestConversation(t *testing.T) {
	const noMap = "TEMP there is no such map; there are policy (also named QUERY and postfix), policy-tlsrpt (also QUERYwithTLSRPT), and each with @TRANSPORT"
	b := newBench(t)
	conn := b.connect()
	for _, step := range [][2]string{
		{"policy dane.example", "OK dane-only"},
		{"policy sts.example", secure},
		{"policy@bulk STS.Example.", secure},
		{"policy open.example", "NOTFOUND "},
		{"policy sts.example:587", secure},
		{"policy sts.example:submission", secure},
		{"policy port.example:2525", "OK dane-only"}, // at no other port
		{"policy port.example", "NOTFOUND "},
		{"policy .example", "NOTFOUND "},
		{"policy [mx.example]:25", "NOTFOUND "},
		{"policy ", "NOTFOUND "},
		{"policy broken.example", "TEMP 4.4.3 SERVFAIL"},
		{"policy@none dane.example", "TEMP there is no transport none"},
		{"QUERY dane.example", "OK dane-only"},
		{"postfix sts.example", secure},
		{"postfix@bulk sts.example", secure},
		{"tlspol dane.example", noMap},
		{"", noMap},
	} {
		conn.Write(requests(step[0]))
		if got := replies(t, conn, 1)[0]; got != step[1] {
			t.Errorf("%q: %q, want %q", step[0], got, step[1])
		}
	}
	for _, name := range []string{"policy-tlsrpt", "QUERYwithTLSRPT", "QUERYwithTLSRPT@bulk"} {
		conn.Write(requests(name + " sts.example"))
		if got := replies(t, conn, 1)[0]; !strings.Contains(got, " policy_type=sts policy_domain=a.example mx_host_pattern=*.a.example ") {
			t.Errorf("%s: %s", name, got)
		}
	}
}

// Requests that do not wait for replies are answered in their order, also when
// the first takes longest.
func TestPipelining(t *testing.T) {
	b := newBench(t)
	conn := b.connect()
	var texts, want []string
	for i := range 1000 {
		domain, reply := "dane.example", "OK dane-only"
		switch i % 3 {
		case 1:
			domain, reply = "sts.example", secure
		case 2:
			domain, reply = "open.example", "NOTFOUND "
		}
		texts, want = append(texts, "policy "+domain), append(want, reply)
	}
	texts[0], want[0] = "policy slow.example", "NOTFOUND "
	var sending sync.WaitGroup
	sending.Go(func() { conn.Write(requests(texts...)) })
	sending.Go(func() { b.hold <- struct{}{} })
	got := replies(t, conn, len(texts))
	sending.Wait()
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("reply %d: %q, want %q", i, got[i], want[i])
		}
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	for _, tt := range []struct{ in, want, log string }{
		{"GET / HTTP/1.1\r\n\r\n", "this is a socketmap server: requests are netstrings", "request refused"},
		{"13:policy a.example,", "this is a socketmap", "request refused"},
		{"2001:policy " + strings.Repeat("a", 100), "too long", "request refused"},
		{"99999999999999999999:", "too long", "request refused"},
		{"19:policy dane.ex", "", ""},
		{"", "", ""},
	} {
		b := newBench(t)
		conn := b.connect()
		go func() {
			conn.Write(append(requests("policy dane.example"), tt.in...))
			if tt.want == "" {
				conn.Close()
			}
		}()
		got, err := io.ReadAll(conn)
		switch {
		case tt.want == "": // closed by us
		case err != nil || !strings.HasPrefix(string(got), "12:OK dane-only,") || !strings.Contains(string(got), ":TEMP ") || !strings.Contains(string(got), tt.want):
			t.Errorf("%.40q: %q, %v", tt.in, got, err)
		}
		b.sessions.Wait()
		if !strings.Contains(b.log.String(), tt.log) || tt.log == "" && b.log.String() != "" {
			t.Errorf("%.40q: the log says %s", tt.in, b.log)
		}
	}
}

// A request has a minute to come, however slowly, and the next one another.
func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		what string
		do   func(conn net.Conn)
		last time.Duration
	}{
		{"silence", func(net.Conn) {}, idle},
		{"a request dripping in", func(conn net.Conn) {
			for _, c := range requests("policy dane.example") {
				if _, err := conn.Write([]byte{c}); err != nil {
					return
				}
				time.Sleep(10 * time.Second)
			}
		}, idle},
		{"requests with pauses", func(conn net.Conn) {
			for range 5 {
				time.Sleep(50 * time.Second)
				conn.Write(requests("policy dane.example"))
			}
		}, 250*time.Second + idle},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			conn := b.connect()
			start := time.Now()
			var doing sync.WaitGroup
			doing.Go(func() { tt.do(conn) })
			io.Copy(io.Discard, conn)
			if took := time.Since(start); took != tt.last {
				t.Errorf("%s: closed after %v, want %v", tt.what, took, tt.last)
			}
			conn.Close()
			doing.Wait()
			if b.log.String() != "" {
				t.Errorf("the log says %s", b.log)
			}
		})
	}
}

// A client that does not read its replies is left.
func TestReaderThatDoesNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		conn := b.connect()
		start := time.Now()
		conn.Write(requests("policy dane.example"))
		b.sessions.Wait()
		if took := time.Since(start); took != replyTime {
			t.Errorf("left after %v", took)
		}
	})
}

// A look-up is not waited for longer than Postfix would.
func TestSlowLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		conn := b.connect()
		start := time.Now()
		conn.Write(requests("policy slow.example", "policy dane.example"))
		got := replies(t, conn, 2)
		if took := time.Since(start); took != lookupTime || !strings.HasPrefix(got[0], "TEMP 4.4.3 slow.example: ") || got[1] != "OK dane-only" {
			t.Errorf("%q after %v", got, took)
		}
	})
}

// TestGoneBehindSlowLookups: replies do not wait for a look-up that takes time,
// and when the client has gone its further requests cost nothing.
func TestGoneBehindSlowLookups(t *testing.T) {
	b := newBench(t)
	c := b.connect()
	slow := make([]string, 50)
	for i := range slow {
		slow[i] = "policy slow.example"
	}
	if _, err := c.Write(requests(append([]string{"policy dane.example"}, slow...)...)); err != nil {
		t.Fatal(err)
	}
	if got := replies(t, c, 1); got[0] != "OK dane-only" {
		t.Error(got)
	}
	c.Close()
	b.hold <- struct{}{} // one look-up was under way when it left
	b.sessions.Wait()    // the others are not waited for
}

// At the end who waits for nothing is left at once, and a look-up under way is
// answered, for as long as deliveries may go on.
func TestEnd(t *testing.T) {
	for _, tt := range []struct {
		what string
		end  func(b *bench)
		want string
	}{
		{"in time", func(b *bench) { close(b.hold) }, "NOTFOUND "},
		{"cancelled", func(b *bench) { b.giveUp(errors.New("mxpolicyd is stopping")) }, "TEMP 4.4.3 slow.example: mxpolicyd is stopping"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := newBench(t)
			idle, busy := b.connect(), b.connect()
			busy.Write(requests("policy slow.example"))
			synctest.Wait()
			start := time.Now()
			b.stop()
			if _, err := idle.Read(make([]byte, 1)); !errors.Is(err, io.EOF) || time.Since(start) != 0 {
				t.Errorf("the idle connection: %v after %v", err, time.Since(start))
			}
			time.AfterFunc(time.Second, func() { tt.end(b) })
			if got := replies(t, busy, 1)[0]; got != tt.want {
				t.Errorf("%s: %q", tt.what, got)
			}
			if _, err := busy.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
}

// Many connections are served at once, over both kinds of sockets.
func TestSockets(t *testing.T) {
	for _, network := range []string{"unix", "tcp"} {
		b := newBench(t)
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- b.Serve(b.taking, b.lookups, l) }()
		var clients sync.WaitGroup
		for i := range 50 {
			clients.Go(func() {
				conn, err := net.Dial(network, l.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				domains := []string{"dane.example", "sts.example", "open.example"}
				want := []string{"OK dane-only", secure, "NOTFOUND "}
				in := netstring.NewReader(conn, maxReply)
				for j := range 50 {
					k := (i + j) % 3
					conn.Write(requests("policy " + domains[k]))
					if got, err := in.Next(); err != nil || string(got) != want[k] {
						t.Errorf("%s: %q, %v", domains[k], got, err)
						return
					}
				}
			})
		}
		clients.Wait()
		if err := b.Alive(t.Context()); err != nil {
			t.Error(err)
		}
		b.stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		b.Wait()
	}
}

// FuzzServer sends anything: what is a request gets one reply, in order, and
// what is none ends the conversation.
func FuzzServer(f *testing.F) {
	for _, seed := range []string{
		string(requests("policy dane.example", "policy .example", "policy-tlsrpt sts.example")), "GET / HTTP/1.1\r\n", "19:policy dane.example,x", "5:polic",
		"0:,0:,", string(requests("policy [a]:1", "\x00", strings.Repeat("a", 2000))), "2001:", "01:a,",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		b := newBench(t)
		close(b.hold)
		// What a strict reader takes for requests.
		var want []string
		r := netstring.NewReader(bytes.NewReader(in), maxRequest)
		var end error
		for {
			text, err := r.Next()
			if err != nil {
				end = err
				break
			}
			want = append(want, b.answer(b.lookups, string(text)))
		}
		conn := b.connect()
		var sending sync.WaitGroup
		sending.Go(func() {
			conn.Write(in)
			b.stop() // net.Pipe cannot be closed for one direction
		})
		out, _ := io.ReadAll(bufio.NewReader(conn))
		sending.Wait()
		list, err := allReplies(out)
		if err != nil {
			t.Fatalf("%q: the replies are %q: %v", in, out, err)
		}
		if errors.Is(end, netstring.ErrMalformed) || errors.Is(end, netstring.ErrTooLong) {
			if len(list) != len(want)+1 || !strings.HasPrefix(list[len(want)], "TEMP ") {
				t.Fatalf("%q: %q, want %q and a refusal", in, list, want)
			}
			list = list[:len(want)]
		}
		if fmt.Sprintf("%q", list) != fmt.Sprintf("%q", want) {
			t.Fatalf("%q: %q, want %q", in, list, want)
		}
		for _, reply := range list {
			status, _, ok := strings.Cut(reply, " ")
			if !ok || status != "OK" && status != "NOTFOUND" && status != "TEMP" || strings.ContainsAny(reply, "\r\n\x00") {
				t.Fatalf("%q: %q", in, reply)
			}
		}
	})
}

func allReplies(out []byte) (list []string, err error) {
	in := netstring.NewReader(bytes.NewReader(out), maxReply)
	for {
		s, err := in.Next()
		switch {
		case errors.Is(err, io.EOF):
			return list, nil
		case err != nil:
			return list, err
		}
		list = append(list, string(s))
	}
}
