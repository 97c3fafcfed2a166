// Package mdoc reads lists from the sources of manual pages (mdoc(7)), as far
// as the pages in docs/ use that language. The tests that compare the pages
// with the programs are made of it: what a page lists and what a program has
// must be the same, so that neither can change alone.
package mdoc

import (
	"slices"
	"strings"
)

// Item is an item of a list.
type Item struct {
	// Head is what follows .It, without macros: "dns.timeout",
	// "--socket path".
	Head string
	// Text is what follows, up to the next item or the end of the list,
	// without macros, its words parted by one blank each. Displays are not
	// part of it.
	Text string
	// Displays are the lines of each .Bd to .Ed in it, as they are to be shown.
	Displays []string
}

// Items gives the items of all lists below a section heading (.Sh), also those
// in its subsections. A list within an item's text ends that item.
func Items(page, section string) []Item {
	var items []Item
	var display *strings.Builder
	var text []string
	end := func() {
		if len(items) > 0 && text != nil {
			items[len(items)-1].Text = strings.Join(text, " ")
		}
		text = nil
	}
	inside, open := false, false
	for line := range strings.Lines(page) {
		line = strings.TrimSuffix(line, "\n")
		macro, rest, _ := strings.Cut(line, " ")
		switch {
		case macro == ".Sh":
			end()
			open = false
			inside = rest == section
		case !inside:
		case display != nil && macro == ".Ed":
			items[len(items)-1].Displays = append(items[len(items)-1].Displays, display.String())
			display = nil
		case display != nil:
			display.WriteString(unescape(line) + "\n")
		case macro == ".Bd" && open:
			display = new(strings.Builder)
		case macro == ".It":
			end()
			items, open = append(items, Item{Head: plain(rest)}), true
		case macro == ".El", macro == ".Bl":
			end()
			open = false
		case open && strings.HasPrefix(line, "."):
			if shown := plain(line[1:]); shown != "" {
				text = append(text, shown)
			}
		case open:
			text = append(text, strings.Fields(unescape(line))...)
		}
	}
	end()
	return items
}

// macros are those whose names are not shown. Xr, Pf and Bq have a look of
// their own.
var macros = []string{"Ic", "Fl", "Ar", "Cm", "Ql", "Pa", "Ev", "Dv", "Li", "Va", "Em", "Sy", "Nm", "Pp", "Ns", "No"}

// plain gives what a line with macros shows.
func plain(line string) string {
	var b strings.Builder
	words := strings.Fields(line)
	glue := true // no blank before the next word
	dash := false
	for i, w := range words {
		switch {
		case w == "Fl":
			dash = true
			continue
		case w == "Ns":
			glue = true
			continue
		case slices.Contains(macros, w) || w == "Xr":
			dash = false
			continue
		}
		if !glue && !(len(w) == 1 && strings.ContainsAny(w, ",.;:)")) {
			b.WriteByte(' ')
		}
		glue = false
		if dash {
			b.WriteByte('-')
			dash = false
		}
		if i >= 2 && words[i-2] == "Xr" {
			w = "(" + w + ")"
		}
		b.WriteString(unescape(w))
	}
	return strings.ReplaceAll(b.String(), " (", "(")
}

// unescape gives what an input text shows.
func unescape(s string) string {
	return strings.NewReplacer(`\&`, "", `\(dq`, `"`, `\-`, "-", `\e`, `\`).Replace(s)
}
