package doctor

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// parse reads a file of this package.
func parse(t *testing.T, name string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

// literals gives the strings below a node.
func literals(below ast.Node) (all []string) {
	ast.Inspect(below, func(n ast.Node) bool {
		if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
			if text, err := strconv.Unquote(l.Value); err == nil {
				all = append(all, text)
			}
		}
		return true
	})
	return all
}

// findings gives the formats of the warnings and failures that a function has.
func findings(f *ast.FuncDecl) (formats []string) {
	ast.Inspect(f, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok || len(call.Args) < 2 {
			return true
		}
		if name, ok := call.Fun.(*ast.Ident); ok && (name.Name == "warn" || name.Name == "fail") {
			formats = append(formats, literals(call.Args[1])...)
		}
		return true
	})
	return formats
}

var verb = regexp.MustCompile(`%[-+#0-9.]*[a-zA-Z]`)

// shown reports whether a test looks for what a format writes: it has a string
// that is a part of the format, or that has a part of it, verbs left out.
func shown(format string, tested []string) bool {
	const telling = 8 // a shorter string could be anything
	for _, part := range verb.Split(format, -1) {
		for _, text := range tested {
			if len(text) >= telling && strings.Contains(part, text) || len(part) >= telling && strings.Contains(text, part) {
				return true
			}
		}
	}
	return false
}

// Each check has a test with a host that does not pass it: one that is added
// without that is named here.
func TestEveryCheckIsTested(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var tested []string
	checks := map[string][]string{}
	for _, entry := range entries {
		switch name := entry.Name(); {
		case strings.HasSuffix(name, "_test.go"):
			tested = append(tested, literals(parse(t, name))...)
		case strings.HasSuffix(name, ".go"):
			for _, d := range parse(t, name).Decls {
				if f, ok := d.(*ast.FuncDecl); ok {
					if formats := findings(f); len(formats) > 0 {
						checks[name+": "+f.Name.Name] = formats
					}
				}
			}
		}
	}
	if len(checks) < 10 {
		t.Fatalf("only %d checks were found", len(checks))
	}
	for check, formats := range checks {
		if !slices.ContainsFunc(formats, func(format string) bool { return shown(format, tested) }) {
			t.Errorf("%s: no test has a host with any of %q", check, formats)
		}
	}
}
