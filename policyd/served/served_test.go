package served

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/safeio"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/message"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// clock is a clock that a test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Now()} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func msg(text string) *transport.Message {
	return &transport.Message{Content: strings.NewReader(text), Facts: message.Facts{Size: int64(len(text))}}
}

func key(t *testing.T, queueID, sender, text string) Key {
	t.Helper()
	k, err := KeyOf(queueID, sender, msg(text))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func mustOpen(t *testing.T, dir string, now func() time.Time) *Store {
	t.Helper()
	m, err := Open(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func remember(t *testing.T, m *Store, k Key, rcpts ...string) {
	t.Helper()
	got := map[string]string{}
	for _, r := range rcpts {
		got[r] = "250 " + r
	}
	if err := m.Remember(k, got); err != nil {
		t.Fatal(err)
	}
}

func wantKnown(t *testing.T, m *Store, k Key, rcpts ...string) {
	t.Helper()
	var want map[string]string
	for _, r := range rcpts {
		if want == nil {
			want = map[string]string{}
		}
		want[r] = "250 " + r
	}
	if got := m.Recall(k); !maps.Equal(got, want) {
		t.Errorf("recalled %v, want %v", got, want)
	}
}

func files(t *testing.T, dir string) []string {
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

// What was remembered is known at the next try, also after a restart, and only
// for the same message of the same sender under the same queue id.
func TestRecall(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "served")
	m := mustOpen(t, dir, time.Now)
	k := key(t, "4XyZ", "s@example.org", "text")
	wantKnown(t, m, k)
	if m.Known("4XyZ") {
		t.Error("known before anything was")
	}
	remember(t, m, k, "a@example.org", "b@example.org")
	for name, m := range map[string]*Store{"same": m, "restarted": mustOpen(t, dir, time.Now)} {
		t.Run(name, func(t *testing.T) {
			wantKnown(t, m, k, "a@example.org", "b@example.org")
			if !m.Known("4XyZ") || m.Known("4Xyz") || m.Known("") {
				t.Error("Known is wrong about the queue id")
			}
			wantKnown(t, m, key(t, "4XyA", "s@example.org", "text"))
			wantKnown(t, m, key(t, "4XyZ", "x@example.org", "text"))
			wantKnown(t, m, key(t, "4XyZ", "", "text"))
			wantKnown(t, m, key(t, "4XyZ", "s@example.org", "Text"))
			wantKnown(t, m, key(t, "", "s@example.org", "text"))
		})
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory: %v %v", info.Mode(), err)
	}
}

// The sender and the message must not run into each other.
func TestKeyParts(t *testing.T) {
	if key(t, "1", "ab", "c") == key(t, "1", "a", "bc") {
		t.Error("two messages have one key")
	}
}

func TestWithoutAQueueID(t *testing.T) {
	m := mustOpen(t, t.TempDir(), time.Now)
	k := key(t, "", "s@example.org", "text")
	remember(t, m, k, "a@example.org")
	m.Forget(k, nil)
	wantKnown(t, m, k)
	if list := files(t, m.dir); len(list) != 0 {
		t.Errorf("files %v", list)
	}
}

func TestUnreadableMessage(t *testing.T) {
	broken := errors.New("broken disk")
	bad := &transport.Message{Content: readerAt{broken}, Facts: message.Facts{Size: 10}}
	if _, err := KeyOf("1", "", bad); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}

type readerAt struct{ err error }

func (r readerAt) ReadAt(p []byte, _ int64) (int, error) { return iotest.ErrReader(r.err).Read(p) }

// One message comes in several calls, with other recipients each.
func TestCallsAddUp(t *testing.T) {
	dir := t.TempDir()
	m := mustOpen(t, dir, time.Now)
	k := key(t, "1", "s", "text")
	remember(t, m, k, "a")
	remember(t, m, k, "b", "c")
	wantKnown(t, m, k, "a", "b", "c")
	// Another call of the same message is done with others: a, b and c stay.
	m.Forget(k, []string{"d"})
	m.Forget(k, []string{"a", "b"})
	wantKnown(t, m, k, "a", "b", "c")
	m.Forget(k, []string{"a", "b", "c", "d"})
	wantKnown(t, m, k)
	if list := files(t, dir); len(list) != 0 || m.Known("1") {
		t.Errorf("forgotten, but there is %v", list)
	}
	m.Forget(k, nil) // once more does no harm
}

// The same from many goroutines at once: no one's recipient is lost.
func TestConcurrentCalls(t *testing.T) {
	m := mustOpen(t, t.TempDir(), time.Now)
	k := key(t, "1", "s", "text")
	var calls sync.WaitGroup
	var want []string
	for i := range 20 {
		rcpt := fmt.Sprintf("r%d@example.org", i)
		want = append(want, rcpt)
		calls.Go(func() {
			if err := m.Remember(k, map[string]string{rcpt: "250 " + rcpt}); err != nil {
				t.Error(err)
			}
			m.Recall(k)
			other := Key{strings.Repeat(fmt.Sprintf("%02x", i), idLength/2) + "-" + strings.Repeat("0", 40)}
			if err := m.Remember(other, map[string]string{rcpt: ""}); err != nil {
				t.Error(err)
			}
			m.Forget(other, []string{rcpt})
		})
	}
	calls.Wait()
	wantKnown(t, m, k, want...)
}

// No address and no line can end a record's line, or stand for another.
func TestUnsafeNames(t *testing.T) {
	dir := t.TempDir()
	m := mustOpen(t, dir, time.Now)
	k := key(t, "../../etc/passwd\x00\n", "\n", "text")
	got := map[string]string{
		"a\n\"b@example.org\" \"250\"\n": "250\r\nx",
		"\"quoted local\"@example.org":   `back\slash "quote"`,
		"\xff\xfe@example.org":           "\x00",
		"tab\tand blank @example.org":    "",
		"ünï@exämple.org":                "250 ø",
	}
	if err := m.Remember(k, got); err != nil {
		t.Fatal(err)
	}
	if again := mustOpen(t, dir, time.Now).Recall(k); !maps.Equal(again, got) {
		t.Errorf("%q came back as %q", got, again)
	}
	if list := files(t, dir); len(list) != 1 || !isName(list[0]) {
		t.Errorf("files %q", list)
	}
}

func TestLongLinesAreCut(t *testing.T) {
	m := mustOpen(t, t.TempDir(), time.Now)
	k := key(t, "1", "", "text")
	if err := m.Remember(k, map[string]string{"a": strings.Repeat("é", maxLine)}); err != nil {
		t.Fatal(err)
	}
	if got := m.Recall(k)["a"]; got != strings.Repeat("é", maxLine/2) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
}

func TestTooManyRecipients(t *testing.T) {
	m := mustOpen(t, t.TempDir(), time.Now)
	got := map[string]string{}
	for i := range 10 {
		got[strings.Repeat("x", maxRecord/9)+fmt.Sprint(i)] = ""
	}
	if err := m.Remember(key(t, "1", "", "text"), got); !errors.Is(err, errTooLarge) {
		t.Errorf("%v", err)
	}
	if list := files(t, m.dir); len(list) != 0 {
		t.Errorf("files %v", list)
	}
}

// A record that is not what was written is no record.
func TestTornAndHostileFiles(t *testing.T) {
	k := key(t, "1", "s", "text")
	other := key(t, "1", "s", "other")
	for name, spoil := range map[string]func(t *testing.T, path string, text []byte){
		"torn":      func(t *testing.T, path string, text []byte) { write(t, path, text[:len(text)-8]) },
		"cut short": func(t *testing.T, path string, text []byte) { write(t, path, text[:len(text)-1]) },
		"empty":     func(t *testing.T, path string, _ []byte) { write(t, path, nil) },
		"zeros":     func(t *testing.T, path string, text []byte) { write(t, path, make([]byte, len(text))) },
		"altered": func(t *testing.T, path string, text []byte) {
			write(t, path, bytes.Replace(text, []byte("a@example.org"), []byte("b@example.org"), 1))
		},
		"longer": func(t *testing.T, path string, text []byte) { write(t, path, append(text, "\"x\" \"y\"\n"...)) },
		"of another message": func(t *testing.T, path string, text []byte) {
			write(t, path, encode(other.name, map[string]string{"a@example.org": ""}))
		},
		"of another version": func(t *testing.T, path string, text []byte) {
			write(t, path, bytes.Replace(text, []byte("served 1"), []byte("served 2"), 1))
		},
		"huge": func(t *testing.T, path string, _ []byte) {
			write(t, path, nil)
			if err := os.Truncate(path, maxRecord+1); err != nil {
				t.Fatal(err)
			}
		},
		"a pipe": func(t *testing.T, path string, _ []byte) {
			os.Remove(path)
			if err := syscall.Mkfifo(path, 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"a link": func(t *testing.T, path string, text []byte) {
			write(t, filepath.Join(filepath.Dir(path), "elsewhere"), text)
			os.Remove(path)
			if err := os.Symlink("elsewhere", path); err != nil {
				t.Fatal(err)
			}
		},
		"a directory": func(t *testing.T, path string, _ []byte) {
			os.Remove(path)
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"gone": func(t *testing.T, path string, _ []byte) { os.Remove(path) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			m := mustOpen(t, dir, time.Now)
			remember(t, m, k, "a@example.org")
			path := filepath.Join(dir, k.name)
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			spoil(t, path, text)
			wantKnown(t, m, k)
			wantKnown(t, mustOpen(t, dir, time.Now), k)
			if name == "a directory" {
				return // in whose place nothing can be written
			}
			remember(t, m, k, "c@example.org")
			wantKnown(t, m, k, "c@example.org")
		})
	}
}

func write(t *testing.T, path string, text []byte) {
	t.Helper()
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// What a crash left is cleared away; what is not ours stays.
func TestOpenLooksAround(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, safeio.TempPrefix+"1234"), []byte("half a rec"))
	write(t, filepath.Join(dir, "README"), nil)
	write(t, filepath.Join(dir, strings.Repeat("z", nameLength)), nil)
	if err := os.Mkdir(filepath.Join(dir, oldTempPrefix+"dir"), 0o700); err != nil {
		t.Fatal(err)
	}
	m := mustOpen(t, dir, time.Now)
	if list := files(t, dir); len(list) != 3 || len(m.records) != 0 {
		t.Errorf("files %v, records %v", list, m.records)
	}
}

func TestOpenFails(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	write(t, file, nil)
	if _, err := Open(file, time.Now); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
	if _, err := Open(filepath.Join(file, "served"), time.Now); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("%v", err)
	}
}

// The directory vanishes while the daemon runs: an error, and what cannot be
// written is known as long as the daemon runs.
func TestDirectoryGone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "served")
	m := mustOpen(t, dir, time.Now)
	k := key(t, "1", "s", "text")
	remember(t, m, k, "a")
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	wantKnown(t, m, k)
	if err := m.Remember(k, map[string]string{"a": "250 a"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	wantKnown(t, m, k, "a")
	wantKnown(t, mustOpen(t, t.TempDir(), time.Now), k)
	if err := m.Remember(k, map[string]string{"b": "250 b"}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("%v", err)
	}
	wantKnown(t, m, k, "a", "b")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	remember(t, m, k, "c") // once the disk is well, all of it is there
	if m.held != 0 {
		t.Errorf("%d bytes are held that are on disk", m.held)
	}
	wantKnown(t, mustOpen(t, dir, time.Now), k, "a", "b", "c")
	m.Forget(k, []string{"a", "b", "c"})
	if m.Known("1") {
		t.Error("still known")
	}
}

// What could not be written is written once the disk is well, and is known to
// the next daemon then.
func TestSettle(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "served")
	m := mustOpen(t, dir, time.Now)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	keys := map[string]Key{}
	for _, id := range []string{"1", "2", "3"} {
		keys[id] = key(t, id, "s", "text")
		if err := m.Remember(keys[id], map[string]string{"a": "250 a"}); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%v", err)
		}
	}
	m.WritePending(t.Context())
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	m.Forget(keys["3"], []string{"a"})
	over, end := context.WithCancel(t.Context())
	end()
	m.WritePending(over)
	wantKnown(t, mustOpen(t, dir, time.Now), keys["1"])
	m.WritePending(t.Context())
	m.WritePending(t.Context())
	for _, one := range []*Store{m, mustOpen(t, dir, time.Now)} {
		wantKnown(t, one, keys["1"], "a")
		wantKnown(t, one, keys["2"], "a")
		wantKnown(t, one, keys["3"])
	}
	if m.held != 0 {
		t.Errorf("%d bytes are held that are on disk", m.held)
	}
}

// What cannot be written is held up to a bound.
func TestHeldIsBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "served")
	m := mustOpen(t, dir, time.Now)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("x", maxLine)
	var keys []Key
	for i := 0; i < 3*maxHeld/(4000*maxLine); i++ {
		k := key(t, fmt.Sprint(i), "s", "text")
		keys = append(keys, k)
		got := map[string]string{}
		for j := range 4000 {
			got[fmt.Sprint(j)] = line
		}
		if err := m.Remember(k, got); err == nil {
			t.Fatal("there is nothing to write it on")
		}
	}
	if m.held > maxHeld || m.held < maxHeld/2 {
		t.Errorf("%d bytes are held", m.held)
	}
	for _, k := range keys {
		m.Forget(k, slices.Collect(maps.Keys(m.Recall(k))))
	}
	if m.held != 0 || m.total != 0 {
		t.Errorf("%d bytes are held, %d in all, though nothing is known", m.held, m.total)
	}
}

// Seven days after it was last written a record is no longer believed, and its
// file goes with the next sweep; a restart does not renew it.
func TestExpiry(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	m := mustOpen(t, dir, c.Now)
	old, fresh := key(t, "old", "s", "text"), key(t, "fresh", "s", "text")
	remember(t, m, old, "a")
	c.forward(keep - time.Hour)
	remember(t, m, fresh, "b")
	wantKnown(t, m, old, "a")
	c.forward(2 * time.Hour)
	wantKnown(t, m, old)
	wantKnown(t, m, fresh, "b")
	m.Sweep()
	if list := files(t, dir); len(list) != 1 || list[0] != fresh.name || m.Known("old") {
		t.Errorf("after the sweep there is %v", list)
	}
	m = mustOpen(t, dir, func() time.Time { return time.Now().Add(keep + time.Hour) })
	wantKnown(t, m, fresh)
	if list := files(t, dir); len(list) != 0 {
		t.Errorf("after a restart there is %v", list)
	}
}

// A file from the future counts as one of the day on which it was found.
func TestFutureFile(t *testing.T) {
	dir := t.TempDir()
	c := newClock()
	k := key(t, "1", "s", "text")
	remember(t, mustOpen(t, dir, c.Now), k, "a")
	future := c.Now().Add(1000 * 24 * time.Hour)
	if err := os.Chtimes(filepath.Join(dir, k.name), future, future); err != nil {
		t.Fatal(err)
	}
	m := mustOpen(t, dir, c.Now)
	wantKnown(t, m, k, "a")
	c.forward(keep + time.Second)
	wantKnown(t, m, k)
}

// The oldest records go when there are too many, or when they are too large.
func TestBounds(t *testing.T) {
	for name, b := range map[string]bounds{"records": {20, 1 << 30}, "bytes": {1000, 20 * 200}} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			c := newClock()
			m, err := open(dir, c.Now, b)
			if err != nil {
				t.Fatal(err)
			}
			var keys []Key
			for i := range 100 {
				keys = append(keys, key(t, fmt.Sprint(i), "s", "text"))
				remember(t, m, keys[i], "a@example.org"+strings.Repeat(".", 40))
				c.forward(time.Second)
			}
			list := files(t, dir)
			if len(list) < 15 || len(list) > 21 || len(m.records) != len(list) {
				t.Errorf("%d files, %d records", len(list), len(m.records))
			}
			if m.Recall(keys[99]) == nil || m.Recall(keys[0]) != nil {
				t.Error("not the oldest ones went")
			}
			var sum int64
			for _, e := range m.records {
				sum += e.size
			}
			if m.total != sum || len(m.ids) != len(m.records) {
				t.Errorf("counted %d bytes of %d, %d ids", m.total, sum, len(m.ids))
			}
			again, err := open(dir, c.Now, bounds{5, 1 << 30})
			if err != nil || len(again.records) > 5 || len(files(t, dir)) > 5 {
				t.Errorf("a restart with less room: %d records, %v", len(again.records), err)
			}
		})
	}
}

// FuzzDecode reads anything as a record. What is taken for one must be what
// encode writes.
func FuzzDecode(f *testing.F) {
	f.Add("name", []byte(nil))
	f.Add("name", encode("name", map[string]string{"a@b": "250 ok"}))
	f.Add("name", encode("other", map[string]string{"a@b": "250 ok"}))
	body := []byte("\"a\" \"b\"\n\"unfinished\n")
	f.Add("name", append([]byte(format+digest("name", body)+"\n"), body...))
	body = []byte("`raw` \"b\"   \n")
	f.Add("name", append([]byte(format+digest("name", body)+"\n"), body...))
	f.Fuzz(func(t *testing.T, name string, text []byte) {
		got := decode(name, text)
		if got == nil {
			return
		}
		if again := decode(name, encode(name, got)); len(again) != len(got) {
			t.Fatalf("%q came back as %q", got, again)
		}
	})
}

// FuzzRoundTrip writes and reads any recipient.
func FuzzRoundTrip(f *testing.F) {
	f.Add("a@example.org", "250 ok")
	f.Add("\n\"", "\x00\xff\\")
	f.Fuzz(func(t *testing.T, rcpt, line string) {
		got := decode("n", encode("n", map[string]string{rcpt: line}))
		if len(line) > maxLine {
			line = strings.ToValidUTF8(line[:maxLine], "")
		}
		if want := map[string]string{rcpt: line}; !maps.Equal(got, want) {
			t.Fatalf("%q came back as %q", want, got)
		}
	})
}
