package message

import (
	"bytes"
	"strings"
)

// MaxHeader is the most bytes of the header section that a [HeaderReader]
// keeps.
const MaxHeader = 256 << 10

// HeaderReader is an io.Writer that collects the header section of the message
// written to it and lets the rest pass. Lines may end with CRLF or LF. The
// zero value is ready.
type HeaderReader struct {
	buf       []byte
	line      int // where the current line begins in buf
	done      bool
	truncated bool
	halfField bool // what did not fit belongs to the last field that did
}

// Write takes the next piece of the message. It never fails.
func (h *HeaderReader) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 && !h.done {
		end := bytes.IndexByte(p, '\n') + 1
		part := p
		if end > 0 {
			part = p[:end]
		}
		if len(part) > MaxHeader-len(h.buf) {
			// No half of a value must be taken for all of it.
			first := part[0]
			if h.line < len(h.buf) {
				first = h.buf[h.line]
			}
			h.halfField = isBlank(first)
			h.buf = h.buf[:h.line]
			h.done, h.truncated = true, true
			break
		}
		h.buf = append(h.buf, part...)
		p = p[len(part):]
		if end == 0 {
			break
		}
		if len(lineText(h.buf[h.line:])) == 0 {
			h.buf = h.buf[:h.line]
			h.done = true
		}
		h.line = len(h.buf)
	}
	return n, nil
}

// Done reports whether the header section is over; what is written after that
// changes nothing.
func (h *HeaderReader) Done() bool { return h.done }

// Header returns the header section as far as it was written. Call it once,
// when the header section or the message is complete.
func (h *HeaderReader) Header() Header {
	fields := split(string(h.buf))
	if h.halfField && len(fields) > 0 {
		fields = fields[:len(fields)-1]
	}
	return Header{fields, h.truncated}
}

// Header is a message's header section (RFC 5322 §2.2). The zero Header has no
// fields. It does not change, and any goroutine may read it.
type Header struct {
	fields    []field
	truncated bool
}

type field struct {
	name, value string // the value unfolded, without blanks at its ends
}

// Values returns the values of all fields of this name, in the message's
// order. Letter case does not matter, nor do blanks between the name and its
// colon (RFC 5322 §4.5). Values are unfolded, and have no blanks at their
// ends; apart from that they are what a stranger wrote, control characters
// included.
func (h Header) Values(name string) []string {
	var values []string
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) {
			values = append(values, f.value)
		}
	}
	return values
}

// Has reports whether some field of this name has this value, letter case not
// counted. "TLS-Required: No" (RFC 8689 §3) and the like have neither comments
// nor parameters, so nothing else is taken for them.
func (h Header) Has(name, value string) bool {
	value = strings.Trim(value, " \t")
	for _, f := range h.fields {
		if strings.EqualFold(f.name, name) && strings.EqualFold(f.value, value) {
			return true
		}
	}
	return false
}

// Truncated reports whether the header section was longer than MaxHeader, so
// that fields may be missing. Who needs a field's absence proven, must not
// take it as proven.
func (h Header) Truncated() bool { return h.truncated }

// split takes a header section apart. What is neither a field nor a
// continuation is passed over together with its own continuations, rather than
// taken for the end of the header section: a stray line must not hide a
// quarantine mark or a request for TLS that stands below it.
func split(section string) []field {
	var fields []field
	var value strings.Builder
	name := ""
	flush := func() {
		if name != "" {
			fields = append(fields, field{name, strings.Trim(value.String(), " \t")})
		}
		name = ""
		value.Reset()
	}
	for line := range strings.Lines(section) {
		line = lineText(line)
		if line != "" && isBlank(line[0]) {
			// Unfolding removes the line end alone (RFC 5322 §2.2.3).
			value.WriteString(line)
			continue
		}
		flush()
		before, after, found := strings.Cut(line, ":")
		before = strings.TrimRight(before, " \t")
		if found && isFieldName(before) {
			name = before
			value.WriteString(after)
		}
	}
	flush()
	return fields
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isFieldName checks for printable ASCII without blanks (RFC 5322 §2.2).
func isFieldName(s string) bool {
	for i := 0; i < len(s); i++ {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}
	return s != ""
}

// lineText cuts CRLF or LF off a line.
func lineText[T string | []byte](line T) T {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
