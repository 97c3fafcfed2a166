package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// playMailServer is the process that starts mxpipe and is killed. Its arguments
// are the program, the socket, how many bytes to write, and how many files to
// have open besides; mxpipe prints to file descriptor 3. It tells mxpipe's
// process id when mxpipe has read what was written, and then waits for its end.
func playMailServer(args []string) {
	check := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	size, err := strconv.Atoi(args[2])
	check(err)
	files, err := strconv.Atoi(args[3])
	check(err)

	r, w, err := os.Pipe()
	check(err)
	mxpipe, err := os.StartProcess(args[0], []string{"mxpipe", "--socket", args[1], "-f", "s@example.org", "r@example.net"},
		&os.ProcAttr{Files: []*os.File{r, os.NewFile(3, "output"), nil}, Sys: &syscall.SysProcAttr{Setsid: true}})
	check(err)
	check(r.Close())
	// Each of them is one more thing to close between the pipe and the end.
	for range files {
		_, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		check(err)
	}
	_, err = w.Write(bytes.Repeat([]byte("half a message\n"), size/15+1)[:size])
	check(err)
	raw, err := w.SyscallConn()
	check(err)
	for unread := 1; unread > 0; {
		var failed error
		check(raw.Control(func(fd uintptr) { unread, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }))
		check(failed)
		_, err := unix.Poll(nil, 1)
		if err != unix.EINTR {
			check(err)
		}
	}
	fmt.Println(mxpipe.Pid)
	for {
		_ = unix.Pause()
	}
}

// adoptOrphans makes processes that lose their parent children of the test, so
// that it can learn their exit status. Else they are those of process 1.
func adoptOrphans(t *testing.T, yes uintptr) {
	t.Helper()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, yes, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
}

// A mail server is killed within a message, again and again; never is the half
// delivered.
func TestKilledMailServer(t *testing.T) {
	const long, times = 200_000, 20
	outcomes := make(chan error, 2*times)
	path := serve(t, func(c net.Conn) {
		err := receive(c).err
		if err == nil {
			_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
		}
		outcomes <- err
	})
	mxpipe := program(t)
	adoptOrphans(t, 1)
	defer adoptOrphans(t, 0)
	for i := range times {
		size := []int{5_000, long}[i%2]
		files := []int{0, 300}[i/2%2]
		line, status := killMailServer(t, mxpipe, path, size, files)
		if !strings.HasPrefix(line, "4.3.0 the mail server that started mxpipe is gone") || strings.Count(line, "\n") != 1 || status != 75 {
			t.Errorf("%d bytes, %d files: %d %q", size, files, status, line)
		}
		// A short half never leaves mxpipe; a long one has begun to.
		if size == long {
			if err := <-outcomes; err != wire.ErrUncommitted {
				t.Errorf("half of a long message, %d files: %v", files, err)
			}
		}
	}
	deliver(t, strings.NewReader(shortMessage), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 0, "2.0.0 Ok\n")
	if err := <-outcomes; err != nil {
		t.Errorf("the message of a mail server that lives: %v", err)
	}
	if n := len(outcomes); n > 0 {
		t.Errorf("%d short halves left mxpipe", n)
	}
}

// killMailServer has a mail server killed within a message, and returns what
// mxpipe printed and its exit status.
func killMailServer(t *testing.T, mxpipe, path string, size, files int) (string, int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	output, childOutput, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer output.Close()
	cmd := exec.CommandContext(t.Context(), self, mxpipe, path, strconv.Itoa(size), strconv.Itoa(files))
	cmd.Env = append(os.Environ(), roleVariable+"=mail server")
	cmd.ExtraFiles = []*os.File{childOutput}
	said, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	childOutput.Close()
	word, err := bufio.NewReader(said).ReadString('\n')
	pid, convErr := strconv.Atoi(strings.TrimSpace(word))
	if err != nil || convErr != nil {
		t.Fatalf("the mail server said %q, %v", word, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	line, err := io.ReadAll(output)
	if err != nil {
		t.Fatal(err)
	}
	// only now, so that mxpipe also met a parent that is a zombie
	_ = cmd.Wait()
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(line), ws.ExitStatus()
}

func TestParent(t *testing.T) {
	buf := make([]byte, 1024)
	p := findParent()
	if p.pid != os.Getppid() || p.fd == noParentFD || p.gone(buf) {
		t.Errorf("our own parent %d counts as gone: %+v", os.Getppid(), p)
	}
	if yes, ok := exiting(p.readStat(buf)); yes || !ok {
		t.Errorf("of our own parent: %v, %v", yes, ok)
	}
	unix.Close(p.fd)
	unix.Close(p.stat)
	lost := parentOf(os.Getppid())
	lost.lost = true
	other, unknown := parentOf(os.Getpid()), parentOf(1<<30)
	for what, p := range map[string]*parent{
		"that was lost from the start":    &lost,
		"that is not our parent any more": &other,
		"that /proc does not know":        &unknown,
	} {
		if !p.gone(buf) {
			t.Errorf("a parent %s counts as there", what)
		}
		unix.Close(p.stat)
	}
}

// A parent that we had from the start may be the one that takes in the children
// of the dead.
func TestParentOf(t *testing.T) {
	for ppid, lost := range map[int]bool{0: true, 1: true, 2: false, 4711: false} {
		if p := parentOf(ppid); p.lost != lost || p.pid != ppid {
			t.Errorf("parent %d: %+v", ppid, p)
		}
	}
}

func TestExiting(t *testing.T) {
	const rest = " 100 0 0 0 0 20 0 1 0 162924 3133440 359"
	for _, c := range []struct {
		stat    string
		yes, ok bool
	}{
		{"812 (pipe) S 1 812 812 0 -1 4194304" + rest, false, true},
		// PF_EXITING
		{"812 (pipe) R 1 812 812 0 -1 4194308" + rest, true, true},
		{"812 (pipe) Z 1 812 812 0 -1 4194304" + rest, true, true},
		{"812 (pipe) X 1 812 812 0 -1 0" + rest, true, true},
		// a name to fool us
		{"812 (a) Z 1 1 1 0 -1 4 b) S 1 812 812 0 -1 4194304" + rest, false, true},
		{"812 ()) S 1 812 812 0 -1 4194304", false, true},
		{"812 (pipe) S 1 812 812 0 -1", false, false},
		{"812 (pipe) S 1 812 812 0 -1 x", false, false},
		{"812 pipe S 1 812 812 0 -1 4194304", false, false},
		{"", false, false},
	} {
		if yes, ok := exiting([]byte(c.stat)); yes != c.yes || ok != c.ok {
			t.Errorf("%q: %v, %v; want %v, %v", c.stat, yes, ok, c.yes, c.ok)
		}
	}
}
