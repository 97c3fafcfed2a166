package transport

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
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
	if h := l.lines("TLS handshake"); len(h) != 0 {
		t.Errorf("a handshake that was not made: %v", h)
	}
	as("third", "x@b.example")
	l.traces.Stop("a.example")
	as("fourth", "x@a.example")
	if again := l.dialogue(); again != got {
		t.Errorf("what is not traced is logged:\n%s", again)
	}
}

// A trace has the handshakes: version, group and chain, and what was judged,
// also of one that was not good enough.
func TestTraceOfHandshakes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cert := l.cert(ca.Spec{Names: []string{"mx1.a.example"}})
	l.mx("mx1.a.example", func(b *mx.Behaviour) { b.TLS.Certificate = cert })
	l.mx("mx2.a.example", nil)
	l.zone("a.example. MX 10 mx2.a.example.\na.example. MX 20 mx1.a.example.")
	l.signed("a.example", "mx1.a.example", "mx2.a.example")
	record := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
	l.tlsa("mx1.a.example", record)
	l.tlsa("mx2.a.example", record)
	l.start(everything)
	l.must(l.traces.Start("a.example", time.Now().Add(time.Hour)))
	expect(t, l.send("x@a.example"), "2.0.0 ")
	lines := l.lines("TLS handshake")
	if len(lines) != 2 {
		t.Fatalf("%d handshakes", len(lines))
	}
	for i, want := range []struct{ host, proof, refused string }{
		{"mx2.a.example", "no DANE: ", "4.7.5"},
		{"mx1.a.example", "DANE: matches 3 1 1 ", ""},
	} {
		h := lines[i]
		if h["host"] != want.host || h["tls"] != "TLS1.3" || h["hello"] != "full" || h["group"] == "" || h["cipher"] == "" || h["resumed"] != false ||
			!strings.Contains(h["chain"].(string), "sha256") || !strings.Contains(h["proof"].(string), want.proof) || (h["refused"] == "") != (want.refused == "") {
			t.Errorf("%d: %v", i, h)
		}
	}
}
