package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/history"
)

// Every command shows an example that is one, and its exit statuses.
func TestHelp(t *testing.T) {
	root := command()
	seen := map[string]bool{}
	for _, cmd := range leaves(root) {
		name := strings.TrimPrefix(cmd.CommandPath(), "mxpolicyd ")
		seen[name] = true
		examples, statuses, ok := strings.Cut(cmd.Example, "\n\nExit status:\n")
		if !ok || !strings.HasPrefix(statuses, "  0  ") || !strings.Contains(statuses, "\n  1  ") && name != "version" {
			t.Errorf("%s: no examples and exit statuses: %q", name, cmd.Example)
		}
		for line := range strings.Lines(examples) {
			line = strings.TrimSpace(line)
			if i := strings.Index(line, "mxpolicyd "+name); i < 0 {
				t.Errorf("%s: %q is no example of it", name, line)
				continue
			} else if line = line[i:]; strings.ContainsAny(line, `|"&`) {
				continue // for a shell
			}
			found, rest, err := root.Find(strings.Fields(line)[1:])
			if err != nil || found != cmd {
				t.Errorf("%q: %v", line, err)
				continue
			}
			if err := cmd.ParseFlags(rest); err != nil {
				t.Errorf("%q: %v", line, err)
			} else if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
				t.Errorf("%q: %v", line, err)
			}
		}
	}
	for name := range helps {
		if !seen[name] {
			t.Errorf("there is no command %q", name)
		}
	}
	for args, want := range map[string]string{
		"explain":             "mxpolicyd explain wants DOMAIN (mxpolicyd explain --help tells what there is)\n",
		"explain a.example b": "mxpolicyd explain wants DOMAIN, not \"a.example b\" (",
		"status more":         "mxpolicyd status takes no arguments, not \"more\" (",
		"setup sendmail":      "mxpolicyd setup wants postfix|exim, not \"sendmail\" (",
		"history a.example b": "mxpolicyd history wants [",
		"cache show":          "mxpolicyd cache show wants DOMAIN (",
	} {
		if got := shell(strings.Fields(args)...); got.status == 0 || got.out != "" || !strings.HasPrefix(got.err, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := shell("explain", "a.example", "--nosuch"); got.status != 2 || !strings.Contains(got.err, "mxpolicyd explain --help") {
		t.Errorf("a flag that is not there: %+v", got)
	}
}

// remembering is a daemon that has something to tell.
type remembering struct{ idler }

func (remembering) History(admin.HistoryQuery) admin.History {
	return admin.History{Entries: []history.Entry{{Destination: "b.example"}, {Destination: "a.example"}, {Destination: "b.example"}}}
}

func (remembering) CacheList() (admin.CacheList, error) {
	return admin.CacheList{Policies: []admin.CachedPolicy{{Domain: "bb.example"}}}, nil
}

// A shell completes the domains that the daemon knows, and none where no daemon
// runs.
func TestCompletion(t *testing.T) {
	// a test's own directory can have too long a name for a socket
	dir, err := os.MkdirTemp("", "mx")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	config := filepath.Join(dir, "mxpolicyd.yaml")
	if err := os.WriteFile(config, []byte("listen: {admin: {path: "+dir+"/admin.sock}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	offered := func(args ...string) string {
		t.Helper()
		got := shell(append([]string{"__complete", "-c", config}, args...)...)
		list, _, _ := strings.Cut(got.out, ":") // the directive
		return strings.Join(strings.Fields(list), " ")
	}
	if got := offered("explain", ""); got != "" {
		t.Errorf("without a daemon: %q", got)
	}
	defer serveAdmin(t, dir+"/admin.sock", remembering{})()
	for _, tt := range []struct{ args, want string }{
		{"explain ", "a.example b.example bb.example"},
		{"explain b", "b.example bb.example"},
		{"cache flush bb", "bb.example"},
		{"suspend A", "a.example"},
		{"explain a.example ", ""},
	} {
		if got := offered(strings.Split(tt.args, " ")...); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.args, got, tt.want)
		}
	}
}
