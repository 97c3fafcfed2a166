package script

import (
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	tests := []struct {
		pattern, text string
		want          bool
	}{
		{"QUIT", "QUIT", true},
		{"QUIT", "quit", false},
		{"QUIT", "QUIT ", false},
		{"EHLO *", "EHLO mx.example", true},
		{"EHLO *", "EHLO", false},
		{"*", "", true},
		{"MAIL FROM:<*> SIZE=*", "MAIL FROM:<a@b> SIZE=12", true},
		{"MAIL FROM:<*> SIZE=*", "MAIL FROM:<a@b>", false},
		{"a*b*b", "ab", false},
		{"a*b*b", "abb", true},
		{"*ab", "aab", true},
		{`\*`, "*", true},
		{`\*`, "x", false},
		{`a\\*`, `a\b`, true},
	}
	for _, tt := range tests {
		if got := match(tt.pattern, tt.text); got != tt.want {
			t.Errorf("match(%q, %q) is %v", tt.pattern, tt.text, got)
		}
	}
}

func TestParseErrors(t *testing.T) {
	for text, want := range map[string]string{
		"S: 220 x\nHELLO":         "line 2",
		"BODY now":                "takes no argument",
		"READ -1":                 "a number",
		"READ 99999999999":        "a number",
		"SLEEP 1h":                "a time",
		"SLEEP":                   "a time",
		"WAIT":                    "the name of a gate",
		"MARK":                    "a name",
		"RAW 250 half":            "quoted string",
		`RAW ""`:                  "quoted string",
		`RECORDS`:                 "quoted string",
		`RECORDS "a" b`:           "quoted string",
		"TLS":                     "needs a name",
		"TLS good works":          "needs a name",
		`REPEAT 60000000 "abc"`:   "more than",
		"REPEAT 3":                "quoted string",
		"DRIP 1ms":                "quoted string",
		`DRIP 1h "x"`:             "a time",
		"DROP\nS: 250 too late":   "must be the last step",
		`ENDLESS "x"` + "\nRESET": "must be the last step",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Parse(%q): %v", text, err)
		}
	}
}

// FuzzParse checks that a script that parses is written by String as it was
// read.
func FuzzParse(f *testing.F) {
	f.Add("S: 220 hi\nC: EHLO *\nC? QUIT\nTLS good\nTLS bad fails\nBODY\nBDAT\nREAD 7\nFLIGHTS 2\nQUIET 5ms\nREST\nEND")
	f.Add("DRIP 1ms \"250 \"")
	f.Add("# comment\n  RAW \"250 half\"\nREPEAT 3 \"x\\r\\n\"\nTLSALERT\nSLEEP 1ms\nWAIT gate\nMARK here\nENDLESS \"250-\"")
	f.Fuzz(func(t *testing.T, text string) {
		one, err := Parse(text)
		if err != nil {
			return
		}
		written := func(s Script) string {
			var all []string
			for _, step := range s {
				all = append(all, step.String())
			}
			return strings.Join(all, "\n")
		}
		two, err := Parse(written(one))
		if err != nil || written(one) != written(two) {
			t.Errorf("%q was read again as %q, %v", written(one), written(two), err)
		}
	})
}
