// Package console writes what mxpolicyd has to tell an administrator as text:
// an explanation, the status, what is cached, what a doctor finds. It only
// writes down what it is given, line by line, for a screen of some width; it
// asks nothing and judges nothing.
//
// Colour is for terminals. A text without it says the same: what is red is also
// called by name.
package console

import (
	"cmp"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Screen is what a text is written for. Texts for equal Screens are equal.
type Screen struct {
	Width  int // columns; what is longer is wrapped
	Height int // lines, for what is shown in place; 0: no bound
	Colour bool
	Now    time.Time // for ages
}

// usualWidth is the width of a screen that does not tell, and of a file.
const usualWidth = 80

// On finds out what can be shown on a file. Colour is for terminals, unless
// NO_COLOR is set or TERM is dumb.
func On(f *os.File) Screen {
	s := Screen{Width: usualWidth, Now: time.Now()}
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return s
	}
	s.Width, s.Height = max(cmp.Or(int(size.Col), usualWidth), 40), int(size.Row)
	s.Colour = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return s
}

// colour is a look of a piece of text.
type colour string

const (
	none   colour = ""
	bold   colour = "\x1b[1m"
	dim    colour = "\x1b[2m"
	red    colour = "\x1b[31m"
	green  colour = "\x1b[32m"
	yellow colour = "\x1b[33m"
	reset         = "\x1b[0m"
)

// page is a text being written.
type page struct {
	Screen
	b strings.Builder
}

// String gives the text.
func (p *page) String() string { return p.b.String() }

// paint colours a text.
func (p *page) paint(c colour, text string) string {
	if !p.Colour || c == none || text == "" {
		return text
	}
	return string(c) + text + reset
}

// blank writes an empty line.
func (p *page) blank() { p.b.WriteByte('\n') }

// labelWidth is the width of what stands before a text.
const labelWidth = 11

// item writes a label with a text after it. Lines that do not fit go on below
// the text.
func (p *page) item(label, text string) { p.coloured(label, none, text) }

func (p *page) coloured(label string, c colour, text string) {
	if text == "" {
		return
	}
	p.hang("  "+pad(label, labelWidth), none, c, text)
}

// hang writes a text after a head, under whose end it goes on.
func (p *page) hang(head string, headColour, c colour, text string) {
	width := utf8.RuneCountInString(head)
	for i, line := range wrap(text, max(p.Width-width, 20)) {
		if i == 0 {
			p.b.WriteString(p.paint(headColour, head))
		} else {
			p.b.WriteString(strings.Repeat(" ", width))
		}
		p.b.WriteString(p.paint(c, line) + "\n")
	}
}

// pad fills a text up to a width, with one blank at least.
func pad(text string, width int) string {
	return text + strings.Repeat(" ", max(width-utf8.RuneCountInString(text), 1))
}

// glue is a blank at which no line is broken. What strangers wrote has none.
const glue = "\u00a0"

// wrap breaks a text into lines, at blanks where there are some.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.FieldsFunc(text, func(r rune) bool { return r == ' ' || r == '\n' }) {
		word = strings.ReplaceAll(word, glue, " ")
		for utf8.RuneCountInString(word) > width {
			if line != "" {
				lines, line = append(lines, line), ""
			}
			cut := []rune(word)
			lines, word = append(lines, string(cut[:width])), string(cut[width:])
		}
		switch {
		case line == "":
			line = word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= width:
			line += " " + word
		default:
			lines, line = append(lines, line), word
		}
	}
	if line != "" {
		lines = append(lines, line)
	}
	return lines
}

// count is a number with its noun.
func count(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// some joins a few texts and tells how many more there are.
func some(texts []string, most int) string {
	if more := len(texts) - most; more > 0 {
		return strings.Join(texts[:most], ", ") + fmt.Sprintf(" and %d more", more)
	}
	return strings.Join(texts, ", ")
}

// span is a duration in its two largest units.
func span(d time.Duration) string {
	d = d.Round(time.Second)
	for _, u := range []struct {
		unit, next   time.Duration
		name, second string
	}{{24 * time.Hour, time.Hour, "d", "h"}, {time.Hour, time.Minute, "h", "m"}, {time.Minute, time.Second, "m", "s"}} {
		if d >= u.unit {
			text := fmt.Sprintf("%d%s", d/u.unit, u.name)
			if rest := d % u.unit / u.next; rest > 0 {
				text += fmt.Sprintf("%d%s", rest, u.second)
			}
			return text
		}
	}
	return fmt.Sprintf("%ds", max(d/time.Second, 0))
}

// ago and in tell of a time from now.
func (p *page) ago(t time.Time) string { return span(p.Now.Sub(t)) + " ago" }
func (p *page) in(t time.Time) string  { return "in " + span(t.Sub(p.Now)) }

// date is a day.
func date(t time.Time) string { return t.UTC().Format(time.DateOnly) }
