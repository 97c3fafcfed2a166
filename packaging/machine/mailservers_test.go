//go:build machine

package machine

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// send has the machine's mail server send a message.
func (m *machine) send(t *testing.T, domain string) {
	t.Helper()
	m.sh(t, "printf 'Subject: hello\\n\\nHello\\n' | sendmail -f me@mail.machine.example you@"+domain)
}

// The way of the README, with Exim.
func TestExim(t *testing.T) {
	m := boot(t)
	m.sh(t, `debconf-set-selections <<END
exim4-config exim4/dc_eximconfig_configtype select internet site; mail is sent and received directly using SMTP
exim4-config exim4/use_split_config boolean true
exim4-config exim4/mailname string mail.machine.example
exim4-config exim4/dc_local_interfaces string 127.0.0.1
END
apt-get install -y --no-install-recommends exim4-daemon-light`)
	m.install(t, newer)
	w := internet(t, m)
	t.Cleanup(func() {
		if t.Failed() {
			log, _ := m.try("cat", "/var/log/exim4/mainlog")
			t.Logf("Exim's log:\n%s", log)
		}
	})
	m.sh(t, readme(t, "## Use it with Exim"))
	m.send(t, daneDomain)
	arrived(t, w, daneDomain, 1)
	said := regexp.MustCompile(`(?m)<you@` + daneDomain + `>: mxpipe transport output: 2\..*, dane, .*\n.* => you <you@` + daneDomain + `> R=mxpipe T=mxpipe`)
	await(t, "a line of Exim's log like "+said.String(), func() (string, bool) {
		log := m.sh(t, "cat /var/log/exim4/mainlog")
		return log, said.MatchString(log)
	})

	// By LMTP, which its own user does not have to be allowed for.
	m.sh(t, "mxpolicyd setup exim --undo; mxpolicyd setup exim --way lmtp")
	m.send(t, stsDomain)
	arrived(t, w, stsDomain, 1)
	await(t, "a line of Exim's log about LMTP", func() (string, bool) {
		log := m.sh(t, "cat /var/log/exim4/mainlog")
		return log, strings.Contains(log, "=> you <you@"+stsDomain+"> R=mxpipe T=mxpolicyd_lmtp")
	})
}

// The ways of mxpolicyd-postfix(7) beside the pipe: LMTP, also by a second
// socket for a transport of its own, and the look-up of policies from within
// the chroot.
func TestPostfixSockets(t *testing.T) {
	m := boot(t)
	m.startPostfix(t)
	m.install(t, newer)
	w := internet(t, m)
	const contrib = "/usr/share/doc/mxpipe/contrib/postfix/"
	m.sh(t, "cat "+contrib+"master.cf.lmtp >>/etc/postfix/master.cf; cat "+contrib+"main.cf.lmtp >>/etc/postfix/main.cf; "+
		"adduser postfix mxpipe; postconf -e default_transport=mxlmtp:unix:/run/mxpolicyd/lmtp.sock; systemctl restart postfix")
	m.send(t, daneDomain)
	arrived(t, w, daneDomain, 1)

	// A second socket; its name in the protocol is its transport's.
	text, err := os.ReadFile(m.root + "/etc/mxpolicyd/mxpolicyd.yaml")
	if err != nil {
		t.Fatal(err)
	}
	m.file(t, "/etc/mxpolicyd/mxpolicyd.yaml", string(text)+strings.Replace(string(text[strings.LastIndex(string(text), "  default:"):]), "default:", "strict:", 1))
	m.sh(t, "cp /usr/share/doc/mxpipe/examples/mxpolicyd-lmtp-strict.socket /etc/systemd/system/; systemctl daemon-reload; "+
		"systemctl stop mxpolicyd.service; systemctl enable --now mxpolicyd-lmtp-strict.socket; "+
		"postconf -e default_transport=mxlmtp:unix:/run/mxpolicyd/lmtp-strict.sock; postfix reload")
	m.send(t, stsDomain)
	arrived(t, w, stsDomain, 1)
	await(t, "a delivery by the transport strict", func() (string, bool) {
		log := m.journal(t, "mxpolicyd.service")
		return log, strings.Contains(log, "transport=strict")
	})

	// What Postfix's smtp(8) sees: its directory, as its user, in no group but
	// its own.
	m.sh(t, "gpasswd -d postfix mxpipe")
	for _, kind := range []string{"socketmap", "lmtp"} {
		dir := "/etc/systemd/system/mxpolicyd-" + kind + ".socket.d"
		m.sh(t, fmt.Sprintf("mkdir %s; cp /usr/share/doc/mxpipe/examples/postfix-chroot-%s.conf %[1]s/postfix-chroot.conf; systemctl daemon-reload; "+
			"systemctl stop mxpolicyd.service; systemctl restart mxpolicyd-%[2]s.socket", dir, kind))
	}
	ask := "cd /var/spool/postfix; setpriv --reuid=postfix --regid=postfix --clear-groups postmap -q " + daneDomain + " socketmap:unix:mxpolicyd/socketmap.sock:policy"
	if got := m.sh(t, ask); got != "dane-only\n" {
		t.Errorf("the policy for %s is %q", daneDomain, got)
	}
	m.sh(t, "postconf -e default_transport=mxlmtp:unix:mxpolicyd/lmtp.sock; postconf -F mxlmtp/unix/chroot=y; systemctl restart postfix")
	m.send(t, daneDomain)
	arrived(t, w, daneDomain, 2)

	// One command has the socket at a loopback address, which smtp(8) reaches
	// from the chroot and as its user, and takes that back.
	m.sh(t, "rm -r /etc/systemd/system/mxpolicyd-socketmap.socket.d; systemctl daemon-reload; systemctl stop mxpolicyd.service; "+
		"systemctl restart mxpolicyd-socketmap.socket; postconf -X default_transport")
	settings := m.sh(t, "postconf -n; postconf -M")
	m.sh(t, "mxpolicyd setup postfix --way socketmap")
	const table = "socketmap:inet:127.0.0.1:8463:policy"
	if got := m.sh(t, "postmap -q "+daneDomain+" "+table); got != "dane-only\n" {
		t.Errorf("the policy for %s is %q", daneDomain, got)
	}
	if got := m.sh(t, "postconf -h smtp_tls_policy_maps smtp_dns_support_level smtp_tls_security_level"); got != table+"\ndnssec\ndane\n" {
		t.Errorf("Postfix has %q", got)
	}
	// Its status is 1, for the machine's name does not resolve.
	got, _ := m.try("mxpolicyd", "doctor")
	if strings.Contains(got, "nothing listens") || strings.Contains(got, "fail  Postfix") || !strings.Contains(got, "ok    Postfix, smtp_tls_policy_maps: correct") {
		t.Errorf("the doctor says\n%s", got)
	}
	m.sh(t, "mxpolicyd setup postfix --undo")
	if got := m.sh(t, "postconf -n; postconf -M"); got != settings {
		t.Errorf("undone it is\n%s\nand was\n%s", got, settings)
	}
	if got := m.sh(t, "systemctl show -p Listen mxpolicyd-socketmap.socket"); !strings.Contains(got, "/run/mxpolicyd/socketmap.sock") {
		t.Errorf("the socket is at %s", got)
	}
}
