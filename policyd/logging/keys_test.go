package logging

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// The keys that the source uses are those that are documented, all of them and
// no others.
func TestLogKeys(t *testing.T) {
	documented := map[string]bool{}
	for _, k := range Keys() {
		if documented[k.Key] || k.Meaning == "" {
			t.Errorf("%s: documented twice, or not at all", k.Key)
		}
		documented[k.Key] = true
	}
	// by trace, whose key is a variable
	used := map[string]bool{"C": true, "S": true}
	for _, dir := range []string{"../../policyd", "../../transport", "../../cache", "../../cmd/mxpolicyd"} {
		err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
			if err != nil {
				return err
			}
			for _, key := range keysIn(file) {
				if used[key] = true; !documented[key] {
					t.Errorf("%s: the key %q is not documented", path, key)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for key := range documented {
		if !used[key] {
			t.Errorf("the key %q is documented and not used", key)
		}
	}
}

// keysIn finds the keys in calls of slog's functions and of a logger's methods.
func keysIn(file *ast.File) (keys []string) {
	ast.Inspect(file, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		from := func(first, step int) {
			for i := first; i < len(call.Args); i += step {
				if key, ok := constant(call.Args[i]); ok {
					keys = append(keys, key)
				}
			}
		}
		on, _ := method.X.(*ast.Ident)
		switch {
		case on != nil && on.Name == "slog":
			switch method.Sel.Name {
			case "String", "Any", "Int", "Int64", "Uint64", "Bool", "Duration", "Time", "Float64", "Group":
				from(0, len(call.Args))
			}
			return true
		case len(call.Args) == 0:
			return true
		}
		switch method.Sel.Name {
		case "Debug", "Info", "Warn", "Error":
			if _, message := constant(call.Args[0]); message {
				from(1, 2)
			}
		case "Log":
			from(3, 2)
		case "With":
			from(0, 2)
		}
		return true
	})
	return keys
}

func constant(e ast.Expr) (string, bool) {
	literal, ok := e.(*ast.BasicLit)
	if !ok || literal.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(literal.Value)
	return text, err == nil
}
