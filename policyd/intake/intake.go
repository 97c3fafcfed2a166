// Package intake is what the front ends that take messages do alike: pipe and
// LMTP differ in how a message comes in and how the answer goes out, and in
// nothing else.
//
// A message's life here: its transport is found by name and held, and the front
// end reads it into the spool, as one of a bounded number of uploads; when it
// is whole, a slot among the deliveries at once is waited for; the transport
// delivers to those recipients that neither have the message from an earlier
// try nor are about to get it from one that is still under way. When the mail
// server may try again although a recipient has the message, that is written
// down (package served).
//
// A message keeps the transport that it began with, whatever is reloaded
// meanwhile.
package intake

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mxpipe/mxpipe/policyd/served"
	"github.com/mxpipe/mxpipe/policyd/spool"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// SlotWait is how long a message waits for a slot among max_deliveries.
	SlotWait = 5 * time.Second
	// Slack is what a delivery may take beyond its time before it is overdue.
	Slack = 5 * time.Minute
)

// Deliverer is a transport.
type Deliverer interface {
	// Deliver gives one result for each recipient, in their order, and ends
	// soon after ctx.
	Deliver(ctx context.Context, env *transport.Envelope, msg *transport.Message) []transport.Result
}

// Transport is a transport that is held for one delivery.
type Transport struct {
	Deliverer
	// Release is called once, when the delivery is over.
	Release func()
	// Overtime is how long Deliver may go on after its context has ended,
	// because the server's last answer is waited for.
	Overtime time.Duration
}

// Config is what a Dispatcher works with. All of it must be set.
type Config struct {
	// Transport finds a transport by its name; ok is false when there is none.
	Transport func(name string) (t Transport, ok bool)
	Spool     *spool.Spool
	Served    *served.Store
	// Slots are those of max_deliveries. Uploads holds one unit for each
	// message that may be coming in.
	Slots   *Slots
	Uploads *semaphore.Weighted
	Logger  *slog.Logger
}

// Dispatcher is where all front ends bring their messages. It is safe for
// concurrent use.
type Dispatcher struct {
	Config
	inFlight  inFlight
	busy      atomic.Uint64 // messages that got no slot
	uploading atomic.Int64
	envelopes atomic.Int64 // bytes

	mu      sync.Mutex
	running map[*Slot]time.Time // until when each must be over
}

// New makes a dispatcher.
func New(cfg Config) *Dispatcher {
	return &Dispatcher{
		Config:   cfg,
		inFlight: inFlight{all: map[flight]*attempt{}},
		running:  map[*Slot]time.Time{},
	}
}

// Slot is a delivery's slot among max_deliveries, with its transport.
type Slot struct {
	dispatcher *Dispatcher
	transport  Transport
	// of those under way, that it counts for
	destination string
	waited      time.Duration // for it
}

// wait waits for one of what there is a number of; busy says that there was
// none in time.
func (d *Dispatcher) wait(ctx context.Context, acquire func(context.Context) error, busy string) error {
	bounded, cancel := context.WithTimeout(ctx, SlotWait)
	defer cancel()
	switch {
	case acquire(bounded) == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	d.busy.Add(1)
	return &status.Error{Code: status.New(status.Temporary, 3, 2), Text: busy}
}

// NotTaken logs that a message is turned away, and with which answer. It is a
// warning unless that happens in a daemon that is well: it stops, the mail
// server's time is over, or the message is refused for good.
func NotTaken(log *slog.Logger, answer *status.Error) {
	level := slog.LevelWarn
	for _, usual := range []error{transport.ErrStopping, transport.ErrTimeout, transport.ErrGone} {
		if errors.Is(answer, usual) {
			level = slog.LevelInfo
		}
	}
	if answer.Code.Class == status.Permanent {
		level = slog.LevelInfo
	}
	log.Log(context.Background(), level, "message not taken", "dsn", answer.Code.String(), "text", answer.Error())
}

// Release gives the slot to another message. It is called once, when the
// message is done with.
func (s *Slot) Release() {
	s.dispatcher.mu.Lock()
	delete(s.dispatcher.running, s)
	s.dispatcher.mu.Unlock()
	s.dispatcher.Slots.Release(s.destination)
	s.transport.Release()
}

// UnderWay counts the messages that have a slot.
func (d *Dispatcher) UnderWay() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.running)
}

// Busy counts the messages that got no slot in time, for a delivery or to come
// in.
func (d *Dispatcher) Busy() uint64 { return d.busy.Load() }

// Overdue counts the deliveries that go on although their time, and all that
// may come on top of it, was over some minutes ago. There is no reason for one,
// but that something in the daemon waits for ever.
func (d *Dispatcher) Overdue() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for _, due := range d.running {
		if time.Now().After(due) {
			n++
		}
	}
	return n
}
