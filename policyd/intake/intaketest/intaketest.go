// Package intaketest is what stands around a front end in its tests: a
// dispatcher with a transport that does what the test says, a log that can be
// waited for, and a check that nothing is left at the end.
package intaketest

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// Slots is how many messages a dispatcher delivers at once.
	Slots = 10
	// Overtime is that of the transport.
	Overtime = time.Minute
)

// FrontEnd is what is tested.
type FrontEnd interface {
	Serve(taking, deliveries context.Context, l net.Listener) error
	Wait()
}

// Call is one call of Deliver.
type Call struct {
	Envelope transport.Envelope
	Body     string
	Facts    message.Facts
}

// Bench is what stands around one front end.
type Bench struct {
	T      *testing.T
	State  string // the state directory
	Log    *testlog.Log
	Logger *slog.Logger // writes into Log
	// Do is what becomes of a message. At first everybody gets it.
	Do func(ctx context.Context, env *transport.Envelope) []transport.Result

	end    FrontEnd
	ended  func() error
	stop   context.CancelFunc
	giveUp context.CancelCauseFunc

	mu    sync.Mutex
	calls []Call
	held  int // transports that were not released
}

// New makes one.
func New(t *testing.T) *Bench {
	t.Helper()
	b := &Bench{T: t, State: t.TempDir(), Log: testlog.New()}
	b.Logger = slog.New(slog.NewTextHandler(b.Log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	b.Do = func(_ context.Context, env *transport.Envelope) []transport.Result {
		return All(env, "2.0.0 delivered")
	}
	return b
}

// NewDispatcher makes a dispatcher that takes messages of so many bytes at the
// most, with one transport, "default".
func (b *Bench) NewDispatcher(maxSize int64) *intake.Dispatcher {
	b.T.Helper()
	return intake.New(intake.Config{
		Transport: b.find,
		Spool:     spool.New(b.State, maxSize),
		Served:    b.Memory(),
		Slots:     intake.NewSlots(Slots),
		Uploads:   semaphore.NewWeighted(Slots * intake.UploadsPerSlot),
		Logger:    b.Logger,
	})
}

// Memory reads the memory of the state directory, as a daemon does that starts.
func (b *Bench) Memory() *served.Store {
	b.T.Helper()
	memory, err := served.Open(filepath.Join(b.State, "served"), time.Now)
	if err != nil {
		b.T.Fatal(err)
	}
	return memory
}

func (b *Bench) find(name string) (intake.Transport, bool) {
	if name != "default" {
		return intake.Transport{}, false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held++
	return intake.Transport{Deliverer: b, Overtime: Overtime, Release: func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.held--
	}}, true
}

// Deliver implements intake.Deliverer.
func (b *Bench) Deliver(ctx context.Context, env *transport.Envelope, msg *transport.Message) []transport.Result {
	body, err := io.ReadAll(io.NewSectionReader(msg.Content, 0, msg.Facts.Size))
	if err != nil {
		b.T.Errorf("reading the message: %v", err)
	}
	b.mu.Lock()
	b.calls = append(b.calls, Call{*env, string(body), msg.Facts})
	b.mu.Unlock()
	return b.Do(ctx, env)
}

// Calls gives the calls of Deliver so far.
func (b *Bench) Calls() []Call {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.calls
}

// WantCalls checks to whom Deliver was asked to deliver, call by call.
func (b *Bench) WantCalls(want ...string) {
	b.T.Helper()
	var got []string
	for _, c := range b.Calls() {
		var rcpts []string
		for _, r := range c.Envelope.Recipients {
			rcpts = append(rcpts, r.Address)
		}
		got = append(got, strings.Join(rcpts, " "))
	}
	if fmt.Sprint(got) != fmt.Sprint(want) || len(got) != len(want) {
		b.T.Errorf("delivered to %q, want %q", got, want)
	}
}

// Start has the front end serve a listener.
func (b *Bench) Start(end FrontEnd, l net.Listener) {
	var taking, deliveries context.Context
	taking, b.stop = context.WithCancel(context.Background())
	deliveries, b.giveUp = context.WithCancelCause(context.Background())
	b.end = end
	ended := make(chan struct{})
	var err error
	go func() {
		defer close(ended)
		err = end.Serve(taking, deliveries, l)
	}()
	b.ended = func() error {
		<-ended
		return err
	}
}

// StartAt is Start at a unix socket of that name in the state directory, whose
// path it gives.
func (b *Bench) StartAt(end FrontEnd, name string) string {
	b.T.Helper()
	path := filepath.Join(b.State, name)
	l, err := net.Listen("unix", path)
	if err != nil {
		b.T.Fatal(err)
	}
	b.Start(end, l)
	return path
}

// Stop is what TERM does: nothing new is taken.
func (b *Bench) Stop() { b.stop() }

// GiveUp is what the end of shutdown_timeout does.
func (b *Bench) GiveUp() { b.giveUp(transport.ErrStopping) }

// Ended waits for Serve, and gives what it returned, which nothing else minds
// then.
func (b *Bench) Ended() error {
	err := b.ended()
	b.ended = func() error { return nil }
	return err
}

// Finish stops, and waits for what is under way.
func (b *Bench) Finish() {
	b.T.Helper()
	b.Stop()
	if err := b.Ended(); err != nil {
		b.T.Errorf("Serve: %v", err)
	}
	b.end.Wait()
}

// End ends the front end, and checks that nothing is left at its dispatcher.
func (b *Bench) End(dispatcher *intake.Dispatcher) {
	b.T.Helper()
	b.Stop()
	b.GiveUp()
	b.Finish()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := dispatcher.UnderWay(); n != 0 || b.held != 0 {
		b.T.Errorf("%d messages have a slot, %d transports were not released", n, b.held)
	}
	if n, bytes := dispatcher.Uploading(), dispatcher.EnvelopeUsage().Bytes; n != 0 || bytes != 0 {
		b.T.Errorf("%d messages are coming in, envelopes hold %d bytes", n, bytes)
	}
	if b.T.Failed() {
		b.T.Log(b.Log)
	}
}

// All gives every recipient the same result, "code text".
func All(env *transport.Envelope, result string) []transport.Result {
	return By(env, func(string) string { return result })
}

// By gives each recipient the result that it is said to have.
func By(env *transport.Envelope, result func(rcpt string) string) []transport.Result {
	list := make([]transport.Result, len(env.Recipients))
	for i, r := range env.Recipients {
		code, rest, _ := status.Parse(result(r.Address))
		list[i] = transport.Result{Recipient: r.Address, Code: code, Text: rest}
	}
	return list
}

// Until gives what became of a delivery that went on until its context ended.
func Until(ctx context.Context, env *transport.Envelope) []transport.Result {
	<-ctx.Done()
	return All(env, "4.0.0 "+context.Cause(ctx).Error())
}
