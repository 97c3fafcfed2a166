package intake

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// bench is a dispatcher with one place and one transport, which delivers to
// whom the test says.
type bench struct {
	*Dispatcher
	t     *testing.T
	dir   string
	calls []string // the recipients of each call of Deliver
	// the recipients who get the message; the others are deferred
	taken string
	held  int
	msg   *spool.Message
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), taken: "abc"}
	memory, err := served.Open(filepath.Join(b.dir, "served"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	b.Dispatcher = New(Config{
		Transport: func(name string) (Transport, bool) {
			if name != "default" {
				return Transport{}, false
			}
			b.held++
			return Transport{Deliverer: b, Release: func() { b.held-- }, Overtime: time.Minute}, true
		},
		Spool: spool.New(b.dir, 1<<20), Served: memory, Slots: NewSlots(1), Uploads: semaphore.NewWeighted(UploadsPerSlot), Logger: slog.New(slog.DiscardHandler),
	})
	if b.msg, err = b.Spool.Receive(strings.NewReader("Subject: x\n\nHello.\n")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.msg.Close)
	return b
}

func (b *bench) Deliver(_ context.Context, env *transport.Envelope, _ *transport.Message) []transport.Result {
	var results []transport.Result
	var names []string
	for _, r := range env.Recipients {
		code := status.New(status.Temporary, 2, 0)
		if strings.Contains(b.taken, r.Address) {
			code.Class = status.Success
		}
		results = append(results, transport.Result{Recipient: r.Address, Code: code, Text: "for " + r.Address})
		names = append(names, r.Address)
	}
	b.calls = append(b.calls, strings.Join(names, ""))
	return results
}

// slot takes a slot for a whole message, for a minute.
func (b *bench) slot() *Slot {
	b.t.Helper()
	upload, err := b.Upload(b.t.Context(), "default")
	if err != nil {
		b.t.Fatal(err)
	}
	defer upload.End()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	slot, err := upload.Admit(ctx, &transport.Envelope{})
	if err != nil {
		b.t.Fatal(err)
	}
	return slot
}

// try delivers to recipients of one letter each.
func (b *bench) try(queueID, recipients string) *Delivery {
	b.t.Helper()
	slot := b.slot()
	defer slot.Release()
	env := &transport.Envelope{QueueID: queueID, Sender: "s@example.org"}
	for _, r := range recipients {
		env.Recipients = append(env.Recipients, transport.Recipient{Address: string(r)})
	}
	return slot.Deliver(b.t.Context(), env, b.msg, b.Logger)
}

// want checks the classes of the results.
func (b *bench) want(d *Delivery, classes string) {
	b.t.Helper()
	got := ""
	for _, r := range d.Results {
		got += fmt.Sprint(uint8(r.Code.Class))
	}
	if got != classes {
		b.t.Errorf("results %s, want %s", got, classes)
	}
}

// wantCalls checks to whom Deliver was asked to deliver so far, and that
// nothing is held.
func (b *bench) wantCalls(calls ...string) {
	b.t.Helper()
	if fmt.Sprint(b.calls) != fmt.Sprint(calls) {
		b.t.Errorf("delivered to %q, want %q", b.calls, calls)
	}
	if b.held != 0 || b.UnderWay() != 0 || b.Uploading() != 0 || len(b.inFlight.all) != 0 {
		b.t.Errorf("left: %d transports, %d slots, %d uploads, flights %v", b.held, b.UnderWay(), b.Uploading(), b.inFlight.all)
	}
}

// Who has the message is remembered until the mail server is done with all of
// them.
func TestRememberAndForget(t *testing.T) {
	b := newBench(t)
	b.taken = "a"
	d := b.try("4XyZ", "ab")
	b.want(d, "24")
	d.Remember()
	d.End()
	d.End()
	b.taken = "b"
	d = b.try("4XyZ", "abc")
	b.want(d, "224")
	if d.Results[0].Text != "for a" {
		t.Errorf("%+v", d.Results[0])
	}
	d.Forget() // c is not done with, but does not have it either
	d.End()
	if b.Served.Known("4XyZ") {
		t.Error("still remembered")
	}
	d = b.try("4XyZ", "a")
	d.End()
	b.wantCalls("ab", "bc", "a")
}

// Who has detached needs neither the message nor the envelope any more.
func TestDetach(t *testing.T) {
	b := newBench(t)
	b.taken = "a"
	d := b.try("4XyZ", "ab")
	if !d.Detach() {
		t.Error("nothing is owed")
	}
	again := b.try("4XyZ", "b") // at once
	b.want(again, "4")
	if again.Detach() {
		t.Error("something is owed to whom nothing was delivered")
	}
	d.Remember()
	d = b.try("4XyZ", "a")
	b.want(d, "2")
	if !d.Detach() {
		t.Error("nothing is owed to whom it was recalled")
	}
	d.Forget()
	if b.Served.Known("4XyZ") {
		t.Error("still remembered")
	}
	unnamed := b.try("", "a")
	if unnamed.Detach() {
		t.Error("something is owed without a queue id")
	}
	b.wantCalls("ab", "b", "a")
}

// A try that comes while another one is under way is deferred, for the same
// recipients alone.
func TestInFlight(t *testing.T) {
	b := newBench(t)
	first := b.try("4XyZ", "aa")
	second := b.try("4XyZ", "ab")
	b.want(first, "22")
	b.want(second, "42")
	other, unnamed := b.try("other", "a"), b.try("", "a")
	b.want(other, "2")
	b.want(unnamed, "2")
	second.End()
	b.want(b.try("4XyZ", "a"), "4") // the first still is
	first.End()
	third := b.try("4XyZ", "a")
	b.want(third, "2")
	third.End()
	other.End()
	unnamed.End()
	b.wantCalls("aa", "b", "a", "a", "a")
}

// A slot is waited for, five seconds or as long as ctx lasts; a transport that
// is not there is not.
func TestAdmit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		slot := b.slot()
		begin := time.Now()
		var refused *status.Error
		if _, err := b.Upload(t.Context(), "nosuch"); !errors.As(err, &refused) || refused.Code.String() != "4.3.5" || time.Since(begin) != 0 {
			t.Errorf("no transport: %v after %v", err, time.Since(begin))
		}
		upload, err := b.Upload(t.Context(), "default")
		if err != nil || time.Since(begin) != 0 {
			t.Fatalf("a message cannot come in though none does: %v after %v", err, time.Since(begin))
		}
		if _, err := upload.Admit(t.Context(), &transport.Envelope{}); !errors.As(err, &refused) || refused.Code.String() != "4.3.2" || time.Since(begin) != SlotWait {
			t.Errorf("no slot: %v after %v", err, time.Since(begin))
		}
		begin = time.Now()
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, transport.ErrTimeout)
		defer cancel()
		if _, err := upload.Admit(ctx, &transport.Envelope{}); !errors.Is(err, transport.ErrTimeout) || time.Since(begin) != time.Second {
			t.Errorf("no time: %v after %v", err, time.Since(begin))
		}
		upload.End()
		upload.End()
		if n, coming := b.UnderWay(), b.Uploading(); n != 1 || coming != 0 {
			t.Errorf("%d under way, %d coming in", n, coming)
		}
		slot.Release()
		b.wantCalls()
	})
}

// A delivery that goes on after its time, the last reply's and some minutes is
// overdue.
func TestOverdue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		slot := b.slot()
		// the transport's overtime is a minute
		time.Sleep(time.Minute + time.Minute + Slack)
		if n := b.Overdue(); n != 0 {
			t.Errorf("%d overdue just in time", n)
		}
		time.Sleep(time.Second)
		if n := b.Overdue(); n != 1 {
			t.Errorf("%d overdue a second later", n)
		}
		slot.Release()
		b.wantCalls()
	})
}

// Messages that do not come to their end take no slot, and are four for each:
// one more waits for five seconds.
func TestUploads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		var half []*Upload
		for range 4 {
			upload, err := b.Upload(t.Context(), "default")
			if err != nil {
				t.Fatal(err)
			}
			half = append(half, upload)
		}
		begin := time.Now()
		var refused *status.Error
		if _, err := b.Upload(t.Context(), "default"); !errors.As(err, &refused) || refused.Code.String() != "4.3.2" || time.Since(begin) != 5*time.Second {
			t.Errorf("the fifth: %v after %v", err, time.Since(begin))
		}
		if n := b.Busy(); n != 1 {
			t.Errorf("%d got no place", n)
		}
		// which is whole
		slot, err := half[0].Admit(t.Context(), &transport.Envelope{})
		if err != nil {
			t.Fatalf("there is no slot for a whole message beside three half ones: %v", err)
		}
		slot.Release()
		for _, upload := range half {
			upload.End()
		}
		ctx, cancel := half[1].Receiving(t.Context())
		defer cancel()
		begin = time.Now()
		<-ctx.Done()
		if cause := context.Cause(ctx); cause != ErrSlow || time.Since(begin) != 10*time.Minute {
			t.Errorf("a message may come in for %v: %v", time.Since(begin), cause)
		}
		b.wantCalls()
	})
}

// Envelopes are bounded by themselves and together.
func TestEnvelopes(t *testing.T) {
	b := newBench(t)
	var refused *status.Error
	one := b.Envelope()
	for i := range 1024 {
		if err := one.Add(1024); err != nil {
			t.Fatalf("after %d KiB: %v", i, err)
		}
	}
	if err := one.Add(1); !errors.As(err, &refused) || refused.Code.String() != "4.5.3" {
		t.Errorf("beyond a mebibyte: %v", err)
	}
	var all []*Envelope
	err := error(nil)
	for err == nil {
		e := b.Envelope()
		all = append(all, e)
		err = e.Add(1 << 20)
	}
	if !errors.As(err, &refused) || refused.Code.String() != "4.3.1" || len(all) != 31 {
		t.Errorf("after %d envelopes of 1 MiB beside the first: %v", len(all), err)
	}
	if held := b.EnvelopeUsage().Bytes; held > 64<<20 {
		t.Errorf("%d bytes are held", held)
	}
	small := b.Envelope()
	if err := small.Add(4 << 10); err != nil {
		t.Errorf("a small one beside them: %v", err)
	}
	if err := small.Add(1<<20 - 8<<10); !errors.Is(err, ErrEnvelopes) {
		t.Errorf("one that grows beside them: %v", err)
	}
	small.End()
	one.End()
	if err := one.Add(1 << 20); err != nil {
		t.Errorf("when one was let go: %v", err)
	}
	for _, e := range append(all, one) {
		e.End()
	}
	if held := b.EnvelopeUsage().Bytes; held != 0 {
		t.Errorf("%d bytes are held in the end", held)
	}
}

// What cannot be written down is in the log.
func TestCanNotRemember(t *testing.T) {
	b := newBench(t)
	var log bytes.Buffer
	b.Logger = slog.New(slog.NewTextHandler(&log, nil))
	d := b.try(strings.Repeat("x", 10), strings.Repeat("a", 3))
	// more than a record may have
	d.Results[0].Recipient = strings.Repeat("a", 9<<20)
	d.Remember()
	d.End()
	if !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "deliver it twice") {
		t.Errorf("%.500s", log.String())
	}
	b.wantCalls("aaa")
}
