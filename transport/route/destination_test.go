package route_test

import (
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/route"
)

func TestParseNexthop(t *testing.T) {
	for text, want := range map[string]struct {
		canonical string
		explicit  bool
		port      uint16
	}{
		"example.org":               {"example.org", false, 0},
		"Example.ORG.":              {"example.org", false, 0},
		"example.org:2525":          {"example.org:2525", false, 2525},
		"localhost":                 {"localhost", false, 0},
		"[mx.example.org]":          {"[mx.example.org]", true, 0},
		"[MX.example.org.]:587":     {"[mx.example.org]:587", true, 587},
		"[under_score.example]":     {"[under_score.example]", true, 0},
		"bücher.example":            {"xn--bcher-kva.example", false, 0},
		"[bücher.example]:25":       {"[xn--bcher-kva.example]:25", true, 25},
		"[192.0.2.1]":               {"[192.0.2.1]", true, 0},
		"[192.0.2.1]:65535":         {"[192.0.2.1]:65535", true, 65535},
		"[IPv6:2001:DB8::1]":        {"[IPv6:2001:db8::1]", true, 0},
		"[ipv6:2001:db8::1]:24":     {"[IPv6:2001:db8::1]:24", true, 24},
		"[2001:db8::1]":             {"[IPv6:2001:db8::1]", true, 0},
		"[2001:db8::1]:10025":       {"[IPv6:2001:db8::1]:10025", true, 10025},
		"[::ffff:192.0.2.1]":        {"[192.0.2.1]", true, 0},
		"xn--bcher-kva.example:025": {"xn--bcher-kva.example:25", false, 25},
	} {
		d, err := route.ParseNexthop(text)
		if err != nil || d.String() != want.canonical || d.Nexthop != want.explicit || d.Port != want.port {
			t.Errorf("%q: %+v (%s), %v", text, d, d, err)
		}
	}
	for _, text := range []string{
		"", "[]", "[", "]", "[a", "a]", "[a]b", "[a]:", "[a]:0", "[a]:65536", "[a]:+1", "[a]:x", "[a]::25", "a:", "a:0", "a:b", ":25",
		"192.0.2.1", "192.0.2.1:25", "2001:db8::1", "[192.0.2]", "[fe80::1%eth0]", "a b", "a\r\nb", "[a\x00]", "a..b", ".a", "a/b", "smtp:[a]",
		strings.Repeat("a", 64) + ".example", strings.Repeat("a.", 200) + "example", strings.Repeat("ü", 5000), "\xff.example",
	} {
		if d, err := route.ParseNexthop(text); err == nil {
			t.Errorf("%q became %+v", text, d)
		}
	}
}

func TestForDomain(t *testing.T) {
	for text, want := range map[string]string{
		"example.org":    "example.org",
		"EXAMPLE.org.":   "example.org",
		"bücher.example": "xn--bcher-kva.example",
		"BÜCHER.example": "xn--bcher-kva.example",
		// UTS 46 §2.3: the ideographic full stop
		"bücher\u3002example":    "xn--bcher-kva.example",
		"_x.under_score.example": "_x.under_score.example",
		"my_host.bücher.example": "my_host.xn--bcher-kva.example",
		"_x.bücher.example":      "_x.xn--bcher-kva.example",
		"bücher_1.example":       "xn--bcher_1-n2a.example",
		"[192.0.2.1]":            "[192.0.2.1]",
		"[IPv6:2001:db8:0::0:1]": "[IPv6:2001:db8::1]",
		// a name like any other; the DNS says that it does not exist
		"192.0.2.1":               "192.0.2.1",
		"xn--fiqs8s":              "xn--fiqs8s",
		"中国":                      "xn--fiqs8s",
		"a.b--c.example":          "a.b--c.example",
		"-leading.hyphen.example": "-leading.hyphen.example",
	} {
		if d, err := route.ForDomain(text); err != nil || d.String() != want || d.Nexthop || d.Port != 0 {
			t.Errorf("%q: %+v (%s), %v", text, d, d, err)
		}
	}
	for _, text := range []string{
		"", ".", "[]", "[x]", "[192.0.2.1", "[192.0.2.1]:25", "[fe80::1%eth0]", "a b", "a..b", "a@b", "a\nb", "a\x7fb", "\u0000.example",
		strings.Repeat("a", 64), strings.Repeat("a.", 200) + "example", "\xff", "ü\u202e.example",
		// UTS 46 lets these stand for ".", "1.", "(1)" and "=" beside an
		// underscore, if host names are not looked at strictly.
		"a_b\u2024ü.example", "a_b.\u2488ü.example", "a_b.\u2474ü.example", "a_b.ü\u2260.example", "a_b.ü\uff3f.example",
	} {
		if d, err := route.ForDomain(text); err == nil {
			t.Errorf("%q became %+v", text, d)
		}
	}
}

// plain reports whether a destination's text can go into a log as it is.
func plain(s string) bool {
	return s != "" && len(s) < 300 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-_.:[]IP") == ""
}

func FuzzParseNexthop(f *testing.F) {
	for _, seed := range []string{"example.org", "[a]:25", "[192.0.2.1]", "[IPv6:::1]:1", "bücher.example:2525", "[::ffff:1.2.3.4]", "a:b:c", "[", "]:", "ü."} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := route.ParseNexthop(text)
		if err != nil {
			return
		}
		if !plain(d.String()) || (d.Domain == "") != d.Literal.IsValid() {
			t.Fatalf("%q became %+v", text, d)
		}
		if again, err := route.ParseNexthop(d.String()); err != nil || again != d {
			t.Fatalf("%q: %q reads back as %+v, %v", text, d, again, err)
		}
	})
}

func FuzzForDomain(f *testing.F) {
	for _, seed := range []string{"example.org", "[192.0.2.1]", "[IPv6:::1]", "bücher.example", "中国", "a_b.", "xn--a", "[::ffff:1.2.3.4]", "ß.example"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		d, err := route.ForDomain(text)
		if err != nil {
			return
		}
		if !plain(d.String()) || d.Nexthop || d.Port != 0 {
			t.Fatalf("%q became %+v", text, d)
		}
		if again, err := route.ForDomain(d.String()); err != nil || again != d {
			t.Fatalf("%q: %q reads back as %+v, %v", text, d, again, err)
		}
	})
}
