package e2e

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/tlsreport"
)

// A day's report goes all its way with real programs: mxpolicyd hands it to
// Postfix, OpenDKIM signs it there, Postfix has mxpipe deliver it, and the
// domain that the report is about verifies and unpacks it by Python's mail
// package and dkimpy, which know nothing of mxpipe. It is sent once, and is
// itself not reported on.
func TestReportMail(t *testing.T) {
	t.Parallel()
	w := lab(t)
	const sender = "out.e2e.example"
	dir := folder(t)
	if err := os.Mkdir(filepath.Join(dir, "daemon"), 0o755); err != nil {
		t.Fatal(err)
	}
	milter, key := openDKIM(t, filepath.Join(dir, "dkim"), sender)
	s, domain := remote(t, "tlsreport", modern(t))
	if err := w.dns.Add(fmt.Sprintf("_smtp._tls.%s. TXT \"v=TLSRPTv1; rua=mailto:reports@%s\"\n", domain, domain)); err != nil {
		t.Fatal(err)
	}
	address, err := w.host("tlsreport.e2e.example")
	if err != nil {
		t.Fatal(err)
	}
	d, err := w.newDaemon(filepath.Join(dir, "daemon"), settings{top: fmt.Sprintf(
		"\ntlsrpt: {report: {from: tlsrpt@%s, organization: Example Org, send: \"smtp://%s\"}}", sender, address)})
	if err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(filepath.Dir(d.socket), "admin.sock")
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	if err := write(d.config, strings.Replace(string(text), "listen: {", "listen: {admin: {path: "+admin+"}, ", 1)); err != nil {
		t.Fatal(err)
	}
	if err := d.start(w, settings{}); err != nil {
		t.Fatal(err)
	}
	d.endsWith(t)
	entry, err := w.masterEntry()
	if err != nil {
		t.Fatal(err)
	}
	entry = strings.ReplaceAll(entry, w.daemon.socket, d.socket)
	p, err := newPostfix(filepath.Join(dir, "postfix"), "tlsreport", address,
		"default_transport = mxpipe\nmxpipe_destination_recipient_limit = 1\nsmtpd_milters = unix:"+milter+"\nmilter_default_action = tempfail\n", entry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(w.mxpolicyd, append([]string{"-c", d.config}, args...)...).CombinedOutput()
		if err != nil && args[0] != "doctor" {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		// wherever lines are broken
		return strings.Join(strings.Fields(string(out)), " ")
	}

	for range 3 { // over one connection
		if r := mxpipe(t, d, strings.NewReader("Subject: a test\n\nText.\n"), "-f", "a@"+keepDomain, "b@"+domain).result(t); r.exit != 0 {
			t.Fatal(r)
		}
	}
	await(t, "the session to be counted", func() (string, bool) {
		out := run("report", "list")
		return out, strings.Contains(out, domain+": 1 sessions succeeded, 0 failed")
	}, d.log)
	s.Forget()
	// The day passes: what was counted is yesterday's.
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.told.close()
	counted, err := filepath.Glob(filepath.Join(d.state, "tlsreport", "*.sessions"))
	if err != nil || len(counted) != 1 {
		t.Fatal(counted, err)
	}
	yesterday := time.Now().UTC().Add(-24 * time.Hour).Format(time.DateOnly)
	if err := os.Rename(counted[0], filepath.Join(d.state, "tlsreport", yesterday+".sessions")); err != nil {
		t.Fatal(err)
	}
	if err := d.start(w, settings{}); err != nil {
		t.Fatal(err)
	}

	if out := run("doctor"); !strings.Contains(out, "taken from tlsrpt@"+sender) {
		t.Errorf("doctor:\n%s", out)
	}
	for range 2 { // the second time there is nothing to send
		if out := run("report", "send", "--now"); !strings.Contains(out, "sent mailto:reports@"+domain) {
			t.Errorf("report send:\n%s", out)
		}
	}
	if out := run("status"); !strings.Contains(out, "1 report sent") {
		t.Errorf("status:\n%s", out)
	}
	got := await(t, "the report", func() ([]byte, bool) {
		list := s.Messages()
		if len(list) == 0 {
			return nil, false
		}
		return list[0].Body, true
	}, d.log, p.log)
	mails := readReports(t, key, got)
	if len(mails) != 1 {
		t.Fatalf("%d mails", len(mails))
	}
	m := mails[0]
	if !m.Verified || m.Signer != sender {
		t.Errorf("verified: %v, signed by %q", m.Verified, m.Signer)
	}
	if m.Domain != domain || m.Sender != sender || m.From != "tlsrpt@"+sender {
		t.Errorf("of %s by %s, from %s", m.Domain, m.Sender, m.From)
	}
	if r := m.Report; r.Organization != "Example Org" || len(r.Policies) != 1 || r.Policies[0].Summary != (tlsreport.Summary{Success: 1}) ||
		r.Policies[0].Policy.Type != tlsreport.TypeNone || r.Range.Start.Format(time.DateOnly) != yesterday {
		t.Errorf("%+v", r)
	}
	// The report's mail is no session that another report is about.
	p.find(t, "to=<reports@"+domain+">.* status=sent")
	if out := run("report", "list"); strings.Count(out, domain+": ") != 1 {
		t.Errorf("report list:\n%s", out)
	}
	if n := len(s.Messages()); n != 1 {
		t.Errorf("%d reports arrived", n)
	}
}

// openDKIM starts Debian's OpenDKIM, which signs what comes from a domain.
func openDKIM(t *testing.T, dir, domain string) (socket string, key *rsa.PrivateKey) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	// Postfix must reach the socket, which is OpenDKIM's own.
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		t.Fatal(err)
	}
	private := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	socket = filepath.Join(dir, "milter.sock")
	for _, err := range []error{
		os.Mkdir(dir, 0o755),
		os.WriteFile(dir+"/key.pem", private, 0o600), os.Chown(dir+"/key.pem", uid, -1), os.Chown(dir, uid, -1),
		write(dir+"/opendkim.conf", fmt.Sprintf(`Background no
Syslog no
UserID postfix
UMask 007
Mode s
Domain %s
Selector s1
KeyFile %s/key.pem
Canonicalization relaxed/simple
InternalHosts 127.0.0.0/8
RequireSafeKeys no
Socket local:%s
`, domain, dir, socket)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command("opendkim", "-f", "-x", dir+"/opendkim.conf")
	cmd.Stdout, cmd.Stderr = log, log
	p, err := start("opendkim", cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
	})
	await(t, "OpenDKIM's socket", func() (string, bool) {
		_, err := os.Stat(socket)
		return fmt.Sprint(err), err == nil || p.ended()
	}, log.Name())
	if p.ended() {
		t.Fatalf("OpenDKIM does not start\n%s", tail(log.Name()))
	}
	return socket, key
}

// reportMail is a report as Python reads it.
type reportMail struct {
	Report               *tlsreport.Report
	Domain, Sender, From string
	Signer               string
	Verified             bool
}

// readReports has Python read mails; which Debian's own has the packages for.
func readReports(t *testing.T, key *rsa.PrivateKey, mails ...[]byte) (out []reportMail) {
	t.Helper()
	const data = "../policyd/tlsreport/testdata/"
	schema, err := os.ReadFile(data + "rfc8460.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	example, err := os.ReadFile(data + "rfc8460-example.json")
	if err != nil {
		t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	given, err := json.Marshal(map[string]any{
		"schema": json.RawMessage(schema), "mails": mails, "reports": []string{string(example)}, "key": base64.StdEncoding.EncodeToString(public),
	})
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/usr/bin/python3", data+"read.py")
	cmd.Stdin = bytes.NewReader(given)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	answer, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(answer, &out)
	}
	if err != nil {
		t.Fatalf("read.py: %v\n%s", err, &errs)
	}
	return out
}
