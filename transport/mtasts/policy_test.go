package mtasts

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

const week = 604800 * time.Second

// policyText is a valid policy with lines put in after its first.
func policyText(more ...string) string {
	return "version: STSv1\n" + strings.Join(append(more, "mode: enforce", "mx: mail.example.com", "max_age: 604800", ""), "\n")
}

func TestParsePolicy(t *testing.T) {
	enforce := Policy{ModeEnforce, week, []string{"mail.example.com"}}
	withMX := func(mx ...string) Policy { return Policy{ModeEnforce, week, append(mx, "mail.example.com")} }
	withAge := func(d time.Duration) Policy { return Policy{ModeEnforce, d, []string{"mail.example.com"}} }
	age := func(s string) string { return "version: STSv1\nmode: enforce\nmx: mail.example.com\nmax_age: " + s }
	tests := []struct {
		name string // with the section of RFC 8461, where no other is named
		text string
		want Policy
		err  error
	}{
		{"§3.2 the RFC's example", "version: STSv1\nmode: enforce\nmx: mail.example.com\nmx: *.example.net\nmx: backupmx.example.com\nmax_age: 604800\n",
			Policy{ModeEnforce, week, []string{"mail.example.com", "*.example.net", "backupmx.example.com"}}, nil},
		{"Appendix A", "version: STSv1\r\nmode: enforce\r\nmx: mx1.example.com\r\nmx: mx2.example.com\r\nmx: mx.backup-example.com\r\nmax_age: 1296000\r\n",
			Policy{ModeEnforce, 1296000 * time.Second, []string{"mx1.example.com", "mx2.example.com", "mx.backup-example.com"}}, nil},
		{"§3.2 lines end with LF", policyText(), enforce, nil},
		{"§3.2 lines end with CRLF", strings.ReplaceAll(policyText(), "\n", "\r\n"), enforce, nil},
		{"§3.2 line ends mixed", strings.Replace(policyText(), "\n", "\r\n", 2), enforce, nil},
		{"§3.2 no end of the last line", strings.TrimSuffix(policyText(), "\n"), enforce, nil},
		{"§3.2 a blank line at the end", policyText() + "\n", enforce, nil},
		{"§3.2 several blank lines at the end, with blanks", policyText() + "\r\n \t\r\n\n  ", enforce, nil},
		{"§3.2 a blank line inside", policyText(""), Policy{}, ErrMalformed},
		{"§3.2 a blank line first", "\n" + policyText(), Policy{}, ErrMalformed},
		{"§3.2 CR alone ends no line", strings.ReplaceAll(policyText(), "\n", "\r"), Policy{}, ErrMalformed},
		{"§3.2 CR before CRLF", strings.Replace(policyText(), "\n", "\r\r\n", 1), Policy{}, ErrMalformed},
		{"§3.2 a byte order mark", "\ufeff" + policyText(), Policy{}, ErrMalformed},
		{"§3.2 nothing", "", Policy{}, ErrMalformed},
		{"§3.2 HTML", "<html>\n<body>Not found</body>\n</html>", Policy{}, ErrMalformed},
		{"§3.2 any order", "max_age: 604800\nmx: mail.example.com\nmode: enforce\nversion: STSv1\n", enforce, nil},
		{"§3.2 no blank after the colon", strings.ReplaceAll(policyText(), ": ", ":"), enforce, nil},
		{"§3.2 blanks and tabs after colon and value", strings.ReplaceAll(strings.ReplaceAll(policyText(), ": ", ":\t  "), "\n", " \t\n"), enforce, nil},
		{"§3.2 a blank before the colon", strings.Replace(policyText(), "mode:", "mode :", 1), Policy{}, ErrMalformed},
		{"§3.2 a blank before the key", strings.Replace(policyText(), "mode:", " mode:", 1), Policy{}, ErrMalformed},

		{"§3.2 no version", "mode: enforce\nmx: a.example\nmax_age: 1", Policy{}, ErrMalformed},
		{"§3.2 another version", strings.Replace(policyText(), "STSv1", "STSv2", 1), Policy{}, ErrMalformed},
		{"§3.2 version in small letters", strings.Replace(policyText(), "STSv1", "stsv1", 1), Policy{}, ErrMalformed},
		{"§3.2 keys are case-sensitive", strings.Replace(policyText(), "version", "Version", 1), Policy{}, ErrMalformed},
		{"§3.2 no mode", "version: STSv1\nmx: a.example\nmax_age: 1", Policy{}, ErrMalformed},
		{"§3.2 mode testing", strings.Replace(policyText(), "enforce", "testing", 1), Policy{ModeTesting, week, []string{"mail.example.com"}}, nil},
		{"§3.2 mode none", strings.Replace(policyText(), "enforce", "none", 1), Policy{ModeNone, week, []string{"mail.example.com"}}, nil},
		{"§3.2 mode none needs no mx", "version: STSv1\nmode: none\nmax_age: 86400\n", Policy{ModeNone, 86400 * time.Second, nil}, nil},
		{"§3.2 another mode", strings.Replace(policyText(), "enforce", "report", 1), Policy{}, ErrMalformed},
		{"§3.2 modes are case-sensitive", strings.Replace(policyText(), "enforce", "Enforce", 1), Policy{}, ErrMalformed},
		{"§3.2 enforce needs an mx", "version: STSv1\nmode: enforce\nmax_age: 1", Policy{}, ErrMalformed},
		{"§3.2 testing needs an mx", "version: STSv1\nmode: testing\nmax_age: 1", Policy{}, ErrMalformed},

		{"§3.2 no max_age", "version: STSv1\nmode: enforce\nmx: a.example", Policy{}, ErrMalformed},
		{"§3.2 max_age 0", age("0"), withAge(0), nil},
		{"§3.2 max_age 1", age("1"), withAge(time.Second), nil},
		{"§3.2 max_age with leading zeros, ten digits", age("0000086400"), withAge(86400 * time.Second), nil},
		{"§3.2 max_age of eleven digits", age("00000086400"), Policy{}, ErrMalformed},
		{"§3.2 the largest max_age", age("31557600"), withAge(31557600 * time.Second), nil},
		{"§3.2 one more", age("31557601"), Policy{}, ErrMalformed},
		{"§3.2 max_age beyond 32 bits", age("9999999999"), Policy{}, ErrMalformed},
		{"§3.2 max_age negative", age("-1"), Policy{}, ErrMalformed},
		{"§3.2 max_age with a sign", age("+1"), Policy{}, ErrMalformed},
		{"§3.2 max_age with a unit", age("1d"), Policy{}, ErrMalformed},
		{"§3.2 max_age with a fraction", age("1.5"), Policy{}, ErrMalformed},
		{"§3.2 max_age empty", age(""), Policy{}, ErrMalformed},
		{"§3.2 max_age in other digits", age("\u0661"), Policy{}, ErrMalformed},

		{"§3.2 mx in capitals", policyText("mx: MX.Example.COM"), withMX("mx.example.com"), nil},
		{"§3.2 mx with a trailing dot", policyText("mx: mx.example.com."), withMX("mx.example.com"), nil},
		{"§3.2 mx twice", policyText("mx: a.example", "mx: A.example."), withMX("a.example"), nil},
		{"§3.2 mx as A-label", policyText("mx: *.xn--bcher-kva.example"), withMX("*.xn--bcher-kva.example"), nil},
		{"§3.2 mx as U-label, converted", policyText("mx: mx.b\u00fccher.example"), withMX("mx.xn--bcher-kva.example"), nil},
		{"§3.2 wildcard before a U-label", policyText("mx: *.B\u00dcCHER.example"), withMX("*.xn--bcher-kva.example"), nil},
		{"§3.2 mx of one label (RFC 5321 §4.1.2)", policyText("mx: localhost"), withMX("localhost"), nil},
		{"§3.2 mx that begins with a digit (RFC 5321 §4.1.2)", policyText("mx: 1mx.example"), withMX("1mx.example"), nil},
		{"§3.2 wildcard alone", policyText("mx: *"), Policy{}, ErrMalformed},
		{"§3.2 wildcard and dot", policyText("mx: *."), Policy{}, ErrMalformed},
		{"§3.2 wildcard inside a label", policyText("mx: mx*.example.com"), Policy{}, ErrMalformed},
		{"§3.2 wildcard not first", policyText("mx: mx.*.example.com"), Policy{}, ErrMalformed},
		{"§3.2 two wildcards", policyText("mx: *.*.example.com"), Policy{}, ErrMalformed},
		{"§3.2 suffix without wildcard", policyText("mx: .example.com"), Policy{}, ErrMalformed},
		{"§3.2 two dots", policyText("mx: mx..example.com"), Policy{}, ErrMalformed},
		{"§3.2 address literal", policyText("mx: [192.0.2.1]"), Policy{}, ErrMalformed},
		{"§3.2 two hosts on a line", policyText("mx: a.example b.example"), Policy{}, ErrMalformed},
		{"§3.2 two hosts with a comma", policyText("mx: a.example, b.example"), Policy{}, ErrMalformed},
		{"§3.2 mx with a port", policyText("mx: a.example:25"), Policy{}, ErrMalformed},
		{"§3.2 mx with an underscore (RFC 5321 §4.1.2)", policyText("mx: a_b.example"), Policy{}, ErrMalformed},
		{"§3.2 label ends with a hyphen (RFC 5321 §4.1.2)", policyText("mx: a-.example"), Policy{}, ErrMalformed},
		{"§3.2 label begins with a hyphen (RFC 5321 §4.1.2)", policyText("mx: -a.example"), Policy{}, ErrMalformed},
		{"§3.2 label of 64 bytes (RFC 1035 §2.3.4)", policyText("mx: " + strings.Repeat("a", 64) + ".example"), Policy{}, ErrMalformed},
		{"§3.2 mx empty", policyText("mx:"), Policy{}, ErrMalformed},

		{"§3.2 extension", policyText("foo: bar"), enforce, nil},
		{"§3.2 extension value with colons and blanks", policyText("report-to: https://a.example/x?y=z; and more"), enforce, nil},
		{"§3.2 extension value in UTF-8", policyText("comment: gr\u00fc\u00dfe \u4f60\u597d \U0001f600"), enforce, nil},
		{"§3.2 extension value in broken UTF-8", policyText("comment: gr\xfc\xdfe"), Policy{}, ErrMalformed},
		{"§3.2 extension value with a surrogate", policyText("comment: \xed\xa0\x80"), Policy{}, ErrMalformed},
		{"§3.2 extension value with a tab inside", policyText("comment: a\tb"), Policy{}, ErrMalformed},
		{"§3.2 extension value with a control character", policyText("comment: a\x1b[31m"), Policy{}, ErrMalformed},
		{"§3.2 extension value empty", policyText("comment:"), Policy{}, ErrMalformed},
		{"§3.2 extension name of 32 characters", policyText(strings.Repeat("x", 32) + ": y"), enforce, nil},
		{"§3.2 extension name of 33 characters", policyText(strings.Repeat("x", 33) + ": y"), Policy{}, ErrMalformed},
		{"§3.2 extension name begins with a dash", policyText("-x: y"), Policy{}, ErrMalformed},
		{"§3.2 extension name empty", policyText(": y"), Policy{}, ErrMalformed},
		{"§3.2 a line without colon", policyText("comment"), Policy{}, ErrMalformed},

		{"§3.2 of two modes the first counts", policyText("mode: testing"), Policy{ModeTesting, week, []string{"mail.example.com"}}, nil},
		{"§3.2 of two max_ages the first counts", policyText("max_age: 60"), withAge(time.Minute), nil},
		{"§3.2 of two versions the first counts", policyText("version: STSv2"), enforce, nil},
		{"§3.2 the second max_age need not be one", age("60\nmax_age: -1"), withAge(time.Minute), nil},
		{"§3.2 the first max_age must be one", age("-1\nmax_age: 60"), Policy{}, ErrMalformed},
		{"§3.2 extensions twice", policyText("a: 1", "a: 2"), enforce, nil},

		{"§3.3 64 KiB exactly", policyText("pad: " + strings.Repeat("x", 64<<10-len(policyText())-6)), enforce, nil},
		{"§3.3 64 KiB and one", policyText("pad: " + strings.Repeat("x", 64<<10-len(policyText())-5)), Policy{}, ErrTooLarge},
		{"our bound: too many mx", policyText(slices.Repeat([]string{"mx: a.example"}, 1000)...), Policy{}, ErrTooLarge},
		{"our bound: as many as may be", policyText(slices.Repeat([]string{"mx: a.example"}, 999)...), withMX("a.example"), nil},
		{"our bound: too large once its labels are converted", policyText(manyULabels()...), Policy{}, ErrTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := ParsePolicy([]byte(tt.text))
			if !errors.Is(err, tt.err) || !equal(got, tt.want) {
				t.Errorf("ParsePolicy(%.300q) = %+v, %v; want %+v, %v", tt.text, got, err, tt.want, tt.err)
			}
		})
	}
}

// manyULabels are mx lines below 64 KiB whose A-labels are beyond it.
func manyULabels() []string {
	var lines []string
	for i := range 900 {
		lines = append(lines, fmt.Sprintf("mx: m%d.%s", i, strings.Repeat("\u00fc.", 15)+"de"))
	}
	return lines
}

func equal(a, b Policy) bool {
	return a.Mode == b.Mode && a.MaxAge == b.MaxAge && slices.Equal(a.MX, b.MX)
}

func TestMatch(t *testing.T) {
	tests := []struct {
		name    string // with the section of RFC 8461
		pattern string
		host    string
		want    bool
	}{
		{"§4.1 the same name", "mail.example.com", "mail.example.com", true},
		{"§4.1 another name", "mail.example.com", "mx.example.com", false},
		{"§4.1 letter case of the host", "mail.example.com", "MAIL.Example.Com", true},
		{"§4.1 letter case of the pattern", "MAIL.Example.Com", "mail.example.com", true},
		{"§4.1 trailing dot of the host", "mail.example.com", "mail.example.com.", true},
		{"§4.1 trailing dot of the pattern", "mail.example.com.", "mail.example.com", true},
		{"§4.1 two trailing dots", "mail.example.com", "mail.example.com..", false},
		{"§4.1 a name is no suffix", "example.com", "mail.example.com", false},
		{"§4.1 nor a prefix", "mail.example.com", "mail.example.com.evil.test", false},
		{"§4.1 nor part of a label", "mail.example.com", "notmail.example.com", false},
		{"§4.1 wildcard: one left label", "*.example.com", "mail.example.com", true},
		{"§4.1 wildcard: not the parent", "*.example.com", "example.com", false},
		{"§4.1 wildcard: not two labels", "*.example.com", "foo.bar.example.com", false},
		{"§4.1 wildcard: no empty label", "*.example.com", ".example.com", false},
		{"§4.1 wildcard: letter case", "*.EXAMPLE.com", "mail.example.COM", true},
		{"§4.1 wildcard: trailing dot", "*.example.com", "mail.example.com.", true},
		{"§4.1 wildcard: not part of a label", "*.example.com", "mail.notexample.com", false},
		{"§4.1 wildcard: an A-label on the left", "*.example.com", "xn--bcher-kva.example.com", true},
		{"§4.1 wildcard: a label with an underscore", "*.example.com", "mx_1.example.com", true},
		{"§4.1 wildcard: not itself", "*.example.com", "*.example.com", false},
		{"§4.1 wildcard before a top-level domain", "*.example", "mail.example", true},
		{"§3.2 U-label of the host", "mx.xn--bcher-kva.example", "mx.b\u00fccher.example", true},
		{"§3.2 U-label of the pattern", "mx.b\u00fccher.example", "mx.xn--bcher-kva.example", true},
		{"§3.2 A-label in capitals", "mx.b\u00fccher.example", "MX.XN--BCHER-KVA.EXAMPLE", true},
		{"§3.2 wildcard, U-label", "*.b\u00fccher.example", "mx.xn--bcher-kva.example", true},
		{"§4.1 the empty host", "mail.example.com", "", false},
		{"§4.1 the root", "*.com", ".", false},
		{"§4.1 an address literal", "*.example.com", "[192.0.2.1]", false},
		{"§4.1 a host with a line end", "mail.example.com", "mail.example.com\n", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := ParsePolicy([]byte("version: STSv1\nmode: enforce\nmax_age: 1\nmx: other.test\nmx: " + tt.pattern))
			if err != nil {
				t.Fatal(err)
			}
			if got := p.Match(tt.host); got != tt.want {
				t.Errorf("pattern %q, host %q: %t, want %t", tt.pattern, tt.host, got, tt.want)
			}
		})
	}
	if (Policy{}).Match("mail.example.com") {
		t.Error("a policy without patterns matches a host")
	}
}

func TestDomain(t *testing.T) {
	long := strings.Repeat("a.", 121) + "de" // 244 bytes
	for _, tt := range []struct{ name, in, want string }{
		{"RFC 8461 §3.1 canonical", "Example.ORG.", "example.org"},
		{"RFC 8461 §3.1 U-label", "B\u00fccher.example", "xn--bcher-kva.example"},
		{"RFC 8461 §3.1 as long as fits", long, long},
		{"RFC 8461 §3.1 longer than fits", "b" + long, ""},
		{"RFC 8461 §3.4 address literal", "[192.0.2.1]", ""},
		{"no name", "", ""},
		{"a path", "../../etc/passwd", ""},
		{"a null byte", "a\x00b.example", ""},
	} {
		got, err := Domain(tt.in)
		if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrDomain) {
			t.Errorf("%s: Domain(%q) = %q, %v; want %q", tt.name, tt.in, got, err, tt.want)
		}
	}
}

func TestNames(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{RecordName("example.com"), "_mta-sts.example.com"},
		{PolicyHost("example.com"), "mta-sts.example.com"},
		{PolicyURL("example.com", 443), "https://mta-sts.example.com/.well-known/mta-sts.txt"},
		{PolicyURL("example.com", 8443), "https://mta-sts.example.com:8443/.well-known/mta-sts.txt"},
	} {
		if tt.got != tt.want {
			t.Errorf("RFC 8461 §3.1, §3.2: %q, want %q", tt.got, tt.want)
		}
	}
}

func TestErrorIsOnePrintableLine(t *testing.T) {
	cause := errors.New("a\r\nb\x1b[31m\u0085\u00e9" + strings.Repeat("x", 1000))
	err := &Error{FailureFetch, cause}
	text := err.Error()
	if len(text) > 300 || !strings.HasPrefix(text, "a??b?[31m??x") {
		t.Errorf("%d bytes: %q", len(text), text)
	}
	if !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}

func FuzzParsePolicy(f *testing.F) {
	f.Add([]byte(policyText("mx: *.b\u00fccher.example", "foo: bar")))
	f.Add([]byte("version: STSv1\r\nmode: none\r\nmax_age: 0\r\n\r\n"))
	f.Add([]byte("version:STSv1\nmode:testing\nmx:*.xn--bcher-kva.example.\nmx:a.\nmax_age:31557600"))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := ParsePolicy(text)
		if err != nil {
			if !errors.Is(err, ErrMalformed) && !errors.Is(err, ErrTooLarge) {
				t.Fatalf("an error of no kind: %v", err)
			}
			return
		}
		if p.MaxAge < 0 || p.MaxAge > maxAge || len(p.MX) > 1000 || p.Mode != ModeNone && len(p.MX) == 0 {
			t.Fatalf("out of bounds: %+v", p)
		}
		again, err := ParsePolicy([]byte(p.String()))
		if err != nil || !equal(p, again) {
			t.Fatalf("%+v is read back as %+v, %v", p, again, err)
		}
		for _, pattern := range p.MX {
			if !p.Match(strings.Replace(pattern, "*", "x", 1)) && len(pattern) <= 253 {
				t.Fatalf("pattern %q does not match its own host", pattern)
			}
		}
		if bytes.ContainsAny([]byte(p.String()), "\r\x00\x1b") {
			t.Fatalf("control characters in %q", p.String())
		}
	})
}
