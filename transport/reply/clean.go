package reply

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Clean makes a text from outside fit for a log line, a status line or a
// terminal: tabs and line ends become blanks; other control characters, bytes
// that are not UTF-8, and invisible characters that turn or hide what stands
// around them become "?". The result is one line of valid UTF-8.
func Clean(text string) string {
	if plain(text) {
		return text
	}
	var b strings.Builder
	b.Grow(len(text))
	for i := 0; i < len(text); {
		r, size := utf8.DecodeRuneInString(text[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b.WriteByte('?')
		case r >= '\t' && r <= '\r':
			b.WriteByte(' ')
		case unicode.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteByte('?')
		}
		i += size
	}
	return b.String()
}

// plain reports whether the text is printable ASCII, as nearly all are.
func plain(text string) bool {
	for i := 0; i < len(text); i++ {
		if text[i] < ' ' || text[i] > '~' {
			return false
		}
	}
	return true
}

// maxLine leaves room for the rest of a status line, which has 900 bytes.
const maxLine = 700

// Line makes a text fit for logs and bounces, whatever a stranger wrote into a
// certificate or a record: one printable line of at most 700 bytes.
func Line(text string) string { return Cut(Clean(text), maxLine) }
