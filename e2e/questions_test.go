package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// question is one of docs/questions.md.
type question struct {
	title, command string
	look           []string // for
}

// questions reads the page.
func questions(t *testing.T) (all []question) {
	t.Helper()
	text, err := os.ReadFile("../docs/questions.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([^`]+)`")
	for section := range strings.SplitSeq(string(text), "\n## ") {
		title, body, _ := strings.Cut(section, "\n")
		command := regexp.MustCompile(`(?m)^    mxpolicyd (.*)$`).FindStringSubmatch(body)
		if command == nil {
			continue // the head of the page
		}
		q := question{title: title, command: command[1]}
		_, look, _ := strings.Cut(body, "Look for")
		look, _, _ = strings.Cut(look, ";")
		for _, m := range code.FindAllStringSubmatch(look, -1) {
			q.look = append(q.look, m[1])
		}
		if len(q.look) == 0 {
			t.Errorf("%s: what is to be looked for?", title)
		}
		all = append(all, q)
	}
	return all
}

// answers plays the page: a domain stands for example.org, and a message that
// was not delivered there for 4XyZ.
func (o operator) answers(domain, id string) {
	o.t.Helper()
	as := strings.NewReplacer("example.org", domain, "4XyZ", id)
	all := questions(o.t)
	if len(all) != 10 {
		o.t.Errorf("%d questions", len(all))
	}
	for _, q := range all {
		var args []string
		for i, part := range strings.Split(as.Replace(q.command), `"`) {
			if i%2 == 1 {
				args = append(args, part)
			} else {
				args = append(args, strings.Fields(part)...)
			}
		}
		status, out := o.run(args...)
		if want := map[bool]int{true: 1}[strings.Contains(q.command, "--to ")]; status != want {
			o.t.Errorf("%s: exit status %d\n%s", q.title, status, out)
		}
		flat := strings.Join(strings.Fields(out), " ")
		for _, part := range q.look {
			if !strings.Contains(flat, strings.Join(strings.Fields(as.Replace(part)), " ")) {
				o.t.Errorf("%s: %q is not in\n%s", q.title, as.Replace(part), out)
			}
		}
	}
	o.says(0, "trace "+domain+" --stop")
	o.says(0, "resume "+domain)
}
