package main

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// pair gives a session that is connected to a daemon, and the daemon's end.
func pair(t *testing.T, patience time.Duration) (s *session, daemon int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	s = &session{
		options: options{socket: "/nowhere", timeout: int64(patience), limit: "1m30s"},
		start:   nanotime(), parent: findParent(), socket: fds[0],
	}
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(s.parent.fd)
		unix.Close(s.parent.stat)
	})
	return s, fds[1]
}

// What the daemon says while it reads nothing is noticed as soon as no more
// fits.
func TestWriteHearsTheDaemon(t *testing.T) {
	s, daemon := pair(t, patience)
	defer unix.Close(daemon)
	if _, err := unix.Write(daemon, []byte("A")); err != nil {
		t.Fatal(err)
	}
	if err := s.write(nil, make([]byte, 5<<20), nil); err != errSpoke {
		t.Errorf("a daemon that spoke: %v", err)
	}
	if n, err := read(s.socket, make([]byte, 1)); n != 1 || err != 0 {
		t.Errorf("what it said is lost: %v", err)
	}
}

func TestWriteToNoOne(t *testing.T) {
	s, daemon := pair(t, patience)
	unix.Close(daemon)
	if err := s.write([]byte("x"), nil, nil); err != errSpoke {
		t.Errorf("a daemon that closed: %v", err)
	}
	if _, err := s.answer(); err != wire.ErrNoAnswer {
		t.Errorf("its end: %v", err)
	}
}

// Once the time is over nothing waits, not even for what is there.
func TestClockThatRanOut(t *testing.T) {
	s, daemon := pair(t, 0)
	defer unix.Close(daemon)
	const want = "timed out after 1m30s (waiting for "
	_, readErr := s.answer()
	for what, err := range map[string]error{
		"the daemon to read the message": s.write(nil, make([]byte, 5<<20), nil),
		"the daemon's answer":            readErr,
		"a connection to /nowhere":       s.queue(s.socket, nil),
	} {
		e, ok := err.(*failure)
		if !ok || e.code != codeTime || e.text != want+what+")" {
			t.Errorf("%v, want %s%s", err, want, what)
		}
	}
}

// A parent that is gone ends every wait, also where the daemon has spoken
// already: what it said stays unread.
func TestNoWaitOutlivesTheParent(t *testing.T) {
	s, daemon := pair(t, patience)
	defer unix.Close(daemon)
	if _, err := unix.Write(daemon, []byte("A")); err != nil {
		t.Fatal(err)
	}
	lost := parentOf(os.Getppid())
	lost.lost = true
	unix.Close(s.parent.fd)
	for name, p := range map[string]parent{"lost from the start": lost, "replaced, without a pidfd": parentOf(os.Getpid())} {
		s.parent = p
		if _, err := s.answer(); err != errOrphan {
			t.Errorf("%s, reading: %v", name, err)
		}
		if err := s.write(nil, make([]byte, 5<<20), nil); err != errOrphan {
			t.Errorf("%s, writing: %v", name, err)
		}
	}
	s.options.socket = fullSocket(t)
	if err := s.dial(); err != errOrphan {
		t.Errorf("waiting to connect: %v", err)
	}
	if n, err := unix.IoctlGetInt(s.socket, unix.TIOCINQ); n != 1 || err != nil {
		t.Errorf("%d bytes are unread, %v; want 1", n, err)
	}
}
