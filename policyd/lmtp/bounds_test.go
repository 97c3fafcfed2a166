package lmtp

import (
	"fmt"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/accept"
)

// A SIZE that is too large is refused for good, however many digits it has; one
// that is no number is our trouble with it.
func TestSize(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	for size, want := range map[string]string{
		"0":                           "250 ",
		"1310720":                     "250 ", // max_message_size
		"1310721":                     "552 5.3.4 ",
		"4294967296":                  "552 5.3.4 ",
		"99999999999":                 "552 5.3.4 ",
		"9223372036854775808":         "552 5.3.4 ",
		"99999999999999999999":        "552 5.3.4 ",
		"1" + strings.Repeat("0", 40): "552 5.3.4 ",
		"-1":                          "451 4.5.4 ",
		"+1":                          "451 4.5.4 ",
		"1k":                          "451 4.5.4 ",
	} {
		c.say("MAIL FROM:<s@example.org> BODY=8BITMIME SIZE="+size+" SMTPUTF8", "RSET")
		if got := c.line(); !strings.HasPrefix(got, want) {
			t.Errorf("SIZE=%s: %q, want %q", size, got, want)
		}
		c.want("250 ")
	}
}

// A chunk whose size is beyond all bounds is not taken for commands.
func TestHugeChunk(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.say(envelope("a")...)
	c.want("250 ", "250 ")
	c.send("BDAT 4294967296 LAST\r\nRSET\r\n" + strings.Join(append(envelope("evil"), "BDAT 0 LAST", ""), "\r\n"))
	c.want("552 5.3.4 ", "")
	b.WantCalls()
}

// Addresses have 1,024 bytes at most; an original recipient that has more is
// left out.
func TestLongAddresses(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	const domain = "@example.net"
	long := strings.Repeat("a", 1024-len(domain)) + domain
	c.say("MAIL FROM:<x"+long+">", "MAIL FROM:<"+long+">", "RCPT TO:<x"+long+">", "RCPT TO:<"+long+"> ORCPT=rfc822;"+long, "RCPT TO:<b@example.net> ORCPT=x;"+long[2:], "DATA")
	c.want("550 5.1.7 the address has more than 1024 bytes", "250 ", "553 5.1.3 the address has more than 1024 bytes", "250 ", "250 ", "354 ")
	c.send(text + ".\r\n")
	c.want("250 ", "250 ")
	rcpts := b.Calls()[0].Envelope.Recipients
	if len(rcpts) != 2 || rcpts[0].Address != long || rcpts[0].ORcpt != "" || rcpts[1].ORcpt != "x;"+long[2:] {
		t.Errorf("%.2000q", rcpts)
	}
}

// rcpts are so many recipients with long addresses.
func rcpts(n int) []string {
	var lines []string
	for i := range n {
		lines = append(lines, fmt.Sprintf("RCPT TO:<%04d%s@example.net>", i, strings.Repeat("a", 1000)))
	}
	return lines
}

// An envelope has 1 MiB at most: who is beyond that is for another message.
func TestLargeEnvelope(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	for range 2 {
		go c.Write([]byte("MAIL FROM:<s@example.org>\r\n" + strings.Join(rcpts(1000), "\r\n") + strings.Repeat("\r\nRCPT TO:<"+strings.Repeat("b", 900)+"@example.net> ORCPT=rfc822;"+strings.Repeat("c", 900), 100) + "\r\nRSET\r\n"))
		c.want("250 ")
		taken, refused := 0, 0
		for range 1100 {
			switch line := c.line(); {
			case strings.HasPrefix(line, "250 "):
				taken++
			case strings.HasPrefix(line, "452 4.5.3 "):
				refused++
			default:
				t.Fatalf("%q", line)
			}
		}
		if taken != 1000 || refused != 100 {
			t.Errorf("%d taken, %d refused", taken, refused)
		}
		c.want("250 ")
	}
}

// Envelopes on many connections hold 64 MiB together; an ordinary message has
// room beside them.
func TestManyEnvelopes(t *testing.T) {
	b := serve(t, func(b *bench) { b.Loops = accept.New(200, b.Logger) })
	// 1,000 recipients of 1 KB each: 128 MiB in two copies
	const connections = 60
	lines := "MAIL FROM:<s@example.org>\r\n" + strings.Join(rcpts(1000), "\r\n") + "\r\n"
	taken, refused := 0, 0
	for range connections {
		c := b.connect()
		go c.Write([]byte(lines))
		c.want("250 ")
		for range 1000 {
			switch line := c.line(); {
			case strings.HasPrefix(line, "250 "):
				taken++
			case strings.HasPrefix(line, "452 4.3.1 "):
				refused++
			default:
				t.Fatalf("%q", line)
			}
		}
	}
	if held := b.EnvelopeUsage().Bytes; held > 65<<20 || refused == 0 || taken+refused != connections*1000 {
		t.Errorf("%d taken, %d refused, %d bytes are held", taken, refused, held)
	}
	c := b.connect()
	c.mail("a", "b")
	c.want("250 ", "250 ")
}
