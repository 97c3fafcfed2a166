package mailserver

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// ours is a daemon that fits contrib's lines.
var ours = Daemon{
	Transports: []string{"default", "strict"}, Pipe: "/run/mxpolicyd/pipe.sock", LMTP: []string{"/run/mxpolicyd/lmtp.sock"},
	Socketmap: "/run/mxpolicyd/socketmap.sock", MaxMessageSize: 100 << 20, MaxDeliveries: 1000,
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

// shipped gives contrib/postfix as postconf prints it, and what else a sound Postfix has.
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

	list = Postfix(ours, "compatibility_level = 3.6\nenable_long_queue_ids = yes\n"+contrib(t, "postfix/main.cf.socketmap"), "smtp unix - - n - - smtp\n")
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
			`bounces what takes longer than 10m0s, .* after 15m0s`, "postconf -e mxpipe_time_limit=960s"},
		{"command_time_limit", edit{"mxpipe_time_limit = 1000s", "command_time_limit = 900"}, edit{}, finding.Fail, `longer than 15m0s`, ""},
		{"a longer --timeout", edit{}, edit{"--queue-id", "--timeout 20m --queue-id"}, finding.Fail, `longer than 16m40s, .* after 20m0s`, "mxpipe_time_limit=1260s"},
		{"GOTRACEBACK", edit{" GOTRACEBACK=crash", ""}, edit{}, finding.Warn, `can start no thread`, "'export_environment=TZ MAIL_CONFIG LANG GOTRACEBACK=crash'"},
		{"message size", edit{"default_transport", "message_size_limit = 0\ndefault_transport"}, edit{}, finding.Warn, `^Postfix: .*larger messages`, "message_size_limit=104857600"},
		{"short ids", edit{"enable_long_queue_ids = yes\n", ""}, edit{}, finding.Warn, `^Postfix: short queue ids`, "enable_long_queue_ids=yes"},
		{"nothing sent to it", edit{"default_transport = mxpipe\n", ""}, edit{}, finding.Warn, `nothing sends mail to it`, "default_transport=mxpipe"},
		{"chroot", edit{}, edit{"unix  -       n       n ", "unix  -       n       y "}, finding.Fail, `in a chroot, where neither`, "postconf -F mxpipe/unix/chroot=n"},
		{"chroot by an old default", edit{"compatibility_level = 3.6\n", ""}, edit{"unix  -       n       n ", "unix  -       n       - "}, finding.Fail, `in a chroot`, ""},
		{"unprivileged", edit{}, edit{"unix  -       n       n ", "unix  -       -       n "}, finding.Fail, `cannot become the user=`, "postconf -F mxpipe/unix/unprivileged=n"},
		{"no null_sender", edit{}, edit{" null_sender=", ""}, finding.Fail, `MAILER-DAEMON`, "null_sender="},
		{"a null_sender", edit{}, edit{"null_sender=", "null_sender=bounce@example.org"}, finding.Fail, `sender bounce@example.org`, "null_sender="},
		{"no flags", edit{}, edit{"flags=q ", ""}, finding.Fail, `without its quotes`, "flags=q"},
		{"changing flags", edit{}, edit{"flags=q ", "flags=DRhqu "}, finding.Warn, `flags D R u change`, "flags=q"},
		{"no user", edit{}, edit{"user=mxpipe ", ""}, finding.Fail, `wants user=`, "user=mxpipe"},
		{"root", edit{}, edit{"user=mxpipe ", "user=root:mxpipe "}, finding.Fail, `nothing as root`, "user=mxpipe"},
		{"eol", edit{}, edit{"flags=q ", `flags=q eol=\0 `}, finding.Fail, `lines end with`, "eol="},
		{"no sender", edit{}, edit{"-f ${sender} ", ""}, finding.Fail, `told no sender`, "-f"},
		{"another sender", edit{}, edit{"-f ${sender} ", "--sender=x@example.org "}, finding.Warn, `told is "x@example.org"`, "-f ${sender}"},
		{"no queue id", edit{}, edit{"--queue-id ${queue_id} ", ""}, finding.Warn, `--queue-id .*twice`, "in argv= of mxpipe"},
		{"no --", edit{}, edit{" -- ", " "}, finding.Warn, `begins with -`, "--"},
		{"no recipient", edit{}, edit{"${recipient}", "all-${recipient}"}, finding.Fail, `one word each`, "${recipient}"},
		{"no next hop", edit{}, edit{"--nexthop ${nexthop} ", ""}, finding.Warn, `next hop`, "--nexthop"},
		{"another socket", edit{}, edit{"--queue-id", "--socket /tmp/x --queue-id"}, finding.Fail, `calls at /tmp/x, and mxpolicyd listens at /run/mxpolicyd/pipe.sock`, "--socket /run/mxpolicyd/pipe.sock"},
		{"no such transport", edit{}, edit{"--queue-id", "--transport=strikt --queue-id"}, finding.Fail, `no transport "strikt"`, "default, strict"},
		{"no timeout", edit{}, edit{"--queue-id", "--timeout 900 --queue-id"}, finding.Fail, `"900" is none`, "15m"},
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
			edit{"lmtp unix - - y - - lmtp", "lmtp unix - - n - - lmtp -o lmtp_data_done_timeout=20m"}, finding.Warn, `each recipient is a transaction`, "postconf -X"},
		{"socketmap in a chroot", edit{"default_transport = mxpipe", "default_transport = mxpipe\nsmtp_tls_policy_maps = socketmap:unix:/run/mxpolicyd/socketmap.sock:policy\nsmtp_dns_support_level = dnssec\nsmtp_tls_security_level = may\nsmtp_tls_CApath = /etc/ssl/certs"},
			edit{}, finding.Fail, `smtp runs in a chroot, where /run/mxpolicyd/socketmap.sock is not`, "postconf -F smtp/unix/chroot=n"},
		{"socketmap without DNSSEC", edit{"default_transport = mxpipe", "default_transport = mxpipe\nsmtp_tls_policy_maps = socketmap:unix:/run/mxpolicyd/socketmap.sock:policy\nsmtp_tls_security_level = may\ntls_append_default_CA = yes"},
			edit{"smtp unix - - y", "smtp unix - - n"}, finding.Fail, `"dane"`, "smtp_dns_support_level=dnssec"},
		{"socketmap without TLS", edit{"default_transport = mxpipe", "default_transport = mxpipe\nsmtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:policy mxpolicyd\nsmtp_dns_support_level = dnssec\nsmtp_tls_CAfile = /x"},
			edit{}, finding.Warn, `no TLS at all`, "smtp_tls_security_level=dane"},
		{"socketmap without CAs", edit{"default_transport = mxpipe", "default_transport = mxpipe\nsmtp_tls_policy_maps = socketmap:inet:127.0.0.1:8461:policy mxpolicyd\nsmtp_dns_support_level = dnssec\nsmtp_tls_security_level = dane"},
			edit{}, finding.Fail, `trusts no certificate authority`, "smtp_tls_CAfile="},
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

func TestNoMXPipeInPostfix(t *testing.T) {
	check(t, Postfix(ours, "default_transport = smtp\n", "smtp unix - - y - - smtp\nmaildrop unix - n n - - pipe flags=DRhu user=vmail argv=/usr/bin/maildrop\n"),
		finding.Warn, `nothing leads to mxpolicyd`, "contrib/postfix")
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
