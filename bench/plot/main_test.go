package main

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/mxpipe/mxpipe/bench/report"
)

// Each series becomes a file that is an SVG with all names in it.
func TestPlots(t *testing.T) {
	dir := t.TempDir()
	r := &report.Report{Series: []report.Series{{
		Name: "speed", Title: "How fast", X: "at once", Y: "messages/s", LogX: true,
		Curves: []report.Curve{{Name: "LMTP", Points: []report.Point{{X: 1, Y: 5, Low: 4, High: 6}, {X: 100, Y: 50, Low: 40, High: 70}}}},
	}}}
	path := filepath.Join(dir, "report.json")
	if err := r.Save(path); err != nil {
		t.Fatal(err)
	}
	if err := run([]string{path, dir}); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "speed.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"<svg", "How fast", "at once", "messages/s", "LMTP", ">100<"} {
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("no %q in the plot", want)
		}
	}
	if run(nil) == nil || run([]string{filepath.Join(dir, "nothing"), dir}) == nil {
		t.Error("a mistake was not noticed")
	}
}
