package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// difficult is a message that is easily changed on its way: dots, blanks at
// line ends, folded fields, eight-bit text, lines of the greatest length, empty
// lines at the end.
func difficult(subject string) []byte {
	return []byte("From: \"A. Sender\" <a@e2e.example>\nTo: b@e2e.example\nDate: Sun, 23 Nov 2025 12:00:00 +0000\n" +
		"Message-ID: <" + subject + "@e2e.example>\nSubject: " + subject + "\n\tfolded with a tab\n  and two blanks  \n" +
		"MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\n" +
		".\n..\n...dots\n.x\nFrom the first of a line\n>From quoted\nMAIL FROM:<x@example.org>\nQUIT\n" +
		"blanks at the end   \t\n\t\n \nGr\u00fc\u00dfe \u2014 \u65e5\u672c\u8a9e\n" +
		strings.Repeat("x", 990) + "\n" + strings.Repeat("\u00e9", 495) + "\n\n\n.\n\n\n")
}

// received are the fields that the two Postfix servers put on top.
var received = []string{"Received"}

// queuedAs finds the receiving server's queue id in the text that Postfix logs
// of a success.
var queuedAs = regexp.MustCompile(`: 250 2\.0\.0 Ok: (?:\d+ bytes )?queued as (\w+) `)

func TestBytesArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for name, from := range map[string]struct {
		m      mailServer
		submit func(*testing.T, mail) string
		params string
	}{
		"Postfix":           {w.out, w.out.submit, "BODY=8BITMIME"},
		"Postfix, sendmail": {w.out, w.out.sendmail, ""},
		"Exim":              {w.exim, w.exim.submit, "BODY=8BITMIME"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			to := unique(t, "bytes") + "@" + inDomain
			text := difficult("bytes-as-they-were")
			m := mail{from: unique(t, "bytes") + "@" + keepDomain, to: []string{to}, text: text, params: from.params}
			id := from.submit(t, m)
			f := from.m.sent(t, id, 1)

			// The first 100 bytes of mxpipe's line are in Postfix's log, all of
			// it in Exim's: what the remote server said is among them.
			match := queuedAs.FindStringSubmatch(f.text)
			if match == nil || !strings.Contains(f.text, "2.0.0 mx."+inDomain) {
				t.Fatalf("the log does not show who took the message under which id: %s", f.text)
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
			// The receiving server's own Received field tells how it came: over
			// TLS, with an EHLO of the configured name.
			if !bytes.Contains(got.text, []byte("Received: from out.e2e.example ")) || !regexp.MustCompile(`with ESMTPS(\s+id|\n)`).Match(got.text) ||
				!bytes.Contains(got.text, []byte("using TLSv1.3")) {
				t.Errorf("not over TLS 1.3, or not from the configured name:\n%.600s", got.text)
			}
		})
	}
}

func TestThirtyMegabytes(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var text bytes.Buffer
	text.Write(difficult("thirty megabytes"))
	random := rand.New(rand.NewPCG(1, 2))
	var block []byte // lines of all lengths, some of which begin with a dot
	for len(block) < 64<<10 {
		if random.IntN(50) == 0 {
			block = append(block, '.')
		}
		for range random.IntN(76) {
			block = append(block, byte('!'+random.IntN(94)))
		}
		block = append(block, '\n')
	}
	for i := 0; text.Len() < 30<<20; i++ {
		fmt.Fprintf(&text, "block %d\n%s", i, block)
	}
	to := unique(t, "large") + "@" + inDomain
	id := w.out.submit(t, mail{from: "a@" + keepDomain, to: []string{to}, text: text.Bytes(), params: "BODY=8BITMIME"})
	w.out.sent(t, id, 1)
	got := w.in.arrived(t, to).original(t, received...)
	if sha256.Sum256(got) != sha256.Sum256(text.Bytes()) {
		t.Errorf("%d bytes arrived, %d were sent, and they differ", len(got), text.Len())
	}
}

func TestRefusedRecipientBounces(t *testing.T) {
	t.Parallel()
	w := lab(t)
	behaviour := modern(t)
	behaviour.Recipients = []mx.Rule{{Local: "nosuch", Reply: "550-5.1.1 <nosuch> is nobody we know\n550 5.1.1 ask the postmaster"}}
	s, domain := remote(t, "mxpipe", behaviour)
	from := unique(t, "refused") + "@" + keepDomain
	id := w.out.submit(t, note(from, "nosuch@"+domain))
	f := w.out.tries(t, id, 1)[0]
	if f.status != "bounced" || f.dsn != "5.1.1" || !strings.Contains(f.text, "<nosuch> is nobody we know") || !strings.Contains(f.text, "mx."+domain) {
		t.Errorf("want a bounce with 5.1.1, the host and its words: %+v", f)
	}
	w.out.done(t, id)
	bounce := w.out.arrived(t, from)
	if bounce.sender != "" {
		t.Errorf("the bounce's sender is %q", bounce.sender)
	}
	text := strings.Join(strings.Fields(string(bounce.text)), " ")
	for _, want := range []string{"Final-Recipient: rfc822; nosuch@" + domain, "Action: failed", "Status: 5.1.1", "is nobody we know", "ask the postmaster"} {
		if !strings.Contains(text, want) {
			t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
		}
	}
	if n := s.Counters().Messages; n != 0 {
		t.Errorf("%d messages were delivered", n)
	}
}

func TestLaterIsDeferredThenDelivered(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		behaviour := modern(t)
		behaviour.Recipients = []mx.Rule{{Local: "busy", Reply: "450 4.2.1 busy today"}}
		s, domain := remote(t, "mxpipe", behaviour)
		id := m.submit(t, note("a@"+keepDomain, "busy@"+domain))
		m.deferred(t, id, 1, `4\.2\.1`, "mx."+domain+".*busy today")
		behaviour.Recipients = nil
		s.SetBehaviour(behaviour)
		m.retry(t, id)
		m.sent(t, id, 2)
		if n := s.Counters().Messages; n != 1 {
			t.Errorf("%d messages were delivered", n)
		}
	})
}

// A bounce is a message from the null sender, and goes the same way as any
// other.
func TestBounceGoesOut(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"mxpipe", "lmtp"} {
		t.Run(transport, func(t *testing.T) {
			each(t, func(t *testing.T, w *world, m mailServer) {
				s, home := remote(t, transport, modern(t))
				_, away := remote(t, transport, modern(t))
				bounce := m.bounceOf(t, m.submit(t, note("author@"+home, "nosuch@"+away)))
				m.sent(t, bounce, 1)
				got := received1(t, s, bounce)
				if got.Sender != "" || got.Recipients[0].Address != "author@"+home || !bytes.Contains(got.Body, []byte("no such user")) {
					t.Errorf("the bounce came from %q to %+v:\n%s", got.Sender, got.Recipients, got.Body)
				}
			})
		})
	}
}

// Who asked to hear of success is told by Postfix that the message was relayed,
// not that it was delivered: only the remote server knows that (RFC 3461
// §5.2.2).
func TestSuccessNotice(t *testing.T) {
	t.Parallel()
	w := lab(t)
	_, domain := remote(t, "mxpipe", modern(t))
	m := note(unique(t, "curious")+"@"+keepDomain, "b@"+domain)
	m.notify = "NOTIFY=SUCCESS"
	w.out.sent(t, w.out.submit(t, m), 1)
	if notice := w.out.arrived(t, m.from); !bytes.Contains(notice.text, []byte("\nAction: relayed\nStatus: 2.0.0\n")) {
		t.Errorf("the notice:\n%s", notice.text)
	}
}

// The addresses go through Postfix, the shell-less command line, the pipe
// protocol and SMTP, and come out the same.
func TestAddresses(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	local := []string{
		`"with blank"`, `"quote\"d"`, `"back\\slash"`, `"at@sign"`, `"(comment)"`, `"-f"`, `"a,b"`, `"<>"`, `"\"in quotes\""`, `"\"x\""`,
		`plus+tag`, `per%cent`, `ex!clam`, `-f`, `--version`, `-`, `--`, `'single'`, "`id`", `$HOME`, `{x}`, `a=b`, `a|c`, `*`, `UPPER.lower`,
		strings.Repeat("l", 64),
	}
	wireForm := map[string]string{`"-f"`: `-f`} // quotes that are not needed go
	for _, l := range local {
		to, from := l+"@"+domain, l+"@"+keepDomain
		id := w.out.submit(t, note(from, to))
		f := w.out.sent(t, id, 1)
		m := received1(t, s, id)
		want := l
		if bare, ok := wireForm[l]; ok {
			want = bare
		}
		if m.Recipients[0].Address != want+"@"+domain || m.Sender != want+"@"+keepDomain {
			t.Errorf("%s to %s arrived as %s to %s (%s)", from, to, m.Sender, m.Recipients[0].Address, f.text)
		}
		if _, ok := m.Param("SMTPUTF8"); ok {
			t.Errorf("%s needs no SMTPUTF8", to)
		}
	}
}

// received1 waits for the next message of a server and has it forgotten.
func received1(t *testing.T, s *mx.Server, id string) mx.Message {
	t.Helper()
	list := s.Messages()
	if len(list) != 1 {
		t.Fatalf("%d messages arrived for %s, want 1", len(list), id)
	}
	s.Forget()
	return list[0]
}

// RFC 6531 §3.3: addresses outside ASCII need SMTPUTF8, and so does a domain
// that is written so. Exim says no SMTPUTF8 in LMTP, and such addresses go all
// the same.
func TestInternationalAddresses(t *testing.T) {
	t.Parallel()
	for _, transport := range []string{"mxpipe", "lmtp"} {
		t.Run(transport, func(t *testing.T) {
			each(t, func(t *testing.T, w *world, m mailServer) {
				s, domain := remote(t, transport, modern(t))
				for _, letter := range []mail{
					note("a@"+keepDomain, "jos\u00e9@"+domain),
					note("\u7528\u6237@"+keepDomain, "plain@"+domain),
					note("a@"+keepDomain, "\"\u00e9 \u00e8\"@"+domain),
				} {
					letter.params = "SMTPUTF8"
					id := m.submit(t, letter)
					m.sent(t, id, 1)
					got := received1(t, s, id)
					if _, ok := got.Param("SMTPUTF8"); !ok || got.Sender != letter.from || got.Recipients[0].Address != letter.to[0] {
						t.Errorf("%s to %s arrived as %s %v to %+v", letter.from, letter.to[0], got.Sender, got.Params, got.Recipients)
					}
				}
			})
		})
	}
}

func TestInternationalAddressesThroughPostfix(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		to := unique(t, "\u3042\u3044") + "@" + inDomain
		letter := note("\u00fc@"+keepDomain, to)
		letter.params = "SMTPUTF8"
		m.sent(t, m.submit(t, letter), 1)
		if got := w.in.arrived(t, to); got.sender != letter.from {
			t.Errorf("the sender is %q", got.sender)
		}
	})
}

// RFC 5891 §4.4: to a server without SMTPUTF8 a domain goes by its A-labels.
func TestInternationalDomain(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		parent := w.newDomain("mxpipe")
		ascii, unicode := "xn--bcher-kva."+parent, "b\u00fccher."+parent
		address, err := w.host(ascii)
		if err != nil {
			t.Fatal(err)
		}
		behaviour := modern(t)
		behaviour.Keywords &^= mx.SMTPUTF8
		s, err := mx.Start(mx.Options{Addr: address, Behaviour: behaviour})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Stop()
		letter := note("a@"+keepDomain, "plain@"+unicode)
		letter.params = "SMTPUTF8"
		id := m.submit(t, letter)
		m.sent(t, id, 1)
		if got := received1(t, s, id).Recipients[0].Address; got != "plain@"+ascii {
			t.Errorf("arrived for %s, want the A-label", got)
		}
	})
}

// With one recipient a call, as contrib has it, each recipient of a message
// has its own result.
func TestEachRecipientByItself(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		_, domain := remote(t, "mxpipe", modern(t))
		letter := note(unique(t, "each")+"@"+keepDomain, "")
		letter.to = []string{"fine@" + domain, "later@" + domain, "nosuch@" + domain}
		got := map[string]string{}
		for _, f := range m.tries(t, m.submit(t, letter), 3) {
			got[f.to] = f.status + " " + f.dsn
		}
		want := map[string]string{letter.to[0]: "sent 2.0.0", letter.to[1]: "deferred 4.2.0", letter.to[2]: "bounced 5.1.1"}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if bounce := m.arrived(t, letter.from); bytes.Count(bounce.text, []byte("\nFinal-Recipient: ")) != 1 {
			t.Errorf("the bounce is about more than one recipient:\n%s", bounce.text)
		}
	})
}

// Several recipients in one call have one exit status. The one that was served
// is not served again with the rest.
func TestMixedRecipientsAreServedOnce(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		behaviour := modern(t)
		behaviour.Recipients = []mx.Rule{{Local: "later", Reply: "450 4.2.1 busy today"}}
		s, domain := remote(t, "many", behaviour)
		letter := note("a@"+keepDomain, "")
		letter.to = []string{"first@" + domain, "later@" + domain, "third@" + domain}
		id := m.submit(t, letter)
		told := 0
		for _, f := range m.tries(t, id, 3) {
			if f.status != "deferred" {
				t.Errorf("want all deferred: %+v", f)
			}
			if strings.Contains(f.text, "later@"+domain) && strings.Contains(f.text, "busy today") {
				told++
			}
		}
		// The command runs once: Postfix tells its line with each of the
		// recipients, Exim with the first.
		if want := map[mailServer]int{w.out: 3, w.exim: 1}[m]; told != want {
			t.Errorf("the log tells the reason and who is to blame %d times, want %d", told, want)
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		before, err := s.Wait(ctx, 1)
		if err != nil {
			t.Fatal(err)
		}
		behaviour.Recipients = nil
		s.SetBehaviour(behaviour)
		m.retry(t, id)
		for _, f := range m.tries(t, id, 6)[3:] {
			if f.status != "sent" {
				t.Errorf("not sent at the second try: %+v", f)
			}
		}
		m.done(t, id)
		got, want := served(s), map[string]int{letter.to[0]: 1, letter.to[1]: 1, letter.to[2]: 1}
		if fmt.Sprint(got) != fmt.Sprint(want) || len(before[0].Recipients) != 2 {
			t.Errorf("served %v, want each once; the first time %+v", got, before[0].Recipients)
		}
	})
}

// served counts how often servers took a message for each recipient.
func served(servers ...*mx.Server) map[string]int {
	counts := map[string]int{}
	for _, s := range servers {
		for _, m := range s.Messages() {
			for _, r := range m.Recipients {
				counts[r.Address]++
			}
		}
	}
	return counts
}
