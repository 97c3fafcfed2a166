// Package netstring reads and writes netstrings, "5:hello,", in which the
// socketmap protocol wraps its requests and replies
// (https://cr.yp.to/proto/netstrings.txt).
//
// The grammar is kept to the letter, since where a netstring ends is all that
// keeps one request from another: the length has no sign and no leading zero,
// and nothing but a comma follows the string. Once that fails no one can tell
// where the next one begins, so a [Reader] gives nothing more. A length beyond
// the reader's bound is refused before anything of the string is read.
package netstring

import (
	"bufio"
	"errors"
	"io"
	"strconv"
)

// What can be wrong with a netstring. The caller says so to the other side, if
// it likes, and closes the connection.
var (
	// ErrMalformed means that what came is no netstring.
	ErrMalformed = errors.New("not a netstring")
	// ErrTooLong means that the string is longer than the reader's bound.
	ErrTooLong = errors.New("the netstring is too long")
)

// Append appends s to dst as a netstring.
func Append(dst []byte, s string) []byte {
	dst = strconv.AppendInt(dst, int64(len(s)), 10)
	dst = append(dst, ':')
	dst = append(dst, s...)
	return append(dst, ',')
}

// Reader reads one netstring after the other. It is for one goroutine.
type Reader struct {
	r   *bufio.Reader
	max int
	err error
}

// NewReader makes a reader of strings of at most max bytes.
func NewReader(r io.Reader, max int) *Reader {
	// The longest string, its length, colon and comma must fit.
	return &Reader{r: bufio.NewReaderSize(r, max+len(strconv.Itoa(max))+2), max: max}
}

// Next gives the next string, which is good until Next is called again. The
// error is io.EOF when the input ends between two netstrings,
// io.ErrUnexpectedEOF when it ends within one, ErrMalformed, ErrTooLong, or
// that of the input; it stays.
func (r *Reader) Next() ([]byte, error) {
	if r.err != nil {
		return nil, r.err
	}
	s, err := r.next()
	r.err = err
	return s, err
}

// Buffered reports whether something has come already of what Next will give.
func (r *Reader) Buffered() bool { return r.r.Buffered() > 0 }

func (r *Reader) next() ([]byte, error) {
	n, err := r.length()
	if err != nil {
		return nil, err
	}
	s, err := r.r.Peek(n + 1)
	if err != nil {
		return nil, within(err)
	}
	if s[n] != ',' {
		return nil, ErrMalformed
	}
	_, err = r.r.Discard(n + 1)
	return s[:n], err
}

// length reads the digits and the colon.
func (r *Reader) length() (int, error) {
	n := 0
	for i := 0; ; i++ {
		c, err := r.r.ReadByte()
		switch {
		case err != nil && i == 0:
			return 0, err
		case err != nil:
			return 0, within(err)
		case c == ':' && i > 0:
			return n, nil
		case c < '0' || c > '9', i == 1 && n == 0: // "01:"
			return 0, ErrMalformed
		}
		if n = 10*n + int(c-'0'); n > r.max {
			return 0, ErrTooLong
		}
	}
}

// within is the error of an input that fails in the middle.
func within(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
