package setup

import (
	"slices"
	"strings"
)

// Diff shows what a plan changes, in the form of diff(1), and the commands that
// are run.
func (p Plan) Diff() string {
	var b strings.Builder
	var heading string
	for _, s := range p.trimmed().Steps {
		for _, c := range s.Changes {
			if h := c.heading(); h != heading {
				heading = h
				b.WriteString("--- " + h + "\n")
			}
			for _, line := range c.lines() {
				b.WriteString(line + "\n")
			}
		}
		for _, command := range s.Then {
			b.WriteString("run " + strings.Join(command, " ") + "\n")
		}
		heading = ""
	}
	return b.String()
}

// heading names what a change is made in.
func (c Change) heading() string {
	switch c.Kind {
	case File, Secret:
		return c.Name
	case Member:
		group, _, _ := strings.Cut(c.Name, ":")
		return "members of the group " + group
	}
	return string(c.Kind)
}

// lines are the lines that go, with a -, and those that come, with a +.
func (c Change) lines() (list []string) {
	before, after := c.text(c.Before), c.text(c.After)
	// Files get a part more, or lose one: what both have is not shown.
	for len(before) > 0 || len(after) > 0 {
		switch {
		case len(before) > 0 && len(after) > 0 && before[0] == after[0]:
			before, after = before[1:], after[1:]
		case len(after) > len(before):
			list, after = append(list, "+"+after[0]), after[1:]
		default:
			list, before = append(list, "-"+before[0]), before[1:]
			if len(after) > 0 && (len(before) == 0 || !slices.Contains(before, after[0])) {
				list, after = append(list, "+"+after[0]), after[1:]
			}
		}
	}
	return list
}

// text is a value as lines of what it is in.
func (c Change) text(value *string) []string {
	switch {
	case value == nil:
		return nil
	case c.Kind == Secret:
		return []string{"(the password, hidden; mode 0600)"}
	case c.Kind == MainCF:
		return []string{c.Name + " = " + *value}
	case c.Kind == File:
		return strings.Split(strings.TrimSuffix(*value, "\n"), "\n")
	}
	return []string{*value}
}
