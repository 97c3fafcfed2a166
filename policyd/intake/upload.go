package intake

import (
	"context"
	"fmt"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/status"
)

const (
	// UploadsPerSlot is how many messages may be coming in for each that may
	// be delivered at once. A message that is not whole takes no slot, so that
	// clients which stop in the middle cannot take them all.
	UploadsPerSlot = 4
	// UploadStall is how long a client may take for its next bytes, and
	// UploadTime for all of a message.
	UploadStall = time.Minute
	UploadTime  = 10 * time.Minute
)

// The answers to a client that does not come to the end of its message.
var (
	ErrStalled error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: fmt.Sprintf("timed out after %v (waiting for more of the message)", UploadStall)}
	ErrSlow    error = &status.Error{Code: status.New(status.Temporary, 3, 2), Text: fmt.Sprintf("timed out after %v (receiving the message)", UploadTime)}
)

// Upload is a message that is coming in, with its transport.
type Upload struct {
	dispatcher *Dispatcher
	transport  Transport // its Release is nil when a slot has it
	over       bool
}

// Upload finds a transport by its name and begins to take a message; where too
// many are coming in it waits for one of them, for five seconds at most. The
// error is a *status.Error for the mail server, or the cause of ctx's end.
func (d *Dispatcher) Upload(ctx context.Context, name string) (*Upload, error) {
	t, ok := d.Transport(name)
	if !ok {
		return nil, &status.Error{Code: status.New(status.Temporary, 3, 5), Text: fmt.Sprintf("mxpolicyd has no transport named %q", name)}
	}
	if ctx.Err() != nil || !d.Uploads.TryAcquire(1) { // as is not usual
		err := d.wait(ctx, func(ctx context.Context) error { return d.Uploads.Acquire(ctx, 1) }, "mxpolicyd is busy: too many messages are being received")
		if err != nil {
			t.Release()
			return nil, err
		}
	}
	d.uploading.Add(1)
	return &Upload{dispatcher: d, transport: t}, nil
}

// Receiving gives the context in which the message comes in, and what ends it.
func (u *Upload) Receiving(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, UploadTime, ErrSlow)
}

// Admit waits for a slot for a message with that envelope, for five seconds
// at most, now that it is whole. ctx ends when the time for the delivery is
// over; one that goes on long after that is overdue. The error is as that of
// Upload.
func (u *Upload) Admit(ctx context.Context, env *transport.Envelope) (*Slot, error) {
	d := u.dispatcher
	flow := flowOfMessage(env)
	start := time.Now()
	if ctx.Err() != nil || !d.Slots.TryAcquire(flow) {
		err := d.wait(ctx, func(ctx context.Context) error { return d.Slots.Acquire(ctx, flow) }, "mxpolicyd is busy: max_deliveries reached")
		if err != nil {
			return nil, err
		}
	}
	s := &Slot{dispatcher: d, transport: u.transport, destination: flow.Destination, waited: time.Since(start)}
	u.transport.Release = nil
	u.End()
	due, bounded := ctx.Deadline()
	if !bounded {
		due = start
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.running[s] = due.Add(s.transport.Overtime + Slack)
	return s, nil
}

// End is called when the message is there, with a slot, or will not be. A
// second call does nothing.
func (u *Upload) End() {
	if u.over {
		return
	}
	u.over = true
	u.dispatcher.uploading.Add(-1)
	u.dispatcher.Uploads.Release(1)
	if u.transport.Release != nil {
		u.transport.Release()
	}
}

// Uploading counts the messages that are coming in, or wait for a slot.
func (d *Dispatcher) Uploading() int { return int(d.uploading.Load()) }
