package policyd

import (
	"net"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// Half-sent messages, three times as many as there are places, take none of
// them: whole ones are delivered meanwhile, over both front ends.
func TestHalfSentMessages(t *testing.T) {
	const places = 100
	l := newLab(t)
	r := l.daemon(strings.Replace(l.lmtp(""), "transports:", "max_deliveries: 100\ntransports:", 1))
	e := wire.Envelope{Sender: "s@example.org", Recipients: []wire.Recipient{{Address: "x@a.example"}}}
	raw, err := wire.AppendEnvelope(nil, &e)
	if err != nil {
		t.Fatal(err)
	}
	for range places * 3 / 2 {
		conn, err := net.Dial("unix", l.dir+"/pipe.sock")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := conn.Write(wire.AppendData(raw[:len(raw):len(raw)], []byte("Sub"))); err != nil {
			t.Fatal(err)
		}
		box := l.letterbox("lmtp")
		box.say("MAIL FROM:<s@example.org>", "RCPT TO:<x@a.example>", "DATA", "Subject: x")
		for _, code := range []string{"250 ", "250 ", "354 "} {
			want(t, box.line(), code)
		}
	}
	r.waitFor("the uploads", func() bool { return r.dispatcher.Uploading() == places*3 })
	want(t, r.send(nil), "2.0.0 ")
	box := l.letterbox("lmtp")
	box.post()
	want(t, box.line(), "250 2.0.0 ")
	r.waitFor("the end of the messages", func() bool { return r.dispatcher.UnderWay() == 0 })
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}
