package socketmap

import (
	"maps"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]request{
		"policy example.org":             {false, "default", "example.org", 0},
		"policy-tlsrpt example.org":      {true, "default", "example.org", 0},
		"policy@bulk example.org":        {false, "bulk", "example.org", 0},
		"policy-tlsrpt@bulk EXAMPLE.ORG": {true, "bulk", "example.org", 0},
		"policy example.org:25":          {false, "default", "example.org", 25},
		"policy Example.org.:2525":       {false, "default", "example.org", 2525},
		"postfix example.org:submission": {false, "default", "example.org", 587},
		"policy example.org:smtps":       {false, "default", "example.org", 465},
		"policy@ example.org":            {false, "", "example.org", 0},
		"policy":                         {false, "default", "", 0},
		"QUERY example.org":              {false, "default", "example.org", 0},
		"QUERY@bulk example.org":         {false, "bulk", "example.org", 0},
		"QUERYwithTLSRPT example.org":    {true, "default", "example.org", 0},
		"QUERYwithTLSRPT@b example.org":  {true, "b", "example.org", 0},
		"postfix example.org":            {false, "default", "example.org", 0},
		"postfix@bulk example.org":       {false, "bulk", "example.org", 0},
	} {
		if got, ok := parse(text, "default"); !ok || got != want {
			t.Errorf("%q: %+v %v, want %+v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", " ", " example.org", "Policy example.org", "policies example.org", "query example.org", "QUERYWITHTLSRPT a", "Postfix a", "JSON a", "policy\texample.org", "policy-tlsrpt2 a", "@bulk a"} {
		if got, ok := parse(text, "default"); ok {
			t.Errorf("%q: %+v", text, got)
		}
	}
}

// The doctor knows the same names.
func TestNamesInTheDoctor(t *testing.T) {
	if !maps.Equal(mailserver.SocketmapNames, mapNames) {
		t.Errorf("the doctor knows %v, and there are %v", mailserver.SocketmapNames, mapNames)
	}
}

func TestDestination(t *testing.T) {
	for key, want := range map[string]string{
		"example.org":           "example.org",
		"Sub.Example.ORG.":      "sub.example.org",
		"bücher.example":        "xn--bcher-kva.example",
		"xn--bcher-kva.example": "xn--bcher-kva.example",
		"a_b.example":           "a_b.example",
		"localhost":             "localhost",
		"1.example":             "1.example",
	} {
		if got, port := destination(key); got != want || port != 0 {
			t.Errorf("%q: %q, %d, want %q", key, got, port, want)
		}
	}
	for _, key := range []string{
		"", ".", ".example.org", ".org", "..example.org", "[example.org]", "[example.org]:25", "[192.0.2.1]", "[192.0.2.1]:587", "[IPv6:2001:db8::1]",
		"[2001:db8::1]:25", "example.org:", "example.org:0", "example.org:65536", "example.org:pop3", "example.org:smtp:smtp", "192.0.2.1", "192.0.2.1:25", "2001:db8::1", "::1", "192.0.2",
		"/run/lmtp.sock", "unix:/run/lmtp.sock", "user@example.org", "example.org example.net", "exa mple.org", "example.org\n", "example.org\x00", "*.example.org",
		"\xff.example", strings.Repeat("a.", 200) + "example", strings.Repeat("a", 64) + ".example", "[", "[]", ":25", "MAILER-DAEMON@",
	} {
		if got, _ := destination(key); got != "" {
			t.Errorf("%q passes for the domain %q", key, got)
		}
	}
}

func FuzzKey(f *testing.F) {
	for _, seed := range []string{
		"policy example.org", "policy-tlsrpt .example.org", "policy@bulk [example.org]:25", "policy 192.0.2.1", "policy bücher.example", "policy a:b", "policy [IPv6:::1]", "policy-tlsrpt@ ",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, ok := parse(text, "default")
		if !ok || r.domain == "" {
			return
		}
		// What goes on is a name that the DNS and an answer can take.
		if len(r.domain) > 253 || strings.Trim(r.domain, "abcdefghijklmnopqrstuvwxyz0123456789-_.") != "" || r.domain[0] == '.' || strings.Contains(r.domain, "..") {
			t.Fatalf("%q: %+v", text, r)
		}
		if again, _ := destination(r.domain); again != r.domain {
			t.Fatalf("%q: %q is another domain the second time", text, r.domain)
		}
	})
}
