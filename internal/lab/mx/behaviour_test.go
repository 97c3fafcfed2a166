package mx

import (
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
)

// at returns plain's behaviour with one action.
func at(stage Stage, action Action) Behaviour {
	h := plain()
	h.At = map[Stage]Action{stage: action}
	return h
}

func TestDropAtEachStage(t *testing.T) {
	_, cert := certificate(t, ca.For(host))
	s := serve(t, Options{})
	for _, tt := range []struct {
		stage   Stage
		run     func(c *client) // up to the last reply before the drop
		message int             // stored or not
	}{
		{StageGreeting, func(c *client) {}, 0},
		{StageEHLO, func(c *client) { c.expect("220"); c.send("EHLO x\r\n") }, 0},
		{StageHELO, func(c *client) { c.expect("220"); c.send("HELO x\r\n") }, 0},
		{StageSTARTTLS, func(c *client) { c.hello().send("STARTTLS\r\n") }, 0},
		{StageHandshake, func(c *client) { c.hello().send("STARTTLS\r\n"); c.expect("220") }, 0},
		{StageMAIL, func(c *client) { c.hello().send(envelope) }, 0},
		{StageRCPT, func(c *client) { c.hello().send(envelope); c.expect("250") }, 0},
		{StageDATA, func(c *client) { c.hello().send(envelope + "DATA\r\n"); c.expect("250", "250") }, 0},
		{StageBody, func(c *client) {
			c.hello().send(envelope + "DATA\r\n")
			c.expect("250", "250", "354")
			c.send("half a line")
		}, 0},
		{StageBDAT, func(c *client) { c.hello().send(envelope + "BDAT 2 LAST\r\n\r\n"); c.expect("250", "250") }, 0},
		{StageFinal, func(c *client) { c.hello().send(envelope + "BDAT 2 LAST\r\n\r\n"); c.expect("250", "250") }, 0},
		{StageDone, func(c *client) { c.hello().deliver() }, 1},
		{StageRSET, func(c *client) { c.hello().send("RSET\r\n") }, 0},
		{StageNOOP, func(c *client) { c.hello().send("NOOP\r\n") }, 0},
		{StageQUIT, func(c *client) { c.hello().send("QUIT\r\n") }, 0},
	} {
		t.Run(tt.stage.String(), func(t *testing.T) {
			h := at(tt.stage, Action{Drop: Close})
			h.TLS = TLS{Mode: TLSWorks, Certificate: cert}
			s.SetBehaviour(h)
			before := s.Counters().Messages
			c := connect(t, s)
			tt.run(c)
			c.over()
			if got := s.Counters().Messages - before; got != tt.message {
				t.Errorf("%d messages stored", got)
			}
		})
	}
}

func TestOtherReplies(t *testing.T) {
	s := serve(t, Options{})
	open := func(h Behaviour) *client {
		s.SetBehaviour(h)
		return connect(t, s)
	}
	c := open(at(StageGreeting, Action{Reply: "554-go\n554 away"}))
	c.expect("554-go\n554 away")

	c = open(at(StageEHLO, Action{Reply: "502 5.5.1 what?"}))
	c.expect("220")
	c.send("EHLO x\r\n")
	c.expect("502")
	c.send("MAIL FROM:<>\r\n")
	c.expect("503")
	c.send("HELO x\r\n")
	c.expect("250 mx.lab.example greets x")
	c.send("MAIL FROM:<> SIZE=1\r\n")
	c.expect("555")
	c.send("MAIL FROM:<>\r\n")
	c.expect("250 sender")

	c = open(at(StageEHLO, Action{Reply: "250-liar\n250-chunking\n250 SIZE many"}))
	c.hello().send("MAIL FROM:<> SIZE=1\r\n")
	// without an enhanced status code, which was not offered
	c.expect("250 sender")

	c = open(at(StageMAIL, Action{Reply: "421 4.3.2 later"}))
	c.hello().send(envelope)
	c.expect("421 4.3.2 later")
	c.over()

	for _, reply := range []string{"451 4.3.0 no", "552 5.3.4 no", "554 5.7.1 no"} {
		c = open(at(StageFinal, Action{Reply: reply, Times: 1}))
		c.hello().send(envelope + "BDAT 2 LAST\r\n\r\n")
		c.expect("250", "250", reply)
		c.deliver()
	}
	c = open(at(StageDATA, Action{Reply: "451 4.3.0 no"}))
	c.hello().send(envelope + "DATA\r\n")
	c.expect("250", "250", "451 4.3.0 no")
	c.send("RSET\r\n")
	c.expect("250")
	c.deliver()

	c = open(at(StageBDAT, Action{Reply: "500 5.5.1 no BDAT"}))
	c.hello().send(envelope + "BDAT 2\r\n\r\nBDAT 0 LAST\r\n")
	c.expect("250", "250", "500 5.5.1 no BDAT", "503")
	c.send("RSET\r\n")
	c.expect("250")
	c.send(envelope + "DATA\r\n")
	c.expect("250", "250", "354")
	c.send(".\r\n")
	c.expect("250")
	if n := s.Counters().Messages; n != 5 {
		t.Errorf("%d messages", n)
	}
}

func TestSkipTimesAndReset(t *testing.T) {
	s := serve(t, Options{Behaviour: at(StageMAIL, Action{Drop: Reset, Skip: 1, Times: 1})})
	c := connect(t, s).hello()
	c.deliver()
	c.send("MAIL FROM:<>\r\n")
	if _, err := c.reply(); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
	c = connect(t, s).hello()
	c.deliver()
	s.DropConnections()
	c.over()
	connect(t, s).hello().deliver()
}

// A client that leaves while the server holds its reply is noticed, also under
// TLS.
func TestHold(t *testing.T) {
	a, cert := certificate(t, ca.For(host))
	gate := make(chan struct{})
	h := Modern(cert)
	h.At = map[Stage]Action{StageFinal: {Hold: gate}}
	s := serve(t, Options{Behaviour: h})
	held, left := connect(t, s).hello(), connect(t, s).hello()
	for _, c := range []*client{held, left} {
		if err := c.secure(&tls.Config{RootCAs: a.Pool(), ServerName: host}); err != nil {
			t.Fatal(err)
		}
		c.send(envelope + "BDAT 2 LAST\r\n\r\n")
		c.expect("250", "250") // these are out before the wait
	}
	left.conn.Close()
	until(t, s, "the end of the one that left", func(c Counters) bool { return c.Open == 1 })
	if s.Counters().Messages != 0 {
		t.Error("a held message was stored")
	}
	close(gate)
	held.expect("250 2.0.0 queued")
	if m := wait(t, s, 1); m[0].Flights != 1 {
		t.Errorf("%d flights", m[0].Flights)
	}
}

// A server that minds nothing stores what it has also when the client has left.
func TestHoldAlone(t *testing.T) {
	gate := make(chan struct{})
	h := plain()
	h.At = map[Stage]Action{StageFinal: {Hold: gate, Alone: true}}
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s).hello()
	c.send(envelope + "BDAT 2 LAST\r\n\r\n")
	c.expect("250", "250")
	until(t, s, "the whole body", func(c Counters) bool { return c.Stages[StageFinal] == 1 })
	c.conn.Close()
	close(gate)
	wait(t, s, 1)
}

func TestSlow(t *testing.T) {
	h := plain()
	h.Delay, h.Drip = time.Microsecond, time.Microsecond
	s := serve(t, Options{Behaviour: h})
	connect(t, s).hello().deliver()

	h.Delay = time.Hour // Stop must not wait for it
	s.SetBehaviour(h)
	connect(t, s)
	until(t, s, "the connection", func(c Counters) bool { return c.Connections == 2 })
}

func TestNeedTLS(t *testing.T) {
	h := plain()
	h.NeedTLS = true
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s).hello()
	c.send("MAIL FROM:<>\r\n")
	c.expect("530 5.7.0")
}

// emersion/go-smtp#315: the chunk is forgotten when all recipients are refused.
func TestSpilledChunk(t *testing.T) {
	const spill = "MAIL FROM:<>\r\nRCPT TO:<nosuch@b.example>\r\nBDAT 6 LAST\r\nRSET\r\n"
	h := plain()
	s := serve(t, Options{Behaviour: h})
	c := connect(t, s).hello()
	c.send(spill + "NOOP\r\n")
	c.expect("250", "550", "554 5.5.1", "250")
	if n := s.Counters().Verbs["RSET"]; n != 0 {
		t.Errorf("a sound server ran the chunk as %d commands", n)
	}
	h.SpillChunk = true
	s.SetBehaviour(h)
	c = connect(t, s).hello()
	c.send(spill)
	c.expect("250", "550", "554 5.5.1", "250")
	if n := s.Counters().Verbs["RSET"]; n != 1 {
		t.Errorf("the chunk was run as %d commands", n)
	}
}

func TestViolations(t *testing.T) {
	_, cert := certificate(t, ca.For(host))
	for _, tt := range []struct {
		name  string
		minus Keyword // not offered
		send  string
		want  []Breach
	}{
		{"sound", 0, envelope + "BDAT 2 LAST\r\n\r\nRSET\r\nQUIT\r\n", nil},
		{"a refused MAIL with its flight", 0, "MAIL FROM:<> SIZE=99999999\r\nRCPT TO:<a@b.example>\r\nDATA\r\n", nil},
		{"bare LF in a command", 0, "NOOP\n", []Breach{BareLF}},
		{"bare CR in a command", 0, "NO\rOP\r\n", []Breach{BareCR}},
		{"control in a command", 0, "NOOP \x00\r\n", []Breach{Control}},
		{"long command", 0, "NOOP " + strings.Repeat("x", maxCommand) + "\r\n", []Breach{LongLine}},
		{"unknown command", 0, "HACK\r\n", []Breach{BadSyntax}},
		{"ahead without PIPELINING", Pipelining, envelope, []Breach{Pipelined}},
		{"ahead of the reply to DATA", 0, envelope + "DATA\r\nhi\r\n.\r\n", []Breach{Pipelined}},
		{"ahead of the reply to NOOP", 0, "NOOP\r\nRSET\r\n", []Breach{Pipelined}},
		{"ahead of STARTTLS", 0, "STARTTLS\r\nEHLO x\r\n", []Breach{EarlyTLS}},
		{"no RCPT syntax", 0, "MAIL FROM:<>\r\nRCPT TO: <a@b.example>\r\n", []Breach{BadSyntax}},
		{"null recipient", 0, "MAIL FROM:<>\r\nRCPT TO:<>\r\n", []Breach{BadSyntax}},
		{"no transaction", 0, "RCPT TO:<a@b.example>\r\n", []Breach{BadSequence}},
		{"nested", 0, "MAIL FROM:<>\r\nMAIL FROM:<>\r\n", []Breach{BadSequence}},
		{"DATA after BDAT", 0, envelope + "BDAT 0\r\nDATA\r\n", []Breach{BadSequence}},
		{"DSN not offered", DSN, "MAIL FROM:<> RET=HDRS\r\n", []Breach{Unoffered}},
		{"CHUNKING not offered", Chunking, envelope + "BDAT 2 LAST\r\n\r\n", []Breach{Unoffered}},
		{"REQUIRETLS in plaintext (RFC 8689 §2)", 0, "MAIL FROM:<> REQUIRETLS\r\n", []Breach{Unoffered}},
		{"SMTPUTF8 not asked for", 0, "MAIL FROM:<ü@a.example>\r\n", []Breach{EightBit}},
		{"8-bit body not announced", 0, envelope + "BDAT 4 LAST\r\n\xc3\xbc\r\n", []Breach{EightBit}},
		{"8-bit body announced", 0, "MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<a@b.example>\r\nBDAT 4 LAST\r\n\xc3\xbc\r\n", nil},
		{"BDAT without the last CRLF", 0, envelope + "BDAT 2 LAST\r\nhi", []Breach{NoLastCRLF}},
		{"bare line ends in BDAT", 0, envelope + "BDAT 6 LAST\r\na\nb\r\r\n", []Breach{BareCR, BareLF}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := plain()
			h.Keywords &^= tt.minus
			h.TLS = TLS{Mode: TLSWorks, Certificate: cert}
			s := serve(t, Options{Behaviour: h})
			c := connect(t, s).hello()
			c.send(tt.send)
			c.conn.(interface{ CloseWrite() error }).CloseWrite()
			until(t, s, "the end", func(c Counters) bool { return c.Open == 0 })
			var got []Breach
			for _, v := range s.Violations() {
				got = append(got, v.Breach)
			}
			if !slices.Equal(got, tt.want) || s.Counters().Violations != len(tt.want) {
				t.Errorf("got %v, want %v", s.Violations(), tt.want)
			}
		})
	}
}

// SMTP smuggling: nothing but CRLF.CRLF ends a body, and the attempt is noted
// with the message.
func TestSmuggling(t *testing.T) {
	s := serve(t, Options{Behaviour: plain()})
	c := connect(t, s).hello()
	for i, trick := range []string{"\n.\n", "\n.\r\n", "\r.\r", "\r\n.\r", "\r\n.\n", "\r\n\x00.\r\n"} {
		c.send(envelope + "DATA\r\n")
		c.expect("250", "250", "354")
		c.send("a" + trick + "MAIL FROM:<evil@b.example>\r\n.\r\n")
		c.expect("250 2.0.0 queued")
		m := s.Messages()
		if len(m) != i+1 || len(m[i].Violations) == 0 || !strings.Contains(string(m[i].Body), "evil") {
			t.Fatalf("after %q: %d messages, the last is %+v", trick, len(m), m[len(m)-1])
		}
	}
}
