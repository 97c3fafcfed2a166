package logging_test

import (
	"os"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/mdoc"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

// mxpolicyd(8) has every key of the log with its meaning, in the same order,
// and no other.
func TestManualLogKeys(t *testing.T) {
	page, err := os.ReadFile("../../docs/mxpolicyd.8")
	if err != nil {
		t.Fatal(err)
	}
	items, all := mdoc.Items(string(page), "LOG"), logging.Keys()
	for i, k := range all {
		want := strings.ToUpper(k.Meaning[:1]) + k.Meaning[1:] + "."
		if i >= len(items) || items[i].Head != k.Key || items[i].Text != want {
			t.Errorf("mxpolicyd(8) should have, as key %d of the log,\n%s\n%s", i+1, k.Key, want)
		}
	}
	if len(items) > len(all) {
		t.Errorf("mxpolicyd(8) has %d keys of the log, there are %d", len(items), len(all))
	}
}
