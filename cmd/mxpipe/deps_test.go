package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// allowed is what the program may be made of, directly or not, besides the
// internals of the standard library. Each package more is paid for with every
// message: os with 28 page faults, time with 18, syscall with 4 to 9, where an
// empty program has 165.
var allowed = []string{
	"github.com/mxpipe/mxpipe/cmd/mxpipe",
	"github.com/mxpipe/mxpipe/internal/wire",
	"github.com/mxpipe/mxpipe/transport/status",
	"errors", "io", "math/bits", "runtime", "strconv", "sync", "sync/atomic", "unicode/utf8", "unsafe",
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
