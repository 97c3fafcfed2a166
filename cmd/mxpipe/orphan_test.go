package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// A parent's first thread is its main goroutine's, so that it can end.
func init() {
	if os.Getenv(roleVariable) == "parent" {
		runtime.LockOSThread()
	}
}

// playParent starts mxpipe, tells its process id, and waits to be killed. Its
// arguments are those of mxpipe, after its path and the number of a system
// call that the kernel is not to know, or none. File descriptors 3 and 4 become
// mxpipe's standard input and output. At SIGUSR1 its first thread ends and the
// others do not: so it is on its way out, and stays there.
func playParent(args []string) {
	fail := func(err error) {
		if err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
	}
	if args[0] != "none" {
		number, err := strconv.Atoi(args[0])
		fail(err)
		fail(forget(number))
	}
	mxpipe, err := os.StartProcess(args[1], args[1:],
		&os.ProcAttr{Files: []*os.File{os.NewFile(3, "input"), os.NewFile(4, "output"), nil}, Sys: &syscall.SysProcAttr{Setsid: true}})
	fail(err)
	fail(errors.Join(unix.Close(3), unix.Close(4)))
	leave := make(chan os.Signal, 1)
	signal.Notify(leave, syscall.SIGUSR1)
	fmt.Println(mxpipe.Pid)
	<-leave
	_, _, _ = unix.Syscall(unix.SYS_EXIT, 0, 0, 0)
}

// forget has the kernel answer ENOSYS to a system call, from now on, to this
// process and those that it starts (seccomp(2)).
func forget(number int) error {
	filter := []unix.SockFilter{
		// the number of the call
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: 0},
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: uint32(number), Jf: 1},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)},
		{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW},
	}
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// for the two calls; the second takes in the other threads
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	if _, _, err := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&program))); err != 0 {
		return err
	}
	return nil
}

// child is an mxpipe whose parent can be killed.
type child struct {
	pid    int
	stdin  *os.File // the only end to write to it
	stdout *os.File
	parent *exec.Cmd
}

// withParent starts mxpipe below a parent of its own. The test must have called
// adoptOrphans.
func withParent(t *testing.T, unknown string, args ...string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	in, stdin, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{stdin: stdin, stdout: stdout}
	t.Cleanup(func() { stdin.Close(); stdout.Close() })
	c.parent = exec.CommandContext(t.Context(), self, append([]string{unknown, program(t)}, args...)...)
	c.parent.Env = append(os.Environ(), roleVariable+"=parent")
	c.parent.ExtraFiles = []*os.File{in, out}
	said, err := c.parent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	err = c.parent.Start()
	in.Close()
	out.Close()
	if err != nil {
		t.Fatal(err)
	}
	word, err := bufio.NewReader(said).ReadString('\n')
	if c.pid, _ = strconv.Atoi(strings.TrimSpace(word)); err != nil || c.pid == 0 {
		t.Fatalf("the parent said %q, %v", word, err)
	}
	return c
}

// orphan kills the parent and waits until it is dead.
func (c *child) orphan(t *testing.T) {
	t.Helper()
	if err := c.parent.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = c.parent.Wait()
}

// end gives what mxpipe printed and its exit status. It must end within
// patience, although nothing closes its standard input.
func (c *child) end(t *testing.T) (line string, status int) {
	t.Helper()
	if err := c.stdout.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(c.stdout)
	if err != nil {
		_ = syscall.Kill(c.pid, syscall.SIGKILL)
		t.Errorf("mxpipe goes on without a parent: %v", err)
	}
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(c.pid, &ws, 0, nil); err != unix.EINTR {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(text), ws.ExitStatus()
}

// An mxpipe whose parent dies ends at once, whatever it waits for. It commits
// nothing from then on, and takes no answer; the daemon learns that its answer
// was not heard.
func TestOrphanEndsAndTakesNoAnswer(t *testing.T) {
	adoptOrphans(t, 1)
	defer adoptOrphans(t, 0)
	large := message(5 << 20)
	for _, c := range []struct {
		stage   string
		message []byte
		whole   bool // the message ends, and so it is committed
		deaf    bool // the daemon reads nothing but the envelope
		answer  bool // the daemon answers at the moment of the death
	}{
		{"within the message", large[:bufferSize+1], false, false, false},
		{"sending", large, false, true, false},
		{"waiting for the answer", []byte(shortMessage), true, false, false},
		{"with an answer to be read", []byte(shortMessage), true, false, true},
	} {
		for name, unknown := range map[string]string{"with a pidfd": "none", "without": strconv.Itoa(unix.SYS_PIDFD_OPEN)} {
			t.Run(c.stage+", "+name, func(t *testing.T) {
				reached, answer, answered, over := make(chan request), make(chan struct{}), make(chan struct{}), make(chan error)
				path := serve(t, func(conn net.Conn) {
					r := wire.NewReader(conn)
					var q request
					q.envelope, q.err = r.Envelope()
					switch {
					case c.whole:
						q.message, q.err = io.ReadAll(r)
					case !c.deaf:
						q.message = make([]byte, bufferSize)
						_, q.err = io.ReadFull(r, q.message)
					}
					reached <- q
					if c.answer {
						<-answer
						_, _ = conn.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
						close(answered)
					}
					_, err := io.Copy(io.Discard, r)
					if c.whole {
						_, err = conn.Read(make([]byte, 1))
					}
					over <- err
				})
				m := withParent(t, unknown, "--socket", path, "-f", "s@example.org", "r@example.net")
				written := make(chan struct{})
				go func() {
					defer close(written)
					_, _ = m.stdin.Write(c.message) // blocks for a deaf daemon
					if c.whole {
						m.stdin.Close()
					}
				}()
				if q := <-reached; q.err != nil {
					t.Errorf("the daemon got %d bytes, %v", len(q.message), q.err)
				}
				if c.answer {
					// It is to see the answer and the death at the same time.
					freeze(t, m.pid)
				}
				m.orphan(t)
				if c.answer {
					close(answer)
					<-answered
					if err := syscall.Kill(m.pid, syscall.SIGCONT); err != nil {
						t.Fatal(err)
					}
				}
				if line, status := m.end(t); status != 75 || !strings.HasPrefix(line, "4.3.0 the mail server that started mxpipe is gone") {
					t.Errorf("%d %q", status, line)
				}
				<-written
				want := wire.ErrUncommitted
				if c.whole {
					want = io.EOF
				}
				if c.answer {
					// which says that the answer was not read
					want = unix.ECONNRESET
				}
				if err := <-over; !errors.Is(err, want) {
					t.Errorf("the daemon saw %v, want %v", err, want)
				}
			})
		}
	}
}

// A parent that is on its way out hears nothing any more, though no pidfd tells
// yet that it is dead.
func TestAnswerForLeavingParent(t *testing.T) {
	adoptOrphans(t, 1)
	defer adoptOrphans(t, 0)
	for name, unknown := range map[string]string{"with a pidfd": "none", "without": strconv.Itoa(unix.SYS_PIDFD_OPEN)} {
		t.Run(name, func(t *testing.T) {
			committed, answer, over := make(chan error, 1), make(chan struct{}), make(chan error, 1)
			path := serve(t, func(conn net.Conn) {
				committed <- receive(conn).err
				<-answer
				_, err := conn.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
				if err == nil {
					_, err = conn.Read(make([]byte, 1))
				}
				over <- err
			})
			m := withParent(t, unknown, "--socket", path, "-f", "s@example.org", "r@example.net")
			if _, err := m.stdin.WriteString(shortMessage); err != nil {
				t.Fatal(err)
			}
			m.stdin.Close()
			if err := <-committed; err != nil {
				t.Fatal(err)
			}
			signalTo(t, m.parent.Process.Pid, syscall.SIGUSR1, "Z")
			close(answer)
			if err := <-over; !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the daemon saw %v: its answer was read", err)
			}
			m.orphan(t) // and so ours to wait for
			if line, status := m.end(t); status != 75 || !strings.HasPrefix(line, "4.3.0 the mail server that started mxpipe is gone") {
				t.Errorf("%d %q", status, line)
			}
		})
	}
}

// freeze stops a process and waits until it has stopped.
func freeze(t *testing.T, pid int) {
	t.Helper()
	signalTo(t, pid, syscall.SIGSTOP, "T")
}

// signalTo sends a signal and waits until the process is in a state.
func signalTo(t *testing.T, pid int, s syscall.Signal, state string) {
	t.Helper()
	if err := syscall.Kill(pid, s); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			t.Fatal(err)
		}
		stat := string(text)
		if strings.HasPrefix(stat[strings.LastIndexByte(stat, ')')+1:], " "+state+" ") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("no state %s: %q", state, stat)
		}
	}
}

// An mxpipe that waits in the queue of a daemon's socket ends with its parent,
// and has committed nothing when its turn comes.
func TestOrphanWhileConnecting(t *testing.T) {
	adoptOrphans(t, 1)
	defer adoptOrphans(t, 0)
	path := fullSocket(t)
	m := withParent(t, "none", "--socket", path, "-f", "s@example.org", "r@example.net")
	if _, err := m.stdin.WriteString(shortMessage); err != nil {
		t.Fatal(err)
	}
	drained(t, m.stdin)
	m.stdin.Close()
	m.orphan(t)
	if line, status := m.end(t); status != 75 || !strings.HasPrefix(line, "4.3.0 the mail server that started mxpipe is gone") {
		t.Errorf("%d %q", status, line)
	}
}

// drained waits until all that was written to a pipe has been read.
func drained(t *testing.T, w *os.File) {
	t.Helper()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		unread, failed := 1, error(nil)
		if err := raw.Control(func(fd uintptr) { unread, failed = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }); err != nil || failed != nil {
			t.Fatal(err, failed)
		}
		if unread == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d bytes stay unread", unread)
		}
	}
}
