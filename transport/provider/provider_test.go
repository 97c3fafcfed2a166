package provider

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func table(t *testing.T, configured ...Provider) *Table {
	t.Helper()
	table, err := New(configured)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// TestOf has, for each large provider, MX names as their domains publish them.
func TestOf(t *testing.T) {
	known := table(t)
	for _, c := range []struct {
		host, name string
		origin     Origin
	}{
		{"aspmx.l.google.com", "google", BuiltIn},
		{"alt3.aspmx.l.google.com", "google", BuiltIn},
		{"gmail-smtp-in.l.google.com", "google", BuiltIn},
		{"alt1.gmail-smtp-in.l.google.com", "google", BuiltIn},
		{"smtp.google.com", "google", BuiltIn},
		{"aspmx2.googlemail.com", "google", BuiltIn},
		{"contoso-com.mail.protection.outlook.com", "microsoft365", BuiltIn},
		{"contoso-com.o-v1.mx.microsoft", "microsoft365", BuiltIn},
		{"outlook-com.olc.protection.outlook.com", "microsoft", BuiltIn},
		{"mta5.am0.yahoodns.net", "yahoo", BuiltIn},
		{"mx-aol.mail.gm0.yahoodns.net", "yahoo", BuiltIn},
		{"mx01.mail.icloud.com", "apple", BuiltIn},
		{"mxa-00123401.gslb.pphosted.com", "proofpoint", BuiltIn},
		{"mx1-us1.ppe-hosted.com", "proofpoint", BuiltIn},
		{"eu-smtp-inbound-1.mimecast.com", "mimecast", BuiltIn},
		{"d123.a.ess.barracudanetworks.com", "barracuda", BuiltIn},
		{"mx1.hc1234-56.iphmx.com", "cisco", BuiltIn},
		{"mx1.mail.ovh.net", "ovh", BuiltIn},
		{"mx00.ionos.de", "ionos", BuiltIn},
		{"mx01.kundenserver.de", "ionos", BuiltIn},
		{"mx00.gmx.net", "gmx", BuiltIn},
		{"mx-ha02.web.de", "gmx", BuiltIn},
		{"mx00.t-online.de", "t-online", BuiltIn},
		{"mx1a1.comcast.net", "comcast", BuiltIn},
		{"mx2.zoho.eu", "zoho", BuiltIn},
		{"in1-smtp.messagingengine.com", "fastmail", BuiltIn},
		// not theirs
		{"www.google.com", "google.com", Registrable},
		{"mx.google.com.evil.example", "evil.example", Registrable},
		{"notyahoodns.net", "notyahoodns.net", Registrable},
		{"yahoodns.net", "yahoodns.net", Registrable},
		// everybody else
		{"mx1.mail.example.co.uk", "example.co.uk", Registrable},
		{"example.org", "example.org", Registrable},
		{"co.uk", "co.uk", Host},
		{"localhost", "localhost", Host},
		{"192.0.2.1", "192.0.2.1", Host},
		{"[192.0.2.1]", "192.0.2.1", Host},
		{"[IPv6:2001:db8::1]", "2001:db8::1", Host},
		{"2001:db8::1", "2001:db8::1", Host},
		{"mx.customer.github.io", "customer.github.io", Registrable},
	} {
		if got := known.Of(c.host); got.Name != c.name || got.Origin != c.origin {
			t.Errorf("%s: %s (%v), want %s (%v)", c.host, got.Name, got.Origin, c.name, c.origin)
		}
	}
}

func TestConfiguredComesFirst(t *testing.T) {
	known := table(t,
		Provider{Name: "bighost", MX: []string{".bighost.example", "mx.old.example"}},
		Provider{Name: "branch", MX: []string{".eu.bighost.example"}},
		Provider{Name: "gmail-only", MX: []string{".gmail-smtp-in.l.google.com"}},
		Provider{Name: "yahoo", MX: []string{".yahoo.example"}},
	)
	for host, want := range map[string]string{
		"mx1.bighost.example": "bighost",
		// a pattern with a dot is what is below
		"bighost.example":                 "bighost.example",
		"mx.old.example":                  "bighost",
		"a.mx.old.example":                "old.example",
		"mx.eu.bighost.example":           "branch", // the longest pattern
		"alt1.gmail-smtp-in.l.google.com": "gmail-only",
		"aspmx.l.google.com":              "google",
		// the configured yahoo replaces the built-in one
		"mta5.am0.yahoodns.net": "yahoodns.net",
		"mx.yahoo.example":      "yahoo",
	} {
		if got := known.Of(host).Name; got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	if p, ok := known.Named("bighost"); !ok || p.Origin != Configured {
		t.Errorf("bighost: %v, %v", p, ok)
	}
	if _, ok := known.Named("example.org"); ok {
		t.Error("a registrable domain is no named provider")
	}
}

func TestMistakes(t *testing.T) {
	for _, p := range []Provider{
		{Name: "", MX: []string{".example.org"}},
		{Name: "Big", MX: []string{".example.org"}},
		{Name: "none"},
		{Name: "all", MX: []string{"."}},
		{Name: "tld", MX: []string{".com"}},
		{Name: "tld2", MX: []string{".co.uk"}},
		{Name: "upper", MX: []string{"MX.example.org"}},
		{Name: "star", MX: []string{"*.example.org"}},
		{Name: "dot", MX: []string{"mx.example.org."}},
	} {
		if _, err := New([]Provider{p}); !errors.Is(err, ErrPattern) {
			t.Errorf("%+v: %v", p, err)
		}
	}
	twice := Provider{Name: "a", MX: []string{".a.example"}}
	if _, err := New([]Provider{twice, twice}); !errors.Is(err, ErrPattern) {
		t.Error("a provider that is there twice:", err)
	}
}

// TestBuiltin: each built-in provider is a legal one, no pattern is there
// twice, and a comment above each says where its names come from.
func TestBuiltin(t *testing.T) {
	list := parseBuiltin(builtin)
	if len(list) < 40 {
		t.Errorf("%d built-in providers", len(list))
	}
	seen := map[string]string{}
	for _, p := range list {
		if err := check(p); err != nil {
			t.Error(err)
		}
		for _, pattern := range p.MX {
			if other, ok := seen[pattern]; ok {
				t.Errorf("%s: of %s and of %s", pattern, other, p.Name)
			}
			seen[pattern] = p.Name
		}
	}
	for paragraph := range strings.SplitSeq(builtin, "\n\n") {
		if !strings.HasPrefix(paragraph, "# ") {
			t.Errorf("no source for %q", paragraph)
		}
	}
	names := table(t).List()
	if !slices.IsSortedFunc(names, func(a, b Provider) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("List is not sorted")
	}
}

func BenchmarkOf(b *testing.B) {
	known, err := New(nil)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		known.Of("contoso-com.mail.protection.outlook.com")
	}
}
