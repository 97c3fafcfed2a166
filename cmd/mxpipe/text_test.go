package main

import (
	"strings"
	"testing"
	"time"
)

// FuzzParseDuration holds the parser against that of package time, of which it
// takes all that is more than nothing and has no sign.
func FuzzParseDuration(f *testing.F) {
	for _, s := range []string{"15m", "1h30m", "300ms", "1.5s", ".5s", "1.s", "0", "0s", "1", "", "-1s", "+1s", "1us", "1µs", "1μs", "1ns", "1d", "s", ".s",
		"2562047h47m16.854775807s", "2562047h47m16.854775808s", "9223372036854775808ns", "1e3s", "1s1", "0.000000000000001h", "1m 2s"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		want, err := time.ParseDuration(s)
		got, ok := parseDuration(s)
		if signed := strings.HasPrefix(s, "+") || strings.HasPrefix(s, "-"); ok != (err == nil && want > 0 && !signed) {
			t.Fatalf("%q: %v, want %v, %v", s, ok, want, err)
		}
		// The last bit of a fraction makes no difference.
		if diff := time.Duration(got) - want; ok && (diff > 1 || diff < -1) {
			t.Fatalf("%q: %v, want %v", s, time.Duration(got), want)
		}
	})
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ a, b string }{{"7bit", "7BIT"}, {"never", "NEVER"}, {"", ""}, {"hdr\u017f", "hdrs"}, {"[", "{"}, {"a", "ab"}} {
		if got, want := equalFold(c.a, c.b), strings.EqualFold(c.a, c.b) && !strings.Contains(c.a, "\u017f"); got != want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
	for _, s := range []string{"", " ", "a", " a b\t", "\t\t", "a "} {
		if got, want := trim(s), strings.Trim(s, " \t"); got != want {
			t.Errorf("%q: %q", s, got)
		}
	}
}
