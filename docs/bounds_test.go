package docs

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBoundsPage: each number of docs/bounds.md is that of the constant that
// the page names, and each test is in the package that it names.
func TestBoundsPage(t *testing.T) {
	pairs := regexp.MustCompile("`([a-z0-9/]+)` `(\\w+)`")
	rows := 0
	for line := range strings.Lines(read(t, "docs/bounds.md")) {
		cells := strings.Split(strings.TrimSpace(line), "|")
		if len(cells) != 7 || strings.HasPrefix(cells[1], "---") || cells[1] == " what " {
			continue
		}
		rows++
		what, number := strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		if at := pairs.FindStringSubmatch(cells[3]); at != nil {
			expr, ok := constants(t, at[1])[at[2]]
			if !ok {
				t.Errorf("%s: there is no constant %s in %s", what, at[2], at[1])
			} else if want := spelled(t, at[1], expr); !want[number] {
				t.Errorf("%s: the page has %s, %s in %s is %v", what, number, at[2], at[1], want)
			}
		} else if strings.TrimSpace(cells[3]) != "" {
			t.Errorf("%s: %q is no place", what, cells[3])
		}
		proofs := pairs.FindAllStringSubmatch(cells[5], -1)
		if len(proofs) == 0 {
			t.Errorf("%s: no test proves it", what)
		}
		for _, proof := range proofs {
			if !declaresTest(t, proof[1], proof[2]) {
				t.Errorf("%s: there is no %s in %s", what, proof[2], proof[1])
			}
		}
	}
	if rows < 100 {
		t.Errorf("only %d bounds were found", rows)
	}
}

// parsed gives the Go files of a directory.
func parsed(t *testing.T, dir string, tests bool) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(root, dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") == tests {
			file, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			files = append(files, file)
		}
	}
	return files
}

func declaresTest(t *testing.T, dir, name string) bool {
	t.Helper()
	for _, file := range parsed(t, dir, true) {
		for _, d := range file.Decls {
			if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == name {
				return true
			}
		}
	}
	return false
}

// constants gives the expressions of a package's constants.
func constants(t *testing.T, dir string) map[string]ast.Expr {
	t.Helper()
	all := map[string]ast.Expr{}
	for _, file := range parsed(t, dir, false) {
		for _, d := range file.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.CONST {
				continue
			}
			for _, s := range g.Specs {
				s := s.(*ast.ValueSpec)
				for i, name := range s.Names {
					if i < len(s.Values) {
						all[name.Name] = s.Values[i]
					}
				}
			}
		}
	}
	return all
}

// units are what package time has.
var units = map[string]time.Duration{"Second": time.Second, "Minute": time.Minute, "Hour": time.Hour, "Millisecond": time.Millisecond}

// value evaluates a constant expression; timed reports whether it is a
// duration.
func value(t *testing.T, dir string, e ast.Expr) (v constant.Value, timed bool) {
	t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0), false
	case *ast.ParenExpr:
		return value(t, dir, e.X)
	case *ast.Ident:
		return value(t, dir, constants(t, dir)[e.Name])
	case *ast.SelectorExpr:
		of := e.X.(*ast.Ident).Name
		if of == "time" {
			return constant.MakeInt64(int64(units[e.Sel.Name])), true
		}
		return value(t, imported(t, dir, of), constants(t, imported(t, dir, of))[e.Sel.Name])
	case *ast.BinaryExpr:
		x, xt := value(t, dir, e.X)
		y, yt := value(t, dir, e.Y)
		if e.Op == token.SHL {
			n, _ := constant.Uint64Val(y)
			return constant.Shift(x, e.Op, uint(n)), xt
		}
		return constant.BinaryOp(x, e.Op, y), xt || yt
	}
	t.Fatalf("%s: a constant that the test does not understand: %T", dir, e)
	return nil, false
}

// imported gives the directory of a package that one of dir's files imports.
func imported(t *testing.T, dir, name string) string {
	t.Helper()
	for _, file := range parsed(t, dir, false) {
		for _, i := range file.Imports {
			path, _ := strconv.Unquote(i.Path.Value)
			if below, ok := strings.CutPrefix(path, "github.com/mxpipe/mxpipe/"); ok && filepath.Base(path) == name {
				if _, err := os.Stat(filepath.Join(root, below)); err == nil {
					return below
				}
			}
		}
	}
	t.Fatalf("%s imports no %s", dir, name)
	return ""
}

// spelled gives the ways to write a constant's number.
func spelled(t *testing.T, dir string, e ast.Expr) map[string]bool {
	t.Helper()
	v, timed := value(t, dir, e)
	n, ok := constant.Int64Val(v)
	if !ok {
		t.Fatalf("%s: %v", dir, v)
	}
	all := map[string]bool{}
	if timed {
		for unit, of := range map[string]time.Duration{"s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour} {
			if n%int64(of) == 0 {
				all[fmt.Sprintf("%d %s", n/int64(of), unit)] = true
			}
		}
		return all
	}
	plain := strconv.FormatInt(n, 10)
	all[plain] = true
	for i := len(plain) - 3; i > 0; i -= 3 {
		plain = plain[:i] + "," + plain[i:]
	}
	all[plain] = true
	for unit, of := range map[string]int64{"KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30} {
		if n%of == 0 {
			all[fmt.Sprintf("%d %s", n/of, unit)] = true
		}
	}
	return all
}
