package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
)

// operator is the administrator's mxpolicyd command.
type operator struct {
	t *testing.T
	n *internet
}

// run runs the command as root, who may ask the daemon, and gives its exit
// status and what it printed. No test is a terminal, so nothing may be
// coloured.
func (o operator) run(args ...string) (status int, out string) {
	o.t.Helper()
	var printed bytes.Buffer
	cmd := exec.Command(o.n.mxpolicyd, append([]string{"-c", o.n.d.config}, args...)...)
	cmd.Stdout, cmd.Stderr = &printed, &printed
	cmd.Env = append(os.Environ(), "TERM=xterm", "MAIL_CONFIG="+o.n.out.conf())
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		o.t.Fatal(err)
	}
	if strings.Contains(printed.String(), "\x1b") || strings.Contains(printed.String(), "DATA RACE") {
		o.t.Errorf("%v: %q", args, printed.String())
	}
	return cmd.ProcessState.ExitCode(), printed.String()
}

// says runs the command and checks what came of it.
func (o operator) says(status int, args string, parts ...string) {
	o.t.Helper()
	got, out := o.run(strings.Fields(args)...)
	if got != status {
		o.t.Errorf("%s: exit status %d, want %d\n%s", args, got, status, out)
	}
	// Where lines are broken is no matter here.
	flat := strings.Join(strings.Fields(out), " ")
	for _, p := range parts {
		if !strings.Contains(flat, strings.Join(strings.Fields(p), " ")) {
			o.t.Errorf("%s: %q is not in\n%s", args, p, out)
		}
	}
}

// An administrator's day with the real programs, behind a real Unbound: what
// explain says is what mxpipe then gets, the daemon tells what it does, traces
// one domain, forgets another, and says that a changed file is wrong.
func TestOperatorsDay(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	secure := n.add(t, domainSpec{name: "secure", ttl: 300, hosts: []hostSpec{withDANE}})
	wrong := n.add(t, domainSpec{name: "wrong", ttl: 300, hosts: []hostSpec{mismatched}})
	enforced := n.add(t, domainSpec{name: "enforced", ttl: 300, signing: dnssec.Unsigned, hosts: []hostSpec{valid}, policy: "enforce"})
	late := n.add(t, domainSpec{name: "late", ttl: 300, hosts: []hostSpec{mismatched}})
	n.add(t, domainSpec{name: "bogus", signing: dnssec.BadSignatures, hosts: []hostSpec{withDANE}})
	resolver := n.unbound(t).Addr()
	var err error
	if n.d, err = n.newDaemon(folder(t), settings{}); err != nil {
		t.Fatal(err)
	}
	admin := strings.Replace(n.d.socket, "pipe.sock", "admin.sock", 1)
	configure := func(more string) {
		t.Helper()
		n.configure(t, resolver, everyPolicy, "")
		text, err := os.ReadFile(n.d.config)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(n.d.config, strings.Replace(string(text), "listen: {", "listen: {admin: {path: "+admin+"}, ", 1)+more); err != nil {
			t.Fatal(err)
		}
	}
	configure("")
	o := operator{t, n}
	// Nothing runs yet.
	o.says(0, "explain secure.example", "not running", "secure.example: would be delivered (look-ups only, no connection tried)", "DNSSEC-signed")
	o.says(1, "status", "not running")
	if entries, err := os.ReadDir(n.d.state); err != nil || len(entries) != 0 {
		t.Errorf("explain has written %v, %v", entries, err)
	}

	if err := n.d.start(n.world, settings{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("mxpolicyd:\n%s", tail(n.d.log))
		}
	})
	o.says(0, "explain secure.example --connect", "secure.example: would be delivered (no recipient was asked for; --to does)\n", "the certificate matches 3 1 1 ", "MX dnssec, TLS authenticated")
	o.says(1, "explain wrong.example --connect", "wrong.example: would be deferred: 4.7.5 mx1.wrong.example: DANE: no TLSA record matches")
	o.says(0, "explain enforced.example --connect", "enforce, id 1", "the policy lists this host", "(RFC 8461)")
	o.says(2, "explain bogus.example", "bogus.example: cannot be determined: 4.4.3 the mail servers of bogus.example cannot be looked up: ", "SERVFAIL")
	o.says(0, "trace enforced.example --for 5m", "enforced.example: traced for 5m")
	for _, c := range []struct {
		to   *domain
		exit int
	}{{secure, 0}, {wrong, 75}, {enforced, 0}} {
		if r := n.send(t, c.to); r.exit != c.exit {
			t.Errorf("%s: %v", c.to.name, r)
		}
	}
	n.d.logged(t, `msg=smtp .*host=mx1\.enforced\.example .*C="MAIL FROM:`)
	if text := n.daemonLog(t); strings.Contains(text, `host=mx1.secure.example address=`+"127.") && strings.Contains(text, "msg=smtp") {
		for line := range strings.Lines(text) {
			if strings.Contains(line, "msg=smtp") && !strings.Contains(line, "mx1.enforced.example") {
				t.Errorf("traced without being asked: %s", line)
			}
		}
	}
	o.says(0, "trace enforced.example --stop", "no domain is being traced")

	_, out := o.run("status", "--json")
	var s struct {
		PID        int
		Transports []struct {
			Name string
			Idle int `json:"idle_connections"`
		}
	}
	if err := json.Unmarshal([]byte(out), &s); err != nil || s.PID != n.d.cmd.Process.Pid || len(s.Transports) != 1 || s.Transports[0].Idle != 2 {
		t.Errorf("%+v, %v\n%s", s, err, out)
	}
	o.says(0, "status", "0 of 1000 in progress", "transport default: 0 deliveries in progress, 2 idle connections", "mx1.secure.example:")
	o.says(0, "cache show enforced.example", "MTA-STS: enforce, id 1", "enforced.example MX: 1 record")
	o.says(0, "cache flush enforced.example", "flushed: 1 MTA-STS policy, ")
	o.says(0, "cache show enforced.example", "nothing is cached for enforced.example")

	if r := n.send(t, late, "--queue-id", "4LateMail"); r.exit != 75 {
		t.Errorf("%s: %v", late.name, r)
	}
	o.answers(late.name, "4LateMail")

	// No one but root and the daemon's user may ask.
	cmd := exec.Command(n.mxpolicyd, "-c", n.d.config, "status")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "only root may ask") {
		t.Errorf("another user: %v, %s", err, out)
	}

	configure("max_delivery: 3\n")
	if err := n.d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n.d.logged(t, "configuration not reloaded.*max_delivery")
	o.says(1, "check-config", `unknown key "max_delivery"`, "max_deliveries")
	o.says(1, "doctor", `fail  configuration: `, "      fix: ")
	configure("")
	// The resolver knows no root, and the name of this host is made up; the
	// rest is as it should be.
	o.says(1, "doctor", "ok    CA bundle", "ok    state directory "+n.d.state, "ok    socket "+admin+": open to root, daemon\n", "ok    socket "+n.d.socket, "mxpipe in master.cf: ")
	if err := n.d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	n.d.logged(t, "configuration reloaded")
}
