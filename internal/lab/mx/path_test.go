package mx

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePath(t *testing.T) {
	tests := []struct {
		in, address string
		params      []string
		ok          bool
	}{
		{"<a@b.example>", "a@b.example", nil, true},
		{"<>", "", nil, true},
		{"<> SIZE=5 BODY=7BIT", "", []string{"SIZE=5", "BODY=7BIT"}, true},
		{`<"a b>c"@d.example>`, `"a b>c"@d.example`, nil, true},
		{`<"a\"b"@d.example>`, `"a\"b"@d.example`, nil, true},
		{"<ü@b.example>", "ü@b.example", nil, true},
		{"a@b.example", "", nil, false},
		{" <a@b.example>", "", nil, false},
		{"<a@b.example", "", nil, false},
		{"<a b@c.example>", "", nil, false},
		{"<@x,@y:a@b.example>", "", nil, false},
		{"<a@>", "", nil, false},
		{"<a@b.example>SIZE=5", "", nil, false},
		{"<a@b.example>  SIZE=5", "", nil, false},
		{"<a@b.example> SIZE=", "", nil, false},
		{"<a@b.example> =5", "", nil, false},
		{"<a\x00@b.example>", "", nil, false},
		{"<\"a\\\rb\"@c.example>", "", nil, false},
	}
	for _, tt := range tests {
		address, params, err := parsePath(tt.in)
		if address != tt.address || !slices.Equal(params, tt.params) || (err == nil) != tt.ok {
			t.Errorf("parsePath(%q) is %q, %q, %v", tt.in, address, params, err)
		}
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("<a@b.example> SIZE=5")
	f.Add(`<"a\>b"@c> X`)
	f.Fuzz(func(t *testing.T, in string) {
		address, params, err := parsePath(in)
		if err != nil {
			return
		}
		again := "<" + address + ">"
		if len(params) > 0 {
			again += " " + strings.Join(params, " ")
		}
		if again != in || strings.ContainsAny(in, "\x00\r\n") {
			t.Errorf("%q was read as %q", in, again)
		}
	})
}

func TestParseBDAT(t *testing.T) {
	for in, want := range map[string]struct {
		size int64
		last bool
		ok   bool
	}{
		"0 LAST": {0, true, true}, "12": {12, false, true}, "12 last": {12, true, true},
		"": {}, "-1": {}, "12 ": {}, "12 LAST LAST": {}, "x LAST": {}, "99999999999999999999 LAST": {}, "+1": {},
	} {
		size, last, err := parseBDAT(in)
		if size != want.size || last != want.last || (err == nil) != want.ok {
			t.Errorf("parseBDAT(%q) is %d, %v, %v", in, size, last, err)
		}
	}
}

func TestFaults(t *testing.T) {
	line := strings.Repeat("x", 998)
	for in, want := range map[string][]Breach{
		"":                      nil,
		"a\r\nb\r\n":            nil,
		line + "\r\n":           nil,
		line + "x\r\n":          {LongLine},
		"a\n" + line + "\r\n":   {BareLF, LongLine},
		line + "xx":             {LongLine},
		"a\nb\r\n":              {BareLF},
		"a\rb\r\n":              {BareCR},
		"a\r\r\n":               {BareCR},
		"a\r":                   {BareCR},
		"\n":                    {BareLF},
		"a\n.\r\n":              {BareLF},
		"\x00\n\r":              {BareCR, BareLF, Control},
		"a\r\n" + line + "\r\n": nil,
	} {
		if got := breaches([]byte(in)); !slices.Equal(got, want) {
			t.Errorf("breaches(%.20q) are %v, want %v", in, got, want)
		}
	}
}
