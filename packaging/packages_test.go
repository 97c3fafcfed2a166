// Package packaging holds what packages are made of, and tests that build one
// and look at what is in it. What happens when it is installed is the matter of
// packaging/machine.
package packaging

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
)

// build builds packages into a directory of their own, with some other
// variables in the environment.
func build(t *testing.T, kinds []string, env ...string) string {
	t.Helper()
	out := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{"build.sh", "v1.2.3", out}, kinds...)...)
	cmd.Env = append(append(os.Environ(), "ARCHES="+runtime.GOARCH), env...)
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build.sh: %v\n%s", err, text)
	}
	return out
}

// deb gives the one Debian package in a directory.
func deb(t *testing.T, dir string) string {
	t.Helper()
	path := filepath.Join(dir, fmt.Sprintf("mxpipe_1.2.3-1_%s.deb", runtime.GOARCH))
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	return path
}

// output runs a program that must succeed.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	var errors bytes.Buffer
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Stderr = &errors
	text, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s %s: %v (\"make needs\" installs it)\n%s%s", name, strings.Join(args, " "), err, text, errors.String())
	}
	return string(text)
}

func TestPackages(t *testing.T) {
	kinds := []string{"deb", "rpm", "apk", "archlinux"}
	dir := build(t, kinds)
	t.Run("reproducible", func(t *testing.T) { reproducible(t, dir, kinds) })
	t.Run("recipes", func(t *testing.T) { recipes(t, dir) })
	t.Run("deb", func(t *testing.T) { debContent(t, deb(t, dir)) })
}

// The same sources make the same bytes, no matter who builds them, when and
// where.
func reproducible(t *testing.T, first string, kinds []string) {
	second := build(t, kinds, "TZ=Asia/Kathmandu", "LC_ALL=C", "TMPDIR="+t.TempDir())
	names, err := filepath.Glob(filepath.Join(first, "*"))
	if err != nil || len(names) != len(kinds) {
		t.Fatalf("%q, %v", names, err)
	}
	for _, name := range names {
		one, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		two, err := os.ReadFile(filepath.Join(second, filepath.Base(name)))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(one, two) {
			t.Errorf("%s is not the same the second time", filepath.Base(name))
		}
	}
}

// What is in the package belongs to root, is writable by no one else, and is
// all that there should be.
func debContent(t *testing.T, path string) {
	for _, line := range strings.Split(strings.TrimSpace(output(t, "dpkg-deb", "--contents", path)), "\n") {
		f := strings.Fields(line)
		mode, name := f[0], strings.TrimPrefix(f[5], ".")
		want := "-rw-r--r--"
		switch {
		case strings.HasSuffix(name, "/"):
			want = "drwxr-xr-x"
		case name == "/usr/bin/mxpipe", name == "/usr/sbin/mxpolicyd":
			want = "-rwxr-xr-x"
		}
		if mode != want || f[1] != "root/root" {
			t.Errorf("%s: %s %s", name, mode, f[1])
		}
	}
	root := t.TempDir()
	output(t, "dpkg-deb", "--raw-extract", path, root)
	for _, name := range []string{
		"usr/bin/mxpipe", "usr/sbin/mxpolicyd", "etc/mxpolicyd/mxpolicyd.yaml", "etc/apparmor.d/usr.sbin.mxpolicyd",
		"usr/lib/systemd/system/mxpolicyd.service", "usr/lib/systemd/system/mxpolicyd.socket", "usr/lib/systemd/system/mxpolicyd-lmtp.socket",
		"usr/lib/systemd/system/mxpolicyd-socketmap.socket", "usr/lib/systemd/system/mxpolicyd-admin.socket",
		"usr/lib/sysusers.d/mxpipe.conf", "usr/lib/tmpfiles.d/mxpipe.conf",
		"usr/share/man/man1/mxpipe.1.gz", "usr/share/man/man8/mxpolicyd.8.gz", "usr/share/man/man5/mxpolicyd.yaml.5.gz",
		"usr/share/man/man7/mxpolicyd-postfix.7.gz", "usr/share/man/man7/mxpolicyd-exim.7.gz",
		"usr/share/bash-completion/completions/mxpipe", "usr/share/bash-completion/completions/mxpolicyd",
		"usr/share/zsh/vendor-completions/_mxpipe", "usr/share/fish/vendor_completions.d/mxpolicyd.fish",
		"usr/share/doc/mxpipe/copyright", "usr/share/doc/mxpipe/changelog.Debian.gz", "usr/share/doc/mxpipe/upgrading.md",
		"usr/share/doc/mxpipe/contrib/postfix/master.cf.mxpipe", "usr/share/doc/mxpipe/contrib/exim/conf.d/router/180_mxpipe",
		"usr/share/doc/mxpipe/examples/mxpolicyd-lmtp-strict.socket",
	} {
		if info, err := os.Stat(filepath.Join(root, name)); err != nil || info.Size() == 0 {
			t.Errorf("%s is missing or empty: %v", name, err)
		}
	}
	conffiles, err := os.ReadFile(filepath.Join(root, "DEBIAN/conffiles"))
	if want := "/etc/apparmor.d/usr.sbin.mxpolicyd\n/etc/mxpolicyd/mxpolicyd.yaml\n"; err != nil || string(conffiles) != want {
		t.Errorf("the conffiles are %q, %v", conffiles, err)
	}
	// Both programs and the package have the version that was asked for.
	for program, want := range map[string][]string{"usr/bin/mxpipe": {"--version"}, "usr/sbin/mxpolicyd": {"version"}} {
		if got := output(t, filepath.Join(root, program), want...); got != filepath.Base(program)+" v1.2.3\n" {
			t.Errorf("%s says %q", program, got)
		}
	}
	if got := output(t, "dpkg-deb", "--field", path, "Version"); got != "1.2.3-1\n" {
		t.Errorf("the package's version is %q", got)
	}
	// What is installed as the configuration is right.
	output(t, filepath.Join(root, "usr/sbin/mxpolicyd"), "check-config", "-c", filepath.Join(root, "etc/mxpolicyd/mxpolicyd.yaml"))
}

// The authors of all that is in the programs are named.
func TestCopyright(t *testing.T) {
	text := output(t, "sh", "copyright.sh")
	modules := output(t, "go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "../cmd/mxpipe", "../cmd/mxpolicyd")
	for _, module := range append(strings.Fields(modules), "Go standard library") {
		if !strings.Contains(text, "\n"+module+", ") {
			t.Errorf("the copyright file does not name %s", module)
		}
	}
}

// systemd reads the units without a complaint, and finds little that could be
// taken from the service.
func TestUnits(t *testing.T) {
	dir := t.TempDir()
	units, err := filepath.Glob("systemd/mxpolicyd*.s*")
	if err != nil || len(units) != 5 {
		t.Fatalf("%q, %v", units, err)
	}
	var paths []string
	for _, unit := range append(units, "examples/mxpolicyd-lmtp-strict.socket") {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		// systemd looks for the program and the manual, which need not be here.
		text = bytes.ReplaceAll(text, []byte("/usr/sbin/mxpolicyd"), []byte("/bin/true"))
		text = regexp.MustCompile(`(?m)^Documentation=.*\n`).ReplaceAll(text, nil)
		path := filepath.Join(dir, filepath.Base(unit))
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	cmd := exec.CommandContext(t.Context(), "systemd-analyze", append([]string{"verify"}, paths...)...)
	text, err := cmd.CombinedOutput()
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "mxpolicyd") {
			t.Error(strings.TrimSpace(line))
		}
	}
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s", err, text)
	}
	report := output(t, "systemd-analyze", "security", "--offline=yes", filepath.Join(dir, "mxpolicyd.service"))
	m := regexp.MustCompile(`Overall exposure level for mxpolicyd\.service: ([0-9.]+) `).FindStringSubmatch(report)
	if m == nil {
		t.Fatalf("systemd-analyze security says no level:\n%s", report)
	}
	if level, err := strconv.ParseFloat(m[1], 64); err != nil || level > 1.5 {
		t.Errorf("the exposure level is %s, want at most 1.5", m[1])
	}
}

// The profile is one that AppArmor understands.
func TestAppArmor(t *testing.T) {
	output(t, "apparmor_parser", "--skip-kernel-load", "--skip-cache", "apparmor/usr.sbin.mxpolicyd")
}

// Scripts and completions are well-formed.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("scripts/*")
	if err != nil || len(scripts) == 0 {
		t.Fatal(scripts, err)
	}
	for _, script := range append(scripts, "build.sh", "install.sh", "copyright.sh", "release.sh", "machine/image.sh", "apk/mxpolicyd.initd") {
		output(t, "sh", "-n", script)
	}
	const ask = `source completions/mxpipe.bash; COMP_WORDS=(mxpipe %s); COMP_CWORD=%d; _mxpipe; echo "${COMPREPLY[*]}"`
	for words, want := range map[string]string{
		"--qu":             "--queue-id --quarantined",
		"--body 8":         "8bitmime",
		"--body = 7":       "7bit",
		"--notify F":       "FAILURE",
		"--transport x":    "",
		"--requiretls --t": "--transport --timeout",
	} {
		if got := output(t, "bash", "-c", fmt.Sprintf(ask, words, len(strings.Fields(words)))); got != want+"\n" {
			t.Errorf("mxpipe %s is completed by %q, want %q", words, got, want)
		}
	}
}
