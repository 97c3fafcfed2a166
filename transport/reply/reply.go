// Package reply reads the replies of SMTP servers (RFC 5321 §4.2).
//
// A reply is one or more lines, each of three digits, a separator and a text.
// All lines but the last have "-" as the separator, and all bear the same
// code. [Read] takes one reply off a buffered connection, and not one byte
// more, so that under PIPELINING the next call finds the next reply.
//
// In order: a line is taken up to its LF, its end (CRLF, or the bare LF that
// some servers send) is cut off, its code and separator are checked, its text
// is cleaned, and the enhanced status code at the start of the first text is
// recognised when its class agrees with the code (RFC 2034 §4).
//
// It refuses what could shift replies against commands or fill the memory: a
// code that does not begin with 2 to 5, a continuation line with another code
// than the first, any other separator, an empty line, a line of more than
// [MaxLine] bytes, a reply of more than [MaxLines] lines. After a refusal
// no one can tell which command the next line belongs to; the connection has
// to be closed.
//
// What it returns is fit for logs, bounces and status lines: printable
// characters only, in valid UTF-8. The wait for a line is bounded by the
// connection's deadline, which is the caller's to set.
package reply

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/status"
)

// MaxText is the most bytes that [Reply.Text] gives.
const MaxText = 600

// Reply is one reply of a server. The zero Reply stands for none at all.
type Reply struct {
	// Code is the three-digit code, 200 to 599; 0 when there was no reply.
	Code int
	// Status is the enhanced status code of the first line when its class is
	// the first digit of Code; otherwise the zero Code.
	Status status.Code
	// Lines are the texts after code and separator, at least one, the
	// enhanced status code included. They are printable and valid UTF-8, and
	// have no blanks at their ends.
	Lines []string

	cut bool // there was more
}

// Class returns the first digit of the code, 2 to 5, or 0 without a reply.
func (r Reply) Class() int { return r.Code / 100 }

// Temporary reports a 4yz reply: refused, but may be tried again.
func (r Reply) Temporary() bool { return r.Class() == 4 }

// Permanent reports a 5yz reply: refused.
func (r Reply) Permanent() bool { return r.Class() == 5 }

// Text gives the whole reply on one line for logs and bounces, as in
// "550 5.1.1 no such user": the code once, then the lines joined by blanks,
// an enhanced status code that each line repeats (RFC 2034 §4) given once. It
// is printable and at most MaxText bytes long; what was cut off shows as
// "...". Without a reply it is "no reply".
func (r Reply) Text() string {
	if r.Code == 0 {
		return "no reply"
	}
	var b strings.Builder
	b.WriteString(strconv.Itoa(r.Code))
	var repeated string
	if !r.Status.IsZero() {
		repeated = r.Status.String()
	}
	for i, line := range r.Lines {
		if i > 0 && repeated != "" {
			if rest, found := strings.CutPrefix(line, repeated); found && (rest == "" || rest[0] == ' ') {
				line = rest
			}
		}
		if line = strings.Trim(line, " "); line == "" {
			continue
		}
		b.WriteByte(' ')
		b.WriteString(line)
		if b.Len() > MaxText {
			break
		}
	}
	if r.cut && b.Len() <= MaxText && !strings.HasSuffix(b.String(), "...") {
		b.WriteString("...")
	}
	return Cut(b.String(), MaxText)
}

// Cut shortens a text to at most n bytes, without splitting a character, and
// shows by "..." that something is missing. A text that fits is returned as
// it is.
func Cut(text string, n int) string {
	const more = "..."
	if len(text) <= n {
		return text
	}
	end := max(n-len(more), 0)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return strings.TrimRight(text[:end], " ") + more[:min(len(more), n)]
}
