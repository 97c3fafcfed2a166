package logging

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
)

// patientLog is a log whose clock the test moves.
type patientLog struct {
	*Log
	lines bytes.Buffer
	now   time.Time
}

func newPatientLog() *patientLog {
	l := &patientLog{now: time.Unix(1e9, 0)}
	l.Log = New(config.Log{Level: slog.LevelDebug}, &l.lines)
	l.dedup.now = func() time.Time { return l.now }
	return l
}

// pass lets time pass, and gives what was written since the last call, without
// its time.
func (l *patientLog) pass(d time.Duration) []string {
	l.now = l.now.Add(d)
	l.dedup.flush(false)
	var lines []string
	for line := range strings.Lines(l.lines.String()) {
		_, line, _ = strings.Cut(strings.TrimSpace(line), " ")
		lines = append(lines, line)
	}
	l.lines.Reset()
	return lines
}

// A warning that comes again is written once, and then counted.
func TestDedup(t *testing.T) {
	l := newPatientLog()
	failing := func(port int) {
		l.With("domain", "a.example").Warn("no policy", "error", fmt.Errorf("read 127.0.0.1:%d: reset", port))
	}
	for i := range 215 {
		failing(40000 + i)
	}
	l.With("domain", "b.example").Warn("no policy", "error", errors.New("read 127.0.0.1:1: reset"))
	l.Error("no policy")
	expectLines(t, l.pass(time.Second), "level=WARN msg=\"no policy\" domain=a.example error=\"read 127.0.0.1:40000: reset\"",
		"level=WARN msg=\"no policy\" domain=b.example", "level=ERROR msg=\"no policy\"")
	expectLines(t, l.pass(time.Minute), "level=WARN msg=\"no policy (same, 214 more)\" domain=a.example error=\"read 127.0.0.1:40214: reset\"")
	// It goes on: told less and less often.
	failing(1)
	failing(2)
	expectLines(t, l.pass(time.Minute))
	expectLines(t, l.pass(time.Minute), "(same, 2 more)")
	failing(3)
	expectLines(t, l.pass(4*time.Minute), "(same, 1 more)")
	// It was over, and is news again.
	expectLines(t, l.pass(time.Hour))
	failing(4)
	expectLines(t, l.pass(0), "level=WARN msg=\"no policy\" domain=a.example")
	if w, e := l.dedup.warnings.Load(), l.dedup.errors.Load(); w != 220 || e != 1 {
		t.Errorf("%d warnings, %d errors", w, e)
	}
}

// Lines about one message, and those that are no warnings, are all written.
func TestWhatRepeatsInFull(t *testing.T) {
	l := newPatientLog()
	for range 3 {
		l.Info("delivered")
		l.With("queue_id", "4XyZ").Warn("message not taken", "dsn", "4.3.2")
		l.WithGroup("g").Error("cannot write down", "id", "x7")
	}
	if lines := l.pass(time.Hour); len(lines) != 9 {
		t.Errorf("%q", lines)
	}
	// The id may be there and say nothing.
	for range 3 {
		l.With("queue_id", "").Warn("lost")
	}
	expectLines(t, l.pass(time.Hour), "lost", "lost (same, 2 more)")
}

// What is remembered is bounded, and told at the end.
func TestDedupIsBounded(t *testing.T) {
	l := newPatientLog()
	for range 2 {
		for i := range maxEntries + 10 {
			l.Warn("w", "n", i)
		}
	}
	if lines := l.pass(0); len(lines) != maxEntries+20 {
		t.Errorf("%d lines", len(lines))
	}
	l.dedup.reset()
	if lines := l.pass(0); len(lines) != maxEntries || !strings.Contains(lines[0], "(same, 1 more)") {
		t.Errorf("%d lines at the end", len(lines))
	}
	l.Warn("w", "n", 1)
	expectLines(t, l.pass(0), "level=WARN msg=w n=1")
}

// A delivery's lines cost nothing for it.
func BenchmarkDedupHandler(b *testing.B) {
	log := New(config.Log{Level: slog.LevelInfo}, &bytes.Buffer{})
	log.Logger = slog.New(&dedupHandler{Handler: slog.DiscardHandler, dedup: log.dedup})
	b.ReportAllocs()
	for b.Loop() {
		log.With("id", "x7", "queue_id", "4XyZ", "transport", "default").Info("delivered", "to", "b@a.example")
	}
}

// expectLines compares lines by what they hold.
func expectLines(t *testing.T, got []string, want ...string) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%q, want %q", got, want)
		return
	}
	for i := range got {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("%q, want %q", got[i], want[i])
		}
	}
}
