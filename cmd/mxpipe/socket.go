package main

import (
	"errors"
	"unsafe"
)

const noSocket = -1

// accepting is what a connect waits for.
func (s *session) accepting() string {
	return "a connection to " + s.options.socket
}

// dial connects to the daemon's socket.
func (s *session) dial() error {
	path := s.options.socket
	to := sockaddrUnix{family: afUnix}
	if copy(to.path[:len(to.path)-1], path) < len(path) {
		return localError(codeConfigured, path+": the path is too long for a socket")
	}
	fd, err := unixSocket()
	if err != 0 {
		return localError(codeSystem, "socket: "+err.Error())
	}
	switch err := connect(fd, &to); err {
	case 0:
		s.socket = fd
		return nil
	case eagain, eintr:
	default:
		closeFD(fd)
		return refused(path, err)
	}
	if err := s.queue(fd, &to); err != nil {
		closeFD(fd)
		return err
	}
	s.socket = fd
	return nil
}

// queue connects when more wait than the daemon takes. connect then waits in
// its turn, which poll cannot, but for parentTick at most (unix(7)). Between
// the tries the time and the parent are looked at.
func (s *session) queue(fd int, to *sockaddrUnix) error {
	for {
		left := s.left()
		switch {
		case left <= 0:
			return s.expired(s.accepting())
		case s.parent.lost, s.parent.replaced():
			return errOrphan
		}
		// It must not be 0, which is no bound.
		if err := blockInTurns(fd, max(min(left, parentTick)/1000, 1)); err != 0 {
			return localError(codeSystem, "waiting for a connection: "+err.Error())
		}
		switch err := connectInTurn(fd, to); err {
		case 0, eisconn:
			// What was known of the parent may be minutes old.
			if s.parent.gone(s.stat[:]) {
				return errOrphan
			}
			return nil
		case eagain, eintr:
		default:
			return refused(s.options.socket, err)
		}
	}
}

// refused puts an error of connect into words that lead to its fix.
func refused(path string, err errno) error {
	text := path + ": " + err.Error()
	switch err {
	case enoent, econnrefused:
		return localError(codeNoDaemon, text+" (is mxpolicyd.socket running?)")
	case eacces, eperm:
		return localError(codeConfigured, text+" (is this user in the socket's group?)")
	}
	return localError(codeSystem, text)
}

// errSpoke says that the daemon answered or went away before it had the whole
// request. Its answer, if there is one, says why.
var errSpoke = errors.New("the daemon spoke first")

// spoken reports whether poll found something to read, or an end.
func spoken(revents int16) bool {
	return revents&(pollIn|pollHup|pollErr|pollNval) != 0
}

// write writes three pieces to the socket, unless the daemon speaks first.
func (s *session) write(a, b, c []byte) error {
	for len(a)+len(b)+len(c) > 0 {
		// One that does not read must not keep us from hearing it.
		n, err := send(s.socket, a, b, c)
		switch err {
		case 0:
			a, n = skip(a, n)
			b, n = skip(b, n)
			c, _ = skip(c, n)
		case eintr:
		case eagain:
			_, of, err := s.wait(0, pollIn|pollOut, "the daemon to read the message")
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

// skip cuts n bytes off b, and gives how many it did not have.
func skip(b []byte, n int) (rest []byte, more int) {
	k := min(n, len(b))
	return b[k:], n - k
}

// emit writes a text of at most 4,096 bytes to standard output. It bothers no
// longer with one that is closed or takes nothing: the exit status says the
// essential.
func emit(text string) {
	const patience = 10_000 // milliseconds
	for len(text) > 0 {
		fds := [...]pollFD{{fd: stdout, events: pollOut}}
		n, err := ready(fds[:])
		if err == 0 && n == 0 {
			n, err = poll(fds[:], patience)
		}
		if err == eintr {
			continue
		}
		if err != 0 || n == 0 {
			return
		}
		n, err = write(stdout, unsafe.Slice(unsafe.StringData(text), len(text)))
		if err == eintr || err == eagain {
			continue
		}
		if err != 0 {
			return
		}
		text = text[n:]
	}
}
