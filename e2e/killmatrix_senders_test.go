package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// killWay is a way from a mail server to mxpolicyd.
type killWay struct {
	name       string
	exim, lmtp bool
}

var killWays = []killWay{{"Postfix pipe", false, false}, {"Postfix LMTP", false, true}, {"Exim pipe", true, false}, {"Exim LMTP", true, true}}

// sender is a mail server that a test ends and starts again.
type sender interface {
	mailServer
	// stop has it stop, by its own means, and waits for its end.
	stop(t *testing.T)
	// start starts it again.
	start(t *testing.T)
	// flush has it try all that is in its queue.
	flush(t *testing.T)
	// gone reports whether it has let a message go.
	gone(id string) bool
	// lmtpClients are the processes that speak LMTP to mxpolicyd.
	lmtpClients() []int
}

// start starts the mail server. Its mxpipe ignores SIGHUP, which the kernel
// sends to a process that is stopped when its parent dies: it must not be that
// which ends it.
func (way killWay) start(t *testing.T, d *daemon) sender {
	t.Helper()
	w := lab(t)
	ignoring, err := w.script("ignoring-hup", `trap "" HUP; exec `+w.mxpipe)
	if err != nil {
		t.Fatal(err)
	}
	if way.exim {
		parts := eximLMTP(t, d)
		if !way.lmtp {
			if parts, err = w.eximParts(d); err != nil {
				t.Fatal(err)
			}
		}
		parts.transports = strings.Replace(parts.transports, w.mxpipe+" ", ignoring+" ", 1)
		return &eximSender{anotherExim(t, parts)}
	}
	// A delivering process that is killed is neither replaced nor asked for a
	// minute.
	const impatient = "service_throttle_time = 1s\ntransport_retry_time = 1s\ninitial_destination_concurrency = 20\n"
	if way.lmtp {
		return &postfixSender{lmtpOut(t, d, impatient)}
	}
	entry, err := w.masterEntry()
	if err != nil {
		t.Fatal(err)
	}
	entry = strings.NewReplacer(w.mxpipe+" ", ignoring+" ", w.daemon.socket, d.socket).Replace(entry)
	return &postfixSender{anotherOutOf(t, entry, "default_transport = mxpipe\n"+impatient)}
}

type postfixSender struct{ *postfix }

func (p *postfixSender) stop(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("postfix", "-c", p.conf(), "stop").CombinedOutput(); err != nil {
		t.Fatalf("postfix stop: %v\n%s%s", err, out, tail(p.log))
	}
	<-p.process.done
}

func (p *postfixSender) start(t *testing.T) {
	t.Helper()
	if err := p.run(); err != nil {
		t.Fatal(err)
	}
}

func (p *postfixSender) flush(t *testing.T) {
	t.Helper()
	p.postqueue(t, "-f")
}

func (p *postfixSender) gone(id string) bool {
	return strings.Contains(logText(p.log), ": "+id+": removed")
}

func (p *postfixSender) lmtpClients() (pids []int) {
	for _, pid := range processes() {
		if name, _, parent := stat(pid); name == "lmtp" && parent == p.cmd.Process.Pid {
			pids = append(pids, pid)
		}
	}
	return pids
}

type eximSender struct{ *exim }

// stop does what Debian's own script does. Deliveries go on.
func (x *eximSender) stop(t *testing.T) {
	t.Helper()
	if err := x.process.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func (x *eximSender) start(t *testing.T) {
	t.Helper()
	if err := x.exim.start("again"); err != nil {
		t.Fatal(err)
	}
}

func (x *eximSender) flush(t *testing.T) {
	t.Helper()
	x.run(t, "-qff")
}

func (x *eximSender) gone(id string) bool {
	return strings.Contains(logText(x.log), " "+id+" Completed\n")
}

// lmtpClients are those of the processes that work on a message that have no
// Exim below them.
func (x *eximSender) lmtpClients() (pids []int) {
	program := filepath.Join(x.dir, "bin/exim4")
	leaves := map[int]bool{}
	parents := map[int]int{}
	for _, pid := range processes() {
		if line := cmdline(pid); strings.HasPrefix(line, program+"\x00") && strings.Contains(line, "\x00-Mc\x00") {
			_, _, parents[pid] = stat(pid)
			leaves[pid] = true
		}
	}
	for _, parent := range parents {
		delete(leaves, parent)
	}
	for pid := range leaves {
		pids = append(pids, pid)
	}
	return pids
}

// unread is how much lies in a process's sockets that it has not read.
func unread(t *testing.T, pid int) (sum int) {
	t.Helper()
	handle, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(handle)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		link, _ := os.Readlink(filepath.Join(dir, e.Name()))
		number, err := strconv.Atoi(e.Name())
		if err != nil || !strings.HasPrefix(link, "socket:") {
			continue
		}
		fd, err := unix.PidfdGetfd(handle, number, 0)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := unix.IoctlGetInt(fd, unix.TIOCINQ); err == nil {
			sum += n
		}
		unix.Close(fd)
	}
	return sum
}
