package lmtp

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
)

// framing knows where in a client's bytes a command ends and a message begins
// and ends. It is what the library makes of them, told in advance, so that the
// library never has bytes in its buffer that might turn out to be something
// else. In a message that comes by DATA, which body reads in the library's
// place, a CR that no LF follows is a byte like any other.
type framing struct {
	data bool // the end of data is to come
	// how many bytes, of those buffered or yet to come, the library may read
	free  int64
	verb  string // of the last command, in upper case
	param string // of a MAIL, its ENVID, and of a RCPT, its ORCPT
	size  int64  // of a MAIL, its SIZE; 0: it has none
	// the last command is a BDAT, whose chunk is among what is free
	chunk bool

	// Of the current line of DATA.
	length int // in bytes, 2 meaning more
	dot    bool
}

var (
	errLongLine  = errors.New("a command line is too long")
	errHugeChunk = errors.New("a chunk is too large")
)

// look frees what it can of buf, which begins with the first byte that is not
// free, when nothing is free. When still nothing is, it wants to see more. It
// tells whether it is a command that it freed.
func (f *framing) look(buf []byte) (command bool, err error) {
	if f.data {
		f.free = int64(f.body(buf))
		return false, nil
	}
	n := bytes.IndexByte(buf, '\n') + 1
	if n > maxLine || n == 0 && len(buf) >= maxLine {
		return false, errLongLine
	}
	if n == 0 {
		return false, nil
	}
	line := strings.TrimRight(string(buf[:n]), "\r\n")
	size, ok := chunkSize(line)
	if !ok && isHuge(line) {
		return false, errHugeChunk
	}
	f.free = int64(n)
	f.verb = strings.ToUpper(line[:min(4, len(line))])
	switch f.verb {
	case "MAIL":
		f.size = takeSize(buf[:n])
		f.param = takeParam(buf[:n], "ENVID")
	case "RCPT":
		f.param = takeParam(buf[:n], "ORCPT")
	}
	f.chunk = ok
	f.free += size
	return true, nil
}

// chunkSize reads a BDAT command just as the library does: ok means that it
// will take so many bytes for the chunk, whether it refuses it or not, and
// otherwise none.
func chunkSize(line string) (size int64, ok bool) {
	if len(line) < 6 || strings.ToUpper(line[:4]) != "BDAT" || line[4] != ' ' {
		return 0, false
	}
	args := strings.Fields(line[5:])
	if len(args) == 0 || len(args) > 2 || len(args) == 2 && !strings.EqualFold(args[1], "LAST") {
		return 0, false
	}
	n, err := strconv.ParseUint(args[0], 10, 32)
	return int64(n), err == nil
}

// isHuge reports whether a BDAT command has a size that the library does not
// take for one, and would answer without reading the chunk, so that the message
// in it would be taken for commands.
func isHuge(line string) bool {
	args := strings.Fields(line)
	if len(args) < 2 || !strings.EqualFold(args[0], "BDAT") {
		return false
	}
	_, err := strconv.ParseUint(args[1], 10, 32)
	return errors.Is(err, strconv.ErrRange)
}

// endOfData is how a message by DATA ends, from the beginning of a line.
const endOfData = ".\r\n"

// body gives how many bytes of buf belong to the message for certain. The end
// of data is among them in one piece, as the last ones, when data has become
// false.
func (f *framing) body(buf []byte) int {
	n := 0
	for {
		rest := buf[n:]
		i := bytes.IndexByte(rest, '\r')
		if i < 0 || i+1 == len(rest) {
			// What follows a CR is yet to come, or a dot that begins a line.
			if i < 0 {
				i = len(rest)
			}
			if f.length == 0 && i == 1 && rest[0] == '.' {
				return n
			}
			f.text(rest[:i])
			return n + i
		}
		f.text(rest[:i])
		n += i
		if rest[i+1] != '\n' {
			f.text(rest[i : i+1])
			n++
			continue
		}
		n += 2
		end := f.length == 1 && f.dot
		f.length = 0
		if end {
			f.data = false
			return n
		}
	}
}

// text notes bytes of a line.
func (f *framing) text(b []byte) {
	if f.length == 0 && len(b) > 0 {
		f.dot = b[0] == '.'
	}
	f.length = min(2, f.length+len(b))
}
