package outcome

import (
	"fmt"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/status"
)

func TestMerge(t *testing.T) {
	ok := func(rcpt string) Result { return Result{rcpt, status.New(2, 0, 0), "mx1: 250 Ok"} }
	grey := func(rcpt string) Result { return Result{rcpt, status.New(4, 2, 0), "mx1: 450 grey"} }
	slow := func(rcpt string) Result { return Result{rcpt, status.New(4, 4, 2), "mx2: time-out"} }
	gone := func(rcpt string) Result { return Result{rcpt, status.New(5, 1, 1), "mx1: 550 gone"} }
	for _, test := range []struct {
		why  string
		in   []Result
		code string
		text string
	}{
		{"none", nil, "4.3.0", "no recipient has a result"},
		{"one success", []Result{ok("a@x")}, "2.0.0", "mx1: 250 Ok"},
		{"one refusal", []Result{gone("a@x")}, "5.1.1", "mx1: 550 gone"},
		{"one without a code", []Result{{"a@x", status.Code{}, "?"}}, "4.3.0", "?"},
		{"one with controls", []Result{{"a@x", status.New(5, 0, 0), "a\r\nb\x00"}}, "5.0.0", "a  b?"},
		{"all delivered", []Result{ok("a@x"), ok("b@x")}, "2.0.0",
			"2 recipients, 2 delivered: delivered <a@x> (2.0.0 mx1: 250 Ok), <b@x> (2.0.0 mx1: 250 Ok)"},
		{"temporary beats permanent beats success", []Result{ok("a@x"), gone("b@x"), grey("c@x")}, "4.2.0",
			"3 recipients, 1 deferred, 1 refused, 1 delivered: deferred <c@x> (4.2.0 mx1: 450 grey), refused <b@x> (5.1.1 mx1: 550 gone), delivered <a@x> (2.0.0 mx1: 250 Ok)"},
		{"permanent beats success", []Result{ok("a@x"), gone("b@x")}, "5.1.1",
			"2 recipients, 1 refused, 1 delivered: refused <b@x> (5.1.1 mx1: 550 gone), delivered <a@x> (2.0.0 mx1: 250 Ok)"},
		{"different codes of one class", []Result{grey("a@x"), slow("b@x"), gone("c@x")}, "4.0.0",
			"3 recipients, 2 deferred, 1 refused: deferred <a@x> (4.2.0 mx1: 450 grey), <b@x> (4.4.2 mx2: time-out), refused <c@x> (5.1.1 mx1: 550 gone)"},
		{"one of several without a code", []Result{ok("a@x"), {"b@x", status.Code{}, ""}}, "4.3.0",
			"2 recipients, 1 deferred, 1 delivered: deferred <b@x> (4.3.0), delivered <a@x> (2.0.0 mx1: 250 Ok)"},
	} {
		code, text := Merge(test.in)
		if code.String() != test.code || text != test.text {
			t.Errorf("%s: got %v %q", test.why, code, text)
		}
	}
}

// However many recipients there are and however long their names and texts,
// the line stays within its bound, and no one disappears uncounted.
func TestMergeIsBounded(t *testing.T) {
	for _, n := range []int{2, 3, 10, 20, 50, 500} {
		for _, name := range []int{1, 20, 320, 2000} {
			for _, text := range []int{0, 50, 600, 5000} {
				results := make([]Result, n)
				for i := range results {
					results[i] = Result{
						Recipient: fmt.Sprintf("%d\n%s", i, strings.Repeat("é", name/2)),
						Code:      status.New([]status.Class{2, 4, 5}[i%3], 999, 999),
						Text:      strings.Repeat("ü", text/2),
					}
				}
				code, line := Merge(results)
				if len(line) > MaxText || !utf8.ValidString(line) || strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Fatalf("%d×%d×%d: %d bytes: %q", n, name, text, len(line), line)
				}
				if code.Class != status.Temporary {
					t.Fatalf("%d: class %d", n, code.Class)
				}
				if name == 2000 {
					continue
				}
				var left int
				if i := strings.LastIndex(line, ", and "); i >= 0 {
					if _, err := fmt.Sscanf(line[i:], ", and %d more", &left); err != nil {
						t.Fatalf("%q: %v", line, err)
					}
				}
				if named := strings.Count(line, "<"); named == 0 || named+left != n {
					t.Fatalf("%d×%d×%d: %d named, %d counted: %q", n, name, text, named, left, line)
				}
			}
		}
	}
	_, line := Merge([]Result{{"a@x", status.New(2, 0, 0), strings.Repeat("x", 2000)}})
	if len(line) != MaxText {
		t.Errorf("one result: %d bytes", len(line))
	}
}

// What Postfix logs of a success is its first 100 bytes.
func TestMergeStartsWithWhatMatters(t *testing.T) {
	r := Result{"someone@example.org", status.New(2, 0, 0), "mx1.example.org: 250 2.0.0 Ok queued as 4XyZ"}
	_, line := Merge([]Result{r, r})
	if !strings.Contains(line[:100], "mx1.example.org: 250") {
		t.Errorf("%q", line[:100])
	}
}
