package resolver

import (
	"strings"
	"testing"
)

// The short way to a name's one form leads where the long one does.
func FuzzNormalName(f *testing.F) {
	label := strings.Repeat("a", 63)
	long := label + "." + label + "." + label + "." + label[:61]
	for _, seed := range []string{
		"a", "a.", "a.b-c._d", "A.b", "a..b", ".a", "a..", "-", "_25._tcp.mx1.example.", label, label + "b", long, long + ".", long + "a", "a\\.b", "a\\046b", "\xff",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if !isPlain(name) {
			return
		}
		short, err := normalName(name)
		long, longErr := throughWire(name)
		if short != long || err != nil || longErr != nil {
			t.Errorf("%q is %q, %v by the short way, and %q, %v by the long one", name, short, err, long, longErr)
		}
	})
}

func TestPlainNamesAreMost(t *testing.T) {
	for name, want := range map[string]bool{
		"mx1.example.org": true, "mx1.example.org.": true, "_25._tcp.mx1.example.org": true,
		"MX1.example.org": false, "a..b": false, "": false, ".": false, "a.b..": false, strings.Repeat("a", 64): false, "a b": false,
	} {
		if got := isPlain(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
