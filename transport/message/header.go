package message

import (
	"bytes"
	"strings"
)

// Field is a header field with a value that somebody asks for. Letter case
// does not matter, nor do blanks at the value's ends.
type Field struct {
	Name, Value string
}

// The two fields that every message is searched for.
var (
	// Postfix 3.11, for REQUIRETLS over a local hop
	requireTLS    = Field{"Require-TLS-ESMTP", "yes"}
	tlsRequiredNo = Field{"TLS-Required", "No"} // RFC 8689 §3
)

// maxReceived is the most bytes of a Received field that are kept.
const maxReceived = 2000

// HeaderReader is an io.Writer that looks for the few fields that steer a
// delivery in the header section of the message written to it, however long
// that is, and keeps nothing else. Lines may end with CRLF or LF. The zero
// value looks for no more than every message is searched for;
// [NewHeaderReader] makes one that looks for further fields.
//
// A header section may be malformed: a line in it is neither a field nor the
// continuation of one. It goes on nonetheless until the first empty line, as a
// stray line must not hide a quarantine mark or a request for TLS that stands
// below it, or is folded into it. "TLS-Required: No", which asks for less
// security, counts only when there is no such line, no line of blanks alone
// and no bare CR, where others may see the end of the section, and no
// TLS-Required with another value. A request for TLS, on the other hand, counts
// with control characters, comments or quotes in it, and after a bare CR.
type HeaderReader struct {
	watched []Field
	header  Header

	line     []byte // the current line, when it came in pieces
	cut      bool   // bytes of it were left out
	done     bool
	received bool // one was there
	state    lineState
	name     string // of the current field, if it is looked for
	value    value
}

// lineState is what a continuation line continues.
type lineState uint8

const (
	stray   lineState = iota // nothing, or what is no field
	ignored                  // a field that nothing looks for
	watched                  // one that is looked for
)

// NewHeaderReader returns a HeaderReader that looks for some fields more.
func NewHeaderReader(fields ...Field) *HeaderReader {
	h := &HeaderReader{}
	h.Reset(fields)
	return h
}

// Reset makes a HeaderReader ready for another message, as if it were new. It
// keeps fields, which must not change.
func (h *HeaderReader) Reset(fields []Field) {
	*h = HeaderReader{watched: fields, header: Header{watched: fields}, line: h.line[:0], value: value{text: h.value.text[:0], tail: h.value.tail[:0]}}
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
		p = p[len(part):]
		switch {
		case end == 0:
			h.keep(part)
		case len(h.line) > 0:
			h.keep(part)
			h.take(h.line)
			h.line, h.cut = h.line[:0], false
		default:
			h.take(part)
		}
	}
	return n, nil
}

// maxHeld is the most bytes of one line that are read: all that a line of the
// canonical form has.
const maxHeld = MaxLine + 2

// keep holds a piece of a line.
func (h *HeaderReader) keep(part []byte) {
	if room := maxHeld - len(h.line); len(part) > room {
		h.cut = true
		part = part[:room]
	}
	h.line = append(h.line, part...)
}

// take reads one line.
func (h *HeaderReader) take(line []byte) {
	if len(line) > maxHeld {
		line, h.cut = line[:maxHeld], true
		defer func() { h.cut = false }()
	}
	line = lineText(line)
	if bytes.IndexByte(line, '\r') >= 0 {
		h.bareCR(line)
	}
	switch {
	case len(line) == 0:
		h.done = true
	case isBlank(line[0]):
		h.fold(line)
	default:
		h.finish()
		h.state = h.begin(line)
		h.header.malformed = h.header.malformed || h.state == stray
	}
}

// bareCR reads a line with a CR in it. It leaves as a blank, but who sees a
// line end there must not miss a request for TLS, nor find one for less.
func (h *HeaderReader) bareCR(line []byte) {
	h.header.malformed = true
	for piece := range bytes.SplitSeq(line, []byte("\r")) {
		name, rest, _ := bytes.Cut(piece, []byte(":"))
		if isNearly(name, requireTLS.Name) && saysYes(rest) {
			h.header.requireTLS = true
		}
	}
}

// fold reads a continuation line. Unfolding removes the line end alone
// (RFC 5322 §2.2.3). One of blanks alone is obsolete (§4.2), and to some the
// end of the section.
func (h *HeaderReader) fold(line []byte) {
	if len(bytes.TrimLeft(line, " \t\r")) == 0 {
		h.header.malformed = true
	}
	switch h.state {
	case watched:
		h.value.add(line, h.cut)
	case stray:
		// It continues nothing: what stands in it counts by itself.
		h.finish()
		h.header.malformed = true
		h.begin(bytes.TrimLeft(line, " \t"))
		h.finish()
	}
}

// begin reads the first line of a field.
func (h *HeaderReader) begin(line []byte) lineState {
	name, rest, found := bytes.Cut(line, []byte(":"))
	// Blanks between the name and its colon are obsolete (RFC 5322 §4.5).
	name = bytes.TrimRight(name, " \t")
	switch {
	case found && isFieldName(name):
		h.name = h.lookUp(name)
	case found && isNearly(name, requireTLS.Name):
		h.name, h.header.malformed = requireTLS.Name, true
	default:
		return stray
	}
	if h.name == "" {
		return ignored
	}
	h.value.reset()
	h.value.add(rest, h.cut)
	return watched
}

const received = "Received"

// lookUp finds the name of a field that is looked for.
func (h *HeaderReader) lookUp(name []byte) string {
	is := func(want string) bool { return len(want) == len(name) && strings.EqualFold(want, string(name)) }
	switch {
	case is(requireTLS.Name):
		return requireTLS.Name
	case is(tlsRequiredNo.Name):
		return tlsRequiredNo.Name
	case !h.received && is(received):
		return received
	}
	for i := range h.watched {
		if is(h.watched[i].Name) {
			return h.watched[i].Name
		}
	}
	return ""
}

// finish ends the current field.
func (h *HeaderReader) finish() {
	name := h.name
	h.name = ""
	if name == "" {
		return
	}
	switch {
	case name == received:
		if h.received = true; !h.value.cut {
			h.header.received = string(h.value.text)
		}
	case name == requireTLS.Name:
		h.header.requireTLS = h.header.requireTLS || h.value.cut || saysYes(h.value.text)
	case tlsRequiredNo.is(name, &h.value):
		h.header.tlsRequiredNo = true
	case name == tlsRequiredNo.Name:
		h.header.tlsRequiredElse = true
	}
	for i := range h.watched {
		if h.watched[i].marks(name, &h.value) {
			if h.header.found == nil {
				h.header.found = make([]bool, len(h.watched))
			}
			h.header.found[i] = true
		}
	}
}

func (f *Field) is(name string, v *value) bool {
	return !v.cut && strings.EqualFold(f.Name, name) && strings.EqualFold(strings.Trim(f.Value, " \t"), string(v.text))
}

// marks is is, but does not mind control characters in the value.
func (f *Field) marks(name string, v *value) bool {
	if f.is(name, v) {
		return true
	}
	if v.cut || !strings.EqualFold(f.Name, name) || bytes.IndexFunc(v.text, isControl) < 0 {
		return false
	}
	text := bytes.Map(func(r rune) rune {
		if isControl(r) {
			return -1
		}
		return r
	}, v.text)
	return strings.EqualFold(strings.Trim(f.Value, " \t"), string(bytes.Trim(text, " \t")))
}

func isControl(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }

// isNearly says whether what stands before a colon is a name, but for what is
// not printable in it.
func isNearly(text []byte, name string) bool {
	n := 0
	for _, c := range text {
		if c <= ' ' || c > '~' {
			continue
		}
		if n == len(name) || lower(c) != lower(name[n]) {
			return false
		}
		n++
	}
	return n == len(name)
}

// saysYes says whether a value may be read as "yes", perhaps with more behind
// it: letters count, in a comment (RFC 5322 §3.2.2) or outside of it.
func saysYes(text []byte) bool { return beginsWithYes(text, false) || beginsWithYes(text, true) }

func beginsWithYes(text []byte, comments bool) bool {
	want, depth := requireTLS.Value, 0
	for _, c := range text {
		switch c = lower(c); {
		case comments && c == '(':
			depth++
		case comments && c == ')':
			depth = max(depth-1, 0)
		case depth > 0, (c < 'a' || c > 'z') && (c < '0' || c > '9'):
		case c != want[0]:
			return false
		default:
			if want = want[1:]; want == "" {
				return true
			}
		}
	}
	return false
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// Done reports whether the header section is over; what is written after that
// changes nothing.
func (h *HeaderReader) Done() bool { return h.done }

// Header returns what was found. Call it once, when the header section or the
// message is complete.
func (h *HeaderReader) Header() Header {
	if len(h.line) > 0 && !h.done {
		h.take(h.line)
	}
	h.finish()
	return h.header
}

// value is a field's value, unfolded, without blanks at its ends, up to a
// length that no value has which anybody asks for.
type value struct {
	text []byte
	tail []byte // blanks that belong to it if more text follows
	cut  bool   // something was left out
}

func (v *value) reset() { *v = value{text: v.text[:0], tail: v.tail[:0]} }

// add appends a piece; cut says that its end was left out.
func (v *value) add(b []byte, cut bool) {
	if len(v.text) == 0 {
		b = bytes.TrimLeft(b, " \t")
	}
	text := bytes.TrimRight(b, " \t")
	if v.cut || len(text) > 0 && len(v.text)+len(v.tail)+len(text) > maxReceived {
		v.cut = true
		return
	}
	if len(text) > 0 {
		v.text = append(append(v.text, v.tail...), text...)
		v.tail = v.tail[:0]
	}
	// More blanks than there is room for are as good as too many.
	blanks := b[len(text):]
	v.tail = append(v.tail, blanks[:min(len(blanks), maxReceived+1-len(v.tail))]...)
	v.cut = cut
}

// Header is what was found in a message's header section (RFC 5322 §2.2). The
// zero Header has no fields, and nothing looked for any. It does not change,
// and any goroutine may read it.
type Header struct {
	received      string
	requireTLS    bool
	tlsRequiredNo bool
	// there is a TLS-Required that says something else
	tlsRequiredElse bool
	malformed       bool
	watched         []Field
	found           []bool // nil: none of watched
}

// Received gives the value of the topmost Received field, unfolded; empty when
// there is none, or when it is longer than anyone writes it. It is what a
// stranger wrote, control characters included.
func (h Header) Received() string { return h.received }

// RequireTLS reports "Require-TLS-ESMTP: yes", by which Postfix 3.11 carries
// REQUIRETLS (RFC 8689) over local hops.
func (h Header) RequireTLS() bool { return h.requireTLS }

// TLSRequiredNo reports "TLS-Required: No" (RFC 8689 §3) in a header section
// that is well-formed, where no other TLS-Required contradicts it.
func (h Header) TLSRequiredNo() bool {
	return h.tlsRequiredNo && !h.tlsRequiredElse && !h.malformed
}

// Has reports whether some field of this name has this value, letter case not
// counted, and whether anybody has looked for it: what was not looked for is
// not proven to be absent.
func (h Header) Has(f Field) (found, watched bool) {
	for i := range h.watched {
		w := &h.watched[i]
		if strings.EqualFold(w.Name, f.Name) && strings.EqualFold(strings.Trim(w.Value, " \t"), strings.Trim(f.Value, " \t")) {
			watched = true
			found = found || h.found != nil && h.found[i]
		}
	}
	return found, watched
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' }

// isFieldName checks for printable ASCII without blanks (RFC 5322 §2.2).
func isFieldName(s []byte) bool {
	for _, c := range s {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(s) > 0
}

// lineText cuts CRLF or LF off a line.
func lineText(line []byte) []byte {
	if n := len(line); n > 0 && line[n-1] == '\n' {
		line = line[:n-1]
	}
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
	}
	return line
}
