package source

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

// Daily counts the messages that each source sent on this UTC day, for a
// source that is being warmed up. The counts survive a restart: they are
// written to a file by Save, which the owner calls now and then and at the
// end. A crash forgets what was sent since the last Save; a file that cannot
// be read, or is of another day, counts as none.
//
// A message is counted when it is about to be sent (Take) and given back when
// it was not (Give): so the bound holds for messages on their way, too. It is
// safe for concurrent use.
type Daily struct {
	dir, name string
	now       func() time.Time

	mu    sync.Mutex
	state counts
	dirty bool
}

// counts is what the file holds.
type counts struct {
	Day  string         `json:"day"` // 2026-11-30, UTC
	Sent map[string]int `json:"sent"`
}

// maxSources bounds the names that are counted: a file that somebody else
// wrote must not grow for ever.
const maxSources = 10_000

// OpenDaily reads the counts from the file name in dir; dir "" keeps them in
// memory alone. The error says why the file could not be used; the counts
// start at none then, and may be used.
func OpenDaily(dir, name string, now func() time.Time) (*Daily, error) {
	d := &Daily{dir: dir, name: name, now: now}
	if dir == "" {
		return d, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil {
		err = json.Unmarshal(text, &d.state)
	}
	if err != nil || len(d.state.Sent) > maxSources {
		d.state = counts{}
	}
	return d, err
}

// Take counts one message of the source if fewer than limit were sent today,
// and reports whether it may go. A limit of 0 is no bound, and is not counted.
func (d *Daily) Take(source string, limit int) bool {
	if limit <= 0 {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	if d.state.Sent[source] >= limit || len(d.state.Sent) >= maxSources && d.state.Sent[source] == 0 {
		return false
	}
	d.state.Sent[source]++
	d.dirty = true
	return true
}

// Give takes one message back that was counted and not sent. After midnight it
// belongs to a day that is over.
func (d *Daily) Give(source string, limit int) {
	if limit <= 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	if d.state.Sent[source] > 0 {
		d.state.Sent[source]--
		d.dirty = true
	}
}

// Sent is how many messages of the source were counted today.
func (d *Daily) Sent(source string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	return d.state.Sent[source]
}

// turn begins a new day. A clock that was set back keeps the later day: what
// was sent was sent.
func (d *Daily) turn() {
	if day := d.now().UTC().Format(time.DateOnly); day > d.state.Day || d.state.Sent == nil {
		d.state = counts{Day: max(day, d.state.Day), Sent: map[string]int{}}
	}
}

// Save writes the counts if they have changed.
func (d *Daily) Save() error {
	d.mu.Lock()
	if !d.dirty || d.dir == "" {
		d.mu.Unlock()
		return nil
	}
	text, err := json.Marshal(d.state)
	d.dirty = false
	d.mu.Unlock()
	if err == nil {
		err = safeio.Write(d.dir, d.name, text)
	}
	if err != nil {
		d.mu.Lock()
		d.dirty = true
		d.mu.Unlock()
	}
	return err
}
