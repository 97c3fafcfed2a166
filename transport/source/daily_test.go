package source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func opened(t *testing.T, dir string, c *clock) *Daily {
	t.Helper()
	d, err := OpenDaily(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// goes takes one, and reports whether it may go.
func (d *Daily) goes(source string, limit int) bool {
	_, ok := d.take(source, limit)
	return ok
}

// The counts are those of a UTC day, and outlive a restart. A clock that is set
// back, within the day or over midnight, gives no day anew.
func TestDaily(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Date(2026, 11, 30, 23, 59, 0, 0, time.UTC)}
	d := opened(t, dir, c)
	for i := range 6 {
		if got, want := d.goes("192.0.2.1", 5), i < 5; got != want {
			t.Errorf("message %d: %v", i+1, got)
		}
	}
	d.give("192.0.2.1", "2026-11-30")
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	d = opened(t, dir, c) // a restart
	if got := d.Sent("192.0.2.1"); got != 4 {
		t.Errorf("%d after a restart, want 4", got)
	}
	if !d.goes("192.0.2.1", 5) || d.goes("192.0.2.1", 5) {
		t.Error("the fifth may go, the sixth not")
	}
	c.at = c.at.Add(-2 * time.Hour)
	if d.goes("192.0.2.1", 5) {
		t.Error("a clock that was set back gave a new day")
	}
	c.at = c.at.Add(2*time.Hour + time.Minute)
	day, ok := d.take("192.0.2.1", 5)
	if !ok || day != "2026-12-01" || d.Sent("192.0.2.1") != 1 {
		t.Error("midnight")
	}
	d.give("192.0.2.1", "2026-11-30") // of one that was under way at midnight
	if d.Sent("192.0.2.1") != 1 {
		t.Error("what was taken yesterday is given back today")
	}
	c.at = c.at.Add(-2 * time.Minute) // back over midnight
	if d.Sent("192.0.2.1") != 1 {
		t.Error("a clock that was set back over midnight began the day anew")
	}
	d.give("192.0.2.1", day)
	if err := d.Save(); err != nil || d.Sent("192.0.2.1") != 0 {
		t.Error(err)
	}
}

// A clock that was years ahead for a moment does not end the warm-up for years.
func TestDailyClockWasAhead(t *testing.T) {
	dir := t.TempDir()
	c := &clock{time.Date(2036, 1, 1, 12, 0, 0, 0, time.UTC)}
	d := opened(t, dir, c)
	d.goes("a", 5)
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	c.at = time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	for _, d := range []*Daily{d, opened(t, dir, c)} {
		if got := d.Sent("a"); got != 1 {
			t.Errorf("%d", got)
		}
	}
	c.at = c.at.AddDate(0, 0, 1)
	if got := d.Sent("a"); got != 0 {
		t.Errorf("%d on the next day", got)
	}
}

// Whatever the file holds, the counts can be used, and saved.
func TestDailyDamaged(t *testing.T) {
	many := strings.Builder{}
	many.WriteString(`{"day":"2026-12-01","sent":{`)
	for i := range maxCounted + 5 {
		fmt.Fprintf(&many, `"%d":1,`, i)
	}
	many.WriteString(`"x":1}}`)
	c := &clock{time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	for _, tt := range []struct {
		text string
		bad  bool
	}{
		{`{"day":`, true}, {``, true}, {"\x00\x00\x00", true}, {`[]`, true}, {`{"day":"tomorrow","sent":{"a":9}}`, true},
		{`{"day":"2026-12-01","sent":{"a":"9"}}`, true}, {strings.Repeat(" ", maxText+1), true},
		{`{}`, false}, {`null`, false}, {`{"day":"2026-12-01","sent":{"a":-9}}`, false}, {many.String(), false},
		{`{"day":"2026-12-01","sent":{"` + strings.Repeat("a", 100) + `":1}}`, false},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(tt.text), 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := OpenDaily(dir, c.now)
		if (err != nil) != tt.bad {
			t.Errorf("%.40q: %v", tt.text, err)
		}
		if u := d.Usage(); u.Bytes > u.MaxBytes || u.Entries > maxCounted {
			t.Errorf("%.40q: %+v", tt.text, u)
		}
		if len(tt.text) < 1000 || tt.bad {
			if !d.goes("a", 1) || d.goes("a", 1) {
				t.Errorf("%.40q: the counts cannot be used", tt.text)
			}
		}
		if err := d.Save(); err != nil {
			t.Errorf("%.40q: %v", tt.text, err)
		}
	}
}

// What cannot be saved now is saved later.
func TestDailyDiskFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "later")
	c := &clock{time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)}
	d := opened(t, dir, c)
	d.goes("a", 5)
	if err := d.Save(); err == nil {
		t.Error("saved nowhere")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Save(); err != nil {
		t.Fatal(err)
	}
	if got := opened(t, dir, c).Sent("a"); got != 1 {
		t.Error(got)
	}
}

// Never one more than the limit, however many ask.
func TestDailyAtOnce(t *testing.T) {
	d := opened(t, "", &clock{time.Unix(0, 0)})
	var all sync.WaitGroup
	var mu sync.Mutex
	n := 0
	for range 50 {
		all.Go(func() {
			for range 10 {
				if d.goes("a", 100) {
					mu.Lock()
					n++
					mu.Unlock()
				}
			}
		})
	}
	all.Wait()
	if n != 100 {
		t.Errorf("%d messages, want 100", n)
	}
}
