// Package siege has one mxpolicyd, as people get it, attacked by everybody at
// once: mail servers that drip, hang, or send chains, greetings and replies
// without end; zones whose servers are silent or answer with a thousand
// records; policy hosts that are silent or huge; local clients that half-send
// messages, flood LMTP with recipients, and hold connections. Beside it ten
// good messages a second go to good domains, half of them by LMTP, half by
// mxpipe.
//
// In the end each good message has arrived once, memory stayed below the unit's
// limit, systemd's watchdog had what it wants to hear, and the daemon is as it
// was before.
//
// "make test" does it for ten seconds with a twentieth of each attack, "make
// siege" for five minutes with all of it; then the good messages' slowest
// hundredth is compared with that of a time of peace, too. "make attacks" has
// each attack alone, and tells what the daemon needs before, at the worst, and
// after. Where others use the machine, the session has to have more weight than
// theirs for latencies to mean anything: "echo -20 > /proc/self/autogroup" as
// root, where kernel.sched_autogroup_enabled is 1 (sched(7)).
package siege

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

var (
	peaceTime  = flag.Duration("peace", 2*time.Second, "how long good messages are sent alone")
	siegeTime  = flag.Duration("siege", 6*time.Second, "how long everything attacks at once")
	attackTime = flag.Duration("attack", 3*time.Second, "how long one attack goes on alone")
	scale      = flag.Float64("scale", 0.05, "which part of each attack")
	each       = flag.String("each", "chains,", "the attacks that come alone, by a part of their names, with a comma behind each; all: all of them")
	long       = flag.Bool("long", false, "compare latencies")
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(run{m}) }

// attack is something that strangers or local clients do.
type attack struct {
	name string
	does string // what it does, at full scale
	// run does it until ctx ends, and leaves nothing behind.
	run func(ctx context.Context, f *field) error
	// most is how much memory the daemon may need beside what it needs in
	// peace, in MiB, at full scale.
	most int
}

// attacks are all of them.
func attacks() []attack {
	var all []attack
	for _, some := range [][]attack{servers(), chains(), zones(), policies(), clients()} {
		all = append(all, some...)
	}
	return all
}

// field is where a siege takes place.
type field struct {
	*lab
	daemon *daemon
	scale  float64
}

// n is a number of an attack, to scale.
func (f *field) n(full int) int { return max(1, int(float64(full)*f.scale)) }

func newField(t *testing.T) *field {
	t.Helper()
	f := &field{lab: newLab(t), scale: *scale}
	f.daemon = startDaemon(t, f.lab)
	return f
}

// begin begins an attack; end ends it, and waits for that.
func (f *field) begin(t *testing.T, a *attack) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := a.run(ctx, f); err != nil {
			t.Errorf("%s: %v", a.name, err)
		}
	})
	return func() {
		cancel()
		done.Wait()
	}
}

// TestSiege is all at once.
func TestSiege(t *testing.T) {
	f := newField(t)
	post := newPost(f)
	var during, peace times
	post.run(*peaceTime) // to get to know the hosts
	post.take()
	if *long {
		post.run(*peaceTime)
	}
	peace = post.take()
	before := f.daemon.rest(t, nil)

	watch := f.daemon.watch(t)
	var ends []func()
	for _, a := range attacks() {
		ends = append(ends, f.begin(t, &a))
	}
	// The attackers' own preparations, thousands of records, certificates and
	// connections, take this host's time: latencies are compared without them.
	post.run(*siegeTime / 10)
	post.take()
	post.run(*siegeTime)
	during = post.take()
	var all sync.WaitGroup
	for _, end := range ends {
		all.Go(end)
	}
	all.Wait()
	worst := watch()
	ended := time.Now()
	after := f.daemon.rest(t, before)
	t.Logf("at rest %v after the last attack", time.Since(ended).Round(time.Second))
	post.finish(t)
	f.daemon.pinged(t)

	table(t, fmt.Sprintf("%v of all attacks at %.0f %%", *siegeTime, *scale*100), [][]string{
		{"", "CPU", "RSS", "descriptors", "goroutines", "good messages", "p50", "p99", "longest"},
		before.row("before", &peace), worst.row("at the worst", &during), after.row("after", nil),
	})
	t.Logf("%d good messages, %d tries were deferred, %d pings for the watchdog", post.sent(), post.deferred.Load(), f.daemon.pings.Load())
	if limit := memoryMax(t); worst.resident > limit {
		t.Errorf("%d MiB, the unit's limit is %d MiB", worst.resident>>20, limit>>20)
	}
	if *long && during.p99() > 2*peace.p99() {
		t.Errorf("p99 is %v, in peace %v", during.p99(), peace.p99())
	}
	if text := f.daemon.text(t); strings.Contains(text, "not healthy") || strings.Contains(text, "panic: ") {
		t.Errorf("the log says so\n%s", f.daemon.tail())
	}
}

// TestEachAttack is one after the other, each against a daemon of its own.
func TestEachAttack(t *testing.T) {
	rows := [][]string{{"attack", "", "CPU", "RSS", "descriptors", "goroutines", "good messages", "p50", "p99", "longest"}}
	for _, a := range attacks() {
		if !chosen(a.name) {
			continue
		}
		t.Run(a.name, func(t *testing.T) {
			f := newField(t)
			post := newPost(f)
			post.run(2 * time.Second)
			peace := post.take()
			before := f.daemon.rest(t, nil)
			watch := f.daemon.watch(t)
			end := f.begin(t, &a)
			post.run(*attackTime)
			end()
			during := post.take()
			worst := watch()
			after := f.daemon.rest(t, before)
			post.finish(t)
			rows = append(rows, append([]string{a.name}, before.row("before", &peace)...),
				append([]string{a.does}, worst.row("at the worst", &during)...), append([]string{""}, after.row("after", nil)...))
			if more := (worst.resident - before.resident) >> 20; more > a.most {
				t.Errorf("%d MiB more at the worst, want at most %d", more, a.most)
			}
		})
	}
	table(t, fmt.Sprintf("%v of each attack at %.0f %%", *attackTime, *scale*100), rows)
}

func chosen(name string) bool {
	for part := range strings.SplitSeq(*each, ",") {
		if part == "all" || part != "" && strings.Contains(name, part) {
			return true
		}
	}
	return false
}

// table writes rows, for docs/reliability.md.
func table(t *testing.T, title string, rows [][]string) {
	t.Helper()
	fmt.Fprintln(os.Stderr, title)
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', 0)
	for _, row := range rows {
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	w.Flush()
}
