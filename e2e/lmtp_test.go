package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// One message to six recipients on three domains, sent, deferred and bounced in
// one go: each recipient has a status of its own in the mail server's log, and
// each domain one transaction.
func TestLMTPEachRecipientHasItsStatus(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		s1, one := remote(t, "lmtp", modern(t))
		s2, two := remote(t, "lmtp", modern(t))
		three := w.newDomain("lmtp") // does not exist
		letter := note(unique(t, "six")+"@"+keepDomain, "")
		letter.to = []string{"fine@" + one, "nosuch@" + one, "later@" + two, "fine@" + two, "gone@" + three, "full@" + one}
		id := m.submit(t, letter)
		got := map[string]string{}
		for _, f := range m.tries(t, id, len(letter.to)) {
			got[f.to] = f.status + " " + f.dsn
			if _, domain, _ := strings.Cut(f.to, "@"); domain != three && !strings.Contains(f.text, "<"+f.to+"> mx."+domain+": ") {
				t.Errorf("the log does not tell what the remote server said: %+v", f)
			}
		}
		want := map[string]string{
			letter.to[0]: "sent 2.0.0", letter.to[1]: "bounced 5.1.1", letter.to[2]: "deferred 4.2.0",
			letter.to[3]: "sent 2.0.0", letter.to[4]: "bounced 5.4.4", letter.to[5]: "deferred 4.2.2",
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		for _, s := range []*mx.Server{s1, s2} {
			if c := s.Counters(); c.Messages != 1 || c.Verbs["MAIL"] != 1 {
				t.Errorf("%d transactions and %d messages at one server, want 1", c.Verbs["MAIL"], c.Messages)
			}
		}
		bounce := m.arrived(t, letter.from)
		// Exim writes no blank after the semicolon.
		text := strings.ReplaceAll(strings.Join(strings.Fields(string(bounce.text)), " "), "rfc822; ", "rfc822;")
		for _, want := range []string{"no such user", "Final-Recipient: rfc822;nosuch@" + one, "5.1.1", "Final-Recipient: rfc822;gone@" + three, "5.4.4", "does not exist"} {
			if !strings.Contains(text, want) {
				t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
			}
		}
		// The two that were deferred are tried again, and only they.
		behaviour := modern(t)
		behaviour.Recipients = nil
		s1.SetBehaviour(behaviour)
		s2.SetBehaviour(behaviour)
		m.retry(t, id)
		m.done(t, id)
		if got, want := served(s1, s2), map[string]int{letter.to[0]: 1, letter.to[2]: 1, letter.to[3]: 1, letter.to[5]: 1}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("served %v, want %v", got, want)
		}
	})
}

// Without the daemon mail is deferred, from the null sender too; when it is
// there again, it goes, once.
func TestLMTPDaemonStoppedAndStarted(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, d *daemon) (m mailServer, dsn, reason string){
		"Postfix": func(t *testing.T, d *daemon) (mailServer, string, string) {
			return lmtpOut(t, d, ""), `4\.4\.1`, `connect to .*\[` + d.lmtp + `\]: (No such file or directory|Connection refused)`
		},
		"Exim": func(t *testing.T, d *daemon) (mailServer, string, string) {
			return anotherExim(t, eximLMTP(t, d)), ``, `Failed to connect to socket`
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := lab(t)
			var s settings
			d := startDaemon(t, s)
			server, domain := remote(t, "lmtp", modern(t))
			m, dsn, reason := start(t, d)
			if err := d.stop(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			for _, from := range []string{"a@" + keepDomain, ""} {
				id := m.submit(t, note(from, "b@"+domain))
				m.deferred(t, id, 1, dsn, reason)
				d.told.close()
				if err := d.start(w, s); err != nil {
					t.Fatal(err)
				}
				m.retry(t, id)
				m.sent(t, id, 2)
				received1(t, server, id)
				if err := d.stop(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}
