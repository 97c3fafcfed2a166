package message

import (
	"reflect"
	"strings"
	"testing"
)

func header(pieces ...string) Header {
	var h HeaderReader
	for _, p := range pieces {
		h.Write([]byte(p))
	}
	return h.Header()
}

func TestHeaderValues(t *testing.T) {
	for _, test := range []struct {
		ref, in string
		want    []string // of X-A
	}{
		{"one", "X-A: b\r\n\r\n", []string{"b"}},
		{"LF", "X-A: b\n\n", []string{"b"}},
		{"letter case (RFC 5322 §1.2.2)", "x-a: b\r\n\r\n", []string{"b"}},
		{"in order", "X-A: 1\r\nX-B: 2\r\nX-A: 3\r\n\r\n", []string{"1", "3"}},
		{"no blank behind the colon", "X-A:b\r\n\r\n", []string{"b"}},
		{"blanks before the colon (RFC 5322 §4.5)", "X-A \t: b\r\n\r\n", []string{"b"}},
		{"blanks around the value", "X-A: \t b \t\r\n\r\n", []string{"b"}},
		{"empty", "X-A:\r\n\r\n", []string{""}},
		{"folded (RFC 5322 §2.2.3)", "X-A: b\r\n c\r\n\td\r\n\r\n", []string{"b c\td"}},
		{"folded before the value", "X-A:\r\n b\r\n\r\n", []string{"b"}},
		{"a blank line of blanks folds too (RFC 5322 §4.2)", "X-A: b\r\n \r\n c\r\n\r\n", []string{"b  c"}},
		{"a colon in the value", "X-A: b: c\r\n\r\n", []string{"b: c"}},
		{"the header section ends at the empty line", "X-B: 1\r\n\r\nX-A: b\r\n", nil},
		{"no header section", "\r\nX-A: b\r\n", nil},
		{"no body", "X-A: b\r\n", []string{"b"}},
		{"no line end", "X-A: b", []string{"b"}},
		{"another name", "X-AB: c\r\nX: d\r\n\r\n", nil},
		{"a blank in the name", "Y X-A: b\r\n\r\n", nil},
		{"a line without a colon is passed over", "junk\r\n X-A: c\r\nX-A: b\r\n\r\n", []string{"b"}},
		{"a From_ line is passed over", "From a@b Mon Jan  1 00:00:00 2024\r\nX-A: b\r\n\r\n", []string{"b"}},
		{"a continuation first of all", " X-A: c\r\nX-A: b\r\n\r\n", []string{"b"}},
		{"a CR too many is no line end", "X-B: c\rX-A: b\r\n\r\n", nil},
	} {
		whole := header(test.in)
		single := header(strings.Split(test.in, "")...)
		if got := whole.Values("X-A"); !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: got %q", test.ref, got)
		}
		if !reflect.DeepEqual(whole, single) {
			t.Errorf("%s: byte by byte %q", test.ref, single.fields)
		}
		if whole.Truncated() {
			t.Errorf("%s: truncated", test.ref)
		}
	}
}

func TestHeaderHas(t *testing.T) {
	for _, test := range []struct {
		in   string
		want bool
	}{
		{"TLS-Required: No\r\n\r\n", true},
		{"tls-required:NO\r\n\r\n", true},
		{"TLS-Required:\r\n no\r\n\r\n", true},
		{"TLS-Required: Yes\r\nTLS-Required: No\r\n\r\n", true},
		{"TLS-Required: No, really\r\n\r\n", false},
		{"TLS-Required: No (comment)\r\n\r\n", false},
		{"TLS-Required:\r\n\r\n", false},
		{"Subject: TLS-Required: No\r\n\r\n", false},
		{"\r\nTLS-Required: No\r\n", false},
	} {
		if got := header(test.in).Has("TLS-Required", " No"); got != test.want {
			t.Errorf("%q: %v", test.in, got)
		}
	}
	var none Header
	if none.Has("A", "") || none.Values("A") != nil || none.Truncated() {
		t.Error("the zero Header has something")
	}
}

func TestHeaderIsBounded(t *testing.T) {
	filler := "F: " + strings.Repeat("x", 1019) + "\r\n" // 1 KiB
	fill := strings.Repeat(filler, MaxHeader/1024-1)
	var h HeaderReader
	h.Write([]byte("A: 1\r\n"))
	for range 4 * MaxHeader / 1024 {
		h.Write([]byte(filler))
	}
	h.Write([]byte("B: 2\r\n\r\n"))
	if got := h.Header(); !got.Truncated() || !h.Done() || !got.Has("A", "1") || got.Values("B") != nil {
		t.Errorf("truncated %v, done %v", got.Truncated(), h.Done())
	}
	if cap(h.buf) > 2*MaxHeader {
		t.Errorf("%d bytes kept", cap(h.buf))
	}
	exact := "A: " + strings.Repeat("x", 1024-len("A: \r\n\r\n")) + "\r\n\r\n"
	if got := header(fill, exact); got.Truncated() || len(got.Values("A")) != 1 {
		t.Error("a header section of the greatest size was cut")
	}
	// Half a value is none, whether it is half a line or half a field.
	for _, last := range []string{
		"A: no" + strings.Repeat("x", 1024) + "\r\n\r\n",
		"A: no\r\n " + strings.Repeat("x", 1024) + "\r\n\r\n",
	} {
		for _, got := range []Header{header(fill, last), header(fill + last), header(append([]string{fill}, strings.Split(last, "")...)...)} {
			if !got.Truncated() || got.Values("A") != nil || len(got.Values("F")) != MaxHeader/1024-1 {
				t.Errorf("%.10q: truncated %v, A %.20q, %d F", last, got.Truncated(), got.Values("A"), len(got.Values("F")))
			}
		}
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{"A: b\r\n c\r\n\r\nd", "A :b\n\n", " x\nA\n:b\n", "A:\r\n\r", "\n", "A: \x00\xff\r\r\n"} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		whole := header(string(in))
		step := max(1, cut%100)
		var pieces HeaderReader
		for rest := in; len(rest) > 0; {
			n := min(step, len(rest))
			if m, err := pieces.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if got := pieces.Header(); !reflect.DeepEqual(got, whole) {
			t.Fatalf("%q in pieces of %d: %q, whole %q", in, step, got.fields, whole.fields)
		}
		// What a reader of the canonical form finds must be the same but for
		// the bare CRs and the folding there.
		if len(in) < 900 && !strings.Contains(strings.ReplaceAll(string(in), "\r\n", ""), "\r") {
			out, _ := canonical(t, string(in))
			if got := header(out); !reflect.DeepEqual(got, whole) {
				t.Fatalf("%q: canonical %q, raw %q", in, got.fields, whole.fields)
			}
		}
		for _, field := range whole.fields {
			if !isFieldName(field.name) || strings.Contains(field.value, "\n") {
				t.Fatalf("%q: field %q", in, field)
			}
		}
	})
}
