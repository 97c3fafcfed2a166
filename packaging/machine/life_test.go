//go:build machine

package machine

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var socketUnits = []string{"mxpolicyd.socket", "mxpolicyd-lmtp.socket", "mxpolicyd-socketmap.socket", "mxpolicyd-admin.socket"}

// call runs mxpipe as the mail server would; nothing listens at its next hop,
// so that the daemon's own answer comes back.
func (m *machine) call(t *testing.T, wait string) {
	t.Helper()
	out, _ := m.try("sh", "-c", "printf 'Subject: x\\n\\nx\\n' | setpriv --reuid=mxpipe --regid=mxpipe --init-groups "+
		"mxpipe --nexthop [127.0.0.2]:9 -f a@sender.example -- b@recipient.example; echo exit $?")
	if !strings.Contains(out, "exit 75\n") || !strings.HasPrefix(out, wait) {
		t.Fatalf("mxpipe said %q, want exit status 75 and a line that starts with %q", out, wait)
	}
}

// From installation to purge.
func TestLife(t *testing.T) {
	m := boot(t)
	m.install(t, older)

	// The sockets are there for their users and no one else; the service is not
	// running.
	for _, unit := range socketUnits {
		if state := m.active(unit); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
		m.run(t, "systemctl", "is-enabled", unit)
	}
	if out, _ := m.try("systemctl", "is-enabled", "mxpolicyd.service"); out != "disabled\n" || m.active("mxpolicyd.service") != "inactive" {
		t.Errorf("the service is %s and %s", strings.TrimSpace(out), m.active("mxpolicyd.service"))
	}
	got := m.sh(t, "cd /run/mxpolicyd; stat -c '%n %U:%G %a' . *; stat -c '%U:%G %a' /var/lib/mxpolicyd")
	const want = `. root:mxpipe 750
admin.sock root:root 600
lmtp.sock root:mxpipe 660
pipe.sock root:mxpipe 660
socketmap.sock root:mxpipe 660
mxpolicyd:mxpolicyd 700
`
	if got != want {
		t.Errorf("the sockets and the state directory are\n%s, want\n%s", got, want)
	}
	out, _ := m.try("sh", "-c", "echo x | setpriv --reuid=nobody --regid=nogroup --clear-groups mxpipe -f a@b.example -- c@d.example")
	if !strings.HasPrefix(out, "4.3.5 ") {
		t.Errorf("an outsider was not refused: %q", out)
	}

	// The first message starts the service.
	m.call(t, "4.")
	first := m.daemon(t)
	if first == 0 {
		t.Fatal("the first message did not start the service")
	}
	m.sh(t, "echo kept >/var/lib/mxpolicyd/probe && chown mxpolicyd: /var/lib/mxpolicyd/probe")

	// Upgraded: restarted, on the same sockets, of which the older version had
	// one less.
	m.sh(t, "systemctl stop mxpolicyd-socketmap.socket")
	inodes := m.sh(t, "cd /run/mxpolicyd; stat -c %i pipe.sock lmtp.sock admin.sock")
	m.install(t, newer)
	if state := m.active("mxpolicyd-socketmap.socket"); state != "active" {
		t.Errorf("a socket that is new is %s after the upgrade", state)
	}
	second := m.daemon(t)
	if second == first || second == 0 {
		t.Errorf("after the upgrade the daemon is process %d, before it was %d", second, first)
	}
	if after := m.sh(t, "cd /run/mxpolicyd; stat -c %i pipe.sock lmtp.sock admin.sock"); after != inodes {
		t.Error("the sockets are others after the upgrade")
	}
	if !strings.Contains(m.journal(t, "mxpolicyd.service"), "version=v"+newer) {
		t.Error("the new version was not started")
	}

	// What the administrator has changed stays.
	m.sh(t, "systemctl disable --now mxpolicyd-lmtp.socket; echo '#mine' >>/etc/mxpolicyd/mxpolicyd.yaml")
	m.install(t, older) // and so does it when the package is taken back
	if state := m.active("mxpolicyd-lmtp.socket"); state != "inactive" {
		t.Errorf("the socket that was disabled is %s after the downgrade", state)
	}
	m.sh(t, "grep -q '^#mine$' /etc/mxpolicyd/mxpolicyd.yaml")
	m.call(t, "4.")

	// Removed: nothing runs, what it remembers stays. Then all is as before.
	m.run(t, "apt-get", "remove", "-y", "mxpipe")
	for _, unit := range append(socketUnits, "mxpolicyd.service") {
		if state := m.active(unit); state != "inactive" {
			t.Errorf("%s is %s after the removal", unit, state)
		}
	}
	m.sh(t, "grep -q kept /var/lib/mxpolicyd/probe; test -f /etc/mxpolicyd/mxpolicyd.yaml; test ! -e /run/mxpolicyd")
	m.install(t, newer)
	m.call(t, "4.")
	if state := m.active("mxpolicyd-lmtp.socket"); state != "inactive" {
		t.Errorf("the socket that was disabled is %s after the removal and another installation", state)
	}

	m.run(t, "apt-get", "purge", "-y", "mxpipe")
	if left := m.sh(t, "find / -xdev -name '*mxp*' ! -path '/proc/*' ! -path '/sys/*' ! -path '/root/*' ! -path '/var/log/*' ! -path '/var/lib/dpkg/*'"); left != "" {
		t.Errorf("purge has left\n%s", left)
	}
}

// A wrong configuration holds up mail, and is mended without a word to the
// sockets.
func TestMistake(t *testing.T) {
	m := boot(t)
	m.install(t, newer)
	good, err := os.ReadFile(filepath.Join(m.root, "/etc/mxpolicyd/mxpolicyd.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", "hostnam: x\n")
	out, _ := m.try("sh", "-c", "printf 'Subject: x\\n\\nx\\n' | setpriv --reuid=mxpipe --regid=mxpipe --init-groups "+
		"mxpipe --timeout 6s --nexthop [127.0.0.2]:9 -f a@sender.example -- b@recipient.example; echo exit $?")
	if !strings.HasSuffix(out, "exit 75\n") {
		t.Errorf("mxpipe said %q", out)
	}
	await(t, "a second attempt to start", func() (int, bool) {
		n := strings.Count(m.journal(t, "mxpolicyd.service"), `unknown key "hostnam"`)
		return n, n >= 2
	})
	if state := m.active("mxpolicyd.socket"); state != "active" {
		t.Errorf("the socket is %s", state)
	}
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", string(good))
	m.call(t, "4.")

	// A reload with a mistake fails, and says which.
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", "hostnam: x\n")
	id := m.daemon(t)
	if out, err := m.try("systemctl", "reload", "mxpolicyd"); err == nil {
		t.Errorf("a reload with a mistake succeeded: %s", out)
	}
	m.call(t, "4.")
	if now := m.daemon(t); now != id {
		t.Errorf("the daemon is process %d, was %d", now, id)
	}
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", string(good))
	m.run(t, "systemctl", "reload", "mxpolicyd")
}

// The service can do its work in its sandbox, and nothing else.
func TestSandbox(t *testing.T) {
	m := boot(t)
	m.install(t, newer)
	m.call(t, "4.")
	id := fmt.Sprint(m.daemon(t))
	// A shell in the daemon's namespaces and with its user has its view of the
	// files.
	inside := func(script string) error {
		_, err := m.try("nsenter", "--target", id, "--mount", "--", "setpriv", "--reuid=mxpolicyd", "--regid=mxpolicyd",
			"--init-groups", "--no-new-privs", "sh", "-c", script)
		return err
	}
	if err := inside("echo x >/var/lib/mxpolicyd/probe && rm /var/lib/mxpolicyd/probe && echo x >/tmp/probe"); err != nil {
		t.Errorf("it cannot write its own state: %v", err)
	}
	if _, err := os.Stat(filepath.Join(m.root, "tmp/probe")); err == nil {
		t.Error("what it writes to /tmp is everybody's")
	}
	for _, dir := range []string{"/", "/etc", "/etc/mxpolicyd", "/usr", "/var", "/var/lib", "/var/spool", "/run", "/run/mxpolicyd", "/home", "/root", "/dev", "/dev/shm/x", "/boot", "/srv", "/opt"} {
		if inside("echo x >"+dir+"/probe") == nil {
			t.Errorf("it can write to %s", dir)
		}
	}
	for _, path := range []string{"/root", "/home", "/var/log", "/var/lib/dpkg", "/proc/1/cmdline", "/proc/sys", "/dev/kmsg"} {
		if inside("test -e "+path+" && cat "+path+"; ls "+path+"/.") == nil {
			t.Errorf("it can see %s", path)
		}
	}
	status := m.run(t, "cat", "/proc/"+id+"/status")
	for _, line := range []string{"CapPrm:\t0000000000000000", "CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, line+"\n") {
			t.Errorf("/proc/PID/status does not say %q", line)
		}
	}
	// The machine may not give away more than it has itself.
	files := min(65536, m.limit(t, "1", "Max open files"))
	if got := m.limit(t, id, "Max open files"); got != files {
		t.Errorf("it may open %d files, want %d", got, files)
	}
	if got := m.limit(t, id, "Max core file size"); got != 0 {
		t.Errorf("it may leave a core file of %d bytes", got)
	}
}

// limit reads the hard limit of a process.
func (m *machine) limit(t *testing.T, id, name string) int {
	t.Helper()
	_, line, _ := strings.Cut(m.run(t, "cat", "/proc/"+id+"/limits"), name)
	f := strings.Fields(line)
	if len(f) < 2 {
		t.Fatalf("process %s has no limit %q", id, name)
	}
	n, err := strconv.Atoi(f[1])
	if err != nil {
		t.Fatalf("%s of process %s: %v", name, id, err)
	}
	return n
}
