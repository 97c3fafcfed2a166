// Package forks keeps what a test has closed from living on in the processes
// that it starts.
//
// A child is a copy of its parent from fork to exec, and has all of its
// descriptors for that moment, those too that exec closes. A test that starts
// programs beside its servers forks at any time. So a listener that was closed
// may still listen in a child, for microseconds or, on a busy machine, for as
// long as the child waits for a processor: a listener that comes next there is
// told that the address is in use, and a client is not refused that should be.
// In the same way a program that was written and closed may be open for writing
// in a child, and then no one can run it (ETXTBSY).
//
// syscall.ForkLock does not help: Linux lets the parent of a vfork(2) go on
// when the child has its new memory, which is before it closes the descriptors.
// So Close of what Listen and ListenPacket give takes the address from the
// socket itself, which a child may have still, and WriteFile has a child write.
//
// Whatever in the lab and in the tests listens where it, or nothing, shall
// listen later, and every program that a test writes, goes by here.
package forks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"sync/atomic"
	"syscall"
)

// Listen is net.Listen for TCP. When Close of the listener returns, nothing
// listens at its address.
func Listen(network, address string) (net.Listener, error) {
	config := net.ListenConfig{}
	config.SetMultipathTCP(false) // whose sockets do not stop to listen
	l, err := config.Listen(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	tcp, ok := l.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen %s: not for TCP", network), l.Close())
	}
	return &listener{TCPListener: tcp}, nil
}

type listener struct {
	*net.TCPListener
	closed atomic.Bool
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	conn, err := l.TCPListener.Accept()
	if err != nil && l.closed.Load() {
		// In other words where the kernel came first.
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: l.Addr(), Err: net.ErrClosed}
	}
	return conn, err
}

// Close implements net.Listener. A socket that was shut down does not listen,
// and one that does not listen is in nobody's way who sets SO_REUSEADDR, as
// package net does.
func (l *listener) Close() error {
	l.closed.Store(true)
	control(l.TCPListener, func(fd int) { _ = syscall.Shutdown(fd, syscall.SHUT_RDWR) })
	return l.TCPListener.Close()
}

// ListenPacket is net.ListenPacket for UDP over IPv4. When Close of it returns,
// its address is free, and a datagram to it is refused.
func ListenPacket(network, address string) (net.PacketConn, error) {
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		return raw.Control(func(fd uintptr) { reusable(int(fd), 1) })
	}}
	c, err := config.ListenPacket(context.Background(), network, address)
	if err != nil {
		return nil, err
	}
	udp, ok := c.(*net.UDPConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen %s: not for UDP", network), c.Close())
	}
	// Nobody else may have the address from now on.
	control(udp, func(fd int) { reusable(fd, 0) })
	return packetConn{udp}, nil
}

type packetConn struct{ net.PacketConn }

// Close implements net.PacketConn. A socket that is connected gets datagrams
// from its peer alone, a port that sends none, and one that tolerates others is
// in nobody's way.
func (c packetConn) Close() error {
	control(c.PacketConn.(*net.UDPConn), func(fd int) {
		_ = syscall.Connect(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 1})
		reusable(fd, 1)
	})
	return c.PacketConn.Close()
}

// control does something to a socket; to one that is closed, nothing. What goes
// wrong shows as an address that is in use.
func control(c syscall.Conn, do func(fd int)) {
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { do(int(fd)) })
	}
}

func reusable(fd, yes int) {
	_ = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, yes)
}

// WriteFile is os.WriteFile for what is run afterwards. The mode is not changed
// by the umask.
func WriteFile(path string, text []byte, mode fs.FileMode) error {
	cp := exec.Command("cp", "/dev/stdin", path)
	cp.Stdin = bytes.NewReader(text)
	if out, err := cp.CombinedOutput(); err != nil {
		return fmt.Errorf("writing %s: %w: %s", path, err, out)
	}
	return os.Chmod(path, mode)
}
