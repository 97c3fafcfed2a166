package pipe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/intake/intaketest"
	"github.com/mxpipe/mxpipe/transport"
)

// Everything of the envelope reaches the transport, with the peer's
// credentials, and the transport's line comes back.
func TestDelivery(t *testing.T) {
	b := serve(t, nil)
	e := envelope("a@example.net")
	e.Recipients[0].Notify, e.Recipients[0].ORcpt = "NEVER", "rfc822;x@example.net"
	e.Recipients = append(e.Recipients, wire.Recipient{Address: "b@example.net"})
	e.Nexthop, e.Body, e.SMTPUTF8, e.RequireTLS, e.Quarantined = "[192.0.2.1]:25", "8bitmime", true, true, true
	e.Ret, e.EnvID, e.Timeout = "hdrs", "envelope id", milliseconds(time.Hour)
	want(t, b.send(e), "2.0.0 ", "2 delivered")
	calls := b.Calls()
	if len(calls) != 1 {
		t.Fatalf("%d calls", len(calls))
	}
	got := calls[0].Envelope
	if len(got.ID) < 8 {
		t.Errorf("id %q", got.ID)
	}
	if got.Waited <= 0 {
		t.Errorf("it waited %v for its place", got.Waited)
	}
	got.ID, got.Waited = "", 0
	if expected := (transport.Envelope{
		QueueID: "4XyZ", Peer: transport.Peer{UID: os.Getuid(), PID: os.Getpid()},
		Sender: "s@example.org",
		Recipients: []transport.Recipient{
			{Address: "a@example.net", Notify: "NEVER", ORcpt: "rfc822;x@example.net"}, {Address: "b@example.net"},
		},
		Nexthop: "[192.0.2.1]:25", EightBit: true, SMTPUTF8: true, RequireTLS: true,
		Ret: "HDRS", EnvID: "envelope id", Quarantined: true,
	}); !reflect.DeepEqual(got, expected) {
		t.Errorf("envelope %+v\nwant     %+v", got, expected)
	}
	if body := strings.ReplaceAll(text, "\n", "\r\n"); calls[0].Body != body {
		t.Errorf("message %q, want %q", calls[0].Body, body)
	}
}

// A plain envelope means no more than it says.
func TestPlainEnvelope(t *testing.T) {
	b := serve(t, nil)
	e := envelope("a@example.net")
	e.Sender, e.Body, e.Ret = "", "7bit", "full"
	b.send(e)
	got := b.Calls()[0].Envelope
	if got.Sender != "" || got.EightBit || got.Ret != "FULL" || got.SMTPUTF8 || got.RequireTLS || got.Quarantined {
		t.Errorf("%+v", got)
	}
}

func TestUnknownTransport(t *testing.T) {
	b := serve(t, nil)
	e := envelope("a@example.net")
	e.Transport = "nosuch"
	want(t, b.send(e), "4.3.5 ", `"nosuch"`)
	b.WantCalls()
	b.Log.Wait(t, "WARN", "dsn=4.3.5", "nosuch", "queue_id=4XyZ", fmt.Sprintf("uid=%d pid=%d", os.Getuid(), os.Getpid()))
}

// What the transport says of each recipient becomes one answer.
func TestAnswers(t *testing.T) {
	for _, c := range []struct{ name, a, b, want string }{
		{"all delivered", "2.0.0 x", "2.0.0 y", "2.0.0 2 recipients, 2 delivered"},
		{"temporary beats success", "2.0.0 x", "4.2.0 y", "4.2.0 2 recipients, 1 deferred, 1 delivered"},
		{"temporary beats permanent", "5.1.1 x", "4.2.0 y", "4.2.0 2 recipients, 1 deferred, 1 refused"},
		{"permanent beats success", "5.1.1 x", "2.0.0 y", "5.1.1 2 recipients, 1 refused, 1 delivered"},
		{"no result is temporary", "", "2.0.0 y", "4.3.0 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := serve(t, func(b *bench) {
				b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
					return intaketest.By(env, func(rcpt string) string { return map[string]string{"a": c.a, "b": c.b}[rcpt] })
				}
			})
			want(t, b.send(envelope("a", "b")), c.want)
		})
	}
}

// A client that leaves before the commit has its message dropped.
func TestGoneBeforeTheCommit(t *testing.T) {
	large := make([]byte, 2<<20)
	request := whole(t, envelope("a"))
	for name, raw := range map[string][]byte{
		"in the envelope": opening(t, envelope("a"))[:20],
		"after it":        opening(t, envelope("a")),
		"in the message":  wire.AppendData(opening(t, envelope("a")), []byte(text)),
		"in a frame":      request[:len(request)-10],
		"in a large one":  wire.AppendData(opening(t, envelope("a")), large),
		"in the commit":   request[:len(request)-1],
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			b.connect(raw).Close()
			if name == "in the envelope" {
				b.Log.Wait(t, "DEBUG", "disconnected without a request")
			} else {
				b.Log.Wait(t, "INFO", "truncated", "queue_id=4XyZ", fmt.Sprintf("pid=%d", os.Getpid()))
			}
			b.WantCalls()
		})
	}
}

// A connection without a word is nothing to warn of: a check whether the
// socket is alive makes one.
func TestNotAWord(t *testing.T) {
	b := serve(t, nil)
	b.connect(nil).Close()
	b.Log.Wait(t, "DEBUG", "disconnected without a request")
	if log := b.Log.String(); strings.Contains(log, "WARN") {
		t.Error(log)
	}
}

// A client that leaves after the commit has the delivery cancelled.
func TestGoneAfterTheCommit(t *testing.T) {
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
	conn := b.connect(whole(t, envelope("a")))
	<-reached
	conn.Close()
	if cause := <-causes; cause != transport.ErrGone {
		t.Errorf("cancelled because of %v", cause)
	}
}

// A client that says something after the commit breaks the protocol.
func TestWordsAfterTheCommit(t *testing.T) {
	reached := make(chan struct{})
	b := serve(t, func(b *bench) {
		b.Do = func(ctx context.Context, env *transport.Envelope) []transport.Result {
			close(reached)
			return intaketest.Until(ctx, env)
		}
	})
	conn := b.connect(whole(t, envelope("a")))
	<-reached
	if _, err := conn.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	want(t, answer(conn), "4.", transport.ErrGone.Error())
}

// The client leaves when it is too late to stop the delivery: it is remembered,
// also over a restart, and not made again.
func TestDeliveredButGone(t *testing.T) {
	reached := make(chan struct{})
	b := serve(t, func(b *bench) {
		b.Do = func(ctx context.Context, env *transport.Envelope) []transport.Result {
			close(reached)
			<-ctx.Done()
			return intaketest.All(env, "2.0.0 mx: 250 queued as 1")
		}
	})
	conn := b.connect(whole(t, envelope("a")))
	<-reached
	conn.Close()
	b.Log.Wait(t, "did not wait for the answer", "queue_id=4XyZ")
	b.WantCalls("a")
	want(t, b.send(envelope("a")), "2.0.0 mx: 250 queued as 1")
	b.WantCalls("a")
	b.Log.Wait(t, "not delivered again", "to=a")
}

// The client is killed when the answer is there and not read.
func TestAnswerUnread(t *testing.T) {
	b := serve(t, nil)
	conn := b.connect(whole(t, envelope("a")))
	readable(t, conn)
	conn.Close()
	b.Log.Wait(t, "did not wait for the answer")
	b.Served = b.Memory()
	want(t, b.send(envelope("a")), "2.0.0 delivered")
	b.WantCalls("a")
}

// readable waits until there is something to read, and does not read it.
func readable(t *testing.T, conn interface {
	File() (*os.File, error)
}) {
	t.Helper()
	f, err := conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, 60_000); n != 1 {
		t.Fatalf("poll: %d, %v", n, err)
	}
}

// A mail server that has its answer is not remembered, and may send the same
// once more.
func TestToldIsNotRemembered(t *testing.T) {
	b := serve(t, nil)
	want(t, b.send(envelope("a")), "2.0.0 ")
	// Until the daemon has seen that the answer was read, the message is on its
	// way.
	again := b.send(envelope("a"))
	for strings.HasPrefix(again, "4.3.0 an earlier attempt") {
		again = b.send(envelope("a"))
	}
	want(t, again, "2.0.0 ")
	b.WantCalls("a", "a")
}

// While an answer lies there unread, it is not known whether it will be:
// another try waits for that, and gets what the first one would have got.
func TestUnreadAnswerHoldsTheNextTry(t *testing.T) {
	b := serve(t, nil)
	conn := b.connect(whole(t, envelope("a")))
	readable(t, conn)
	want(t, b.send(envelope("a")), "4.3.0 an earlier attempt to deliver this message is still in progress")
	conn.Close() // with the answer unread
	again := b.send(envelope("a"))
	for strings.HasPrefix(again, "4.3.0 an earlier attempt") {
		again = b.send(envelope("a"))
	}
	want(t, again, "2.0.0 delivered")
	b.WantCalls("a")
}

// Of a mixed outcome the recipients that were served are skipped at the
// next tries, until all is done.
func TestMixedOutcome(t *testing.T) {
	later := "4.2.0 later"
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			return intaketest.By(env, func(rcpt string) string {
				if rcpt == "a" {
					return "2.0.0 mx: 250 queued"
				}
				return later
			})
		}
	})
	e := envelope("a", "b")
	want(t, b.send(e), "4.2.0 ", "1 deferred", "1 delivered")
	want(t, b.send(e), "4.2.0 ", "1 deferred", "1 delivered", "mx: 250 queued")
	b.Served = b.Memory()
	want(t, b.send(e), "4.2.0 ", "1 deferred", "1 delivered")
	// Another message, and another sender, under the same queue id.
	other := e
	other.Sender = "x@example.org"
	b.send(other)
	want(t, answer(b.connect(wire.AppendCommit(wire.AppendData(opening(t, e), []byte("other"))))), "4.2.0 ")
	b.WantCalls("a b", "b", "b", "a b", "a b")
	later = "2.0.0 now"
	want(t, b.send(e), "2.0.0 ", "2 delivered")
	b.WantCalls("a b", "b", "b", "a b", "a b", "b")
	b.Finish()
	records, err := filepath.Glob(filepath.Join(b.State, "served", "*"))
	if err != nil || len(records) != 2 { // those of the two others
		t.Errorf("at the end there are %q, %v", records, err)
	}
}

// Without a queue id two alike messages may be two.
func TestMixedOutcomeWithoutAQueueID(t *testing.T) {
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			return intaketest.By(env, func(rcpt string) string { return map[string]string{"a": "2.0.0 x"}[rcpt] })
		}
	})
	e := envelope("a", "b")
	e.QueueID = ""
	b.send(e)
	b.send(e)
	b.WantCalls("a b", "a b")
}

// What cannot be written down is in the log, and changes nothing else.
func TestCanNotRemember(t *testing.T) {
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			return intaketest.By(env, func(rcpt string) string { return map[string]string{"a": "2.0.0 x", "b": "4.2.0 y"}[rcpt] })
		}
	})
	if err := os.RemoveAll(filepath.Join(b.State, "served")); err != nil {
		t.Fatal(err)
	}
	want(t, b.send(envelope("a", "b")), "4.2.0 ")
	b.Log.Wait(t, "ERROR", "deliver it twice", "queue_id=4XyZ")
}

// A try that comes while an earlier one is still on its way to the same
// recipient is deferred; its other recipients are served.
func TestEarlierTryUnderWay(t *testing.T) {
	reached, held := make(chan struct{}), make(chan struct{})
	b := serve(t, func(b *bench) {
		b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
			if env.Recipients[0].Address == "a" && len(b.Calls()) == 1 {
				close(reached)
				<-held
			}
			return intaketest.All(env, "2.0.0 x")
		}
	})
	first := b.connect(whole(t, envelope("a", "a")))
	<-reached
	first.Close()
	want(t, b.send(envelope("a", "b")), "4.3.0 ", "earlier attempt", "1 delivered")
	other := envelope("a")
	other.QueueID = "5000"
	want(t, b.send(other), "2.0.0 ")
	close(held)
	b.Log.Wait(t, "did not wait for the answer")
	want(t, b.send(envelope("a", "b")), "2.0.0 ")
	b.WantCalls("a a", "b", "a")
}

// Garbage gets an answer, and nothing is delivered.
func TestGarbage(t *testing.T) {
	good := opening(t, envelope("a"))
	version := append([]byte(nil), good...)
	version[3] = 99
	for name, raw := range map[string][]byte{
		"another protocol":        []byte("EHLO mx.example.org\r\n"),
		"another version":         version,
		"no envelope":             wire.AppendCommit(append([]byte(nil), good[:4]...)),
		"an endless envelope":     append(append([]byte(nil), good[:5]...), 0xff, 0xff, 0xff, 0xff),
		"an unknown frame":        append(append([]byte(nil), good...), "?\x00\x00\x00\x00"...),
		"an endless frame":        append(append([]byte(nil), good...), "D\xff\xff\xff\xff"...),
		"a second envelope":       append(append([]byte(nil), good...), good[4:]...),
		"control characters":      []byte(strings.Replace(string(good), "s@example", "s\nexampl", 1)),
		"garbage, then a message": append([]byte("garbage"), whole(t, envelope("a"))...),
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, nil)
			want(t, answer(b.connect(raw)), "4.3.5 ")
			b.Log.Wait(t, "WARN", "message not taken", "dsn=4.3.5", fmt.Sprintf("uid=%d", os.Getuid()))
			b.WantCalls()
		})
	}
}

// A client that is still sending hears why it need not.
func TestRefusedOnTheWay(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*bench)
		want   string
	}{
		"too large": {nil, "5.3.4 "},
		"no room":   {func(b *bench) { os.RemoveAll(b.State) }, "4.3.1 "},
		"no transport": {func(b *bench) {
			b.Transport = func(string) (intake.Transport, bool) { return intake.Transport{}, false }
		}, "4.3.5 "},
	} {
		t.Run(name, func(t *testing.T) {
			b := serve(t, func(b *bench) {
				if c.change != nil && name != "no room" {
					c.change(b)
				}
			})
			conn := b.connect(opening(t, envelope("a")))
			if name == "no room" {
				c.change(b)
			}
			piece := wire.AppendData(nil, []byte(strings.Repeat("0123456789abcde\n", 4096)))
			var err error
			for range 1000 {
				if _, err = conn.Write(piece); err != nil {
					break
				}
			}
			if !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
				t.Errorf("the daemon read on: %v", err)
			}
			want(t, answer(conn), c.want)
			b.WantCalls()
		})
	}
}

// A message of the largest size goes through a file and arrives whole.
func TestLargeMessage(t *testing.T) {
	b := serve(t, nil)
	body := strings.Repeat("0123456789abcd\n", (4<<20)/16)
	raw := wire.AppendCommit(wire.AppendData(opening(t, envelope("a")), []byte(body)))
	conn := b.connect(raw)
	want(t, answer(conn), "2.0.0 ")
	if got := b.Calls()[0].Body; got != strings.ReplaceAll(body, "\n", "\r\n") {
		t.Errorf("%d bytes arrived, not the ones that were sent", len(got))
	}
}

// FuzzServe sends the front end anything: it may deliver only what stands
// before a commit, and must come to an end.
func FuzzServe(f *testing.F) {
	e := envelope("a@example.org", "b@example.org")
	raw, err := wire.AppendEnvelope(nil, &e)
	if err != nil {
		f.Fatal(err)
	}
	request := wire.AppendCommit(wire.AppendData(raw, []byte(text)))
	f.Add(request)
	f.Add(request[:len(request)-1])
	f.Add(raw)
	f.Add([]byte("mxp\x01E\x00\x00\x00\x03s\x00\x00"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		b := newBench(t)
		ours, theirs := socketPair(t)
		done := make(chan struct{})
		go func() {
			defer close(done)
			defer ours.Close()
			b.Server.serve(t.Context(), context.Background(), ours)
		}()
		theirs.Write(raw)
		theirs.CloseWrite()
		answer(theirs)
		<-done
		if len(b.Calls()) > 0 && !strings.Contains(string(raw), string(wire.AppendCommit(nil))) {
			t.Fatal("delivered without a commit")
		}
	})
}

// Envelopes that are large, on many connections, hold 64 MiB together; a
// message for a few has room beside them.
func TestManyEnvelopes(t *testing.T) {
	b := serve(t, func(b *bench) { b.Loops = accept.New(200, b.Logger) })
	e := envelope("a")
	for range 999 {
		e.Recipients = append(e.Recipients, wire.Recipient{Address: strings.Repeat("x", 1000)})
	}
	raw := opening(t, e)
	refused := make(chan string, 60)
	var clients sync.WaitGroup
	for range cap(refused) {
		conn := b.connect(nil)
		clients.Go(func() {
			// But for its last bytes, so that it goes on holding what it has.
			conn.Write(raw[:len(raw)-10])
			refused <- answer(conn)
		})
	}
	want(t, <-refused, "4.3.1 the envelopes of all messages hold more than the 64 MiB")
	if held := b.EnvelopeUsage().Bytes; held > 65<<20 {
		t.Errorf("%d bytes are held", held)
	}
	conn := b.connect(nil)
	conn.Write(whole(t, envelope("a", "b")))
	want(t, answer(conn), "2.0.0 ")
	b.Stop()
	b.GiveUp()
	clients.Wait()
}
