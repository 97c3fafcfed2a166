// Package suspension keeps what the administrator has stopped by hand: mail
// for a domain, to a provider, or over a transport, for a while or until it is
// resumed. Nothing is dialled for what is suspended; the mail server keeps the
// mail and is told the reason.
//
// Suspensions outlive the daemon: they are written to a file when they change,
// before the administrator gets an answer. A file that is damaged is reported,
// set aside under another name, and counts as empty: mail that goes is better
// than mail that stands still for a reason that is not known.
package suspension

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/safeio"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Kind is what a target names.
type Kind string

// The kinds.
const (
	Domain    Kind = "domain"
	Provider  Kind = "provider"
	Transport Kind = "transport"
)

// Target is what is suspended: a domain as A-labels in lower case, or the
// name of a provider or a transport.
type Target struct {
	Kind Kind   `json:"kind"`
	Name string `json:"name"`
}

// String writes a target as "mxpolicyd suspend" reads it.
func (t Target) String() string {
	if t.Kind == Domain {
		return t.Name
	}
	return string(t.Kind) + ":" + t.Name
}

// Suspension is one target that is stopped.
type Suspension struct {
	Target
	Since  time.Time `json:"since"`
	Until  time.Time `json:"until"` // zero: until it is resumed
	Reason string    `json:"reason"`
}

// Err is what a delivery is told: temporary, 4.3.2, with the reason.
func (s *Suspension) Err() *status.Error {
	e := &status.Error{Code: status.New(status.Temporary, 3, 2), Text: s.Target.String() + " is suspended"}
	if !s.Until.IsZero() {
		e.Moment = "until " + s.Until.UTC().Format("2006-01-02 15:04 UTC")
	}
	if s.Reason != "" {
		e.Text += ": " + s.Reason
	}
	return e
}

const (
	// Max is how many targets may be suspended at once.
	Max = 10_000
	// MaxReason is how long a reason may be, in bytes.
	MaxReason = 200
	fileName  = "suspended.json"
	// targetCost is what a target takes beside its texts, in bytes, and
	// maxName bounds its name.
	targetCost = 256
	maxName    = 253
)

// ErrMany says that Max targets are suspended; nothing was changed.
var ErrMany = fmt.Errorf("%d targets are suspended already", Max)

// List is what is suspended. It is safe for concurrent use.
type List struct {
	dir string
	now func() time.Time

	changing sync.Mutex // held over a change and its writing

	mu      sync.RWMutex // never held across I/O
	targets map[Target]Suspension
}

// Open reads the suspensions kept in dir, where no other process writes them;
// dir "" keeps them in memory alone. The list can be used whatever the error:
// that says that the file was damaged or could not be read.
func Open(dir string, now func() time.Time) (*List, error) {
	l := &List{dir: dir, now: now, targets: map[Target]Suspension{}}
	if dir == "" {
		return l, nil
	}
	path := filepath.Join(dir, fileName)
	text, err := os.ReadFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return l, nil
	case err != nil:
		return l, err
	}
	var kept []Suspension
	if err := json.Unmarshal(text, &kept); err != nil || len(kept) > Max {
		return l, errors.Join(fmt.Errorf("%s is damaged: %w", path, cmp.Or(err, ErrMany)), os.Rename(path, path+".damaged"))
	}
	for _, s := range kept {
		l.targets[s.Target] = s
	}
	return l, nil
}

// Suspend stops a target, until a time or, when that is zero, until Resume. A
// second call for a target replaces the first. After an error nothing has
// changed.
func (l *List) Suspend(t Target, until time.Time, reason string) error {
	if len(reason) > MaxReason {
		reason = strings.ToValidUTF8(reason[:MaxReason], "")
	}
	return l.change(func(targets map[Target]Suspension) error {
		if _, ok := targets[t]; !ok && len(targets) >= Max {
			return ErrMany
		}
		targets[t] = Suspension{Target: t, Since: l.now(), Until: until, Reason: reason}
		return nil
	})
}

// Resume lets a target go on, and reports whether it was suspended.
func (l *List) Resume(t Target) (was bool, err error) {
	err = l.change(func(targets map[Target]Suspension) error {
		_, was = targets[t]
		delete(targets, t)
		return nil
	})
	return was && err == nil, err
}

// Find gives the suspension that stops a message: that of its transport, its
// domain or, once a host is chosen, that host's provider. What is empty is not
// asked. nil: none does. A domain's suspension holds for that name alone.
func (l *List) Find(transport, domain, provider string) *Suspension {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if len(l.targets) == 0 {
		return nil
	}
	now := l.now()
	for _, t := range [...]Target{{Transport, transport}, {Domain, domain}, {Provider, provider}} {
		if s, ok := l.targets[t]; ok && t.Name != "" && s.holds(now) {
			return &s
		}
	}
	return nil
}

// Usage is how much the targets take, in bytes.
func (l *List) Usage() cache.Usage {
	l.mu.RLock()
	defer l.mu.RUnlock()
	u := cache.Usage{Entries: len(l.targets), MaxBytes: Max * (targetCost + maxName + MaxReason)}
	for t, s := range l.targets {
		u.Bytes += targetCost + int64(len(t.Name)+len(s.Reason))
	}
	return u
}

// All lists what is suspended, by kind and name.
func (l *List) All() []Suspension {
	l.mu.RLock()
	defer l.mu.RUnlock()
	now := l.now()
	list := make([]Suspension, 0, len(l.targets))
	for _, s := range l.targets {
		if s.holds(now) {
			list = append(list, s)
		}
	}
	slices.SortFunc(list, func(a, b Suspension) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
	})
	return list
}

func (s *Suspension) holds(now time.Time) bool { return s.Until.IsZero() || now.Before(s.Until) }

// change makes a copy, changes and writes it, and puts it in the old one's
// place: what a delivery sees is what the disk has.
func (l *List) change(f func(map[Target]Suspension) error) error {
	l.changing.Lock()
	defer l.changing.Unlock()
	now := l.now()
	next := make(map[Target]Suspension)
	l.mu.RLock()
	for t, s := range l.targets {
		if s.holds(now) {
			next[t] = s
		}
	}
	l.mu.RUnlock()
	if err := f(next); err != nil {
		return err
	}
	if l.dir != "" {
		list := make([]Suspension, 0, len(next))
		for _, s := range next {
			list = append(list, s)
		}
		text, err := json.Marshal(list)
		if err == nil {
			err = safeio.Write(l.dir, fileName, text)
		}
		if err != nil {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.targets = next
	return nil
}
