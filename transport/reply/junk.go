package reply

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
)

// The bounds of what is skipped on one connection.
const (
	MaxJunkLines = 10
	MaxJunkBytes = 2000
)

// Junk reads the replies of a server that has said nothing yet but its greeting
// and its EHLO reply, and skips what is none there, as Postfix does: an
// empty or stray line before or inside of a reply, telnet negotiation before
// the code, a TAB after it, "220-" and "250 " in one reply (the last line's
// code counts). All of it together has to stay below MaxJunkLines and
// MaxJunkBytes. It is no good for a server that is asked several things at
// once, where each line that is skipped may be the answer to one of them.
// The zero Junk is ready.
type Junk struct {
	Lines int    // how many were skipped or were not as they should be
	First string // the first of them, fit for a log
	// Skipped is called for each of them; nil: not called.
	Skipped func()
	bytes   int
}

// Read reads one reply, with all of its lines. Its errors are those of [Read];
// one that follows junk tells of it, and counts as malformed.
func (j *Junk) Read(br *bufio.Reader) (Reply, error) {
	r, err := read(br, MaxLines*MaxLine, j, nil)
	if err != nil && j.Lines > 0 && errors.Is(err, os.ErrDeadlineExceeded) {
		err = fmt.Errorf("%w: %v: %w", ErrMalformed, j, err)
	}
	return r, err
}

// Skip takes off br what is there already and is no reply. What is left begins
// with a reply, or with a line that has not come whole.
func (j *Junk) Skip(br *bufio.Reader) error {
	for {
		ahead, _ := br.Peek(br.Buffered())
		n := bytes.IndexByte(ahead, '\n') + 1
		line := ahead[:n]
		if n == 0 { // telnet negotiation has no line end
			rest := j.strip(ahead)
			line = ahead[:len(ahead)-len(rest)]
		} else if _, _, ok := j.parse(j.strip(line)); ok {
			return nil
		}
		if len(line) == 0 {
			return nil
		}
		if err := j.skip(line); err != nil {
			return err
		}
		br.Discard(len(line))
	}
}

// skip counts something that is skipped, or is not as it should be.
func (j *Junk) skip(line []byte) error {
	line = bytes.TrimRight(line, "\r\n")
	if j.Lines++; j.Lines == 1 {
		j.First = Cut(Clean(string(line)), 80)
	}
	if j.Skipped != nil {
		j.Skipped()
	}
	if j.bytes += len(line) + len("\r\n"); j.Lines > MaxJunkLines || j.bytes > MaxJunkBytes {
		return malformed("no reply", line)
	}
	return nil
}

// parse is parseCode, but takes a TAB for the separator of a last line.
func (j *Junk) parse(line []byte) (code int, more, ok bool) {
	if len(line) > 3 && line[3] == '\t' {
		line = line[:3]
	}
	return parseCode(bytes.TrimRight(line, "\r\n"))
}

// The commands of telnet (RFC 854).
const (
	telnetSE   = 240
	telnetSB   = 250
	telnetWill = 251 // up to DON'T, 254, each followed by an option it
	telnetIAC  = 255
)

// strip takes telnet negotiation off the beginning of a line.
func (j *Junk) strip(line []byte) []byte {
	for len(line) > 1 && line[0] == telnetIAC {
		switch n := 2; {
		case line[1] == telnetSB:
			end := bytes.Index(line, []byte{telnetIAC, telnetSE})
			if end < 0 {
				return line
			}
			line = line[end+2:]
		case line[1] >= telnetWill && line[1] < telnetIAC:
			n = 3
			fallthrough
		default:
			line = line[min(n, len(line)):]
		}
	}
	return line
}

// String tells of the junk in a few words, for a log.
func (j *Junk) String() string {
	return strconv.Itoa(j.Lines) + " lines that are no replies, the first " + strconv.Quote(j.First)
}
