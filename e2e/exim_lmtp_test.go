package e2e

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// One message to six recipients on three domains, sent, deferred and bounced in one go: each recipient has a status of
// its own in Exim's log, and each domain one transaction.
func TestEximLMTPEachRecipientHasItsStatus(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s1, one := remote(t, "lmtp", modern(t))
	s2, two := remote(t, "lmtp", modern(t))
	three := w.newDomain("lmtp") // does not exist
	m := note(unique(t, "six")+"@"+keepDomain, "")
	m.to = []string{"fine@" + one, "nosuch@" + one, "later@" + two, "fine@" + two, "gone@" + three, "full@" + one}
	id := w.exim.submit(t, m)
	got := map[string]string{}
	for _, h := range w.exim.tries(t, id, len(m.to)) {
		code := regexp.MustCompile(`\d{3} (\d\.\d+\.\d+) <([^>]*)> (.*)`).FindStringSubmatch(h.text)
		if code == nil || code[2] != h.to {
			t.Errorf("the log does not tell the code, or not for this recipient: %+v", h)
			continue
		}
		got[h.to] = h.status + " " + code[1]
		if _, domain, _ := strings.Cut(h.to, "@"); domain != three && !strings.HasPrefix(code[3], "mx."+domain+": ") {
			t.Errorf("the log does not tell what the remote server said: %+v", h)
		}
	}
	want := map[string]string{
		m.to[0]: "sent 2.0.0", m.to[1]: "bounced 5.1.1", m.to[2]: "deferred 4.2.0", m.to[3]: "sent 2.0.0", m.to[4]: "bounced 5.4.4", m.to[5]: "deferred 4.2.2",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, s := range []*mx.Server{s1, s2} {
		if c := s.Counters(); c.Messages != 1 || c.Verbs["MAIL"] != 1 {
			t.Errorf("%d transactions and %d messages at one server, want 1", c.Verbs["MAIL"], c.Messages)
		}
	}
	bounce := w.exim.arrived(t, m.from)
	for _, want := range []string{"no such user", "Final-Recipient: rfc822;nosuch@" + one, "Final-Recipient: rfc822;gone@" + three, "does not exist"} {
		if !bytes.Contains(bounce.text, []byte(want)) {
			t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
		}
	}
	// The two that were put off are tried again, and only they.
	habits := modern(t)
	habits.Recipients = nil
	s1.SetHabits(habits)
	s2.SetHabits(habits)
	w.exim.retry(t, id)
	w.exim.completed(t, id)
	served := map[string]int{}
	for _, s := range []*mx.Server{s1, s2} {
		for _, m := range s.Messages() {
			for _, r := range m.Recipients {
				served[r.Address]++
			}
		}
	}
	if want := map[string]int{m.to[0]: 1, m.to[2]: 1, m.to[3]: 1, m.to[5]: 1}; fmt.Sprint(served) != fmt.Sprint(want) {
		t.Errorf("served %v, want %v", served, want)
	}
}

func TestEximLMTPBytesArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	w := lab(t)
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	parts.routers = strings.Replace(parts.routers, "transport = mxpipe", "transport = mxpolicyd_lmtp", 1)
	x := anotherExim(t, parts)
	text := difficult("bytes-by-lmtp")
	m := mail{from: unique(t, "bytes") + "@" + keepDomain, to: []string{unique(t, "lmtp") + "@" + inDomain}, text: text, params: "BODY=8BITMIME"}
	h := x.sent(t, x.submit(t, m), 1)
	got := w.in.arrived(t, m.to[0])
	if match := queuedAs.FindStringSubmatch(h.text); match == nil || match[1] != got.queueID || !strings.Contains(h.text, "mx."+inDomain+": 250 ") {
		t.Errorf("the log does not show that it was queued as %s: %+v", got.queueID, h)
	}
	if rest := got.original(t, received...); got.sender != m.from || !bytes.Equal(rest, text) {
		t.Errorf("from %s arrived:\n%q\nfrom %s was sent:\n%q", got.sender, rest, m.from, text)
	}

	// A bounce goes out by LMTP as well.
	s, home := remote(t, "lmtp", modern(t))
	_, away := remote(t, "lmtp", modern(t))
	id := x.submit(t, note("author@"+home, "nosuch@"+away))
	bounce := x.find(t, `^\S+ \S+ (\S+) <= <> R=`+id+` `)
	x.sent(t, bounce, 1)
	if m := received1(t, s, bounce); m.Sender != "" || m.Recipients[0].Address != "author@"+home || !bytes.Contains(m.Body, []byte("no such user")) {
		t.Errorf("the bounce came from %q to %+v:\n%s", m.Sender, m.Recipients, m.Body)
	}
}

// RFC 6531: Exim says no SMTPUTF8 in LMTP, and such addresses go all the same.
func TestEximLMTPInternationalAddresses(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "lmtp", modern(t))
	m := note("\u7528\u6237@"+keepDomain, "jos\u00e9@"+domain)
	m.params = "SMTPUTF8"
	id := w.exim.submit(t, m)
	w.exim.sent(t, id, 1)
	got := received1(t, s, id)
	if _, ok := got.Param("SMTPUTF8"); !ok || got.Sender != m.from || got.Recipients[0].Address != m.to[0] {
		t.Errorf("%s to %s arrived as %s %v to %+v", m.from, m.to[0], got.Sender, got.Params, got.Recipients)
	}
}

// Without the daemon mail is deferred; when it is there again, it goes, once.
func TestEximLMTPDaemonStoppedAndStarted(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var s settings
	d := startDaemon(t, s)
	server, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(d)
	if err != nil {
		t.Fatal(err)
	}
	parts.routers = strings.Replace(parts.routers, "transport = mxpipe", "transport = mxpolicyd_lmtp", 1)
	x := anotherExim(t, parts)
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"a@" + keepDomain, ""} {
		id := x.submit(t, note(from, "b@"+domain))
		x.deferred(t, id, 1, `Failed to connect to socket`)
		d.told.close()
		if err := d.start(w, s); err != nil {
			t.Fatal(err)
		}
		x.retry(t, id)
		x.sent(t, id, 2)
		received1(t, server, id)
		if err := d.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
}

// Exim hangs up while the server thinks about the message, and tries again: it is not sent a second time.
func TestEximLMTPHangsUp(t *testing.T) {
	t.Parallel()
	w := lab(t)
	habits := modern(t)
	gate := make(chan struct{})
	habits.At = map[mx.Stage]mx.Act{mx.StageFinal: {Hold: gate, Times: 1}}
	s, domain := remote(t, "mxpipe", habits)
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	parts.routers = strings.Replace(parts.routers, "transport = mxpipe", "transport = mxpolicyd_lmtp", 1)
	head, tail, _ := strings.Cut(parts.transports, "mxpolicyd_lmtp:")
	parts.transports = head + "mxpolicyd_lmtp:" + strings.Replace(tail, "timeout = 1000s", "timeout = 2s", 1)
	x := anotherExim(t, parts)
	id := x.submit(t, note("a@"+keepDomain, "b@"+domain))
	x.deferred(t, id, 1, `LMTP timeout after end of data`)
	close(gate)
	w.daemon.logged(t, `queue_id=`+id)
	x.retried(t, id)
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

// The recipients of one message are delivered side by side: no domain waits for another's slow server.
func TestEximLMTPSideBySide(t *testing.T) {
	t.Parallel()
	w := lab(t)
	gate := make(chan struct{})
	habits := modern(t)
	habits.At = map[mx.Stage]mx.Act{mx.StageFinal: {Hold: gate}}
	s1, one := remote(t, "lmtp", habits)
	s2, two := remote(t, "lmtp", habits)
	m := note("a@"+keepDomain, "b@"+one)
	m.to = append(m.to, "c@"+two)
	id := w.exim.submit(t, m)
	for _, s := range []*mx.Server{s1, s2} {
		await(t, "both servers to have the message at the same time", func() (int, bool) { n := s.Counters().Verbs["MAIL"]; return n, n == 1 }, w.exim.log)
	}
	close(gate)
	w.exim.tries(t, id, 2)
	w.exim.completed(t, id)
	received1(t, s1, id)
	received1(t, s2, id)
}

// A transport filter that fails half-way leaves nothing that could be taken for a message.
func TestEximLMTPFilterFails(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	mended := filepath.Join(folder(t), "mended")
	filter, err := w.script("filter", `[ -e `+mended+` ] && exec cat; head -c 1000; exit 1; : `)
	if err != nil {
		t.Fatal(err)
	}
	parts.routers = strings.Replace(parts.routers, "transport = mxpipe", "transport = mxpolicyd_lmtp", 1)
	parts.transports = strings.Replace(parts.transports, "driver = lmtp", "driver = lmtp\n  transport_filter = "+filter, 1)
	x := anotherExim(t, parts)
	m := note("a@"+keepDomain, "b@"+domain)
	m.text = append(m.text, bytes.Repeat([]byte("a line of a long message\n"), 1<<12)...)
	id := x.submit(t, m)
	x.deferred(t, id, 1, `filter process failed`)
	if n := s.Counters().Messages; n != 0 {
		t.Errorf("%d messages were delivered", n)
	}
	if err := write(mended, ""); err != nil {
		t.Fatal(err)
	}
	x.retry(t, id)
	x.sent(t, id, 2)
	if got := received1(t, s, id); !bytes.HasSuffix(got.Body, bytes.ReplaceAll(m.text, []byte("\n"), []byte("\r\n"))) {
		t.Errorf("%d of %d bytes arrived", len(got.Body), len(m.text))
	}
}
