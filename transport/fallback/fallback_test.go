package fallback

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	now := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	dir := t.TempDir()
	open := func() *Memory {
		t.Helper()
		m, err := Open(dir, func() time.Time { return now })
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	m := open()
	a, b := Key{"default", "a.example"}, Key{"default", "b.example"}
	m.Failed(a)
	now = now.Add(20 * time.Minute)
	m.Failed(b)
	if got := m.Failed(a); got != 20*time.Minute {
		t.Errorf("fails for %v", got)
	}
	if err := m.Save(); err != nil {
		t.Fatal(err)
	}
	// A restart changes nothing.
	m = open()
	now = now.Add(20 * time.Minute)
	if got := m.Failed(a); got != 40*time.Minute {
		t.Errorf("after a restart it fails for %v", got)
	}
	m.Succeeded(a)
	if _, ok := m.Since(a); ok {
		t.Error("it fails after a success")
	}
	if got := m.Failed(a); got != 0 {
		t.Errorf("after a success it fails for %v", got)
	}
	// What was not heard of for a day is a new failure.
	now = now.Add(25 * time.Hour)
	if _, ok := m.Since(b); ok {
		t.Error("a failure of yesterday counts")
	}
	if got := m.Failed(b); got != 0 {
		t.Errorf("it fails for %v", got)
	}
	if got := m.Failed(Key{"other", "b.example"}); got != 0 || m.Usage().Entries != 3 {
		t.Errorf("%v, %+v", got, m.Usage())
	}
}

// A clock that was wrong, a file that is none: it begins anew, and mail waits.
func TestMemoryDamaged(t *testing.T) {
	now := time.Now()
	for text, ok := range map[string]bool{
		`x`:  false,
		`{}`: false,
		`[]`: true,
		`[{"transport":"default","destination":"a.example","since":"2099-01-01T00:00:00Z","last":"2099-01-01T00:00:00Z"}]`: true,
		`[{"transport":"default","destination":"a.example","since":"2001-01-01T00:00:00Z","last":"2001-01-02T00:00:00Z"}]`: true,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := Open(dir, func() time.Time { return now })
		if (err == nil) != ok {
			t.Errorf("%s: %v", text, err)
		}
		if got := m.Failed(Key{"default", "a.example"}); got != 0 {
			t.Errorf("%s: fails for %v", text, got)
		}
		if err := m.Save(); err != nil {
			t.Error(err)
		}
	}
}

func TestMemoryIsBounded(t *testing.T) {
	now := time.Now()
	m, _ := Open("", func() time.Time { return now })
	first := now
	m.Failed(Key{"default", "first.example"})
	for i := range Max + 100 {
		now = now.Add(time.Millisecond)
		m.Failed(Key{"default", fmt.Sprintf("d%d.example", i)})
	}
	if u := m.Usage(); u.Entries != Max || u.Bytes > u.MaxBytes {
		t.Errorf("%+v", u)
	}
	if since, ok := m.Since(Key{"default", "first.example"}); !ok || !since.Equal(first) {
		t.Error("the one that fails for longest is forgotten")
	}
}
