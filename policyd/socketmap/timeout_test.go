package socketmap

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// It ends as one of package context does, in whatever way: by itself, with the
// one that it comes from, or when it is stopped.
func TestTimeout(t *testing.T) {
	why := errors.New("why")
	for _, tt := range []struct {
		what  string
		end   func(t *timeout, parent context.CancelCauseFunc)
		after time.Duration
		err   error
		cause error
	}{
		{"time", func(*timeout, context.CancelCauseFunc) {}, time.Minute, context.DeadlineExceeded, context.DeadlineExceeded},
		{"the other's end", func(_ *timeout, parent context.CancelCauseFunc) { time.AfterFunc(time.Second, func() { parent(why) }) }, time.Second, context.Canceled, why},
		{"stop", func(t *timeout, _ context.CancelCauseFunc) { time.AfterFunc(time.Second, t.stop) }, time.Second, context.Canceled, context.Canceled},
		{"stop before", func(t *timeout, _ context.CancelCauseFunc) { t.stop() }, 0, context.Canceled, context.Canceled},
	} {
		synctest.Test(t, func(t *testing.T) {
			parent, cancel := context.WithCancelCause(context.Background())
			defer cancel(nil)
			ctx := newTimeout(parent, time.Minute)
			defer ctx.stop()
			if err := ctx.Err(); err != nil {
				t.Errorf("%s: it begins with %v", tt.what, err)
			}
			tt.end(ctx, cancel)
			start := time.Now()
			child, stop := context.WithCancel(ctx)
			defer stop()
			<-child.Done()
			if took := time.Since(start); took != tt.after || ctx.Err() != tt.err || context.Cause(ctx) != tt.cause || context.Cause(child) != tt.cause {
				t.Errorf("%s: %v, %v and %v after %v", tt.what, ctx.Err(), context.Cause(ctx), context.Cause(child), took)
			}
		})
	}
}

// Who does not wait starts no timer, and hears of the end all the same.
func TestTimeoutThatNobodyWaitsFor(t *testing.T) {
	why := errors.New("why")
	parent, cancel := context.WithCancelCause(context.Background())
	ctx := newTimeout(parent, time.Minute)
	cancel(why)
	if ctx.Err() != context.Canceled || context.Cause(ctx) != why || ctx.timed != nil {
		t.Errorf("%v, %v, %v", ctx.Err(), context.Cause(ctx), ctx.timed)
	}
	ctx.stop()
}

// One that nothing has waited for serves the next look-up; another does not.
func TestTimeoutAgain(t *testing.T) {
	ctx := newTimeout(t.Context(), time.Minute)
	for range 2 {
		ctx.stop()
		if !ctx.again() {
			t.Fatal("one that nothing waited for cannot be used again")
		}
	}
	if err := ctx.Err(); err != nil {
		t.Error(err)
	}
	done := ctx.Done()
	ctx.stop()
	<-done
	if ctx.again() || ctx.Err() != context.Canceled {
		t.Errorf("it is to begin again, and %v", ctx.Err())
	}
}
