package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/policyd/admin"
)

// outcome is what a shell sees of a command.
type outcome struct {
	status   int
	out, err string
}

// shell runs a command as main does.
func shell(args ...string) outcome {
	var out, errs bytes.Buffer
	c := command()
	c.SetArgs(args)
	c.SetOut(&out)
	c.SetErr(&errs)
	cmd, err := c.ExecuteC()
	return outcome{statusOf(cmd, err), out.String(), errs.String()}
}

// inTheWorld writes a configuration for the lab's world, in which no daemon
// runs.
func inTheWorld(t *testing.T) string {
	t.Helper()
	w, err := world.Start(world.Domains()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	dir := t.TempDir()
	if err := w.Authority.WriteRoots(filepath.Join(dir, "roots.pem")); err != nil {
		t.Fatal(err)
	}
	return file(t, fmt.Sprintf(`hostname: client.example
state_dir: %[1]s/state
dns: {servers: ["%[2]s"], timeout: 20s, attempts: 1}
listen: {admin: {path: %[1]s/admin.sock}}
transports:
  default:
    port: %[3]d
    tls_client: {root_ca: [%[1]s/roots.pem]}
    mx_auth: {dnssec: {}, dane: {}, mtasts: {https_port: %[4]d}}
`, dir, w.Resolver(), w.Port(), w.HTTPSPort()))
}

// The exit status tells whether a message could be delivered, also without a
// daemon, which standard error mentions.
func TestExplain(t *testing.T) {
	config := inTheWorld(t)
	for _, tt := range []struct {
		args   string
		status int
		out    string
	}{
		{"none.example", 0, "none.example: would be delivered (look-ups only, no connection tried)\n"},
		{"postmaster@none.example --connect", 0, "none.example: would be delivered (no recipient was asked for; --to does)\n"},
		{"none.example --to postmaster@none.example --from <> --size 1KiB", 0, "none.example: would be delivered (postmaster@none.example is taken; "},
		{"none.example --to nosuch@other.example", 2, ""},
		{"none.example --to x@none.example --size many", 2, ""},
		{"dane-wrong.example", 0, "dane-wrong.example: would be delivered (look-ups only, no connection tried)\n"},
		{"dane-wrong.example --connect", 1, "dane-wrong.example: would be deferred: 4.7.5 mx.dane-wrong.example: DANE: no TLSA record matches: "},
		{"null-mx.example", 1, "null-mx.example: would be refused: 5.1.10 the domain null-mx.example takes no mail (null MX)\n"},
		{"sts-not-listed.example", 1, "sts-not-listed.example: would be deferred: 4.7.5 mx.sts-not-listed.example: the domain's MTA-STS policy does not list this host\n"},
		{"bogus.example", 2, "bogus.example: cannot be determined: 4.4.3 the mail servers of bogus.example cannot be looked up: "},
		{"none.example --transport nosuch", 2, ""},
		{"", 2, ""},
		{"none.example --nosuch", 2, ""},
	} {
		got := shell(append([]string{"explain", "-c", config}, strings.Fields(tt.args)...)...)
		if got.status != tt.status || !strings.HasPrefix(got.out, tt.out) || strings.ContainsRune(got.out, '\x1b') {
			t.Errorf("%s: %+v", tt.args, got)
		}
		if tt.out != "" && !strings.Contains(got.err, "not running") || tt.out == "" && (got.err == "" || got.out != "") {
			t.Errorf("%s: it says %q", tt.args, got.err)
		}
	}
	got := shell("explain", "-c", config, "dane-ee.example", "--connect", "--json")
	var e admin.Explanation
	if err := json.Unmarshal([]byte(got.out), &e); err != nil || got.status != 0 || e.Outcome != "deliverable" || e.Hosts[0].Connection.DANEMatch == "" {
		t.Errorf("%+v, %v", got, err)
	}
	if got := shell("explain", "-c", file(t, "nosuch: 1\n"), "none.example"); got.status != 2 || !strings.Contains(got.err, "nosuch") {
		t.Errorf("%+v", got)
	}
}

// What only a daemon knows cannot be had without one.
func TestWithoutDaemon(t *testing.T) {
	config := file(t, "hostname: client.example\nlisten: {admin: {path: "+t.TempDir()+"/admin.sock}}\n")
	for _, args := range []string{"status", "status --json", "status extra", "cache list", "cache show a.example", "cache flush a.example", "cache flush --all", "trace", "trace a.example --for 1m"} {
		got := shell(append([]string{"-c", config}, strings.Fields(args)...)...)
		if got.status != 1 || got.out != "" || !strings.Contains(got.err, "not running") && args != "status extra" {
			t.Errorf("%s: %+v", args, got)
		}
	}
	for _, args := range []string{"cache flush", "cache flush a.example --all", "cache show", "trace --stop", "trace --for 1m", "trace a b"} {
		got := shell(append([]string{"-c", config}, strings.Fields(args)...)...)
		if got.status != 1 || got.out != "" || got.err == "" || strings.Contains(got.err, "not running") {
			t.Errorf("%s: %+v", args, got)
		}
	}
}

// doctor ends with 1 when something fails, and says what mends it.
func TestDoctor(t *testing.T) {
	got := shell("doctor", "-c", file(t, "hostnam: mx.example.org\n"))
	if got.status != 1 || !strings.HasPrefix(got.out, "fail  configuration: ") || !strings.Contains(got.out, "hostname") || !strings.Contains(got.out, "\n      fix: ") {
		t.Errorf("%+v", got)
	}
	config := inTheWorld(t)
	got = shell("doctor", "-c", config, "--json")
	var found []struct{ Level, What, Mend string }
	if err := json.Unmarshal([]byte(got.out), &found); err != nil || got.status != 1 || len(found) < 6 {
		t.Fatalf("%+v, %v", got, err)
	}
	for _, f := range found {
		if (f.Level == "ok") != (f.Mend == "") || f.What == "" {
			t.Errorf("%+v", f)
		}
	}
}
