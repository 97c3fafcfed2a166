package message

import (
	"bytes"
	"io"
)

// DotWriter stuffs the dots of a message for DATA (RFC 5321 §4.5.2): every line
// that begins with a dot gets one more, so that CRLF.CRLF is the end of the
// message and nothing else. What is written to it has to be the canonical
// form. It buffers nothing: what Write took has gone to the underlying writer.
type DotWriter struct {
	w      io.Writer
	inLine bool // the last byte was not an LF; at the start, none is
}

// NewDotWriter returns a DotWriter onto w.
func NewDotWriter(w io.Writer) *DotWriter { return &DotWriter{w: w} }

var dot = []byte(".")

// Write takes the next piece. It returns how many bytes of p were written,
// stuffed dots not counted, and the underlying writer's error.
func (d *DotWriter) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if !d.inLine && p[0] == '.' {
		if _, err := d.w.Write(dot); err != nil {
			return 0, err
		}
	}
	done := 0
	for {
		i := bytes.Index(p[done:], []byte("\n."))
		if i < 0 {
			break
		}
		n, err := d.w.Write(p[done : done+i+1])
		done += n
		if err == nil {
			_, err = d.w.Write(dot)
		}
		if err != nil {
			return done, err
		}
	}
	n, err := d.w.Write(p[done:])
	done += n
	d.inLine = p[len(p)-1] != '\n'
	return done, err
}

// Close writes the end of the message, ".\r\n", which commits it. Should the
// last line have no end, it gets one first. The underlying writer stays open.
func (d *DotWriter) Close() error {
	end := []byte("\r\n.\r\n")
	if !d.inLine {
		end = end[len("\r\n"):]
	}
	_, err := d.w.Write(end)
	return err
}
