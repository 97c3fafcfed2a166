package setup

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// leaveNamed takes out of a plan that takes a set-up back what main.cf would
// still name afterwards, because somebody wrote it there since: an entry of
// master.cf, or the place of the socketmap. Without it Postfix would hold up
// all mail. now is main.cf as it is.
func (p *Plan) leaveNamed(now map[string]string) {
	after := maps.Clone(now)
	for c := range p.changes() {
		switch {
		case c.Kind == MainCF && c.After == nil:
			delete(after, c.Name)
		case c.Kind == MainCF:
			after[c.Name] = *c.After
		}
	}
	for c := range p.changes() {
		if c.Before == nil || c.After != nil {
			continue // it is not removed
		}
		name := namedBy(*c)
		if name == nil {
			continue
		}
		for _, setting := range slices.Sorted(maps.Keys(after)) {
			if !name.MatchString(after[setting]) {
				continue
			}
			c.After, p.left = c.Before, true
			p.Notes = append(p.Notes, finding.Finding{
				Level: finding.Warn, What: fmt.Sprintf("%s: %s stays, since main.cf names it: %s = %s", c.Kind, c.Name, setting, after[setting]),
				Mend: "postconf -e " + setting + "=…, then mxpolicyd setup " + p.Server + " --undo again",
			})
			break
		}
	}
}

// changes are those of all steps.
func (p *Plan) changes() func(yield func(*Change) bool) {
	return func(yield func(*Change) bool) {
		for i := range p.Steps {
			for j := range p.Steps[i].Changes {
				if !yield(&p.Steps[i].Changes[j]) {
					return
				}
			}
		}
	}
}

// namedBy is how a setting names what a change is made to; nil: it cannot.
func namedBy(c Change) *regexp.Regexp {
	switch {
	case c.Kind == MasterCF:
		service, _, _ := strings.Cut(c.Name, "/")
		return regexp.MustCompile(`(^|[\s,{:])` + regexp.QuoteMeta(service) + `($|[\s,}:])`)
	case c.Kind == File && c.Name == dropIn:
		return regexp.MustCompile(`socketmap:inet:` + regexp.QuoteMeta(tcpAddress) + `:`)
	}
	return nil
}
