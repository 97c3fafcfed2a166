package e2e

import (
	"errors"
	"fmt"
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
)

// daemon is an mxpolicyd.
type daemon struct {
	*process
	dir    string
	config string
	socket string // where mxpipe calls
	lmtp   string // where mail servers speak LMTP
	state  string
	log    string
	told   *notices
}

// settings are what a test wants of an mxpolicyd beside the usual, as YAML.
type settings struct {
	program string // the daemon, unless it is that of all tests
	top     string // lines at the top level
	// lines of the default transport, indented by four blanks
	transport string
	state     string   // its directory, unless it is to have an ordinary one
	handover  *os.File // its socket, unless it is to open one itself
	env       []string
}

// startDaemon starts an mxpolicyd for one test.
func startDaemon(t *testing.T, s settings) *daemon {
	t.Helper()
	d, err := lab(t).newDaemon(folder(t), s)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.start(lab(t), s); err != nil {
		t.Fatal(err)
	}
	d.endsWith(t)
	return d
}

// endsWith has the daemon end with a test, and its log shown if that failed.
func (d *daemon) endsWith(t *testing.T) {
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("mxpolicyd:\n%s", tail(d.log))
		}
	})
}

// newDaemon writes the configuration of an mxpolicyd into dir.
func (w *world) newDaemon(dir string, s settings) (*daemon, error) {
	d := &daemon{
		dir: dir, config: filepath.Join(dir, "mxpolicyd.yaml"), socket: filepath.Join(dir, "run", "pipe.sock"), lmtp: filepath.Join(dir, "run", "lmtp.sock"),
		state: filepath.Join(dir, "state"), log: filepath.Join(dir, "mxpolicyd.log"),
	}
	for _, path := range []string{d.state, filepath.Dir(d.socket)} {
		if err := os.Mkdir(path, 0o755); err != nil {
			return nil, err
		}
		if err := os.Chown(path, daemonUser, daemonUser); err != nil {
			return nil, err
		}
	}
	if s.state != "" {
		d.state = s.state
	}
	listen := fmt.Sprintf("listen: {pipe: {path: %s, mode: \"0660\", group: \"%d\"}, lmtp: [{path: %s, mode: \"0666\"}]}\n", d.socket, nobody, d.lmtp)
	if s.handover != nil {
		listen = "listen: {}\n"
	}
	return d, write(d.config, fmt.Sprintf(`hostname: out.e2e.example
state_dir: %s
dns: {servers: ["%s"], timeout: 2s}
%s%s
transports:
  default:
    port: %d
    mx_auth: {dnssec: {}, dane: {}}
%s
`, d.state, w.dns.Addr(), listen, s.top, w.port, s.transport))
}

// start starts the daemon, or starts it once more, and waits until it is ready.
func (d *daemon) start(w *world, s settings) error {
	var err error
	if d.told, err = newNotices(filepath.Join(d.dir, "notify")); err != nil {
		return err
	}
	log, err := os.OpenFile(d.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	if s.program == "" {
		s.program = w.mxpolicyd
	}
	cmd := exec.Command(s.program, "serve", "-c", d.config)
	if s.handover != nil {
		cmd = again("activate", cmd.Args...)
		cmd.ExtraFiles = []*os.File{s.handover}
	} else {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+d.told.path, "GORACE=halt_on_error=0")
	cmd.Env = append(cmd.Env, s.env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: daemonUser, Gid: daemonUser, Groups: []uint32{nobody}}}
	if d.process, err = start("mxpolicyd", cmd); err != nil {
		return err
	}
	if err := d.told.wait("READY=1", d.done); err != nil {
		return errors.Join(fmt.Errorf("mxpolicyd: %w\n%s", err, tail(d.log)), d.stop(syscall.SIGKILL))
	}
	return nil
}

// close ends the daemon if it still runs, and reports what it should not have
// written into its log.
func (d *daemon) close() error {
	var err error
	if !d.ended() {
		err = d.stop(syscall.SIGTERM)
	}
	d.told.close()
	text, readErr := os.ReadFile(d.log)
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if i := strings.Index(string(text), bad); i >= 0 {
			err = errors.Join(err, fmt.Errorf("mxpolicyd wrote:\n%.8000s", text[i:]))
		}
	}
	return errors.Join(err, readErr)
}

// logged waits for a line of the daemon's log.
func (d *daemon) logged(t *testing.T, pattern string) {
	t.Helper()
	re := regexp.MustCompile(pattern)
	await(t, "a line of mxpolicyd's log like "+pattern, func() (string, bool) {
		return "", re.MatchString(logText(d.log))
	}, d.log)
}

// notices is what a service tells systemd (sd_notify(3)).
type notices struct {
	path string
	conn *net.UnixConn
	end  chan struct{}

	mu      sync.Mutex
	got     []string
	changed chan struct{}
}

func newNotices(path string) (*notices, error) {
	os.Remove(path)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notices{path: path, conn: conn, end: make(chan struct{}), changed: make(chan struct{})}
	go n.listen()
	return n, os.Chmod(path, 0o666)
}

func (n *notices) listen() {
	defer close(n.end)
	buf := make([]byte, 8192)
	for {
		k, err := n.conn.Read(buf)
		if err != nil {
			return
		}
		n.mu.Lock()
		n.got = append(n.got, strings.Split(string(buf[:k]), "\n")...)
		close(n.changed)
		n.changed = make(chan struct{})
		n.mu.Unlock()
	}
}

func (n *notices) close() {
	n.conn.Close()
	<-n.end
}

// count tells how often something was said, and gives a channel that closes
// when more is said.
func (n *notices) count(what string) (count int, changed chan struct{}) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.got {
		if s == what {
			count++
		}
	}
	return count, n.changed
}

// wait waits until something was said. It gives up when the service ends.
func (n *notices) wait(what string, ended <-chan struct{}) error {
	late := time.After(patience)
	for {
		count, changed := n.count(what)
		if count > 0 {
			return nil
		}
		select {
		case <-changed:
		case <-ended:
			if count, _ := n.count(what); count > 0 {
				return nil
			}
			return fmt.Errorf("it ended and did not say %s", what)
		case <-late:
			return fmt.Errorf("it did not say %s within %s", what, patience)
		}
	}
}
