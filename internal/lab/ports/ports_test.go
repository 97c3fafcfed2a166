package ports

import (
	"errors"
	"net"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// A port that is reserved is refused to the next who wants to reserve it, also
// while a server comes and goes there, and connections are refused until one
// is there.
func TestReserved(t *testing.T) {
	r, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Release()
	taken := func(when string) {
		t.Helper()
		if socket, err := bind(r.Port()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s it could be reserved again: %v, %v", when, socket, err)
		}
	}
	at := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9), Port: r.Port()}
	taken("at once")
	if conn, err := net.Dial("tcp", at.String()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("with no server: %v, %v", conn, err)
	}
	for range 2 {
		packets, listener, err := ListenBoth(at.String())
		if err != nil {
			t.Fatal(err)
		}
		taken("with a server")
		if _, _, err := ListenBoth(at.String()); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("two servers at one address: %v", err)
		}
		conn, err := net.Dial("tcp", at.String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		listener.Close()
		packets.Close()
		taken("after a server")
	}
	r.Release()
	r.Release()
}

// A port at which somebody listens, on whatever address, is not given away.
func TestListenedAt(t *testing.T) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.7", "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if socket, err := bind(l.Addr().(*net.TCPAddr).Port); !errors.Is(err, syscall.EADDRINUSE) {
		t.Errorf("it was reserved: %v, %v", socket, err)
	}
}

// Each reservation is another port.
func TestEachItsOwn(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		port := For(t)
		if port < first || port > last || seen[port] {
			t.Fatalf("port %d, after %d others", port, len(seen))
		}
		seen[port] = true
	}
}
