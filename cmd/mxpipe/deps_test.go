package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed is what the program may be made of, directly or not, besides the
// internals of the standard library. Each package more is paid for with every message.
var allowed = []string{
	"github.com/mxpipe/mxpipe/cmd/mxpipe",
	"github.com/mxpipe/mxpipe/internal/wire",
	"github.com/mxpipe/mxpipe/transport/status",
	"golang.org/x/sys/unix",
	// The standard library that we import, and what runtime/debug needs: fmt and os.
	"bytes", "cmp", "encoding/binary", "errors", "fmt", "io", "io/fs", "iter", "math", "math/bits", "os", "path", "reflect",
	"runtime", "runtime/debug", "slices", "sort", "strconv", "strings", "sync", "sync/atomic", "syscall", "time",
	"unicode", "unicode/utf8", "unsafe",
}

func TestDependencies(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	list := strings.Fields(string(out))
	if !slices.Contains(list, "runtime") {
		t.Fatalf("not a list of packages: %q", out)
	}
	for _, p := range list {
		if !strings.HasPrefix(p, "internal/") && !slices.Contains(allowed, p) {
			t.Errorf("mxpipe must not depend on %s", p)
		}
	}
}
