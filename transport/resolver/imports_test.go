package resolver

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
)

// The DNS library has a successor, which has other types. They are this
// package's matter alone: nothing else of what is delivered knows them. Servers
// of the lab and of the benchmarks, and tests, may build zones with them.
func TestTheLibraryStaysBehindThisPackage(t *testing.T) {
	allowed := []string{"transport/resolver/", "internal/lab/", "bench/internet/"}
	root := filepath.Join("..", "..")
	seen := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") {
			return err
		}
		seen++
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		for _, dir := range allowed {
			if strings.HasPrefix(rel, dir) {
				return nil
			}
		}
		if strings.HasSuffix(rel, "_test.go") {
			return nil
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			if strings.HasPrefix(spec.Path.Value, `"github.com/miekg/dns`) {
				t.Errorf("%s imports the DNS library; package resolver has types of its own", rel)
			}
		}
		return nil
	})
	if err != nil || seen < 100 {
		t.Errorf("%d files, %v", seen, err)
	}
}
