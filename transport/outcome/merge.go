package outcome

import (
	"fmt"
	"strings"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

// MaxText is the most bytes of the text that [Merge] gives: with the code in
// front of it, a line stays below 900.
const MaxText = 880

// Result is what became of one recipient.
type Result struct {
	Recipient string
	// the zero Code, or any class but 2, 4 and 5, counts as temporary
	Code status.Code
	Text string // for people: "host: reply (…)"
}

// Merge makes one answer out of several recipients' results, because a pipe
// carries only one. A single result keeps its code and text. Of several,
// temporary beats permanent beats success; the code is the one that all
// results of that class share, otherwise X.0.0 (RFC 3463 §3.1). The text says
// how many went which way and names them, those who decided the answer first,
// with as many of their texts as there is room for. It is printable and at
// most MaxText bytes long. No results at all is trouble of our own: 4.3.0.
func Merge(results []Result) (status.Code, string) {
	if len(results) == 0 {
		return status.New(status.Temporary, 3, 0), "no recipient has a result"
	}
	if len(results) == 1 {
		return normalised(results[0].Code), reply.Cut(reply.Clean(results[0].Text), MaxText)
	}
	var groups [3]group
	for i, class := range [...]status.Class{status.Temporary, status.Permanent, status.Success} {
		groups[i].word = [...]string{"deferred", "refused", "delivered"}[i]
		for _, r := range results {
			if r.Code = normalised(r.Code); r.Code.Class == class {
				groups[i].add(r)
			}
		}
	}
	var counts []string
	var code status.Code
	for _, g := range groups {
		if len(g.results) == 0 {
			continue
		}
		if len(counts) == 0 {
			code = g.code
		}
		counts = append(counts, fmt.Sprintf("%d %s", len(g.results), g.word))
	}
	head := fmt.Sprintf("%d recipients, %s: ", len(results), strings.Join(counts, ", "))
	return code, head + list(groups[:], len(results), MaxText-len(head))
}

// normalised makes a code that is none, which would be a defect of ours,
// temporary.
func normalised(c status.Code) status.Code {
	switch c.Class {
	case status.Success, status.Temporary, status.Permanent:
		return c
	}
	return status.New(status.Temporary, 3, 0)
}

// group is the results of one class.
type group struct {
	word    string
	code    status.Code
	results []Result
}

func (g *group) add(r Result) {
	switch {
	case len(g.results) == 0:
		g.code = r.Code
	case g.code != r.Code:
		g.code = status.New(r.Code.Class, 0, 0)
	}
	g.results = append(g.results, r)
}

// list names all recipients within room bytes. Names come before texts: the
// room for each text is an equal share of what the names leave, and if even
// the names do not fit, the rest of them is counted.
func list(groups []group, total, room int) string {
	names := 0
	for _, g := range groups {
		for _, r := range g.results {
			names += len(g.word) + len(reply.Clean(r.Recipient)) + len(" <>, ")
		}
	}
	const brackets = len(" (5.999.999 )")
	share := (room-names)/total - brackets
	var b strings.Builder
	named := 0
	for _, g := range groups {
		for i, r := range g.results {
			item := "<" + reply.Clean(r.Recipient) + ">"
			if i == 0 {
				item = g.word + " " + item
			}
			if share > 10 {
				item += " (" + strings.TrimRight(r.Code.String()+" "+reply.Cut(reply.Clean(r.Text), share), " ") + ")"
			}
			rest := fmt.Sprintf(", and %d more", total-named)
			last := named == total-1
			if b.Len()+len(", ")+len(item) > room || (!last && b.Len()+len(", ")+len(item)+len(rest) > room) {
				if named == 0 {
					return reply.Cut(item, room)
				}
				b.WriteString(rest)
				return b.String()
			}
			if named > 0 {
				b.WriteString(", ")
			}
			b.WriteString(item)
			named++
		}
	}
	return b.String()
}
