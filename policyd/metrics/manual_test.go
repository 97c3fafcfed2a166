package metrics

import (
	"os"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/mdoc"
)

// mxpolicyd(8) has every metric with its type, labels and meaning, in the same
// order, and no other.
func TestManualMetrics(t *testing.T) {
	page, err := os.ReadFile("../../docs/mxpolicyd.8")
	if err != nil {
		t.Fatal(err)
	}
	items, all := mdoc.Items(string(page), "METRICS"), All()
	for i, m := range all {
		want := strings.ToUpper(string(m.Type[:1])) + string(m.Type[1:])
		if len(m.Labels) > 0 {
			want += " by " + strings.Join(m.Labels, ", ")
		}
		want += ". " + m.Help
		if i >= len(items) || items[i].Head != m.Name || items[i].Text != want {
			t.Errorf("mxpolicyd(8) should have, as metric %d,\n%s\n%s", i+1, m.Name, want)
		}
	}
	if len(items) > len(all) {
		t.Errorf("mxpolicyd(8) has %d metrics, there are %d", len(items), len(all))
	}
}
