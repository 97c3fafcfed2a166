package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Debian's own configuration, split into files, with ours beside them. What
// stands between the test and a usual host is only where Exim listens and keeps
// its files.
func TestDebianConfiguration(t *testing.T) {
	t.Parallel()
	w := lab(t)
	address, err := w.host(w.newDomain("debian"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := unpackExim(filepath.Join(folder(t), "debian"), address)
	if err != nil {
		t.Fatal(err)
	}
	etc := filepath.Join(x.dir, "etc")
	ip, port, _ := strings.Cut(address, ":")
	transport := filepath.Join(etc, "exim4/conf.d/transport/30_mxpipe")
	ours, err := os.ReadFile("../contrib/exim/conf.d/transport/30_mxpipe")
	const program = "exec /usr/bin/mxpipe "
	if err != nil || strings.Count(string(ours), program) != 1 {
		t.Fatalf("contrib/exim/conf.d/transport/30_mxpipe does not have %q once: %v", program, err)
	}
	err = errors.Join(
		os.CopyFS(filepath.Join(etc, "exim4/conf.d"), os.DirFS(filepath.Join(eximCache(), "etc/exim4/conf.d"))),
		os.CopyFS(filepath.Join(etc, "exim4/conf.d"), os.DirFS("../contrib/exim/conf.d")),
		write(transport, strings.Replace(string(ours), program, "exec "+w.mxpipe+" --socket "+w.daemon.socket+" ", 1)),
		write(filepath.Join(etc, "aliases"), "root: :blackhole:\n"),
		write(filepath.Join(etc, "mailname"), "debian.e2e.example\n"),
		write(filepath.Join(etc, "exim4/update-exim4.conf.conf"), `dc_eximconfig_configtype='internet'
dc_other_hostnames='debian.e2e.example'
dc_local_interfaces='`+ip+`'
dc_relay_nets='127.0.0.0/8'
dc_minimaldns='false'
dc_use_split_config='true'
`),
		write(filepath.Join(etc, "exim4/conf.d/main/000_test"), fmt.Sprintf(`SPOOLDIR = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/exim.pid
daemon_smtp_ports = %s
MAIN_HARDCODE_PRIMARY_HOSTNAME = debian.e2e.example
MAIN_HOST_LOOKUP =
MAIN_KEEP_ENVIRONMENT = %s
CHECK_RCPT_NO_FAIL_TOO_MANY_BAD_RCPT = yes
`, x.dir, port, workdirVar)),
	)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x.inside("/bin/sh", filepath.Join(eximCache(), "usr/sbin/update-exim4.conf"), "-o", x.conf()).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Fatalf("update-exim4.conf: %v\n%s", err, out)
	}
	const path = "exim_path = /usr/sbin/exim4\n"
	text, err := os.ReadFile(x.conf())
	if err != nil || strings.Count(string(text), path) != 1 {
		t.Fatalf("Debian's configuration does not have %q once: %v", path, err)
	}
	text = []byte(strings.Replace(string(text), path, "exim_path = "+x.dir+"/bin/exim4\n", 1))
	if err := errors.Join(write(x.conf(), string(text)), x.start("debian")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
	s, domain := remote(t, "debian", modern(t))
	id := x.submit(t, note("a@debian.e2e.example", "b@"+domain))
	if h := x.sent(t, id, 1); h.relay != "mxpipe" || !strings.HasPrefix(h.text, "2.0.0 mx."+domain+": 250 ") {
		t.Errorf("sent, but not by mxpipe: %+v", h)
	}
	if m := received1(t, s, id); m.Sender != "a@debian.e2e.example" || m.Recipients[0].Address != "b@"+domain {
		t.Errorf("arrived: %+v", m)
	}
	id = x.submit(t, note("a@debian.e2e.example", "later@"+domain))
	x.deferred(t, id, 1, `4\.2\.0`, `mx\.`)
	if got := x.run(t, "-bt", "root@debian.e2e.example"); strings.Contains(got, "transport = mxpipe") {
		t.Errorf("this host's own mail would go by mxpipe:\n%s", got)
	}
}

// The two forms of contrib/exim say the same, but that Debian's asks first for
// whom dc_eximconfig_configtype lets send mail to other hosts.
func TestEximFormsAgree(t *testing.T) {
	lines := func(text string) (list []string) {
		for line := range strings.Lines(text) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				list = append(list, line)
			}
		}
		return list
	}
	single, err := os.ReadFile("../contrib/exim/exim.conf.mxpipe")
	if err != nil {
		t.Fatal(err)
	}
	var split []string
	root := "../contrib/exim/conf.d"
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error { // main, router, transport
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		own := string(text)
		if _, guarded, ok := strings.Cut(own, ".ifdef DCconfig_internet\n"); ok {
			own, _, _ = strings.Cut(guarded, ".endif\n")
		}
		split = append(split, lines(own)...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := lines(string(single)); !slices.Equal(got, split) {
		t.Errorf("exim.conf.mxpipe:\n%s\nconf.d:\n%s", strings.Join(got, "\n"), strings.Join(split, "\n"))
	}
}
