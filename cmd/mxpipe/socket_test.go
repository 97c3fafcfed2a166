package main

import (
	"errors"
	"io"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/transport/status"
)

func pair(t *testing.T) (ours, theirs int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]) })
	return fds[0], fds[1]
}

// What the daemon says while it reads nothing is noticed as soon as no more fits.
func TestSendHearsTheDaemon(t *testing.T) {
	fd, daemon := pair(t)
	defer unix.Close(daemon)
	if _, err := unix.Write(daemon, []byte("A")); err != nil {
		t.Fatal(err)
	}
	c := clock{end: time.Now().Add(patience), whole: patience}
	if err := send(fd, make([]byte, 5<<20), c); err != errSpoke {
		t.Errorf("a daemon that spoke: %v", err)
	}
	if _, err := io.ReadFull(socketReader{fd, c}, make([]byte, 1)); err != nil {
		t.Errorf("what it said is lost: %v", err)
	}
}

func TestSendToNoOne(t *testing.T) {
	fd, daemon := pair(t)
	unix.Close(daemon)
	c := clock{end: time.Now().Add(patience), whole: patience}
	if err := send(fd, []byte("x"), c); err != errSpoke {
		t.Errorf("a daemon that closed: %v", err)
	}
	if _, err := (socketReader{fd, c}).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("its end: %v", err)
	}
}

// Once the time is over nothing waits, not even for what is there.
func TestClockThatRanOut(t *testing.T) {
	fd, daemon := pair(t)
	defer unix.Close(daemon)
	c := clock{end: time.Now(), whole: 90 * time.Second}
	const want = "gave up after 1m30s, waiting for "
	for what, err := range map[string]error{
		"the daemon to read the message":             send(fd, make([]byte, 5<<20), c),
		"the daemon's answer":                        func() error { _, err := socketReader{fd, c}.Read(make([]byte, 1)); return err }(),
		"the daemon to take connections at /nowhere": func() error { _, err := dial("/nowhere", c); return err }(),
	} {
		var e *status.Error
		if !errors.As(err, &e) || e.Code != codeTime || e.Text != want+what {
			t.Errorf("%v, want %s%s", err, want, what)
		}
	}
}
