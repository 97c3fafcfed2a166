package plan

import (
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/route"
)

// What was made of a plan is made once, and not taken for that of a plan that
// knows more.
func TestText(t *testing.T) {
	p := New(Config{Cache: newCache(1 << 20)})
	defer p.cfg.Cache.Close()
	plan := p.newPlan(Target{Destination: route.Destination{Domain: "a.example"}}, anyMessage)
	made := 0
	text := func(p *Plan, i int, what string) string {
		return p.Text(i, func(*Plan) string {
			made++
			return what
		})
	}
	for range 3 {
		if got := text(plan, 0, "a"); got != "a" {
			t.Errorf("%q", got)
		}
		if got := text(plan, 1, "b"); got != "b" {
			t.Errorf("%q", got)
		}
	}
	if made != 2 {
		t.Errorf("made %d times", made)
	}
	plan.Hosts, plan.Route.Hosts, plan.expires = []*Host{nil}, []route.Host{{Name: "mx.a.example"}}, time.Now().Add(time.Hour)
	more := p.keep(plan, func(to *Plan) *Plan { return withHosts(to, []int{0}, []*Host{{}}, []time.Time{plan.expires}) })
	if got := text(more, 0, "c"); got != "c" {
		t.Errorf("a plan with more hosts has the text %q", got)
	}
	// A long one is made each time: it would take more than is counted.
	long := strings.Repeat("x", maxText+1)
	other := p.newPlan(plan.Target, anyMessage)
	made = 0
	for range 2 {
		if got := text(other, 0, long); got != long {
			t.Error("another text")
		}
	}
	if made != 2 {
		t.Errorf("a long text was made %d times", made)
	}
	if got := text(&Plan{}, 0, "d"); got != "d" {
		t.Errorf("%q", got)
	}
}
