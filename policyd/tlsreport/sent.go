package tlsreport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

// State is what became of a report towards one place.
type State string

// The states. A place that is not written down is due.
const (
	// Trying is written before a report leaves. Found at a start, it means
	// that the daemon ended in the middle: the place may have the report, so
	// it is not sent again.
	Trying  State = "trying"
	Waiting State = "waiting" // failed, to be tried again
	Sent    State = "sent"
	Refused State = "refused" // for good
	Late    State = "late"    // a day was not enough
)

// over reports whether nothing more is done.
func (s State) over() bool { return s == Sent || s == Refused || s == Late }

// attempt is one line of the file, and what is known of a place.
type attempt struct {
	Day    string    `json:"day"`
	Domain string    `json:"domain"`
	URI    string    `json:"uri"`
	State  State     `json:"state"`
	At     time.Time `json:"at"`
	Tries  int       `json:"tries,omitempty"`
	Error  string    `json:"error,omitempty"`
}

type place struct{ day, domain, uri string }

const sentFile = "sent"

// ledger knows which reports were sent where. What it says is on disk before
// it is acted on. It is used by one goroutine at a time.
type ledger struct {
	dir    string
	places map[place]attempt
	file   *os.File
	torn   bool // the file may end in a torn line
}

// openLedger reads the file in dir. Without it, or with lines that are torn,
// what they said is unknown: the error says so when it could not be read.
func openLedger(dir string, now time.Time) (*ledger, error) {
	l := &ledger{dir: dir, places: map[place]attempt{}}
	if dir == "" {
		return l, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, sentFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	for one := range bytes.Lines(text) {
		var a attempt
		date, err := time.Time{}, json.Unmarshal(one, &a)
		if err == nil {
			date, err = time.Parse(time.DateOnly, a.Day)
		}
		if err == nil && kept(date, now) {
			l.places[place{a.Day, a.Domain, a.URI}] = a
		}
	}
	for at, a := range l.places {
		if a.State == Trying {
			a.State, a.Error = Refused, "mxpolicyd ended while it was sent: it may have arrived"
			l.places[at] = a
		}
	}
	return l, l.rewrite() // without what is too old
}

// put writes down what became of a place. After an error the place is as it
// was.
func (l *ledger) put(a attempt) error {
	at := place{a.Day, a.Domain, a.URI}
	old, had := l.places[at]
	l.places[at] = a
	err := l.append(a)
	if err != nil {
		if delete(l.places, at); had {
			l.places[at] = old
		}
	}
	return err
}

func (l *ledger) append(a attempt) error {
	if l.dir == "" {
		return nil
	}
	if l.torn {
		return l.rewrite()
	}
	text, err := json.Marshal(a)
	if err != nil {
		return err
	}
	if l.file == nil {
		if l.file, err = safeio.Append(filepath.Join(l.dir, sentFile)); err != nil {
			return err
		}
	}
	if _, err = l.file.Write(append(text, '\n')); err == nil {
		err = l.file.Sync()
	}
	l.torn = err != nil
	return err
}

// rewrite writes the whole file.
func (l *ledger) rewrite() error {
	var b bytes.Buffer
	for _, a := range l.places {
		text, err := json.Marshal(a)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	l.close()
	err := safeio.Write(l.dir, sentFile, b.Bytes())
	l.torn = err != nil
	return err
}

// forget drops what is too old to matter.
func (l *ledger) forget(now time.Time) error {
	n := len(l.places)
	for at, a := range l.places {
		if date, err := time.Parse(time.DateOnly, a.Day); err != nil || !kept(date, now) {
			delete(l.places, at)
		}
	}
	if l.dir == "" || n == len(l.places) {
		return nil
	}
	return l.rewrite()
}

func (l *ledger) close() {
	if l.file != nil {
		l.file.Close()
		l.file = nil
	}
}
