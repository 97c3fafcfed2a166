package tlsreport

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

// line is one line of a day's file: n sessions that were counted together.
type line struct {
	Domain  string   `json:"d"`
	Policy  Policy   `json:"p"`
	Failure *Failure `json:"f,omitempty"`
	Count   uint64   `json:"n"`
}

// The day's file.
const (
	journalSuffix = ".sessions"
	// keepDays is how long a day's file stays after its day, for reports that
	// are sent late, and to be looked at.
	keepDays = 3
	// maxSlack is how much longer than its counts a file may be before it is
	// written anew, in bytes; and so how much a day with few domains takes.
	maxSlack = 4 << 20
	// maxLine bounds a line that is read.
	maxLine = 64 << 10
)

// Journal keeps the counts of each day in a file of the day, which grows by a
// line for each session, and is written anew when it has grown much longer
// than what it says. Each line stands for itself: one that is torn, by a crash
// or a full disk, costs that line alone. What could not be written is counted
// in memory, and written when there is room again.
//
// It is used by one goroutine at a time.
type Journal struct {
	dir    string // "": in memory alone
	days   map[string]*day
	broken error // why the last write failed; nil: it did not
}

// day is one day's counts and file.
type day struct {
	counts  Counts
	file    *os.File
	size    int64 // of the file
	compact int64 // its size when it was last written as a whole
	unsaved bool  // the file lacks something, or may end in a torn line
}

// OpenJournal reads the files of the days that are kept in dir, which no other
// process writes. The journal can be used whatever the error: that says which
// file could not be read.
func OpenJournal(dir string, now time.Time) (*Journal, error) {
	j := &Journal{dir: dir, days: map[string]*day{}}
	if dir == "" {
		return j, nil
	}
	if err := safeio.MkdirAll(dir, 0o700); err != nil {
		return j, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return j, err
	}
	var failed []error
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), journalSuffix)
		if strings.HasPrefix(e.Name(), safeio.TempPrefix) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
		if date, err := time.Parse(time.DateOnly, name); !ok || err != nil || !kept(date, now) {
			continue
		}
		if err := j.read(name); err != nil {
			failed = append(failed, err)
		}
	}
	return j, errors.Join(failed...)
}

// kept reports whether a day's counts may still be asked for.
func kept(date, now time.Time) bool {
	age := startOf(now).Sub(date)
	return age <= keepDays*24*time.Hour && age >= -keepDays*24*time.Hour
}

func (j *Journal) path(name string) string { return filepath.Join(j.dir, name+journalSuffix) }

// read reads a day's file.
func (j *Journal) read(name string) error {
	text, err := os.ReadFile(j.path(name))
	if err != nil {
		return err
	}
	d := &day{size: int64(len(text)), unsaved: len(text) > 0 && text[len(text)-1] != '\n'}
	j.days[name] = d
	for l := range bytes.Lines(text) {
		var one line
		if len(l) <= maxLine && json.Unmarshal(l, &one) == nil && one.Domain != "" && one.Count > 0 {
			d.counts.Add(one.Domain, one.Policy, one.Failure, one.Count)
		}
	}
	return nil
}

// Add counts one session that ended at a time. The error says why the file
// does not have it; it is counted all the same.
func (j *Journal) Add(at time.Time, domain string, p Policy, failed *Failure) error {
	name := at.UTC().Format(time.DateOnly)
	d := j.days[name]
	if d == nil {
		d = &day{}
		j.days[name] = d
	}
	l, ok := d.counts.Add(domain, p, failed, 1)
	if !ok || j.dir == "" {
		return nil
	}
	j.broken = j.write(name, d, l)
	return j.broken
}

// write brings one line, or everything, into a day's file.
func (j *Journal) write(name string, d *day, l line) error {
	if d.unsaved || d.size > 2*d.compact+maxSlack {
		return j.rewrite(name, d)
	}
	text, err := json.Marshal(l)
	if err != nil {
		return err
	}
	if d.file == nil {
		if d.file, err = safeio.Append(j.path(name)); err != nil {
			d.unsaved = true
			return err
		}
	}
	n, err := d.file.Write(append(text, '\n'))
	d.size += int64(n)
	if err != nil {
		d.unsaved = true
	}
	return err
}

// rewrite writes a day's counts as a whole.
func (j *Journal) rewrite(name string, d *day) error {
	var b bytes.Buffer
	var failed error
	d.counts.each(func(l line) {
		text, err := json.Marshal(l)
		failed = errors.Join(failed, err)
		b.Write(append(text, '\n'))
	})
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
	d.unsaved = true
	if failed == nil {
		failed = safeio.Write(j.dir, name+journalSuffix, b.Bytes())
	}
	if failed != nil {
		return failed
	}
	d.size, d.compact, d.unsaved = int64(b.Len()), int64(b.Len()), false
	return nil
}

// Counts gives the counts of a time's day; they must not be changed.
func (j *Journal) Counts(at time.Time) *Counts {
	if d := j.days[at.UTC().Format(time.DateOnly)]; d != nil {
		return &d.counts
	}
	return &Counts{}
}

// Days lists the days that have counts, the newest first.
func (j *Journal) Days() []time.Time {
	var list []time.Time
	for name := range j.days {
		if date, err := time.Parse(time.DateOnly, name); err == nil {
			list = append(list, date)
		}
	}
	slices.SortFunc(list, func(a, b time.Time) int { return b.Compare(a) })
	return list
}

// Tidy writes what could not be written before, closes the files of days that
// are over, and forgets those that are too old.
func (j *Journal) Tidy(now time.Time) error {
	var failed []error
	today := now.UTC().Format(time.DateOnly)
	for name, d := range j.days {
		date, err := time.Parse(time.DateOnly, name)
		if err != nil || !kept(date, now) {
			d.close()
			delete(j.days, name)
			if j.dir != "" {
				if err := os.Remove(j.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					failed = append(failed, err)
				}
			}
			continue
		}
		if d.unsaved && j.dir != "" {
			failed = append(failed, j.rewrite(name, d))
		}
		if name != today {
			d.close()
		}
	}
	return errors.Join(failed...)
}

func (d *day) close() {
	if d.file != nil {
		d.file.Close()
		d.file = nil
	}
}

// Close writes what is left, and closes the files.
func (j *Journal) Close() error {
	var failed []error
	for name, d := range j.days {
		if d.unsaved && j.dir != "" {
			failed = append(failed, j.rewrite(name, d))
		}
		if d.file != nil {
			failed = append(failed, d.file.Sync())
		}
		d.close()
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("TLS report counts: %w", err)
	}
	return nil
}
