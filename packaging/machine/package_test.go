//go:build machine

package machine

import (
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// outsideOf runs a program on this host.
func outsideOf(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// lintian has nothing to say that is not answered in an override with its
// reason.
func TestLintian(t *testing.T) {
	if out := outsideOf(t, "lintian", "--allow-root", "--fail-on", "error,warning", debFile(newer)); out != "" {
		t.Errorf("lintian:\n%s", out)
	}
}

// The RPM is whole, and has what the .deb has.
func TestRPM(t *testing.T) {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	path := filepath.Join(filepath.Dir(debFile(newer)), "mxpipe-"+newer+"-1."+arch+".rpm")
	outsideOf(t, "rpm", "--checksig", "--nosignature", path)
	list := outsideOf(t, "rpm", "-qlp", path)
	for _, name := range []string{"/usr/bin/mxpipe", "/usr/sbin/mxpolicyd", "/etc/mxpolicyd/mxpolicyd.yaml", "/usr/lib/systemd/system/mxpolicyd.socket",
		"/usr/lib/systemd/system-preset/80-mxpolicyd.preset", "/usr/share/man/man8/mxpolicyd.8.gz", "/usr/share/licenses/mxpipe/LICENSE"} {
		if !strings.Contains(list, name+"\n") {
			t.Errorf("the RPM has no %s", name)
		}
	}
	if strings.Contains(list, "apparmor") || strings.Contains(list, "lintian") {
		t.Errorf("the RPM has files of Debian's:\n%s", list)
	}
	if got := outsideOf(t, "rpm", "-qp", "--configfiles", path); got != "/etc/mxpolicyd/mxpolicyd.yaml\n" {
		t.Errorf("its configuration files are %q", got)
	}
}

// The RPM's scripts do what they should: the machine is not of that kind, but
// systemd is the same.
func TestRPMLife(t *testing.T) {
	m := boot(t)
	m.run(t, "apt-get", "install", "-y", "--no-install-recommends", "rpm")
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	for _, version := range []string{older, newer} {
		m.copyIn(t, filepath.Join(filepath.Dir(debFile(version)), "mxpipe-"+version+"-1."+arch+".rpm"))
	}
	install := func(version string) {
		m.run(t, "rpm", "-U", "--nodeps", "--force-debian", "--oldpackage", "/root/mxpipe-"+version+"-1."+arch+".rpm")
	}
	install(older)
	for _, unit := range socketUnits {
		if state := m.active(unit); state != "active" {
			t.Errorf("%s is %s", unit, state)
		}
	}
	if state := m.active("mxpolicyd.service"); state != "inactive" {
		t.Errorf("the service is %s", state)
	}
	m.call(t, "4.")
	first := m.daemon(t)
	install(newer)
	if second := m.daemon(t); second == 0 || second == first {
		t.Errorf("after the upgrade the daemon is process %d, before it was %d", second, first)
	}
	m.call(t, "4.")
	m.run(t, "rpm", "-e", "--nodeps", "--force-debian", "mxpipe")
	for _, unit := range append(socketUnits, "mxpolicyd.service") {
		if state := m.active(unit); state == "active" {
			t.Errorf("%s is %s after the removal", unit, state)
		}
	}
	m.sh(t, "test -d /var/lib/mxpolicyd; test ! -e /usr/bin/mxpipe")
}
