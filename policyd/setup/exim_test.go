package setup

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// templateText is as much of Debian's exim4.conf.template as is looked at.
const templateText = banner + "### main/01_exim4-config_listmacrosdefs\n" + banner + `
domainlist local_domains = MAIN_LOCAL_DOMAINS
` + banner + "### acl/00_exim4-config_header\n" + banner + `
begin acl

begin routers

` + banner + "### router/200_exim4-config_primary\n" + banner + `### router/200_exim4-config_primary
dnslookup:
  driver = dnslookup
` + banner + "### transport/00_exim4-config_header\n" + banner + `
begin transports

remote_smtp:
  driver = smtp
begin retry
`

// eximIn writes a configuration of Debian's.
func eximIn(t *testing.T, settings string, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	all := map[string]string{
		"update-exim4.conf.conf": "# a comment\ndc_eximconfig_configtype='internet'\ndc_smarthost=''\nCFILEMODE='644'\n" + settings, template: templateText,
		"conf.d/main/01_exim4-config_listmacrosdefs": "domainlist local_domains = x\n", "conf.d/router/200_exim4-config_primary": "x:\n", "conf.d/transport/x": "",
	}
	for name, text := range files {
		all[name] = text
	}
	for name, text := range all {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// tree is all files below a directory.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var b strings.Builder
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		b.WriteString("== " + strings.TrimPrefix(path, dir) + "\n" + string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// planExim makes a plan.
func planExim(t *testing.T, dir string, way Way, target Target) (Plan, error) {
	t.Helper()
	x, err := ReadExim(dir)
	if err != nil {
		t.Fatal(err)
	}
	return x.Plan(way, target)
}

// The files of contrib go where they belong, split or not, and out again.
func TestExim(t *testing.T) {
	const split = "dc_use_split_config='true'\n"
	for _, tt := range []struct {
		name     string
		settings string
		files    map[string]string
		way      Way
		want     []string // in the files afterwards, in this order
		not      string
	}{
		{"split", split, nil, Pipe, []string{"== /conf.d/main/50_mxpipe\n", "auto_thaw = 1h", "== /conf.d/router/180_mxpipe\n", "transport = mxpipe", "== /conf.d/transport/30_mxpipe\n", "exec /opt/mxpipe --socket /srv/pipe --nexthop"}, "mxpolicyd_lmtp"},
		{"split, LMTP", split, nil, LMTP, []string{"== /conf.d/router/180_mxpipe\n", "transport = mxpolicyd_lmtp", "== /conf.d/transport/30_mxpolicyd_lmtp\n", "socket = /srv/lmtp"}, "mxpipe_smarthost"},
		{"auto_thaw of one's own", split, map[string]string{"conf.d/main/000_own": "auto_thaw = 2h\n"}, Pipe, []string{"auto_thaw = 2h", "transport = mxpipe"}, "auto_thaw = 1h"},
		{"one file", "dc_use_split_config='false'\n", nil, Pipe, []string{"### main/50_mxpipe\n", "auto_thaw = 1h", "### end main/50_mxpipe\n", "begin acl", "begin routers", "### router/180_mxpipe\n", "transport = mxpipe", "### end router/180_mxpipe\n",
			banner + "### router/200_exim4-config_primary\n", "begin transports\n", "### transport/30_mxpipe\n", "### end transport/30_mxpipe\n", "remote_smtp:", "begin retry"}, "== /conf.d/router/180_mxpipe"},
		{"one file, LMTP", "", nil, LMTP, []string{"transport = mxpolicyd_lmtp", "begin transports", "### transport/30_mxpolicyd_lmtp\n"}, "auto_thaw"},
		{"smarthost", split + "dc_eximconfig_configtype='smarthost'\ndc_smarthost='smtp.example::587'\n", map[string]string{"passwd.client": "# x:y:z\nother.example:u:p\n"}, Pipe, []string{"DCsmarthost"}, "#no"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := eximIn(t, tt.settings, tt.files)
			before := tree(t, dir)
			target := packaged()
			target.Mxpipe, target.Daemon.Pipe, target.Daemon.LMTP = "/opt/mxpipe", "/srv/pipe", []string{"/srv/lmtp"}
			f := stock(t)
			m := f.machine()
			p, err := planExim(t, dir, tt.way, target)
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(strings.ReplaceAll("\n"+p.Diff(), "\n--- ", ""), "\n-") || !strings.HasSuffix(p.Diff(), "run update-exim4.conf\n") {
				t.Errorf("it shows\n%s", p.Diff())
			}
			if err := m.Do(t.Context(), p); err != nil {
				t.Fatal(err)
			}
			after := tree(t, dir)
			rest := after
			for _, want := range tt.want {
				_, behind, ok := strings.Cut(rest, want)
				if !ok {
					t.Fatalf("there is no %q here:\n%s", want, rest)
				}
				rest = behind
			}
			if strings.Contains(after, tt.not) {
				t.Errorf("there is a %q:\n%s", tt.not, after)
			}
			if again, err := planExim(t, dir, tt.way, target); err != nil || !again.Empty() {
				t.Errorf("a second time there is to do: %v\n%s", err, again.Diff())
			}
			back, err := m.Undo(t.Context(), "exim")
			if err == nil {
				err = m.Finish(t.Context(), back)
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := tree(t, dir); got != before {
				t.Errorf("undone it is\n%s\nand was\n%s", got, before)
			}
		})
	}
}

// A configuration that Exim refuses does not stay.
func TestEximRefusesTheConfiguration(t *testing.T) {
	dir := eximIn(t, "", nil)
	before := tree(t, dir)
	f := stock(t)
	f.fails = "update-exim4.conf"
	p, err := planExim(t, dir, Pipe, packaged())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.machine().Do(t.Context(), p); err == nil {
		t.Error("it did not fail")
	}
	if got := tree(t, dir); got != before {
		t.Errorf("it is\n%s", got)
	}
}

func TestEximRefusals(t *testing.T) {
	const smarthost = "dc_eximconfig_configtype='smarthost'\ndc_smarthost='smtp.example::587;b.example'\n"
	for _, tt := range []struct {
		name     string
		settings string
		files    map[string]string
		way      Way
		target   func(t *Target)
		what     string
		mend     string
	}{
		{"socketmap", "", nil, Socketmap, nil, "asks for no policies", "--way pipe"},
		{"another way", "", nil, "x", nil, `the way "x"`, "--way pipe"},
		{"one's own configuration", "", map[string]string{"exim4.conf": "begin acl\n"}, Pipe, nil, "which is your own", "by hand"},
		{"local", "dc_eximconfig_configtype='local'\n", nil, Pipe, nil, "no mail to other hosts", "dpkg-reconfigure"},
		{"none", "dc_eximconfig_configtype='none'\n", nil, Pipe, nil, `"none"`, "by hand"},
		{"a smarthost by LMTP", smarthost, nil, LMTP, nil, "LMTP has no place for it", "--way pipe"},
		{"a smarthost with a password", smarthost, map[string]string{"passwd.client": "*.example:u:p\n"}, Pipe, nil, "the smarthost smtp.example wants a password", "Exim's own"},
		{"no user", "", nil, Pipe, func(t *Target) { t.UserExists = func(string) bool { return false } }, "no user mxpipe", "useradd"},
		{"no LMTP socket", "", nil, LMTP, func(t *Target) { t.Daemon.LMTP = nil }, "no socket for LMTP", "mxpolicyd-lmtp.socket"},
		{"no pipe socket", "", nil, Pipe, func(t *Target) { t.Daemon.Pipe = "" }, "no socket for mxpipe", "listen:"},
		{"no mxpipe", "", nil, Pipe, func(t *Target) { t.Mxpipe = "" }, "there is no mxpipe", "install"},
		{"another template", "", map[string]string{template: "begin acl\nbegin transports\n"}, Pipe, nil, "has no line", "README.md"},
		{"a torn part", "", map[string]string{template: templateText + banner + "### router/180_mxpipe\n" + banner}, Pipe, nil, "without an end", "remove"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			target := packaged()
			if tt.target != nil {
				tt.target(&target)
			}
			_, err := planExim(t, eximIn(t, tt.settings, tt.files), tt.way, target)
			var refused *Refusal
			if !errors.As(err, &refused) || !strings.Contains(refused.What, tt.what) || !strings.Contains(refused.Mend, tt.mend) {
				t.Errorf("%v, want %s (%s)", err, tt.what, tt.mend)
			}
		})
	}
	if _, err := ReadExim(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("where there is no Exim: %v", err)
	}
}
