// Package leaks says what a package's tests left behind: goroutines, and open
// files and sockets. A test that forgets to close what it opened hides a
// program that does.
package leaks

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"go.uber.org/goleak"
)

// patience is how long what was closed may take to be gone.
const patience = 5 * time.Second

// Tests is a *testing.M.
type Tests interface{ Run() int }

// VerifyTestMain runs the tests and ends the program. It fails when they do,
// and when they leave a goroutine, a file or a socket. The options are for
// goroutines.
func VerifyTestMain(m Tests, options ...goleak.Option) {
	goleak.VerifyTestMain(&tests{m, descriptors(), patience}, options...)
}

// tests are tests that are followed by a look at the descriptors.
type tests struct {
	Tests
	before   map[string]string
	patience time.Duration
}

// Run implements Tests.
func (t *tests) Run() int {
	code := t.Tests.Run()
	if code != 0 {
		return code
	}
	left := t.left()
	for deadline := time.Now().Add(t.patience); len(left) > 0 && time.Now().Before(deadline); left = t.left() {
		runtime.GC() // package net keeps the pipes of splice(2) until then
		time.Sleep(10 * time.Millisecond)
	}
	if len(left) > 0 {
		fmt.Fprintf(os.Stderr, "the tests left open: %s\n", strings.Join(left, ", "))
		return 1
	}
	return 0
}

// left lists what is open now and was not before.
func (t *tests) left() (left []string) {
	for fd, what := range descriptors() {
		if t.before[fd] != what {
			left = append(left, "descriptor "+fd+" ("+what+")")
		}
	}
	return left
}

// descriptors tells what each open descriptor is, but for those that the
// runtime and its pollers keep. Without /proc there are none to see.
func descriptors() map[string]string {
	all := map[string]string{}
	links, _ := filepath.Glob("/proc/self/fd/*")
	for _, link := range links {
		what, err := os.Readlink(link)
		if err != nil || strings.HasPrefix(what, "anon_inode:") {
			continue // the one that Glob itself had open, or a poller
		}
		all[filepath.Base(link)] = what
	}
	return all
}
