package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"
)

// nobody is the user that Postfix runs mxpipe as; the group of the same number
// may use mxpolicyd's socket.
const nobody = 65534

// daemonUser is the user that mxpolicyd runs as: daemon, which every Debian
// has.
const daemonUser = 1

// process is a server that a test started, and ends by its id.
type process struct {
	name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // how it ended; read it after done
}

// start starts a server that dies with the test.
func start(name string, cmd *exec.Cmd) (*process, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, workdirVar+"="+shared.world.dir+"/")
	cmd.SysProcAttr.Setsid = true
	cmd.SysProcAttr.Pdeathsig = syscall.SIGTERM
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	p := &process{name: name, cmd: cmd, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.err = cmd.Wait()
	}()
	return p, nil
}

// stop sends a signal and waits for the end. A server that does not obey is
// killed, which is an error.
func (p *process) stop(sig os.Signal) error {
	p.cmd.Process.Signal(sig)
	select {
	case <-p.done:
		return nil
	case <-time.After(patience):
		p.cmd.Process.Kill()
		<-p.done
		return fmt.Errorf("%s did not end within %s of %s", p.name, patience, sig)
	}
}

// ended reports whether the process is over.
func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// bins are the programs under test.
type bins struct {
	mxpipe, mxpolicyd string
	// an mxpipe that panics where it should hand over the message
	panicking string
}

// build builds the programs, the daemon with the race detector when the tests
// have it.
func build(dir string) (bins, error) {
	b := bins{filepath.Join(dir, "mxpipe"), filepath.Join(dir, "mxpolicyd"), filepath.Join(dir, "mxpipe-panicking")}
	overlay, err := panicOverlay(dir)
	if err == nil {
		err = lookAtSources()
	}
	if err != nil {
		return b, err
	}
	daemon := []string{"-o", b.mxpolicyd}
	if raceDetector() {
		daemon = append(daemon, "-race")
	}
	for _, args := range [][]string{
		append(daemon, "../cmd/mxpolicyd"),
		{"-o", b.mxpipe, "../cmd/mxpipe"},
		{"-o", b.panicking, "-overlay", overlay, "../cmd/mxpipe"},
	} {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		if args[1] != b.mxpolicyd {
			cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			return b, fmt.Errorf("go build %s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return b, nil
}

// lookAtSources has go test know what the programs are made of: it takes a
// result of earlier only if no file has changed that the test looked at, and
// does not know of those that the compiler reads.
func lookAtSources() error {
	return filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // gone meanwhile
			return nil
		case err != nil:
			return err
		case entry.IsDir() && entry.Name() == ".git":
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".go" || entry.Name() == "go.mod" || entry.Name() == "go.sum" {
			_, err = os.Stat(path)
		}
		return err
	})
}

// panicOverlay makes an overlay for go build in which mxpipe panics.
func panicOverlay(dir string) (string, error) {
	const call = "s.finish(s.run())"
	source, err := filepath.Abs("../cmd/mxpipe/main.go")
	if err != nil {
		return "", err
	}
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	if bytes.Count(text, []byte(call)) != 1 {
		return "", fmt.Errorf("%s no longer has the one statement %s to put a panic in front of", source, call)
	}
	changed := filepath.Join(dir, "panicking.go")
	overlay := filepath.Join(dir, "overlay.json")
	return overlay, errors.Join(
		os.WriteFile(changed, bytes.Replace(text, []byte(call), []byte(`println("about to panic"); panic("here")`), 1), 0o644),
		os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace": {%q: %q}}`, source, changed), 0o644),
	)
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// result is how a call of mxpipe ended.
type result struct {
	exit int
	line string
}

func (r result) String() string { return fmt.Sprintf("exit %d: %s", r.exit, r.line) }

// code is the line's first word.
func (r result) code() string { return strings.Fields(r.line + " -")[0] }

// call is a call of mxpipe by the test itself.
type call struct {
	*process
	out bytes.Buffer
}

// mxpipe starts a call with the message on standard input, as the user that
// Postfix would use.
func mxpipe(t *testing.T, d *daemon, message io.Reader, args ...string) *call {
	t.Helper()
	c := &call{}
	cmd := exec.Command(lab(t).mxpipe, append([]string{"--socket", d.socket}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = message, &c.out, &c.out
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	var err error
	if c.process, err = start("mxpipe", cmd); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !c.ended() {
			c.stop(syscall.SIGKILL)
		}
	})
	return c
}

// result waits for the end of the call.
func (c *call) result(t *testing.T) result {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(patience):
		t.Fatalf("mxpipe has not ended after %s", patience)
	}
	return result{c.cmd.ProcessState.ExitCode(), strings.TrimSuffix(c.out.String(), "\n")}
}
