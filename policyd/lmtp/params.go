package lmtp

import (
	"bytes"
	"errors"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/policyd/intake"
)

// maxParam bounds a parameter as it is written, in bytes: a character of a
// hundred may take three as xtext.
const maxParam = 3 * intake.MaxAddress

// The library refuses an ORCPT or an ENVID that it does not understand, such as
// the ORCPT that Postfix 3.7 makes for an address outside ASCII, and with it
// the recipient or the message. Neither is worth that: both are read here, and
// one that is not understood, or that has more than MaxAddress bytes, is left
// out, as if its sender had not given it. SIZE is read here too, as the library
// takes one of 4 GiB for none.

// takeSize blanks SIZE (RFC 1870 §3) out of a MAIL, if it is a number, and
// gives it, the largest that there is where it is larger.
func takeSize(line []byte) int64 {
	const name = "SIZE"
	word := findParam(line, name)
	if word == nil {
		return 0
	}
	digits := string(word[len(name)+1:])
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) && digits[0] != '-':
		n = math.MaxInt64
	case err != nil || digits[0] < '0' || digits[0] > '9':
		return 0 // the library will say so
	}
	blank(word)
	return n
}

// takeParam blanks a parameter of MAIL or RCPT out of a command line, and gives
// its value; empty when there is none.
func takeParam(line []byte, name string) string {
	word := findParam(line, name)
	if word == nil {
		return ""
	}
	value := string(word[len(name)+1:])
	blank(word)
	if len(value) > maxParam {
		return ""
	}
	return value
}

// findParam finds a parameter of MAIL or RCPT in a command line, with its name;
// nil when there is none.
func findParam(line []byte, name string) []byte {
	rest := line[pathEnd(line):]
	for at := 0; ; {
		i := bytes.IndexByte(rest[at:], ' ')
		if i < 0 {
			return nil
		}
		at += i + 1
		word := rest[at:]
		if end := bytes.IndexAny(word, " \t\r\n"); end >= 0 {
			word = word[:end]
		}
		if len(word) > len(name) && word[len(name)] == '=' && strings.EqualFold(string(word[:len(name)]), name) {
			return word
		}
	}
}

func blank(word []byte) {
	for i := range word {
		word[i] = ' '
	}
}

// pathEnd gives where a command's path ends (RFC 5321 §4.1.2); the line's end
// when it does not.
func pathEnd(line []byte) int {
	i := bytes.IndexByte(line, '<')
	if i < 0 {
		return len(line)
	}
	quoted := false
	for ; i < len(line); i++ {
		switch c := line[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case c == '>' && !quoted:
			return i + 1
		}
	}
	return len(line)
}

// originalRecipient reads the value of ORCPT (RFC 3461 §4.2, RFC 6533 §3) and
// gives "TYPE;ADDRESS" in plain text.
func originalRecipient(value string) string {
	kind, address, ok := strings.Cut(value, ";")
	if !ok || kind == "" {
		return ""
	}
	kind = strings.ToLower(kind)
	if kind == "utf-8" {
		if address, ok = embedded(address); !ok {
			return ""
		}
	}
	if address = xtext(address); address == "" || !isText(kind) || len(kind)+1+len(address) > intake.MaxAddress {
		return ""
	}
	return kind + ";" + address
}

// xtext reads xtext (RFC 3461 §4), as far as it is that; empty when it is not,
// or does not stand for text.
func xtext(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '+' {
			b.WriteByte(s[i])
			continue
		}
		if i+3 > len(s) {
			return ""
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return ""
		}
		b.WriteByte(byte(n))
		i += 2
	}
	if !isText(b.String()) {
		return ""
	}
	return b.String()
}

// embedded replaces "\x{HEX}" (RFC 6533 §3) by the character that it stands
// for.
func embedded(s string) (string, bool) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, `\x{`)
		b.WriteString(before)
		if !found {
			return b.String(), true
		}
		hex, rest, closed := strings.Cut(after, "}")
		n, err := strconv.ParseUint(hex, 16, 21)
		if !closed || err != nil || !utf8.ValidRune(rune(n)) {
			return "", false
		}
		if n == '+' {
			b.WriteString("+2B") // is read as xtext next
		} else {
			b.WriteRune(rune(n))
		}
		s = rest
	}
}

// isText reports whether s is UTF-8 without control characters.
func isText(s string) bool {
	for _, r := range s {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r == utf8.RuneError {
			return false
		}
	}
	return true
}
