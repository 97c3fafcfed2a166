package e2e

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// DESIGN §5: HUP takes all of a configuration or, with an error logged, none of
// it; deliveries under way keep what they started with. Mail is delivered all
// the time.
func TestReloadWhileDelivering(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	gate := make(chan struct{})
	wrong := n.add(t, domainSpec{name: "wrong", hosts: []hostSpec{mismatched}})
	slow := n.add(t, domainSpec{name: "slow", hosts: []hostSpec{{tlsa: wrongTLSA, behaviour: func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Times: 1}}
	}}}})
	stream := n.add(t, domainSpec{name: "stream", hosts: []hostSpec{withDANE}})
	resolver := n.front(t).Addr()
	n.serve(t, resolver)
	hangUp := func(times int, line string) {
		t.Helper()
		before := strings.Count(n.daemonLog(t), line)
		if err := n.d.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		await(t, line, func() (int, bool) {
			got := strings.Count(n.daemonLog(t), line)
			return got, got >= before+times
		}, n.d.log)
	}
	const reloaded, kept = "configuration reloaded", "configuration not reloaded"
	n.configure(t, resolver, "none", "")
	hangUp(1, reloaded)

	// Other mail goes on meanwhile, one message after the other.
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var others errgroup.Group
	sent := 0
	others.Go(func() error {
		for ctx.Err() == nil {
			answer, err := direct(n.d, "b@"+stream.name)
			if err != nil || answer.Code != "2.0.0" {
				return fmt.Errorf("message %d: %v, %w", sent+1, answer, err)
			}
			sent++
		}
		return nil
	})

	delivered := func(when string) {
		t.Helper()
		if r := n.send(t, wrong); r.exit != 0 || !strings.Contains(r.line, ", encrypted, ") {
			t.Errorf("%s: %s", when, r)
		}
	}
	delivered("without policies")
	n.configure(t, resolver, everyPolicy, "    no_such_key: yes\n    port: many\n")
	hangUp(2, kept)
	n.d.logged(t, kept+`.*mxpolicyd\.yaml:\d+.*no_such_key`)
	delivered("after a file with mistakes")

	// A delivery that began without policies ends without them, though they are
	// in force by then.
	early := mxpipe(t, n.d, short(), "-f", "a@"+keepDomain, "b@"+slow.name)
	reached(t, slow.hosts[0].Server, "BDAT", n.d.log)
	n.configure(t, resolver, everyPolicy, "")
	hangUp(1, reloaded)
	// The connection that is idle since the last message would be good enough
	// for the old file only.
	if r := n.send(t, wrong); r.exit != 75 || !strings.HasPrefix(r.line, "4.7.5 mx1.wrong.example: DANE: no TLSA record matches") {
		t.Errorf("after a file with policies: %s", r)
	}
	close(gate)
	if r := early.result(t); r.exit != 0 {
		t.Errorf("the delivery that was under way: %s", r)
	}
	n.configure(t, resolver, "none", "")
	hangUp(1, reloaded)
	delivered("without policies again")

	stop()
	if err := others.Wait(); err != nil {
		t.Errorf("while the configuration changed: %v", err)
	}
	if got := stream.hosts[0].bodies(); got != sent || sent == 0 {
		t.Errorf("%d messages of %d arrived while the configuration changed", got, sent)
	}
	if got := wrong.hosts[0].bodies(); got != 3 {
		t.Errorf("%d messages arrived at the host with the wrong record, want 3", got)
	}
}
