package e2e

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// eximLMTP is the configuration of an Exim that brings all mail to an mxpolicyd
// by LMTP.
func eximLMTP(t *testing.T, d *daemon) eximConfig {
	t.Helper()
	parts, err := lab(t).eximParts(d)
	if err != nil {
		t.Fatal(err)
	}
	parts.routers = strings.Replace(parts.routers, "transport = mxpipe", "transport = mxpolicyd_lmtp", 1)
	return parts
}

func TestEximLMTPBytesArriveAsTheyWere(t *testing.T) {
	t.Parallel()
	w := lab(t)
	parts := eximLMTP(t, w.daemon)
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
}

// Exim hangs up while the server thinks about the message, and tries again: it
// is not sent a second time.
func TestEximLMTPHangsUp(t *testing.T) {
	t.Parallel()
	w := lab(t)
	behaviour := modern(t)
	gate := make(chan struct{})
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Times: 1}}
	s, domain := remote(t, "mxpipe", behaviour)
	parts := eximLMTP(t, w.daemon)
	head, tail, _ := strings.Cut(parts.transports, "mxpolicyd_lmtp:")
	parts.transports = head + "mxpolicyd_lmtp:" + strings.Replace(tail, "timeout = 1000s", "timeout = 2s", 1)
	x := anotherExim(t, parts)
	id := x.submit(t, note("a@"+keepDomain, "b@"+domain))
	x.deferred(t, id, 1, ``, `LMTP timeout after end of data`)
	close(gate)
	w.daemon.logged(t, `queue_id=`+id)
	x.retried(t, id)
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

// The recipients of one message are delivered side by side: no domain waits for
// another's slow server.
func TestEximLMTPSideBySide(t *testing.T) {
	t.Parallel()
	w := lab(t)
	gate := make(chan struct{})
	behaviour := modern(t)
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate}}
	s1, one := remote(t, "lmtp", behaviour)
	s2, two := remote(t, "lmtp", behaviour)
	m := note("a@"+keepDomain, "b@"+one)
	m.to = append(m.to, "c@"+two)
	id := w.exim.submit(t, m)
	for _, s := range []*mx.Server{s1, s2} {
		await(t, "both servers to have the message at the same time", func() (int, bool) { n := s.Counters().Verbs["MAIL"]; return n, n == 1 }, w.exim.log)
	}
	close(gate)
	w.exim.tries(t, id, 2)
	w.exim.done(t, id)
	received1(t, s1, id)
	received1(t, s2, id)
}

// A transport filter that fails half-way leaves nothing that could be taken for
// a message.
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
	x.deferred(t, id, 1, ``, `filter process failed`)
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
