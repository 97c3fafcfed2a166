package socketmap

import (
	"context"
	"sync"
	"time"
)

// timeout is a context that ends after a time, like that of
// context.WithTimeout, whose timer is started only by who waits for it. A
// look-up whose answer is known waits for nothing.
type timeout struct {
	context.Context // the one that it comes from
	after           time.Duration
	// waits is called once, when somebody begins to wait; after an error the
	// context ends. nil: nothing is to be done.
	waits func() error

	mu      sync.Mutex
	stopped bool
	timed   context.Context // once somebody waits
	cancel  context.CancelFunc
}

func newTimeout(ctx context.Context, after time.Duration) *timeout {
	return &timeout{Context: ctx, after: after}
}

// again takes a stop back, for the next look-up, and reports whether that can
// be: nothing has waited for the end.
func (t *timeout) again() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timed != nil {
		return false
	}
	t.stopped = false
	return true
}

// start starts the timer, unless it has been.
func (t *timeout) start() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timed == nil {
		t.timed, t.cancel = context.WithTimeout(t.Context, t.after)
		if t.stopped || t.waits != nil && t.waits() != nil {
			t.cancel()
		}
	}
	return t.timed
}

// current is what the context is now.
func (t *timeout) current() context.Context {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.timed != nil {
		return t.timed
	}
	return t.Context
}

// stop lets the timer go.
func (t *timeout) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	if t.cancel != nil {
		t.cancel()
	}
}

// Deadline implements context.Context.
func (t *timeout) Deadline() (time.Time, bool) { return t.start().Deadline() }

// Done implements context.Context.
func (t *timeout) Done() <-chan struct{} { return t.start().Done() }

// Err implements context.Context.
func (t *timeout) Err() error { return t.current().Err() }

// Value implements context.Context; package context finds the cause by it.
func (t *timeout) Value(key any) any { return t.current().Value(key) }
