package proxy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/dial"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// socksServer is a SOCKS5 server that does what a test says to each connection,
// and closes it then.
type socksServer struct {
	addr        netip.AddrPort
	connections atomic.Int64
}

func startSocks(t *testing.T, serve func(c net.Conn)) *socksServer {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &socksServer{addr: netip.MustParseAddrPort(l.Addr().String())}
	var all sync.WaitGroup
	var mu sync.Mutex
	open := map[net.Conn]bool{}
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.connections.Add(1)
			mu.Lock()
			open[c] = true
			mu.Unlock()
			all.Go(func() {
				serve(c)
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return s
}

// config is that of a server, for a user or nobody.
func (s *socksServer) config(user string) *Config {
	return &Config{Addr: s.addr.Addr(), Port: s.addr.Port(), User: user}
}

// says makes a server that reads so many bytes before each part that it says;
// an empty part ends the connection, "silence" waits for the client.
func says(parts ...any) func(net.Conn) {
	return func(c net.Conn) {
		for i := 0; i < len(parts); i += 2 {
			if _, err := io.ReadFull(c, make([]byte, parts[i].(int))); err != nil {
				return
			}
			if parts[i+1].(string) == "silence" {
				_, _ = io.Copy(io.Discard, c)
				return
			}
			if _, err := io.WriteString(c, parts[i+1].(string)); err != nil {
				return
			}
		}
	}
}

// The bytes of RFC 1928 and RFC 1929.
const (
	noLogin  = "\x05\x00"
	byLogin  = "\x05\x02"
	noMethod = "\x05\xff"
	loggedIn = "\x01\x00"
	badLogin = "\x01\x01"
	done     = "\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
	hello    = 3                     // one method
	helloTwo = 4                     // two methods
	login    = 1 + 1 + 3 + 1 + 6     // bob, secret
	request  = 1 + 1 + 1 + 1 + 4 + 2 // IPv4
)

func refusal(code byte) string { return "\x05" + string(code) + "\x00\x01\x00\x00\x00\x00\x00\x00" }

var target = netip.MustParseAddrPort("192.0.2.1:25")

// A proxy may do what it likes: the connection is made, or its failure is the
// proxy's, soon, and our own trouble; and what is said has no password in it.
func TestHostileProxies(t *testing.T) {
	for _, tt := range []struct {
		name   string
		user   string
		serve  func(net.Conn)
		want   string // part of the error; empty: connected
		alone  bool   // it is left alone afterwards
		passes bool   // Check takes it for good
	}{
		{"good", "", says(hello, noLogin, request, done+"220 mx\r\n"), "", false, true},
		{"good, with a login", "bob", says(helloTwo, byLogin, login, loggedIn, request, done), "", false, true},
		{"wants no login", "bob", says(helloTwo, noLogin, request, done), "", false, true},
		{"by name, in its answer", "", says(hello, noLogin, request, "\x05\x00\x00\x03\x05a.net\x00\x19"), "", false, true},
		{"by IPv6, in its answer", "", says(hello, noLogin, request, "\x05\x00\x00\x04"+strings.Repeat("\x00", 18)), "", false, true},
		{"silent", "", says(hello, "silence"), "timed out", true, false},
		{"reads nothing", "", says(0, "silence"), "timed out", true, false},
		{"closes", "", says(), "closed the connection", true, false},
		{"closes after hello", "", says(hello, ""), "closed the connection", true, false},
		{"half a word", "", says(hello, "\x05"), "closed the connection", true, false},
		{"no SOCKS", "", says(hello, "HTTP/1.1 400 no\r\n\r\n"), "unexpected protocol version 72", true, false},
		{"SOCKS4", "", says(hello, "\x00\x5b"), "unexpected protocol version 0", true, false},
		{"takes nobody", "", says(hello, noMethod), "no acceptable authentication methods", true, false},
		{"wants a login", "", says(hello, byLogin, request, done), "it wants a login, and no user is configured", true, false},
		{"wants something else", "bob", says(helloTwo, "\x05\x07"), "unsupported authentication method 7", true, false},
		{"refuses the login", "bob", says(helloTwo, byLogin, login, badLogin), "username/password authentication failed", true, false},
		{"another protocol for the login", "bob", says(helloTwo, byLogin, login, "\x05\x00"), "invalid username/password version", false, true},
		{"closes at the login", "bob", says(helloTwo, byLogin, login, ""), "closed the connection", true, false},
		{"closes at the request", "", says(hello, noLogin, request, ""), "closed the connection", false, true},
		{"general failure", "", says(hello, noLogin, request, refusal(1)), "general SOCKS server failure", false, true},
		{"not allowed", "", says(hello, noLogin, request, refusal(2)), "connection not allowed by ruleset", false, true},
		{"unreachable", "", says(hello, noLogin, request, refusal(4)), "host unreachable", false, true},
		{"refused", "", says(hello, noLogin, request, refusal(5)), "connection refused", false, true},
		{"a code that there is not", "", says(hello, noLogin, request, refusal(99)), "unknown code: 99", false, true},
		{"an address that there is not", "", says(hello, noLogin, request, "\x05\x00\x00\x09\x00\x00\x00\x00\x00\x00"), "unknown address type 9", false, true},
		{"a reserved byte", "", says(hello, noLogin, request, "\x05\x00\x01\x01\x00\x00\x00\x00\x00\x00"), "non-zero reserved field", false, true},
		{"half an answer", "", says(hello, noLogin, request, "\x05\x00\x00\x01\x00"), "closed the connection", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			s := startSocks(t, tt.serve)
			o := Options{Timeout: time.Minute}
			if tt.want == "timed out" {
				o.Timeout = 50 * time.Millisecond
			}
			if tt.user != "" {
				o.Password = "secret"
			}
			p := New(s.config(tt.user), o)
			conn, err := p.Connect(t.Context(), nil, target)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
			} else {
				var ours *dial.LocalError
				if !errors.As(err, &ours) || ours.Source || !strings.HasPrefix(err.Error(), "the SOCKS5 proxy "+s.addr.String()+": ") || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%v", err)
				}
				if strings.Contains(fmt.Sprintf("%v %+v %q", err, ours, ours.Err), "secret") {
					t.Error("the password is in the error")
				}
			}
			before := s.connections.Load()
			if again, err := p.Connect(t.Context(), nil, target); err == nil {
				again.Close()
			}
			if alone := s.connections.Load() == before; alone != tt.alone {
				t.Errorf("left alone: %v", alone)
			}
			if err := p.Check(t.Context(), nil); (err == nil) != tt.passes {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

// A word byte by byte is a word; what comes after the last belongs to the mail
// server, to the byte.
func TestDrips(t *testing.T) {
	s := startSocks(t, func(c net.Conn) {
		drip := func(text string) {
			for i := range len(text) {
				_, _ = io.WriteString(c, text[i:i+1])
			}
		}
		_, _ = io.ReadFull(c, make([]byte, hello))
		drip(noLogin)
		_, _ = io.ReadFull(c, make([]byte, request))
		drip(done + "220 mx ready\r\n")
	})
	conn, err := New(s.config(""), Options{}).Connect(t.Context(), nil, target)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if text, err := io.ReadAll(conn); err != nil || string(text) != "220 mx ready\r\n" {
		t.Errorf("%q %v", text, err)
	}
}

// One that stops in the middle of its word holds nobody beyond their time, nor
// after they have gone.
func TestStopsInTheMiddle(t *testing.T) {
	for _, parts := range [][]any{{hello, "\x05", 0, "silence"}, {hello, noLogin, request, "silence"}, {hello, noLogin, request, "\x05\x00\x00", 0, "silence"}} {
		s := startSocks(t, says(parts...))
		p := New(s.config(""), Options{Timeout: time.Minute})
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		_, err := p.Connect(ctx, nil, target)
		cancel()
		if err == nil || !strings.HasSuffix(err.Error(), ": timed out") {
			t.Error(err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		stop := context.AfterFunc(ctx, func() {})
		var all sync.WaitGroup
		all.Go(func() {
			_, err := p.Connect(ctx, nil, target)
			if !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		})
		cancel()
		all.Wait()
		stop()
	}
}

// One that failed is left alone for five seconds, by our clock, which may go
// back.
func TestLeftAlone(t *testing.T) {
	addr := netip.MustParseAddrPort("127.0.0.1:1") // where nobody listens
	at := time.Unix(1000, 0)
	asked := 0
	p := New(&Config{Host: "proxy.example", Port: addr.Port()}, Options{
		Now: func() time.Time { return at },
		Lookup: func(_ context.Context, host string) ([]netip.Addr, error) {
			if asked++; host != "proxy.example" {
				t.Error(host)
			}
			return []netip.Addr{addr.Addr()}, nil
		},
	})
	for _, tt := range []struct {
		after time.Duration
		asked int
	}{{0, 1}, {time.Second, 1}, {4 * time.Second, 2}, {4 * time.Second, 2}, {-time.Hour, 3}} {
		at = at.Add(tt.after)
		_, err := p.Connect(t.Context(), nil, target)
		if err == nil || !strings.HasPrefix(err.Error(), "the SOCKS5 proxy proxy.example:") || !strings.HasSuffix(err.Error(), ": connection refused") {
			t.Error(err)
		}
		if asked != tt.asked {
			t.Errorf("asked %d times, want %d", asked, tt.asked)
		}
	}
}

// The look-up of its name is ours, and so is its failure.
func TestLookupFails(t *testing.T) {
	for _, tt := range []struct {
		addrs []netip.Addr
		err   error
		want  string
	}{{nil, nil, "it has no address"}, {nil, errors.New("SERVFAIL"), "SERVFAIL"}} {
		p := New(&Config{Host: "proxy.example", Port: 1080}, Options{Lookup: func(context.Context, string) ([]netip.Addr, error) { return tt.addrs, tt.err }})
		for _, try := range []func() error{
			func() error { _, err := p.Connect(t.Context(), nil, target); return err },
			func() error { return p.Check(t.Context(), nil) },
		} {
			if err := try(); err == nil || err.Error() != "the SOCKS5 proxy proxy.example:1080: "+tt.want {
				t.Error(err)
			}
		}
	}
}

// An address of ours that we lack is no fault of the proxy's: another one may
// do.
func TestSourceAddressNotHere(t *testing.T) {
	s := startSocks(t, says(hello, noLogin, request, done))
	p := New(s.config(""), Options{})
	_, err := p.Connect(t.Context(), []netip.Addr{netip.MustParseAddr("192.0.2.222")}, target)
	var ours *dial.LocalError
	if !errors.As(err, &ours) || !ours.Source {
		t.Error(err)
	}
	conn, err := p.Connect(t.Context(), []netip.Addr{netip.MustParseAddr("127.9.0.1")}, target)
	if err != nil {
		t.Fatal(err)
	}
	if from := conn.LocalAddr().(*net.TCPAddr).IP.String(); from != "127.9.0.1" {
		t.Errorf("from %s", from)
	}
	conn.Close()
}
