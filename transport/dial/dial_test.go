package dial_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/dial"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func addrs(list ...string) []netip.Addr {
	var out []netip.Addr
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// network is a pretended one: each address answers after a while, in a bubble
// of fake time.
type network struct {
	answers map[string]answer
	begin   time.Time

	mu     sync.Mutex
	begun  []string // "address at time"
	locals map[string]netip.Addr
	conns  map[string]*conn
}

type answer struct {
	after time.Duration // negative: never
	err   error
	deaf  bool // goes on although it was cancelled
}

type conn struct {
	net.Conn
	mu     sync.Mutex
	closed bool
}

func (c *conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	return nil
}

func pretend(answers map[string]answer) *network {
	return &network{answers: answers, begin: time.Now(), locals: map[string]netip.Addr{}, conns: map[string]*conn{}}
}

func (n *network) connect(ctx context.Context, local netip.Addr, remote netip.AddrPort) (net.Conn, error) {
	key := remote.Addr().String()
	n.mu.Lock()
	n.begun = append(n.begun, fmt.Sprint(key, " at ", time.Since(n.begin).Milliseconds()))
	n.locals[key] = local
	n.mu.Unlock()
	a := n.answers[key]
	done := ctx.Done()
	if a.deaf {
		done = nil
	}
	var timer <-chan time.Time
	if a.after >= 0 {
		timer = time.After(a.after)
	}
	select {
	case <-timer:
	case <-done:
		return nil, ctx.Err()
	}
	if a.err != nil {
		return nil, a.err
	}
	c := &conn{}
	n.mu.Lock()
	n.conns[key] = c
	n.mu.Unlock()
	return c, nil
}

const (
	ms    = time.Millisecond
	never = time.Duration(-1)
)

func TestRace(t *testing.T) {
	refused := answer{err: syscall.ECONNREFUSED}
	for _, tc := range []struct {
		what    string
		addrs   []netip.Addr
		answers map[string]answer
		won     string
		took    time.Duration
		begun   []string
	}{
		{
			"the first answers in time", addrs("192.0.2.1", "2001:db8::1"),
			map[string]answer{"2001:db8::1": {after: 249 * ms}}, "2001:db8::1", 249 * ms,
			[]string{"2001:db8::1 at 0"},
		}, {
			"IPv6 is a black hole", addrs("2001:db8::1", "2001:db8::2", "192.0.2.1"),
			map[string]answer{"2001:db8::1": {after: never}, "2001:db8::2": {after: never}, "192.0.2.1": {after: 10 * ms}}, "192.0.2.1", 260 * ms,
			[]string{"2001:db8::1 at 0", "192.0.2.1 at 250"},
		}, {
			"families alternate, order within a family stays", addrs("192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8::2", "2001:db8::1"),
			map[string]answer{"2001:db8::2": {after: never}, "192.0.2.1": {after: never}, "2001:db8::1": {after: never}, "192.0.2.2": {after: never}, "192.0.2.3": {after: 1 * ms}},
			"192.0.2.3", 1001 * ms,
			[]string{"2001:db8::2 at 0", "192.0.2.1 at 250", "2001:db8::1 at 500", "192.0.2.2 at 750", "192.0.2.3 at 1000"},
		}, {
			"a failure starts the next at once", addrs("2001:db8::1", "2001:db8::2", "192.0.2.1"),
			map[string]answer{"2001:db8::1": refused, "192.0.2.1": {after: 100 * ms, err: syscall.EHOSTUNREACH}, "2001:db8::2": {after: 5 * ms}}, "2001:db8::2", 105 * ms,
			[]string{"2001:db8::1 at 0", "192.0.2.1 at 0", "2001:db8::2 at 100"},
		}, {
			"a slow one may still win", addrs("2001:db8::1", "192.0.2.1"),
			map[string]answer{"2001:db8::1": {after: 300 * ms}, "192.0.2.1": {after: 200 * ms}}, "2001:db8::1", 300 * ms,
			[]string{"2001:db8::1 at 0", "192.0.2.1 at 250"},
		}, {
			"repetitions are tried once", addrs("192.0.2.1", "192.0.2.1", "::ffff:192.0.2.1"),
			map[string]answer{"192.0.2.1": {after: 700 * ms}}, "192.0.2.1", 700 * ms,
			[]string{"192.0.2.1 at 0"},
		},
	} {
		t.Run(tc.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := pretend(tc.answers)
				d := dial.Dialer{Connect: n.connect}
				c, addr, err := d.Dial(t.Context(), tc.addrs, 25)
				if err != nil {
					t.Fatal(err)
				}
				if addr.String() != tc.won || c != net.Conn(n.conns[tc.won]) {
					t.Errorf("%s won, want %s", addr, tc.won)
				}
				if took := time.Since(n.begin); took != tc.took {
					t.Errorf("took %v, want %v", took, tc.took)
				}
				if !slices.Equal(n.begun, tc.begun) {
					t.Errorf("attempts %q, want %q", n.begun, tc.begun)
				}
				if n.conns[tc.won].closed {
					t.Error("the winner is closed")
				}
			})
		})
	}
}

// An attempt that wins in the same moment, or cannot be stopped, is closed and
// waited for.
func TestLosersAreClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pretend(map[string]answer{"2001:db8::1": {after: 400 * ms, deaf: true}, "192.0.2.1": {after: 10 * ms}})
		d := dial.Dialer{Connect: n.connect}
		_, addr, err := d.Dial(t.Context(), addrs("2001:db8::1", "192.0.2.1"), 25)
		if err != nil || addr.String() != "192.0.2.1" {
			t.Fatalf("%v, %v", addr, err)
		}
		if loser := n.conns["2001:db8::1"]; loser == nil || !loser.closed {
			t.Error("the loser's connection is open, or still to come")
		}
	})
}

func TestAllFail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pretend(map[string]answer{
			"2001:db8::1": {err: &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ENETUNREACH}},
			"192.0.2.1":   {after: 50 * ms, err: syscall.ECONNREFUSED},
		})
		d := dial.Dialer{Connect: n.connect}
		_, _, err := d.Dial(t.Context(), addrs("192.0.2.1", "2001:db8::1"), 2525)
		if want := "[2001:db8::1]:2525: network is unreachable; 192.0.2.1:2525: connection refused"; err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
		var e *dial.Error
		if !errors.As(err, &e) || len(e.Attempts) != 2 || e.Timeout() || !errors.Is(err, syscall.ECONNREFUSED) || !errors.Is(err, syscall.ENETUNREACH) {
			t.Errorf("%+v", e)
		}
	})
}

func TestContextEndsTheRace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := pretend(map[string]answer{"192.0.2.1": {after: never}, "192.0.2.2": {after: never}, "192.0.2.3": {after: never}})
		d := dial.Dialer{Connect: n.connect}
		ctx, cancel := context.WithTimeout(t.Context(), 300*ms)
		defer cancel()
		_, _, err := d.Dial(ctx, addrs("192.0.2.1", "192.0.2.2", "192.0.2.3"), 25)
		var e *dial.Error
		if !errors.As(err, &e) || !e.Timeout() || !errors.Is(err, context.DeadlineExceeded) || len(e.Attempts) != 2 {
			t.Errorf("%v", err)
		}
		if took := time.Since(n.begin); took != 300*ms {
			t.Errorf("took %v", took)
		}
		gone := errors.New("delivery cancelled: the local mail server disconnected")
		left, leave := context.WithCancelCause(t.Context())
		leave(gone)
		if _, _, err = d.Dial(left, addrs("192.0.2.1"), 25); !errors.Is(err, gone) {
			t.Errorf("the cause is lost: %v", err)
		}
	})
}

func TestBounds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := map[string]answer{}
		var many []netip.Addr
		for i := range 200 {
			a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
			many = append(many, a)
			answers[a.String()] = answer{err: errors.New(strings.Repeat("long ", 1000))}
		}
		n := pretend(answers)
		d := dial.Dialer{Connect: n.connect}
		_, _, err := d.Dial(t.Context(), many, 25)
		if len(n.begun) != dial.MaxAddresses {
			t.Errorf("%d attempts", len(n.begun))
		}
		if text := err.Error(); len(text) > 500 || !strings.HasSuffix(text, "more addresses") {
			t.Errorf("%d bytes: %s", len(text), text)
		}
	})
	_, _, err := (&dial.Dialer{}).Dial(t.Context(), []netip.Addr{{}}, 25)
	if !errors.Is(err, dial.ErrNoAddress) {
		t.Errorf("no address: %v", err)
	}
}

// A source address pins its own family, and leaves the other to the kernel.
func TestLocalIPByFamily(t *testing.T) {
	for _, tc := range []struct {
		local  []netip.Addr
		v4, v6 netip.Addr
	}{
		{nil, netip.Addr{}, netip.Addr{}},
		{addrs("192.0.2.100"), netip.MustParseAddr("192.0.2.100"), netip.Addr{}},
		{addrs("2001:db8::100"), netip.Addr{}, netip.MustParseAddr("2001:db8::100")},
		{addrs("2001:db8::100", "192.0.2.100"), netip.MustParseAddr("192.0.2.100"), netip.MustParseAddr("2001:db8::100")},
	} {
		synctest.Test(t, func(t *testing.T) {
			n := pretend(map[string]answer{"192.0.2.1": {err: syscall.ECONNREFUSED}, "2001:db8::1": {err: syscall.ECONNREFUSED}})
			d := dial.Dialer{LocalIPs: tc.local, Connect: n.connect}
			d.Dial(t.Context(), addrs("192.0.2.1", "2001:db8::1"), 25)
			if n.locals["192.0.2.1"] != tc.v4 || n.locals["2001:db8::1"] != tc.v6 {
				t.Errorf("local_ip %v: %v", tc.local, n.locals)
			}
		})
	}
}

func listen(t *testing.T, addr string) (netip.AddrPort, <-chan netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	from := make(chan netip.AddrPort, 1)
	var serve sync.WaitGroup
	serve.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			from <- netip.MustParseAddrPort(c.RemoteAddr().String())
			c.Close()
		}
	})
	t.Cleanup(func() { l.Close(); serve.Wait() })
	return netip.MustParseAddrPort(l.Addr().String()), from
}

func TestRealConnections(t *testing.T) {
	at, from := listen(t, "127.0.0.1:0")
	for _, local := range []string{"", "127.0.0.5"} {
		d := dial.Dialer{}
		if local != "" {
			d.LocalIPs = addrs(local)
		}
		// Nothing listens on the first two.
		c, addr, err := d.Dial(t.Context(), addrs("127.0.0.9", "::1", "127.0.0.1"), at.Port())
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if addr != at.Addr() {
			t.Errorf("connected to %v", addr)
		}
		if client := <-from; local != "" && client.Addr().String() != local {
			t.Errorf("came from %v, want %s", client, local)
		}
	}
}

// Nothing leaves from an address that is not the configured one.
func TestLocalIPThatIsNotOurs(t *testing.T) {
	at, from := listen(t, "127.0.0.1:0")
	d := dial.Dialer{LocalIPs: addrs("192.0.2.222")}
	_, _, err := d.Dial(t.Context(), addrs("127.0.0.1"), at.Port())
	if !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Errorf("got %v", err)
	}
	if len(from) != 0 {
		t.Error("connected all the same")
	}
}

func TestIPv6(t *testing.T) {
	at, from := listen(t, "[::1]:0")
	c, addr, err := (&dial.Dialer{LocalIPs: addrs("127.0.0.5")}).Dial(t.Context(), addrs("127.0.0.1", "::1"), at.Port())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	<-from
	if addr != at.Addr() {
		t.Errorf("connected to %v", addr)
	}
}
