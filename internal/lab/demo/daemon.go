package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/world"
)

// patience is how long mxpolicyd may take to start, or to end. It only decides
// when the demo has failed.
const patience = 20 * time.Second

// strict is the transport that asks for TLS everywhere, and takes REQUIRETLS at
// its word.
const strict = "strict"

// configuration is that of mxpolicyd. What differs from the defaults is what
// makes it live in the lab, the second transport, and time-outs that end the
// demo if something hangs.
const configuration = `hostname: mail.demo.example
state_dir: %[1]s/state
shutdown_timeout: 2s
log: {level: %[2]s, format: text}
dns: {servers: ["%[3]s"], timeout: 2s, attempts: 2}
listen:
  pipe: {path: %[1]s/pipe.sock, mode: "0600"}
  lmtp: {path: %[1]s/lmtp.sock, mode: "0600"}
  socketmap: {path: %[1]s/socketmap.sock, mode: "0600"}
mx_auth:
  outbound:
    dnssec: {}
    dane: {}
    mtasts: {fs_dir: mtasts_cache, https_port: %[4]d}
  strict:
    dnssec: {}
    dane: {}
    mtasts: {fs_dir: mtasts_cache, https_port: %[4]d}
    local_policy: {min_tls_level: encrypted}
transports:
  default:
    mx_auth: outbound
    port: %[5]d
    connect_timeout: 5s
    command_timeout: 5s
    submission_timeout: 5s
    tls_client: {root_ca: [%[1]s/ca.pem]}
  strict:
    mx_auth: strict
    relaxed_requiretls: false
    port: %[5]d
    connect_timeout: 5s
    command_timeout: 5s
    submission_timeout: 5s
    tls_client: {root_ca: [%[1]s/ca.pem]}
`

// daemon is a running mxpolicyd.
type daemon struct {
	config string // its text
	socket string // where mxpipe comes in
	lmtp   string // where mail servers speak LMTP
	// socketmap is where Postfix would ask.
	socketmap string
	logged    string // its log file
	read      int    // bytes of it that were looked at
	cmd       *exec.Cmd
	done      chan struct{}
	err       error // how it ended; read it after done
	once      sync.Once
}

// startDaemon starts mxpolicyd in a world, and returns when it says that it is
// ready.
func startDaemon(ctx context.Context, program, dir string, w *world.World, verbose bool) (*daemon, error) {
	level := "info"
	if verbose {
		level = "debug"
	}
	d := &daemon{
		config:    fmt.Sprintf(configuration, dir, level, w.Resolver(), w.HTTPSPort(), w.Port()),
		socket:    filepath.Join(dir, "pipe.sock"),
		lmtp:      filepath.Join(dir, "lmtp.sock"),
		socketmap: filepath.Join(dir, "socketmap.sock"),
		logged:    filepath.Join(dir, "log"),
		done:      make(chan struct{}),
	}
	file := filepath.Join(dir, "mxpolicyd.yaml")
	if err := errors.Join(w.Authority.WriteRoots(filepath.Join(dir, "ca.pem")), os.WriteFile(file, []byte(d.config), 0o600)); err != nil {
		return nil, err
	}
	notify := filepath.Join(dir, "notify.sock")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	// A file and no pipe: what is logged before mxpipe is answered can be read
	// after.
	log, err := os.OpenFile(d.logged, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d.cmd = exec.Command(program, "serve", "-c", file)
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.cmd.Env = append(ownEnvironment(), "NOTIFY_SOCKET="+notify)
	d.cmd.SysProcAttr = &syscall.SysProcAttr{
		// Ctrl-C is for the demo, which then ends it
		Setpgid:   true,
		Pdeathsig: syscall.SIGKILL, // if the demo is killed
	}
	if err := d.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(d.done)
		d.err = d.cmd.Wait()
		ready.SetReadDeadline(time.Unix(1, 0))
	}()
	if err := d.await(ctx, ready); err != nil {
		d.stop()
		return nil, err
	}
	return d, nil
}

// await waits until the daemon is ready (sd_notify(3)), has ended, or is no
// longer wanted.
func (d *daemon) await(ctx context.Context, ready *net.UnixConn) error {
	ready.SetReadDeadline(time.Now().Add(patience))
	defer context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })()
	buffer := make([]byte, 4096)
	for {
		n, err := ready.Read(buffer)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			return fmt.Errorf("mxpolicyd does not start, its log: %s", strings.Join(d.news(), "\n"))
		case bytes.Contains(buffer[:n], []byte("READY=1")):
			return nil
		}
	}
}

// ownEnvironment is ours without what a supervisor may have told us about
// itself.
func ownEnvironment() (env []string) {
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		switch name {
		case "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "STATE_DIRECTORY":
		default:
			env = append(env, variable)
		}
	}
	return env
}

// news gives the lines that were logged since it was asked last.
func (d *daemon) news() []string {
	text, err := os.ReadFile(d.logged)
	if err != nil {
		return []string{err.Error()}
	}
	fresh := text[d.read:]
	fresh = fresh[:bytes.LastIndexByte(fresh, '\n')+1]
	d.read += len(fresh)
	if len(fresh) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(fresh), "\n"), "\n")
}

// stop ends the daemon as a supervisor would, and waits until it is gone. The
// error says that it did not go well. It may be called more than once.
func (d *daemon) stop() error {
	d.once.Do(func() {
		ended := false
		select {
		case <-d.done:
			ended = true
		default:
		}
		// The error would be that it has ended.
		_ = d.cmd.Process.Signal(syscall.SIGTERM)
		late := time.AfterFunc(patience, func() { _ = d.cmd.Process.Kill() })
		<-d.done
		late.Stop()
		switch {
		case ended:
			d.err = fmt.Errorf("mxpolicyd ended by itself: %w", errors.Join(d.err, errEnded))
		case d.err != nil:
			d.err = fmt.Errorf("mxpolicyd did not end well: %w", d.err)
		}
	})
	return d.err
}

var errEnded = errors.New("it was not told to")
