package main

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/config"
)

func TestMain(m *testing.M) {
	leaks.VerifyTestMain(m, goleak.IgnoreTopFunction("os/signal.signal_recv"), goleak.IgnoreTopFunction("os/signal.loop"))
}

// run runs the command as main does.
func run(args ...string) (out string, err error) {
	var b bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&b)
	c.SetErr(&b)
	err = c.Execute()
	return b.String(), err
}

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mxpolicyd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestVersion(t *testing.T) {
	if out, err := run("version"); out != "mxpolicyd dev\n" || err != nil {
		t.Errorf("%q, %v", out, err)
	}
}

func TestCheckConfig(t *testing.T) {
	good := file(t, "hostname: mx.example.org\n")
	for _, args := range [][]string{{"-c", good, "check-config"}, {"check-config", "--config", good}} {
		if out, err := run(args...); out != "" || err != nil {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
	bad := file(t, "hostname: mx.example.org\nnosuch: 1\nmax_deliveries: many\n")
	_, err := run("check-config", "-c", bad)
	var mistakes config.Mistakes
	if !errors.As(err, &mistakes) || len(mistakes) != 2 {
		t.Fatalf("%v", err)
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], bad+":2:") || !strings.HasPrefix(lines[1], bad+":3:") {
		t.Errorf("%q", lines)
	}
}

// What is hardly meant is said, and is no mistake.
func TestCheckConfigWarns(t *testing.T) {
	path := file(t, "hostname: mx.example.org\ndns: {servers: [127.0.0.1]}\ntransports: {default: {}}\n")
	if out, err := run("check-config", "-c", path); err != nil || !strings.HasPrefix(out, "warning: "+path+":3:23: transports.default has no mx_auth") {
		t.Errorf("%q, %v", out, err)
	}
}

// What serve would refuse is a mistake, although the file is well written.
func TestCheckConfigTries(t *testing.T) {
	taken := file(t, "no socket")
	for text, want := range map[string]string{
		"listen: {pipe: {path: " + taken + "}}":                                       "the file there is not a socket",
		"listen: {socketmap: {address: '0.0.0.0:8461'}}":                              "not a loopback address",
		"listen: {pipe: {group: no-such-group}}":                                      `there is not a group "no-such-group"`,
		"transports: {default: {tls_client: {root_ca: " + filepath.Dir(taken) + "}}}": "not a regular file",
	} {
		path := file(t, "hostname: mx.example.org\ndns: {servers: [127.0.0.1]}\n"+text+"\n")
		if out, err := run("check-config", "-c", path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", text, out, err)
		}
	}
}

// A file that was asked for must be there, to check it and to serve by it.
func TestNoFile(t *testing.T) {
	for _, cmd := range []string{"check-config", "serve"} {
		if _, err := run(cmd, "-c", filepath.Join(t.TempDir(), "gone.yaml")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", cmd, err)
		}
	}
}

// Mistakes on the command line are errors, and are not printed twice.
func TestWrongUse(t *testing.T) {
	for _, args := range [][]string{
		{"nosuch"}, {"--nosuch"}, {"serve", "--nosuch"}, {"serve", "more"}, {"check-config", "more"}, {"version", "more"}, {"-c"},
	} {
		if out, err := run(args...); err == nil || out != "" {
			t.Errorf("%v: %q, %v", args, out, err)
		}
	}
}

// A configuration by which nothing can be served.
func TestServeFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/state", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	path := file(t, "hostname: mx.example.org\ndns: {servers: [127.0.0.1]}\nstate_dir: "+dir+"/state\n")
	if _, err := run("serve", "-c", path); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
}

// The signals: HUP has the file read again, TERM and INT end the daemon.
func TestSignals(t *testing.T) {
	for _, end := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(end.String(), func(t *testing.T) {
			dir := t.TempDir()
			conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(time.Minute))
			t.Setenv("NOTIFY_SOCKET", dir+"/notify")
			heard := func(what string) {
				t.Helper()
				buf := make([]byte, 1024)
				for {
					n, err := conn.Read(buf)
					if err != nil {
						t.Fatalf("waiting for %s: %v", what, err)
					}
					if strings.Contains(string(buf[:n]), what) {
						return
					}
				}
			}
			text := "hostname: mx.example.org\ndns: {servers: [127.0.0.1]}\nlog: {level: error}\nstate_dir: " + dir + "/state\nlisten: {pipe: {path: " + dir + "/pipe.sock}}\n"
			path := file(t, text)
			done := make(chan error, 1)
			go func() {
				_, err := run("serve", "-c", path)
				done <- err
			}()
			heard("READY=1")
			if err := os.WriteFile(path, []byte(text+"nosuch: 1\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			syscall.Kill(os.Getpid(), syscall.SIGHUP)
			heard("wrong and not in use")
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			syscall.Kill(os.Getpid(), syscall.SIGHUP)
			heard("STATUS=delivering mail")
			syscall.Kill(os.Getpid(), end)
			heard("STOPPING=1")
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}
