package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/bench/measure"
)

// counts are what mxpolicyd has used so far.
type counts struct {
	allocations, allocated float64
	io                     measure.IO
	flights, questions     int64
}

// costs counts what one warm message costs mxpolicyd: what the kernel and the
// runtime count, not what a clock shows.
func (b *bench) costs() error {
	s := b.report.Section("What one warm message of 10 KB costs mxpolicyd, by TLS to a host that offers CHUNKING and PIPELINING",
		"One message at a time. Bytes are those that read(2) and write(2) moved: the message comes in once and goes out",
		"once, encrypted. System calls are counted by strace, if it is there, in a run of their own.")
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	messages := 1000
	for _, front := range frontEnds {
		work := load{at: 1, messages: messages, mail: to("shared", 10), client: func() (client, error) { return front.open(d) }}
		if _, err := work.run(b.ctx); err != nil { // warm
			return err
		}
		before, err := b.count(d)
		if err != nil {
			return err
		}
		if _, err := work.run(b.ctx); err != nil {
			return err
		}
		after, err := b.count(d)
		if err != nil {
			return err
		}
		each := func(a, b float64) float64 { return (b - a) / float64(messages) }
		s.Add(front.name+": allocations", "", each(before.allocations, after.allocations))
		s.Add(front.name+": memory allocated", "KiB", each(before.allocated, after.allocated)/1024)
		s.Add(front.name+": bytes read", "KiB", each(float64(before.io.BytesRead), float64(after.io.BytesRead))/1024)
		s.Add(front.name+": bytes written", "KiB", each(float64(before.io.BytesWritten), float64(after.io.BytesWritten))/1024)
		s.Add(front.name+": flights to the server", "", each(float64(before.flights), float64(after.flights)))
		s.Add(front.name+": DNS questions", "", each(float64(before.questions), float64(after.questions)))
		calls, err := b.trace(d, work)
		if err != nil {
			return err
		}
		if calls == nil {
			s.Notes = append(s.Notes, "strace is not there; system calls were not counted.")
			continue
		}
		for _, c := range calls {
			s.Add(front.name+": "+c.name, "calls", c.each)
		}
	}
	return nil
}

// count reads all counters.
func (b *bench) count(d *daemon) (c counts, err error) {
	memory, err := d.memstats()
	if err != nil {
		return c, err
	}
	c.allocations, c.allocated = memory["Mallocs"], memory["TotalAlloc"]
	if c.io, err = measure.IOOf(d.pid()); err != nil {
		return c, err
	}
	c.flights, c.questions = b.sinks.main.Counters().Flights, b.net.Questions()
	return c, nil
}

// memstats asks the daemon for its runtime.MemStats, over the admin socket.
func (d *daemon) memstats() (map[string]float64, error) {
	client := http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", d.admin)
		},
	}}
	response, err := client.Get("http://admin/debug/pprof/heap?debug=1")
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	found := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimPrefix(line, "# "), " = ")
		if n, err := strconv.ParseFloat(strings.TrimSpace(value), 64); ok && err == nil {
			found[name] = n
		}
	}
	if found["Mallocs"] == 0 {
		return nil, fmt.Errorf("the profile does not count allocations: %s", response.Status)
	}
	return found, nil
}

// call is a kind of system call, and how many a message takes.
type call struct {
	name string
	each float64
}

// called is a line of strace -c: time, seconds, each, calls, maybe errors,
// name.
var called = regexp.MustCompile(`(?m)^\s*[\d.]+\s+[\d.]+\s+\d+\s+(\d+)\s+(?:\d+\s+)?(\w+)$`)

// trace counts system calls during a load; nil when there is no strace.
func (b *bench) trace(d *daemon, work load) ([]call, error) {
	if _, err := exec.LookPath("strace"); err != nil {
		return nil, nil
	}
	out := filepath.Join(b.dir, "strace")
	cmd := exec.CommandContext(b.ctx, "strace", "-f", "-c", "-o", out, "-p", strconv.Itoa(d.pid()))
	said, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	// It says so when it has attached to all threads.
	if line, err := bufio.NewReader(said).ReadString('\n'); err != nil || !strings.Contains(line, "attached") {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, nil // not allowed to
	}
	time.Sleep(100 * time.Millisecond)
	_, err = work.run(b.ctx)
	_ = cmd.Process.Signal(syscall.SIGINT)
	_ = cmd.Wait() // it ends as the signal has it end
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(out)
	if err != nil {
		return nil, err
	}
	return parseCalls(text, work.messages), nil
}

// parseCalls reads strace's table: all calls, and the kinds that come at least
// once in two messages.
func parseCalls(table []byte, messages int) []call {
	all := []call{{"system calls", 0}}
	// the last line
	table = bytes.ReplaceAll(table, []byte("100.00"), []byte("total "))
	for _, m := range called.FindAllSubmatch(table, -1) {
		n, err := strconv.Atoi(string(m[1]))
		if err != nil {
			continue
		}
		each := float64(n) / float64(messages)
		all[0].each += each
		if each >= 0.5 {
			all = append(all, call{string(m[2]), each})
		}
	}
	return all
}
