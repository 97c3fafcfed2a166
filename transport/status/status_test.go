package status

import (
	"regexp"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text, code, rest string
	}{
		{"2.0.0", "2.0.0", ""},
		{"4.7.5 mx: no", "4.7.5", "mx: no"},
		{"5.1.10\ttab", "5.1.10", "tab"},
		{"5.999.999  two", "5.999.999", " two"},
		{"2.0.0 ", "2.0.0", ""},
		{"2.00.0", "", ""},
		{"2.0.01", "", ""},
		{"2.0.1000", "", ""},
		{"2.1000.0", "", ""},
		{"2.0", "", ""},
		{"2.0.", "", ""},
		{"2..0", "", ""},
		{"2.0.0.0", "", ""},
		{"2.0.0x", "", ""},
		{"20.0.0", "", ""},
		{"3.0.0", "", ""},
		{" 2.0.0", "", ""},
		{"250 2.0.0", "", ""},
		{"", "", ""},
	} {
		code, rest, ok := Parse(c.text)
		if ok != (c.code != "") || ok && (code.String() != c.code || rest != c.rest) || !ok && rest != c.text {
			t.Errorf("%q: %v, %q, %v", c.text, code, rest, ok)
		}
	}
}

// FuzzParse holds the parser against the grammar.
func FuzzParse(f *testing.F) {
	grammar := regexp.MustCompile(`^[245]\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})([ \t]|$)`)
	f.Add("5.1.10 no")
	f.Add("2.0.0\n")
	f.Fuzz(func(t *testing.T, text string) {
		// $ is the end of the text, and . no part of the grammar.
		want := grammar.FindString(text)
		code, rest, ok := Parse(text)
		if ok != (want != "") {
			t.Fatalf("%q: %v", text, ok)
		}
		if ok && (code.String() != strings.TrimRight(want, " \t") || rest != text[len(want):]) {
			t.Fatalf("%q: %v, %q", text, code, rest)
		}
	})
}
