package reply

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/mxpipe/mxpipe/transport/status"
)

// The bounds of one reply. RFC 5321 §4.5.3.1.5 allows 512 bytes a line; real
// servers exceed it.
const (
	MaxLine  = 2000 // bytes of a line, without its end
	MaxLines = 100
)

// Errors that [Read] returns, wrapped with what was wrong. After each of them
// the caller closes the connection and treats the failure as temporary.
var (
	// ErrMalformed says that what the server sent is not a reply.
	ErrMalformed = errors.New("malformed reply")
	// ErrTooLong says that the reply exceeds MaxLine or MaxLines.
	ErrTooLong = errors.New("reply too long")
)

// Read reads one reply, and not a byte more: what has arrived after it stays
// buffered in br, where the caller can see that a server, or someone in the
// middle, said more than it was asked. An end of the connection before the
// first byte of it is io.EOF, one inside of it io.ErrUnexpectedEOF; other
// errors of the connection, time-outs among them, come as they are. A reply
// that breaks the rules or bounds is ErrMalformed or ErrTooLong.
func Read(br *bufio.Reader) (Reply, error) {
	return read(br, MaxLines*MaxLine, nil, nil)
}

// ReadBrief is Read, but keeps no more of the lines than Reply.Text shows: for
// replies that are read by no other package.
func ReadBrief(br *bufio.Reader) (Reply, error) {
	return read(br, MaxText, nil, nil)
}

// Hide takes out of a server's words what nobody may read. It is given a text
// as the server wrote it, and makes no code or separator.
type Hide func(text string) string

// ReadHiding is ReadBrief for a server that may quote a secret. Neither the
// reply nor an error has it.
func ReadHiding(br *bufio.Reader, hide Hide) (Reply, error) {
	return read(br, MaxText, nil, hide)
}

// read reads one reply and keeps so many bytes of its lines. With junk it
// skips what is none, as far as junk allows. hide may be nil.
func read(br *bufio.Reader, keep int, junk *Junk, hide Hide) (Reply, error) {
	var r Reply
	for n := 0; n < MaxLines; {
		line, err := readLine(br)
		if err != nil {
			if n > 0 && errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return Reply{}, err
		}
		if hide != nil {
			line = hideIn(line, hide)
		}
		raw := line
		code, more, ok := parseCode(line)
		if junk != nil {
			line = junk.strip(raw)
			code, more, ok = junk.parse(line)
		}
		switch {
		case ok && (n == 0 || code == r.Code):
		case junk == nil && !ok:
			return Reply{}, malformed("no reply", line)
		case junk == nil:
			// Gluing the line on, or taking it for the next reply, would
			// give one command the answer to another.
			return Reply{}, malformed(fmt.Sprintf("the code changed from %d within one reply", r.Code), line)
		case !ok:
			if err := junk.skip(raw); err != nil {
				return Reply{}, err
			}
			continue
		}
		if len(line) < len(raw) || n > 0 && code != r.Code || len(line) > 3 && line[3] == '\t' {
			// It counts, but it is not as it should be. The last line's code
			// is the reply's, as with Postfix.
			if err := junk.skip(raw); err != nil {
				return Reply{}, err
			}
		}
		r.Code = code
		r.add(line, n == 0, &keep)
		if n++; !more {
			if r.Status.Class != 0 && int(r.Status.Class) != r.Class() {
				r.Status = status.Code{}
			}
			return r, nil
		}
	}
	return Reply{}, fmt.Errorf("%w: more than %d lines", ErrTooLong, MaxLines)
}

// hideIn hides what is behind a line's code and separator, or in all of a line
// that has none.
func hideIn(line []byte, hide Hide) []byte {
	if _, _, ok := parseCode(line); !ok || len(line) < 4 {
		return []byte(hide(string(line)))
	}
	return append(line[:4:4], hide(string(line[4:]))...)
}

// add appends a line's text, as far as there is room for it.
func (r *Reply) add(line []byte, first bool, keep *int) {
	text := ""
	if len(line) > 4 {
		text = strings.Trim(Clean(string(line[4:])), " ")
	}
	if first {
		if c, _, ok := status.Parse(text); ok && int(c.Class) == r.Class() {
			r.Status = c
		}
	}
	if len(text) > *keep {
		r.cut = true
		if *keep < len("5.999.999 ...") && !first {
			*keep = 0
			return
		}
		text = strings.Clone(Cut(text, *keep))
	}
	*keep -= len(text)
	r.Lines = append(r.Lines, text)
}

// parseCode takes a line's code, and whether further lines follow it.
func parseCode(line []byte) (code int, more, ok bool) {
	if len(line) < 3 || line[0] < '2' || line[0] > '5' {
		return 0, false, false
	}
	for _, c := range line[:3] {
		if c < '0' || c > '9' {
			return 0, false, false
		}
		code = code*10 + int(c-'0')
	}
	// A bare code is a last line (RFC 5321 §4.2).
	if len(line) == 3 || line[3] == ' ' {
		return code, false, true
	}
	return code, true, line[3] == '-'
}

// malformed quotes the start of the line, so that an administrator sees what
// answered: "SSH-2.0-..." on port 25 explains itself.
func malformed(why string, line []byte) error {
	return fmt.Errorf("%w: %s: %q", ErrMalformed, why, Cut(Clean(string(line)), 80))
}

// readLine returns the next line without its end. It is valid until the next
// read.
func readLine(br *bufio.Reader) ([]byte, error) {
	part, err := br.ReadSlice('\n')
	if err == nil {
		return endOff(part)
	}
	// The line is longer than the connection's buffer, or the connection
	// ended in it.
	var line []byte
	for {
		line = append(line, part...)
		if len(line) > MaxLine+2 {
			return endOff(line)
		}
		switch {
		case err == nil:
			return endOff(line)
		case errors.Is(err, bufio.ErrBufferFull):
			part, err = br.ReadSlice('\n')
		case errors.Is(err, io.EOF) && len(line) > 0:
			return nil, io.ErrUnexpectedEOF
		default:
			return nil, err
		}
	}
}

// endOff cuts CRLF or LF off and holds the line to its bound.
func endOff(line []byte) ([]byte, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	line = bytes.TrimSuffix(line, []byte("\r"))
	if len(line) > MaxLine {
		return nil, fmt.Errorf("%w: a line of more than %d bytes", ErrTooLong, MaxLine)
	}
	return line, nil
}
