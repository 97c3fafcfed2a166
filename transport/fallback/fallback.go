// Package fallback remembers since when mail for a destination has failed, so
// that it can go by another way after a while (fallback_relay).
//
// A destination begins to fail with the first delivery that its hosts could not
// be given, and ends with the first that one of them took. One about which
// nothing was heard for a day is forgotten: a failure now says little about one
// last week. The memory outlives a restart: [Memory.Save] writes it, at most
// once for all that has changed since; what a crash costs is that a wait begins
// anew.
package fallback

import (
	"encoding/json"
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/safeio"
)

const (
	// Max is how many destinations are remembered at once.
	Max = 20_000
	// forgetAfter is how long after its last failure a destination is
	// forgotten.
	forgetAfter = 24 * time.Hour
	fileName    = "failing.json"
	// cost is what a destination takes beside its names, in bytes, and maxName
	// bounds these.
	cost    = 200
	maxName = 400
	// maxText bounds the file.
	maxText = Max * (cost + maxName)
)

// Key is a destination of one transport.
type Key struct {
	Transport   string `json:"transport"`
	Destination string `json:"destination"`
}

// failing is one that fails.
type failing struct {
	Key
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
}

// Memory is what is remembered. It is safe for concurrent use.
type Memory struct {
	dir string
	now func() time.Time

	saving sync.Mutex

	mu      sync.Mutex
	all     map[Key]failing
	changed bool // since it was saved
}

// Open reads what was kept in dir, where no other process writes it; dir ""
// keeps it in memory alone. The memory can be used whatever the error: that
// says why it begins empty.
func Open(dir string, now func() time.Time) (*Memory, error) {
	m := &Memory{dir: dir, now: now, all: map[Key]failing{}}
	if dir == "" {
		return m, nil
	}
	var list []failing
	switch err := safeio.ReadJSON(dir, fileName, maxText, &list); {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err != nil:
		return m, err
	}
	// A clock that was wrong must not have anything seem to fail for years.
	for _, f := range list {
		if f.Since.After(now()) || f.Last.Before(f.Since) || now().Sub(f.Last) > forgetAfter {
			continue
		}
		if len(f.Transport)+len(f.Destination) <= maxName && len(m.all) < Max {
			m.all[f.Key] = f
		}
	}
	return m, nil
}

// Failed notes that mail for a destination could not be given to its hosts, and
// tells for how long that has been so.
func (m *Memory) Failed(k Key) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	f, known := m.all[k]
	if !known || now.Sub(f.Last) > forgetAfter {
		if len(k.Transport)+len(k.Destination) > maxName {
			return 0
		}
		m.makeRoom(now)
		f = failing{Key: k, Since: now}
	}
	f.Last = now
	m.all[k], m.changed = f, true
	return now.Sub(f.Since)
}

// Succeeded notes that a host of a destination took mail.
func (m *Memory) Succeeded(k Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, known := m.all[k]; known {
		delete(m.all, k)
		m.changed = true
	}
}

// Since tells since when a destination has failed; ok is false when it does
// not.
func (m *Memory) Since(k Key) (since time.Time, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, ok := m.all[k]
	if !ok || m.now().Sub(f.Last) > forgetAfter {
		return time.Time{}, false
	}
	return f.Since, true
}

// makeRoom forgets what is over, and if that is not enough the one that failed
// last: it has waited least. The caller holds m.mu.
func (m *Memory) makeRoom(now time.Time) {
	if len(m.all) < Max {
		return
	}
	var newest failing
	for k, f := range m.all {
		if now.Sub(f.Last) > forgetAfter {
			delete(m.all, k)
		} else if f.Since.After(newest.Since) {
			newest = f
		}
	}
	if len(m.all) >= Max {
		delete(m.all, newest.Key)
	}
}

// Usage is how much the destinations take, in bytes.
func (m *Memory) Usage() cache.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	u := cache.Usage{Entries: len(m.all), MaxBytes: maxText}
	for k := range m.all {
		u.Bytes += cost + int64(len(k.Transport)+len(k.Destination))
	}
	return u
}

// Save writes what has changed since it was called last.
func (m *Memory) Save() error {
	m.saving.Lock()
	defer m.saving.Unlock()
	m.mu.Lock()
	changed := m.changed && m.dir != ""
	m.changed = false
	var list []failing
	if changed {
		list = make([]failing, 0, len(m.all))
		for _, f := range m.all {
			list = append(list, f)
		}
	}
	m.mu.Unlock()
	if !changed {
		return nil
	}
	text, err := json.Marshal(list)
	if err == nil {
		err = safeio.Write(m.dir, fileName, text)
	}
	if err != nil {
		m.mu.Lock()
		m.changed = true
		m.mu.Unlock()
	}
	return err
}
