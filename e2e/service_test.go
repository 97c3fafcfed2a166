package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/policyd/doctor"
)

// short is a message for mxpipe.
func short() *strings.Reader { return strings.NewReader("Subject: short\n\nText.\n") }

// held starts a server that holds its reply at a stage, and a way to let it go
// on.
func held(t *testing.T, stage mx.Stage) (s *mx.Server, domain string, release func()) {
	t.Helper()
	behaviour := modern(t)
	behaviour.Keywords &^= mx.Pipelining | mx.Chunking
	gate := make(chan struct{})
	behaviour.At = map[mx.Stage]mx.Action{stage: {Hold: gate}}
	s, domain = remote(t, "held", behaviour)
	return s, domain, func() { close(gate) }
}

// reached waits until a server has seen a command.
func reached(t *testing.T, s *mx.Server, verb string, files ...string) {
	t.Helper()
	await(t, verb, func() (int, bool) { n := s.Counters().Verbs[verb]; return n, n > 0 }, files...)
}

// sd_notify(3): systemd hears when the daemon is ready, that it lives, and that
// it is about to end.
func TestServiceNotices(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{env: []string{"WATCHDOG_USEC=100000"}})
	for _, what := range []string{"READY=1", "STATUS=delivering mail"} {
		if n, _ := d.told.count(what); n != 1 {
			t.Errorf("said %s %d times when it was ready", what, n)
		}
	}
	if n, _ := d.told.count("STOPPING=1"); n != 0 {
		t.Error("said STOPPING=1 while it was to run")
	}
	await(t, "the third WATCHDOG=1", func() (int, bool) {
		n, _ := d.told.count("WATCHDOG=1")
		return n, n >= 3
	}, d.log)
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := d.told.wait("STOPPING=1", d.done); err != nil {
		t.Error(err)
	}
	if d.err != nil {
		t.Errorf("after TERM it ended with %v", d.err)
	}
}

// A socket handed over by name is served, stays when the daemon ends, and holds
// what comes meanwhile for the next one.
func TestSocketActivation(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "activated", modern(t))
	path := filepath.Join(folder(t), "pipe.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	file, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	handed := settings{handover: file}
	d := startDaemon(t, handed)
	d.socket = path
	args := []string{"-f", "a@" + keepDomain, "b@" + domain}
	if r := mxpipe(t, d, short(), args...).result(t); r.exit != 0 {
		t.Fatalf("mxpipe: %s", r)
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("the daemon took the socket with it: %v", err)
	}
	meanwhile := mxpipe(t, d, short(), args...)
	d.told.close()
	if err := d.start(lab(t), handed); err != nil {
		t.Fatal(err)
	}
	if r := meanwhile.result(t); r.exit != 0 {
		t.Errorf("a message that came between two daemons: %s", r)
	}
	if n := s.Counters().Messages; n != 2 {
		t.Errorf("%d messages were delivered, want 2", n)
	}
}

// The same with systemd's own tool, which starts the daemon when the first
// mxpipe calls. Where the tool is not installed the test before this one has
// proved the same with a stand-in.
func TestSystemdSocketActivate(t *testing.T) {
	t.Parallel()
	tool, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Log("no systemd-socket-activate here; TestSocketActivation plays its part")
		return
	}
	w := lab(t)
	_, domain := remote(t, "activated", modern(t))
	// only for a configuration that opens no socket itself
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d, err := w.newDaemon(folder(t), settings{handover: file})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	cmd := exec.Command(tool, "--listen="+d.socket, "--fdname=pipe", "--setenv="+workdirVar, w.mxpolicyd, "serve", "-c", d.config)
	cmd.Stdout, cmd.Stderr = &log, &log
	if d.process, err = start("systemd-socket-activate", cmd); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := d.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(log.String())
		}
	}()
	await(t, "the socket", func() (map[string]bool, bool) {
		// Its name is there before anybody listens; a call to find that out
		// would start the daemon.
		sockets, err := doctor.System(nil).Listening()
		if err != nil {
			t.Fatal(err)
		}
		return sockets, sockets[d.socket]
	})
	if err := os.Chmod(d.socket, 0o666); err != nil {
		t.Fatal(err)
	}
	if r := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+domain).result(t); r.exit != 0 {
		t.Errorf("mxpipe: %s", r)
	}
}

// TERM: what is under way may end, new calls are not taken.
func TestTermLetsDeliveriesEnd(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{})
	s, domain, release := held(t, mx.StageFinal)
	call := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+domain)
	reached(t, s, "DATA", d.log)
	d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.told.wait("STOPPING=1", d.done); err != nil {
		t.Fatal(err)
	}
	if r := mxpipe(t, d, short(), "-f", "late@"+keepDomain, "b@"+domain).result(t); r.exit != 75 || r.code() != "4.3.2" {
		t.Errorf("a call after TERM: %s", r)
	}
	release()
	if r := call.result(t); r.exit != 0 {
		t.Errorf("the call before TERM: %s", r)
	}
	await(t, "the end of the daemon", func() (bool, bool) { return false, d.ended() }, d.log)
	if d.err != nil {
		t.Errorf("the daemon ended with %v", d.err)
	}
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}

// TERM: what does not end within shutdown_timeout is given up, and stays with
// the mail server.
func TestTermGivesUpInTheEnd(t *testing.T) {
	t.Parallel()
	for name, stage := range map[string]mx.Stage{"RCPT": mx.StageRCPT, "DATA": mx.StageFinal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := startDaemon(t, settings{top: "shutdown_timeout: 1s"})
			s, domain, release := held(t, stage)
			defer release()
			call := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+domain)
			reached(t, s, name, d.log)
			if err := d.stop(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			if r := call.result(t); r.exit != 75 || r.code()[0] != '4' || !strings.Contains(r.line, "mxpolicyd is stopping") {
				t.Errorf("mxpipe: %s", r)
			}
			if d.err != nil {
				t.Errorf("the daemon ended with %v", d.err)
			}
		})
	}
}

// max_deliveries: 1: a second message waits for its turn, and comes back later
// when there is none.
func TestMaxDeliveries(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{top: "max_deliveries: 1"})
	s, domain, release := held(t, mx.StageFinal)
	_, free := remote(t, "free", modern(t))
	first := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+domain)
	reached(t, s, "DATA", d.log)
	if r := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+free).result(t); r.exit != 75 || r.code() != "4.3.2" {
		t.Errorf("the second: %s", r)
	}
	waiting := mxpipe(t, d, short(), "-f", "a@"+keepDomain, "b@"+free)
	release()
	if r := first.result(t); r.exit != 0 {
		t.Errorf("the first: %s", r)
	}
	if r := waiting.result(t); r.exit != 0 {
		t.Errorf("one that waited: %s", r)
	}
}

// max_message_size: a larger message is refused for good, one of that size is
// not.
func TestMaxMessageSize(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{top: "max_message_size: 100KiB"})
	s, domain := remote(t, "sized", modern(t))
	const head = "Subject: size\n\n" // grows by a CR for each line on its way
	for size, want := range map[int]result{100 << 10: {exit: 0, line: "2"}, 100<<10 + 1: {exit: 69, line: "5.3.4"}, 10 << 20: {exit: 69, line: "5.3.4"}} {
		fill := size - len(head) - 2
		var b strings.Builder
		b.WriteString(head)
		for fill > 0 {
			n := min(fill, 72)
			b.WriteString(strings.Repeat("x", n-2) + "\n")
			fill -= n
		}
		call := mxpipe(t, d, strings.NewReader(b.String()), "-f", "a@"+keepDomain, "b@"+domain)
		if r := call.result(t); r.exit != want.exit || !strings.HasPrefix(r.line, want.line) {
			t.Errorf("%d bytes: %s", size, r)
		}
	}
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}

// smallDisk mounts a disk of so many bytes for mxpolicyd.
func smallDisk(t *testing.T, space int) string {
	t.Helper()
	disk := filepath.Join(folder(t), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	options := fmt.Sprintf("size=%d,uid=%d,gid=%d,mode=700", space, daemonUser, daemonUser)
	if err := unix.Mount("tmpfs", disk, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		t.Fatalf("mounting a small disk: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(disk, 0); err != nil {
			t.Errorf("unmounting: %v", err)
		}
	})
	return disk
}

// A full disk is our own trouble: the mail server keeps what does not fit into
// memory, and the rest goes on.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "full", modern(t))
	disk := smallDisk(t, 512<<10)
	d := startDaemon(t, settings{state: disk})
	send := func(size int) result {
		t.Helper()
		text := "Subject: size\n\n" + strings.Repeat("0123456789abcdef\n", size/17)
		return mxpipe(t, d, strings.NewReader(text), "-f", "a@"+keepDomain, "b@"+domain).result(t)
	}
	if r := send(2 << 20); r.exit != 75 || r.code() != "4.3.1" || !strings.Contains(r.line, "no space left") {
		t.Errorf("2 MiB on a disk of 512 KiB: %s", r)
	}
	if r := send(200 << 10); r.exit != 0 {
		t.Errorf("200 KiB, which fit into memory: %s", r)
	}
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}
