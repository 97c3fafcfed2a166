// Package testlog keeps what a program under test says, a line at a time, and
// lets a test wait for what it must say.
package testlog

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"time"
)

// patience is how long a test waits for what must be said.
const patience = time.Minute

// Log keeps what is written into it. It is safe for concurrent use.
type Log struct {
	mu      sync.Mutex
	text    bytes.Buffer
	changed chan struct{} // closed and replaced when something is written
}

// New makes an empty one.
func New() *Log { return &Log{changed: make(chan struct{})} }

// Write implements io.Writer. Each call brings whole lines.
func (b *Log) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(b.changed)
	b.changed = make(chan struct{})
	return b.text.Write(p)
}

// String gives all that was written since the log was made, or since Forget.
func (b *Log) String() string {
	text, _ := b.read()
	return text
}

func (b *Log) read() (text string, changed <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String(), b.changed
}

// Forget begins anew.
func (b *Log) Forget() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.text.Reset()
}

// Count tells how often a part was written.
func (b *Log) Count(part string) int { return strings.Count(b.String(), part) }

// Find waits for a line that has all of the parts, and gives it. It is empty
// when gaveUp is closed before, or a minute has passed.
func (b *Log) Find(gaveUp <-chan struct{}, parts ...string) string {
	late := time.NewTimer(patience)
	defer late.Stop()
	for {
		text, changed := b.read()
		if line := find(text, parts); line != "" {
			return line
		}
		select {
		case <-changed:
			continue
		case <-gaveUp:
		case <-late.C:
		}
		return find(b.String(), parts)
	}
}

func find(text string, parts []string) string {
next:
	for line := range strings.Lines(text) {
		for _, p := range parts {
			if !strings.Contains(line, p) {
				continue next
			}
		}
		return line
	}
	return ""
}

// Wait is Find for a line that must come: without it the test ends.
func (b *Log) Wait(t testing.TB, parts ...string) string {
	t.Helper()
	line := b.Find(t.Context().Done(), parts...)
	if line == "" {
		t.Fatalf("%q was not logged, but\n%s", parts, b)
	}
	return line
}
