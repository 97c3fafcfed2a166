package e2e

import (
	"bytes"
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

func TestEximBytesArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	w := lab(t)
	text := difficult("bytes-by-exim")
	to := unique(t, "exim") + "@" + inDomain
	m := mail{from: unique(t, "bytes") + "@" + keepDomain, to: []string{to}, text: text, params: "BODY=8BITMIME"}
	id := w.exim.submit(t, m)
	h := w.exim.sent(t, id, 1)

	// Exim's log has mxpipe's whole line, in front of its own.
	match := queuedAs.FindStringSubmatch(h.output)
	if match == nil || !strings.HasPrefix(h.output, "2.0.0 mx."+inDomain+": 250 ") {
		t.Fatalf("the log does not show who took the message under which id: %+v", h)
	}
	w.daemon.logged(t, "queue_id="+id)
	got := w.in.arrived(t, to)
	if got.queueID != match[1] {
		t.Errorf("the log says it was queued as %s, it was as %s", match[1], got.queueID)
	}
	if got.sender != m.from {
		t.Errorf("sender %q, want %q", got.sender, m.from)
	}
	if rest := got.original(t, received...); !bytes.Equal(rest, text) {
		t.Errorf("arrived:\n%q\nsent:\n%q", rest, text)
	}
}

func TestEximRefusedRecipientBounces(t *testing.T) {
	t.Parallel()
	w := lab(t)
	habits := modern(t)
	habits.Recipients = []mx.Rule{{Local: "nosuch", Reply: "550-5.1.1 <nosuch> is nobody we know\n550 5.1.1 ask the postmaster"}}
	s, domain := remote(t, "mxpipe", habits)
	from := unique(t, "refused") + "@" + keepDomain
	id := w.exim.submit(t, note(from, "nosuch@"+domain))
	h := w.exim.tries(t, id, 1)[0]
	if h.status != "bounced" || !strings.Contains(h.text, "returned 67") || !regexp.MustCompile(`^5\.1\.1 .*<nosuch> is nobody we know`).MatchString(h.output) {
		t.Errorf("want a bounce with exit status 67, and the host's words in the log: %+v", h)
	}
	w.exim.completed(t, id)
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

func TestEximLaterIsDeferredThenDelivered(t *testing.T) {
	t.Parallel()
	w := lab(t)
	habits := modern(t)
	habits.Recipients = []mx.Rule{{Local: "busy", Reply: "450 4.2.1 busy today"}}
	s, domain := remote(t, "mxpipe", habits)
	id := w.exim.submit(t, note("a@"+keepDomain, "busy@"+domain))
	w.exim.deferred(t, id, 1, `^4\.2\.1 mx\.`+domain+".*busy today")
	habits.Recipients = nil
	s.SetHabits(habits)
	w.exim.retry(t, id)
	w.exim.sent(t, id, 2)
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}

// A bounce is a message from the null sender, and goes the same way as any other.
func TestEximBounceGoesOut(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, home := remote(t, "mxpipe", modern(t))
	_, away := remote(t, "mxpipe", modern(t))
	id := w.exim.submit(t, note("author@"+home, "nosuch@"+away))
	if h := w.exim.tries(t, id, 1)[0]; h.status != "bounced" {
		t.Fatalf("not bounced: %+v", h)
	}
	bounce := w.exim.find(t, `^\S+ \S+ (\S+) <= <> R=`+id+` `)
	w.exim.sent(t, bounce, 1)
	m := s.Messages()[0]
	if m.Sender != "" || m.Recipients[0].Address != "author@"+home || !bytes.Contains(m.Body, []byte("no such user")) {
		t.Errorf("the bounce came from %q to %+v:\n%s", m.Sender, m.Recipients, m.Body)
	}
}

// Who asked to hear of success is told by Exim, and by nobody else: the request does not go on (RFC 3461 §5.2.2).
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

// The addresses go through Exim, and by the environment and the command line or by LMTP to the daemon and to SMTP, and
// come out the same.
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

// RFC 6531 §3.3: addresses outside ASCII need SMTPUTF8, and so does a domain that is written so.
func TestEximInternationalAddresses(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	for _, m := range []mail{
		note("a@"+keepDomain, "jos\u00e9@"+domain),
		note("\u7528\u6237@"+keepDomain, "plain@"+domain),
		note("a@"+keepDomain, "\"\u00e9 \u00e8\"@"+domain),
	} {
		m.params = "SMTPUTF8"
		id := w.exim.submit(t, m)
		w.exim.sent(t, id, 1)
		got := received1(t, s, id)
		if _, ok := got.Param("SMTPUTF8"); !ok || got.Sender != m.from || got.Recipients[0].Address != m.to[0] {
			t.Errorf("%s to %s arrived as %s %v to %+v", m.from, m.to[0], got.Sender, got.Params, got.Recipients)
		}
	}

	t.Run("a server without SMTPUTF8", func(t *testing.T) {
		habits := modern(t)
		habits.Keywords &^= mx.SMTPUTF8
		s, domain := remote(t, "mxpipe", habits)
		m := note("a@"+keepDomain, "jos\u00e9@"+domain)
		m.params = "SMTPUTF8"
		h := w.exim.tries(t, w.exim.submit(t, m), 1)[0]
		if h.status != "bounced" || !strings.HasPrefix(h.output, "5.6.7 ") {
			t.Errorf("want a bounce with 5.6.7 (RFC 6531 §3.5): %+v", h)
		}
		if n := s.Counters().Messages; n != 0 {
			t.Errorf("%d messages were delivered", n)
		}
	})

	t.Run("an international domain", func(t *testing.T) {
		parent := w.newDomain("mxpipe")
		ascii, unicode := "xn--bcher-kva."+parent, "b\u00fccher."+parent
		address, err := w.host(ascii)
		if err != nil {
			t.Fatal(err)
		}
		habits := modern(t)
		habits.Keywords &^= mx.SMTPUTF8
		s, err := mx.Start(mx.Options{Addr: address, Habits: habits})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		m := note("a@"+keepDomain, "plain@"+unicode)
		m.params = "SMTPUTF8"
		id := w.exim.submit(t, m)
		w.exim.sent(t, id, 1)
		if got := received1(t, s, id).Recipients[0].Address; got != "plain@"+ascii {
			t.Errorf("arrived for %s, want the A-label", got)
		}
	})
}

// With one recipient a call, as contrib has it, each recipient of a message meets its own fate.
func TestEximEachRecipientByItself(t *testing.T) {
	t.Parallel()
	w := lab(t)
	_, domain := remote(t, "mxpipe", modern(t))
	m := note(unique(t, "each")+"@"+keepDomain, "")
	m.to = []string{"fine@" + domain, "later@" + domain, "nosuch@" + domain}
	id := w.exim.submit(t, m)
	got := map[string]string{}
	for _, h := range w.exim.tries(t, id, 3) {
		code, _, _ := strings.Cut(h.output, " ")
		got[h.to] = h.status + " " + code
	}
	want := map[string]string{m.to[0]: "sent 2.0.0", m.to[1]: "deferred 4.2.0", m.to[2]: "bounced 5.1.1"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if bounce := w.exim.arrived(t, m.from); bytes.Contains(bounce.text, []byte("fine@"+domain+"\n\n")) || bytes.Contains(bounce.text, []byte("later@"+domain+"\n\n")) {
		t.Errorf("the bounce is about more than one recipient:\n%s", bounce.text)
	}
}

// Several recipients in one call have one exit status. The one that was served is not served again with the rest.
func TestEximMixedRecipientsAreServedOnce(t *testing.T) {
	t.Parallel()
	w := lab(t)
	habits := modern(t)
	habits.Recipients = []mx.Rule{{Local: "later", Reply: "450 4.2.1 busy today"}}
	s, domain := remote(t, "many", habits)
	m := note("a@"+keepDomain, "")
	m.to = []string{"first@" + domain, "later@" + domain, "third@" + domain}
	id := w.exim.submit(t, m)
	list := w.exim.tries(t, id, 3)
	for _, h := range list {
		if h.status != "deferred" {
			t.Errorf("want all deferred: %+v", h)
		}
	}
	// The command ran once, and its line stands with the first of its recipients.
	if all := list[0].output + list[1].output + list[2].output; !strings.Contains(all, "later@"+domain) || strings.Count(all, "busy today") != 1 {
		t.Errorf("the log does not tell the reason and who is to blame: %+v", list)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	before, err := s.Wait(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	habits.Recipients = nil
	s.SetHabits(habits)
	w.exim.retry(t, id)
	for _, h := range w.exim.tries(t, id, 6)[3:] {
		if h.status != "sent" {
			t.Errorf("not sent at the second try: %+v", h)
		}
	}
	w.exim.completed(t, id)
	served := map[string]int{}
	for _, m := range s.Messages() {
		for _, r := range m.Recipients {
			served[r.Address]++
		}
	}
	want := map[string]int{m.to[0]: 1, m.to[1]: 1, m.to[2]: 1}
	if fmt.Sprint(served) != fmt.Sprint(want) || len(before[0].Recipients) != 2 {
		t.Errorf("served %v, want each once; the first time %+v", served, before[0].Recipients)
	}
}
