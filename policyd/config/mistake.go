package config

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxMistakes bounds how many mistakes of one file are kept: a file of another
// kind given by accident would fill the screen otherwise.
const maxMistakes = 100

// Mistake is one thing that is wrong in a configuration file.
type Mistake struct {
	// as it was named to Load or Parse; empty for the built-in defaults
	File   string
	Line   int    // from 1
	Column int    // from 1, counted in characters as an editor does
	Text   string // what is wrong and what would be right; one line, printable
}

// String gives the line for people, "file:line:column: text".
func (m Mistake) String() string {
	if m.File == "" {
		return m.Text
	}
	return printable(m.File) + ":" + strconv.Itoa(m.Line) + ":" + strconv.Itoa(m.Column) + ": " + m.Text
}

// Mistakes is everything that is wrong in one file, in the order of its lines.
// It is the error of Load, Parse and Default; the caller prints it and uses
// none of the file.
type Mistakes []Mistake

// Error gives one line for each mistake, without a line end after the last.
func (m Mistakes) Error() string {
	lines := make([]string, len(m))
	for i := range m {
		lines[i] = m[i].String()
	}
	return strings.Join(lines, "\n")
}

// sorted brings the mistakes into the order of the file.
func (m Mistakes) sorted() Mistakes {
	slices.SortStableFunc(m, func(a, b Mistake) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return m
}

// maxQuoted bounds a piece of the file that a mistake shows, in bytes.
const maxQuoted = 60

// quote shows a piece of the file inside a mistake: quoted, cut to a bearable
// length, control characters escaped.
func quote(s string) string {
	if len(s) <= maxQuoted {
		return strconv.Quote(s)
	}
	cut := maxQuoted
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return strconv.Quote(s[:cut] + "…")
}

// printable replaces what must not reach a terminal or a log line.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !strconv.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
