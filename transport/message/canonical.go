// Package message brings a message into the form in which it leaves, and reads
// what the transport must know of it.
//
// A [Canonicalizer] takes the message as the mail server wrote it, with LF,
// CRLF or mixed line ends, and writes the canonical form, in this order:
//
//  1. LF and CRLF become CRLF. A CR that no LF follows becomes a blank, as in
//     Postfix 3.9 and later (cleanup_replace_stray_cr_lf): some servers take
//     a bare CR for a line end, and what one server sees as a dot inside a
//     line would be the end of the message, and the rest commands, for the
//     next (SMTP smuggling). Were the CR made a line end, this program itself
//     would make the line that was never there.
//  2. A line of more than [MaxLine] bytes is folded: a piece of 998 bytes,
//     then CRLF and one blank and up to 997 bytes more, as often as needed.
//     RFC 5321 §4.5.3.1.6 allows 1,000 with CRLF. Postfix's smtp(8) cuts at the
//     same places (smtp_line_length_limit), wherever that is in the text; a
//     cleverer cut would help some readers, but would surprise anyone who knows
//     the other.
//  3. A last line without an end gets one. An empty message becomes one empty
//     line, so that the canonical form ends with CRLF without exception.
//
// Nothing else changes: neither NUL nor bytes above 127, nor leading dots,
// which are the matter of [DotWriter] and only of DATA. On the way the facts
// are gathered that the choice of SMTP extensions depends on ([Facts]).
//
// A [HeaderReader] collects the header section, bounded, for the few fields
// that steer a delivery. A [DotWriter] makes the canonical form fit for DATA.
//
// All of them take bytes in pieces of any size and give the same for every
// way of cutting; a Write allocates no memory, apart from the header section
// that a HeaderReader keeps. None is safe for concurrent use.
package message

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
)

// MaxLine is the most bytes of a line in the canonical form, its CRLF not
// counted.
const MaxLine = 998

// ErrClosed says that Write was called after Close, a defect of the caller.
var ErrClosed = errors.New("write to a message that is complete")

// Facts are what a [Canonicalizer] has seen.
type Facts struct {
	// Size is the length of the canonical form in bytes, as for the SIZE
	// parameter of MAIL (RFC 1870 §5) and for BDAT.
	Size int64
	// HeaderSize is the part of Size up to the empty line that ends the
	// header section, without it; the whole Size when there is none.
	HeaderSize int64
	// EightBit: a byte above 127 is somewhere in the message (RFC 6152).
	EightBit bool
	// HeaderEightBit: one is in the header section (RFC 6532).
	HeaderEightBit bool
	// LineStartsWithCommand: a line of the canonical form begins, after
	// blanks, with MAIL, RCPT, DATA or BDAT in any letter case. A server that
	// takes such a message for commands would run them: MAIL starts a mail
	// transaction, and the others go on with one that is still open there.
	LineStartsWithCommand bool
	// StrayCRs counts the CRs that became blanks, Folds the line ends that
	// folding put in. Both break DKIM signatures, so they belong in the log.
	StrayCRs, Folds int64
}

const bufferSize = 32 << 10

// Canonicalizer is an io.WriteCloser that writes the canonical form of what is
// written to it. The zero value is of no use; see [NewCanonicalizer].
type Canonicalizer struct {
	dst     io.Writer
	buf     []byte
	flushed int64 // bytes handed to dst
	facts   Facts
	err     error // of dst, or ErrClosed; sticky

	col    int  // bytes of the current line of the canonical form
	verb   verb // what the current line began with
	cr     bool // the last byte was a CR, and it is not known yet of which kind
	body   bool // the header section is over
	high   bool // the piece at hand has bytes above 127
	anyCR  bool // the piece at hand has a CR
	closed bool
}

// verb matches the beginning of a line with the commands that take part in a
// mail transaction. The zero verb is a line that has had blanks at most.
type verb struct {
	word string // the one that the first letter stands for
	n    int    // how many letters agree
	over bool   // the line does not begin with one, or did so
}

// match takes further bytes of the line, as they come, and reports that it
// begins with a command.
func (v *verb) match(b []byte) bool {
	for _, o := range b {
		if v.n == 0 {
			switch o | 0x20 {
			case 'm':
				v.word = "mail"
			case 'r':
				v.word = "rcpt"
			case 'd':
				v.word = "data"
			case 'b':
				v.word = "bdat"
			default:
				if o == ' ' || o == '\t' {
					continue
				}
				v.over = true
				return false
			}
		} else if o|0x20 != v.word[v.n] {
			v.over = true
			return false
		}
		if v.n++; v.n == len("mail") {
			v.over = true
			return true
		}
	}
	return false
}

// NewCanonicalizer returns a Canonicalizer that writes to dst, in pieces of
// about 32 KiB.
func NewCanonicalizer(dst io.Writer) *Canonicalizer {
	return &Canonicalizer{dst: dst, buf: make([]byte, 0, bufferSize)}
}

// Reset makes a Canonicalizer ready for another message, as if it were new.
func (c *Canonicalizer) Reset(dst io.Writer) {
	*c = Canonicalizer{dst: dst, buf: c.buf[:0]}
}

// Write takes the next piece of the message. An error is dst's, and stays.
func (c *Canonicalizer) Write(p []byte) (int, error) {
	if c.closed {
		return 0, ErrClosed
	}
	c.high = hasHigh(p)
	c.facts.EightBit = c.facts.EightBit || c.high
	c.anyCR = bytes.IndexByte(p, '\r') >= 0
	n := len(p)
	for len(p) > 0 && c.err == nil {
		if c.cr {
			c.cr = false
			if p[0] != '\n' {
				c.stray()
			}
		}
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			if p[len(p)-1] == '\r' {
				c.cr = true
				p = p[:len(p)-1]
			}
			c.text(p)
			break
		}
		line := p[:i]
		if i > 0 && line[i-1] == '\r' {
			line = line[:i-1]
		}
		c.text(line)
		c.endLine()
		p = p[i+1:]
	}
	if c.err != nil {
		return 0, c.err
	}
	return n, nil
}

// Close ends the message and writes what is left to dst, which stays open.
// Only after it the canonical form is complete. Without it, it is not: a
// message that was cut off must not look whole.
func (c *Canonicalizer) Close() error {
	if c.closed {
		return c.err
	}
	if c.cr {
		c.cr = false
		c.stray()
	}
	if c.col > 0 || c.size() == 0 {
		c.endLine()
	}
	c.flush()
	c.closed = true
	return c.err
}

// Facts returns what was seen so far; after Close, of the whole message.
func (c *Canonicalizer) Facts() Facts {
	f := c.facts
	f.Size = c.size()
	if !c.body {
		f.HeaderSize = f.Size
	}
	return f
}

// text takes a piece of one line. Every CR in it is a stray one.
func (c *Canonicalizer) text(b []byte) {
	for c.anyCR {
		i := bytes.IndexByte(b, '\r')
		if i < 0 {
			break
		}
		c.content(b[:i])
		c.stray()
		b = b[i+1:]
	}
	c.content(b)
}

var blank = []byte{' '}

func (c *Canonicalizer) stray() {
	c.facts.StrayCRs++
	c.content(blank)
}

// content adds bytes other than CR and LF to the line, and folds it.
func (c *Canonicalizer) content(b []byte) {
	if c.high && !c.body && !c.facts.HeaderEightBit {
		c.facts.HeaderEightBit = hasHigh(b)
	}
	for c.col+len(b) > MaxLine {
		n := MaxLine - c.col
		c.begin(b[:n])
		c.put(b[:n])
		b = b[n:]
		c.put(fold)
		c.facts.Folds++
		c.col, c.verb = 1, verb{}
	}
	c.begin(b)
	c.put(b)
	c.col += len(b)
}

// begin matches what comes of a line as long as it may still begin with a
// command.
func (c *Canonicalizer) begin(b []byte) {
	if !c.verb.over && c.verb.match(b) {
		c.facts.LineStartsWithCommand = true
	}
}

var (
	crlf = []byte("\r\n")
	fold = []byte("\r\n ")
)

func (c *Canonicalizer) endLine() {
	if c.col == 0 && !c.body {
		c.body = true
		c.facts.HeaderSize = c.size()
	}
	c.put(crlf)
	c.col, c.verb = 0, verb{}
}

func (c *Canonicalizer) put(b []byte) {
	for len(b) > cap(c.buf)-len(c.buf) {
		n := cap(c.buf) - len(c.buf)
		c.buf = append(c.buf, b[:n]...)
		b = b[n:]
		c.flush()
	}
	c.buf = append(c.buf, b...)
}

func (c *Canonicalizer) flush() {
	if c.err == nil && len(c.buf) > 0 {
		_, c.err = c.dst.Write(c.buf)
	}
	c.flushed += int64(len(c.buf))
	c.buf = c.buf[:0]
}

func (c *Canonicalizer) size() int64 { return c.flushed + int64(len(c.buf)) }

// hasHigh reports whether a byte is above 127, 32 of them at a time.
func hasHigh(b []byte) bool {
	const high = 0x8080808080808080
	for len(b) >= 32 {
		if (binary.LittleEndian.Uint64(b)|binary.LittleEndian.Uint64(b[8:])|
			binary.LittleEndian.Uint64(b[16:])|binary.LittleEndian.Uint64(b[24:]))&high != 0 {
			return true
		}
		b = b[32:]
	}
	var all byte
	for _, o := range b {
		all |= o
	}
	return all >= 0x80
}
