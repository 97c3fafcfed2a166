package transport

import (
	"fmt"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// broken listens at an IPv6 address and closes each connection without a word.
func (l *lab) broken() (connections *atomic.Int64) {
	l.t.Helper()
	listener, err := forks.Listen("tcp", fmt.Sprintf("[::1]:%d", l.port))
	l.must(err)
	connections = new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := listener.Accept()
			if err != nil {
				return
			}
			connections.Add(1)
			c.Close()
		}
	}()
	l.t.Cleanup(func() {
		listener.Close()
		<-done
	})
	return connections
}

// A host's family that is broken is tried once, and then not before the other
// for a while; with a preference for the other it is not even tried.
func TestBrokenFamilyIsTriedOnce(t *testing.T) {
	t.Parallel()
	for prefer, want := range map[Family]int64{AnyFamily: 1, IPv6: 1, IPv4: 0} {
		l := newLab(t)
		bad := l.broken()
		good := l.mx("mx.a.example", nil)
		l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. AAAA ::1")
		l.start(func(c *Config) { everything(c); c.ConnReuseLimit, c.Prefer = 0, prefer })
		for range 3 {
			expect(t, l.send("b@a.example"), "2.0.0")
		}
		if n := bad.Load(); n != want {
			t.Errorf("prefer %v: %d connections to the broken family, want %d", prefer, n, want)
		}
		counts(t, good, 3, 3)
	}
}

// The same holds for an address whose server takes connections but no mail.
func TestAddressThatTakesNoMailIsTriedOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	bad, err := mx.Start(mx.Options{Addr: fmt.Sprintf("[::1]:%d", l.port), Behaviour: mx.Behaviour{
		Hostname: "mx.a.example", Keywords: mx.Pipelining,
		At: map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "450 4.7.25 no reverse DNS"}},
	}})
	l.must(err)
	t.Cleanup(func() { bad.Stop() })
	good := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. AAAA ::1")
	l.start(func(c *Config) { everything(c); c.ConnReuseLimit = 0 })
	for range 3 {
		expect(t, l.send("b@a.example"), "2.0.0")
	}
	counts(t, bad, 1, 0)
	counts(t, good, 3, 3)
}

// Our own trouble is no fault of the host's: it says what it is, is temporary,
// and the host is not dead for it.
func TestOwnTroubleIsNotTheHosts(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) { everything(c); c.LocalIP = []netip.Addr{netip.MustParseAddr("192.0.2.222")} })
	for range 3 {
		expect(t, l.send("b@a.example"), "4.3.0 the source address 192.0.2.222 is not this host's")
	}
	if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
		t.Errorf("dead: %+v", dead)
	}
	counts(t, server, 0, 0)
}
