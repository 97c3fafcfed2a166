package address

import (
	"errors"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct {
		in, wire, utf8 string
		needs          bool
	}{
		{"", "", "", false},
		{"<>", "", "", false},
		{"a@example.org", "a@example.org", "a@example.org", false},
		{"A.b+c%d@Example.ORG", "A.b+c%d@example.org", "A.b+c%d@Example.ORG", false},
		{"-dash@example.org", "-dash@example.org", "-dash@example.org", false},
		{"a@example.org.", "a@example.org", "a@example.org", false},
		{"ü@bücher.example.", "ü@xn--bcher-kva.example", "ü@bücher.example", true},
		{"ü@bücher\u3002example", "ü@xn--bcher-kva.example", "ü@bücher.example", true},
		// RFC 5321 §4.1.2: a quoted string stays, what is no dot string is
		// quoted.
		{`"john smith"@example.org`, `"john smith"@example.org`, `"john smith"@example.org`, false},
		{`john smith@example.org`, `"john smith"@example.org`, `"john smith"@example.org`, false},
		{`a"b\c@example.org`, `"a\"b\\c"@example.org`, `"a\"b\\c"@example.org`, false},
		{`a..b@example.org`, `"a..b"@example.org`, `"a..b"@example.org`, false},
		{`.a@example.org`, `".a"@example.org`, `".a"@example.org`, false},
		{`x> RCPT TO:<y@example.org`, `"x> RCPT TO:<y"@example.org`, `"x> RCPT TO:<y"@example.org`, false},
		{`"a@b"@example.org`, `"a@b"@example.org`, `"a@b"@example.org`, false},
		{`a@b@example.org`, `"a@b"@example.org`, `"a@b"@example.org`, false},
		{`"a"b"@example.org`, `"\"a\"b\""@example.org`, `"\"a\"b\""@example.org`, false},
		// RFC 6531 §3.3 and RFC 5891 §5.
		{"ü@bücher.example", "ü@xn--bcher-kva.example", "ü@bücher.example", true},
		{"u@BÜCHER.example", "u@xn--bcher-kva.example", "u@BÜCHER.example", false},
		{"u@xn--bcher-kva.example", "u@xn--bcher-kva.example", "u@xn--bcher-kva.example", false},
		{"u@_dmarc.example", "u@_dmarc.example", "u@_dmarc.example", false},
		// RFC 5321 §4.1.3.
		{"u@[192.0.2.1]", "u@[192.0.2.1]", "u@[192.0.2.1]", false},
		{"u@[IPv6:2001:DB8::1]", "u@[IPv6:2001:db8::1]", "u@[IPv6:2001:db8::1]", false},
		{"u@[2001:db8::1]", "u@[IPv6:2001:db8::1]", "u@[IPv6:2001:db8::1]", false},
		{"postmaster", "postmaster", "postmaster", false},
	}
	for _, tt := range tests {
		a, err := Parse(tt.in)
		if err != nil {
			t.Errorf("Parse(%q): %v", tt.in, err)
			continue
		}
		if a.Wire() != tt.wire || a.UTF8() != tt.utf8 || a.NeedsUTF8() != tt.needs {
			t.Errorf("Parse(%q) = %q, %q, %v; want %q, %q, %v", tt.in, a.Wire(), a.UTF8(), a.NeedsUTF8(), tt.wire, tt.utf8, tt.needs)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct {
		in   string
		want error
	}{
		{"a@", ErrDomain},
		{"@example.org", ErrLocalPart},
		{"a@b..c", ErrDomain},
		{"a@.b", ErrDomain},
		{"a@" + strings.Repeat("x", 64) + ".org", ErrDomain},
		{"a@" + strings.Repeat("x.", 127) + "org", ErrDomain},
		{"a@b c", ErrDomain},
		{"a@b>c", ErrDomain},
		{"a@[192.0.2]", ErrDomain},
		{"a@[fe80::1%eth0]", ErrDomain},
		{"a@[]", ErrDomain},
		{"a\r\nRCPT TO:<b@c>@example.org", ErrCharacter},
		{"a\x00@example.org", ErrCharacter},
		{"a\x7f@example.org", ErrCharacter},
		{"a\u0085@example.org", ErrCharacter},
		{"a\xff@example.org", ErrCharacter},
		{strings.Repeat("a", 1100) + "@example.org", ErrTooLong},
		{strings.Repeat("a ", 490) + "@example.org", nil},
		{strings.Repeat("\\a ", 332) + "@", ErrDomain},
		// with its quotes
		{"a " + strings.Repeat("a", 998), ErrTooLong},
		// with its A-labels
		{strings.Repeat("a", 985) + "@b\u00fccher.example", ErrTooLong},
	}
	for _, tt := range tests {
		if a, err := Parse(tt.in); !errors.Is(err, tt.want) {
			t.Errorf("Parse(%.40q) = %v, %v; want %v", tt.in, a, err, tt.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "a@b", `"a b"@[::1]`, "ü@ü", `\@x`, `"\"@x`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		wire := a.Wire()
		if strings.ContainsAny(wire, "\r\n\x00") {
			t.Fatalf("%q leaves as %q", s, wire)
		}
		again, err := Parse(wire)
		if err != nil || again.Wire() != wire {
			t.Fatalf("%q leaves as %q, which reads as %q, %v", s, wire, again.Wire(), err)
		}
	})
}
