package testlog

import (
	"fmt"
	"io"
	"testing"
	"testing/synctest"
	"time"
)

func TestBook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New()
		io.WriteString(b, "one: a\ntwo: b\n")
		go func() {
			time.Sleep(patience - time.Second)
			fmt.Fprintln(b, "two: a")
		}()
		if got := b.Wait(t, "two", "a"); got != "two: a\n" {
			t.Errorf("%q", got)
		}
		if n := b.Count("two"); n != 2 {
			t.Errorf("%d times", n)
		}
		start := time.Now()
		if got := b.Find(nil, "three"); got != "" || time.Since(start) != patience {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		gaveUp := make(chan struct{})
		close(gaveUp)
		start = time.Now()
		if got := b.Find(gaveUp, "three"); got != "" || time.Since(start) != 0 {
			t.Errorf("%q after %v", got, time.Since(start))
		}
		b.Forget()
		if got := b.String(); got != "" || b.Count("two") != 0 {
			t.Errorf("left: %q", got)
		}
	})
}
