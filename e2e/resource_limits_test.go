package e2e

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// heldMessages and heldSize are small for "make test"; "make burden" asks for
// more.
var (
	heldMessages = flag.Int("held", 100, "deliveries at once that slow servers hold")
	heldSize     = flag.Int("held-size", 3<<20, "bytes of each message")
)

// send has the daemon deliver a short message.
func (d *daemon) send(t *testing.T, domain string, args ...string) result {
	t.Helper()
	return mxpipe(t, d, short(), append(args, "-f", "a@"+keepDomain, "b@"+domain)...).result(t)
}

// delivers waits until the daemon delivers again.
func (d *daemon) delivers(t *testing.T, domain string) {
	t.Helper()
	await(t, "a delivery", func() (result, bool) {
		r := d.send(t, domain)
		if r.exit != 0 && r.exit != 75 {
			t.Fatalf("not even temporary: %s", r)
		}
		return r, r.exit == 0
	}, d.log)
}

// flood opens connections to a unix socket until the kernel takes no more, and
// holds them.
func flood(t *testing.T, path string, n int) (conns []*net.UnixConn) {
	t.Helper()
	for range n {
		fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC|syscall.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		file := os.NewFile(uintptr(fd), "flood")
		err = syscall.Connect(fd, &syscall.SockaddrUnix{Name: path})
		if err == nil {
			conn, err := net.FileConn(file)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, conn.(*net.UnixConn))
		}
		file.Close()
		if err != nil && !errors.Is(err, syscall.EAGAIN) {
			t.Fatal(err)
		}
		if err != nil {
			break // the socket's backlog is full
		}
	}
	return conns
}

// Somebody who may use the pipe socket fills it with connections that say
// nothing, or garbage: the mail server's messages wait in its queue meanwhile,
// memory and descriptors stay bounded, and all is well when that ends.
func TestHostileClients(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "hostile", modern(t))
	d := startDaemon(t, settings{top: "max_deliveries: 100"})
	d.delivers(t, domain)
	pid := d.cmd.Process.Pid
	before := usageOf(pid)

	silent := flood(t, d.socket, 10_000)
	if len(silent) < 1000 {
		t.Errorf("only %d connections were to be had", len(silent))
	}
	// Those that are served have a descriptor each, four uploads and two more
	// for each of the 100 places; the others wait in the kernel.
	under := await(t, "the most connections", func() (usage, bool) {
		u := usageOf(pid)
		return u, u.descriptors >= 600
	}, d.log)
	if under.descriptors > 700 || under.memory > before.memory+100<<10 {
		t.Errorf("%d silent connections: %s, before that %s", len(silent), under, before)
	}
	if r := d.send(t, domain, "--timeout", "2s"); r.exit != 75 || !strings.HasPrefix(r.line, "4.") {
		t.Errorf("meanwhile: %s", r)
	}
	for _, conn := range silent {
		conn.Close()
	}
	d.delivers(t, domain)

	junk := make([]byte, 1<<20)
	rand.Read(junk)
	frame := binary.BigEndian.AppendUint32([]byte("mxp\x01E"), 0xffffffff)
	var all sync.WaitGroup
	for i := range 300 {
		all.Go(func() {
			conn, err := net.Dial("unix", d.socket)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(patience))
			switch i % 3 {
			case 0:
				conn.Write(junk)
			case 1:
				conn.Write(append(frame, junk...))
			case 2:
				conn.Write([]byte("mxp\x01"))
				return
			}
			io.Copy(io.Discard, conn) // it is hung up on
		})
	}
	all.Wait()
	d.delivers(t, domain)
	after := await(t, "descriptors to be given back", func() (usage, bool) {
		u := usageOf(pid)
		return u, u.descriptors <= before.descriptors+5
	}, d.log)
	t.Logf("%d silent connections: %s; before: %s; after garbage: %s", len(silent), under, before, after)
	// the race detector's share included
	if after.memory > before.memory+200<<10 {
		t.Errorf("after garbage: %s, before %s", after, before)
	}
	if n := s.Counters().Messages; n != 3 {
		t.Errorf("%d messages arrived, want 3", n)
	}
}

// limitDescriptors sets the soft limit of a running daemon, as its own user,
// who may.
func limitDescriptors(t *testing.T, pid int, n string) {
	t.Helper()
	cmd := exec.Command("prlimit", "--pid", fmt.Sprint(pid), "--nofile="+n+":")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: daemonUser, Gid: daemonUser}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("prlimit: %v: %s", err, out)
	}
}

// A daemon that has no descriptor left refuses nothing for good, and goes on
// when there are some again.
func TestDescriptorLimit(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "descriptors", modern(t))
	d := startDaemon(t, settings{transport: "    conn_max_idle_count: 0"})
	d.delivers(t, domain)
	pid := d.cmd.Process.Pid
	delivered := 1
	for _, spare := range []int{0, 1, 2, 3, 5, 8} {
		limitDescriptors(t, pid, fmt.Sprint(usageOf(pid).descriptors+spare))
		var calls []*call
		for i := range 12 {
			message := io.Reader(short())
			if i%3 == 0 { // one that needs a file
				message = strings.NewReader("Subject: large\n\n" + strings.Repeat("0123456789abcdef\n", 100_000))
			}
			calls = append(calls, mxpipe(t, d, message, "--timeout", "5s", "-f", "a@"+keepDomain, "b@"+domain))
		}
		for _, c := range calls {
			switch r := c.result(t); {
			case r.exit == 0:
				delivered++
			case r.exit != 75 || !strings.HasPrefix(r.line, "4."):
				t.Errorf("with %d descriptors left: %s", spare, r)
			}
		}
		limitDescriptors(t, pid, "1000")
	}
	// A server that could not be called counts as dead for a while; a new one
	// does not.
	_, fresh := remote(t, "descriptors", modern(t))
	d.delivers(t, fresh)
	// What was cut off by mxpipe's own time may still have been delivered.
	if n := s.Counters().Messages; n < delivered {
		t.Errorf("%d messages arrived, but %d were said to", n, delivered)
	}
	if d.ended() {
		t.Error("the daemon is gone")
	}
}

// A state directory that is full or cannot be written costs what needs it, and
// nothing once it can be written again.
func TestStateDirectoryComesBack(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "state", modern(t))
	disk := smallDisk(t, 4<<20)
	d := startDaemon(t, settings{state: disk})
	empty := room(t, disk)
	large := func() result {
		t.Helper()
		text := "Subject: large\n\n" + strings.Repeat("0123456789abcdef\n", 100_000)
		return mxpipe(t, d, strings.NewReader(text), "-f", "a@"+keepDomain, "b@"+domain).result(t)
	}
	if r := large(); r.exit != 0 {
		t.Fatalf("before: %s", r)
	}
	ballast := filepath.Join(disk, "ballast")
	for name, trouble := range map[string]struct {
		begin, end func() error
		text       string
	}{
		"full": {
			func() error { return fill(ballast) },
			func() error { return os.Remove(ballast) }, "no space left",
		},
		"read-only": {
			func() error { return readOnly(t, disk) },
			func() error { return unix.Mount("", disk, "", unix.MS_REMOUNT, "") }, "read-only file system",
		},
		"not to be entered": {
			func() error { return os.Chown(disk, 0, 0) },
			func() error { return os.Chown(disk, daemonUser, daemonUser) }, "permission denied",
		},
	} {
		// The message before this one is let go after its answer; the room that
		// it took must not come free later.
		await(t, "the message before to be let go", func() ([2]uint64, bool) { now := room(t, disk); return now, now == empty }, d.log)
		if err := trouble.begin(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r := large(); r.exit != 75 || !strings.HasPrefix(r.line, "4.3.") || !strings.Contains(r.line, trouble.text) {
			t.Errorf("%s: %s", name, r)
		}
		if r := d.send(t, domain); r.exit != 0 {
			t.Errorf("%s, a message that needs no disk: %s", name, r)
		}
		if err := trouble.end(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if r := large(); r.exit != 0 {
			t.Errorf("after %s: %s", name, r)
		}
	}
	if n := s.Counters().Messages; n != 7 {
		t.Errorf("%d messages arrived, want 7", n)
	}
}

// Who was served while the disk was full is not forgotten by a restart, once
// the disk has room again.
func TestServedOnAFullDisk(t *testing.T) {
	t.Parallel()
	behaviour := modern(t)
	gate := make(chan struct{})
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Times: 1}}
	s, domain := remote(t, "state", behaviour)
	disk := smallDisk(t, 4<<20)
	set := settings{state: disk}
	d := startDaemon(t, set)
	send := func() *call {
		t.Helper()
		return mxpipe(t, d, strings.NewReader("Subject: x\n\nHello.\n"), "--queue-id", "4XyZ", "-f", "a@"+keepDomain, "b@"+domain)
	}
	first := send()
	await(t, "the message at the server", func() (int, bool) { n := s.Counters().Verbs["MAIL"]; return n, n == 1 }, d.log)
	ballast := filepath.Join(disk, "ballast")
	if err := fill(ballast); err != nil {
		t.Fatal(err)
	}
	first.cmd.Process.Kill()
	<-first.done
	close(gate)
	d.logged(t, `no space left`)
	d.logged(t, `did not wait.*queue_id=4XyZ`)
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.told.close()
	if err := d.start(lab(t), set); err != nil {
		t.Fatal(err)
	}
	if r := send().result(t); r.exit != 0 || !strings.HasPrefix(r.line, "2.0.0 ") {
		t.Errorf("the second try: %s", r)
	}
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("delivered %d times", n)
	}
}

// room is how many blocks and files a file system has room for. A file that
// was let go has gone from its process before its room comes free.
func room(t *testing.T, path string) [2]uint64 {
	t.Helper()
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil {
		t.Fatal(err)
	}
	return [2]uint64{fs.Bfree, fs.Ffree}
}

// readOnly makes a file system one that cannot be written, as soon as the
// kernel has ended what was being written there.
func readOnly(t *testing.T, path string) error {
	t.Helper()
	return await(t, "no writer", func() (error, bool) {
		err := unix.Mount("", path, "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		return err, !errors.Is(err, unix.EBUSY)
	})
}

// fill writes a file until the disk is full.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	block := make([]byte, 64<<10)
	for len(block) > 0 {
		if _, err = f.Write(block); err != nil {
			block = block[:len(block)/2]
		}
	}
	return f.Close()
}

// Ten thousand files of a stranger's in each of the directories: the daemon
// starts, believes none, and delivers.
func TestHostileStateFiles(t *testing.T) {
	t.Parallel()
	s, domain := remote(t, "files", modern(t))
	dir := folder(t)
	d, err := lab(t).newDaemon(dir, settings{})
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	// With MTA-STS, of which nothing is published here.
	if err := write(d.config, strings.Replace(string(text), "dane: {}", "dane: {}, mtasts: {cache: fs}", 1)); err != nil {
		t.Fatal(err)
	}
	forged := "mxpolicyd mta-sts 1\ndomain: " + domain + "\nid: 1\n\nversion: STSv1\nmode: enforce\nmx: evil.example\nmax_age: 31557600\n"
	contents := []string{"", "\x00", forged, forged[:len(forged)/2]}
	for _, sub := range []string{"mtasts_cache", "served"} {
		path := filepath.Join(d.state, sub)
		if err := os.MkdirAll(path, 0o700); err != nil {
			t.Fatal(err)
		}
		for i := range 10_000 {
			name := fmt.Sprintf("d%d.example.mta-sts", i)
			switch {
			case sub == "served":
				name = fmt.Sprintf("%024x-%040x", i, i)
			case i == 0:
				name = domain + ".mta-sts"
			}
			content := contents[2] // the one that is asked for looks sound
			switch {
			case i%100 == 1:
				content = strings.Repeat("A", 70_000) // larger than any of ours
			case i > 0:
				content = contents[i%len(contents)]
			}
			if err := os.WriteFile(filepath.Join(path, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	chown := func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, daemonUser, daemonUser)
	}
	if err := filepath.WalkDir(d.state, chown); err != nil {
		t.Fatal(err)
	}
	if err := d.start(lab(t), settings{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	if r := d.send(t, domain, "--queue-id", "4XyZ"); r.exit != 0 {
		t.Errorf("%s\n%s", r, tail(d.log))
	}
	u := usageOf(d.cmd.Process.Pid)
	t.Logf("20,000 files: %s", u)
	most := 200 << 10
	if raceDetector() {
		most *= 3
	}
	if u.memory > most {
		t.Errorf("20,000 files: %s", u)
	}
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages arrived", n)
	}
}

// Large messages that slow servers hold lie on disk: what the daemon needs for
// each in memory is bounded, whatever its size.
func TestHeldDeliveries(t *testing.T) {
	t.Parallel()
	behaviour := modern(t)
	behaviour.Keywords &^= mx.Pipelining | mx.Chunking
	gate := make(chan struct{})
	behaviour.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Hold: gate, Reply: "451 4.3.0 after all that, no"}}
	s, domain := remote(t, "held", behaviour)
	// Memory is measured of the program that people get, without the race
	// detector.
	program := filepath.Join(folder(t), "mxpolicyd")
	build := exec.Command("go", "build", "-o", program, "../cmd/mxpolicyd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	// A tenth of the slots is not for one destination.
	slots := *heldMessages + *heldMessages/8
	d := startDaemon(t, settings{program: program, top: fmt.Sprintf("max_deliveries: %d", slots), transport: "    command_timeout: 30m"})
	pid := d.cmd.Process.Pid
	before := usageOf(pid)
	path := filepath.Join(folder(t), "message")
	if err := write(path, "Subject: large\n\n"+strings.Repeat(strings.Repeat("x", 71)+"\n", *heldSize/72)); err != nil {
		t.Fatal(err)
	}
	calls := make([]*call, *heldMessages)
	for i := range calls {
		message, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		calls[i] = mxpipe(t, d, message, "--timeout", "1h", "-f", "a@"+keepDomain, fmt.Sprintf("b%d@%s", i, domain))
		message.Close()
	}
	deadline := time.Now().Add(patience + time.Duration(*heldMessages)*time.Second)
	for n := 0; n < *heldMessages; n = s.Counters().Verbs["RCPT"] {
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d deliveries reached the server\n%s", n, *heldMessages, tail(d.log))
		}
		time.Sleep(20 * time.Millisecond)
	}
	under := usageOf(pid)
	each := (under.memory - before.memory) / *heldMessages
	t.Logf("%d deliveries of %d bytes held: %s, before: %s, %d KiB for each", *heldMessages, *heldSize, under, before, each)
	// Until the spool's bound for all of them is reached each has a megabyte in
	// memory, and some garbage.
	if most := 150<<10 + *heldMessages*256; under.memory-before.memory > most {
		t.Errorf("%d KiB more, want at most %d", under.memory-before.memory, most)
	}
	close(gate)
	for _, c := range calls {
		select {
		case <-c.done:
		case <-time.After(time.Until(deadline) + patience):
			t.Fatal("mxpipe has not ended")
		}
		if r := c.result(t); r.exit != 75 || r.code() != "4.3.0" {
			t.Errorf("%s", r)
		}
	}
	await(t, "descriptors to be given back", func() (usage, bool) {
		u := usageOf(pid)
		// with the idle connections that are kept
		return u, u.descriptors <= before.descriptors+15
	}, d.log)
}
