package e2e

import (
	"bytes"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

func TestEximRefusedRecipientBounces(t *testing.T) {
	t.Parallel()
	w := lab(t)
	behaviour := modern(t)
	behaviour.Recipients = []mx.Rule{{Local: "nosuch", Reply: "550-5.1.1 <nosuch> is nobody we know\n550 5.1.1 ask the postmaster"}}
	s, domain := remote(t, "mxpipe", behaviour)
	from := unique(t, "refused") + "@" + keepDomain
	id := w.exim.submit(t, note(from, "nosuch@"+domain))
	h := w.exim.tries(t, id, 1)[0]
	if h.status != "bounced" || !strings.Contains(h.own, "returned 67") || !regexp.MustCompile(`^5\.1\.1 .*<nosuch> is nobody we know`).MatchString(h.text) {
		t.Errorf("want a bounce with exit status 67, and the host's words in the log: %+v", h)
	}
	w.exim.done(t, id)
	bounce := w.exim.arrived(t, from)
	if bounce.sender != "" {
		t.Errorf("the bounce's sender is %q", bounce.sender)
	}
	text := strings.Join(strings.Fields(string(bounce.text)), " ")
	for _, want := range []string{"Final-Recipient: rfc822;nosuch@" + domain, "Action: failed", "5.1.1 mx." + domain + ": 550 5.1.1 <nosuch> is nobody we know ask the postmaster"} {
		if !strings.Contains(text, want) {
			t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
		}
	}
	if n := s.Counters().Messages; n != 0 {
		t.Errorf("%d messages were delivered", n)
	}
}

// Who asked to hear of success is told by Exim, and by no one else: the request
// does not go on (RFC 3461 §5.2.2).
func TestEximSuccessNotice(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	m := note(unique(t, "curious")+"@"+keepDomain, "b@"+domain)
	m.params, m.notify = "RET=HDRS ENVID=e1", "NOTIFY=SUCCESS"
	id := w.exim.submit(t, m)
	w.exim.sent(t, id, 1)
	if notice := w.exim.arrived(t, m.from); !bytes.Contains(notice.text, []byte("relayed via non SMTP router")) {
		t.Errorf("the notice:\n%s", notice.text)
	}
	if got := received1(t, s, id); len(got.Recipients[0].Params) != 0 {
		t.Errorf("it went on with %q", got.Recipients[0].Params)
	}
}

// The addresses go through Exim, and by the environment and the command line or
// by LMTP to the daemon and to SMTP, and come out the same.
func TestEximAddresses(t *testing.T) {
	t.Parallel()
	w := lab(t)
	local := []string{
		`"with blank"`, `"quote\"d"`, `"back\\slash"`, `"at@sign"`, `"(comment)"`, `"a,b"`, `"<>"`, `"a:b"`, `":"`, `"\"x\""`, `"$SENDER "`,
		`plus+tag`, `per%cent`, `ex!clam`, `-f`, `--version`, `-`, `--`, `'single'`, "`id`", `$HOME`, `{x}`, `a=b`, `a|c`, `*`, `UPPER.lower`,
		`$message_exim_id`, `${run{id}}`, strings.Repeat("l", 64),
	}
	for _, transport := range []string{"mxpipe", "lmtp"} {
		t.Run(transport, func(t *testing.T) {
			t.Parallel()
			s, domain := remote(t, transport, modern(t))
			ids := map[string]string{}
			for _, l := range local {
				ids[l] = w.exim.submit(t, note(l+"@"+keepDomain, l+"@"+domain))
			}
			for _, l := range local {
				w.exim.sent(t, ids[l], 1)
			}
			for _, m := range s.Messages() {
				l, ok := strings.CutSuffix(m.Recipients[0].Address, "@"+domain)
				if _, known := ids[l]; !ok || !known || m.Sender != l+"@"+keepDomain {
					t.Errorf("arrived from %s to %s", m.Sender, m.Recipients[0].Address)
				}
				delete(ids, l)
				if _, ok := m.Param("SMTPUTF8"); ok {
					t.Errorf("%s needs no SMTPUTF8", l)
				}
			}
			for l := range ids {
				t.Errorf("nothing arrived from and to %s", l)
			}
		})
	}
}
