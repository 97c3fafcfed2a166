package transport

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// However much stands before a field that asks for security, it is obeyed.
func TestFieldsBehindALongHeader(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) { c.QuarantineHeader = "X-Quarantined: yes" })
	// 272 KB
	padding := strings.Repeat("X-Padding: "+strings.Repeat("x", 260)+"\n", 1024)
	expect(t, l.sendText(t.Context(), padding+"Require-TLS-ESMTP: yes\n"+text, "b@a.example"), "5.7.30")
	expect(t, l.sendText(t.Context(), padding+"X-Quarantined: yes\n"+text, "b@a.example"), "5.7.0 the message is quarantined")
	expect(t, l.sendText(t.Context(), padding+text, "b@a.example"), "2.0.0")
	counts(t, server, 1, 1)
}

// What nothing searched a message for is not proven to be absent: a message
// that came in before the header was configured waits for the next try.
func TestQuarantineHeaderThatCameLater(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) { c.QuarantineHeader = "X-Spam: yes" })
	expect(t, l.send("b@a.example"), "4.3.0 quarantine_header was changed")
	counts(t, server, 0, 0)
}

// A message one of whose lines is a command of a mail transaction goes by DATA:
// a server, or a box before it, that offers CHUNKING and does not know BDAT
// would run it.
func TestLinesThatBeginWithACommandGoByDATA(t *testing.T) {
	t.Parallel()
	for _, chunking := range []Chunking{ChunkingPipelined, ChunkingWaiting} {
		l := newLab(t)
		server := l.mx("mx.a.example", nil)
		l.zone("a.example. MX 10 mx.a.example.")
		l.startPooled(func(c *Config) { c.Chunking = chunking })
		for _, line := range []string{
			"MAIL FROM:<evil@a.example>", "rcpt to:<victim@a.example>", "Data", "BDAT 5 LAST", " \t RCPT TO:<victim@a.example>", "\rDATA",
			strings.Repeat("x", 998) + "mail",
		} {
			expect(t, l.sendText(t.Context(), text+line+"\n", "b@a.example"), "2.0.0")
		}
		if verbs := server.Counters().Verbs; verbs["BDAT"] != 0 || verbs["DATA"] != 7 {
			t.Errorf("%v: %v", chunking, verbs)
		}
		expect(t, l.sendText(t.Context(), text+"xMAIL\nRSET\n", "b@a.example"), "2.0.0")
		if n := server.Counters().Verbs["BDAT"]; n != 1 {
			t.Errorf("%v: %d of 1 message without a command by BDAT", chunking, n)
		}
	}
}

// The attack itself: the body holds RCPT and DATA, every recipient is refused,
// and the server runs the chunk. MAIL is still open there.
func TestNoMessageOfTwo(t *testing.T) {
	t.Parallel()
	for _, chunking := range []Chunking{ChunkingPipelined, ChunkingWaiting} {
		l := newLab(t)
		server := l.mx("mx.a.example", func(h *mx.Behaviour) { h.SpillChunk = true })
		l.zone("a.example. MX 10 mx.a.example.")
		l.start(func(c *Config) { c.Chunking = chunking })
		expect(t, l.sendText(t.Context(), text+"RCPT TO:<victim@a.example>\nDATA\nSubject: smuggled\n\nx\n.\n", "nosuch@a.example"), "5.1.1")
		if messages := server.Messages(); len(messages) > 0 {
			t.Errorf("%v: %q", chunking, messages[0].Body)
		}
	}
}
