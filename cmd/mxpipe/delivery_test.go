package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/wire"
)

const shortMessage = "From: s@example.org\nSubject: x\n\nHello\n"

func TestEveryFlagArrives(t *testing.T) {
	got := make(chan request, 1)
	path := serve(t, answering("2.0.0", "mx: 250 Ok", got))
	want := wire.Envelope{
		Sender: "s@example.org",
		Recipients: []wire.Recipient{
			{Address: "a@example.net", Notify: "SUCCESS,FAILURE", ORcpt: "rfc822;A@example.net"},
			{Address: "-b@example.net", Notify: "SUCCESS,FAILURE"},
		},
		Transport: "bulk", QueueID: "4XyZ", Nexthop: "[192.0.2.1]:2525", Size: 12345, Body: "8bitmime",
		SMTPUTF8: true, RequireTLS: true, Quarantined: true, Ret: "full", EnvID: "id=1",
	}
	flags := [][2]string{
		{"--socket", path}, {"--transport", "bulk"}, {"--queue-id", "4XyZ"}, {"--nexthop", "[192.0.2.1]:2525"}, {"--size", "12345"},
		{"--body", "8bitmime"}, {"--ret", "full"}, {"--envid", "id=1"}, {"--notify", "FAILURE,SUCCESS"},
		{"--orcpt", "rfc822;A@example.net"}, {"--orcpt", "rfc822;"}, {"--timeout", "10m"}, {"--sender", "s@example.org"},
	}
	var apart, joined []string
	for _, f := range flags {
		apart = append(apart, f[0], f[1])
		joined = append(joined, f[0]+"="+f[1])
	}
	for name, args := range map[string][]string{"apart": apart, "joined": joined} {
		args = append(args, "--smtputf8", "--requiretls", "--quarantined", "--", "a@example.net", "-b@example.net")
		e := deliver(t, strings.NewReader(shortMessage), args...)
		e.wants(t, 0, "2.0.0 mx: 250 Ok\n")
		q := <-got
		left := q.envelope.Timeout
		if q.envelope.Timeout = 0; q.err != nil || !reflect.DeepEqual(q.envelope, want) || string(q.message) != shortMessage {
			t.Errorf("%s: got %+v", name, q)
		}
		// The daemon must give up before we do.
		if left <= 0 || left > 595_000 {
			t.Errorf("%s: the daemon was told %d ms of 10m", name, left)
		}
	}

	deliver(t, strings.NewReader(shortMessage), "--socket", path, "-f", "<>", "r@example.net").wants(t, 0, "2.0.0 ")
	q := <-got
	q.envelope.Timeout = 0
	if want := (wire.Envelope{Recipients: []wire.Recipient{{Address: "r@example.net"}}, Transport: "default"}); !reflect.DeepEqual(q.envelope, want) {
		t.Errorf("got %+v, want %+v", q.envelope, want)
	}
}

func TestAnswerBecomesExitStatus(t *testing.T) {
	for _, c := range []struct {
		code, text string
		status     int
		line       string
	}{
		{"2.0.0", "mx1.example.org: 250 2.0.0 Ok queued as 4XyZ (192.0.2.1, dane, TLS1.3)", 0, "2.0.0 mx1.example.org: 250 2.0.0 Ok queued as 4XyZ (192.0.2.1, dane, TLS1.3)\n"},
		{"4.7.5", "mx1: no", 75, "4.7.5 mx1: no\n"},
		{"5.1.1", "mx1: 550 5.1.1 unknown", 67, "5.1.1 mx1: 550 5.1.1 unknown\n"},
		{"5.1.10", "null MX", 68, "5.1.10 null MX\n"},
		{"5.6.7", "SMTPUTF8", 65, "5.6.7 SMTPUTF8\n"},
		{"5.7.30", "REQUIRETLS", 69, "5.7.30 REQUIRETLS\n"},
		{"", "no code", 75, "4.3.0 no code\n"},
		{"5.7.1", "mx: 550-a\r\n550 b\x1b[2J", 69, "5.7.1 mx: 550-a 550 b [2J\n"},
		{"5.7.1", strings.Repeat("é", 1000), 69, "5.7.1 " + strings.Repeat("é", 446) + "\n"},
		{"2.0.0", "", 0, "2.0.0\n"},
	} {
		got := make(chan request, 1)
		path := serve(t, answering(c.code, c.text, got))
		e := deliver(t, strings.NewReader(shortMessage), "--socket", path, "-f", "s@example.org", "r@example.net")
		e.wants(t, c.status, c.line)
		if q := <-got; q.err != nil || string(q.message) != shortMessage {
			t.Errorf("%s: the daemon got %q, %v", c.code, q.message, q.err)
		}
	}
}

func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	missing, file := filepath.Join(dir, "missing"), filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l, closed := listen(t)
	l.SetUnlinkOnClose(false)
	l.Close()
	for path, want := range map[string]string{
		missing:                          "4.3.2 " + missing + ": no such file or directory (is mxpolicyd.socket running?)\n",
		closed:                           "4.3.2 " + closed + ": connection refused (is mxpolicyd.socket running?)\n",
		file:                             "4.3.2 " + file + ": connection refused (is mxpolicyd.socket running?)\n",
		file + "/x":                      "4.3.0 " + file + "/x: not a directory\n",
		"/" + strings.Repeat("long", 27): "4.3.5 /longlong",
		"a\nb":                           "4.3.2 a b: no such file",
	} {
		deliver(t, strings.NewReader(shortMessage), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 75, want)
	}
	if o := line(failed(refused("/run/s", eacces))); o != "4.3.5 /run/s: permission denied (is this user in the socket's group?)\n" {
		t.Errorf("no permission: %q", o)
	}
}

func message(size int) []byte {
	b := make([]byte, size)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b)
	return b
}

// A daemon that fails at any stage costs nothing but time, and whatever it
// still said is passed on.
func TestDaemonGoesAwayOrSpeaksEarly(t *testing.T) {
	big := message(5 << 20)
	frame := func(s string) []byte { return append([]byte{'A', 0, 0, byte(len(s) >> 8), byte(len(s))}, s...) }
	afterEnvelope := func(c net.Conn) { _, _ = wire.NewReader(c).Envelope() }
	refusal := wire.AppendAnswer(nil, wire.Answer{Code: "5.7.0", Text: "quarantined"})
	for _, c := range []struct {
		name    string
		message []byte
		treat   func(net.Conn)
		status  int
		line    string
	}{
		{"closes at once, short", []byte(shortMessage), func(net.Conn) {}, 75, "4.3.2 "},
		{"closes at once, big", big, func(net.Conn) {}, 75, "4.3.2 "},
		{"closes after the envelope", big, afterEnvelope, 75, "4.3.2 "},
		{"closes within the message", big, func(c net.Conn) { _, _ = io.CopyN(io.Discard, c, 1<<20) }, 75, "4.3.2 "},
		{"closes after the commit", big, func(c net.Conn) { receive(c) }, 75, "4.3.2 "},
		{"half an answer", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("2.0.0 Ok")[:9]) }, 75, "4.3.2 "},
		{"an SMTP server", []byte(shortMessage), func(c net.Conn) { _, _ = io.WriteString(c, "220 mx ESMTP\r\n"); receive(c) }, 75, "4.3.0 "},
		{"no code", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("Ok")) }, 75, "4.3.0 "},
		{"an SMTP code", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("250 Ok")) }, 75, "4.3.0 "},
		{"class 3", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("3.0.0 Ok")) }, 75, "4.3.0 "},
		{"an endless answer", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write([]byte("A\xff\xff\xff\xff2.0.0 Ok")) }, 75, "4.3.0 "},
		{"controls in the answer", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("5.1.1 a\r\n2.0.0 b\x00\xff")) }, 67, "5.1.1 a 2.0.0 b ?\n"},
		{"900 bytes of answer", []byte(shortMessage), func(c net.Conn) { receive(c); _, _ = c.Write(frame("5.1.1 " + strings.Repeat("x", 894))) }, 67, "5.1.1 xxx"},
		{"refuses after the envelope", big, func(c net.Conn) { afterEnvelope(c); _, _ = c.Write(refusal) }, 69, "5.7.0 quarantined\n"},
		{"refuses unread", big, func(c net.Conn) { _, _ = c.Write(refusal) }, 69, "5.7.0 quarantined\n"},
		{"succeeds before the commit", big, func(c net.Conn) {
			afterEnvelope(c)
			_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
		}, 75, "4.3.0 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := serve(t, c.treat)
			deliver(t, bytes.NewReader(c.message), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, c.status, c.line)
		})
	}
}

// A daemon that refuses and keeps the line open is heard while the mail server
// pauses within the message, and while nothing more fits into the socket.
func TestRefusalIsHeardWhileWaiting(t *testing.T) {
	refuse := func(c net.Conn) {
		_, _ = wire.NewReader(c).Envelope()
		_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: "5.3.4", Text: "too big"}))
		_, _ = io.Copy(io.Discard, onlyEnd{c})
	}
	path := serve(t, refuse)
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	defer out.Close()
	// and no more, and no end
	go func() { _, _ = out.Write(message(bufferSize)) }()
	deliver(t, in, "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 69, "5.3.4 too big\n")
	deliver(t, bytes.NewReader(message(5<<20)), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 69, "5.3.4 too big\n")
}

// onlyEnd waits for the other end to close without reading what it sends.
type onlyEnd struct{ c net.Conn }

func (o onlyEnd) Read([]byte) (int, error) {
	raw, err := o.c.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, err
	}
	err = raw.Control(func(fd uintptr) {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		for {
			if n, err := unix.Poll(fds, int(patience.Milliseconds())); n != 0 || err != unix.EINTR {
				return
			}
		}
	})
	if err == nil {
		err = io.EOF
	}
	return 0, err
}

func TestTimeout(t *testing.T) {
	silent := func(c net.Conn) { _, _ = io.Copy(io.Discard, c) }
	deaf := func(c net.Conn) { _, _ = io.Copy(io.Discard, onlyEnd{c}) }
	endless, hold, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer endless.Close()
	defer hold.Close()
	for _, c := range []struct {
		name  string
		treat func(net.Conn)
		stdin io.Reader
		text  string
	}{
		{"no answer", silent, strings.NewReader(shortMessage), "the daemon's answer"},
		{"nothing is read", deaf, bytes.NewReader(message(5 << 20)), "the daemon to read the message"},
		{"no message", silent, endless, "the message on standard input"},
	} {
		path := serve(t, c.treat)
		deliver(t, c.stdin, "--timeout=300ms", "--socket", path, "-f", "s@example.org", "r@example.net").
			wants(t, 75, "4.4.7 timed out after 300ms (waiting for "+c.text)
	}
}

// A daemon that takes no connections makes connect wait once its queue is full.
func TestTimeoutWhileConnecting(t *testing.T) {
	path := fullSocket(t)
	deliver(t, strings.NewReader(shortMessage), "--timeout=300ms", "--socket", path, "-f", "s@example.org", "r@example.net").
		wants(t, 75, "4.4.7 timed out after 300ms (waiting for a connection to "+path)
}

// fullSocket makes a socket whose queue is full and stays so.
func fullSocket(t *testing.T) string {
	t.Helper()
	path := filepath.Join(filepath.Dir(serve(t, func(net.Conn) {})), "full")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	for {
		waiting, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(waiting) })
		if err := unix.Connect(waiting, &unix.SockaddrUnix{Name: path}); err == unix.EAGAIN {
			return path
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestStdinThatIsNoMessage(t *testing.T) {
	path := serve(t, func(c net.Conn) {
		if q := receive(c); q.err == nil {
			t.Errorf("committed %q", q.message)
		}
	})
	args := []string{"--socket", path, "-f", "s@example.org", "r@example.net"}
	deliver(t, strings.NewReader(""), args...).wants(t, 75, "4.3.0 empty message on standard input")
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	deliver(t, dir, args...).wants(t, 75, "4.3.0 reading standard input: is a directory\n")
}

// Sizes around those of the buffer, of a frame and of the socket's own buffer.
func TestMessagesArriveUnchanged(t *testing.T) {
	got := make(chan request, 1)
	path := serve(t, answering("2.0.0", "Ok", got))
	for _, size := range []int{1, 10 << 10, bufferSize - 1, bufferSize, bufferSize + 1, 2 * bufferSize, 5 << 20} {
		m := message(size)
		deliver(t, bytes.NewReader(m), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 0, "2.0.0 Ok\n")
		if q := <-got; q.err != nil || sha256.Sum256(q.message) != sha256.Sum256(m) {
			t.Errorf("of %d bytes came %d others, %v", size, len(q.message), q.err)
		}
	}
}

// An ordinary message costs the daemon one read, commit included.
func TestShortMessageIsOneWrite(t *testing.T) {
	read := make(chan []byte, 1)
	path := serve(t, func(c net.Conn) {
		b := make([]byte, 1<<20)
		n, _ := c.Read(b)
		read <- b[:n]
		_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
	})
	m := message(10 << 10)
	deliver(t, bytes.NewReader(m), "--socket", path, "-f", "s@example.org", "r@example.net").wants(t, 0, "2.0.0 Ok\n")
	r := wire.NewReader(bytes.NewReader(<-read))
	if _, err := r.Envelope(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, m) {
		t.Errorf("the first read gave %d bytes of the message, %v", len(got), err)
	}
}

// While a message of 40 MB passes, the program grows to no more than a few.
func TestMemoryDoesNotGrowWithTheMessage(t *testing.T) {
	const size = 40 << 20
	pid := make(chan int, 1)
	peak := make(chan string, 1)
	path := serve(t, func(c net.Conn) {
		q := wire.NewReader(c)
		_, err := q.Envelope()
		n, err2 := io.Copy(io.Discard, q)
		if err != nil || err2 != nil || n != size {
			t.Errorf("%d bytes, %v, %v", n, err, err2)
		}
		b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", <-pid))
		_, after, _ := strings.Cut(string(b), "VmHWM:")
		line, _, _ := strings.Cut(after, "\n")
		peak <- line
		_, _ = c.Write(wire.AppendAnswer(nil, wire.Answer{Code: "2.0.0", Text: "Ok"}))
	})
	cmd := exec.CommandContext(t.Context(), program(t), "--socket", path, "-f", "s@example.org", "r@example.net")
	cmd.Stdin = io.LimitReader(endless{}, size)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid <- cmd.Process.Pid
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	var kB int
	line := <-peak
	if _, err := fmt.Sscanf(line, "%d kB", &kB); err != nil || kB > 16<<10 {
		t.Errorf("the program grew to %q, %v", line, err)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The exit status tells the outcome even when no one reads the line.
func TestClosedStdout(t *testing.T) {
	got := make(chan request, 1)
	path := serve(t, answering("2.0.0", "Ok", got))
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := exec.CommandContext(t.Context(), program(t), "--socket", path, "-f", "s@example.org", "r@example.net")
	cmd.Stdin, cmd.Stdout = strings.NewReader(shortMessage), w
	if err := cmd.Run(); err != nil {
		t.Errorf("a delivered message: %v", err)
	}
}

// A mail server may hand over pipes that do not block.
func TestNonblockingPipes(t *testing.T) {
	got := make(chan request, 1)
	path := serve(t, answering("2.0.0", "Ok", got))
	var in, out [2]int
	for _, p := range []*[2]int{&in, &out} {
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
			t.Fatal(err)
		}
	}
	stdin, writer := os.NewFile(uintptr(in[0]), "in"), os.NewFile(uintptr(in[1]), "in")
	reader, stdout := os.NewFile(uintptr(out[0]), "out"), os.NewFile(uintptr(out[1]), "out")
	process, err := os.StartProcess(program(t), []string{"mxpipe", "--socket", path, "-f", "s@example.org", "r@example.net"},
		&os.ProcAttr{Files: []*os.File{stdin, stdout, nil}})
	if err != nil {
		t.Fatal(err)
	}
	stdin.Close()
	stdout.Close()
	m := message(300 << 10)
	if _, err := writer.Write(m); err != nil {
		t.Error(err)
	}
	writer.Close()
	line, err := io.ReadAll(reader)
	reader.Close()
	state, waitErr := process.Wait()
	if err != nil || waitErr != nil || string(line) != "2.0.0 Ok\n" || state.ExitCode() != 0 {
		t.Errorf("%q, %v, %v, %v", line, err, waitErr, state)
	}
	if q := <-got; q.err != nil || !bytes.Equal(q.message, m) {
		t.Errorf("the daemon got %d bytes, %v", len(q.message), q.err)
	}
}

func TestMargin(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		15 * time.Minute: 5 * time.Second, 50 * time.Second: 5 * time.Second, 10 * time.Second: time.Second, time.Millisecond: 100 * time.Microsecond,
	} {
		if got := time.Duration(margin(int64(left))); got != want {
			t.Errorf("%v: %v, want %v", left, got, want)
		}
	}
}
