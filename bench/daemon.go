package main

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long anything may take to start or to end.
const patience = time.Minute

// daemon is an mxpolicyd.
type daemon struct {
	*child
	dir   string
	pipe  string // its sockets
	table string
	admin string
	start time.Duration // from exec until it was ready
}

// transportConfig is a transport of the configuration.
type transportConfig struct {
	name  string
	port  int
	lines string // more of its keys, one a line
}

// layout is what is to be different in a daemon's configuration.
type layout struct {
	dns        string // host:port; the made-up DNS if empty
	state      string // its state directory; a new one if empty
	sts        string // mtasts, {cache: ram} if empty
	transports []transportConfig
}

// configuration writes the whole of it.
func (b *bench) configuration(d *daemon, l layout) string {
	var text strings.Builder
	fmt.Fprintf(&text, `hostname: out.bench
state_dir: %s
dns: {servers: ["%s"]}
max_deliveries: 4000
listen:
  pipe: {path: %s, mode: "0666"}
  socketmap: {path: %s, mode: "0666"}
  admin: {path: %s, pprof: true}
  lmtp:
`, l.state, l.dns, d.pipe, d.table, d.admin)
	for _, w := range l.transports {
		fmt.Fprintf(&text, "    - {path: %s, mode: \"0666\", transport: %s}\n", d.lmtp(w.name), w.name)
	}
	fmt.Fprintf(&text, "mx_auth:\n  all: {dnssec: {}, dane: {}, mtasts: %s}\ntransports:\n", l.sts)
	for _, w := range l.transports {
		fmt.Fprintf(&text, "  %s:\n    mx_auth: all\n    port: %d\n    tls_client: {root_ca: [%s]}\n", w.name, w.port, filepath.Join(b.dir, "roots.pem"))
		for line := range strings.Lines(w.lines) {
			text.WriteString("    " + strings.TrimSpace(line) + "\n")
		}
	}
	return text.String()
}

// startDaemon starts an mxpolicyd and waits until it is ready.
func (b *bench) startDaemon(l layout) (*daemon, error) {
	dir, err := os.MkdirTemp(b.dir, "mxpolicyd-")
	if err != nil {
		return nil, err
	}
	d := &daemon{
		dir: dir, pipe: filepath.Join(dir, "pipe.sock"), table: filepath.Join(dir, "socketmap.sock"),
		admin: filepath.Join(dir, "admin.sock"),
	}
	if l.state == "" {
		l.state = filepath.Join(dir, "state")
	}
	if l.dns == "" {
		l.dns = b.net.DNS()
	}
	if l.sts == "" {
		l.sts = "{cache: ram}"
	}
	config := filepath.Join(dir, "mxpolicyd.yaml")
	err = errors.Join(os.Chmod(dir, 0o755), b.net.WriteRoots(filepath.Join(b.dir, "roots.pem")),
		os.WriteFile(config, []byte(b.configuration(d, l)), 0o644))
	if err != nil {
		return nil, err
	}
	notify, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	defer notify.Close()
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(b.bin, "mxpolicyd"), "serve", "-c", config)
	cmd.Stderr = log
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
	begin := time.Now()
	if d.child, err = startChild(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	go func() {
		<-d.ended
		notify.Close()
	}()
	if err := awaitReady(notify); err != nil {
		d.stop()
		return nil, fmt.Errorf("mxpolicyd: %w\n%s", err, d.tail())
	}
	d.start = time.Since(begin)
	return d, nil
}

// awaitReady waits for sd_notify's READY=1.
func awaitReady(notify *net.UnixConn) error {
	notify.SetReadDeadline(time.Now().Add(patience))
	buf := make([]byte, 4096)
	for {
		n, err := notify.Read(buf)
		if err != nil {
			return err
		}
		if bytes.Contains(buf[:n], []byte("READY=1")) {
			return nil
		}
	}
}

// tail is the end of the log.
func (d *daemon) tail() string {
	text, _ := os.ReadFile(filepath.Join(d.dir, "log"))
	return string(text[max(0, len(text)-2000):])
}

// lmtp is the socket that leads to a transport.
func (d *daemon) lmtp(transport string) string {
	return filepath.Join(d.dir, "lmtp-"+transport+".sock")
}
