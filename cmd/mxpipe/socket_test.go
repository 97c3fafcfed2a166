package main

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/transport/status"
)

// pair gives a session that is connected to a daemon, and the daemon's end.
func pair(t *testing.T, patience time.Duration) (s *session, daemon int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := findParent()
	t.Cleanup(func() {
		unix.Close(fds[0])
		unix.Close(p.fd)
	})
	return &session{
		opt:    &options{socket: "/nowhere"},
		clock:  clock{end: time.Now().Add(patience), whole: 90 * time.Second},
		parent: p, socket: fds[0],
	}, fds[1]
}

// What the daemon says while it reads nothing is noticed as soon as no more
// fits.
func TestWriteHearsTheDaemon(t *testing.T) {
	s, daemon := pair(t, patience)
	defer unix.Close(daemon)
	if _, err := unix.Write(daemon, []byte("A")); err != nil {
		t.Fatal(err)
	}
	if err := s.write(make([]byte, 5<<20)); err != errSpoke {
		t.Errorf("a daemon that spoke: %v", err)
	}
	if _, err := io.ReadFull(answerReader{s}, make([]byte, 1)); err != nil {
		t.Errorf("what it said is lost: %v", err)
	}
}

func TestWriteToNoOne(t *testing.T) {
	s, daemon := pair(t, patience)
	unix.Close(daemon)
	if err := s.write([]byte("x")); err != errSpoke {
		t.Errorf("a daemon that closed: %v", err)
	}
	if _, err := (answerReader{s}).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("its end: %v", err)
	}
}

// Once the time is over nothing waits, not even for what is there.
func TestClockThatRanOut(t *testing.T) {
	s, daemon := pair(t, 0)
	defer unix.Close(daemon)
	const want = "timed out after 1m30s (waiting for "
	_, readErr := answerReader{s}.Read(make([]byte, 1))
	for what, err := range map[string]error{
		"the daemon to read the message": s.write(make([]byte, 5<<20)),
		"the daemon's answer":            readErr,
		"a connection to /nowhere":       s.queue(s.socket),
	} {
		var e *status.Error
		if !errors.As(err, &e) || e.Code != codeTime || e.Text != want+what+")" {
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
	for name, p := range map[string]parent{
		"lost from the start":       {pid: os.Getppid(), fd: noParentFD, lost: true},
		"replaced, without a pidfd": {pid: os.Getpid(), fd: noParentFD},
	} {
		s.parent = p
		if _, err := (answerReader{s}).Read(make([]byte, 1)); err != errOrphan {
			t.Errorf("%s, reading: %v", name, err)
		}
		if err := s.write(make([]byte, 5<<20)); err != errOrphan {
			t.Errorf("%s, writing: %v", name, err)
		}
	}
	s.opt.socket = fullSocket(t)
	if err := s.dial(); err != errOrphan {
		t.Errorf("waiting to connect: %v", err)
	}
	if n, err := unix.IoctlGetInt(s.socket, unix.TIOCINQ); n != 1 || err != nil {
		t.Errorf("%d bytes are unread, %v; want 1", n, err)
	}
}
