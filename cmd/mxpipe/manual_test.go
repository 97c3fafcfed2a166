package main

import (
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/mdoc"
	"github.com/mxpipe/mxpipe/transport/status"
)

func manual(t *testing.T) string {
	t.Helper()
	page, err := os.ReadFile("../../docs/mxpipe.1")
	if err != nil {
		t.Fatal(err)
	}
	return string(page)
}

// comment is the package's: the manual for those who read the code.
func comment(t *testing.T) string {
	t.Helper()
	text, _, _ := strings.Cut(readFile(t, "main.go"), "\npackage main")
	return text
}

// mxpipe(1), the comment of the package, the usage, the completions and the
// program know the same flags.
func TestManualFlags(t *testing.T) {
	var listed []string
	for _, item := range mdoc.Items(manual(t), "DESCRIPTION") {
		_, long, ok := strings.Cut(item.Head, "--")
		name, _, takes := strings.Cut(long, " ")
		if !ok {
			t.Errorf("mxpipe(1) lists %q", item.Head)
		}
		listed = append(listed, name)
		if f := flagOf(name); f == noFlag || takes != f.needsValue() {
			t.Errorf("mxpipe(1) lists %q, which is flag %d", item.Head, f)
		}
	}
	word := regexp.MustCompile(`--([a-z][a-z0-9-]*)`)
	fish := regexp.MustCompile(`-l ([a-z][a-z0-9-]*)`)
	for name, source := range map[string]struct {
		text string
		flag *regexp.Regexp
	}{
		"the usage":       {usageText, word},
		"main.go":         {comment(t), word},
		"bash completion": {readFile(t, "../../packaging/completions/mxpipe.bash"), word},
		"zsh completion":  {readFile(t, "../../packaging/completions/mxpipe.zsh"), word},
		"fish completion": {readFile(t, "../../packaging/completions/mxpipe.fish"), fish},
	} {
		var known []string
		for _, m := range source.flag.FindAllStringSubmatch(source.text, -1) {
			if !slices.Contains(known, m[1]) && m[1] != "flag" {
				known = append(known, m[1])
			}
		}
		for _, f := range known {
			if !slices.Contains(listed, f) {
				t.Errorf("%s has --%s, which is not in mxpipe(1)", name, f)
			}
		}
		for _, f := range listed {
			if !slices.Contains(known, f) {
				t.Errorf("%s lacks --%s", name, f)
			}
		}
	}
	// Whatever the program knows is among them.
	text := readFile(t, "flags.go")
	_, kinds, _ := strings.Cut(text, "func flagOf(")
	kinds, _, _ = strings.Cut(kinds, "\n}\n")
	for _, m := range regexp.MustCompile(`"([a-z0-9-]+)"`).FindAllStringSubmatch(kinds, -1) {
		if !slices.Contains(listed, m[1]) {
			t.Errorf("mxpipe(1) lacks --%s", m[1])
		}
	}
}

// mxpipe(1) and the comment of the package have every exit status that a code
// can have, and no other.
func TestManualExitStatus(t *testing.T) {
	var listed []int
	for _, item := range mdoc.Items(manual(t), "EXIT STATUS") {
		n, err := strconv.Atoi(item.Head)
		if err != nil {
			t.Errorf("%q is no exit status", item.Head)
		}
		listed = append(listed, n)
	}
	_, section, _ := strings.Cut(comment(t), "# Exit status\n")
	section, _, _ = strings.Cut(section, "\n// # ")
	var commented []int
	for _, m := range regexp.MustCompile(`(?m)^//\t ?(\d+) `).FindAllStringSubmatch(section, -1) {
		n, _ := strconv.Atoi(m[1])
		commented = append(commented, n)
	}
	given := []int{exitStatus(status.Code{})}
	for _, class := range []status.Class{status.Success, status.Temporary, status.Permanent} {
		for subject := range uint16(20) {
			for detail := range uint16(100) {
				if s := exitStatus(status.New(class, subject, detail)); !slices.Contains(given, s) {
					given = append(given, s)
				}
			}
		}
	}
	slices.Sort(given)
	if !slices.Equal(listed, given) || !slices.Equal(commented, given) {
		t.Errorf("mxpipe(1) lists the exit statuses %v, main.go %v; the program has %v", listed, commented, given)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
