// Package ports gives the servers of tests their ports on loopback.
//
// A port that is found free by listening at it and closing is free for nobody
// in particular: another test, in another process, finds the same, and where
// it comes from the range of outgoing connections (from 32768 on Linux, from
// 49152 elsewhere) any client may get it meanwhile. A port of Reserve is from
// below that range, and is kept from all others who reserve one, in every
// process, while servers of its owner come and go at it.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// The ports that are given away: above those that need root, below those of
// outgoing connections.
const (
	first = 15000
	last  = 31999
)

// tries bounds how many ports are looked at. Some hundred are in use.
const tries = 1000

// Reservation is a port of all addresses of IPv4, at which nobody listens but
// who knows it.
type Reservation struct {
	port int
	// bound to the port and not listening. Sockets with SO_REUSEADDR,
	// as servers have, may listen there as well; Reserve does not set it.
	socket *os.File
}

// Reserve finds a port. It is kept until Release, or until nothing refers to
// the Reservation. An error means that none could be had.
func Reserve() (*Reservation, error) {
	for range tries {
		port := first + rand.IntN(last-first+1)
		socket, err := bind(port)
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("reserving a port: %w", err)
		}
		return &Reservation{port, socket}, nil
	}
	return nil, fmt.Errorf("reserving a port: none of %d tried is free", tries)
}

// bind binds a socket to a port that no socket has, listening or not, and has
// it tolerate others from then on.
func bind(port int) (*os.File, error) {
	syscall.ForkLock.RLock()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err == nil {
		syscall.CloseOnExec(fd)
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port}); err == nil {
		err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err != nil {
		return nil, errors.Join(os.NewSyscallError("bind", err), syscall.Close(fd))
	}
	return os.NewFile(uintptr(fd), "port "+strconv.Itoa(port)), nil
}

// Port is the port.
func (r *Reservation) Port() int { return r.port }

// Release gives the port back. It may be called more than once.
func (r *Reservation) Release() {
	// The error would say that it was released before.
	_ = r.socket.Close()
}

// Test is a testing.TB.
type Test interface {
	Helper()
	Cleanup(func())
	Fatal(...any)
}

// For reserves a port until the end of a test.
func For(t Test) int {
	t.Helper()
	r, err := Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Release)
	return r.Port()
}

// AddressFor reserves a port until the end of a test and gives it with the
// address 127.0.0.1. Until somebody listens there connections are refused.
func AddressFor(t Test) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(For(t)))
}

// ListenBoth listens at one address for datagrams and for connections, as name
// servers do. It is free again when both are closed.
func ListenBoth(address string) (net.PacketConn, net.Listener, error) {
	packets, err := forks.ListenPacket("udp4", address)
	if err != nil {
		return nil, nil, err
	}
	listener, err := forks.Listen("tcp4", address)
	if err != nil {
		return nil, nil, errors.Join(err, packets.Close())
	}
	return packets, listener, nil
}
