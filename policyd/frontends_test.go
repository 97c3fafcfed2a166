package policyd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/listen"
)

// Every kind of socket that package listen knows has a front end.
func TestEveryKindOfSocketHasAFrontEnd(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "listen/endpoint.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	makers, kinds := new(Daemon).frontEndMakers(), 0
	ast.Inspect(file, func(n ast.Node) bool {
		if spec, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(spec.Names[0].Name, "Kind") {
			// They are counted from 0, in the order of the file.
			if kind := listen.EndpointKind(kinds); makers[kind] == nil {
				t.Errorf("no front end for %s", spec.Names[0].Name)
			}
			kinds++
		}
		return true
	})
	if kinds < 5 || kinds != len(makers) {
		t.Errorf("%d kinds of sockets, %d front ends", kinds, len(makers))
	}
}
