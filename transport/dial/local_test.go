package dial

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"
)

// What the operating system says is sorted into our trouble and that of others.
func TestLocalTrouble(t *testing.T) {
	ours := netip.MustParseAddr("192.0.2.100")
	for _, tc := range []struct {
		number syscall.Errno
		local  netip.Addr
		want   string
	}{
		{syscall.EMFILE, netip.Addr{}, "process has no file descriptor"},
		{syscall.ENFILE, netip.Addr{}, "host has no file descriptor"},
		{syscall.ENOBUFS, netip.Addr{}, "no memory"},
		{syscall.ENOMEM, netip.Addr{}, "no memory"},
		{syscall.EADDRNOTAVAIL, netip.Addr{}, "no local port left"},
		{syscall.EADDRINUSE, netip.Addr{}, "no local port left"},
		{syscall.EADDRNOTAVAIL, ours, "source address 192.0.2.100"},
		{syscall.EADDRINUSE, ours, "source address 192.0.2.100"},
		{syscall.EINVAL, ours, "source address 192.0.2.100"},
		{syscall.EPERM, netip.Addr{}, "firewall"},
		{syscall.EACCES, netip.Addr{}, "firewall"},
		{syscall.ENETUNREACH, netip.Addr{}, "no route"},
		{syscall.ENETDOWN, netip.Addr{}, "no route"},
		{syscall.EAFNOSUPPORT, netip.Addr{}, "such addresses"},
		{syscall.ECONNREFUSED, netip.Addr{}, ""},
		{syscall.ECONNRESET, ours, ""},
		{syscall.EHOSTUNREACH, netip.Addr{}, ""},
		{syscall.ETIMEDOUT, ours, ""},
		{syscall.EINVAL, netip.Addr{}, ""},
	} {
		err := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", tc.number)}
		if got := localTrouble(err, tc.local); (got == "") != (tc.want == "") || !strings.Contains(got, tc.want) {
			t.Errorf("%v from %v: %q, want %q", tc.number, tc.local, got, tc.want)
		}
	}
	if got := localTrouble(context.DeadlineExceeded, ours); got != "" {
		t.Errorf("a time-out: %q", got)
	}
}

// Only when nothing else was met is it our trouble alone.
func TestLocal(t *testing.T) {
	local := &LocalError{What: "no port", Err: syscall.EADDRNOTAVAIL}
	at := func(errs ...error) (list []Attempt) {
		for i, err := range errs {
			list = append(list, Attempt{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}), err})
		}
		return list
	}
	for _, tc := range []struct {
		err  Error
		want bool
	}{
		{Error{Attempts: at(local)}, true},
		{Error{Attempts: at(local, fmt.Errorf("wrapped: %w", local))}, true},
		{Error{Attempts: at(local, syscall.ECONNREFUSED)}, false},
		{Error{Attempts: at(local), Cause: context.DeadlineExceeded}, false},
		{Error{}, false},
		{Error{Cause: ErrNoAddress}, false},
	} {
		if got := tc.err.Local(); got != tc.want {
			t.Errorf("%v: %v", &tc.err, got)
		}
	}
}

// A source address that is not ours, and a process that has no descriptor left,
// are told apart from a host that refuses.
func TestLocalErrors(t *testing.T) {
	dialled := func(local ...netip.Addr) *Error {
		t.Helper()
		_, _, err := (&Dialer{LocalIPs: local}).Dial(t.Context(), []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 9)
		var e *Error
		if !errors.As(err, &e) {
			t.Fatalf("got %v", err)
		}
		return e
	}
	if e := dialled(); e.Local() {
		t.Errorf("a closed port: %v", e)
	}
	if e := dialled(netip.MustParseAddr("192.0.2.222")); !e.Local() || !errors.Is(e, syscall.EADDRNOTAVAIL) ||
		e.Error() != "127.0.0.1:9: the source address 192.0.2.222 is not this host's, or has no port left" {
		t.Errorf("a strange source address: %v", e)
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := syscall.Rlimit{Cur: 0, Max: limit.Max}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	e := dialled()
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if !e.Local() || e.Error() != "127.0.0.1:9: this process has no file descriptor left" {
		t.Errorf("no descriptor left: %v", e)
	}
}
