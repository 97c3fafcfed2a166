package transport

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/transport/session"
)

// A host that was trusted to answer BDAT once is given DATA when it turns out
// that it does not: by a reply that is one to a recipient, and by one that
// comes when nothing was asked.
func TestTrustIsLost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		shape shape
		want  string
		idle  bool // it shows on the idle connection
	}{
		"a second word to RCPT": {
			shape{at: "RCPT", extra: "250 2.1.5 again", before: true, behind: true, truth: "550 5.7.1 no"}, "4.5.0 mx.d0.example", false,
		},
		// That the message was refused no one can know (docs/reliability.md).
		"a second word to the message": {
			shape{at: "FINAL", extra: "250 2.0.0 ok", before: true, late: true, truth: "550 5.7.1 no"}, "2.0.0 mx.d0.example", true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			c := &shapeCell{shape: tt.shape, mode: &shapeModes[0], travel: inOneSegment}
			addr := l.address()
			l.zone("%s. MX 10 mx.%s.\nmx.%s. A %s", c.domain(), c.domain(), c.domain(), addr)
			s, err := startShaped(c, fmt.Sprintf("%s:%d", addr, l.port), l.cert(ca.For("mx.example")))
			l.must(err)
			s.goOn = make(chan struct{})
			goOn := sync.OnceFunc(func() { close(s.goOn) })
			t.Cleanup(func() {
				goOn()
				s.stop()
			})
			l.startPooled(nil)
			byData := func(want int) {
				t.Helper()
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.datas != want {
					t.Errorf("%d messages by DATA, want %d", s.datas, want)
				}
			}
			expect(t, l.send("taken@"+c.domain()), "2.0.0 mx.d0.example")
			s.apply()
			expect(t, l.send("taken@"+c.domain()), tt.want)
			byData(0)
			goOn()
			for stale := !tt.idle; !stale && !t.Failed(); time.Sleep(time.Millisecond) {
				l.idle.Retire(func(c session.IdleConn) bool {
					stale = stale || c.Stale
					return false
				})
			}
			expect(t, l.send("taken@"+c.domain()), "2.0.0 mx.d0.example")
			byData(1)
		})
	}
}
