package spool

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// lines makes a message of n bytes in canonical form, with LF line ends.
func lines(n int) string {
	var b strings.Builder
	for n > 0 {
		line := min(n, 74)
		if left := n - line; left == 1 {
			line-- // a line has at least CRLF
		}
		b.WriteString(strings.Repeat("x", line-2) + "\n")
		n -= line
	}
	return b.String()
}

func canonical(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }

func content(t *testing.T, m *Message) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(m.Content, 0, m.Facts.Size+1))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

// Up to 1 MiB in memory, above it in a file that has no name; both give what
// was put in.
func TestMemoryAndFile(t *testing.T) {
	for _, c := range []struct {
		size int
		file bool
	}{
		{2, false}, {1000, false}, {Memory - 1, false}, {Memory, false},
		{Memory + 2, true}, {Memory + fileBuffer, true}, {3*Memory + 12345, true},
	} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			dir := t.TempDir()
			text := lines(c.size)
			m, err := New(dir, 10<<20).Receive(iotest.HalfReader(strings.NewReader(text)))
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			if m.Facts.Size != int64(c.size) {
				t.Errorf("size %d, want %d", m.Facts.Size, c.size)
			}
			if content(t, m) != canonical(text) {
				t.Error("the content is not the canonical form of what came in")
			}
			if got := m.file != nil; got != c.file {
				t.Errorf("in a file: %v, want %v", got, c.file)
			}
			if list := names(t, dir); len(list) != 0 {
				t.Errorf("the state directory shows %v", list)
			}
		})
	}
}

// However many messages there are, what they hold in memory together is
// bounded, and given back.
func TestTotal(t *testing.T) {
	s := New(t.TempDir(), 10<<20)
	var all []*Message
	texts := map[int]string{Memory: lines(Memory), fileBuffer: lines(fileBuffer), fileBuffer + 2: lines(fileBuffer + 2)}
	receive := func(size int) *Message {
		t.Helper()
		m, err := s.Receive(strings.NewReader(texts[size]))
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, m)
		return m
	}
	inMemory := 0
	for range Total/Memory + 4 {
		if receive(Memory).file == nil {
			inMemory++
		}
	}
	// Room grows by doubling: a little more than was put in.
	if inMemory < Total/Memory || inMemory > Total/Memory+1 || s.inMemory.Load() > Total+2*Memory {
		t.Errorf("%d messages of 1 MiB are in memory, counted as %d bytes", inMemory, s.inMemory.Load())
	}
	if receive(fileBuffer).file != nil {
		t.Error("a small message went into a file")
	}
	if receive(fileBuffer+2).file == nil {
		t.Error("a larger one did not")
	}
	if _, err := s.Receive(io.MultiReader(strings.NewReader(texts[Memory]), iotest.ErrReader(io.ErrClosedPipe))); err == nil {
		t.Error("a broken message was taken")
	}
	for _, m := range all {
		m.Close()
		m.Close()
	}
	if n := s.inMemory.Load(); n != 0 {
		t.Errorf("%d bytes are counted though no message is left", n)
	}
	if receive(Memory).file != nil {
		t.Error("a message went into a file though memory is free")
	}
	all[len(all)-1].Close()
}

func TestCanonicalFormFactsAndHeader(t *testing.T) {
	m, err := New(t.TempDir(), 1000).Receive(strings.NewReader("Subject: a\nTLS-Required: No\n\nmail\rx\n\xe4 end"))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got, want := content(t, m), "Subject: a\r\nTLS-Required: No\r\n\r\nmail x\r\n\xe4 end\r\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if f := m.Facts; !f.EightBit || f.HeaderEightBit || !f.LineStartsWithCommand || f.StrayCRs != 1 {
		t.Errorf("facts %+v", f)
	}
	if !m.Header.TLSRequiredNo() {
		t.Error("the header section was not read")
	}
}

// The header section is read although the message goes to a file.
func TestHeaderOfALargeMessage(t *testing.T) {
	s := New(t.TempDir(), 10<<20)
	mark := message.Field{Name: "X-Quarantined", Value: "yes"}
	s.Watch([]message.Field{mark})
	m, err := s.Receive(strings.NewReader("X-Quarantined: yes\n\n" + lines(2*Memory)))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if found, watched := m.Header.Has(mark); !found || !watched {
		t.Error("the header section was not read")
	}
}

func refusal(t *testing.T, err error) string {
	t.Helper()
	var s *status.Error
	if !errors.As(err, &s) {
		t.Fatalf("%v is not for the mail server", err)
	}
	return s.Code.String() + " " + s.Error()
}

// The bound counts the canonical form; what exceeds it is refused for good,
// without reading on.
func TestTooLarge(t *testing.T) {
	for _, max := range []int{1000, 2 * Memory} {
		s := New(t.TempDir(), int64(max))
		m, err := s.Receive(strings.NewReader(lines(max)))
		if err != nil {
			t.Fatalf("%d bytes: %v", max, err)
		}
		m.Close()
		endless := &counter{r: strings.NewReader(lines(10 * max))}
		if _, err = s.Receive(endless); err == nil {
			t.Fatal("taken")
		}
		if got := refusal(t, err); !strings.HasPrefix(got, "5.3.4 ") || !strings.Contains(got, fmt.Sprint(max)) {
			t.Errorf("%d bytes: %s", max, got)
		}
		if endless.n > max+100<<10 {
			t.Errorf("%d bytes were read of a message that may have %d", endless.n, max)
		}
		s.SetMax(int64(20 * max))
		if m, err = s.Receive(strings.NewReader(lines(10 * max))); err != nil {
			t.Fatalf("after SetMax: %v", err)
		}
		m.Close()
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

// What the reader says comes back as it is, whatever is held by then.
func TestReaderFails(t *testing.T) {
	broken := errors.New("cut off")
	for _, size := range []int{10, 2 * Memory} {
		_, err := New(t.TempDir(), 10<<20).Receive(io.MultiReader(strings.NewReader(lines(size)), iotest.ErrReader(broken)))
		if err != broken {
			t.Errorf("after %d bytes: %v", size, err)
		}
	}
}

// A state directory that is gone holds up large messages only.
func TestNoDirectory(t *testing.T) {
	dir := t.TempDir() + "/gone"
	s := New(dir, 10<<20)
	m, err := s.Receive(strings.NewReader(lines(Memory)))
	if err != nil {
		t.Fatalf("a small message: %v", err)
	}
	m.Close()
	_, err = s.Receive(strings.NewReader(lines(Memory + 2)))
	if got := refusal(t, err); !strings.HasPrefix(got, "4.3.1 ") || !strings.Contains(got, "no such file") || strings.Contains(got, dir) {
		t.Errorf("a large message: %s", got)
	}
	if s.Check() == nil {
		t.Error("Check finds nothing wrong")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if m, err = s.Receive(strings.NewReader(lines(Memory + 2))); err != nil {
		t.Fatalf("with the directory back: %v", err)
	}
	m.Close()
	if err := s.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
	if list := names(t, dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

const fullDiskEnv = "MXPIPE_TEST_FULL_DISK"

// TestFullDisk receives in a process of its own that may write no file beyond
// a bound: as on a full disk, a write succeeds in part and the next one fails.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(fullDiskEnv); dir != "" {
		receiveOnFullDisk(t, dir)
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullDiskEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("--- PASS: TestFullDisk")) {
		t.Fatalf("%v\n%s", err, out)
	}
	if list := names(t, dir); len(list) != 0 {
		t.Errorf("left behind: %v", list)
	}
}

func receiveOnFullDisk(t *testing.T, dir string) {
	signal.Ignore(syscall.SIGXFSZ)
	var before syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &before); err != nil {
		t.Fatal(err)
	}
	defer syscall.Setrlimit(syscall.RLIMIT_FSIZE, &before)
	s := New(dir, 10<<20)
	for _, c := range []struct{ size, room int }{
		{Memory + 2, 1000},                  // at the first write
		{2 * Memory, Memory + fileBuffer/2}, // on the way
		{Memory + 100, Memory + 50},         // at the last
	} {
		limit := syscall.Rlimit{Cur: uint64(c.room), Max: before.Max}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &limit); err != nil {
			t.Fatal(err)
		}
		_, err := s.Receive(strings.NewReader(lines(c.size)))
		if got := refusal(t, err); !strings.HasPrefix(got, "4.3.1 ") || !strings.Contains(got, syscall.EFBIG.Error()) {
			t.Errorf("%d bytes with room for %d: %s", c.size, c.room, got)
		}
		m, err := s.Receive(strings.NewReader(lines(Memory)))
		if err != nil {
			t.Fatalf("a message that fits into memory: %v", err)
		}
		m.Close()
	}
}

// A message is read by several goroutines at once, as one delivery for each
// destination does.
func TestConcurrentReaders(t *testing.T) {
	for _, size := range []int{Memory, 2 * Memory} {
		text := lines(size)
		m, err := New(t.TempDir(), 10<<20).Receive(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		want := sha256.Sum256([]byte(canonical(text)))
		var readers sync.WaitGroup
		for range 8 {
			readers.Go(func() {
				h := sha256.New()
				if _, err := io.Copy(h, io.NewSectionReader(m.Content, 0, m.Facts.Size)); err != nil || !bytes.Equal(h.Sum(nil), want[:]) {
					t.Errorf("a reader of %d bytes got something else: %v", size, err)
				}
			})
		}
		readers.Wait()
		m.Close()
	}
}

// Close gives the file back to the system.
func TestCloseFreesTheFile(t *testing.T) {
	m, err := New(t.TempDir(), 10<<20).Receive(strings.NewReader(lines(2 * Memory)))
	if err != nil {
		t.Fatal(err)
	}
	m.Close()
	if _, err := m.Content.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// Messages share memory one after the other, and never at once.
func TestMessagesDoNotMix(t *testing.T) {
	s := New(t.TempDir(), 4<<20)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := range 50 {
				text := strings.Repeat(fmt.Sprintf("%d %d\r\n", i, n), 1+n*n)
				m, err := s.Receive(strings.NewReader(text))
				if err != nil {
					t.Error(err)
					return
				}
				runtime.Gosched()
				got, err := io.ReadAll(io.NewSectionReader(m.Content, 0, m.Facts.Size))
				if string(got) != text || err != nil {
					t.Errorf("%d %d: %d bytes that differ from the %d given; %v", i, n, len(got), len(text), err)
				}
				m.Close()
			}
		})
	}
	all.Wait()
}
