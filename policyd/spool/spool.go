// Package spool holds messages between their arrival and their delivery.
//
// A message is brought into canonical form (package message) as it comes in.
// Up to a bound it stays in memory; a larger one moves into a temporary file
// in the state directory, which has lost its name before the first byte is
// written, so that nothing of it is left behind when the daemon dies: the
// mail server keeps the message, the spool only has a copy.
//
// Refused are a message that exceeds the size limit (5.3.4, for good) and one
// for which there is no room (4.3.1, for now).
package spool

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Memory is how much of a message is held in memory, in octets.
const Memory = 1 << 20

// Spool makes messages. It is safe for concurrent use.
type Spool struct {
	dir string
	max int64
}

// New returns a spool whose large messages live in dir, and whose messages
// have at most max octets in canonical form.
func New(dir string, max int64) *Spool { return &Spool{dir: dir, max: max} }

// Message is a message that is held until Close.
type Message struct {
	transport.Message
	file *os.File
}

// Close lets the message go.
func (m *Message) Close() {
	if m.file != nil {
		m.file.Close()
	}
}

// Receive reads a message up to io.EOF. Errors of r come back as they are; a
// *status.Error is the spool's own refusal, for the mail server to see.
func (s *Spool) Receive(r io.Reader) (*Message, error) {
	h := &hold{spool: s}
	canonical := message.NewCanonicalizer(h)
	_, err := io.Copy(canonical, r)
	if err == nil {
		err = canonical.Close()
	}
	if err == nil && h.file != nil {
		_, err = h.file.Write(h.memory.Bytes())
		err = h.trouble(err)
	}
	m := &Message{file: h.file}
	if err != nil {
		m.Close()
		return nil, err
	}
	m.Facts, m.Header = canonical.Facts(), h.header.Header()
	if h.file != nil {
		m.Content = h.file
	} else {
		m.Content = bytes.NewReader(h.memory.Bytes())
	}
	return m, nil
}

// hold takes the canonical octets. Once there is a file, memory is the buffer
// in front of it.
type hold struct {
	spool  *Spool
	size   int64
	memory bytes.Buffer
	file   *os.File
	header message.HeaderReader
}

// buffer is how much is gathered for one write to the file.
const buffer = 64 << 10

func (h *hold) Write(p []byte) (int, error) {
	h.size += int64(len(p))
	if h.size > h.spool.max {
		return 0, &status.Error{Code: status.New(status.Permanent, 3, 4),
			Text: fmt.Sprintf("the message has more than the %d bytes of max_message_size", h.spool.max)}
	}
	if !h.header.Done() {
		h.header.Write(p)
	}
	limit := Memory
	if h.file != nil {
		limit = buffer
	}
	if h.memory.Len()+len(p) > limit {
		if err := h.spill(); err != nil {
			return 0, err
		}
	}
	return h.memory.Write(p)
}

func (h *hold) spill() error {
	if h.file == nil {
		file, err := os.CreateTemp(h.spool.dir, "message-")
		if err == nil {
			h.file = file
			err = os.Remove(file.Name())
		}
		if err != nil {
			return h.trouble(err)
		}
	}
	_, err := h.file.Write(h.memory.Bytes())
	if h.memory.Cap() > buffer {
		h.memory = bytes.Buffer{}
	} else {
		h.memory.Reset()
	}
	return h.trouble(err)
}

// trouble makes the answer for a disk that does not do its work.
func (h *hold) trouble(err error) error {
	if err == nil {
		return nil
	}
	var path *os.PathError
	if errors.As(err, &path) {
		err = path.Err // the path is of no use to the mail server's users
	}
	return &status.Error{Code: status.New(status.Temporary, 3, 1), Text: "mxpolicyd can not hold the message", Err: err}
}
