package source

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/safeio"
)

const (
	fileName = "sources.json"
	// maxCounted bounds the names that are counted, and maxName each: a file
	// that somebody else wrote must not grow for ever.
	maxCounted = 10_000
	maxName    = 39
	// countCost is what one takes beside its name, in bytes.
	countCost = 96
	maxText   = maxCounted * (countCost + maxName)
)

// Daily counts the messages that each source sent on this UTC day, for a
// source that is being warmed up. The counts survive a restart: they are
// written to a file by Save, which the owner calls now and then and at the
// end. A crash forgets what was sent since the last Save; a file that cannot
// be read, or is of another day, counts as none.
//
// A message is counted when it is about to be sent (take) and given back when
// no server took it (give): so the bound holds for messages on their way, too.
// It is safe for concurrent use.
type Daily struct {
	dir string
	now func() time.Time

	saving sync.Mutex

	mu      sync.Mutex
	state   counts
	changed bool // since it was saved
}

// counts is what the file holds.
type counts struct {
	Day  string         `json:"day"` // 2026-11-30, UTC
	Sent map[string]int `json:"sent"`
}

// OpenDaily reads the counts kept in dir, where no other process writes them;
// dir "" keeps them in memory alone. The counts can be used whatever the error:
// that says why they begin at none.
func OpenDaily(dir string, now func() time.Time) (*Daily, error) {
	d := &Daily{dir: dir, now: now}
	if dir == "" {
		return d, nil
	}
	var kept counts
	err := safeio.ReadJSON(dir, fileName, maxText, &kept)
	if errors.Is(err, fs.ErrNotExist) {
		return d, nil
	}
	if err == nil && kept.Day != "" {
		if _, err = time.Parse(time.DateOnly, kept.Day); err != nil {
			err = fmt.Errorf("%s: %w", fileName, err)
		}
	}
	if err != nil {
		return d, err
	}
	d.state = counts{Day: kept.Day, Sent: map[string]int{}}
	for name, n := range kept.Sent {
		if n > 0 && len(name) <= maxName && len(d.state.Sent) < maxCounted {
			d.state.Sent[name] = n
		}
	}
	return d, nil
}

// take counts one message of a source if fewer than limit were sent today. ok
// says that it may go, and day what give is to be told.
func (d *Daily) take(source string, limit int) (day string, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	n, known := d.state.Sent[source]
	if n >= limit || !known && len(d.state.Sent) >= maxCounted {
		return "", false
	}
	d.state.Sent[source]++
	d.changed = true
	return d.state.Day, true
}

// give takes one message back that was counted on a day and not sent.
func (d *Daily) give(source, day string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	if d.state.Day == day && d.state.Sent[source] > 0 {
		d.state.Sent[source]--
		d.changed = true
	}
}

// Sent is how many messages of a source were counted today.
func (d *Daily) Sent(source string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.turn()
	return d.state.Sent[source]
}

// turn begins a new day. A clock that was set back over midnight keeps the
// later day: what was sent was sent. A day further ahead than that was a clock
// that was wrong: its counts are today's.
func (d *Daily) turn() {
	now := d.now().UTC()
	today := now.Format(time.DateOnly)
	switch {
	case d.state.Sent == nil || today > d.state.Day:
		d.state = counts{Day: today, Sent: map[string]int{}}
	case d.state.Day > now.AddDate(0, 0, 1).Format(time.DateOnly):
		d.state.Day, d.changed = today, true
	}
}

// Save writes the counts if they have changed. On error the next Save tries
// again.
func (d *Daily) Save() error {
	d.saving.Lock()
	defer d.saving.Unlock()
	d.mu.Lock()
	if !d.changed || d.dir == "" {
		d.mu.Unlock()
		return nil
	}
	text, err := json.Marshal(d.state)
	d.changed = false
	d.mu.Unlock()
	if err == nil {
		err = safeio.Write(d.dir, fileName, text)
	}
	if err != nil {
		d.mu.Lock()
		d.changed = true
		d.mu.Unlock()
	}
	return err
}

// Usage is how much the counts take, in bytes.
func (d *Daily) Usage() cache.Usage {
	d.mu.Lock()
	defer d.mu.Unlock()
	u := cache.Usage{Entries: len(d.state.Sent), MaxBytes: maxText}
	for name := range d.state.Sent {
		u.Bytes += countCost + int64(len(name))
	}
	return u
}
