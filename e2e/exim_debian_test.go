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

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// debianExim is an Exim with Debian's own configuration: what stands between it
// and a usual host is only where it listens and keeps its files. Settings are
// those of update-exim4.conf.conf(5). It is not started.
func debianExim(t *testing.T, settings string) *exim {
	t.Helper()
	address, err := lab(t).host(lab(t).newDomain("debian"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := unpackExim(filepath.Join(folder(t), "debian"), address)
	if err != nil {
		t.Fatal(err)
	}
	etc, stock := filepath.Join(x.dir, "etc"), filepath.Join(eximCache(), "etc/exim4")
	ip, port, _ := strings.Cut(address, ":")
	own := fmt.Sprintf(`SPOOLDIR = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/exim.pid
daemon_smtp_ports = %s
MAIN_HARDCODE_PRIMARY_HOSTNAME = debian.e2e.example
MAIN_HOST_LOOKUP =
MAIN_KEEP_ENVIRONMENT = %s
CHECK_RCPT_NO_FAIL_TOO_MANY_BAD_RCPT = yes
`, x.dir, port, workdirVar)
	template, err := os.ReadFile(filepath.Join(stock, "exim4.conf.template"))
	update := filepath.Join(x.dir, "bin/update-exim4.conf")
	err = errors.Join(err,
		os.CopyFS(filepath.Join(etc, "exim4/conf.d"), os.DirFS(filepath.Join(stock, "conf.d"))),
		write(filepath.Join(etc, "exim4/exim4.conf.template"), string(template)),
		// for the one file
		write(filepath.Join(etc, "exim4/exim4.conf.localmacros"), own),
		write(filepath.Join(etc, "exim4/conf.d/main/000_test"), own),
		write(filepath.Join(etc, "aliases"), "root: :blackhole:\n"),
		write(filepath.Join(etc, "mailname"), "debian.e2e.example\n"),
		write(filepath.Join(etc, "exim4/update-exim4.conf.conf"), `dc_other_hostnames='debian.e2e.example'
dc_local_interfaces='`+ip+`'
dc_relay_nets='127.0.0.0/8'
dc_minimaldns='false'
`+settings),
		// The package's script, for an Exim that is somewhere else.
		forks.WriteFile(update, fmt.Appendf(nil, `#!/bin/sh
set -e
rm -f %[1]s.new
/bin/sh %[2]s/usr/sbin/update-exim4.conf -o %[1]s.new
grep -q '^exim_path = /usr/sbin/exim4$' %[1]s.new
sed 's|^exim_path = /usr/sbin/exim4$|exim_path = %[3]s/bin/exim4|' %[1]s.new > %[1]s
rm %[1]s.new
`, x.conf(), eximCache(), x.dir), 0o755),
	)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// update makes Exim's configuration of Debian's parts.
func (x *exim) update(t *testing.T) {
	t.Helper()
	if out, err := x.inside(filepath.Join(x.dir, "bin/update-exim4.conf")).CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("update-exim4.conf: %v\n%s", err, out)
	}
}

// serve starts it for the time of a test.
func (x *exim) serve(t *testing.T) {
	t.Helper()
	if err := x.start("debian"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
}

// ourParts puts the files of contrib beside Debian's.
func (x *exim) ourParts(t *testing.T) {
	t.Helper()
	w, parts := lab(t), filepath.Join(x.dir, "etc/exim4/conf.d")
	transport, err := os.ReadFile("../contrib/exim/conf.d/transport/30_mxpipe")
	const program = "exec /usr/bin/mxpipe "
	if err != nil || strings.Count(string(transport), program) != 1 {
		t.Fatalf("contrib/exim/conf.d/transport/30_mxpipe does not have %q once: %v", program, err)
	}
	err = errors.Join(os.CopyFS(parts, os.DirFS("../contrib/exim/conf.d")),
		write(filepath.Join(parts, "transport/30_mxpipe"), strings.Replace(string(transport), program, "exec "+w.mxpipe+" --socket "+w.daemon.socket+" ", 1)))
	if err != nil {
		t.Fatal(err)
	}
}

// Debian's own configuration, split into files, with ours beside them.
func TestDebianConfiguration(t *testing.T) {
	t.Parallel()
	x := debianExim(t, "dc_eximconfig_configtype='internet'\ndc_use_split_config='true'\n")
	x.ourParts(t)
	x.update(t)
	x.serve(t)
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

// Where Debian's dc_eximconfig_configtype lets no mail out, our router does not
// either.
func TestDebianLocal(t *testing.T) {
	t.Parallel()
	x := debianExim(t, "dc_eximconfig_configtype='local'\ndc_use_split_config='true'\n")
	x.ourParts(t)
	x.update(t)
	out, err := x.inside(filepath.Join(x.dir, "bin/exim4"), "-bt", "b@elsewhere.example").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "Mailing to remote domains not supported") {
		t.Errorf("%v\n%s", err, out)
	}
}

// One command sets up Debian's Exim, split or not, with a smarthost or without;
// mail goes as it is told, and nothing is left when it is undone.
func TestSetupOfExim(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, c := range []struct {
		name, settings string
		way            string
		smarthost      bool
		refusal        string
	}{
		{"internet, split", "dc_eximconfig_configtype='internet'\ndc_use_split_config='true'\n", "pipe", false, ""},
		{"internet, one file", "dc_eximconfig_configtype='internet'\ndc_use_split_config='false'\n", "pipe", false, ""},
		{"internet, one file, LMTP", "dc_eximconfig_configtype='internet'\ndc_use_split_config='false'\n", "lmtp", false, ""},
		{"smarthost, split", "dc_eximconfig_configtype='smarthost'\ndc_use_split_config='true'\n", "pipe", true, ""},
		{"satellite, one file", "dc_eximconfig_configtype='satellite'\ndc_use_split_config='false'\n", "pipe", true, ""},
		{"smarthost, LMTP", "dc_eximconfig_configtype='smarthost'\ndc_use_split_config='true'\n", "lmtp", true, "LMTP has no place for it"},
		{"local", "dc_eximconfig_configtype='local'\n", "pipe", false, "no mail to other hosts"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, domain := remote(t, "debian", modern(t))
			to := domain
			if c.smarthost {
				c.settings += fmt.Sprintf("dc_smarthost='mx.%s::%d;second.example'\n", domain, w.port)
				to = w.newDomain("elsewhere") // which leads nowhere
			}
			x := debianExim(t, c.settings)
			before := x.parts(t)
			if c.refusal != "" {
				if out, err := x.setup(t, "--way", c.way); err == nil || !strings.Contains(out, c.refusal) {
					t.Errorf("%v: %s", err, out)
				}
				if after := x.parts(t); after != before {
					t.Errorf("it is\n%s", after)
				}
				return
			}
			if out, err := x.setup(t, "--way", c.way, "--dry-run"); err != nil || x.parts(t) != before {
				t.Fatalf("%v: %s", err, out)
			}
			if out, err := x.setup(t, "--way", c.way); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			x.serve(t)
			id := x.submit(t, note("a@debian.e2e.example", "b@"+to))
			h := x.sent(t, id, 1)
			if transport := map[string]string{"pipe": "mxpipe", "lmtp": "mxpolicyd_lmtp"}[c.way]; h.relay != transport || !strings.Contains(h.text, "mx."+domain+": 250 ") {
				t.Errorf("sent, but not as set up: %+v", h)
			}
			if m := received1(t, s, id); m.Recipients[0].Address != "b@"+to {
				t.Errorf("arrived: %+v", m)
			}
			if out, err := x.setup(t, "--undo"); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			if after := x.parts(t); after != before {
				t.Errorf("undone it is\n%s\nand was\n%s", after, before)
			}
			// Exim itself has no DNS here, and so no way for it.
			out, err := x.inside(filepath.Join(x.dir, "bin/exim4"), "-bt", "b@"+domain).CombinedOutput()
			if err == nil && strings.Contains(string(out), " transport = mx") {
				t.Errorf("mail still goes our way:\n%s", out)
			}
		})
	}
}

// setup runs "mxpolicyd setup exim" as an administrator of this host would.
func (x *exim) setup(t *testing.T, args ...string) (said string, err error) {
	t.Helper()
	w := lab(t)
	// The record is written beside the configuration.
	config := filepath.Join(x.dir, "mxpolicyd.yaml")
	text, failed := os.ReadFile(w.daemon.config)
	if err := errors.Join(failed, write(config, string(text))); err != nil {
		t.Fatal(err)
	}
	return x.setupBy(w, config, args...)
}

// setupBy is the same with a configuration of the test's own.
func (x *exim) setupBy(w *world, config string, args ...string) (said string, err error) {
	cmd := x.inside(w.mxpolicyd, append([]string{"setup", "exim", "-c", config}, args...)...)
	cmd.Env = append(cmd.Env, "PATH="+filepath.Join(x.dir, "bin")+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// parts are all files that Debian's configuration is made of.
func (x *exim) parts(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	dir := filepath.Join(x.dir, "etc/exim4")
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || path == x.conf() {
			return err
		}
		text, err := os.ReadFile(path)
		b.WriteString("== " + path + "\n" + string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
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
	// main, router, transport
	err = filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
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
