//go:build !(amd64 || arm64) || portable

package main

import (
	"time"

	"golang.org/x/sys/unix"
)

// The same as in system_direct.go for machines that have no assembly here. It
// costs more at the start.

const (
	eperm        = errno(unix.EPERM)
	enoent       = errno(unix.ENOENT)
	eintr        = errno(unix.EINTR)
	eagain       = errno(unix.EAGAIN)
	eacces       = errno(unix.EACCES)
	eisconn      = errno(unix.EISCONN)
	econnrefused = errno(unix.ECONNREFUSED)
)

// Error gives the kernel's text.
func (e errno) Error() string { return unix.Errno(e).Error() }

// outcome takes an error of package unix apart.
func outcome(n int, err error) (int, errno) {
	e, _ := err.(unix.Errno)
	return max(n, 0), errno(e)
}

func read(fd int, p []byte) (n int, err errno)  { return outcome(unix.Read(fd, p)) }
func write(fd int, p []byte) (n int, err errno) { return outcome(unix.Write(fd, p)) }

func readAt(fd int, p []byte, offset int64) (n int, err errno) {
	return outcome(unix.Pread(fd, p, offset))
}

func closeFD(fd int) { unix.Close(fd) }

func getppid() int { return unix.Getppid() }

func openFile(path []byte) (fd int, err errno) {
	return outcome(unix.Open(string(path[:len(path)-1]), unix.O_RDONLY|unix.O_CLOEXEC, 0))
}

func pidfdOpen(pid int) (fd int, err errno) { return outcome(unix.PidfdOpen(pid, 0)) }

func ready(fds []pollFD) (n int, err errno) { return poll(fds, 0) }

func poll(fds []pollFD, milliseconds int64) (n int, err errno) {
	list := make([]unix.PollFd, len(fds))
	for i, f := range fds {
		list[i] = unix.PollFd{Fd: f.fd, Events: f.events}
	}
	n, err = outcome(unix.Poll(list, int(min(milliseconds, 1<<31-1))))
	for i := range fds {
		fds[i].revents = list[i].Revents
	}
	return n, err
}

func unixSocket() (fd int, err errno) {
	return outcome(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0))
}

// sockaddrUnix is an address; its path ends with a NUL.
type sockaddrUnix struct {
	family uint16
	path   [108]byte
}

const afUnix = unix.AF_UNIX

func connect(fd int, to *sockaddrUnix) errno {
	path, _, _ := cut(string(to.path[:]), 0)
	_, err := outcome(0, unix.Connect(fd, &unix.SockaddrUnix{Name: path}))
	return err
}

func connectInTurn(fd int, to *sockaddrUnix) errno { return connect(fd, to) }

func blockInTurns(fd int, microseconds int64) errno {
	limit := unix.NsecToTimeval(microseconds * int64(time.Microsecond))
	_, err := outcome(0, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit))
	if err == 0 {
		_, err = outcome(0, unix.SetNonblock(fd, false))
	}
	return err
}

func send(fd int, pieces ...[]byte) (n int, err errno) {
	return outcome(unix.SendmsgBuffers(fd, pieces, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL))
}

func forbidCore() {
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
}

func exit(status int) { unix.Exit(status) }
