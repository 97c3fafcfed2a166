package policyd

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/go-systemd/v22/activation"

	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

const (
	activatedEnv = "MXPIPE_TEST_ACTIVATED"
	clockEnv     = "MXPIPE_TEST_CLOCK" // how much the clock is ahead
)

// activatedDaemon is the life of a process that systemd started with sockets: a
// daemon with the configuration in a file, until TERM.
func activatedDaemon(file string) {
	// systemd knows it, a test does not
	os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	cfg, err := config.Load(file, config.Environment{})
	if err == nil {
		log := logging.New(cfg.Log, os.Stderr)
		ahead, _ := time.ParseDuration(os.Getenv(clockEnv))
		now := func() time.Time { return time.Now().Add(ahead) }
		var d *Daemon
		if d, err = New(context.Background(), Options{Config: cfg, Sockets: activation.Files(true), Now: now, Log: log}); err == nil {
			ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
			defer stop()
			err = d.Serve(ctx)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// A process of its own gets its sockets from systemd by name. They stay when
// the daemon ends, and hold who comes meanwhile for the next one.
func TestActivation(t *testing.T) {
	l := newLab(t)
	file := filepath.Join(l.dir, "mxpolicyd.yaml")
	text := strings.Replace(l.yaml("", "", ""), l.dir+"/pipe.sock", l.dir+"/unused.sock", 1)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	var files []*os.File
	for _, name := range []string{"admin.sock", "pipe.sock"} {
		s, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(l.dir, name), Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		f, err := s.File()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	client := &running{lab: l}
	var waiting net.Conn
	for range 2 {
		l.systemd.Forget()
		words := testlog.New()
		cmd := exec.Command(os.Args[0])
		cmd.ExtraFiles = files
		cmd.Env = append(os.Environ(), activatedEnv+"="+file, "LISTEN_FDS=2", "LISTEN_FDNAMES=admin:pipe")
		cmd.Stderr = words
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		l.systemd.Wait(t, "READY=1")
		if waiting != nil {
			want(t, answer(waiting), "2.0.0 ")
		}
		want(t, client.send(func(e *wire.Envelope) { e.QueueID = "" }), "2.0.0 ")
		words.Wait(t, "socket=admin")
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%v\n%s", err, words)
		}
		waiting = client.call(nil)
	}
	if _, err := os.Stat(l.dir + "/unused.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the configured socket was opened: %v", err)
	}
}
