package docs

import (
	"go/scanner"
	"go/token"
	"path"
	"slices"
	"strings"
	"testing"
)

// columns is how wide a comment may be, and tab the width of a tab.
const (
	columns = 80
	tab     = 4
)

// width is the column in which a line ends.
func width(line string) (w int) {
	for _, r := range line {
		if w++; r == '\t' {
			w += tab - 1 - (w-1)%tab
		}
	}
	return w
}

// commented lists the lines of a Go file that hold a comment, counted from 1.
func commented(text string) (lines []int) {
	files := token.NewFileSet()
	file := files.AddFile("", -1, len(text))
	var s scanner.Scanner
	s.Init(file, []byte(text), nil, scanner.ScanComments)
	for {
		at, kind, comment := s.Scan()
		switch {
		case kind == token.EOF:
			return lines
		case kind == token.COMMENT && !strings.HasPrefix(comment, "//go:"):
			first := files.Position(at).Line
			for i := range 1 + strings.Count(comment, "\n") {
				lines = append(lines, first+i)
			}
		}
	}
}

// wide lists the lines of a file whose comments end beyond column 80: in Go
// also the comments after code, elsewhere those that have a line to themselves.
// A comment of one word, such as a URL, cannot be broken.
func wide(name, text string) (numbers []int) {
	all := strings.Split(text, "\n")
	var candidates []int
	switch {
	case path.Ext(name) == ".go":
		candidates = commented(text)
	case slices.Contains([]string{".sh", ".service", ".socket", ".conf", ".mxpipe", ".lmtp", ".socketmap"}, path.Ext(name)), path.Base(name) == "Makefile", strings.HasPrefix(name, "contrib/exim/conf.d/"):
		for i, line := range all {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				candidates = append(candidates, i+1)
			}
		}
	}
	for _, number := range candidates {
		if line := all[number-1]; width(line) > columns && len(strings.Fields(line)) > 2 {
			numbers = append(numbers, number)
		}
	}
	return numbers
}

// Comments are at most 80 columns wide, those after code included.
func TestCommentsAreEightyColumns(t *testing.T) {
	walk(t, func(name string) {
		for _, number := range wide(name, read(t, name)) {
			t.Errorf("%s:%d: the comment goes beyond column %d", name, number, columns)
		}
	})
}

func TestWide(t *testing.T) {
	long := strings.Repeat("word ", 20)
	for _, c := range []struct {
		name, text string
		want       []int
	}{
		{"a.go", "package a\n\n// " + long + "\nvar x = `// " + long + "`\n", []int{3}},
		{"a.go", "package a\n\nvar x = 1 // " + long + "\n", []int{3}},
		{"a.go", "package a\n\n/* short\n" + long + "\n*/\n", []int{4}},
		{"a.go", "package a\n\n//go:generate " + long + "\n// https://" + strings.Repeat("x", 90) + "\n", nil},
		{"a.go", "package a\n\n\t\t\t\t\t// " + strings.Repeat("é ", 28) + "é\n", nil},
		{"a.go", "package a\n\n\t\t\t\t\t// " + strings.Repeat("é ", 28) + "éé\n", []int{3}},
		{"a.sh", "#!/bin/sh\n  # " + long + "\necho " + long + "\n", []int{2}},
	} {
		if got := wide(c.name, c.text); !slices.Equal(got, c.want) {
			t.Errorf("%s %q: lines %v are wide, want %v", c.name, c.text, got, c.want)
		}
	}
}
