package transport

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

func TestComplains(t *testing.T) {
	for text, want := range map[string]bool{
		"421 4.7.0 Too many connections from your host":                true,
		"421 4.3.2 too many concurrent SMTP connections":               true,
		"451 4.7.1 Rate limit exceeded for this sender":                true,
		"421 4.7.28 connection rate limit exceeded":                    true,
		"421 4.3.2 the maximum number of sessions has been exceeded":   true,
		"421 4.7.0 too many simultaneous sessions, come back later":    true,
		"450 4.7.1 too many connections":                               false, // said of the message, by that code
		"550 5.7.1 too many connections":                               false,
		"421 4.3.2 closing the connection for maintenance":             false,
		"451 4.3.0 mailbox temporarily not available":                  false,
		"250 2.0.0 queued as Too many connections":                     false,
		"mx1.example: dial tcp 192.0.2.1:421: connection limit (ours)": false,
	} {
		if got := isTooMany(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// A host that complains of too many connections gets fewer, until it complains
// no more; the log says so once.
func TestPacing(t *testing.T) {
	const burst, most = 12, 4
	l := newLab(t)
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.MaxConns, h.Delay = most, 10*time.Millisecond })
	l.zone("a.example. MX 10 mx1.a.example.")
	l.startPooled(nil)
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example") // it is alive, so that all go at once
	refused := 0
	for {
		var all sync.WaitGroup
		var mu sync.Mutex
		delivered := 0
		for range burst {
			all.Go(func() {
				r := l.send("b@a.example")[0]
				mu.Lock()
				defer mu.Unlock()
				switch {
				case r.Code.Class == 2:
					delivered++
				case r.Code.Class != 4 || !strings.Contains(r.Text, "too many connections"):
					t.Errorf("%v %s", r.Code, r.Text)
				}
			})
		}
		all.Wait()
		if delivered == burst || t.Failed() {
			break
		}
		refused += burst - delivered
	}
	if refused == 0 {
		t.Error("the host never complained")
	}
	if list := l.transport.pacer.List(); len(list) != 1 || list[0].Allowed > most {
		t.Errorf("slowed down: %+v", list)
	}
	if lines := l.lines("the host complains of too many connections, slowing down"); len(lines) != 1 {
		t.Errorf("%d lines in the log for %d refusals", len(lines), refused)
	}
	if c := server.Counters(); c.Messages < burst+1 {
		t.Errorf("%d messages", c.Messages)
	}
}
