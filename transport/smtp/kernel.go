package smtp

import (
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// kernel is the kernel's side of a connection. Its functions are made once,
// since it is asked several times for each message. It is for one goroutine.
type kernel struct {
	raw  syscall.RawConn
	none bool // the connection has no descriptor

	recv, outq func(fd uintptr)
	buf        []byte
	n          int
	err        error
}

// of makes it that of conn, and reports whether there is one.
func (k *kernel) of(conn net.Conn) bool {
	if k.raw != nil || k.none {
		return k.raw != nil
	}
	if c, ok := conn.(syscall.Conn); ok {
		k.raw, _ = c.SyscallConn()
	}
	if k.none = k.raw == nil; k.none {
		return false
	}
	k.recv = func(fd uintptr) {
		for {
			if k.n, _, k.err = unix.Recvfrom(int(fd), k.buf, unix.MSG_DONTWAIT); k.err != unix.EINTR {
				return
			}
		}
	}
	k.outq = func(fd uintptr) { k.n, k.err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ) }
	return true
}

// receive reads what has arrived, past Go's deadlines.
func (k *kernel) receive(p []byte) (int, error) {
	k.buf = p
	failed := k.raw.Control(k.recv)
	k.buf = nil
	switch {
	case failed != nil:
		return 0, failed
	case k.err == unix.EAGAIN:
		return 0, errWouldBlock
	case k.err != nil:
		return 0, os.NewSyscallError("recvfrom", k.err)
	case k.n == 0 && len(p) > 0:
		return 0, io.EOF
	}
	return k.n, nil
}

// queued gives how many bytes were sent and not acknowledged (tcp(7),
// SIOCOUTQ).
func (k *kernel) queued() int {
	if k.raw.Control(k.outq) != nil || k.err != nil {
		return 0
	}
	return k.n
}
