package main

import (
	"errors"
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

// accepting is what a connect waits for.
func (s *session) accepting() string {
	return "a connection to " + s.opt.socket
}

// dial connects to the daemon's socket.
func (s *session) dial() error {
	path := s.opt.socket
	var sun unix.RawSockaddrUnix
	if len(path) >= len(sun.Path) {
		return localError(codeConfigured, path+": the path is too long for a socket")
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return localError(codeSystem, "socket: "+err.Error())
	}
	for queued := false; ; {
		switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err {
		case nil, unix.EISCONN:
			// What was known of the parent may be minutes old.
			if queued && s.parent.gone() {
				unix.Close(fd)
				return errOrphan
			}
			s.socket = fd
			return nil
		case unix.EINTR:
		case unix.EAGAIN:
			queued = true
			if err := s.queue(fd); err != nil {
				unix.Close(fd)
				return err
			}
		default:
			unix.Close(fd)
			return refused(path, err)
		}
	}
}

// queue prepares for one more try of connect when more wait than the daemon
// takes: connect then waits in its turn, which poll cannot, for parentTick at
// most (unix(7)). Between the tries the time and the parent are looked at.
func (s *session) queue(fd int) error {
	left := s.clock.left()
	switch {
	case left <= 0:
		return s.clock.expired(s.accepting())
	case s.parent.lost, s.parent.replaced():
		return errOrphan
	}
	// It must not be 0, which is no bound.
	tv := unix.NsecToTimeval(max(min(left, parentTick), time.Microsecond).Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err != nil {
		return localError(codeSystem, "setsockopt: "+err.Error())
	}
	if err := unix.SetNonblock(fd, false); err != nil {
		return localError(codeSystem, "fcntl: "+err.Error())
	}
	return nil
}

// refused puts an error of connect into words that lead to its fix.
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

// write writes all of b to the socket, unless the daemon speaks first.
func (s *session) write(b []byte) error {
	for len(b) > 0 {
		// A daemon that closed is to be an error here, not a SIGPIPE, and one
		// that does not read must not keep us from hearing it.
		n, err := unix.SendmsgN(s.socket, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch err {
		case nil:
			b = b[n:]
		case unix.EINTR:
		case unix.EAGAIN:
			_, of, err := s.wait(0, unix.POLLIN|unix.POLLOUT, "the daemon to read the message")
			if err != nil {
				return err
			}
			if spoken(of) {
				return errSpoke
			}
		default:
			return errSpoke
		}
	}
	return nil
}

// emit writes a text of at most 4,096 bytes to standard output. It bothers no
// longer with one that is closed or takes nothing: the exit status says the
// essential. Writing directly, it gets an error where os.Stdout would die of
// SIGPIPE.
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
