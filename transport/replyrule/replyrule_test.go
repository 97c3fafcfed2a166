package replyrule

import (
	_ "embed"
	"errors"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/provider"
)

//go:embed testdata/harmless.txt
var harmless string

func rules(t testing.TB, configured ...Rule) *Rules {
	t.Helper()
	r, err := New(configured)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func split(t *testing.T, said string) (int, string) {
	t.Helper()
	code, err := strconv.Atoi(said[:3])
	if err != nil || said[3] != ' ' && said[3] != '-' {
		t.Fatalf("no reply: %q", said)
	}
	return code, said[4:]
}

// TestBuiltin: every sample gives its rule's action, and no earlier rule takes
// it; each rule is of a provider that exists and says where it comes from.
func TestBuiltin(t *testing.T) {
	known, err := provider.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	list, err := parse(builtin)
	if err != nil {
		t.Fatal(err)
	}
	r := rules(t)
	for _, d := range list {
		if len(d.samples) == 0 {
			t.Errorf("no sample for %s", d.rule.Match)
		}
		if _, ok := known.Named(d.rule.Provider); !ok && d.rule.Provider != "" {
			t.Errorf("no such provider: %s", d.rule.Provider)
		}
		for _, sample := range d.samples {
			code, text := split(t, sample)
			host := d.rule.Provider
			if host == "" {
				host = "example.org"
			}
			got := r.Find(host, code, text)
			switch {
			case d.rule.Do == Nothing:
				if got != nil {
					t.Errorf("%s: %v, want nothing", sample, got)
				}
			case got == nil || *got != d.rule:
				t.Errorf("%s:\n got %+v\nwant %+v", sample, got, d.rule)
			}
		}
	}
	for paragraph := range strings.SplitSeq(strings.TrimSpace(builtin), "\n\n") {
		if !strings.HasPrefix(paragraph, "# ") {
			t.Errorf("no source: %q", paragraph)
		}
	}
}

// TestHarmless: replies about one message, one recipient or one sender, and
// success, ask for nothing, no matter what says them.
func TestHarmless(t *testing.T) {
	known, err := provider.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	r := rules(t)
	n := 0
	for said := range strings.Lines(harmless) {
		said = strings.TrimRight(said, "\n")
		code, text := split(t, said)
		n++
		for _, p := range known.List() {
			if got := r.Find(p.Name, code, text); got != nil {
				t.Errorf("%s: %s: %+v", p.Name, said, got)
			}
		}
	}
	if n < 200 {
		t.Errorf("%d harmless replies, want 200", n)
	}
}

func TestConfigured(t *testing.T) {
	r := rules(t,
		Rule{Match: "(?i)temporarily deferred due to", Provider: "bighost", Do: Pause, Pause: 30 * time.Minute},
		Rule{Match: "listed at", Do: Pause, Pause: time.Hour, Scope: SourceIP},
		Rule{Match: "^421 4\\.7\\.0 mine", Do: Nothing},
	)
	for _, c := range []struct {
		provider string
		code     int
		text     string
		want     string
	}{
		{"bighost", 451, "4.7.1 Temporarily deferred due to volume", "pause 30m for provider"},
		{"example.org", 451, "4.7.1 Temporarily deferred due to volume", ""},
		{"example.org", 550, "5.7.1 192.0.2.1 listed at zen", "pause 1h for source_ip"},
		{"bighost", 421, "4.7.0 mine: too many connections", ""},
		{"bighost", 421, "4.7.0 theirs: too many connections", "slow for provider"},
		{"bighost", 250, "listed at", ""},
		{"bighost", 354, "listed at", ""},
		{"bighost", 0, "", ""},
	} {
		got := ""
		if rule := r.Find(c.provider, c.code, c.text); rule != nil {
			got = rule.String()
		}
		if got != c.want {
			t.Errorf("%s %d %s: %q, want %q", c.provider, c.code, c.text, got, c.want)
		}
	}
}

// TestText: what stands beyond 600 bytes is not looked at.
func TestText(t *testing.T) {
	r := rules(t, Rule{Match: "needle", Do: Slow})
	pad := strings.Repeat("x", 600-len("421 needle"))
	if r.Find("example.org", 421, pad+"needle") == nil {
		t.Error("within 600 bytes")
	}
	if r.Find("example.org", 421, pad+"xneedle") != nil {
		t.Error("beyond 600 bytes")
	}
}

func TestMistakes(t *testing.T) {
	for _, rule := range []Rule{
		{Match: "("},
		{Match: ""},
		{Match: ".*"},
		{Match: "a|"},
		{Match: "x", Do: Pause},
		{Match: "x", Do: Pause, Pause: 8 * 24 * time.Hour},
	} {
		if _, err := New([]Rule{rule}); !errors.Is(err, ErrRule) {
			t.Errorf("%+v: %v", rule, err)
		}
	}
}

func FuzzFind(f *testing.F) {
	r := rules(f)
	f.Add("yahoo", 421, "4.7.0 [TSS04] deferred")
	f.Fuzz(func(_ *testing.T, provider string, code int, text string) {
		if rule := r.Find(provider, code, text); rule != nil {
			_ = rule.String()
		}
	})
}

func BenchmarkFind(b *testing.B) {
	r := rules(b)
	text := "5.1.1 <someone@example.org>: Recipient address rejected: User unknown in virtual mailbox table"
	for b.Loop() {
		r.Find("microsoft365", 550, text)
	}
}
