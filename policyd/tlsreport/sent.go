package tlsreport

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/safeio"
)

// State is what became of a report towards one place.
type State string

// The states. A place that is not written down is due.
const (
	// Trying is written before the last of a report is. Found at a start, it
	// means that the daemon ended before the answer: the place may have the
	// report, so it is not sent again.
	Trying  State = "trying"
	Waiting State = "waiting" // failed, to be tried again
	Sent    State = "sent"
	Refused State = "refused" // for good
	Late    State = "late"    // a day was not enough
)

// endedMeanwhile is why a report is not sent again.
const endedMeanwhile = "mxpolicyd ended while it was sent: it may have arrived"

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

// of is the report that places get: a domain's of a day.
type of struct{ day, domain string }

const (
	sentFile = "sent"
	// maxError bounds what is kept of an error, which may hold what a place
	// answered, in bytes.
	maxError = 300
	// placeCost is what a place takes beside its texts, in bytes.
	placeCost = 400
	// maxPlaces is how many places are remembered, of all days, and
	// maxDomainPlaces how many of one domain's report, whose record may change
	// meanwhile.
	maxPlaces       = 20_000
	maxDomainPlaces = 4
	// maxDomain bounds a domain's name.
	maxDomain = 253
)

// ledger knows which reports were sent where. What it says is on disk before
// it is acted on. It is used by one goroutine at a time.
type ledger struct {
	dir    string
	places map[of][]attempt
	count  int // of places
	file   *os.File
	torn   bool // the file may end in a torn line
}

// openLedger reads the file in dir. Without it, or with lines that are torn,
// what they said is unknown: the error says so when it could not be read.
func openLedger(dir string, now time.Time) (*ledger, error) {
	l := &ledger{dir: dir, places: map[of][]attempt{}}
	if dir == "" {
		return l, nil
	}
	text, err := os.ReadFile(filepath.Join(dir, sentFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return l, err
	}
	for one := range bytes.Lines(text) {
		if !bytes.HasSuffix(one, []byte("\n")) {
			break // it was not on disk when it was not yet acted on
		}
		var a attempt
		date, err := time.Time{}, json.Unmarshal(one, &a)
		if err == nil {
			date, err = time.Parse(time.DateOnly, a.Day)
		}
		if err == nil && kept(date, now) {
			l.set(a)
		}
	}
	for _, list := range l.places {
		for i := range list {
			if a := &list[i]; a.State == Trying {
				a.State, a.Error = Refused, endedMeanwhile
			}
		}
	}
	return l, l.rewrite() // without what is too old
}

// put writes down what became of a place. After an error the place is as it
// was.
func (l *ledger) put(a attempt) error {
	old, had := l.get(a.Day, a.Domain, a.URI)
	l.set(a)
	err := l.append(a)
	switch at := (of{a.Day, a.Domain}); {
	case err == nil:
	case had:
		l.set(old)
	default:
		l.places[at] = l.places[at][:len(l.places[at])-1]
		l.count--
	}
	return err
}

// get gives what is known of a place.
func (l *ledger) get(day, domain, uri string) (attempt, bool) {
	list := l.places[of{day, domain}]
	if i := slices.IndexFunc(list, func(a attempt) bool { return a.URI == uri }); i >= 0 {
		return list[i], true
	}
	return attempt{}, false
}

// room reports whether one more place of a report may be tried.
func (l *ledger) room(day, domain string) bool {
	return len(l.places[of{day, domain}]) < maxDomainPlaces && l.count < maxPlaces
}

// set takes what is known of a place, in memory alone.
func (l *ledger) set(a attempt) {
	if len(a.Error) > maxError {
		a.Error = strings.ToValidUTF8(a.Error[:maxError], "")
	}
	at := of{a.Day, a.Domain}
	list := l.places[at]
	if i := slices.IndexFunc(list, func(b attempt) bool { return a.URI == b.URI }); i >= 0 {
		list[i] = a
		return
	}
	l.places[at] = append(list, a)
	l.count++
}

// usage is how much the places take, in bytes.
func (l *ledger) usage() (u cache.Usage) {
	for _, list := range l.places {
		for i := range list {
			u.Entries++
			u.Bytes += placeCost + int64(len(list[i].URI)+len(list[i].Error)+len(list[i].Domain))
		}
	}
	return u
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
	for _, list := range l.places {
		for _, a := range list {
			text, err := json.Marshal(a)
			if err != nil {
				return err
			}
			b.Write(append(text, '\n'))
		}
	}
	l.close()
	err := safeio.Write(l.dir, sentFile, b.Bytes())
	l.torn = err != nil
	return err
}

// forget drops what is too old to matter.
func (l *ledger) forget(now time.Time) error {
	n := len(l.places)
	for at := range l.places {
		if date, err := time.Parse(time.DateOnly, at.day); err != nil || !kept(date, now) {
			l.count -= len(l.places[at])
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
