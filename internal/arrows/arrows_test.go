// Package arrows tests that the rooms of the house know each other in one
// direction only: cmd, policyd, transport, delivery, session, plan, subjects,
// cache. A room that comes to know one above it fails here.
package arrows

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/mxpipe/mxpipe/"

// rule says what the packages at a place must not import. A pattern ends with
// "/..." for all that is below as well; a word without a dot in its first
// element is a package of this module, or of the standard library where this
// module has none.
type rule struct {
	place string
	not   []string
	// directly: what the imported packages import in turn does not count.
	directly bool
}

var rules = []rule{
	{place: "cache", not: []string{"cmd/...", "policyd/...", "transport/...", "internal/wire", "internal/lab/..."}},
	// A subject knows its own matter, and none of the rooms that put them
	// together.
	{place: "transport/SUBJECT", not: []string{"cmd/...", "policyd/...", "internal/wire", "internal/lab/...", "transport", "transport/plan", "transport/session", "transport/delivery"}},
	{place: "transport/plan", not: []string{
		"cmd/...", "policyd/...", "internal/wire", "internal/lab/...", "transport", "transport/session", "transport/delivery",
		"transport/smtp", "transport/pool", "transport/dial", "transport/deadhost", "transport/limit", "transport/message", "transport/outcome",
	}},
	{place: "transport/session", not: []string{"cmd/...", "policyd/...", "internal/wire", "internal/lab/...", "transport", "transport/delivery"}},
	{place: "transport/session", not: []string{"transport/message", "transport/resolver", "transport/mtasts/..."}, directly: true},
	{place: "transport/delivery", not: []string{"cmd/...", "policyd/...", "internal/wire", "internal/lab/...", "transport"}},
	{place: "transport/delivery", not: []string{"transport/pool", "transport/dial", "transport/deadhost", "transport/resolver", "transport/mtasts/..."}, directly: true},
	{place: "transport", not: []string{"cmd/...", "policyd/...", "internal/wire", "internal/lab/..."}},
	{place: "transport", not: []string{"transport/dial", "transport/resolver"}, directly: true},
	// Only the transport speaks SMTP to the outside.
	{place: "policyd/...", not: []string{"cmd/..."}},
	{place: "policyd/...", not: []string{"transport/smtp", "transport/session", "transport/delivery", "transport/dial"}, directly: true},
	{place: "policyd/listen", not: []string{"policyd/runtime", "policyd/logging", "transport"}, directly: true},
	{place: "policyd/logging", not: []string{"policyd/runtime", "policyd/listen", "transport"}, directly: true},
	{place: "policyd/runtime", not: []string{"policyd/listen", "policyd/logging", "policyd/admin", "policyd/pipe", "policyd/lmtp"}},
	{place: "policyd/pipe", not: []string{"policyd/lmtp", "policyd/socketmap", "policyd/admin", "policyd"}},
	{place: "policyd/lmtp", not: []string{"policyd/pipe", "policyd/socketmap", "policyd/admin", "policyd"}},
	{place: "policyd/socketmap", not: []string{"policyd/pipe", "policyd/lmtp", "policyd/admin", "policyd"}},
	{place: "cmd/mxpipe", not: []string{
		"policyd/...", "transport", "transport/resolver", "transport/smtp",
		"net", "encoding/json", "crypto/tls", "gopkg.in/yaml.v3", "github.com/miekg/dns",
	}},
	{place: "cmd/mxpolicyd", not: []string{"transport/...", "gopkg.in/yaml.v3"}, directly: true},
	{place: "internal/wire", not: []string{"cmd/...", "policyd/...", "transport", "net", "encoding/json"}},
}

// Allowed is what breaks a rule by the contract's own word.
var allowed = map[string]bool{
	"cmd/mxpolicyd transport": true, // the depth of an explanation
}

// imports gives the packages of this module, as paths below it, with what the
// files of each import that are no tests.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	root := filepath.Join("..", "..")
	all := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := entry.Name()
		if entry.IsDir() {
			if path != root && (strings.HasPrefix(name, ".") || name == "testdata") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir = filepath.ToSlash(dir)
		for _, i := range file.Imports {
			what, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				return err
			}
			all[dir] = append(all[dir], strings.TrimPrefix(what, module))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for dir := range all {
		slices.Sort(all[dir])
		all[dir] = slices.Compact(all[dir])
	}
	return all
}

// reach gives all that a package imports, and for each the way there.
func reach(all map[string][]string, from string, directly bool) map[string]string {
	ways := map[string]string{}
	var visit func(dir, way string)
	visit = func(dir, way string) {
		for _, to := range all[dir] {
			if _, seen := ways[to]; seen {
				continue
			}
			ways[to] = way + " -> " + to
			if !directly {
				visit(to, ways[to])
			}
		}
	}
	visit(from, from)
	return ways
}

func matches(pattern, dir string) bool {
	if pattern == "transport/SUBJECT" {
		return strings.HasPrefix(dir, "transport/") && !slices.Contains([]string{"transport/plan", "transport/session", "transport/delivery"}, dir)
	}
	if above, ok := strings.CutSuffix(pattern, "/..."); ok {
		return dir == above || strings.HasPrefix(dir, above+"/")
	}
	return dir == pattern
}

// broken lists the arrows that go against a rule.
func broken(all map[string][]string, r rule) (list []string) {
	for dir := range all {
		if !matches(r.place, dir) {
			continue
		}
		for to, way := range reach(all, dir, r.directly) {
			if allowed[dir+" "+to] {
				continue
			}
			for _, not := range r.not {
				if matches(not, to) {
					list = append(list, way)
				}
			}
		}
	}
	slices.Sort(list)
	return list
}

func TestArrows(t *testing.T) {
	all := imports(t)
	for _, r := range rules {
		known := false
		for dir := range all {
			known = known || matches(r.place, dir)
		}
		if !known {
			t.Errorf("there is no package at %s", r.place)
		}
		for _, way := range broken(all, r) {
			t.Errorf("%s must not know: %s", r.place, way)
		}
	}
}

// Each arrow that is turned round is found.
func TestArrowsTurnedRound(t *testing.T) {
	order := []string{"cmd/mxpolicyd", "policyd", "transport", "transport/delivery", "transport/session", "transport/plan", "transport/route", "cache"}
	for i, low := range order {
		for _, high := range order[:i] {
			all := imports(t)
			all[low] = append(all[low], high)
			found := false
			for _, r := range rules {
				found = found || len(broken(all, r)) > 0
			}
			if !found {
				t.Errorf("%s may import %s", low, high)
			}
		}
	}
}
