package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// events are what can happen. Each event is over when it returns.
var events = []struct {
	name   string
	weight int
	happen func(*chaos) error
}{
	{"mxpolicyd killed", 4, (*chaos).kill},
	{"mxpolicyd stopped and started", 2, (*chaos).restart},
	{"mxpolicyd reloaded", 2, (*chaos).reload},
	{"mxpolicyd reloaded with a mistake", 1, (*chaos).reloadMistake},
	{"mxpolicyd frozen for a second", 1, (*chaos).freeze},
	{"mxpipe killed", 4, (*chaos).killCommand},
	{"disk full", 2, (*chaos).fillDisk},
	{"clock moved", 1, (*chaos).moveClock},
	{"policy changed", 1, (*chaos).changePolicy},
	{"resolver silent", 1, func(c *chaos) error { return c.resolver(labdns.Silent) }},
	{"resolver fails", 1, func(c *chaos) error { return c.resolver(labdns.ServFail) }},
	{"resolver stopped", 1, (*chaos).stopResolver},
}

// runEvents has one event after the other happen for its time, and until all
// letters are submitted.
func (c *chaos) runEvents(all <-chan struct{}) {
	c.t.Helper()
	total := 0
	for _, e := range events {
		total += e.weight
	}
	submitted, told, turned := false, time.Now(), 0
	for time.Since(c.began) < *chaosTime || !submitted {
		select {
		case <-all:
			submitted = true
		case <-time.After(time.Duration(200+rand.IntN(800)) * time.Millisecond):
		}
		for i := range c.hosts { // some servers change their minds
			if rand.IntN(3) == 0 {
				c.misbehave(i)
			}
		}
		c.measure()
		pick := rand.IntN(total)
		// Each kind of event comes once before chance decides.
		e := events[turned%len(events)]
		for i := 0; turned >= len(events) && pick >= 0; i++ {
			e = events[i]
			pick -= e.weight
		}
		turned++
		if err := e.happen(c); err != nil {
			c.t.Fatalf("%s: %v\n%s", e.name, err, tail(c.daemon.log))
		}
		if e.name != "clock moved" || c.clock != nil {
			c.mu.Lock()
			c.happened[e.name]++
			c.mu.Unlock()
		}
		if time.Since(told) > 10*time.Second {
			c.progress("events")
			told = time.Now()
		}
	}
	c.progress("no more events")
}

// recover sets everything right again.
func (c *chaos) recover() {
	c.t.Helper()
	for _, s := range c.hosts {
		behaviour := s.Behaviour()
		behaviour.At, behaviour.TLS.Mode, behaviour.Keywords, behaviour.Delay = nil, mx.TLSWorks, mx.AllKeywords, 0
		s.SetBehaviour(behaviour)
	}
	c.out.postqueue(c.t, "-f")
}

// misbehave gives a host a new behaviour, in half of the cases a good one.
func (c *chaos) misbehave(i int) {
	s := c.hosts[i]
	behaviour := s.Behaviour()
	behaviour.At, behaviour.TLS.Mode, behaviour.Keywords, behaviour.Delay = nil, mx.TLSWorks, mx.AllKeywords, 0
	switch rand.IntN(10) {
	case 0:
		behaviour.TLS.Mode = []mx.TLSMode{mx.TLSNone, mx.TLSRefused, mx.TLSBroken}[rand.IntN(3)]
	case 1:
		behaviour.Keywords &^= mx.Chunking
	case 2:
		behaviour.Keywords &^= mx.Chunking | mx.Pipelining
	case 3:
		behaviour.Delay = time.Duration(rand.IntN(300)) * time.Millisecond
	}
	if rand.IntN(2) == 0 {
		stages := []mx.Stage{mx.StageGreeting, mx.StageEHLO, mx.StageSTARTTLS, mx.StageHandshake, mx.StageMAIL, mx.StageRCPT,
			mx.StageDATA, mx.StageBDAT, mx.StageBody, mx.StageFinal, mx.StageRSET, mx.StageQUIT}
		actions := []mx.Action{{Drop: mx.Close}, {Drop: mx.Reset}, {Hold: make(chan struct{})},
			{Reply: "421 4.3.2 going down"}, {Reply: "451 4.3.0 not now"}, {Reply: "this is no reply"}}
		stage := stages[rand.IntN(len(stages))]
		if stage == mx.StageBody || stage == mx.StageHandshake {
			// here a reply would be one too many, and the server would take the
			// message all the same
			actions = actions[:3]
		}
		action := actions[rand.IntN(len(actions))]
		action.Times = rand.IntN(4)
		behaviour.At = map[mx.Stage]mx.Action{stage: action}
	}
	s.SetBehaviour(behaviour)
}

func (c *chaos) kill() error {
	if err := c.daemon.stop(syscall.SIGKILL); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	return c.start()
}

func (c *chaos) restart() error {
	if err := c.daemon.stop(syscall.SIGTERM); err != nil {
		return err
	}
	time.Sleep(time.Duration(rand.IntN(1000)) * time.Millisecond)
	return c.start()
}

func (c *chaos) start() error {
	c.daemon.told.close()
	return c.daemon.start(c.world, c.options)
}

// reload changes a key of the transport, so that it is replaced.
func (c *chaos) reload() error {
	return c.configure("conn_reuse_limit: " + strconv.Itoa(1+rand.IntN(20)))
}

func (c *chaos) reloadMistake() error {
	if err := c.configure("conn_reuse_limit: many"); err != nil {
		return err
	}
	return c.configure("conn_reuse_limit: 7")
}

func (c *chaos) configure(key string) error {
	text, err := os.ReadFile(c.daemon.config)
	if err != nil {
		return err
	}
	at := strings.Index(string(text), "conn_reuse_limit:")
	_, rest, _ := strings.Cut(string(text[at:]), "\n")
	// As an administrator should: mxpolicyd never sees half a file.
	next := c.daemon.config + ".new"
	if err := errors.Join(write(next, string(text[:at])+key+"\n"+rest), os.Rename(next, c.daemon.config)); err != nil {
		return err
	}
	return c.daemon.cmd.Process.Signal(syscall.SIGHUP)
}

func (c *chaos) freeze() error {
	if err := c.daemon.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	time.Sleep(time.Second)
	return c.daemon.cmd.Process.Signal(syscall.SIGCONT)
}

// killCommand kills one of the mxpipes that Postfix runs for these letters.
func (c *chaos) killCommand() error {
	if pids := c.commands(); len(pids) > 0 {
		syscall.Kill(pids[rand.IntN(len(pids))], syscall.SIGKILL)
	}
	return nil
}

// commands lists the mxpipes that call this daemon.
func (c *chaos) commands() (pids []int) {
	for _, pid := range processes() {
		line := cmdline(pid)
		if strings.HasPrefix(line, c.world.mxpipe+"\x00") && strings.Contains(line, "\x00"+c.daemon.socket+"\x00") {
			pids = append(pids, pid)
		}
	}
	return pids
}

// fillDisk leaves no byte of the state directory's disk for a while.
func (c *chaos) fillDisk() error {
	path := filepath.Join(c.disk, "ballast")
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for err == nil {
		_, err = f.Write(block)
	}
	f.Close()
	time.Sleep(time.Second)
	return os.Remove(path)
}

// resolver has the DNS fail in one way for a while.
func (c *chaos) resolver(fault labdns.Fault) error {
	c.dns.SetFault("", dns.TypeANY, fault)
	time.Sleep(time.Second)
	c.dns.SetFault("", dns.TypeANY)
	return nil
}

// stopResolver has nothing listen at the resolver's port for a while.
func (c *chaos) stopResolver() error {
	up := c.dns.Down()
	time.Sleep(time.Second)
	return up()
}

// changePolicy gives a domain's policy another id; its contents stay.
func (c *chaos) changePolicy() error {
	name := "_mta-sts." + c.domains[rand.IntN(len(c.domains)/2)*2]
	c.dns.Remove(name, dns.TypeTXT)
	return c.dns.Add(fmt.Sprintf("%s. TXT \"v=STSv1; id=%d;\"", name, rand.IntN(1_000_000)))
}

// setClock gives the daemon a clock that can be moved, in the long run alone:
// for that a part of Go's library is built anew.
func (c *chaos) setClock() {
	c.t.Helper()
	if *chaosMessages <= 1000 {
		return
	}
	dir := folder(c.t)
	path := filepath.Join(dir, "clock")
	err := os.WriteFile(path, make([]byte, 8), 0o644)
	if err == nil {
		c.clock, err = os.OpenFile(path, os.O_WRONLY, 0)
	}
	if err == nil {
		c.options.program, err = clockBuild(dir)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { c.clock.Close() })
	c.options.env = []string{"MXPIPE_LAB_CLOCK=" + path}
}

// moveClock sets the daemon's clock forward or back by up to two days, in one
// step: less than what it keeps on disk lives.
func (c *chaos) moveClock() error {
	if c.clock == nil {
		return nil
	}
	shift := (rand.IntN(3*24) - 24) * 3600
	_, err := c.clock.WriteAt(binary.NativeEndian.AppendUint64(nil, uint64(shift)), 0)
	return err
}

// clockBuild builds an mxpolicyd in whose time package the wall clock is off by
// the seconds that a file tells.
func clockBuild(dir string) (program string, err error) {
	goroot, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", err
	}
	source := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	text, err := os.ReadFile(source)
	if err != nil {
		return "", err
	}
	const now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {"
	if bytes.Count(text, []byte(now)) != 1 {
		return "", fmt.Errorf("%s: time.Now is not as it was", source)
	}
	changed, added, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "labclock.go"), filepath.Join(dir, "overlay.json")
	program = filepath.Join(dir, "mxpolicyd")
	err = errors.Join(
		os.WriteFile(changed, bytes.Replace(text, []byte(now), []byte("\tsec, nsec, mono := runtimeNow()\n\tsec += labShift()\n\tif mono == 0 {"), 1), 0o644),
		os.WriteFile(added, []byte(labClock), 0o644),
		os.WriteFile(overlay, fmt.Appendf(nil, `{"Replace": {%q: %q, %q: %q}}`, source, changed, filepath.Join(filepath.Dir(source), "labclock.go"), added), 0o644),
	)
	if err != nil {
		return "", err
	}
	args := []string{"build", "-o", program, "-overlay", overlay}
	if raceDetector() {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "../cmd/mxpolicyd")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return program, nil
}

// labClock is a file of package time.
const labClock = `package time

import (
	"syscall"
	"unsafe"
)

var labClock *int64

func init() {
	path, ok := syscall.Getenv("MXPIPE_LAB_CLOCK")
	if !ok {
		return
	}
	fd, err := syscall.Open(path, syscall.O_RDONLY, 0)
	if err != nil {
		panic(err)
	}
	page, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	labClock = (*int64)(unsafe.Pointer(&page[0]))
}

//go:norace
func labShift() int64 {
	if labClock == nil {
		return 0
	}
	return *labClock
}
`

// usage is what a process needs.
type usage struct {
	memory      int // KiB, the most at any time
	descriptors int
	threads     int
}

func (u usage) String() string {
	return fmt.Sprintf("%d MiB, %d descriptors, %d threads", u.memory>>10, u.descriptors, u.threads)
}

// measure notes what mxpolicyd needs right now.
func (c *chaos) measure() {
	u := usageOf(c.daemon.cmd.Process.Pid)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.peak = usage{max(c.peak.memory, u.memory), max(c.peak.descriptors, u.descriptors), max(c.peak.threads, u.threads)}
}

func usageOf(pid int) (u usage) {
	dir := filepath.Join("/proc", strconv.Itoa(pid))
	text, _ := os.ReadFile(filepath.Join(dir, "status"))
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		n, _ := strconv.Atoi(strings.Fields(value + " -")[0])
		switch name {
		case "VmHWM":
			u.memory = n
		case "Threads":
			u.threads = n
		}
	}
	entries, _ := os.ReadDir(filepath.Join(dir, "fd"))
	u.descriptors = len(entries)
	return u
}
