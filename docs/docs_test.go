// Package docs has no code: its tests compare what the documents say of the
// tree with the tree.
package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const root = ".."

// read reads a file by its path below the root of the repository.
func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// walk calls visit for each file of the repository, with its path below the
// root; what Git ignores is left out.
func walk(t *testing.T, visit func(name string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(at string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := filepath.ToSlash(strings.TrimPrefix(strings.TrimPrefix(at, root), string(filepath.Separator)))
		switch {
		case entry.IsDir() && (slices.Contains([]string{".git", "bin", "dist"}, name) || entry.Name() == "node_modules"):
			return filepath.SkipDir
		case !entry.IsDir():
			visit(name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// packages lists the directories with Go files, those of other modules left
// out.
func packages(t *testing.T) (dirs []string) {
	t.Helper()
	modules := []string{}
	walk(t, func(name string) {
		if path.Base(name) == "go.mod" && name != "go.mod" {
			modules = append(modules, path.Dir(name)+"/")
		}
	})
	walk(t, func(name string) {
		dir := path.Dir(name)
		foreign := slices.ContainsFunc(modules, func(m string) bool { return strings.HasPrefix(dir+"/", m) })
		if strings.HasSuffix(name, ".go") && !foreign && !strings.Contains(dir, "testdata") && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	})
	return dirs
}

var quoted = regexp.MustCompile("`([^`]+)`")

// named lists what a text has between backquotes.
func named(text string) (words []string) {
	for _, m := range quoted.FindAllStringSubmatch(text, -1) {
		words = append(words, m[1])
	}
	return words
}

// isPath reports whether a quoted word is meant to be a file or a directory of
// the repository: it has a slash, and begins with one of its directories.
func isPath(word string) bool {
	first, _, ok := strings.Cut(word, "/")
	if !ok || first == "" || strings.ContainsAny(word, " …*=:<") {
		return false
	}
	info, err := os.Stat(filepath.Join(root, first))
	return err == nil && info.IsDir()
}

// declared lists the functions, methods ("Type.Method") and types of a file.
func declared(t *testing.T, name string) (all []string) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				of := d.Recv.List[0].Type
				if star, ok := of.(*ast.StarExpr); ok {
					of = star.X
				}
				if id, ok := of.(*ast.Ident); ok {
					name = id.Name + "." + name
				}
			}
			all = append(all, name)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok {
					all = append(all, s.Name.Name)
				}
			}
		}
	}
	return all
}

// Every path that a document for developers names is there, and so is every
// test.
func TestDocumentsNameWhatIsThere(t *testing.T) {
	tests := map[string]bool{}
	isTest := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Benchmark)\w+)\(`)
	walk(t, func(name string) {
		if strings.HasSuffix(name, "_test.go") {
			for _, m := range isTest.FindAllStringSubmatch(read(t, name), -1) {
				tests[m[1]] = true
			}
		}
	})
	for _, document := range []string{"README.md", "CONTRIBUTING.md", "docs/architecture.md", "docs/reliability.md", "docs/bounds.md", "docs/security.md", "docs/performance.md"} {
		for _, word := range named(read(t, document)) {
			if regexp.MustCompile(`^(Test|Fuzz|Benchmark)\w+$`).MatchString(word) && !tests[word] {
				t.Errorf("%s names %s, and there is no such test", document, word)
			}
			if !isPath(word) {
				continue
			}
			if _, err := os.Stat(filepath.Join(root, strings.TrimSuffix(word, "/"))); err != nil {
				t.Errorf("%s names %s, which is not there", document, word)
			}
		}
	}
}

// docs/architecture.md names every package, and the functions of its walks are
// in the files that it says.
func TestArchitecture(t *testing.T) {
	text := read(t, "docs/architecture.md")
	words := named(text)
	for _, dir := range packages(t) {
		if !slices.Contains(words, dir) {
			t.Errorf("docs/architecture.md does not name the package %s", dir)
		}
	}
	steps := 0
	for line := range strings.Lines(text) {
		cells := strings.Split(line, "|")
		if len(cells) != 5 {
			continue
		}
		file := named(cells[1])
		if len(file) != 1 || !strings.HasSuffix(file[0], ".go") {
			continue
		}
		there := declared(t, file[0])
		for _, function := range named(cells[2]) {
			steps++
			if !slices.Contains(there, function) {
				t.Errorf("docs/architecture.md has %s in %s, where it is not", function, file[0])
			}
		}
	}
	if steps < 40 {
		t.Errorf("only %d steps of walks were found", steps)
	}
}

// Every package says in its comment what it is.
func TestPackagesHaveComments(t *testing.T) {
	commented := map[string]bool{}
	walk(t, func(name string) {
		if strings.HasSuffix(name, ".go") {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(root, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			commented[path.Dir(name)] = commented[path.Dir(name)] || file.Doc.Text() != ""
		}
	})
	for _, dir := range packages(t) {
		if !commented[dir] {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

// README's table of places has every package: by its own name, or, below the
// second level, by that of one above it.
func TestREADMEPlaces(t *testing.T) {
	_, table, ok := strings.Cut(read(t, "README.md"), "## Where things are")
	if !ok {
		t.Fatal("README.md has no table of places")
	}
	table, _, _ = strings.Cut(table, "\n## ")
	places := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, "|")
		if len(cells) != 4 {
			continue
		}
		above := ""
		for i, word := range named(cells[1]) {
			if i == 0 || strings.Contains(word, "/") {
				above = path.Dir(word)
			} else {
				word = path.Join(above, word)
			}
			places[word] = true
			if info, err := os.Stat(filepath.Join(root, word)); err != nil || !info.IsDir() {
				t.Errorf("README.md has the place %s, which is not there", word)
			}
		}
	}
	covered := func(dir string) bool {
		for at := dir; at != "."; at = path.Dir(at) {
			if places[at] && (at == dir || strings.Contains(at, "/") || !slices.Contains([]string{"policyd", "transport", "internal", "cmd"}, at)) {
				return true
			}
		}
		return false
	}
	for _, dir := range packages(t) {
		if !covered(dir) {
			t.Errorf("README.md's table of places does not have %s", dir)
		}
	}
}
