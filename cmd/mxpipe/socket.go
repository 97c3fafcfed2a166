package main

import (
	"errors"
	"io"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// The system calls are made directly, because package net costs more time at
// start than everything else here. There is one goroutine; whatever can wait
// waits in poll(2), with what is left of --timeout.

const (
	stdin    = 0
	stdout   = 1
	noSocket = -1
)

// clock knows when to give up.
type clock struct {
	end   time.Time
	whole time.Duration // what --timeout said
}

func (c clock) left() time.Duration { return time.Until(c.end) }

// expired is the error when nothing is left; it says what for we waited.
func (c clock) expired(waiting string) error {
	return localError(codeTime, "gave up after "+c.whole.String()+", waiting for "+waiting)
}

// wait waits until one of fds is ready.
func (c clock) wait(fds []unix.PollFd, waiting string) error {
	for {
		left := c.left()
		if left <= 0 {
			return c.expired(waiting)
		}
		// Rounded up, so that the last part of a millisecond is not spun away.
		ms := min((left+time.Millisecond-1)/time.Millisecond, math.MaxInt32)
		n, err := unix.Poll(fds, int(ms))
		if err != nil && err != unix.EINTR {
			return localError(codeSystem, "poll: "+err.Error())
		}
		if err == nil && n > 0 {
			return nil
		}
	}
}

// dial connects to the daemon's socket.
func dial(path string, c clock) (int, error) {
	var sun unix.RawSockaddrUnix
	if len(path) >= len(sun.Path) {
		return noSocket, localError(codeConfigured, path+": a socket's path cannot be so long")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return noSocket, localError(codeSystem, "socket: "+err.Error())
	}
	for {
		left := c.left()
		if left <= 0 {
			unix.Close(fd)
			return noSocket, c.expired("the daemon to take connections at " + path)
		}
		// When more wait than the daemon takes, connect waits as well. poll
		// cannot tell when that ends, but this option bounds it (unix(7)).
		// It must not be 0, which is no bound.
		tv := unix.NsecToTimeval(max(left, time.Microsecond).Nanoseconds())
		if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
			unix.Close(fd)
			return noSocket, localError(codeSystem, "setsockopt: "+err.Error())
		}
		switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
		case nil, unix.EISCONN:
			return fd, nil
		case unix.EINTR, unix.EAGAIN:
		default:
			unix.Close(fd)
			return noSocket, refused(path, err)
		}
	}
}

// refused puts an error of connect into words that lead to its mend.
func refused(path string, err error) error {
	text := path + ": " + err.Error()
	switch err {
	case unix.ENOENT, unix.ECONNREFUSED:
		return localError(codeNoDaemon, text+" (is mxpolicyd.socket running?)")
	case unix.EACCES, unix.EPERM:
		return localError(codeConfigured, text+" (is this user in the socket's group?)")
	}
	return localError(codeSystem, text)
}

// errSpoke says that the daemon answered or went away before it had the whole
// request. Its answer, if there is one, says why.
var errSpoke = errors.New("the daemon spoke first")

// spoken reports whether poll found something to read, or an end.
func spoken(revents int16) bool {
	return revents&(unix.POLLIN|unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
}

// send writes all of b to the socket, unless the daemon speaks first.
func send(fd int, b []byte, c clock) error {
	for len(b) > 0 {
		// A daemon that closed is to be an error here, not a SIGPIPE, and one
		// that does not read must not keep us from hearing it.
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN | unix.POLLOUT}}
			if err := c.wait(fds, "the daemon to read the message"); err != nil {
				return err
			}
			if spoken(fds[0].Revents) {
				return errSpoke
			}
		default:
			return errSpoke
		}
	}
	return nil
}

// socketReader reads what the daemon sends.
type socketReader struct {
	fd    int
	clock clock
}

func (r socketReader) Read(p []byte) (int, error) {
	for {
		fds := []unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}
		if err := r.clock.wait(fds, "the daemon's answer"); err != nil {
			return 0, err
		}
		n, err := unix.Read(r.fd, p)
		switch {
		case err == unix.EINTR, err == unix.EAGAIN:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

// emit writes a text of at most 4,096 bytes to standard output. It bothers no
// longer with one that is closed or takes nothing: the exit status says the
// essential. Writing directly, it gets an error where os.Stdout would
// die of SIGPIPE.
func emit(text string) {
	const patience = 10_000 // milliseconds
	for len(text) > 0 {
		fds := []unix.PollFd{{Fd: stdout, Events: unix.POLLOUT}}
		if ready, err := unix.Poll(fds, patience); err == unix.EINTR {
			continue
		} else if err != nil || ready == 0 {
			return
		}
		n, err := unix.Write(stdout, []byte(text))
		if err == unix.EINTR || err == unix.EAGAIN {
			continue
		}
		if err != nil {
			return
		}
		text = text[n:]
	}
}
