package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/wire"
)

// roleVariable makes the test's own binary play another process.
const roleVariable = "MXPIPE_TEST_ROLE"

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		leaks.VerifyTestMain(m)
	case "mail server":
		playMailServer(os.Args[1:])
	case "parent":
		playParent(os.Args[1:])
	default:
		panic("no such role: " + role)
	}
}

// built is the real program, built once.
var built = sync.OnceValues(func() ([]byte, error) { return build("-ldflags=-X main.version=1.2.3-test") })

func build(args ...string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "mxpipe")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	// go test does not see what go build reads. These reads tell it that a kept
	// result is out of date when the program's sources change.
	for _, source := range []string{"*.go", "../../internal/wire/*.go", "../../transport/status/*.go", "../../go.mod"} {
		files, err := filepath.Glob(source)
		if err != nil {
			return nil, err
		}
		for _, file := range files {
			if _, err := os.ReadFile(file); err != nil {
				return nil, err
			}
		}
	}
	file := filepath.Join(dir, "mxpipe")
	cmd := exec.Command("go", append(append([]string{"build", "-o", file}, args...), ".")...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, errors.New(string(out))
	}
	return os.ReadFile(file)
}

// program writes the real program into the test's own directory.
func program(t *testing.T) string {
	t.Helper()
	return install(t, built)
}

func install(t *testing.T, build func() ([]byte, error)) string {
	t.Helper()
	b, err := build()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "mxpipe")
	if err := forks.WriteFile(file, b, 0o755); err != nil {
		t.Fatal(err)
	}
	return file
}

// ended is how a run of the program ended.
type ended struct {
	stdout, stderr string
	status         int // -1 when a signal ended it
	signal         syscall.Signal
}

// patience bounds everything that a broken program could make wait for ever.
const patience = 2 * time.Minute

// execute runs a program to its end.
func execute(t *testing.T, file string, stdin io.Reader, args ...string) ended {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, file, args...)
	cmd.Stdin = stdin
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%q: %v", args, err)
	}
	if ctx.Err() != nil {
		t.Fatalf("%q did not end", args)
	}
	return ended{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode(), cmd.ProcessState.Sys().(syscall.WaitStatus).Signal()}
}

var lineForm = regexp.MustCompile(`^[245]\.\d{1,3}\.\d{1,3}( [^\x00-\x1f\x7f]*[^\x00-\x20\x7f])?\n$`)

// keepsContract holds a run against what is promised of every one.
func (e ended) keepsContract(t *testing.T) {
	t.Helper()
	if e.stderr != "" {
		t.Errorf("standard error holds %q", e.stderr)
	}
	if !lineForm.MatchString(e.stdout) || len(e.stdout) > 900 {
		t.Errorf("standard output is not one line of at most 900 bytes: %d bytes, %q", len(e.stdout), e.stdout)
		return
	}
	class := map[int]byte{0: '2', 65: '5', 67: '5', 68: '5', 69: '5', 75: '4'}[e.status]
	if e.stdout[0] != class {
		t.Errorf("exit status %d with %q", e.status, e.stdout)
	}
}

// deliver runs the real program on a message and checks the contract.
func deliver(t *testing.T, stdin io.Reader, args ...string) ended {
	t.Helper()
	e := execute(t, program(t), stdin, args...)
	e.keepsContract(t)
	return e
}

// wants checks the exit status and what the line starts with or holds.
func (e ended) wants(t *testing.T, status int, parts ...string) {
	t.Helper()
	if e.status != status {
		t.Errorf("exit status %d, want %d: %q", e.status, status, e.stdout)
	}
	for i, part := range parts {
		if i == 0 && !strings.HasPrefix(e.stdout, part) || !strings.Contains(e.stdout, part) {
			t.Errorf("want %q in %q", part, e.stdout)
		}
	}
}

// serve starts a daemon that treats each connection as told, and returns the
// path of its socket. It ends with the test.
func serve(t *testing.T, treat func(net.Conn)) string {
	t.Helper()
	l, path := listen(t)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer c.Close()
				treat(c)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return path
}

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	// A test's own directory can have too long a name for a socket.
	dir, err := os.MkdirTemp("", "mx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "pipe.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return l, path
}

// request is what a daemon got over one connection.
type request struct {
	envelope wire.Envelope
	message  []byte
	err      error // nil for a committed message
}

func receive(c net.Conn) request {
	var q request
	r := wire.NewReader(c)
	if q.envelope, q.err = r.Envelope(); q.err == nil {
		q.message, q.err = io.ReadAll(r)
	}
	return q
}

// answering is a daemon that answers every committed message alike and passes
// on what it got, for as many requests as got has room for.
func answering(code, text string, got chan<- request) func(net.Conn) {
	return func(c net.Conn) {
		q := receive(c)
		got <- q
		if q.err == nil {
			_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: code, Text: text}))
		}
	}
}
