package registrable

import "testing"

func TestDomain(t *testing.T) {
	for domain, want := range map[string]string{
		"example.org":             "example.org",
		"a.b.c.example.org":       "example.org",
		"mail.example.co.uk":      "example.co.uk",
		"xn--bcher-kva.example":   "xn--bcher-kva.example",
		"a.xn--bcher-kva.example": "xn--bcher-kva.example",
		"co.uk":                   "co.uk",
		"localhost":               "localhost",
		"someone.github.io":       "someone.github.io",
		"mx.example.org":          "example.org",
		"example.org.":            "example.org",
		"a.b.example.co.uk":       "example.co.uk",
		"local":                   "local",
		"":                        "",
	} {
		if got := Domain(domain); got != want {
			t.Errorf("%s: %s, want %s", domain, got, want)
		}
	}
}
