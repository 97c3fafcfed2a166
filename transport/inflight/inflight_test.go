package inflight

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(5, 2, time.Minute)
		enter := func(name string) func() {
			t.Helper()
			start := time.Now()
			leave, err := p.Enter(t.Context(), name)
			if err != nil || time.Since(start) > 0 {
				t.Fatalf("%s: %v after %v", name, err, time.Since(start))
			}
			return leave
		}
		busy := func(name string) {
			t.Helper()
			start := time.Now()
			if _, err := p.Enter(t.Context(), name); !errors.Is(err, ErrBusy) || time.Since(start) != time.Minute {
				t.Errorf("%s: %v after %v", name, err, time.Since(start))
			}
		}
		one := enter("a.hostile.co.uk")
		enter("b.hostile.co.uk")
		busy("hostile.co.uk.")
		enter("neighbour.co.uk")
		enter("example.org")
		enter("example.net")
		busy("example.com") // all five are taken
		one()
		enter("example.com")

		why := errors.New("why")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(why)
		if _, err := p.Enter(ctx, "example.com"); err != why {
			t.Error(err)
		}
		if len(p.owners) != 5 {
			t.Errorf("%d owners are remembered", len(p.owners))
		}
	})
}
