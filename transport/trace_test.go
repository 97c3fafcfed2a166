package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// dialogue gives what the log has of the SMTP dialogue.
func (l *lab) dialogue() string {
	var b strings.Builder
	for _, line := range l.lines("smtp") {
		for _, who := range []string{"C", "S"} {
			if said, ok := line[who]; ok {
				fmt.Fprintf(&b, "%s %s: %s\n", line["queue_id"], who, said)
			}
		}
	}
	return b.String()
}

// A traced domain's mail is logged in full, also over a connection that other
// mail has opened; the other mail is not, and no body ever is.
func TestTrace(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\nb.example. MX 10 mx1.a.example.")
	l.startPooled(everything)
	as := func(queueID string, to string) {
		t.Helper()
		expect(t, l.sendAs(func(e *Envelope) { e.QueueID = queueID }, to), "2.0.0 ")
	}
	if err := l.traces.Start("a.example", time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	as("first", "x@b.example")
	if got := l.dialogue(); got != "" {
		t.Errorf("other mail is traced:\n%s", got)
	}
	as("second", "x@A.example")
	got := l.dialogue()
	for _, part := range []string{"second C: MAIL FROM:<a@client.example>", "second C: RCPT TO:<x@a.example>", "second S: 250 "} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
	if all := l.logged(); strings.Contains(all, "Hello") || strings.Contains(all, "a test") {
		t.Error("a body is in the log")
	}
	if c := server.Counters(); c.Connections != 1 {
		t.Errorf("%d connections", c.Connections)
	}
	if r := l.lines("route"); len(r) != 1 || r[0]["hosts"] != "mx1.a.example" {
		t.Errorf("%v", r)
	}
	if v := l.lines("verdict"); len(v) != 1 || v[0]["reason"] != "no policy: TLS if offered" {
		t.Errorf("%v", v)
	}
	as("third", "x@b.example")
	l.traces.Stop("a.example")
	as("fourth", "x@a.example")
	if again := l.dialogue(); again != got {
		t.Errorf("what is not traced is logged:\n%s", again)
	}
}
