package policyd

import (
	"bufio"
	"net"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// letterbox is a mail server's LMTP connection.
type letterbox struct {
	net.Conn
	t *testing.T
	r *bufio.Reader
}

// lmtp is a configuration with two LMTP sockets, and a second transport that
// says hello by another name.
func (l *lab) lmtp(transport string) string {
	text := l.yaml("", transport, "  other:\n    port: "+portOf(l)+"\n    hostname: other.example")
	return strings.Replace(text, "listen: {", "listen: {lmtp: [{path: "+l.dir+"/lmtp.sock}, {path: "+l.dir+"/lmtp-other.sock, transport: other}], ", 1)
}

func portOf(l *lab) string {
	_, port, _ := strings.Cut(l.mx.Addr(), ":")
	return port
}

// letterbox connects to an LMTP socket.
func (l *lab) letterbox(name string) *letterbox {
	l.t.Helper()
	conn, err := net.Dial("unix", l.dir+"/"+name+".sock")
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { conn.Close() })
	b := &letterbox{conn, l.t, bufio.NewReader(conn)}
	want(l.t, b.line(), "220 client.example LMTP")
	b.say("LHLO x")
	for !strings.HasPrefix(b.line(), "250 ") {
	}
	return b
}

func (b *letterbox) line() string {
	line, err := b.r.ReadString('\n')
	if err != nil {
		return "250 " + err.Error()
	}
	return strings.TrimSuffix(line, "\r\n")
}

func (b *letterbox) say(lines ...string) {
	b.t.Helper()
	if _, err := b.Write([]byte(strings.Join(lines, "\r\n") + "\r\n")); err != nil {
		b.t.Fatal(err)
	}
}

// post hands a message over; its reply is to be read.
func (b *letterbox) post() {
	b.t.Helper()
	b.say("MAIL FROM:<s@example.org>", "RCPT TO:<b@a.example>", "DATA")
	for _, code := range []string{"250 ", "250 ", "354 "} {
		want(b.t, b.line(), code)
	}
	b.say("Received: by y id 4XyZ; date", "", "Hello.", ".")
}

// Each LMTP socket has its transport; a reload holds for the next message of an
// open connection.
func TestLMTP(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.lmtp(""))
	box, other := l.letterbox("lmtp"), l.letterbox("lmtp-other")
	for _, b := range []*letterbox{box, other} {
		b.post()
		want(t, b.line(), "250 2.0.0 <b@a.example> mx.a.example: 250 ")
	}
	want(t, l.logged.Wait(t, "socket=lmtp-other"), "", "msg=serving", "address="+l.dir+"/lmtp-other.sock")
	want(t, l.logged.Wait(t, "msg=delivered"), "", "queue_id=4XyZ", "uid=")
	r.reload(l.lmtp("    hostname: third.example"), reloaded)
	for _, b := range []*letterbox{box, other} {
		b.post()
		want(t, b.line(), "250 2.0.0 ")
	}
	var hellos []string
	for _, m := range l.mx.Messages() {
		hellos = append(hellos, m.Hello)
	}
	if got := strings.Join(hellos, " "); got != "client.example other.example third.example other.example" {
		t.Errorf("the server was greeted as %s", got)
	}
	if err := r.healthy(t.Context()); err != nil {
		t.Error(err)
	}
}

// An LMTP socket whose transport a reload takes away says so in the log, puts
// its mail off, and serves it when a reload brings the transport back.
func TestLMTPWithoutTransport(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.lmtp(""))
	r.reload(l.yaml("", "", ""), reloaded)
	want(t, l.logged.Wait(t, "the configuration has no transport of this name"), "", "level=WARN", "socket=lmtp-other", "transport=other")
	other := l.letterbox("lmtp-other")
	other.post()
	want(t, other.line(), "451 4.3.5 ")
	r.reload(l.lmtp(""), reloaded)
	other.post()
	want(t, other.line(), "250 2.0.0 ")
	// since the second reload
	if n := l.logged.Count("the configuration has no transport of this name"); n != 0 {
		t.Errorf("%d warnings", n)
	}
}

// TERM: an idle LMTP connection is closed with 421, and a delivery over another
// one ends.
func TestTermAndLMTP(t *testing.T) {
	l := newLab(t)
	release := l.hold(mx.StageFinal)
	defer release()
	r := l.daemon(l.lmtp(""))
	idle, busy := l.letterbox("lmtp"), l.letterbox("lmtp")
	busy.post()
	l.until("DATA", func(c mx.Counters) bool { return c.Verbs["DATA"] == 1 })
	r.stop()
	want(t, idle.line(), "421 4.3.2 ")
	l.systemd.Wait(t, "STOPPING=1")
	release()
	want(t, busy.line(), "250 2.0.0 <b@a.example>")
	want(t, busy.line(), "421 4.3.2 ")
	r.end()
}
