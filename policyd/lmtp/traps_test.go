package lmtp

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
)

// trap is a message for a server that takes what is left of a message for
// commands: at each of its lines another message would begin.
var trap = strings.Repeat("MAIL FROM:<evil@example.org>\r\nRCPT TO:<evil@example.net>\r\nDATA\r\n", 3) + "evil\r\n..\r\nRSET\r\nQUIT\r\n"

// tooLarge has more than max_message_size, and traps all over it.
var tooLarge = strings.Repeat(trap+strings.Repeat("x", 70)+"\r\n", maxSize/len(trap))

// A message beyond max_message_size is refused for each recipient, is read to
// its end, and nothing of it is a command.
func TestTooLarge(t *testing.T) {
	for name, send := range map[string]func(c *client){
		"DATA": func(c *client) {
			c.offer("a", "b")
			c.send(tooLarge + ".\r\n")
		},
		"one chunk": func(c *client) {
			c.say(envelope("a", "b")...)
			c.want("250 ", "250 ", "250 ")
			c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(tooLarge), tooLarge))
		},
		"many chunks": func(c *client) {
			c.say(envelope("a", "b")...)
			c.want("250 ", "250 ", "250 ")
			for rest := tooLarge; rest != ""; {
				n := min(len(rest), 99_999)
				c.send(fmt.Sprintf("BDAT %d\r\n%s", n, rest[:n]))
				c.want("250 ")
				rest = rest[n:]
			}
			c.say("BDAT 0 LAST")
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			c := b.connect()
			for range 2 {
				send(c)
				c.want("552 5.3.4 <a@example.net> the message is larger than max_message_size", "552 5.3.4 <b@example.net> ")
			}
			c.mail("c")
			c.want("250 2.0.0 <c@example.net>")
			b.WantCalls("c@example.net")
			b.Log.Wait(t, "message not taken", "dsn=5.3.4", fmt.Sprintf("pid=%d", os.Getpid()))
		})
	}
}

// MAIL in the middle of a message ends the connection: neither are recipients
// of the message before told that they got this one, nor do they get it.
func TestNestedMail(t *testing.T) {
	for name, begin := range map[string][]string{
		"after RCPT":               envelope("a"),
		"after MAIL":               envelope("a")[:1],
		"after a chunk of no size": append(envelope("a"), "BDAT -1 LAST"),
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			c := b.connect()
			c.say(begin...)
			for range begin {
				if line := c.line(); !strings.HasPrefix(line, "250 ") && !strings.HasPrefix(line, "501 ") {
					t.Fatalf("%q", line)
				}
			}
			c.say(append(envelope("c"), "DATA", "x", ".")...)
			c.want("421 4.5.1 MAIL in the middle of a message", "")
			b.WantCalls()
			c = b.connect()
			c.mail("d")
			c.want("250 2.0.0 <d@example.net>")
			c.mail("e")
			c.want("250 2.0.0 <e@example.net>")
			b.WantCalls("d@example.net", "e@example.net")
		})
	}
}

// A message that is cut off does not bounce, for a client that still listens.
func TestCutOffIsTemporary(t *testing.T) {
	for name, start := range map[string]string{
		"DATA":         "DATA\r\nabc",
		"chunk":        "BDAT 100\r\nabc",
		"last chunk":   "BDAT 100 LAST\r\nabc",
		"second chunk": "BDAT 3\r\nabcBDAT 100 LAST\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			said := b.talk([]byte("LHLO x\r\n" + strings.Join(envelope("a"), "\r\n") + "\r\n" + start))
			if strings.Contains(said, "\n5") || strings.Contains(said, "\n250 2.0.0 <") {
				t.Errorf("said %q", said)
			}
			b.WantCalls()
		})
	}
}

// Who says in advance that it will be too large need not send it.
func TestTooLargeInAdvance(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.say(fmt.Sprintf("MAIL FROM:<s@example.org> SIZE=%d", maxSize+1), fmt.Sprintf("MAIL FROM:<s@example.org> SIZE=%d", maxSize))
	c.want("552 5.3.4 ", "250 ")
}

// When the state directory cannot be written, large messages have to wait.
func TestNoRoom(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	if err := os.RemoveAll(b.State); err != nil {
		t.Fatal(err)
	}
	c.offer("a", "b")
	c.send(strings.Repeat("0123456789abcd\r\n", 70_000) + ".\r\n")
	c.want("452 4.3.1 <a@", "452 4.3.1 <b@")
	c.mail("c")
	c.want("250 ")
}

// Bodies come through as they are: long lines, folded at 998 bytes as for pipe;
// dots, bare LF, commands, bytes above 127.
func TestBodies(t *testing.T) {
	for name, body := range map[string]string{
		"empty":            "",
		"2,500 bytes":      strings.Repeat("x", 2500) + "\r\n",
		"one line":         strings.Repeat("0123456789", 12_000) + "\r\n",
		"dots":             ".\r\n..\r\n...\r\n.x\r\n",
		"bare LF":          "a\n.\nMAIL FROM:<x@example.org>\n.\r\n\n\r\n",
		"stray CR":         "a\rb\r\r\n.\r\n\r.\r\n.\rx\r\n",
		"stray CR at last": "a\r\r\n",
		"commands":         trap,
		"eight-bit":        "\x80\xff\u00e9\x00\r\n",
		"large":            strings.Repeat("0123456789abcd\r\n", 70_000),
	} {
		for _, chunk := range []int{0, 1, 7, 4096, 1 << 20} {
			if chunk > 0 && chunk < 4096 && len(body) > 1000 {
				continue
			}
			t.Run(fmt.Sprintf("%s/%d", name, chunk), func(t *testing.T) {
				b := serve(t, nil)
				c := b.connect()
				if chunk == 0 {
					c.offer("a")
					stuffed := strings.ReplaceAll("\r\n"+body, "\r\n.", "\r\n..")[2:]
					c.send(stuffed + ".\r\n")
				} else {
					c.say(envelope("a")...)
					c.want("250 ", "250 ")
					for rest := body; rest != ""; {
						n := min(len(rest), chunk)
						c.send(fmt.Sprintf("BDAT %d\r\n%s", n, rest[:n]))
						c.want("250 ")
						rest = rest[n:]
					}
					c.say("bdat 0 last")
				}
				c.want("250 2.0.0 <a@")
				c.mail("b")
				c.want("250 2.0.0 <b@")
				if got, want := b.Calls()[0].Body, canonical(t, body); got != want {
					t.Errorf("%d bytes %.200q, want %d %.200q", len(got), got, len(want), want)
				}
				// What was changed breaks signatures, and is told.
				if got, want := b.Calls()[0].Facts, factsOf(t, body); got != want {
					t.Errorf("facts %+v, want %+v", got, want)
				}
				b.WantCalls("a@example.net", "b@example.net")
			})
		}
	}
}

// Everything in one write, and nothing is read before its turn.
func TestPipelining(t *testing.T) {
	b := serve(t, nil)
	c := b.dial()
	one := strings.Join(envelope("a", "b"), "\r\n") + "\r\n"
	c.send("LHLO x\r\n" + one + fmt.Sprintf("BDAT 3\r\nabcBDAT %d LAST\r\n%s", len(trap), trap) + one + "RSET\r\n" + one + "BDAT 2 LAST\r\n\r\nNOOP\r\nQUIT\r\n")
	c.want("220 ")
	c.until("250 ")
	c.want("250 ", "250 ", "250 ", "250 2.0.0 Continue", "250 2.0.0 <a@", "250 2.0.0 <b@",
		"250 ", "250 ", "250 ", "250 2.0.0 Session reset", "250 ", "250 ", "250 ", "250 2.0.0 <a@", "250 2.0.0 <b@", "250 ", "221 ", "")
	b.WantCalls("a@example.net b@example.net", "a@example.net b@example.net")
	if got := b.Calls()[0].Body; got != canonical(t, "abc"+trap) {
		t.Errorf("%q", got)
	}
}

// What comes while the message is delivered is the next command.
func TestPipelinedBehindTheMessage(t *testing.T) {
	reached, held := make(chan struct{}), make(chan struct{})
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if len(b.Calls()) == 1 {
				close(reached)
				<-held
			}
			return intaketest.All(env, "2.0.0 x")
		}
	})
	c := b.connect()
	c.mail("a")
	<-reached
	c.say(append(envelope("b"), "DATA")...)
	close(held)
	c.want("250 2.0.0 <a@", "250 ", "250 ", "354 ")
	c.send(text + ".\r\nQUIT\r\n")
	c.want("250 2.0.0 <b@", "221 ", "")
}

// A BDAT that is refused has its chunk swallowed, and one that is none has
// none.
func TestRefusedChunks(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.send(fmt.Sprintf("BDAT %d LAST\r\n%s", len(trap), trap))
	c.want("502 5.5.1 ")
	c.say("MAIL FROM:<s@example.org>")
	c.want("250 ")
	c.send(fmt.Sprintf("BDAT %d\r\n%s", len(trap), trap))
	c.want("502 5.5.1 ")
	c.say("RCPT TO:<a@example.net>")
	c.want("250 ")
	// for one that is too large see TestHugeChunk
	for _, line := range []string{"BDAT", "BDAT ", "BDAT x", "BDAT -1 LAST", "BDAT 1 2", "BDAT 1 LAST x"} {
		c.say(line, "NOOP")
		c.want("501 ", "250 2.0.0 I have")
	}
	b.WantCalls()
}

// A message that is given up in the middle of its chunks is not delivered; its
// mail server has to come again, as the library would mix the next one up with
// it.
func TestChunksAndReset(t *testing.T) {
	for _, first := range []string{"BDAT 3\r\nabc", "BDAT 0\r\n"} {
		for _, reset := range []string{"RSET", "LHLO again"} {
			b := serve(t, nil)
			for range 10 {
				c := b.connect()
				c.say(envelope("a")...)
				c.send(first + reset + "\r\n" + strings.Join(envelope("b"), "\r\n") + "\r\nBDAT 3 LAST\r\nabc")
				c.want("250 ", "250 ", "250 2.0.0 Continue")
				c.until("250 ")
				c.want("421 4.3.0 ", "")
			}
			c := b.connect()
			c.mail("c")
			c.want("250 2.0.0 <c@")
			b.WantCalls("c@example.net")
		}
	}
}

// A client that leaves in the middle of anything has nothing delivered.
func TestCutOff(t *testing.T) {
	one := strings.Join(append([]string{"LHLO x"}, envelope("a")...), "\r\n") + "\r\n"
	for name, raw := range map[string]string{
		"a word":              "MAI",
		"the envelope":        one,
		"DATA":                one + "DATA\r\n",
		"the message":         one + "DATA\r\n" + text,
		"the end of data":     one + "DATA\r\n" + text + ".\r",
		"the last chunk":      one + "BDAT 100 LAST\r\n" + text[:99],
		"the last chunk's CR": one + "BDAT 6 LAST\r\nabcd\r",
		"an empty chunk":      one + "BDAT 100 LAST\r\n",
		"a chunk":             one + "BDAT 10\r\n0123456789BDAT 10\r\n01",
		"between chunks":      one + "BDAT 10\r\n0123456789",
		"between empty ones":  one + "BDAT 0\r\n",
		"a refused chunk":     "LHLO x\r\nBDAT 100 LAST\r\nabc",
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			for range 5 {
				c := b.dial()
				c.send(raw)
				c.Close()
			}
			c := b.connect()
			c.mail("b")
			c.want("250 ")
			b.WantCalls("b@example.net")
		})
	}
}

func TestCutOffIsLogged(t *testing.T) {
	b := serve(t, nil)
	c := b.connect()
	c.offer("a")
	c.send(text)
	c.Close()
	b.Log.Wait(t, "INFO", "truncated", fmt.Sprintf("pid=%d", os.Getpid()))
	b.WantCalls()
}

// Nonsense is answered, for a while; long lines are not read to their end; and
// what is said back has no control characters.
func TestNonsense(t *testing.T) {
	t.Run("errors", func(t *testing.T) {
		b := serve(t, nil)
		c := b.connect()
		for range maxErrors + 1 {
			c.say("DATA")
			c.want("502 5.5.1 ")
		}
		c.want("421 4.5.0 ", "")
		b.Log.Wait(t, "INFO", "closed", "421 4.5.0")
	})
	t.Run("errors with messages between them", func(t *testing.T) {
		b := serve(t, nil)
		c := b.connect()
		for range 3 * maxErrors {
			c.say("DATA")
			c.want("502 5.5.1 ")
			c.mail("a")
			c.want("250 ")
		}
	})
	t.Run("refused recipients", func(t *testing.T) {
		b := serve(t, func(b *bench) {
			b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
				return intaketest.All(env, "5.1.1 no")
			}
		})
		c := b.connect()
		for range 3 * maxErrors {
			c.mail("a")
			c.want("550 5.1.1 ")
		}
	})
	t.Run("unknown words", func(t *testing.T) {
		b := serve(t, nil)
		c := b.connect()
		for range 4 {
			c.say("GET / HTTP/1.1")
			c.want("50")
		}
		c.want("500 5.5.1 Too many errors", "")
		// What follows is not heard.
		c = b.connect()
		c.send(strings.Repeat("GET /\r\n", 4) + strings.Join(append(envelope("a"), "BDAT 0 LAST", ""), "\r\n"))
		c.until("500 5.5.1 Too many errors")
		c.want("")
		b.WantCalls()
	})
	t.Run("long lines", func(t *testing.T) {
		b := serve(t, nil)
		for _, line := range []string{strings.Repeat("x", 100_000), "NOOP " + strings.Repeat("x", maxLine)} {
			c := b.connect()
			c.Write([]byte(line)) // may fail: it is not read to its end
			c.want("421 4.5.2 ")
		}
		c := b.connect()
		c.say("NOOP " + strings.Repeat("x", maxLine-7))
		c.want("250 ")
	})
	t.Run("control characters", func(t *testing.T) {
		b := serve(t, nil)
		c := b.dial()
		c.want("220 ")
		c.send("LHLO a\rb\x01c\x7f\r\n")
		c.want("250-Hello a?b?c?")
		c.until("250 ")
		c.send("MAIL FROM:<a\x00\r.x@b>\r\n")
		c.want("250 2.0.0 Roger, accepting mail from <a??.x@b>")
	})
}

// MaxConnections: more wait in the backlog.
func TestMaxConnections(t *testing.T) {
	b := serve(t, func(b *bench) { b.MaxConnections = 2 })
	one, two := b.connect(), b.connect()
	three := b.dial()
	three.send("LHLO x\r\n")
	if err := b.Alive(t.Context()); err != nil {
		t.Error(err)
	}
	two.mail("a")
	two.want("250 ")
	one.Close()
	three.want("220 ")
	three.until("250 ")
	three.mail("b")
	three.want("250 ")
	b.WantCalls("a@example.net", "b@example.net")
}

// A socket for a transport that is not there any more.
func TestUnknownTransport(t *testing.T) {
	b := serve(t, func(b *bench) {
		b.Transport = func(string) (intake.Transport, bool) { return intake.Transport{}, false }
	})
	c := b.connect()
	c.mail("a", "b")
	c.want("451 4.3.5 <a@", `451 4.3.5 <b@example.net> mxpolicyd has no transport named "default"`)
}
