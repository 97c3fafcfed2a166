package safeio

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
)

func TestReadJSON(t *testing.T) {
	dir := t.TempDir()
	got := map[string]int{"before": 1}
	if err := ReadJSON(dir, "state", 100, &got); !errors.Is(err, fs.ErrNotExist) || got["before"] != 1 {
		t.Error(err, got)
	}
	if err := Write(dir, "state", []byte(`{"n": 2}`)); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(dir, "state", 8, &got); err != nil || got["n"] != 2 {
		t.Error(err, got)
	}
	if err := ReadJSON(dir, "state", 7, &got); err == nil || !strings.Contains(err.Error(), "state: it is too large") {
		t.Error(err)
	}
	if err := Write(dir, "state", []byte(`{"n":`)); err != nil {
		t.Fatal(err)
	}
	if err := ReadJSON(dir, "state", 100, &got); err == nil || !strings.Contains(err.Error(), "state: ") {
		t.Error(err)
	}
}
