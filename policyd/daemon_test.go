package policyd

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/listen"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

// A message comes in at the socket and arrives at the mail server; the log and
// systemd hear of it all.
func TestServe(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	want(t, r.send(nil), "2.0.0 mx.a.example: 250 ", "127.0.0.1", "plaintext")
	if got := l.mx.Messages(); len(got) != 1 || got[0].Sender != "s@example.org" || got[0].Hello != "client.example" {
		t.Errorf("the server has %+v", got)
	}
	want(t, l.logged.Wait(t, "msg=serving"), "", "socket=pipe", "address="+l.dir+"/pipe.sock")
	want(t, l.logged.Wait(t, "msg=delivered"), "", "queue_id=4XyZ", "uid="+strconv.Itoa(os.Getuid()), "pid="+strconv.Itoa(os.Getpid()))
	if n := l.systemd.Count("STOPPING=1"); n != 0 {
		t.Error("said STOPPING=1 while it was to run")
	}
	r.end()
	l.systemd.Wait(t, "STOPPING=1")
	l.systemd.Wait(t, "EXTEND_TIMEOUT_USEC=60000000")
	l.logged.Wait(t, "msg=stopped")
	if _, err := os.Stat(l.dir + "/pipe.sock"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is still there: %v", err)
	}
}

// What is sent for no one: no daemon without a socket.
func TestNoSocket(t *testing.T) {
	l := newLab(t)
	cfg := l.parse(strings.Replace(l.yaml("", "", ""), "listen:", "listen: {} #", 1))
	log := logging.New(cfg.Log, l.logged)
	if _, err := New(t.Context(), Options{Config: cfg, Log: log}); !errors.Is(err, listen.ErrNoSocket) {
		t.Errorf("%v", err)
	}
	if n := l.systemd.Count("READY=1"); n != 0 {
		t.Error("said READY=1")
	}
}

// TERM: a delivery under way ends, a message that comes later is not taken.
func TestTermLetsDeliveriesEnd(t *testing.T) {
	l := newLab(t)
	release := l.hold(mx.StageFinal)
	defer release()
	r := l.daemon(l.yaml("", "", ""))
	conn := r.call(nil)
	l.until("DATA", func(c mx.Counters) bool { return c.Verbs["DATA"] == 1 })
	idle, err := net.Dial("unix", l.dir+"/pipe.sock")
	if err != nil {
		t.Fatal(err)
	}
	r.stop()
	l.systemd.Wait(t, "STOPPING=1")
	if got := answer(idle); strings.HasPrefix(got, "2") || strings.HasPrefix(got, "5") {
		t.Errorf("a connection without a word: %q", got)
	}
	release()
	want(t, answer(conn), "2.0.0 ")
	r.end()
}

// TERM: what does not end within shutdown_timeout is cancelled, wherever it is,
// and whatever configuration it belongs to.
func TestTermGivesUp(t *testing.T) {
	for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageRCPT, mx.StageFinal} {
		for _, reloaded := range []bool{false, true} {
			t.Run(stage.String()+" "+strconv.FormatBool(reloaded), func(t *testing.T) {
				l := newLab(t)
				release := l.hold(stage)
				defer release()
				r := l.daemon(l.yaml("shutdown_timeout: 0s", "", ""))
				conn := r.call(nil)
				l.until("the stage", func(c mx.Counters) bool {
					return stage == mx.StageGreeting && c.Connections == 1 || c.Verbs["RCPT"] == 1 && (stage == mx.StageRCPT || c.Verbs["DATA"] == 1)
				})
				if reloaded {
					r.reload(l.yaml("shutdown_timeout: 0s", "    hostname: other.example", ""), "configuration reloaded")
				}
				r.stop()
				want(t, answer(conn), "4.", "mxpolicyd is stopping")
				r.end()
			})
		}
	}
}

// The socket fails while the daemon runs: it ends in good order, and says why.
func TestSocketFails(t *testing.T) {
	l := newLab(t)
	release := l.hold(mx.StageFinal)
	defer release()
	r := l.daemon(l.yaml("", "", ""))
	conn := r.call(nil)
	l.until("DATA", func(c mx.Counters) bool { return c.Verbs["DATA"] == 1 })
	spoilSocket(t, l.dir+"/pipe.sock")
	// The kernel wakes nothing that waits for a connection; the watchdog does.
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
	l.systemd.Wait(t, "STOPPING=1")
	release()
	want(t, answer(conn), "2.0.0 ")
	err := <-r.ended
	r.ended <- nil
	if !errors.Is(err, syscall.ENOTSOCK) {
		t.Errorf("Serve: %v", err)
	}
	want(t, l.logged.Wait(t, "a socket failed"), "", "level=ERROR")
}

// spoilSocket puts something else in the place of a listening socket of this
// process, so that accept(2) fails with ENOTSOCK.
func spoilSocket(t *testing.T, path string) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		name, err := unix.Getsockname(fd)
		if u, ok := name.(*unix.SockaddrUnix); err != nil || !ok || u.Name != path {
			continue
		}
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			if err := unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatal("there is no such socket")
}

// The state directory: what cannot be read is a mistake, what cannot be
// written is logged, and mail goes on.
func TestStateDirectory(t *testing.T) {
	try := func(l *lab) error {
		if os.Mkdir(l.dir+"/run", 0o700) == nil {
			// whatever the umask
			if err := os.Chmod(l.dir+"/run", 0o777); err != nil {
				return err
			}
		}
		cfg := l.parse(strings.Replace(l.yaml("", "", ""), "/pipe.sock", "/run/pipe.sock", 1))
		log := logging.New(cfg.Log, l.logged)
		d, err := New(t.Context(), Options{Config: cfg, Log: log})
		if err == nil {
			d.close()
		}
		return err
	}
	t.Run("a file", func(t *testing.T) {
		l := newLab(t)
		if err := os.WriteFile(l.dir+"/state", nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := try(l); !errors.Is(err, syscall.ENOTDIR) {
			t.Errorf("%v", err)
		}
	})
	t.Run("private", func(t *testing.T) {
		l := newLab(t)
		if err := try(l); err != nil {
			t.Fatal(err)
		}
		for _, dir := range []string{"state", "state/served"} {
			if info, err := os.Stat(filepath.Join(l.dir, dir)); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("%s: %v, %v", dir, info, err)
			}
		}
	})
	t.Run("of somebody else", func(t *testing.T) {
		l := newLab(t)
		if err := try(l); err != nil {
			t.Fatal(err)
		}
		asNobody(t, l, 0o000, func() {
			if err := try(l); !errors.Is(err, fs.ErrPermission) {
				t.Errorf("%v", err)
			}
		})
	})
	t.Run("read-only", func(t *testing.T) {
		l := newLab(t)
		if err := try(l); err != nil {
			t.Fatal(err)
		}
		asNobody(t, l, 0o555, func() {
			if err := try(l); err != nil {
				t.Errorf("%v", err)
			}
		})
		want(t, l.logged.Wait(t, "cannot be written"), "", "level=ERROR", "permission denied")
	})
}

// asNobody runs f with the rights of a user who may do with the state directory
// what mode says.
func asNobody(t *testing.T, l *lab, mode fs.FileMode, f func()) {
	t.Helper()
	for _, dir := range []string{"state/served", "state"} {
		if err := os.Chmod(filepath.Join(l.dir, dir), mode); err != nil {
			t.Fatal(err)
		}
		// or it could not be removed
		defer os.Chmod(filepath.Join(l.dir, dir), 0o700)
	}
	for dir := l.dir; dir != "/"; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			t.Fatal(err)
		}
		if os.Getuid() == 0 && info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(dir, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(dir, info.Mode().Perm()) })
		}
	}
	if os.Getuid() != 0 {
		f() // the modes hold for us
		return
	}
	// Files are opened by this thread with the rights of nobody meanwhile.
	const nobody = 65534
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Setfsuid(nobody)
	defer unix.Setfsuid(0)
	f()
}

// The watchdog is told of a healthy daemon, again and again.
func TestWatchdog(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000")
	l := newLab(t)
	l.daemon(l.yaml("", "", ""))
	for range 3 {
		l.systemd.Wait(t, "WATCHDOG=1")
		l.systemd.Forget()
	}
}

// Places that are all taken are no reason to end a daemon: a client that comes
// hears 4.3.2, and the watchdog that all is well.
func TestWatchdogBusy(t *testing.T) {
	l := newLab(t)
	release := l.hold(mx.StageFinal)
	defer release()
	r := l.daemon(l.yaml("max_deliveries: 1", "", ""))
	conn := r.call(nil)
	l.until("DATA", func(c mx.Counters) bool { return c.Verbs["DATA"] == 1 })
	want(t, r.send(func(e *wire.Envelope) { e.QueueID = "other" }), "4.3.2 ", "max_deliveries")
	if err := r.healthy(t.Context()); err != nil {
		t.Errorf("with every place taken: %v", err)
	}
	release()
	want(t, answer(conn), "2.0.0 ")
}

// It is not told of one that will never deliver anything any more.
func TestWatchdogUnhealthy(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "20000")
	l := newLab(t)
	d := &Daemon{log: slog.New(slog.NewTextHandler(l.logged, nil))}
	r := l.daemon(l.yaml("", "", ""))
	// of which no delivery is overdue; d has no place for more
	d.dispatcher = r.dispatcher
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	if err := r.healthy(ctx); err != nil {
		t.Errorf("the healthy one: %v", err)
	}
	r.end()
	r.notify("STATUS=over") // comes after all that it has said
	l.systemd.Wait(t, "STATUS=over")
	l.systemd.Forget()
	var err error
	if d.served, d.runtime = r.served, r.runtime; d.healthy(ctx) != errWedged {
		t.Errorf("%v", err)
	}
	go func() {
		defer close(done)
		d.watchdog(ctx)
	}()
	for range 3 {
		want(t, l.logged.Wait(t, "not healthy"), "", "level=ERROR", errWedged.Error())
		l.logged.Forget()
	}
	cancel()
	<-done
	if n := l.systemd.Count("WATCHDOG=1"); n != 0 {
		t.Errorf("systemd was told %d times that it lives", n)
	}
}

func TestWatchdogMisconfigured(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "soon")
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	l.logged.Wait(t, "watchdog disabled")
	want(t, r.send(nil), "2.0.0 ")
}

// Without systemd nothing is said, and nothing is logged about it.
func TestWithoutSystemd(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	words := testlog.New()
	d := &Daemon{log: slog.New(slog.NewTextHandler(words, nil))}
	d.ready()
	if got := words.String(); got != "" {
		t.Error(got)
	}
	t.Setenv("NOTIFY_SOCKET", t.TempDir()+"/gone")
	d.ready()
	words.Wait(t, "cannot notify systemd")
}
