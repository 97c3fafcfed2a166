package mailserver

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// ours is a daemon that fits contrib's lines.
var ours = Daemon{
	Transports: []string{"default", "strict"}, Pipe: "/run/mxpolicyd/pipe.sock", LMTP: []string{"/run/mxpolicyd/lmtp.sock"},
	Socketmap: []string{"/run/mxpolicyd/socketmap.sock", "127.0.0.1:8463"}, MaxMessageSize: 100 << 20, MaxDeliveries: 1000,
}

// contrib reads a file below contrib, without its comments.
func contrib(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile("../../../contrib/" + name)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// postconfLines gives the settings of a file of commands.
func postconfLines(text string) string {
	return strings.NewReplacer("postconf -e '", "", "'\n", "\n").Replace(text)
}

// shipped gives contrib/postfix as postconf prints it, and what else a sound
// Postfix has.
func shipped(t *testing.T) (main, master string) {
	t.Helper()
	return "compatibility_level = 3.6\ndefault_transport = mxpipe\nenable_long_queue_ids = yes\n" + contrib(t, "postfix/main.cf.mxpipe"),
		contrib(t, "postfix/master.cf.mxpipe") + "smtp unix - - y - - smtp\nlmtp unix - - y - - lmtp\n"
}

// change replaces a text that must be there once.
func change(t *testing.T, text, old, new string) string {
	t.Helper()
	if strings.Count(text, old) != 1 {
		t.Fatalf("%q is not there once:\n%s", old, text)
	}
	return strings.Replace(text, old, new, 1)
}

// check asserts that of the findings exactly one is bad, and which.
func check(t *testing.T, list []finding.Finding, level finding.Level, what, mend string) {
	t.Helper()
	var bad []finding.Finding
	for _, f := range list {
		if f.Level != finding.OK {
			bad = append(bad, f)
		}
		if strings.Contains(f.What+f.Mend, "\n") || (f.Level == finding.OK) != (f.Mend == "") {
			t.Errorf("not as a finding should be: %+v", f)
		}
	}
	if level == finding.OK {
		if len(bad) > 0 || len(list) == 0 {
			t.Errorf("want only good findings: %+v", list)
		}
		return
	}
	if len(bad) != 1 || bad[0].Level != level || !regexp.MustCompile(what).MatchString(bad[0].What) || !strings.Contains(bad[0].Mend, mend) {
		t.Errorf("got %+v\nwant %v %s (%s)", bad, level, what, mend)
	}
}

func TestShippedPostfix(t *testing.T) {
	main, master := shipped(t)
	check(t, Postfix(ours, main, master), finding.OK, "", "")
	check(t, Postfix(Daemon{}, main, master), finding.OK, "", "")

	main = change(t, main, "default_transport = mxpipe", "default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock") + contrib(t, "postfix/main.cf.lmtp")
	list := Postfix(ours, main, master+contrib(t, "postfix/master.cf.lmtp"))
	check(t, list, finding.OK, "", "")
	if len(list) != 1 || !strings.HasPrefix(list[0].What, "Postfix, mxlmtp in master.cf: ") {
		t.Errorf("want one finding, about LMTP: %+v", list)
	}

	list = Postfix(ours, "compatibility_level = 3.6\n"+postconfLines(contrib(t, "postfix/main.cf.socketmap")), "smtp unix - - y - - smtp\n")
	check(t, list, finding.OK, "", "")
	if len(list) != 1 || !strings.HasPrefix(list[0].What, "Postfix, smtp_tls_policy_maps: ") {
		t.Errorf("want one finding, about the socketmap: %+v", list)
	}

	// The socket lies in the queue directory, by a path that counts from there.
	inside := ours
	inside.LMTP = []string{"/var/spool/postfix/mxpolicyd/lmtp.sock"}
	check(t, Postfix(inside, "enable_long_queue_ids = yes\ndefault_transport = lmtp:unix:/mxpolicyd/lmtp.sock\nlmtp_data_done_timeout = 20m\n", "lmtp unix - - y - - lmtp\n"), finding.OK, "", "")
}

func TestPostfixMistakes(t *testing.T) {
	type edit struct{ old, new string }
	for _, c := range []struct {
		name         string
		main, master edit
		level        finding.Level
		what, mend   string
	}{
		{"recipient limit", edit{"mxpipe_destination_recipient_limit = 1\n", ""}, edit{}, finding.Warn,
			`^Postfix, mxpipe in master.cf: up to 50 recipients share one`, "postconf -e mxpipe_destination_recipient_limit=1"},
		{"recipient limit from the default", edit{"mxpipe_destination_recipient_limit = 1\n", "default_destination_recipient_limit = 7\n"}, edit{}, finding.Warn, `up to 7 `, ""},
		{"time limit", edit{"mxpipe_time_limit = 1000s", "mxpipe_time_limit = 10m"}, edit{}, finding.Fail,
			`Postfix bounces after 10m0s, .* after 15m0s`, "postconf -e mxpipe_time_limit=960s"},
		{"command_time_limit", edit{"mxpipe_time_limit = 1000s", "command_time_limit = 900"}, edit{}, finding.Fail, `bounces after 15m0s`, ""},
		{"a longer --timeout", edit{}, edit{"--queue-id", "--timeout 20m --queue-id"}, finding.Fail, `bounces after 16m40s, .* after 20m0s`, "mxpipe_time_limit=1260s"},
		{"GOTRACEBACK", edit{" GOTRACEBACK=crash", ""}, edit{}, finding.Warn, `cannot start a thread`, "'export_environment=TZ MAIL_CONFIG LANG GOTRACEBACK=crash'"},
		{"GOMEMLIMIT", edit{"GOTRACEBACK=crash", "GOMEMLIMIT GOTRACEBACK=crash"}, edit{}, finding.Fail, `mxpipe gets GOMEMLIMIT: `, "remove GOMEMLIMIT from export_environment"},
		{"GODEBUG", edit{"GOTRACEBACK=crash", "GOTRACEBACK=crash, GODEBUG=inittrace=1"}, edit{}, finding.Warn, `mxpipe gets GODEBUG=inittrace=1, `, "remove GODEBUG from export_environment"},
		{"message size", edit{"default_transport", "message_size_limit = 0\ndefault_transport"}, edit{}, finding.Warn, `^Postfix: .*larger messages`, "message_size_limit=104857600"},
		{"short ids", edit{"enable_long_queue_ids = yes\n", ""}, edit{}, finding.Warn, `^Postfix: short queue ids`, "enable_long_queue_ids=yes"},
		{"nothing sent to it", edit{"default_transport = mxpipe\n", ""}, edit{}, finding.Warn, `nothing sends mail to it`, "default_transport=mxpipe"},
		{"chroot", edit{}, edit{"unix  -       n       n ", "unix  -       n       y "}, finding.Fail, `in a chroot, where neither`, "postconf -F mxpipe/unix/chroot=n"},
		{"chroot by an old default", edit{"compatibility_level = 3.6\n", ""}, edit{"unix  -       n       n ", "unix  -       n       - "}, finding.Fail, `in a chroot`, ""},
		{"unprivileged", edit{}, edit{"unix  -       n       n ", "unix  -       -       n "}, finding.Fail, `cannot switch to the user=`, "postconf -F mxpipe/unix/unprivileged=n"},
		{"no null_sender", edit{}, edit{" null_sender=", ""}, finding.Fail, `MAILER-DAEMON`, "null_sender="},
		{"a null_sender", edit{}, edit{"null_sender=", "null_sender=bounce@example.org"}, finding.Fail, `sender bounce@example.org`, "null_sender="},
		{"no flags", edit{}, edit{"flags=q ", ""}, finding.Fail, `loses its quotes`, "flags=q"},
		{"changing flags", edit{}, edit{"flags=q ", "flags=DRhqu "}, finding.Warn, `flags D R u change`, "flags=q"},
		{"no user", edit{}, edit{"user=mxpipe ", ""}, finding.Fail, `requires user=`, "user=mxpipe"},
		{"root", edit{}, edit{"user=mxpipe ", "user=root:mxpipe "}, finding.Fail, `refuses to run as root`, "user=mxpipe"},
		{"eol", edit{}, edit{"flags=q ", `flags=q eol=\0 `}, finding.Fail, `lines end with`, "eol="},
		{"no sender", edit{}, edit{"-f ${sender} ", ""}, finding.Fail, `gets no sender`, "-f"},
		{"another sender", edit{}, edit{"-f ${sender} ", "--sender=x@example.org "}, finding.Warn, `gets the sender "x@example.org"`, "-f ${sender}"},
		{"no queue id", edit{}, edit{"--queue-id ${queue_id} ", ""}, finding.Warn, `--queue-id .*twice`, "in argv= of mxpipe"},
		{"no --", edit{}, edit{" -- ", " "}, finding.Warn, `starts with -`, "--"},
		{"no recipient", edit{}, edit{"${recipient}", "all-${recipient}"}, finding.Fail, `each recipient as one argument`, "${recipient}"},
		{"no next hop", edit{}, edit{"--nexthop ${nexthop} ", ""}, finding.Warn, `next hop`, "--nexthop"},
		{"another socket", edit{}, edit{"--queue-id", "--socket /tmp/x --queue-id"}, finding.Fail, `connects to /tmp/x, but mxpolicyd listens on /run/mxpolicyd/pipe.sock`, "--socket /run/mxpolicyd/pipe.sock"},
		{"no such transport", edit{}, edit{"--queue-id", "--transport=strikt --queue-id"}, finding.Fail, `no transport "strikt"`, "default, strict"},
		{"no timeout", edit{}, edit{"--queue-id", "--timeout 900 --queue-id"}, finding.Fail, `"900" is not a duration`, "15m"},
		{"too many", edit{}, edit{"n       -       -       pipe", "n       -       2000    pipe"}, finding.Warn, `up to 2000 at once`, "max_deliveries"},
		{"any number", edit{}, edit{"n       -       -       pipe", "n       -       0       pipe"}, finding.Warn, `up to 0 at once`, ""},
		{"lmtp in a chroot", edit{"default_transport = mxpipe", "default_transport = mxpipe\nrelay_transport = lmtp:unix:/run/mxpolicyd/lmtp.sock\nlmtp_data_done_timeout = 1h"}, edit{}, finding.Fail,
			`^Postfix, lmtp in master.cf: it runs in a chroot`, "postconf -F lmtp/unix/chroot=n"},
		{"lmtp hangs up", edit{"default_transport = mxpipe", "default_transport = mxpipe\ntransport_maps = inline:{a.example=lmtp:unix:/run/mxpolicyd/lmtp.sock}"},
			edit{"lmtp unix - - y", "lmtp unix - - n"}, finding.Warn, `hangs up after 10m0s`, "postconf -P lmtp/unix/lmtp_data_done_timeout=960s"},
		{"another entry beside LMTP", edit{"default_transport = mxpipe", "default_transport = lmtp:unix:/run/mxpolicyd/lmtp.sock\nlmtp_data_done_timeout = 20m"},
			edit{"lmtp unix - - y", "lmtp unix - - n"}, finding.OK, ``, ``},
		{"no lmtp", edit{"default_transport = mxpipe", "default_transport = mxpipe\nrelay_transport = mx:unix:/run/mxpolicyd/lmtp.sock"}, edit{}, finding.Fail,
			`no such entry runs lmtp`, "master.cf"},
		{"lmtp, one by one", edit{"default_transport = mxpipe", "default_transport = mxpipe\nrelay_transport = lmtp:unix:/run/mxpolicyd/lmtp.sock\nlmtp_destination_recipient_limit = 1"},
			edit{"lmtp unix - - y - - lmtp", "lmtp unix - - n - - lmtp -o lmtp_data_done_timeout=20m"}, finding.Warn, `each recipient gets its own transaction`, "postconf -X"},
		{"a socket within the chroot", edit{"default_transport = mxpipe", "default_transport = mxpipe\nrelay_transport = lmtp:unix:mxpolicyd/lmtp.sock\nlmtp_data_done_timeout = 20m"}, edit{}, finding.OK, ``, ``},
	} {
		t.Run(c.name, func(t *testing.T) {
			main, master := shipped(t)
			if c.main != (edit{}) {
				main = change(t, main, c.main.old, c.main.new)
			}
			if c.master != (edit{}) {
				master = change(t, master, c.master.old, c.master.new)
			}
			check(t, Postfix(ours, main, master), c.level, c.what, c.mend)
		})
	}
}

// asking is a Postfix whose own smtp asks for policies, as contrib/postfix has
// it; the last setting of a name counts.
const asking = `mail_version = 3.7.11
smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8463:policy
smtp_dns_support_level = dnssec
smtp_tls_security_level = dane
smtp_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1
smtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt
`

// What keeps Postfix's smtp from using the daemon's socketmap, each by itself,
// on Debian's stock entries.
func TestPolicyMapMistakes(t *testing.T) {
	const socket = "/run/mxpolicyd/socketmap.sock"
	maps := func(m string) string { return "smtp_tls_policy_maps = " + m + "\n" }
	for _, c := range []struct {
		name, main string
		master     string // instead of Debian's
		level      finding.Level
		what, mend string
	}{
		{name: "as documented"},
		{name: "several tables", main: maps("hash:/etc/postfix/tls_policy, socketmap:inet:127.0.0.1:8463:policy")},
		{name: "localhost", main: maps("socketmap:inet:localhost:8463:policy")},
		{name: "a transport", main: maps("socketmap:inet:127.0.0.1:8463:policy@strict")},
		{name: "a neighbour's name", main: maps("socketmap:inet:127.0.0.1:8463:QUERY")},
		{name: "another neighbour's", main: maps("socketmap:inet:127.0.0.1:8463:postfix@strict")},
		{name: "reports", main: "mail_version = 3.10.1\n" + maps("socketmap:inet:127.0.0.1:8463:policy-tlsrpt")},
		{name: "reports, version unknown", main: "mail_version =\n" + maps("socketmap:inet:127.0.0.1:8463:policy-tlsrpt")},
		{name: "a stronger level", main: "smtp_tls_security_level = encrypt\nsmtp_tls_dane_insecure_mx_policy = dane\n"},
		{name: "no chroot", main: maps("socketmap:unix:" + socket + ":policy"), master: "smtp unix - - n - - smtp\n"},
		{name: "in the queue directory", main: maps("socketmap:unix:mxpolicyd/socketmap.sock:policy")},
		{name: "in the queue directory, as the chroot sees it", main: maps("socketmap:unix:/mxpolicyd/socketmap.sock:policy")},

		{"in a chroot", maps("socketmap:unix:" + socket + ":policy"), "", finding.Fail,
			`^Postfix, smtp_tls_policy_maps: smtp runs in the chroot /var/spool/postfix, where /run/mxpolicyd/socketmap.sock does not exist`, "mxpolicyd setup postfix --way socketmap, or postconf -F smtp/unix/chroot=n"},
		{"nothing listens", maps("socketmap:inet:127.0.0.1:8462:policy"), "", finding.Fail,
			`asks 127.0.0.1:8462, but mxpolicyd listens on /run/mxpolicyd/socketmap.sock, 127.0.0.1:8463, `, "mxpolicyd setup postfix --way socketmap"},
		{"nothing listens in the queue directory", maps("socketmap:unix:mxpolicyd/elsewhere.sock:policy"), "", finding.Fail, `asks mxpolicyd/elsewhere.sock, `, ""},
		{"the map's name", maps("hash:/x, socketmap:inet:127.0.0.1:8463:tlspol"), "", finding.Fail,
			`has no map "tlspol"`, "postconf -e 'smtp_tls_policy_maps=hash:/x, socketmap:inet:127.0.0.1:8463:policy'"},
		{"no name", maps("socketmap:inet:127.0.0.1:8463:"), "", finding.Fail, `has no map ""`, "8463:policy'"},
		{"no such transport", maps("socketmap:inet:127.0.0.1:8463:policy@strikt"), "", finding.Fail, `no transport "strikt"`, "default, strict"},
		{"reports that Postfix does not know", maps("socketmap:inet:127.0.0.1:8463:QUERYwithTLSRPT"), "", finding.Fail,
			`Postfix 3.7 does not support the attributes of the map QUERYwithTLSRPT`, "8463:policy'"},
		{"no DNSSEC", "smtp_dns_support_level =\n", "", finding.Fail, `treats the answer "dane" as "may"`, "postconf -e smtp_dns_support_level=dnssec"},
		{"no CAs", "smtp_tls_CAfile =\n", "", finding.Fail, `trusts no certificate authority`, "postconf -e smtp_tls_CAfile="},
		{"CAs in a chroot", "smtp_tls_CAfile =\nsmtp_tls_CApath = /etc/ssl/certs\n", "", finding.Warn,
			`smtp runs in a chroot, where the certificate authorities are a copy in /var/spool/postfix/etc/ssl/certs, `, "postconf -e smtp_tls_CAfile="},
		{name: "CAs, and no chroot", main: "smtp_tls_CAfile =\nsmtp_tls_CApath = /etc/ssl/certs\n", master: "smtp unix - - n - - smtp\n"},
		{"an entry with tables of its own", "", "smtp unix - - n - - smtp -o smtp_tls_policy_maps=static:may\n", finding.Warn,
			`smtp has tables of its own in master.cf`, "postconf -PX smtp/unix/smtp_tls_policy_maps"},
		{name: "an entry with another transport's", master: "smtp unix - - n - - smtp -o smtp_tls_policy_maps=socketmap:inet:127.0.0.1:8463:policy@strict\n"},
		{"no TLS", "smtp_tls_security_level =\n", "", finding.Warn, `no TLS at all`, "postconf -e smtp_tls_security_level=dane"},
		{"TLS 1.0", "smtp_tls_mandatory_protocols = >=TLSv1\n", "", finding.Warn, `TLS 1.0 and 1.1 count`, "postconf -e 'smtp_tls_mandatory_protocols="},
		{"Debian's level", "smtp_tls_security_level = may\nsmtp_tls_dane_insecure_mx_policy = ${{$smtp_tls_security_level} == {dane} ? {dane} : {may}}\n", "", finding.Warn,
			`TLSA records of hosts from an unsigned MX set`, "postconf -e smtp_tls_security_level=dane"},
		{"a level that leaves DANE out", "smtp_tls_security_level = encrypt\n", "", finding.Warn, `TLSA records of hosts`, "postconf -e smtp_tls_dane_insecure_mx_policy=dane"},

		{"postfix-tlspol", maps("socketmap:inet:127.0.0.1:8642:QUERY"), "", finding.Warn, `asks 127.0.0.1:8642 for policies, but mxpolicyd does not listen there`, "mxpolicyd setup postfix --way socketmap"},
		{"postfix-mta-sts-resolver", maps("socketmap:inet:127.0.0.1:8461:postfix"), "", finding.Warn, `asks 127.0.0.1:8461 for policies`, "mxpolicyd setup postfix --way socketmap"},
		{"postfix-tlspol's socket", maps("socketmap:unix:/run/postfix-tlspol/tlspol.sock:QUERY"), "", finding.Warn, `asks /run/postfix-tlspol/tlspol.sock for`, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ours
			d.Socketmap = append(slices.Clone(d.Socketmap), "/var/spool/postfix/mxpolicyd/socketmap.sock")
			if c.name == "nothing listens" {
				d = ours
			}
			master := c.master
			if master == "" {
				master = "smtp unix - - y - - smtp\nrelay unix - - n - - smtp\n"
			}
			list := Postfix(d, asking+c.main, master)
			check(t, list, c.level, c.what, c.mend)
			if len(list) != 1 {
				t.Errorf("want one finding: %+v", list)
			}
		})
	}
}

// What Postfix requires of every server mxpolicyd must require too, or mail
// that was held back leaves in the clear.
func TestDemands(t *testing.T) {
	main, master := shipped(t)
	const dane = "smtp_tls_dane_insecure_mx_policy = dane\n"
	for _, c := range []struct {
		main, smtp string // settings, and options of master.cf
		least      verdict.TLSLevel
	}{
		{"smtp_tls_security_level = may\n", "", verdict.TLSNone},
		{"smtp_tls_security_level = dane\n", "", verdict.TLSNone},
		{"smtp_tls_security_level = encrypt\n", "", verdict.TLSEncrypted},
		{"smtp_tls_security_level = dane-only\n", "", verdict.TLSAuthenticated},
		{"smtp_tls_security_level = fingerprint\n", "", verdict.TLSAuthenticated},
		{"smtp_tls_security_level = verify\n", "", verdict.TLSAuthenticated},
		{"smtp_tls_security_level = secure\n", "", verdict.TLSAuthenticated},
		{"smtp_tls_security_level = $own\nown = encrypt\n", "", verdict.TLSEncrypted},
		{"smtp_tls_security_level =\nsmtp_enforce_tls = yes\n", "", verdict.TLSAuthenticated},
		{"smtp_tls_security_level =\nsmtp_enforce_tls = yes\nsmtp_tls_enforce_peername = no\n", "", verdict.TLSEncrypted},
		{"smtp_tls_security_level = may\nsmtp_enforce_tls = yes\n", "", verdict.TLSNone},
		{"smtp_tls_security_level = dane\n", " -o smtp_tls_security_level=encrypt", verdict.TLSEncrypted},
	} {
		for _, has := range []verdict.TLSLevel{verdict.TLSNone, verdict.TLSEncrypted, verdict.TLSAuthenticated} {
			d := ours
			d.MinTLS = map[string]verdict.TLSLevel{"default": has, "strict": verdict.TLSAuthenticated}
			entry := "smtp unix - - n - - smtp" + c.smtp + "\n"
			for way, list := range map[string][]finding.Finding{
				"socketmap": Postfix(d, asking+dane+c.main, entry),
				"pipe":      Postfix(d, main+c.main, change(t, master, "smtp unix - - y - - smtp\n", entry)),
			} {
				refused := slices.ContainsFunc(list, func(f finding.Finding) bool {
					return f.Level == finding.Fail && strings.Contains(f.Mend, "transport default, write local_policy: {min_tls_level: "+c.least.String()+"}")
				})
				if refused != (has < c.least) {
					t.Errorf("%s%s by %s, with %v in mxpolicyd.yaml: %+v", c.main, c.smtp, way, has, list)
				}
			}
			// A relay of ours proves who it is; smtp(8) does not use it.
			d.Relayed = []string{"default"}
			list := Postfix(d, main+c.main, change(t, master, "smtp unix - - y - - smtp\n", entry))
			check(t, list, finding.OK, "", "")
			if list = Postfix(d, asking+dane+c.main, entry); has < c.least && list[0].Level != finding.Fail {
				t.Errorf("%s%s by socketmap, beside a relay: %+v", c.main, c.smtp, list)
			}
			strict := strings.Replace(asking, ":policy", ":policy@strict", 1)
			check(t, Postfix(d, strict+dane+c.main, entry), finding.OK, "", "")
		}
	}
}

// Pinned keys are SHA-256 digests.
func TestPinnedKeys(t *testing.T) {
	pins := ours
	pins.Pins = true
	for main, bad := range map[string]bool{
		"compatibility_level = 3.6\n": false, "compatibility_level = 3.10\n": false, "compatibility_level = 4\n": false,
		"smtp_tls_fingerprint_digest = sha256\n": false, "compatibility_level = 2\nsmtp_tls_fingerprint_digest = sha256\n": false,
		"": true, "compatibility_level = 3.5\n": true, "compatibility_level = 3.6\nsmtp_tls_fingerprint_digest = sha1\n": true,
		"compatibility_level = 2\nsmtp_tls_fingerprint_digest = ${{$compatibility_level} <level {3.6} ? {md5} : {sha256}}\n": true,
	} {
		level := finding.OK
		if bad {
			level = finding.Fail
		}
		check(t, Postfix(pins, asking+main, "smtp unix - - n - - smtp\n"), level, `domains with a pin`, "postconf -e smtp_tls_fingerprint_digest=sha256")
		check(t, Postfix(ours, asking+main, "smtp unix - - n - - smtp\n"), finding.OK, "", "")
	}
}

func TestOnlyTLS12(t *testing.T) {
	for value, want := range map[string]bool{
		"": false, ">=TLSv1": false, "!SSLv2, !SSLv3": false, "!SSLv2, !SSLv3, !TLSv1": false, "TLSv1": false, "TLSv1.1, TLSv1.2": false, "SSLv3": false, "<=TLSv1.2": false,
		">=TLSv1.2": true, ">=TLSv1.3": true, "!SSLv2, !SSLv3, !TLSv1, !TLSv1.1": true, "!TLSv1:!TLSv1.1": true, "TLSv1.2": true, "TLSv1.2 TLSv1.3": true, ">=TLSv1.2, <=TLSv1.3": true,
	} {
		if got := OnlyTLS12(value); got != want {
			t.Errorf("%q: %v", value, got)
		}
	}
}

func TestPostfixCallers(t *testing.T) {
	main := "queue_directory = /q\nmail_owner = mail\ndefault_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock\nrelay_transport = inner:unix:/mxpolicyd/lmtp.sock\n" +
		"smtp_tls_policy_maps = socketmap:unix:mxpolicyd/socketmap.sock:policy\n"
	master := "mxpipe unix - n n - - pipe user=u:g argv=/usr/bin/mxpipe -- ${recipient}\nmxlmtp unix - - n - - lmtp\ninner unix - - y - - lmtp\nsmtp unix - - y - - smtp\n"
	want := []Caller{
		{Entry: "Postfix, mxpipe in master.cf", User: "u", Group: "g", Socket: "/run/mxpolicyd/pipe.sock"},
		{Entry: "Postfix, mxlmtp in master.cf", User: "mail", Socket: "/run/mxpolicyd/lmtp.sock", AllGroups: true},
		{Entry: "Postfix, inner in master.cf", User: "mail", Socket: "/q/mxpolicyd/lmtp.sock", AllGroups: true},
		{Entry: "Postfix, smtp_tls_policy_maps", User: "mail", Socket: "/q/mxpolicyd/socketmap.sock", AllGroups: true},
	}
	got := PostfixCallers(ours, main, master)
	if !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if mend := got[1].Regroup("mxpipe"); mend != "usermod -aG mxpipe mail && postfix reload" {
		t.Errorf("the mend is %q", mend)
	}
}

// Each setting of smtp(8) that does nothing for mail by pipe or by LMTP is told
// of when it is set, and no other.
func TestLostSettings(t *testing.T) {
	main, master := shipped(t)
	byLMTP := change(t, main, "default_transport = mxpipe", "default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock") + contrib(t, "postfix/main.cf.lmtp")
	lmtpMaster := master + contrib(t, "postfix/master.cf.lmtp")
	passwords := map[string]bool{"smtp_sasl_auth_enable": true, "smtp_sasl_password_maps": true, "smtp_sender_dependent_authentication": true}
	for _, s := range LostSettings() {
		if passwords[s.Name] {
			continue // see TestRelayhosts
		}
		set := s.Name + " = something\n"
		check(t, Postfix(ours, main+set, master), finding.Warn, `^Postfix: `+s.Name+` has no effect on mail sent by pipe$`, s.Instead)
		mend := s.Instead
		if s.LMTP != "" {
			mend = "set " + s.LMTP
			check(t, Postfix(ours, byLMTP+set+s.LMTP+" = something\n", lmtpMaster), finding.OK, "", "")
		}
		check(t, Postfix(ours, byLMTP+set, lmtpMaster), finding.Warn, `^Postfix: `+s.Name+` has no effect on mail sent by LMTP$`, mend)
		for _, usual := range s.Usual {
			check(t, Postfix(ours, main+s.Name+" = "+usual+"\n", master), finding.OK, "", "")
		}
		check(t, Postfix(ours, asking+set, "smtp unix - - y - - smtp\n"), s.still(), "", "")
	}
	check(t, Postfix(ours, main, change(t, master, "smtp unix - - y - - smtp", "smtp unix - - y - - smtp -o smtp_bind_address=192.0.2.1")), finding.Warn,
		`smtp_bind_address has no effect`, "local_ip")
	check(t, Postfix(ours, main+"myhostname = mx.example\nsmtp_helo_name = mx.example\n", master), finding.OK, "", "")
	check(t, Postfix(ours, main+"smtp_tls_policy_maps = socketmap:inet:127.0.0.1:8642:QUERY\n", master), finding.OK, "", "")
}

// still is how bad a setting's being "something" is for a Postfix that delivers
// by smtp(8) and asks for policies: those are the settings that it needs.
func (s LostSetting) still() finding.Level {
	switch s.Name {
	case "smtp_tls_policy_maps", "smtp_tls_security_level", "smtp_tls_mandatory_protocols":
		return finding.Warn
	case "smtp_tls_per_site": // Postfix ignores it beside smtp_tls_policy_maps
		return finding.Fail
	}
	return finding.OK
}

// A Postfix that hands all its mail to a relay.
func TestRelayhosts(t *testing.T) {
	main, master := shipped(t)
	lmtp := change(t, main, "default_transport = mxpipe", "default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock") + contrib(t, "postfix/main.cf.lmtp")
	const relay, sasl = "relayhost = [smtp.example]:587\n", "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/postfix/sasl\n"
	for _, c := range []struct {
		name, main string
		level      finding.Level
		what       string
	}{
		{"by pipe, without a password", main + relay, finding.OK, ""},
		{"by pipe, with a password", main + relay + sasl, finding.Fail, `relayhost \(\[smtp.example\]:587\) requires a password`},
		{"by pipe, passwords for some", main + sasl, finding.Warn, `passwords of smtp_sasl_password_maps are not used`},
		{"by pipe, by sender", main + "sender_dependent_relayhost_maps = hash:/x\n", finding.Warn, `sender-dependent relays`},
		{"by pipe, passwords by sender", main + "smtp_sender_dependent_authentication = yes\n", finding.Warn, `sender-dependent relays`},
		{"by LMTP", lmtp + relay, finding.Fail, `relayhost \(\[smtp.example\]:587\) has no effect .* LMTP`},
		{"only some domains", change(t, main, "default_transport = mxpipe", "transport_maps = hash:/x") + relay + sasl, finding.OK, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			mend := ""
			if c.level != finding.OK {
				mend = "smtp(8)"
			}
			check(t, Postfix(ours, c.main, master+contrib(t, "postfix/master.cf.lmtp")), c.level, c.what, mend)
		})
	}
}

// A relay that mxpolicyd.yaml has is no mistake of Postfix's.
func TestRelayhostsWithRelays(t *testing.T) {
	main, master := shipped(t)
	lmtp := change(t, main, "default_transport = mxpipe", "default_transport = mxlmtp:unix:/run/mxpolicyd/lmtp.sock") + contrib(t, "postfix/main.cf.lmtp")
	const sasl = "smtp_sasl_auth_enable = yes\nsmtp_sasl_password_maps = hash:/etc/postfix/sasl\n"
	named := Relay{Host: "smtp.example", Port: 587, Login: true}
	all, open := named, named
	all.All, open.Login = true, false
	for _, c := range []struct {
		name, main string
		relay      Relay
		level      finding.Level
		what, mend string
	}{
		{"named", main + "relayhost = [SMTP.Example]:587\n" + sasl, named, finding.OK, "", ""},
		{"named, without brackets", main + "relayhost = smtp.example:587\n" + sasl, named, finding.OK, "", ""},
		{"another port", main + "relayhost = [smtp.example]\n" + sasl, named, finding.Fail, `requires a password`, `relay: {host: "smtp.example:25", user: USER`},
		{"another host", main + "relayhost = [b.example]:587\n" + sasl, named, finding.Fail, `requires a password`, `mxpolicyd setup postfix --relay-password`},
		{"implicit TLS", main + "relayhost = [b.example]:465\nsmtp_tls_wrappermode = yes\n" + sasl, named, finding.Fail, `requires a password`, `tls: implicit`},
		{"all", main + "relayhost = [b.example]\n" + sasl, all, finding.OK, "", ""},
		{"without a login", main + "relayhost = [smtp.example]:587\n" + sasl, open, finding.Fail, `which the relay in mxpolicyd.yaml does not have`, "add user"},
		{"a port by name", main + "relayhost = [smtp.example]:submission\n" + sasl, named, finding.Fail, `has a port by name`, "postconf -e 'relayhost = [smtp.example]:587'"},
		{"a port by name, all", main + "relayhost = [smtp.example]:submission\n" + sasl, all, finding.OK, "", ""},
		{"by LMTP, named", lmtp + "relayhost = [smtp.example]:587\n" + sasl, named, finding.Fail, `LMTP`, "relay: {host"},
		{"by LMTP, all", lmtp + "relayhost = [smtp.example]:587\n" + sasl, all, finding.OK, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := ours
			d.Relays = []Relay{c.relay}
			check(t, Postfix(d, c.main, master+contrib(t, "postfix/master.cf.lmtp")), c.level, c.what, c.mend)
		})
	}
}

func TestNoMXPipeInPostfix(t *testing.T) {
	check(t, Postfix(ours, "default_transport = smtp\n", "smtp unix - - y - - smtp\nmaildrop unix - n n - - pipe flags=DRhu user=vmail argv=/usr/bin/maildrop\n"),
		finding.Warn, `not set up to use mxpolicyd`, "contrib/postfix")
	check(t, Postfix(ours, "default_transport = smtp\ntransport_maps = hash:/etc/postfix/transport\n", "smtp unix - - y - - smtp\n"), finding.OK, "", "")
}

// Neither a circle of settings nor a torn output of postconf confounds it.
func FuzzPostfix(f *testing.F) {
	f.Add("a = $b\nb = ${a}$(a)\nmxpipe_time_limit = $a\n", "mxpipe unix - n n - - pipe flags=q argv=/usr/bin/mxpipe")
	f.Add("mxpipe_time_limit = ${stress?{1}:{2}}s\nx = ${", "mxpipe unix - n n - - pipe argv=mxpipe -f")
	f.Fuzz(func(t *testing.T, main, master string) {
		for _, found := range Postfix(ours, main, master) {
			if found.What == "" {
				t.Errorf("an empty finding: %+v", found)
			}
		}
	})
}
