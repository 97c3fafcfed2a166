package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// roleVar names, in the environment, the part that this program plays when a
// test starts it once more.
const roleVar = "MXPIPE_E2E_ROLE"

// patience is how long anything may take that a test waits for. It only decides
// when a test has failed.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVar); role {
	case "":
		code := m.Run()
		if err := closeLab(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			code = max(code, 1)
		}
		os.Exit(code)
	case "caretaker":
		caretaker(os.Args[1])
	case "writer":
		writer()
	case "activate":
		activate()
	case "inside":
		inside()
	case "rooted":
		rooted()
	default:
		fmt.Fprintln(os.Stderr, "e2e: no such role:", role)
		os.Exit(1)
	}
}

// again returns the command that starts this program once more, in another
// role.
func again(role string, args ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), roleVar+"="+role)
	if role != "caretaker" {
		cmd.Env = append(cmd.Env, workdirVar+"="+shared.world.dir+"/")
	}
	return cmd
}

// workdir is the directory that everything lives in, and the caretaker, a
// process that clears it away.
type workdir struct {
	dir   string
	bye   io.Closer
	cmd   *exec.Cmd
	texts strings.Builder
}

// newWorkdir makes the directory. Postfix's users must get through it.
func newWorkdir() (*workdir, error) {
	dir, err := os.MkdirTemp("", "mxpipe-e2e-")
	if err != nil {
		return nil, err
	}
	w := &workdir{dir: dir, cmd: again("caretaker", dir)}
	w.cmd.Stderr = &w.texts
	// it outlives an interrupt from the keyboard
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if w.bye, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	return w, errors.Join(os.Chmod(dir, 0o755), w.cmd.Start())
}

func (w *workdir) close() error {
	w.bye.Close()
	if err := w.cmd.Wait(); err != nil {
		return fmt.Errorf("clearing away %s: %w: %s", w.dir, err, w.texts.String())
	}
	return nil
}

// workdirVar names, in the environment of whatever a test starts, the directory
// that it works in. Postfix hands on no such variable to its processes, but the
// place of its configuration.
const workdirVar = "MXPIPE_E2E_WORKDIR"

// processesIn lists the processes that a test started in its directory, and
// those started by them.
func processesIn(dir string) (found []int) {
	for _, pid := range processes() {
		if pid == os.Getpid() {
			continue
		}
		for variable := range strings.SplitSeq(environ(pid), "\x00") {
			name, value, _ := strings.Cut(variable, "=")
			if (name == workdirVar || name == "MAIL_CONFIG") && strings.HasPrefix(value, dir+"/") {
				found = append(found, pid)
				break
			}
		}
	}
	return found
}

// leftovers reports processes that are there although everything was ended. The
// last of them may take a moment to go.
func (w *workdir) leftovers() error {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		found := processesIn(w.dir)
		if found == nil {
			return nil
		}
		if time.Now().After(deadline) {
			var commands []string
			for _, pid := range found {
				commands = append(commands, strings.ReplaceAll(cmdline(pid), "\x00", " "))
			}
			return fmt.Errorf("processes were left behind: %q", commands)
		}
	}
}

// caretaker waits until the test has ended, in whatever way, and leaves nothing
// behind. After a crash there are processes to be ended first.
func caretaker(dir string) {
	io.Copy(io.Discard, os.Stdin)
	var err error
	for range 100 {
		for _, pid := range processesIn(dir) {
			syscall.Kill(pid, syscall.SIGKILL)
		}
		mounts, _ := os.ReadFile("/proc/self/mounts")
		for line := range strings.Lines(string(mounts)) {
			if fields := strings.Fields(line); len(fields) > 1 && strings.HasPrefix(fields[1], dir+"/") {
				unix.Unmount(fields[1], unix.MNT_DETACH)
			}
		}
		if err = os.RemoveAll(dir); err == nil && processesIn(dir) == nil {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	fmt.Fprintln(os.Stderr, "processes or files remain:", processesIn(dir), err)
	os.Exit(1)
}

// folder makes a directory for one test, gone when it ends. Everybody may enter
// it, unlike that of testing.T.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp(lab(t).dir, "test-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// await asks until the answer is yes, and gives it back. It fails the test when
// none comes, and shows the files at hand.
func await[T any](t *testing.T, what string, ask func() (T, bool), files ...string) T {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		got, ok := ask()
		if ok {
			return got
		}
		if time.Now().After(deadline) {
			for _, path := range files {
				t.Logf("%s:\n%s", filepath.Base(path), tail(path))
			}
			t.Fatalf("waited %s in vain for %s; last seen: %v", patience, what, got)
		}
	}
}

// logText gives the lines of a log. One that is being written may be seen in
// part, and is left for the next look.
func logText(path string) string {
	text, _ := os.ReadFile(path) // none is one without lines
	return string(text[:bytes.LastIndexByte(text, '\n')+1])
}

// tail gives the end of a log.
func tail(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	const most = 20_000
	return string(text[max(0, len(text)-most):])
}

// write writes a file that everybody may read.
func write(path, text string) error { return os.WriteFile(path, []byte(text), 0o644) }
