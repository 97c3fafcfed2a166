package mailserver

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/mdoc"
)

// mxpolicyd-postfix(7) lists each setting that does nothing for mail by pipe
// and by LMTP, with what to do instead, and no other.
func TestManualLostSettings(t *testing.T) {
	page, err := os.ReadFile("../../../docs/mxpolicyd-postfix.7")
	if err != nil {
		t.Fatal(err)
	}
	instead := map[string]string{} // by the settings that have it in common
	var want []string
	for _, s := range LostSettings() {
		if instead[s.Instead] == "" {
			want = append(want, s.Instead)
		} else {
			instead[s.Instead] += ", "
		}
		instead[s.Instead] += s.Name
	}
	for i, text := range want {
		want[i] = instead[text] + ": " + text
	}
	var got []string
	for _, item := range mdoc.Items(string(page), "SETTINGS OF SMTP(8) THAT LOSE EFFECT") {
		got = append(got, item.Head+": "+strings.TrimSuffix(item.Text, "."))
	}
	for _, line := range want {
		if !slices.Contains(got, line) {
			t.Errorf("mxpolicyd-postfix(7) does not have\n%s", line)
		}
	}
	for _, line := range got {
		if !slices.Contains(want, line) {
			t.Errorf("mxpolicyd-postfix(7) has\n%s", line)
		}
	}
}
