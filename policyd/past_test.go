package policyd

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/console"
)

// The history has each delivery with what an administrator asks for, by
// domain, host and queue id, without anybody's name.
func TestHistory(t *testing.T) {
	o := operate(t, "")
	want(t, o.to("dane-ee.example"), "2.0.0 ")
	want(t, o.to("all-down.example"), "4.4.1 ")
	h, err := o.client.History(t.Context(), admin.HistoryQuery{Summary: true})
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Entries) != 2 || len(h.Destinations) != 2 || h.Destinations[0].Name != "all-down.example" || len(h.Minutes) != 60 || len(h.Levels) != 1 {
		t.Fatalf("%+v", h)
	}
	e := h.Entries[1]
	if e.Destination != "dane-ee.example" || e.Code != "2.0.0" || e.Host != "mx.dane-ee.example" || e.Provider != "dane-ee.example" ||
		e.QueueID != "dane-ee.example" || e.TLS != "TLS1.3" || e.TLSLevel != "authenticated" || e.MXLevel != "dnssec" || e.Took <= 0 || len(e.Phases) < 4 {
		t.Errorf("%+v", e)
	}
	if text := plain(console.History, &h); strings.Contains(text, "b@") || !strings.Contains(text, "@dane-ee.example") || !strings.Contains(text, "4.4.1") {
		t.Error(text)
	}
	for what, n := range map[string]int{"all-down.example": 1, "mx.dane-ee.example": 1, "none.example": 0} {
		if h, err = o.client.History(t.Context(), admin.HistoryQuery{What: what}); err != nil || len(h.Entries) != n {
			t.Errorf("%s: %d entries, %v", what, len(h.Entries), err)
		}
	}
}

// What is suspended is not dialled, and the mail server keeps it; so it stays
// over a restart, until it is resumed.
func TestSuspend(t *testing.T) {
	o := operate(t, "")
	server := o.world.Server("mx.dane-ee.example")
	suspend := func(target string) {
		t.Helper()
		if _, err := o.client.Suspend(t.Context(), target, time.Hour, "their maintenance"); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []string{"dane-ee.example", "provider:dane-ee.example", "transport:default", "default"} {
		before := time.Now()
		suspend(target)
		want(t, o.to("dane-ee.example"), "4.3.2 ", "is suspended: their maintenance (mxpolicyd) (until ")
		if n := server.Counters().Connections; n != 0 {
			t.Fatalf("%s: %d connections", target, n)
		}
		if target == "dane-ee.example" {
			want(t, o.to("none.example"), "2.0.0 ")
		}
		s, err := o.client.Suspended(t.Context())
		if err != nil || len(s.Suspended) != 1 {
			t.Fatalf("%+v, %v", s, err)
		}
		since := s.Suspended[0].Since
		if since.Before(before) || since.After(time.Now()) {
			t.Errorf("since %v, suspended after %v", since, before)
		}
		want(t, console.Suspended(console.Screen{Width: 100, Now: since}, &s), "  suspended", "since 0s ago", "ends in 1h", "their maintenance")
		if _, err := o.client.Resume(t.Context(), target); err != nil {
			t.Error(err)
		}
	}
	for _, target := range []string{"transport:none", "none", "dane-ee.example"} {
		if _, err := o.client.Resume(t.Context(), target); !errors.Is(err, admin.ErrUnknown) && (err == nil || !strings.Contains(err.Error(), "not found")) {
			t.Errorf("%s: %v", target, err)
		}
	}
	suspend("dane-ee.example")
	if err := o.end(); err != nil {
		t.Fatal(err)
	}
	o.running = o.daemon(o.text)
	want(t, o.to("dane-ee.example"), "4.3.2 ")
	if _, err := o.client.Resume(t.Context(), "dane-ee.example"); err != nil {
		t.Fatal(err)
	}
	want(t, o.to("dane-ee.example"), "2.0.0 ")
}
