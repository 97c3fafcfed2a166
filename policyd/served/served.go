// Package served remembers, on disk, which recipients of a message already
// have it although the mail server was told to try again, or could not be
// told at all.
//
// One exit status is all that a pipe carries for all recipients of a call. If
// one recipient was accepted and another has to wait, the mail server tries
// both again; so the accepted one is written down under the mail server's
// queue id and a digest of the message, and passed over at the next try.
// Without a queue id nothing is remembered: two messages that are alike might
// be meant to be two.
//
// A record is one small file, written whole or not at all, and synced before
// the mail server gets its answer. Records are forgotten after seven days,
// the oldest ones sooner when there are very many; a record that can not be
// read counts as none, since a second copy is better than a lost one.
package served

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/transport"
)

const (
	keep     = 7 * 24 * time.Hour
	maxFiles = 20000
	maxBytes = 2 << 20 // of one record
	header   = "mxpipe served 1"
)

// Memory is the set of records in one directory. It is safe for concurrent
// use.
type Memory struct {
	dir string
	now func() time.Time

	mu    sync.Mutex
	files map[string]time.Time // name to when it was written
	ids   map[string]int       // how many files there are for one queue id
	swept time.Time
}

// Key names one message of a mail server's queue; the zero Key names none.
type Key struct {
	name string
}

// Open reads which records there are in dir, which it makes if need be.
func Open(dir string, now func() time.Time) (*Memory, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	m := &Memory{dir: dir, now: now, files: map[string]time.Time{}, ids: map[string]int{}}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			os.Remove(filepath.Join(dir, e.Name())) // torn by a crash
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() && len(e.Name()) == nameLength {
			m.add(e.Name(), info.ModTime())
		}
	}
	m.sweep()
	return m, nil
}

const (
	idLength   = 24 // hex digits of a queue id's hash
	nameLength = idLength + 1 + 40
	tempPrefix = "new-"
)

func idPart(queueID string) string {
	sum := sha256.Sum256([]byte(queueID))
	return hex.EncodeToString(sum[:idLength/2])
}

// Known reports whether there is any record for the queue id, so that a
// message's digest need not be made for nothing.
func (m *Memory) Known(queueID string) bool {
	if queueID == "" {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ids[idPart(queueID)] > 0
}

// KeyOf reads the message and gives its key. The sender is part of it.
func KeyOf(queueID, sender string, msg *transport.Message) (Key, error) {
	if queueID == "" {
		return Key{}, nil
	}
	h := sha256.New()
	io.WriteString(h, sender+"\x00")
	if _, err := io.Copy(h, io.NewSectionReader(msg.Content, 0, msg.Facts.Size)); err != nil {
		return Key{}, err
	}
	return Key{name: idPart(queueID) + "-" + hex.EncodeToString(h.Sum(nil)[:20])}, nil
}

// Recall gives the recipients of the message that have it already, each with
// the line it was accepted with; nil when none is known.
func (m *Memory) Recall(key Key) map[string]string {
	m.mu.Lock()
	written, ok := m.files[key.name]
	m.mu.Unlock()
	if !ok || m.now().Sub(written) > keep {
		return nil
	}
	text, err := readBounded(filepath.Join(m.dir, key.name))
	if err != nil {
		return nil
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 8<<10)
	if !lines.Scan() || lines.Text() != header {
		return nil
	}
	got := map[string]string{}
	for lines.Scan() {
		if rcpt, line, ok := strings.Cut(lines.Text(), "\t"); ok {
			got[rcpt] = line
		}
	}
	return got
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes))
}

// Remember writes down who has the message, in place of what was known. The
// addresses and lines hold no control characters. An error means that a
// further try may deliver to these recipients again.
func (m *Memory) Remember(key Key, got map[string]string) error {
	if key.name == "" || len(got) == 0 {
		return nil
	}
	var b bytes.Buffer
	b.WriteString(header + "\n")
	for rcpt, line := range got {
		b.WriteString(rcpt + "\t" + line + "\n")
	}
	if err := writeWhole(m.dir, key.name, b.Bytes()); err != nil {
		return err
	}
	m.mu.Lock()
	m.add(key.name, m.now())
	m.mu.Unlock()
	m.sweep()
	return nil
}

// writeWhole writes a file so that it is there whole or not at all.
func writeWhole(dir, name string, text []byte) error {
	f, err := os.CreateTemp(dir, tempPrefix)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// Forget drops the record of a message that the mail server is done with.
func (m *Memory) Forget(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if _, ok := m.files[key.name]; ok {
		m.drop(key.name)
	}
}

func (m *Memory) add(name string, at time.Time) {
	if _, ok := m.files[name]; !ok {
		m.ids[name[:idLength]]++
	}
	m.files[name] = at
}

func (m *Memory) drop(name string) {
	os.Remove(filepath.Join(m.dir, name))
	delete(m.files, name)
	if m.ids[name[:idLength]]--; m.ids[name[:idLength]] == 0 {
		delete(m.ids, name[:idLength])
	}
}

// sweep forgets what is too old, and the oldest of too many.
func (m *Memory) sweep() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.files) <= maxFiles && m.now().Sub(m.swept) < time.Hour {
		return
	}
	m.swept = m.now()
	for name, at := range m.files {
		if m.now().Sub(at) > keep {
			m.drop(name)
		}
	}
	if len(m.files) <= maxFiles {
		return
	}
	names := make([]string, 0, len(m.files))
	for name := range m.files {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return m.files[a].Compare(m.files[b]) })
	for _, name := range names[:len(names)-maxFiles*9/10] {
		m.drop(name)
	}
}
