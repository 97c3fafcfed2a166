package browser

import (
	"os"
	"path/filepath"
	"strings"
)

// axeVersion is that of e2e/needs.sh.
const axeVersion = "4.14.1"

// axe reads axe-core, which "make needs" fetches.
func (s *session) axe() string {
	s.t.Helper()
	cache := os.Getenv("MXPIPE_E2E_CACHE")
	if cache == "" {
		cache = "/var/cache/mxpipe-e2e"
	}
	text, err := os.ReadFile(filepath.Join(cache, "axe-core", axeVersion, "axe.min.js"))
	if err != nil {
		s.t.Fatalf("%v: run \"make needs\"", err)
	}
	return string(text)
}

// violation is one that axe-core finds.
type violation struct {
	ID, Help string
	Nodes    []struct{ HTML string }
}

// accessible: axe-core finds nothing in any view, in a dialog neither, and
// nothing is wider than a small screen.
func (s *session) accessible() {
	s.script(s.axe())
	for _, l := range []look{light, dark, narrow} {
		s.as(l)
		for _, view := range []string{"Overview", "Deliveries", "Domain", "Policies"} {
			s.visit(view)
			switch view {
			case "Deliveries":
				// A hundred rows would say no more.
				s.fill("Domain, host, provider or id", "mx.sts-wrong-name.example")
				s.until("one delivery is shown", `document.querySelectorAll("#deliveries tbody").length === 1`)
				if l == light { // it stays open
					s.click("button", "Details of "+s.text("#deliveries td.nowrap")+" to sts-wrong-name.example")
				}
				s.shows("#deliveries .details", "TLS encrypted")
			case "Domain":
				s.fill("Domain or address", "both.example")
				s.click("button", "Explain")
				s.shows("#way", "both.example would be")
			case "Policies":
				s.shows("#policies", "sts.example")
			}
			s.findsNothing(view, l)
			if l == narrow {
				s.until(view+" is no wider than the screen", "document.documentElement.scrollWidth <= innerWidth")
			}
		}
		s.visit("Overview")
		s.click("button", "Suspend sts.example")
		s.shows("dialog[open]", "Suspend sts.example?")
		s.findsNothing("the dialog", l)
		s.press("Escape")
		s.until("the dialog is closed", `!document.querySelector("dialog[open]")`)
	}
	s.until("nothing moves for who wants that", "document.getAnimations().length === 0")
	s.as(light)
}

func (s *session) findsNothing(what string, l look) {
	s.t.Helper()
	var found []violation
	s.must(s.eval(`axe.run(document, { resultTypes: ["violations"] }).then((r) => r.violations.map((v) => ({ id: v.id, help: v.help, nodes: v.nodes.map((n) => ({ html: n.html + " " + n.failureSummary })) })))`, &found))
	for _, v := range found {
		var where []string
		for _, n := range v.Nodes {
			where = append(where, n.HTML)
		}
		s.t.Errorf("%s (%v): %s: %s\n    %s", what, l, v.ID, v.Help, strings.Join(where[:min(3, len(where))], "\n    "))
	}
}
