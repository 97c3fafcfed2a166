package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net/textproto"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// relayPassword is one that is easy to find again, whatever was written.
const relayPassword = "Kq7-geheim+Wort/93zU"

// submission is a mail server that bob can hand mail in at, by STARTTLS and by
// TLS from the first byte.
type submission struct {
	name            string // that its certificate is for
	port, implicit  int
	ip              string
	cert, key, root string // files
}

// newSubmission gives a name, an address and a certificate.
func newSubmission(t *testing.T, spec func(names ...string) ca.Spec) *submission {
	t.Helper()
	w := lab(t)
	s := &submission{name: "smtp." + w.newDomain("relay")}
	address, err := w.host(s.name)
	if err != nil {
		t.Fatal(err)
	}
	s.ip, _, _ = strings.Cut(address, ":")
	dir := folder(t)
	s.cert, s.key, s.root = filepath.Join(dir, "crt.pem"), filepath.Join(dir, "key.pem"), filepath.Join(dir, "root.pem")
	cert, err := w.ca.Issue(spec(s.name, s.ip))
	if err == nil {
		err = errors.Join(ca.WritePair(cert, s.cert, s.key), w.ca.WriteRoots(s.root), w.dns.Add(fmt.Sprintf("%s. A %s\n", s.name, s.ip)))
	}
	if err != nil {
		t.Fatal(err)
	}
	s.port, s.implicit = ports.For(t), ports.For(t)
	return s
}

// daemon starts an mxpolicyd whose mail all goes there.
func (s *submission) daemon(t *testing.T, implicit bool, auth, password string) *daemon {
	t.Helper()
	file := filepath.Join(folder(t), "password")
	if err := errors.Join(os.WriteFile(file, []byte(password+"\n"), 0o600), os.Chown(file, daemonUser, daemonUser)); err != nil {
		t.Fatal(err)
	}
	port, tls := s.port, "starttls"
	if implicit {
		port, tls = s.implicit, "implicit"
	}
	return startDaemon(t, settings{transport: fmt.Sprintf(`    debug: true
    conn_reuse_limit: 1000
    tls_client: {root_ca: %s}
    relay: {host: "%s:%d", tls: %s, user: bob, password_file: %s, auth: %s}`, s.root, s.name, port, tls, file, auth)})
}

// startDovecot runs a Dovecot that does nothing but know bob, and gives its
// socket.
func startDovecot(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(folder(t), "dovecot")
	socket := filepath.Join(dir, "auth")
	conf := fmt.Sprintf(`base_dir = %[1]s/run
state_dir = %[1]s/state
log_path = %[1]s/log
protocols =
ssl = no
disable_plaintext_auth = no
auth_mechanisms = plain login scram-sha-256
default_internal_user = nobody
default_login_user = nobody
default_internal_group = nogroup
passdb {
  driver = passwd-file
  args = %[1]s/users
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/
}
service auth {
  unix_listener %[2]s {
    mode = 0666
  }
}
service stats {
  unix_listener stats-reader {
    user = nobody
  }
  unix_listener stats-writer {
    user = nobody
  }
}
`, dir, socket)
	err := errors.Join(os.Mkdir(dir, 0o755), os.Mkdir(filepath.Join(dir, "state"), 0o755),
		write(filepath.Join(dir, "users"), "bob:{PLAIN}"+relayPassword+"\n"), write(filepath.Join(dir, "conf"), conf))
	if err != nil {
		t.Fatal(err)
	}
	p, err := start("dovecot", exec.Command("dovecot", "-F", "-c", filepath.Join(dir, "conf")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	await(t, "Dovecot's socket", func() (string, bool) {
		text, _ := os.ReadFile(filepath.Join(dir, "log"))
		info, err := os.Stat(socket)
		return string(text), err == nil && info.Mode().Type() == fs.ModeSocket
	}, filepath.Join(dir, "log"))
	return socket
}

// startPostfix runs a Postfix there, which asks Dovecot who may hand mail in.
// What it takes is kept, but for the domain discard.e2e.example.
func (s *submission) startPostfix(t *testing.T, auth string, lines string) *postfix {
	t.Helper()
	const ask = ` inet n - n - - smtpd
  -o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject`
	address, err := lab(t).host(lab(t).newDomain("relay"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPostfix(filepath.Join(folder(t), "relay"), "relay", address, fmt.Sprintf(`
inet_interfaces = all
smtpd_tls_security_level = may
smtpd_tls_chain_files = %s, %s
smtpd_tls_auth_only = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = %s
transport_maps = inline:{{discard.e2e.example=discard:}}
default_transport = keep
%s`, s.key, s.cert, auth, lines),
		fmt.Sprintf("%[1]s:%[2]d%[4]s\n%[1]s:%[3]d%[4]s -o smtpd_tls_wrappermode=yes\n", s.ip, s.port, s.implicit, ask))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("relay:\n%s", tail(p.log))
		}
	})
	return p
}

// passwordIsNowhere looks for the password in everything that was written below
// the daemon's directory, its log with the whole dialogue included.
func passwordIsNowhere(t *testing.T, d *daemon, more ...string) {
	t.Helper()
	search := func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		text, err := os.ReadFile(path)
		for _, part := range []string{"geheim", "Wort/93", "AGJvYgB", "S3E3LWdlaGVp"} {
			if strings.Contains(string(text), part) {
				t.Errorf("%s has a part of the password, %q", path, part)
			}
		}
		return err
	}
	for _, dir := range append([]string{d.dir, d.state}, more...) {
		if err := filepath.WalkDir(dir, search); err != nil {
			t.Error(err)
		}
	}
}

// A real submission server, in each way that there is to log in; and what is
// wrong with one never returns mail.
func TestRelayPostfixDovecot(t *testing.T) {
	t.Parallel()
	s := newSubmission(t, ca.For)
	p := s.startPostfix(t, startDovecot(t), "")
	for _, implicit := range []bool{false, true} {
		for _, auth := range []string{"plain", "login", "scram-sha-256"} {
			t.Run(fmt.Sprintf("%s, implicit %v", auth, implicit), func(t *testing.T) {
				t.Parallel()
				d := s.daemon(t, implicit, auth, relayPassword)
				to := unique(t, "b") + "@nosuch.example"
				for range 2 {
					r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", to).result(t)
					if r.exit != 0 || !strings.HasPrefix(r.line, "2.0.0 "+s.name+": 250 2.0.0 ") {
						t.Errorf("%v", r)
					}
				}
				await(t, "both messages", func() (int, bool) {
					n := len(p.arrivals(t, to))
					return n, n == 2
				}, p.log)
				passwordIsNowhere(t, d)
			})
		}
	}
	t.Run("wrong password", func(t *testing.T) {
		t.Parallel()
		d := s.daemon(t, false, "plain", "wrong-"+relayPassword)
		for range 3 {
			r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", "b@a.example").result(t)
			if r.exit != 75 || r.code() != "4.7.8" || !strings.Contains(r.line, "login of bob by PLAIN failed: 535 5.7.8") {
				t.Errorf("%v", r)
			}
		}
		text, err := os.ReadFile(d.log)
		if n := strings.Count(string(text), `C="AUTH PLAIN (hidden)"`); err != nil || n != 1 {
			t.Errorf("it tried %d times to log in, want once a minute: %v", n, err)
		}
		d.logged(t, `level=WARN msg="the relay does not take the login"`)
		passwordIsNowhere(t, d)
	})
	t.Run("AUTH not offered", func(t *testing.T) {
		t.Parallel()
		d := s.daemon(t, false, "oauthbearer", relayPassword)
		r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", "b@a.example").result(t)
		if r.exit != 75 || r.code() != "4.7.8" || !strings.Contains(r.line, "the server offers ") {
			t.Errorf("%v", r)
		}
	})
	t.Run("a thousand messages", func(t *testing.T) {
		t.Parallel()
		thousandMessages(t, s, p)
	})
}

// thousandMessages go over few connections, each of which logs in once.
func thousandMessages(t *testing.T, s *submission, p *postfix) {
	d := s.daemon(t, true, "plain", relayPassword)
	conn, err := textproto.Dial("unix", d.lmtp)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	reply := func(code int) {
		t.Helper()
		if _, _, err := conn.ReadResponse(code); err != nil {
			t.Fatal(err)
		}
	}
	reply(220)
	say := func(code int, line string) {
		t.Helper()
		if err := conn.PrintfLine("%s", line); err != nil {
			t.Fatal(err)
		}
		reply(code)
	}
	say(250, "LHLO client.e2e.example")
	for range 1000 {
		say(250, "MAIL FROM:<a@e2e.example>")
		say(250, "RCPT TO:<b@discard.e2e.example>")
		say(354, "DATA")
		say(250, "Subject: x\r\n\r\nHello.\r\n.")
	}
	text, err := os.ReadFile(d.log)
	if n := strings.Count(string(text), `C="AUTH PLAIN (hidden)"`); err != nil || n < 1 || n > 20 {
		t.Errorf("%d logins for 1,000 messages: %v", n, err)
	}
	taken := regexp.MustCompile(`client=\S+, sasl_method=PLAIN, sasl_username=bob`)
	// By way of postlogd, which may not have written all yet.
	await(t, "1,000 messages at the relay", func() (int, bool) {
		n := len(taken.FindAllString(logText(p.log), -1))
		return n, n >= 1000
	}, p.log)
	passwordIsNowhere(t, d)
}

// A relay whose certificate has expired gets neither the password nor a
// message.
func TestRelayExpired(t *testing.T) {
	t.Parallel()
	s := newSubmission(t, ca.ExpiredFor)
	s.startPostfix(t, startDovecot(t), "")
	for _, implicit := range []bool{false, true} {
		d := s.daemon(t, implicit, "plain", relayPassword)
		r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", "b@a.example").result(t)
		if r.exit != 75 || r.code() != "4.7.5" || !strings.Contains(r.line, "expired") {
			t.Errorf("%v", r)
		}
		text, _ := os.ReadFile(d.log)
		if strings.Contains(string(text), `C="AUTH`) {
			t.Error("it logged in")
		}
	}
}

// A stock Postfix whose relayhost wants a password is taken over by the
// commands of mxpolicyd-postfix(7), and nothing is returned at any step.
func TestRelayTakenOverFromPostfix(t *testing.T) {
	t.Parallel()
	s := newSubmission(t, ca.For)
	p := s.startPostfix(t, startDovecot(t), "")
	n := newInternet(t)
	resolver := n.resolver()
	u := n.unbound(t, resolver)
	var err error
	if n.d, err = n.newDaemon(folder(t), settings{}); err != nil {
		t.Fatal(err)
	}
	n.configure(t, u.Addr(), "none", "")
	if err := n.d.start(n.world, settings{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.d.close(); err != nil {
			t.Error(err)
		}
	})
	table := filepath.Join(folder(t), "sasl_passwd")
	relayhost := fmt.Sprintf("[%s]:%d", s.ip, s.port)
	if err := write(table, relayhost+" bob:"+relayPassword+"\n"); err != nil {
		t.Fatal(err)
	}
	m := n.newDebian(t, resolver, fmt.Sprintf("relayhost = %s\nsmtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = texthash:%s\n", relayhost, table))
	before := m.settings(t)
	setup := func(args ...string) (string, error) {
		t.Helper()
		args = m.within(append([]string{n.mxpolicyd, "setup", "postfix", "-c", n.d.config}, args...)...)
		cmd := exec.Command(args[0], args[1:]...)
		cmd.Env = append(os.Environ(), "MAIL_CONFIG="+m.conf())
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "geheim") {
			t.Errorf("the password is shown: %s", out)
		}
		return string(out), err
	}
	if out, err := setup(); err == nil || !strings.Contains(out, "--relay-password") || m.settings(t) != before {
		t.Fatalf("without the relay it is set up: %v %s", err, out)
	}
	out, err := setup("--relay-password")
	if err != nil {
		t.Fatalf("%v %s", err, out)
	}
	line := regexp.MustCompile(`relay: \{.*\}`).FindString(out)
	file := filepath.Join(filepath.Dir(n.d.config), "relay.password")
	// In these tests the daemon runs as a user without a name.
	if err := os.Chown(file, daemonUser, daemonUser); err != nil || line == "" {
		t.Fatalf("%v %s", err, out)
	}
	n.restart(t, func() {
		text, failed := os.ReadFile(n.d.config)
		if err := errors.Join(failed, write(n.d.config, strings.TrimRight(string(text), "\n")+"\n    "+line+"\n")); err != nil {
			t.Fatal(err)
		}
	})
	m.reloaded(t, func() {
		if out, err := setup(); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	})
	to := unique(t, "b") + "@nosuch.example"
	if f := m.sent(t, m.submit(t, note("a@"+keepDomain, to)), 1); f.relay != "mxpipe" || !strings.Contains(f.text, "["+s.ip+"]: 250 2.0.0 ") {
		t.Errorf("sent, but not by the relay: %+v", f)
	}
	p.arrived(t, to)
	p.find(t, `sasl_method=\S+, (sasl_username=bob)`)
	m.reloaded(t, func() {
		if out, err := setup("--undo"); err != nil {
			t.Fatalf("%v %s", err, out)
		}
	})
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) || m.settings(t) != before {
		t.Errorf("undone, it is not as before: %v\n%s", err, m.settings(t))
	}
	log, err := os.ReadFile(m.log)
	if err != nil || strings.Contains(string(log), "status=bounced") {
		t.Errorf("mail was returned: %v", err)
	}
	passwordIsNowhere(t, n.d)
}

// A stock Exim whose smarthost wants a password is taken over by the commands
// of mxpolicyd-exim(7), and nothing is returned at any step.
func TestRelayTakenOverFromExim(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s := newSubmission(t, ca.For)
	p := s.startPostfix(t, startDovecot(t), "")
	x := debianExim(t, fmt.Sprintf("dc_eximconfig_configtype='smarthost'\ndc_use_split_config='true'\ndc_smarthost='%s::%d'\n", s.name, s.port))
	if err := write(filepath.Join(x.dir, "etc/exim4/passwd.client"), "*.example:bob:"+relayPassword+"\n"); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, settings{transport: fmt.Sprintf("    tls_client: {root_ca: %s}", s.root)})
	before := x.parts(t)
	setup := func(args ...string) (string, error) {
		t.Helper()
		out, err := x.setupBy(w, d.config, args...)
		if strings.Contains(out, "geheim") {
			t.Errorf("the password is shown: %s", out)
		}
		return out, err
	}
	if out, err := setup(); err == nil || !strings.Contains(out, "--relay-password") || x.parts(t) != before {
		t.Fatalf("without the relay it is set up: %v %s", err, out)
	}
	out, err := setup("--relay-password")
	line := regexp.MustCompile(`relay: \{.*\}`).FindString(out)
	if err != nil || line == "" {
		t.Fatalf("%v %s", err, out)
	}
	file := filepath.Join(filepath.Dir(d.config), "relay.password")
	text, err := os.ReadFile(d.config)
	// In these tests the daemon runs as a user without a name.
	err = errors.Join(err, os.Chown(file, daemonUser, daemonUser), write(d.config, strings.TrimRight(string(text), "\n")+"\n    "+line+"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	d.logged(t, `configuration reloaded`)
	if out, err := setup(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	x.serve(t)
	to := unique(t, "b") + "@nosuch.example"
	id := x.submit(t, note("a@debian.e2e.example", to))
	if h := x.sent(t, id, 1); h.relay != "mxpipe" || !strings.Contains(h.text, s.name+": 250 2.0.0 ") {
		t.Errorf("sent, but not by the relay: %+v", h)
	}
	p.arrived(t, to)
	p.find(t, `sasl_method=\S+, (sasl_username=bob)`)
	if out, err := setup("--undo"); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	if _, err := os.Stat(file); !errors.Is(err, fs.ErrNotExist) || x.parts(t) != before {
		t.Errorf("undone, it is not as before: %v", err)
	}
	passwordIsNowhere(t, d)
}

// Exim's own authenticators, which ask for the user and the password in words
// of their own.
func TestRelayExim(t *testing.T) {
	t.Parallel()
	s := newSubmission(t, ca.For)
	dir := filepath.Join(folder(t), "relay")
	x, err := unpackExim(dir, fmt.Sprintf("%s:%d", s.ip, s.port))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(s.key)
	if err == nil {
		cert, failed := os.ReadFile(s.cert)
		err = errors.Join(failed, write(filepath.Join(dir, "etc/tls.pem"), string(cert)+string(key)))
	}
	basics := strings.NewReplacer(
		"tls_advertise_hosts =\n", "tls_advertise_hosts = *\ntls_certificate = /etc/tls.pem\nauth_advertise_hosts = ${if eq{$tls_in_cipher}{}{}{*}}\n",
		"acl_smtp_rcpt = accept\n", "acl_smtp_rcpt = ${if eq{$authenticated_id}{bob}{accept}{deny}}\n",
	).Replace(eximBasics)
	text := fmt.Sprintf(basics, dir, "relay", s.ip, fmt.Sprint(s.port), "", "all:\n  driver = accept\n  transport = keep\n", "") + fmt.Sprintf(`
begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = ${if and{{eq{$auth2}{bob}}{eq{$auth3}{%[1]s}}}}
  server_set_id = $auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = ${if and{{eq{$auth1}{bob}}{eq{$auth2}{%[1]s}}}}
  server_set_id = $auth1
`, relayPassword)
	if err = errors.Join(err, write(x.conf(), text)); err != nil {
		t.Fatal(err)
	}
	if err := x.start("relay"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Exim:\n%s", tail(x.log))
		}
	})
	for _, auth := range []string{"plain", "login"} {
		d := s.daemon(t, false, auth, relayPassword)
		to := unique(t, "b") + "@nosuch.example"
		r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", to).result(t)
		if r.exit != 0 || !strings.Contains(r.line, s.name+": 250 ") || !strings.Contains(r.line, " OK id=") {
			t.Errorf("%s: %v", auth, r)
			continue
		}
		x.arrived(t, to)
		passwordIsNowhere(t, d)
	}
	d := s.daemon(t, false, "login", "wrong")
	if r := mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "-f", "a@e2e.example", "b@a.example").result(t); r.exit != 75 || r.code() != "4.7.8" {
		t.Errorf("%v", r)
	}
}
