// Package spool holds messages between their arrival and their delivery.
//
// A message is brought into canonical form (package message) as it comes in. Up
// to 1 MiB of it stays in memory, while all messages together hold no more than
// 64 MiB there, and 64 KiB of it otherwise; a larger one goes into a temporary
// file in the state directory, which has lost its name before the first byte is
// written, so that nothing of it is left behind when the daemon dies: the mail
// server keeps the message, the spool only has a copy. For the same reason the
// file is never synced.
//
// Refused are a message that exceeds the size limit (5.3.4, for good) and one
// for which there is no room (4.3.1, for now). A state directory that cannot
// be written holds up large messages only.
package spool

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Memory is how much of a message is held in memory, in bytes of the canonical
// form.
const Memory = 1 << 20

// Total is how much all messages hold in memory before one that is larger than
// 64 KiB goes into a file. A thousand messages that arrive at once would else
// take a gigabyte on their way to the disk.
const Total = 64 << 20

// Spool makes messages. It is safe for concurrent use.
type Spool struct {
	dir string
	max atomic.Int64
	// what header sections are searched for besides
	watched atomic.Pointer[[]message.Field]
	// bytes of memory that messages hold
	inMemory atomic.Int64
	readers  sync.Pool
	// memories are byte slices of pooled bytes, for messages that are smaller.
	memories sync.Pool
}

// reader is what every message needs while it comes in.
type reader struct {
	canonical *message.Canonicalizer
	piece     []byte // for readers that bring no buffer of their own
}

func (s *Spool) reader(dst io.Writer) *reader {
	if in, ok := s.readers.Get().(*reader); ok {
		in.canonical.Reset(dst)
		return in
	}
	return &reader{canonical: message.NewCanonicalizer(dst), piece: make([]byte, pieceSize)}
}

// putReader takes an intake back when its message is there, or failed.
func (s *Spool) putReader(in *reader) {
	in.canonical.Reset(nil)
	s.readers.Put(in)
}

const pieceSize = 16 << 10

// New returns a spool whose large messages live in dir, and whose messages
// have at most max bytes in canonical form.
func New(dir string, max int64) *Spool {
	s := &Spool{dir: dir}
	s.SetMax(max)
	return s
}

// SetMax changes how many bytes a message may have. Messages that are on
// their way in keep the bound that they started with.
func (s *Spool) SetMax(max int64) { s.max.Store(max) }

// Watch has the header sections of messages searched for fields besides those
// that every message is searched for. Messages that are on their way in keep
// what they started with.
func (s *Spool) Watch(fields []message.Field) { s.watched.Store(&fields) }

// Max gives how many bytes a message may have.
func (s *Spool) Max() int64 { return s.max.Load() }

// Usage tells how much of messages is in memory.
func (s *Spool) Usage() cache.Usage { return cache.Usage{Bytes: s.inMemory.Load(), MaxBytes: Total} }

// Check reports whether a large message could be held at this moment: it makes
// a file and lets it go. The error is for the administrator.
func (s *Spool) Check() error {
	f, err := s.openTmpfile()
	if err != nil {
		return err
	}
	return f.Close()
}

// openTmpfile makes a file without a name.
func (s *Spool) openTmpfile() (*os.File, error) {
	f, err := os.CreateTemp(s.dir, "message-")
	if err != nil {
		return nil, err
	}
	if err = os.Remove(f.Name()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Message is a message that is held until Close. Its content may be read by
// several goroutines at once.
type Message struct {
	transport.Message
	spool   *Spool
	file    *os.File
	memory  []byte
	counted int64 // what the spool counts for it
}

// Close lets the message go. It must not be read any more.
func (m *Message) Close() {
	if m.file != nil {
		m.file.Close()
	}
	if cap(m.memory) == pooled {
		m.spool.memories.Put((*[pooled]byte)(m.memory[:pooled]))
	}
	m.memory = nil
	m.spool.inMemory.Add(-m.counted)
	m.counted = 0
}

// Receive reads a message up to io.EOF. Errors of r come back as they are; a
// *status.Error is the spool's own refusal, for the mail server to see.
func (s *Spool) Receive(r io.Reader) (*Message, error) {
	h := &buffer{spool: s, max: s.max.Load()}
	if fields := s.watched.Load(); fields != nil {
		h.header.Reset(*fields)
	}
	in := s.reader(h)
	defer s.putReader(in)
	_, err := io.CopyBuffer(in.canonical, r, in.piece)
	if err == nil {
		err = in.canonical.Close()
	}
	if err == nil && h.file != nil {
		err = h.flush()
		h.memory = nil // the delivery may take long
		h.count()
	}
	m := &Message{spool: s, file: h.file, memory: h.memory, counted: h.counted}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.Facts, m.Header = in.canonical.Facts(), h.header.Header()
	if h.file != nil {
		m.Content = h.file
	} else {
		m.Content = memoryBody(h.memory)
	}
	return m, nil
}

// memoryBody is the content of a message in memory.
type memoryBody []byte

// ReadAt implements io.ReaderAt.
func (h memoryBody) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(h)) {
		return 0, io.EOF
	}
	n := copy(p, h[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAllTo writes all of the content, for who would otherwise need a buffer
// to read it.
func (h memoryBody) WriteAllTo(w io.Writer) error {
	_, err := w.Write(h)
	return err
}

// buffer takes the canonical bytes. Once there is a file, memory is the buffer
// in front of it.
type buffer struct {
	spool   *Spool
	max     int64
	size    int64
	memory  []byte
	counted int64 // what the spool counts for it
	file    *os.File
	header  message.HeaderReader
}

// room is how much of the message may be in memory at this moment.
func (h *buffer) room() int64 {
	if h.spool.inMemory.Load() > Total {
		return fileBuffer
	}
	return Memory
}

// count tells the spool how much memory the message holds by now.
func (h *buffer) count() {
	now := int64(cap(h.memory))
	h.spool.inMemory.Add(now - h.counted)
	h.counted = now
}

// fileBuffer is how much is gathered for one write to the file.
const fileBuffer = 64 << 10

func (h *buffer) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	if h.size > h.max {
		return 0, &status.Error{Code: status.New(status.Permanent, 3, 4),
			Text: fmt.Sprintf("the message is larger than max_message_size (%d bytes)", h.max)}
	}
	if !h.header.Done() {
		h.header.Write(p)
	}
	if h.file == nil && h.size > h.room() {
		if err := h.spill(); err != nil {
			return 0, err
		}
	}
	if h.file != nil && len(h.memory)+len(p) > fileBuffer {
		if err := h.flush(); err != nil {
			return 0, err
		}
	}
	h.keep(p)
	return len(p), nil
}

// pooled is the memory of an ordinary message. Without it each would leave
// more for the garbage collector than all the rest of its delivery.
const pooled = 32 << 10

// keep appends to memory, which never grows beyond its bound.
func (h *buffer) keep(p []byte) {
	if h.memory == nil && len(p) <= pooled {
		room, ok := h.spool.memories.Get().(*[pooled]byte)
		if !ok {
			room = new([pooled]byte)
		}
		h.memory = room[:0]
		h.count()
	}
	if need := len(h.memory) + len(p); need > cap(h.memory) {
		grown := make([]byte, len(h.memory), min(max(need, 2*cap(h.memory)), max(need, Memory)))
		copy(grown, h.memory)
		h.memory = grown
		h.count()
	}
	h.memory = append(h.memory, p...)
}

// spill moves what is in memory into a file.
func (h *buffer) spill() (err error) {
	if h.file, err = h.spool.openTmpfile(); err != nil {
		return noRoom(err)
	}
	if err := h.flush(); err != nil {
		return err
	}
	h.memory = make([]byte, 0, fileBuffer)
	h.count()
	return nil
}

func (h *buffer) flush() error {
	_, err := h.file.Write(h.memory)
	h.memory = h.memory[:0]
	return noRoom(err)
}

// noRoom makes the answer for a disk that does not do its work.
func noRoom(err error) error {
	if err == nil {
		return nil
	}
	var path *fs.PathError
	if errors.As(err, &path) {
		err = path.Err // the path is of no use to the mail server's users
	}
	return &status.Error{Code: status.New(status.Temporary, 3, 1), Text: "mxpolicyd cannot hold the message", Err: err}
}
