package lmtp

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
)

// readable waits until there is something to read, and does not read it.
func (c *client) readable() {
	c.t.Helper()
	f, err := c.Conn.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		c.t.Fatal(err)
	}
	defer f.Close()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, int(patience.Milliseconds())); n != 1 {
		c.t.Fatalf("poll: %d, %v", n, err)
	}
}

// known waits until the daemon has come to an end with a connection, and tells
// whether the message is remembered.
func (b *bench) known() bool {
	b.T.Helper()
	b.Finish()
	return b.Served.Known("4XyZ")
}

// A client that leaves while its message is delivered has the delivery
// cancelled.
func TestGoneWhileDelivering(t *testing.T) {
	for name, behind := range map[string]string{"nothing behind": "", "QUIT behind": "QUIT\r\n"} {
		t.Run(name, func(t *testing.T) {
			causes := make(chan error, 1)
			reached := make(chan struct{})
			b := serve(t, func(b *bench) {
				b.Do = func(ctx context.Context, env *transport.Envelope) []transport.Result {
					close(reached)
					<-ctx.Done()
					causes <- context.Cause(ctx)
					return intaketest.All(env, "4.3.2 gone")
				}
			})
			c := b.connect()
			c.mail("a")
			c.send(behind)
			<-reached
			c.Close()
			if cause := <-causes; cause != transport.ErrGone {
				t.Errorf("cancelled because of %v", cause)
			}
			if b.known() {
				t.Error("it is remembered")
			}
		})
	}
}

// The client leaves when it is too late to stop the delivery: who has the
// message is remembered, also over a restart, and does not get it again; who
// has it not, does. Another message under the same queue id, and one from
// another sender, are other messages.
func TestDeliveredButGone(t *testing.T) {
	reached := make(chan struct{})
	b := serve(t, func(b *bench) {
		b.Do = func(ctx context.Context, env *transport.Envelope) []transport.Result {
			if len(b.Calls()) == 1 {
				close(reached)
				<-ctx.Done()
				return intaketest.By(env, func(rcpt string) string {
					return map[byte]string{'a': "2.0.0 mx: 250 queued as 1", 'b': "4.3.2 gone"}[rcpt[0]]
				})
			}
			return intaketest.All(env, "2.0.0 now")
		}
	})
	c := b.connect()
	c.mail("a", "b")
	<-reached
	c.Close()
	b.Log.Wait(t, "did not wait for the answer", "queue_id=4XyZ")
	b.Served = b.Memory()
	c = b.connect()
	c.offer("a", "b")
	c.send(text + "another\r\n.\r\n")
	c.want("250 2.0.0 <a@example.net> now", "250 2.0.0 <b@")
	c.say(append([]string{"MAIL FROM:<x@example.org>"}, append(envelope("a", "b")[1:], "DATA")...)...)
	c.want("250 ", "250 ", "250 ", "354 ")
	c.send(text + ".\r\n")
	c.want("250 2.0.0 <a@example.net> now", "250 2.0.0 <b@")
	c.mail("a", "b")
	c.want("250 2.0.0 <a@example.net> mx: 250 queued as 1", "250 2.0.0 <b@example.net> now")
	c.say("QUIT")
	c.want("221 ", "")
	const both = "a@example.net b@example.net"
	b.WantCalls(both, both, both, "b@example.net")
	b.Log.Wait(t, "not delivered again", "to=a@example.net")
	if b.known() {
		t.Error("it is remembered although the mail server knows now")
	}
	if left, err := filepath.Glob(filepath.Join(b.State, "served", "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// A message without its mail server's queue id may be another one that is
// alike.
func TestNoQueueID(t *testing.T) {
	reached := make(chan struct{}, 2)
	b := serve(t, func(b *bench) {
		b.Do = func(ctx context.Context, env *transport.Envelope) []transport.Result {
			reached <- struct{}{}
			<-ctx.Done()
			return intaketest.All(env, "2.0.0 queued")
		}
	})
	for range 2 {
		c := b.connect()
		c.offer("a")
		c.send("Subject: x\r\n\r\n.\r\n")
		<-reached
		c.Close()
	}
	b.known()
	b.WantCalls("a@example.net", "a@example.net")
}

// The client is killed when the replies are there and not read.
func TestRepliesUnread(t *testing.T) {
	for name, behind := range map[string]string{"nothing behind": "", "QUIT behind": "QUIT\r\n", "more behind": "MAIL FROM:<s@example.org>\r\n"} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			c := b.connect()
			c.offer("a")
			c.send(text + ".\r\n" + behind)
			c.readable()
			c.Close()
			b.Log.Wait(t, "did not wait for the answer")
			if !b.known() {
				t.Error("it is not remembered")
			}
		})
	}
}

// A mail server that has its answer is not remembered, however it goes on.
func TestRepliesRead(t *testing.T) {
	for name, test := range map[string]func(b *bench, c *client){
		"closes": func(_ *bench, c *client) { c.Close() },
		"quits": func(_ *bench, c *client) {
			c.say("QUIT")
			c.want("221 ", "")
		},
		"quits and closes": func(_ *bench, c *client) {
			c.say("QUIT")
			c.want("221 ")
			c.Close()
		},
		"stays":                func(*bench, *client) {},
		"begins another":       func(_ *bench, c *client) { c.offer("b"); c.Close() },
		"sends another":        func(_ *bench, c *client) { c.mail("b"); c.want("250 ") },
		"half-closes":          func(_ *bench, c *client) { c.Conn.(interface{ CloseWrite() error }).CloseWrite(); c.want("") },
		"sends it once more":   func(_ *bench, c *client) { c.mail("a"); c.want("250 2.0.0 <a@example.net> delivered") },
		"by another comes too": func(b *bench, _ *client) { k := b.connect(); k.mail("b"); k.want("250 ") },
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			c := b.connect()
			c.mail("a")
			c.want("250 2.0.0 <a@")
			test(b, c)
			if b.known() {
				t.Error("it is remembered")
			}
			if strings.Contains(b.Log.String(), "did not wait") {
				t.Error("the log says that the mail server did not wait")
			}
		})
	}
}

// A try that comes while an earlier one is still on its way to the same
// recipient is deferred; its other recipients are served.
func TestEarlierTryUnderWay(t *testing.T) {
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
	first := b.connect()
	first.mail("a", "a")
	<-reached
	first.Close()
	c := b.connect()
	c.mail("a", "b")
	c.want("451 4.3.0 <a@example.net> an earlier attempt", "250 2.0.0 <b@")
	close(held)
	b.Log.Wait(t, "did not wait for the answer")
	c.mail("a", "b")
	c.want("250 2.0.0 <a@example.net> x", "250 2.0.0 <b@")
	b.WantCalls("a@example.net a@example.net", "b@example.net", "b@example.net")
}

// A recipient that was deferred can be tried again at once, although the
// connection on which it was is idle.
func TestTriedAgainElsewhere(t *testing.T) {
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if len(b.Calls()) == 1 {
				return intaketest.By(env, func(rcpt string) string { return map[byte]string{'a': "2.0.0 x", 'b': "4.2.0 later"}[rcpt[0]] })
			}
			return intaketest.All(env, "2.0.0 x")
		}
	})
	one, two := b.connect(), b.connect()
	one.mail("a", "b")
	one.want("250 2.0.0 <a@", "451 4.2.0 <b@")
	two.mail("b")
	two.want("250 2.0.0 <b@")
}
