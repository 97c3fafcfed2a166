package console

import (
	"fmt"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// Findings writes what a doctor found, each with its fix in one line below,
// which is never broken, so that it can be copied.
func Findings(s Screen, list *[]finding.Finding) string {
	p := &page{Screen: s}
	var number [finding.Fail + 1]int
	for _, f := range *list {
		number[f.Level]++
		c := [...]colour{finding.OK: green, finding.Warn: yellow, finding.Fail: red}[f.Level]
		p.hang(pad(f.Level.String(), 6), c, none, f.What)
		if f.Mend != "" {
			p.b.WriteString(p.paint(dim, "      fix: ") + f.Mend + "\n")
		}
	}
	fmt.Fprintf(&p.b, "%s, %s\n", count(number[finding.Warn], "warning", "warnings"), count(number[finding.Fail], "failure", "failures"))
	return p.String()
}
