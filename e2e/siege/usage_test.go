package siege

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// usage is what the daemon needs at one moment, or at the most.
type usage struct {
	resident, descriptors, goroutines int // resident in bytes
	messages                          int // under way, or coming in
	cpu                               time.Duration
}

// row is a line of a table, with how long the good messages took.
func (u *usage) row(name string, took *times) []string {
	row := []string{name, u.cpu.Round(100 * time.Millisecond).String(), fmt.Sprintf("%d MiB", u.resident>>20), strconv.Itoa(u.descriptors), strconv.Itoa(u.goroutines)}
	if u.goroutines == 0 {
		row[4] = "" // nobody was asked
	}
	if took == nil {
		return append(row, "", "", "", "")
	}
	return append(row, strconv.Itoa(len(*took)), round(took.at(50)), round(took.at(99)), round(took.at(100)))
}

func round(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// times are how long good messages took.
type times []time.Duration

// at gives a percentile.
func (t *times) at(percent int) time.Duration {
	if len(*t) == 0 {
		return 0
	}
	slices.Sort(*t)
	return (*t)[min(len(*t)*percent/100, len(*t)-1)]
}

func (t *times) p99() time.Duration { return t.at(99) }

// kernel asks the kernel, which answers whatever the daemon does.
func (d *daemon) kernel() (u usage) {
	dir := filepath.Join("/proc", strconv.Itoa(d.cmd.Process.Pid))
	text, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, _ := strconv.Atoi(strings.Fields(value)[0])
			u.resident = n << 10
		}
	}
	stat, _ := os.ReadFile(filepath.Join(dir, "stat"))
	// proc_pid_stat(5): user and system time, in hundredths
	if fields := strings.Fields(string(stat)); len(fields) > 14 {
		for _, ticks := range fields[13:15] {
			n, _ := strconv.Atoi(ticks)
			u.cpu += time.Duration(n) * 10 * time.Millisecond
		}
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "fd"))
	u.descriptors = len(entries)
	return u
}

// watch looks again and again until it is told to say what the most was.
func (d *daemon) watch(t *testing.T) (worst func() *usage) {
	stop := make(chan struct{})
	var most usage
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			u := d.kernel()
			most.resident, most.descriptors = max(most.resident, u.resident), max(most.descriptors, u.descriptors)
			most.cpu = u.cpu
			select {
			case <-tick.C:
			case <-stop:
				return
			}
		}
	})
	end := sync.OnceFunc(func() {
		close(stop)
		done.Wait()
	})
	t.Cleanup(end)
	return func() *usage {
		end()
		return &most
	}
}

// rest waits until the daemon has nothing to do, and has let go of what it had
// for that: it is as it was before, if there is a before.
func (d *daemon) rest(t *testing.T, before *usage) *usage {
	t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		u := d.kernel()
		found := d.scrape("go_goroutines", "mxpolicyd_messages_in_progress", "mxpolicyd_uploads_in_progress")
		u.goroutines = int(found["go_goroutines"])
		u.messages = int(found["mxpolicyd_messages_in_progress"] + found["mxpolicyd_uploads_in_progress"])
		if u.goroutines > 0 && u.messages == 0 && (before == nil || u.goroutines <= before.goroutines+20 && u.descriptors <= before.descriptors+40) {
			return &u
		}
		if time.Now().After(deadline) {
			t.Errorf("mxpolicyd does not come to rest: %+v; before: %+v\n%s", u, before, d.tail())
			return &u
		}
	}
}
