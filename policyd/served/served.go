// Package served remembers, on disk, which recipients of a message already
// have it although the mail server was told to try again, or could not be
// told at all.
//
// One exit status is all that a pipe carries for all recipients of a call. If
// one recipient was accepted and another has to wait, the mail server tries
// both again; so the accepted one is written down under the mail server's
// queue id, the sender and a digest of the message, and skipped at the
// next try. Without a queue id nothing is remembered: two messages that are
// alike might be meant to be two.
//
// A mail server may hand over one message in many calls, several at once, each
// with other recipients. Their recipients come together in one record, so
// Remember adds to what is known, and Forget drops a record only when the mail
// server is done with everyone in it.
//
// A record is one small file in the directory, written whole or not at all, and
// synced before the mail server gets its answer. What cannot be trusted to be
// what was written counts as no record, since a second copy is better than a
// lost message: record.go says how that is told. Records are forgotten seven
// days after they were last written, the oldest ones sooner when there are more
// than 20,000 of them or 256 MiB. A record that cannot be written, as on a full
// disk, is held in memory, up to 8 MiB of all such, until WritePending has
// written it: only the end of the daemon makes it forget before.
package served

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/safeio"
	"github.com/mxpipe/mxpipe/transport"
)

const (
	keep       = 7 * 24 * time.Hour
	maxRecords = 20_000
	maxTotal   = 256 << 20 // bytes of all records together
	maxHeld    = 8 << 20   // bytes of the records that could not be written
	sweepEvery = time.Hour
)

// Store is the set of records in one directory, which no other process
// writes. It is safe for concurrent use.
type Store struct {
	dir    string
	now    func() time.Time
	bounds bounds

	// writing holds one lock for some of the names each: a file is
	// replaced and removed under its lock.
	writing [64]sync.Mutex

	mu      sync.Mutex // never held across I/O
	records map[string]entry
	ids     map[string]int // how many records there are for a queue id
	total   int64          // bytes
	held    int            // bytes of entry.held
	swept   time.Time
}

type entry struct {
	written time.Time
	size    int64
	held    string // the record, when it could not be written
}

// bounds are how much is remembered.
type bounds struct {
	records int
	total   int64
}

// Key names one message in a mail server's queue; the zero Key names none.
type Key struct {
	name string
}

// A name is the start of the queue id's digest, and that of the message's.
const (
	idLength   = 24
	nameLength = idLength + len("-") + 40
)

// Open reads which records there are in dir, which it makes if need be. The
// error is for the administrator: the directory cannot be made or listed.
func Open(dir string, now func() time.Time) (*Store, error) {
	return open(dir, now, bounds{maxRecords, maxTotal})
}

func open(dir string, now func() time.Time, b bounds) (*Store, error) {
	if err := safeio.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := &Store{dir: dir, now: now, bounds: b, records: map[string]entry{}, ids: map[string]int{}}
	for _, e := range entries {
		switch info, err := e.Info(); {
		case err != nil || !info.Mode().IsRegular():
			// Not ours.
		case strings.HasPrefix(e.Name(), safeio.TempPrefix), strings.HasPrefix(e.Name(), oldTempPrefix):
			os.Remove(filepath.Join(dir, e.Name())) // left by a crash
		case isName(e.Name()):
			// A clock that was wrong for a while must not keep a record for
			// ever.
			m.add(e.Name(), entry{written: earlier(info.ModTime(), now()), size: info.Size()})
		}
	}
	m.Sweep()
	return m, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

func isName(s string) bool {
	if len(s) != nameLength || s[idLength] != '-' {
		return false
	}
	for i := range len(s) {
		if i != idLength && !strings.ContainsRune("0123456789abcdef", rune(s[i])) {
			return false
		}
	}
	return true
}

func idOf(queueID string) string {
	sum := sha256.Sum256([]byte(queueID))
	return hex.EncodeToString(sum[:])[:idLength]
}

// KeyOf reads the message and gives its key; without a queue id that is the
// zero Key. The error is that of reading.
func KeyOf(queueID, sender string, msg *transport.Message) (Key, error) {
	if queueID == "" {
		return Key{}, nil
	}
	h := sha256.New()
	io.WriteString(h, sender+"\x00")
	var err error
	// it is in memory
	if held, ok := msg.Content.(interface{ WriteAllTo(io.Writer) error }); ok {
		err = held.WriteAllTo(h)
	} else {
		_, err = io.Copy(h, io.NewSectionReader(msg.Content, 0, msg.Facts.Size))
	}
	if err != nil {
		return Key{}, err
	}
	return Key{idOf(queueID) + "-" + hex.EncodeToString(h.Sum(nil))[:nameLength-idLength-1]}, nil
}

// Known reports whether there is any record for the queue id, so that a
// message's digest need not be made for nothing.
func (m *Store) Known(queueID string) bool {
	if queueID == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[idOf(queueID)] > 0
}

// Usage tells how many records there are, and how much they take on disk.
func (m *Store) Usage() cache.Usage {
	m.mu.Lock()
	defer m.mu.Unlock()
	return cache.Usage{Entries: len(m.records), Bytes: m.total, MaxBytes: m.bounds.total}
}

// Recall gives the recipients of the message that have it already, each with
// the line it was accepted with; nil when none is known.
func (m *Store) Recall(key Key) map[string]string {
	m.mu.Lock()
	e, ok := m.records[key.name]
	m.mu.Unlock()
	switch {
	case !ok || m.now().Sub(e.written) > keep:
		return nil
	case e.held != "":
		return decode(key.name, []byte(e.held))
	}
	return m.load(key.name)
}

// Remember writes down who has the message, beside those who are known to have
// it. An error means that a further try may deliver to these recipients again,
// after a restart if not at once.
func (m *Store) Remember(key Key, got map[string]string) error {
	if key.name == "" || len(got) == 0 {
		return nil
	}
	if err := m.write(key, got); err != nil {
		return err
	}
	m.Sweep()
	return nil
}

func (m *Store) write(key Key, got map[string]string) error {
	lock := m.lock(key.name)
	defer lock.Unlock()
	all := maps.Clone(got)
	for rcpt, line := range m.Recall(key) {
		if _, ok := all[rcpt]; !ok {
			all[rcpt] = line
		}
	}
	text := encode(key.name, all)
	if len(text) > maxRecord {
		return errTooLarge
	}
	e := entry{written: m.now(), size: int64(len(text))}
	err := writeWhole(m.dir, key.name, text)
	m.mu.Lock()
	defer m.mu.Unlock()
	if err != nil {
		if m.held+len(text) > maxHeld {
			return err
		}
		e.held = string(text)
	}
	m.add(key.name, e)
	return err
}

// WritePending writes down what could not be written before and is still held,
// until that fails again or ctx ends. Call it now and then, and at the end.
func (m *Store) WritePending(ctx context.Context) {
	for name, e := range m.unwritten() {
		if ctx.Err() != nil || !m.writePending(name, e) {
			return
		}
	}
}

// unwritten gives the records that are held.
func (m *Store) unwritten() map[string]entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.held == 0 {
		return nil
	}
	held := map[string]entry{}
	for name, e := range m.records {
		if e.held != "" {
			held[name] = e
		}
	}
	return held
}

// writePending writes one record, unless somebody has dropped or written it
// since.
func (m *Store) writePending(name string, e entry) bool {
	lock := m.lock(name)
	defer lock.Unlock()
	m.mu.Lock()
	same := m.records[name] == e
	m.mu.Unlock()
	if !same {
		return true
	}
	if writeWhole(m.dir, name, []byte(e.held)) != nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	e.held = ""
	m.add(name, e)
	return true
}

// Forget drops what is known of the message, when the mail server is done with
// all the recipients who are known to have it: done names those it is done
// with.
func (m *Store) Forget(key Key, done []string) {
	if key.name == "" {
		return
	}
	lock := m.lock(key.name)
	defer lock.Unlock()
	for rcpt := range m.Recall(key) {
		if !slices.Contains(done, rcpt) {
			return
		}
	}
	m.drop(key.name)
}

// lock takes the lock of a name, to be unlocked by the caller.
func (m *Store) lock(name string) *sync.Mutex {
	var n byte
	for _, c := range []byte(name) {
		n = n*31 + c
	}
	l := &m.writing[int(n)%len(m.writing)]
	l.Lock()
	return l
}

// add notes a record; the caller has mu.
func (m *Store) add(name string, e entry) {
	old, ok := m.records[name]
	if !ok {
		m.ids[name[:idLength]]++
	}
	m.total += e.size - old.size
	m.held += len(e.held) - len(old.held)
	m.records[name] = e
}

// drop removes a record; the caller has the name's lock.
func (m *Store) drop(name string) {
	// what stays is found at the next start
	os.Remove(filepath.Join(m.dir, name))
	m.mu.Lock()
	defer m.mu.Unlock()
	e, ok := m.records[name]
	if !ok {
		return
	}
	m.total -= e.size
	m.held -= len(e.held)
	delete(m.records, name)
	id := name[:idLength]
	if m.ids[id]--; m.ids[id] == 0 {
		delete(m.ids, id)
	}
}

// Sweep forgets what is too old, and the oldest of too many. Remember does it
// now and then by itself.
func (m *Store) Sweep() {
	for name, e := range m.surplus() {
		lock := m.lock(name)
		m.mu.Lock()
		same := m.records[name] == e // it was not written anew since
		m.mu.Unlock()
		if same {
			m.drop(name)
		}
		lock.Unlock()
	}
}

// surplus gives what sweep is to forget.
func (m *Store) surplus() map[string]entry {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	full := len(m.records) > m.bounds.records || m.total > m.bounds.total
	if !full && now.Sub(m.swept) < sweepEvery {
		return nil
	}
	m.swept = now
	gone := map[string]entry{}
	left, total := len(m.records), m.total
	forget := func(name string) {
		e := m.records[name]
		gone[name] = e
		left, total = left-1, total-e.size
	}
	for name, e := range m.records {
		if now.Sub(e.written) > keep {
			forget(name)
		}
	}
	if left <= m.bounds.records && total <= m.bounds.total {
		return gone
	}
	// A tenth more goes, so that this is not the work of every record.
	oldest := slices.SortedFunc(maps.Keys(m.records), func(a, b string) int {
		return m.records[a].written.Compare(m.records[b].written)
	})
	for _, name := range oldest {
		if left <= m.bounds.records/10*9 && total <= m.bounds.total/10*9 {
			break
		}
		if _, ok := gone[name]; !ok {
			forget(name)
		}
	}
	return gone
}
