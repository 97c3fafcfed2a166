package message

import (
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

var marks = []Field{{"X-A", "b"}, {"X-Quarantined", "yes"}, {"X-A", " b c\td "}, {"X-A", ""}, {"X-A", "b: c"}, {"X-A", "b  c"}}

func header(pieces ...string) Header {
	h := NewHeaderReader(marks...)
	for _, p := range pieces {
		h.Write([]byte(p))
	}
	return h.Header()
}

func has(h Header, name, value string) bool {
	found, watched := h.Has(Field{name, value})
	return found && watched
}

func TestHeaderHas(t *testing.T) {
	for _, test := range []struct {
		ref, in string
		want    string // the value of X-A
		found   bool
	}{
		{"one", "X-A: b\r\n\r\n", "b", true},
		{"LF", "X-A: b\n\n", "b", true},
		{"letter case (RFC 5322 §1.2.2)", "x-a: B\r\n\r\n", "b", true},
		{"one of several", "X-A: 1\r\nX-B: 2\r\nX-A: b\r\n\r\n", "b", true},
		{"no blank after the colon", "X-A:b\r\n\r\n", "b", true},
		{"blanks before the colon (RFC 5322 §4.5)", "X-A \t: b\r\n\r\n", "b", true},
		{"blanks around the value", "X-A: \t b \t\r\n\r\n", "b", true},
		{"empty", "X-A:\r\n\r\n", "", true},
		{"folded (RFC 5322 §2.2.3)", "X-A: b\r\n c\r\n\td\r\n\r\n", "b c\td", true},
		{"folded before the value", "X-A:\r\n b\r\n\r\n", "b", true},
		{"folded after the value", "X-A: b\r\n \r\n\t \r\n\r\n", "b", true},
		{"a blank line of blanks folds too (RFC 5322 §4.2)", "X-A: b\r\n \r\n c\r\n\r\n", "b  c", true},
		{"a colon in the value", "X-A: b: c\r\n\r\n", "b: c", true},
		{"more than the value", "X-A: b, really\r\n\r\n", "b", false},
		{"a comment", "X-A: b (comment)\r\n\r\n", "b", false},
		{"a NUL after the value", "X-A: b\x00\r\n\r\n", "b", true},
		{"a vertical tab before the value", "X-A:\x0bb\r\n\r\n", "b", true},
		{"more than the value, folded", "X-A: b\r\n c\r\n\r\n", "b", false},
		{"the header section ends at the empty line", "X-B: 1\r\n\r\nX-A: b\r\n", "b", false},
		{"no header section", "\r\nX-A: b\r\n", "b", false},
		{"no body", "X-A: b\r\n", "b", true},
		{"no line end", "X-A: b", "b", true},
		{"another name", "X-AB: b\r\nX: b\r\n\r\n", "b", false},
		{"a blank in the name", "Y X-A: b\r\n\r\n", "b", false},
		{"in another field", "Subject: X-A: b\r\n\r\n", "b", false},
		{"folded into another field", "Subject: x\r\n X-A: b\r\n\r\n", "b", false},
		{"below a line without a colon", "junk\r\nX-A: b\r\n\r\n", "b", true},
		{"folded into a line without a colon", "junk\r\n X-A: b\r\n\r\n", "b", true},
		{"below a From_ line", "From a@b Mon Jan  1 00:00:00 2024\r\nX-A: b\r\n\r\n", "b", true},
		{"a continuation first of all", " X-A: b\r\n\r\n", "b", true},
		{"a CR too many is no line end", "X-B: c\rX-A: b\r\n\r\n", "b", false},
		{"a long line first", "X-B: " + strings.Repeat("x", 990) + "\r\nX-A: b\r\n\r\n", "b", true},
	} {
		whole := header(test.in)
		single := header(strings.Split(test.in, "")...)
		if got := has(whole, "x-a", " "+test.want); got != test.found {
			t.Errorf("%s: %v", test.ref, got)
		}
		if !reflect.DeepEqual(whole, single) {
			t.Errorf("%s: byte by byte %+v, whole %+v", test.ref, single, whole)
		}
	}
	var none Header
	if found, watched := none.Has(Field{"X-A", ""}); found || watched || none.Received() != "" || none.RequireTLS() || none.TLSRequiredNo() {
		t.Error("the zero Header has something")
	}
	if found, watched := header("X-B: c\r\n\r\n").Has(Field{"X-B", "c"}); found || watched {
		t.Error("the absence of what was not looked for was taken as proven")
	}
}

// DESIGN §8: what asks for more counts in a malformed header section too, what
// asks for less only in a well-formed one.
func TestHeaderOfTLS(t *testing.T) {
	for _, test := range []struct {
		in            string
		require, less bool
	}{
		{"Require-TLS-ESMTP: yes\r\nTLS-Required: No\r\n\r\n", true, true},
		{"require-tls-esmtp:YES\r\ntls-required:NO\r\n\r\n", true, true},
		{"Require-TLS-ESMTP:\r\n yes\r\nTLS-Required:\r\n no\r\n", true, true},
		{"Require-TLS-ESMTP: no\r\nTLS-Required: yes\r\n\r\n", false, false},
		{"TLS-Required: Yes\r\nTLS-Required: No\r\n\r\n", false, false},
		{"TLS-Required: No\r\nTLS-Required: Yes\r\n\r\n", false, false},
		{"TLS-Required: No\r\nTLS-Required:\r\n\r\n", false, false},
		{"TLS-Required: No\r\nTLS-Required: No (really)\r\n\r\n", false, false},
		{"TLS-Required: No\r\nTLS-Required\x00: Yes\r\n\r\n", false, false},
		{"TLS-Required: No\r\nTLS-Required: no\r\n\r\n", false, true},
		{"Subject: x\r\n \r\nTLS-Required: No\r\n\r\n", false, false},
		{"Subject: x\r\n\t \t\r\nTLS-Required: No\r\n\r\n", false, false},
		{"Subject: x\r\n \r\r\nTLS-Required: No\r\n\r\n", false, false},
		{"Subject: x\r\n\r\r\nTLS-Required: No\r\n\r\n", false, false},
		{"TLS-Required:\r\n \r\n No\r\n\r\n", false, false},
		{"Subject: x\rTLS-Required: No\r\n\r\n", false, false},
		{"Subject: x\ry\r\nTLS-Required: No\r\n\r\n", false, false},
		{"Subject: x\r\n y\r\nTLS-Required: No\r\n\r\n", false, true},
		{"Require-TLS-ESMTP: yes\x00\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: \x0byes\x0c\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: y\x00es\r\n\r\n", true, false},
		{"Require-TLS-ESMTP\x00: yes\r\n\r\n", true, false},
		{"\xef\xbb\xbfRequire-TLS-ESMTP: yes\r\nTLS-Required: No\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: yes (by Postfix)\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: (by (Post\\)fix)) yes\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: (yes\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: \"yes\"; really\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: (" + strings.Repeat("x\r\n ", 1500) + ") yes\r\n\r\n", true, false},
		{"Require-TLS-ESMTP:\ryes\r\n\r\n", true, false},
		{"Subject: x\rRequire-TLS-ESMTP: yes\r\n\r\n", true, false},
		{"Subject: x\r\n y\rRequire-TLS-ESMTP: yes\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: no (yes)\r\n\r\n", false, false},
		{"Require-TLS-ESMTPS: yes\r\nX-Require-TLS-ESMTP: yes\r\n\r\n", false, false},
		{"TLS-Required: No, really\r\n\r\n", false, false},
		{"TLS-Required: No (comment)\r\n\r\n", false, false},
		{"\r\nRequire-TLS-ESMTP: yes\r\nTLS-Required: No\r\n", false, false},
		{"junk\r\nRequire-TLS-ESMTP: yes\r\nTLS-Required: No\r\n\r\n", true, false},
		{"Require-TLS-ESMTP: yes\r\nTLS-Required: No\r\njunk\r\n\r\n", true, false},
		{"TLS-Required: No\r\nnot a name: x\r\n\r\n", false, false},
		{"TLS-Required: No\r\n: x\r\n\r\n", false, false},
		{" x\r\nTLS-Required: No\r\n\r\n", false, false},
		{"junk\r\n Require-TLS-ESMTP: yes\r\n TLS-Required: No\r\n\r\n", true, false},
		{"From a@b\r\nTLS-Required: No\r\n\r\n", false, false},
		{"TLS-Required: No\r\n\r\njunk\r\n", false, true},
	} {
		got := header(test.in)
		if got.RequireTLS() != test.require || got.TLSRequiredNo() != test.less {
			t.Errorf("%q: require %v, less %v", test.in, got.RequireTLS(), got.TLSRequiredNo())
		}
	}
}

func TestReceived(t *testing.T) {
	for in, want := range map[string]string{
		"Received: from a\r\n by b; date\r\nReceived: from c\r\n\r\n":      "from a by b; date",
		"Received:\r\nReceived: a\r\n\r\n":                                 "",
		"X: y\r\nreceived:a\r\n\r\n":                                       "a",
		"X: y\r\n\r\nReceived: a\r\n":                                      "",
		"Received: " + strings.Repeat("x\r\n ", 1500) + "\r\n\r\n":         "",
		"Received: x" + strings.Repeat("\r\n ", 1500) + "y\r\n\r\n":        "x" + strings.Repeat(" ", 1500) + "y",
		"Received: x" + strings.Repeat("\r\n ", 9000) + "y\r\n\r\n":        "",
		"Received: x" + strings.Repeat("\r\n ", 9000) + "\r\n\r\n":         "x",
		"Received:" + strings.Repeat("\r\n ", 9000) + "y\r\n\r\n":          "y",
		"Received: " + strings.Repeat(strings.Repeat("x", 900)+"\r\n ", 3): "",
	} {
		if got := header(in).Received(); got != want {
			t.Errorf("%.40q: %.40q", in, got)
		}
	}
}

// Whatever stands in front of a field, and however much of it, the field is
// seen, and nothing of the rest is kept.
func TestHeaderWithoutBound(t *testing.T) {
	for name, filler := range map[string]string{
		"lines":      "F: " + strings.Repeat("x", 990) + "\r\n",
		"folds":      " " + strings.Repeat("x", 990) + "\r\n",
		"tiny":       "A:\r\n",
		"junk":       "x\r\n",
		"the same":   "X-Quarantined: no\r\n",
		"blanks":     " \r\n",
		"received":   "Received: " + strings.Repeat("x", 900) + "\r\n",
		"one by one": "X-Quarantined:\r\n n\r\n o\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			piece := []byte(strings.Repeat(filler, 32<<10/len(filler)))
			h := NewHeaderReader(marks...)
			h.Write([]byte("Subject: x\r\n"))
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			for range 100 {
				h.Write(piece)
			}
			runtime.ReadMemStats(&after)
			if got := after.TotalAlloc - before.TotalAlloc; got > 16<<10 {
				t.Errorf("%d bytes for %d bytes of header", got, 100*len(piece))
			}
			h.Write([]byte("Require-TLS-ESMTP: yes\r\nX-Quarantined: yes\r\nTLS-Required: No\r\n\r\n"))
			got := h.Header()
			if !got.RequireTLS() || !has(got, "X-Quarantined", "yes") || got.TLSRequiredNo() != (name != "junk" && name != "blanks") {
				t.Errorf("%+v", got)
			}
		})
	}
}

func FuzzHeader(f *testing.F) {
	for _, seed := range []string{
		"X-A: b\r\n c\r\n\r\nd", "X-A :b\n\n", " x\nX-A\n:b\n", "X-A:\r\n\r", "\n", "X-A: \x00\xff\r\r\n",
		"junk\n Require-TLS-ESMTP: yes\nTLS-Required: no\n", "Received: a\n b\nx",
	} {
		f.Add([]byte(seed), 1, uint16(0))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, repeat uint16) {
		// long lines and sections
		if repeat = repeat % 2000; len(in)*int(repeat) < 1<<20 {
			in = append([]byte(strings.Repeat(string(in[:len(in)/2]), int(repeat))), in...)
		}
		whole := header(string(in))
		step := max(1, cut%100)
		pieces := NewHeaderReader(marks...)
		for rest := in; len(rest) > 0; {
			n := min(step, len(rest))
			if m, err := pieces.Write(rest[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			rest = rest[n:]
		}
		if got := pieces.Header(); !reflect.DeepEqual(got, whole) {
			t.Fatalf("%q in pieces of %d: %+v, whole %+v", in, step, got, whole)
		}
		// What a reader of the canonical form finds must be the same but for
		// the bare CRs and the folding there.
		out, facts := canonical(t, string(in))
		if facts.Folds == 0 && facts.StrayCRs == 0 && !strings.HasSuffix(string(in), "\r") {
			if got := header(out); !reflect.DeepEqual(got, whole) {
				t.Fatalf("%q: canonical %+v, raw %+v", in, got, whole)
			}
		}
		if want := naiveHeader(string(in)); whole.requireTLS != want.requireTLS || whole.malformed != want.malformed ||
			whole.tlsRequiredNo != want.tlsRequiredNo || whole.tlsRequiredElse != want.tlsRequiredElse || fmt.Sprint(whole.found) != fmt.Sprint(want.found) {
			t.Fatalf("%q: %+v, want %+v", in, whole, want)
		}
	})
}

// naiveHeader finds the fields by the plainest means: the section is split into
// lines, the lines are joined to fields, and the fields are compared.
func naiveHeader(in string) Header {
	var h Header
	type raw struct {
		text string
		ok   bool // a field
		cut  bool
	}
	var fields []raw
	isField := func(line string) bool {
		name, _, found := strings.Cut(line, ":")
		return found && isFieldName([]byte(strings.TrimRight(name, " \t")))
	}
	for line := range strings.Lines(in) {
		cut := len(line) > maxHeld
		if cut {
			line = line[:maxHeld]
		}
		line = string(lineText([]byte(line)))
		if line == "" {
			break
		}
		if strings.Contains(line, "\r") {
			h.malformed = true
			for piece := range strings.SplitSeq(line, "\r") {
				if name, value, _ := strings.Cut(piece, ":"); isNearly([]byte(name), requireTLS.Name) && saysYes([]byte(value)) {
					h.requireTLS = true
				}
			}
		}
		if isBlank(line[0]) && strings.Trim(line, " \t\r") == "" {
			h.malformed = true
		}
		nearly := func() bool {
			name, _, found := strings.Cut(line, ":")
			return found && isNearly([]byte(name), requireTLS.Name)
		}
		last := len(fields) - 1
		switch {
		case isBlank(line[0]) && last >= 0 && fields[last].ok:
			fields[last].text += line
			fields[last].cut = fields[last].cut || cut
		case isBlank(line[0]):
			h.malformed = true
			line = strings.TrimLeft(line, " \t")
			fields = append(fields, raw{line, isField(line), cut}, raw{})
		default:
			// one that is nearly a request for TLS goes on like a field
			fields = append(fields, raw{line, isField(line) || nearly(), cut})
			h.malformed = h.malformed || !isField(line)
		}
	}
	for _, f := range fields {
		name, value, found := strings.Cut(f.text, ":")
		plain := strings.Map(func(r rune) rune {
			if r <= ' ' || r > '~' {
				return -1
			}
			return r
		}, name)
		if found && strings.EqualFold(plain, requireTLS.Name) && (f.cut || len(value) > maxReceived || saysYes([]byte(value))) {
			h.requireTLS = true
		}
		if !f.ok || !isFieldName([]byte(strings.TrimRight(name, " \t"))) {
			continue
		}
		name, value = strings.TrimRight(name, " \t"), strings.Trim(value, " \t")
		is := strings.EqualFold(name, tlsRequiredNo.Name)
		h.tlsRequiredNo = h.tlsRequiredNo || is && !f.cut && strings.EqualFold(value, tlsRequiredNo.Value)
		h.tlsRequiredElse = h.tlsRequiredElse || is && (f.cut || !strings.EqualFold(value, tlsRequiredNo.Value))
		if f.cut {
			continue
		}
		value = strings.Trim(strings.Map(func(r rune) rune {
			if isControl(r) {
				return -1
			}
			return r
		}, value), " \t")
		for i := range marks {
			if strings.EqualFold(name, marks[i].Name) && strings.EqualFold(value, strings.Trim(marks[i].Value, " \t")) {
				if h.found == nil {
					h.found = make([]bool, len(marks))
				}
				h.found[i] = true
			}
		}
	}
	return h
}
