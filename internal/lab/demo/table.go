package main

import (
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/internal/lab/world"
)

// screen is what the table is shown on. The zero value is a file.
type screen struct {
	terminal bool
	colour   bool
	width    int
}

// table writes the rows as they come. Where a row with everything in it is too
// wide for the screen, the words about the domain get a line of their own.
type table struct {
	w       io.Writer
	screen  screen
	pending bool // a line of progress is on the screen
}

func newTable(w io.Writer, s screen) *table { return &table{w: w, screen: s} }

// The columns' widths; the last column ends where it ends.
const (
	markWidth   = len("ok  ")
	domainWidth = len("dane-unusable-no-tls.example  ")
	aboutWidth  = len("the same by a transport with min_tls_level: encrypted  ")
	exitWidth   = len("75 deferred  ")
	hostWidth   = len("mx2  ")
	lastWidth   = len("dane for an unsigned MX, TLS1.3")
	fullWidth   = markWidth + domainWidth + aboutWidth + exitWidth + hostWidth + lastWidth
)

// The colours.
const (
	bold  = "1"
	dim   = "2"
	red   = "1;31"
	green = "32"
)

func (t *table) paint(colour, s string) string {
	if !t.screen.colour || colour == "" || s == "" {
		return s
	}
	return "\x1b[" + colour + "m" + s + "\x1b[0m"
}

// println writes a line, in the place of progress if there is some.
func (t *table) println(line string) {
	if t.pending {
		fmt.Fprint(t.w, "\r\x1b[K")
		t.pending = false
	}
	fmt.Fprintln(t.w, strings.TrimRight(line, " "))
}

// progress says what is being done, on a terminal only.
func (t *table) progress(what string) {
	if !t.screen.terminal {
		return
	}
	fmt.Fprintf(t.w, "\r\x1b[K%s", t.paint(dim, cut("... "+what, t.screen.width-1)))
	t.pending = true
}

// intro says what was started.
func (t *table) intro(w *world.World, d *daemon, verbose bool) {
	t.wrap("", "", fmt.Sprintf("An internet on loopback: %d domains, %d mail servers at port %d, MTA-STS policies at port %d, "+
		"and a signed DNS behind the validating resolver %s. Each row is one message with an attachment, handed to the real mxpipe as "+
		"a mail server does it, and delivered, or not, by the real mxpolicyd. \"Deferred\" means that the mail server keeps "+
		"the message and tries again; below each row is the line it would log.",
		len(world.Domains()), len(w.Servers()), w.Port(), w.HTTPSPort(), w.Resolver()))
	if verbose {
		t.log(append(strings.Split(d.config, "\n"), d.news()...))
	}
	t.println("")
	head := pad("", markWidth) + pad("DOMAIN", domainWidth)
	if t.wide() {
		head += pad("WHAT IT IS", aboutWidth)
	}
	t.println(t.paint(bold, head+pad("EXIT STATUS", exitWidth)+pad("MX", hostWidth)+"CONNECTION"))
}

func (t *table) wide() bool { return !t.screen.terminal || t.screen.width >= fullWidth }

func (t *table) heading(title string) {
	t.println("")
	t.println(t.paint(bold, title))
}

// row writes what came of a message.
func (t *table) row(r *result) {
	mark := t.paint(green, pad("ok", markWidth))
	if len(r.problems) > 0 {
		mark = t.paint(red, pad("!!", markWidth))
	}
	line := mark + pad(r.message.domain, domainWidth)
	if t.wide() {
		line += pad(r.message.about, aboutWidth)
	}
	t.println(line + pad(fmt.Sprintf("%d %s", r.exit, outcome(r.exit)), exitWidth) + pad(orDash(short(r.host(), r.message.domain)), hostWidth) + orDash(r.via()))
	indent := strings.Repeat(" ", markWidth)
	if !t.wide() {
		t.wrap(indent, "", r.message.about)
	}
	t.wrap(indent, dim, strings.TrimSuffix(r.output, "\n"))
	for _, c := range r.problems {
		t.wrap(indent, red, "NOT AS EXPECTED: "+c)
	}
}

// log writes lines of the daemon.
func (t *table) log(lines []string) {
	for _, line := range lines {
		t.println(t.paint(dim, "    | "+line))
	}
}

// summary writes how many messages went which way and, for those that went as
// they should not, the log once more. The error is errUnexpected if there are
// any, or problems about the run as a whole.
func (t *table) summary(results []result, problems []string, took time.Duration) error {
	counts := map[string]int{}
	var bad []result
	for _, r := range results {
		counts[outcome(r.exit)]++
		if len(r.problems) > 0 {
			bad = append(bad, r)
		}
	}
	t.println("")
	for _, r := range bad {
		t.println(t.paint(red, "The log of mxpolicyd about "+r.message.queueID+", "+r.message.domain+" ("+r.message.about+"):"))
		t.log(r.log)
	}
	for _, c := range problems {
		t.wrap("", red, "NOT AS EXPECTED: "+c)
	}
	var parts []string
	for _, word := range []string{"delivered", "deferred", "refused", "lost"} {
		if counts[word] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[word], word))
		}
	}
	verdict := t.paint(green, "All went as it should")
	if len(bad)+len(problems) > 0 {
		verdict = t.paint(red, fmt.Sprintf("%d NOT AS EXPECTED", len(bad)+len(problems)))
	}
	t.println(fmt.Sprintf("%d messages: %s. %s, in %.1f s.", len(results), strings.Join(parts, ", "), verdict, took.Seconds()))
	if len(bad)+len(problems) > 0 {
		return errUnexpected
	}
	return nil
}

// outcome is what an exit status means to a mail server (sysexits.h).
func outcome(exit int) string {
	switch exit {
	case 0:
		return "delivered"
	case 75:
		return "deferred"
	case 65, 67, 68, 69:
		return "refused"
	}
	return "lost" // it would bounce the message, or worse
}

// short leaves a domain's name out of its host's.
func short(host, domain string) string {
	if host == domain && host != "" {
		return "="
	}
	return strings.TrimSuffix(host, "."+domain)
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// pad fills up to a width in characters, with one blank at least.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(1, width-utf8.RuneCountInString(s)))
}

func cut(s string, width int) string {
	if r := []rune(s); len(r) > width {
		return string(r[:max(0, width)])
	}
	return s
}

// wrap writes text in lines that fit the screen.
func (t *table) wrap(indent, colour, text string) {
	room := t.screen.width - len(indent)
	if !t.screen.terminal || room < 20 {
		room = len(text)
	}
	var line string
	flush := func() {
		t.println(indent + t.paint(colour, line))
		line = ""
	}
	for _, word := range strings.Fields(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > room {
			flush()
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	flush()
}
