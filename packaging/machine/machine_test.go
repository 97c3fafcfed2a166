//go:build machine

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long anything may take that a test waits for. It only decides
// when a test has failed.
const patience = 3 * time.Minute

// machine is a Debian that has booted systemd.
type machine struct {
	root   string // its file system
	cmd    *exec.Cmd
	init   string // the id of its process 1, seen from here
	output bytes.Buffer
}

// boot starts a machine for one test: the image, with what changes in a layer
// of its own.
func boot(t *testing.T) *machine {
	t.Helper()
	lower, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(os.Getenv(dirVar), "machine-")
	if err != nil {
		t.Fatal(err)
	}
	for _, sub := range []string{"root", "upper", "work"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	m := &machine{root: filepath.Join(dir, "root")}
	layers := fmt.Sprintf("lowerdir=%s,upperdir=%s/upper,workdir=%s/work", lower, dir, dir)
	if err := unix.Mount("overlay", m.root, "overlay", 0, layers); err != nil {
		t.Fatalf("mounting %s: %v", layers, err)
	}
	t.Cleanup(func() {
		if err := errors.Join(unix.Unmount(m.root, unix.MNT_DETACH), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
	})
	m.file(t, "/etc/hostname", "mail\n")
	m.file(t, "/etc/hosts", "127.0.0.1 localhost\n127.0.1.1 mail.machine.example mail\n")
	for _, version := range []string{older, newer} {
		m.copyIn(t, debFile(version))
	}

	args := []string{"--quiet", "--boot", "--register=no", "--console=pipe", "--rlimit=NOFILE=524288", "--directory=" + m.root}
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		args = append(args, "--keep-unit") // no one here to ask for another
	}
	m.cmd = exec.Command("systemd-nspawn", args...)
	m.cmd.Stdout, m.cmd.Stderr = &m.output, &m.output
	m.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	// The signal above comes when this thread ends, not only the process.
	runtime.LockOSThread()
	if err := m.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.shutdown(t) })
	id := m.cmd.Process.Pid
	// For a moment nspawn has another child, which makes the one that counts.
	m.init = await(t, "the machine's process 1", func() (string, bool) {
		children, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", id, id))
		child := strings.TrimSpace(string(children))
		status, err := os.ReadFile("/proc/" + child + "/status")
		return child, err == nil && strings.Contains(string(status), "\nNSpid:\t"+child+"\t1\n")
	})
	await(t, "the machine's start", func() (string, bool) {
		out, _ := m.try("systemctl", "is-system-running")
		return out, strings.HasPrefix(out, "running") || strings.HasPrefix(out, "degraded")
	})
	return m
}

// shutdown has the machine end in good order.
func (m *machine) shutdown(t *testing.T) {
	if t.Failed() {
		out, _ := m.try("journalctl", "--no-pager", "-q", "-o", "cat", "-n", "150")
		t.Logf("the machine's journal:\n%s", out)
	}
	m.cmd.Process.Signal(syscall.SIGTERM) // nspawn tells process 1
	late := time.AfterFunc(patience, func() { m.cmd.Process.Kill() })
	defer late.Stop()
	_ = m.cmd.Wait()
}

// debFile is where a version's package lies.
func debFile(version string) string {
	return filepath.Join(os.Getenv(dirVar), "packages", "mxpipe_"+version+"-1_"+runtime.GOARCH+".deb")
}

// copyIn copies a file to the machine's /root.
func (m *machine) copyIn(t *testing.T, path string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m.file(t, "/root/"+filepath.Base(path), string(text))
}

// file writes a file of the machine.
func (m *machine) file(t *testing.T, path, text string) {
	t.Helper()
	full := filepath.Join(m.root, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(full), 0o755), os.WriteFile(full, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

// try runs a command in the machine, as its root, and gives what it printed.
func (m *machine) try(name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	all := append([]string{"--target", m.init, "--mount", "--uts", "--ipc", "--pid", "--", "env", "-i",
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "HOME=/root", name}, args...)
	out, err := exec.CommandContext(ctx, "nsenter", all...).CombinedOutput()
	return string(out), err
}

// run runs a command that must succeed.
func (m *machine) run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := m.try(name, args...)
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return out
}

// sh runs lines as an administrator would type them.
func (m *machine) sh(t *testing.T, script string) string {
	t.Helper()
	return m.run(t, "sh", "-euc", script)
}

// install installs a version as the README says.
func (m *machine) install(t *testing.T, version string) {
	t.Helper()
	m.sh(t, "cd /root && apt-get install -y --allow-downgrades ./mxpipe_"+version+"-1_*.deb")
	if got := m.run(t, "mxpolicyd", "version"); got != "mxpolicyd v"+version+"\n" {
		t.Fatalf("after the installation of %s there is %q", version, got)
	}
}

// active tells the state of a unit.
func (m *machine) active(unit string) string {
	out, _ := m.try("systemctl", "is-active", unit)
	return strings.TrimSpace(out)
}

// daemon gives the id of the running mxpolicyd, 0 when there is none.
func (m *machine) daemon(t *testing.T) int {
	t.Helper()
	id, err := strconv.Atoi(strings.TrimSpace(m.run(t, "systemctl", "show", "-p", "MainPID", "--value", "mxpolicyd.service")))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// journal gives the lines of a unit.
func (m *machine) journal(t *testing.T, unit string) string {
	t.Helper()
	return m.run(t, "journalctl", "--no-pager", "-q", "-o", "cat", "-u", unit)
}

// await asks until the answer is yes, and gives it back.
func await[T any](t *testing.T, what string, ask func() (T, bool)) T {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		got, ok := ask()
		if ok {
			return got
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain for %s; last seen: %v", patience, what, got)
		}
	}
}
