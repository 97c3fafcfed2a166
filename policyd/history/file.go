package history

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/mxpipe/mxpipe/internal/safeio"
)

const (
	fileName = "history"
	maxLine  = 32 << 10
)

// file is where a history is kept over a restart.
type file struct {
	dir   string
	f     *os.File
	size  int64
	whole int64 // its size when it was last written as a whole
	err   error // why the last write failed; nil: it did not
}

// Open reads the history that is kept in dir, which no other process writes,
// and keeps it there. It can be used whatever the error: that says why the
// file could not be read or written; then it is kept in memory.
func Open(dir string, o Options) (*History, error) {
	h := New(o)
	text, err := os.ReadFile(filepath.Join(dir, fileName))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return h, err
	}
	for line := range bytes.Lines(text) {
		var e Entry
		if len(line) > maxLine || json.Unmarshal(line, &e) != nil || e.At.IsZero() {
			continue
		}
		e.bound()
		if !h.o.Addresses {
			e.hide()
		}
		h.add(&e)
	}
	h.file = &file{dir: dir}
	return h, h.file.rewrite(h)
}

// Close ends the writing.
func (h *History) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.file == nil || h.file.f == nil {
		return nil
	}
	err := h.file.f.Close()
	h.file = nil
	return err
}

// append writes an entry; the caller holds h.mu. A disk that takes nothing
// costs the entry's being kept, and nothing else.
func (f *file) append(h *History, e *Entry) {
	if f.err != nil || f.size > 2*f.whole+1<<20 {
		f.rewrite(h)
		return
	}
	text, err := json.Marshal(e)
	if err == nil && f.f == nil {
		f.f, err = safeio.Append(filepath.Join(f.dir, fileName))
	}
	if err == nil {
		var n int
		n, err = f.f.Write(append(text, '\n'))
		f.size += int64(n)
	}
	f.err = err
}

// rewrite writes what is remembered, and nothing else.
func (f *file) rewrite(h *History) error {
	var b bytes.Buffer
	for e := range h.kept.all() {
		text, err := json.Marshal(e)
		if err != nil {
			return err
		}
		b.Write(append(text, '\n'))
	}
	if f.f != nil {
		f.f.Close()
		f.f = nil
	}
	f.size, f.whole = int64(b.Len()), int64(b.Len())
	f.err = safeio.Write(f.dir, fileName, b.Bytes())
	return f.err
}
