package transport

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// A host that complains of too many connections gets fewer, until it complains
// no more; the log says so once.
func TestPacing(t *testing.T) {
	const burst, most = 12, 4
	l := newLab(t)
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.MaxConns, h.Delay = most, 10*time.Millisecond })
	l.zone("a.example. MX 10 mx1.a.example.")
	rules, err := replyrule.New(nil)
	l.must(err)
	l.traffic = delivery.Traffic{Rules: rules, Pauses: pause.New(time.Now)}
	l.startPooled(nil)
	// it is alive, so that all go at once
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
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
	if list := l.transport.load.List(); len(list) != 1 || list[0].Allowed > most {
		t.Errorf("slowed down: %+v", list)
	}
	if lines := l.lines("the host refuses connections as too many, slowing down"); len(lines) != 1 {
		t.Errorf("%d lines in the log for %d refusals", len(lines), refused)
	}
	if c := server.Counters(); c.Messages < burst+1 {
		t.Errorf("%d messages", c.Messages)
	}
}
