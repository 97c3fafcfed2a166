package console

import (
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/admin"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
)

// terminal opens a pseudo-terminal of a size.
func terminal(t *testing.T, columns, lines uint16) *os.File {
	t.Helper()
	f, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	if err := unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: lines}); err != nil {
		t.Fatal(err)
	}
	return f
}

// Colour is for terminals, and for those who want it there.
func TestOn(t *testing.T) {
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if s := On(file); s.Colour || s.Width != 80 || s.Height != 0 {
		t.Errorf("a file: %+v", s)
	}
	if s := On(terminal(t, 120, 40)); !s.Colour || s.Width != 120 || s.Height != 40 {
		t.Errorf("a terminal: %+v", s)
	}
	if s := On(terminal(t, 0, 0)); !s.Colour || s.Width != 80 {
		t.Errorf("one that does not know its size: %+v", s)
	}
	t.Setenv("NO_COLOR", "1")
	if s := On(terminal(t, 120, 40)); s.Colour || s.Width != 120 {
		t.Errorf("without colour: %+v", s)
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if s := On(terminal(t, 120, 40)); s.Colour {
		t.Errorf("a dumb one: %+v", s)
	}
}

// What is coloured says the same without.
func TestColourAddsNothing(t *testing.T) {
	now := time.Now()
	later := now.Add(26 * time.Hour)
	e := &admin.Explanation{
		Domain: "a.example", Transport: "default", Outcome: "undeliverable", Connected: true, Override: "a.example", Nexthop: "[b.example]:26",
		Mechanisms: admin.Mechanisms{MTASTS: true, DANE: true}, Error: &admin.Problem{Status: "4.7.5", Text: "mx.a.example: no"},
		Route:  admin.Route{Kind: "mx", Signed: true, Canonical: "c.example", Dropped: []admin.Dropped{{Host: "d.example", Preference: 5, Reason: "is this host"}}},
		MTASTS: &admin.MTASTS{State: "policy", Mode: "enforce", ID: "1", RecordID: "2", MX: []string{"x.example"}, Fetched: &now, Expires: &later, Error: "no answer", Failure: "sts-policy-fetch-error"},
		Limit:  &admin.Limit{Concurrency: 3, Open: 3, Waiting: 1},
		Hosts: []admin.Host{{
			Name: "mx.a.example", Outcome: "undeliverable", Addresses: []string{"192.0.2.1"}, Partial: "AAAA: SERVFAIL", Idle: 2,
			TLSA:    &admin.TLSA{State: "present", Base: "base.example", Records: []admin.TLSARecord{{Record: "3 1 1 00", Usable: true}, {Record: "1 1 1 00", Reason: "certificate usage not for SMTP"}}},
			Verdict: &admin.Verdict{MXLevel: "none", Need: "a certificate that matches a TLSA record", Rule: "dane", Reason: "usable TLSA records at base.example", Noted: "noted"},
			Dead:    &admin.Dead{Text: "mx.a.example could not be reached"},
			Connection: &admin.Connection{
				Error: &admin.Problem{Status: "4.7.5", Text: "mx.a.example: DANE: no"}, DANEError: "another reason", WebPKIError: "x509: too old", TLSError: "handshake failure", TestingError: "testing",
				Chain: []admin.Certificate{{Subject: "CN=a", Issuer: "CN=a", NotAfter: now.Add(-time.Hour)}, {Subject: "CN=b", Issuer: "CN=c", NotBefore: later, NotAfter: later}},
			},
		}, {Name: "mx2.a.example", Outcome: "unknown", Error: &admin.Problem{Status: "4.4.3", Text: "mx2.a.example: SERVFAIL"}}},
	}
	findings := []finding.Finding{{What: "good"}, {Level: finding.Warn, What: "bad", Mend: "mend it"}, {Level: finding.Fail, What: "worse " + strings.Repeat("and worse ", 20), Mend: strings.Repeat("long ", 40)}}
	for _, text := range []func(Screen) string{
		func(s Screen) string { return Explanation(s, e) },
		func(s Screen) string { return Findings(s, &findings) },
		func(s Screen) string { s.Height = 24; return Findings(s, &findings) },
	} {
		plain, coloured := text(Screen{Width: 80, Now: now}), text(Screen{Width: 80, Now: now, Colour: true})
		if !strings.Contains(coloured, string(red)) || strings.Contains(plain, "\x1b") {
			t.Errorf("coloured:\n%s\nplain:\n%s", coloured, plain)
		}
		for _, c := range []colour{bold, dim, red, green, yellow, reset} {
			coloured = strings.ReplaceAll(coloured, string(c), "")
		}
		if plain != coloured {
			t.Errorf("coloured it says\n%s\nand otherwise\n%s", coloured, plain)
		}
		for line := range strings.Lines(plain) {
			if utf8.RuneCountInString(line) > 81 && !strings.HasPrefix(line, "      fix: ") {
				t.Errorf("%q is too long", line)
			}
		}
	}
	// A finding is broken between words, its fix is not.
	got := Findings(Screen{Width: 80}, &findings)
	worse := "worse and worse and worse and worse and worse and worse and worse and\n      worse and worse"
	if !strings.HasPrefix(got, "ok    good\nwarn  bad\n      fix: mend it\nfail  "+worse) || !strings.HasSuffix(got, "\n      fix: "+findings[2].Mend+"\n1 warning, 1 failure\n") {
		t.Error(got)
	}
}

// On a terminal the status stays within the screen, and takes the place of the
// one before.
func TestStatusInPlace(t *testing.T) {
	st := admin.Status{Version: "1", Transports: []admin.Transport{{Name: "default"}}}
	for range 50 {
		st.Transports[0].Deliveries = append(st.Transports[0].Deliveries, admin.Delivery{ID: "x", Destination: "a.example"})
		st.Transports[0].Slowed = append(st.Transports[0].Slowed, admin.Slowed{Host: "mx.a.example"})
	}
	s := Screen{Width: 80, Height: 24}
	text := Status(s, &st)
	if n := strings.Count(text, "\n"); n != 23 || !strings.HasSuffix(text, "more than fits on the screen\n") {
		t.Errorf("%d lines:\n%s", n, text)
	}
	if got := InPlace(s, "a\nb\n"); got != "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J" {
		t.Errorf("%q", got)
	}
	s.Height = 0
	if n := strings.Count(Status(s, &st), "\n"); n < 60 {
		t.Errorf("%d lines without a screen", n)
	}
	if got := InPlace(s, "a\n"); got != "a\n" {
		t.Errorf("%q", got)
	}
}

// Each source is told with what keeps mail from it, as far as there is room.
func TestStatusSources(t *testing.T) {
	st := admin.Status{Transports: []admin.Transport{{Name: "default", Sources: []admin.Source{
		{Name: "192.0.2.1", Addresses: []string{"192.0.2.1", "2001:db8::1"}, Hostname: "out1.example.org", Weight: 3},
		{Override: "a.example", Name: "192.0.2.2", Addresses: []string{"192.0.2.2"}, Weight: 1, Daily: 50, Sent: 50},
		{Name: "192.0.2.3", Addresses: []string{"192.0.2.3"}, Weight: 1, Out: "gone"},
	}}}}
	text := Status(Screen{Width: 200}, &st)
	for _, want := range []string{
		"192.0.2.1, 2001:db8::1 as out1.example.org, weight 3\n", "192.0.2.2, of a.example, weight 1, 50 of 50 messages sent today (UTC)\n", "192.0.2.3, weight 1; left out: gone\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	st.Transports[0].Sources = make([]admin.Source, 1000)
	if text := Status(Screen{Width: 200}, &st); strings.Count(text, "weight") != 20 || !strings.Contains(text, "and 980 more") {
		t.Errorf("%d sources", strings.Count(text, "weight"))
	}
}

func TestSize(t *testing.T) {
	for bytes, want := range map[int64]string{
		0: "0 B", 999: "999 B", 1000: "1.0 KiB", 1024: "1.0 KiB", 10 << 10: "10 KiB", 999 << 10: "999 KiB", 128 << 20: "128 MiB", 5 << 40: "5.0 TiB", 1 << 60: "1048576 TiB",
	} {
		if got := size(bytes); got != want {
			t.Errorf("%d: %q, want %q", bytes, got, want)
		}
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", -time.Hour: "0s", 59 * time.Second: "59s", time.Minute: "1m", 61 * time.Second: "1m1s", 90 * time.Minute: "1h30m",
		49 * time.Hour: "2d1h", 48*time.Hour + time.Minute: "2d",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: %s, want %s", d, got, want)
		}
	}
}

func TestWrap(t *testing.T) {
	for text, want := range map[string]string{
		"":                       "",
		"a bc def":               "a bc|def",
		"abcdefgh":               "abcde|fgh",
		"ab abcdefgh":            "ab|abcde|fgh",
		"äöüßé a":                "äöüßé|a",
		"a b" + glue + "c d":     "a b c|d",
		"ab c" + glue + "d":      "ab|c d",
		"  many   blanks  here ": "many|blank|s|here",
	} {
		if got := strings.Join(wrap(text, 5), "|"); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}
