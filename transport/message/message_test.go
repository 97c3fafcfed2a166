package message

import (
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
)

// naive is the canonical form by the plainest means: one byte at a time, over
// the whole message.
func naive(in string) string {
	var lines [][]byte
	var line []byte
	for i := 0; i < len(in); i++ {
		switch {
		case in[i] == '\n':
			lines = append(lines, line)
			line = nil
		case in[i] == '\r' && i+1 < len(in) && in[i+1] == '\n':
		case in[i] == '\r':
			line = append(line, ' ')
		default:
			line = append(line, in[i])
		}
	}
	if len(line) > 0 || len(lines) == 0 {
		lines = append(lines, line)
	}
	var out []byte
	for _, line := range lines {
		for n := 998; len(line) > n; n = 997 {
			out = append(append(out, line[:n]...), "\r\n "...)
			line = line[n:]
		}
		out = append(append(out, line...), "\r\n"...)
	}
	return string(out)
}

var commandLine = regexp.MustCompile(`(?i)^[ \t]*(MAIL|RCPT|DATA|BDAT)`)

// naiveFacts are the facts by the plainest means, from the canonical form.
func naiveFacts(out string) Facts {
	header := out
	if strings.HasPrefix(out, "\r\n") {
		header = ""
	} else if i := strings.Index(out, "\r\n\r\n"); i >= 0 {
		header = out[:i+2]
	}
	high := func(s string) bool { return strings.ContainsFunc(s, func(r rune) bool { return r >= 0x80 }) }
	f := Facts{Size: int64(len(out)), HeaderSize: int64(len(header)), EightBit: high(out), HeaderEightBit: high(header)}
	for line := range strings.Lines(out) {
		if commandLine.MatchString(line) {
			f.LineStartsWithCommand = true
		}
	}
	return f
}

// canonical runs pieces through a Canonicalizer.
func canonical(t testing.TB, pieces ...string) (string, Facts) {
	t.Helper()
	var out bytes.Buffer
	c := NewCanonicalizer(&out)
	for _, p := range pieces {
		if n, err := c.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", p, n, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String(), c.Facts()
}

// dotted runs pieces through a DotWriter.
func dotted(t testing.TB, pieces ...string) string {
	t.Helper()
	var out bytes.Buffer
	d := NewDotWriter(&out)
	for _, p := range pieces {
		if n, err := d.Write([]byte(p)); n != len(p) || err != nil {
			t.Fatalf("Write(%q) = %d, %v", p, n, err)
		}
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// undot is a server's side of DATA (RFC 5321 §4.5.2); ok is false when the end
// is not at the very end.
func undot(data string) (string, bool) {
	out := ""
	for {
		line, rest, found := strings.Cut(data, "\r\n")
		if !found {
			return out, false
		}
		if line == "." {
			return out, rest == ""
		}
		out += strings.TrimPrefix(line, ".") + "\r\n"
		data = rest
	}
}

// check holds the canonical form to what is promised of every one.
func check(t testing.TB, in, out string) {
	t.Helper()
	if !strings.HasSuffix(out, "\r\n") {
		t.Fatalf("%q: %q does not end with CRLF", in, out)
	}
	for line := range strings.SplitSeq(strings.TrimSuffix(out, "\r\n"), "\r\n") {
		if strings.ContainsAny(line, "\r\n") {
			t.Fatalf("%q: a bare CR or LF in %q", in, out)
		}
		if len(line) > MaxLine {
			t.Fatalf("%q: a line of %d bytes", in, len(line))
		}
	}
}

func checkDots(t testing.TB, out, data string) {
	t.Helper()
	// DATA itself ends with CRLF, so an end could hide at the very start.
	if i := strings.Index("\r\n"+data, "\r\n.\r\n"); i != len(data)-3 {
		t.Fatalf("%.99q: the end of %.99q is at %d", out, data, i)
	}
	if back, ok := undot(data); !ok || back != out {
		t.Fatalf("%.99q: a server reads %.99q out of %.99q", out, back, data)
	}
}

// TestEveryMixture goes through every string of CR, LF, dot and a letter up to
// eight bytes, in one piece and cut in two at every position.
func TestEveryMixture(t *testing.T) {
	const alphabet = "\r\n.a"
	const longest = 8
	var out bytes.Buffer
	for n := 0; n <= longest; n++ {
		digits := make([]byte, n)
		for number := 0; number < 1<<(2*n); number++ {
			for i := range digits {
				digits[i] = alphabet[number>>(2*i)&3]
			}
			in := string(digits)
			want := naive(in)
			check(t, in, want)
			wantData := dotted(t, want)
			checkDots(t, want, wantData)
			for cut := 0; cut <= n; cut++ {
				out.Reset()
				c := Canonicalizer{dst: &out, buf: make([]byte, 0, 64)}
				c.Write(digits[:cut])
				c.Write(digits[cut:])
				if err := c.Close(); err != nil || out.String() != want {
					t.Fatalf("%q cut at %d: %q, want %q, %v", in, cut, out.String(), want, err)
				}
				if got, want := c.Facts(), naiveFacts(want); got.Size != want.Size || got.HeaderSize != want.HeaderSize {
					t.Fatalf("%q cut at %d: %+v, want %+v", in, cut, got, want)
				}
			}
			for cut := 0; cut <= len(want); cut++ {
				out.Reset()
				d := NewDotWriter(&out)
				d.Write([]byte(want[:cut]))
				d.Write([]byte(want[cut:]))
				if err := d.Close(); err != nil || out.String() != wantData {
					t.Fatalf("%q cut at %d: %q, want %q, %v", want, cut, out.String(), wantData, err)
				}
			}
		}
	}
}

func TestCanonicalizer(t *testing.T) {
	x := strings.Repeat("x", 998)
	for _, test := range []struct{ ref, in, want string }{
		{"LF", "A: b\n\nc\n", "A: b\r\n\r\nc\r\n"},
		{"CRLF", "A: b\r\n\r\nc\r\n", "A: b\r\n\r\nc\r\n"},
		{"mixed", "A: b\r\n\nc\n", "A: b\r\n\r\nc\r\n"},
		{"no end", "a\nb", "a\r\nb\r\n"},
		{"empty", "", "\r\n"},
		{"a bare CR is no line end (cleanup_replace_stray_cr_lf)", "a\r.\rb\n", "a . b\r\n"},
		{"two CRs", "a\r\r\nb\n", "a \r\nb\r\n"},
		{"CR at the end", "a\r", "a \r\n"},
		{"smuggling: LF dot LF", "a\n.\nMAIL\n", "a\r\n.\r\nMAIL\r\n"},
		{"smuggling: CR LF dot CR", "a\r\n.\rb", "a\r\n. b\r\n"},
		{"NUL and 8 bit stay (RFC 6152)", "a\x00\xff\n", "a\x00\xff\r\n"},
		{"998 bytes are not folded", x + "\n", x + "\r\n"},
		{"998 bytes without end", x, x + "\r\n"},
		{"999 bytes", x + "y\n", x + "\r\n y\r\n"},
		{"998 + 997", x + x[:997] + "\n", x + "\r\n " + x[:997] + "\r\n"},
		{"998 + 998", x + x[:997] + "y\n", x + "\r\n " + x[:997] + "\r\n y\r\n"},
		{"998 bytes and a bare CR", x + "\r\ry\n", x + "\r\n   y\r\n"},
		{"998 bytes and a bare CR at the end", x + "\r", x + "\r\n  \r\n"},
		{"a folded piece never starts with a dot", x + "." + "\n", x + "\r\n .\r\n"},
	} {
		if want := naive(test.in); want != test.want {
			t.Errorf("%s: the reference is wrong: %.2000q", test.ref, want)
		}
		whole, _ := canonical(t, test.in)
		single, _ := canonical(t, strings.Split(test.in, "")...)
		if whole != test.want || single != test.want {
			t.Errorf("%s: got %q, byte by byte %q", test.ref, whole, single)
		}
	}
}

// Folding must not depend on where a piece or the buffer ends.
func TestFoldAtEveryLength(t *testing.T) {
	for _, n := range []int{996, 997, 998, 999, 1000, 1994, 1995, 1996, 2991, 2992, 2993, 5000} {
		in := "a\n" + strings.Repeat("é", n/2+1)[:n] + "\nb\n"
		want := naive(in)
		check(t, in, want)
		for cut := 0; cut <= len(in); cut++ {
			if got, f := canonical(t, in[:cut], in[cut:]); got != want {
				t.Fatalf("%d bytes, cut at %d: differs", n, cut)
			} else if f.Folds != int64(strings.Count(want, "\r\n")-3) {
				t.Fatalf("%d bytes: %d folds", n, f.Folds)
			}
		}
	}
}

// The buffer's end falls on every part of a line end.
func TestLongerThanTheBuffer(t *testing.T) {
	for shift := range 5 {
		in := strings.Repeat("a", shift) + strings.Repeat("\n.b\r\n\rc", 3*bufferSize/7)
		want := naiveLong(in)
		got, f := canonical(t, in)
		if got != want || f.Size != int64(len(want)) {
			t.Fatalf("shift %d: differs", shift)
		}
		head := got[:strings.LastIndex(got[:4096], "\r\n")+2]
		checkDots(t, head, dotted(t, head))
	}
}

// naiveLong is naive in linear time, for messages without long lines.
func naiveLong(in string) string {
	in = strings.ReplaceAll(in, "\r\n", "\n")
	in = strings.ReplaceAll(in, "\r", " ")
	in = strings.ReplaceAll(in, "\n", "\r\n")
	if !strings.HasSuffix(in, "\n") {
		in += "\r\n"
	}
	return in
}

func TestFacts(t *testing.T) {
	long := strings.Repeat("x", 998)
	for _, test := range []struct {
		why, in string
		want    Facts
	}{
		{"plain", "A: b\n\nc\n", Facts{Size: 11, HeaderSize: 6}},
		{"no body", "A: b\n", Facts{Size: 6, HeaderSize: 6}},
		{"no header", "\nc\n", Facts{Size: 5}},
		{"empty", "", Facts{Size: 2}},
		{"a blank is no empty line", "A: b\n \nc\n", Facts{Size: 12, HeaderSize: 12}},
		{"8 bit body", "A: b\n\n\xc3\xa9\n", Facts{Size: 12, HeaderSize: 6, EightBit: true}},
		{"8 bit header", "A: \x80\n\nc\n", Facts{Size: 11, HeaderSize: 6, EightBit: true, HeaderEightBit: true}},
		{"8 bit in a long body line", "A: b\n\n" + strings.Repeat("c", 70) + "\xff\n", Facts{Size: 81, HeaderSize: 6, EightBit: true}},
		{"MAIL", "A: b\n\nMAIL FROM:<>\n", Facts{Size: 22, HeaderSize: 6, LineStartsWithCommand: true}},
		{"mail without end", "A: b\n\nmail", Facts{Size: 14, HeaderSize: 6, LineStartsWithCommand: true}},
		{"Mailbox", "A: b\n\nmAiLbox", Facts{Size: 17, HeaderSize: 6, LineStartsWithCommand: true}},
		{"MAIL first of all", "MAIL\n", Facts{Size: 6, HeaderSize: 6, LineStartsWithCommand: true}},
		{"MAI", "A: b\n\nmai\nl\n", Facts{Size: 16, HeaderSize: 6}},
		{"blank MAIL", "A: b\n\n MAIL\n", Facts{Size: 15, HeaderSize: 6, LineStartsWithCommand: true}},
		{"RCPT", "\nrcpt\n", Facts{Size: 8, LineStartsWithCommand: true}},
		{"DATA", "\nDatabase\n", Facts{Size: 12, LineStartsWithCommand: true}},
		{"BDAT after blanks", "\n \t BDAT 1\n", Facts{Size: 13, LineStartsWithCommand: true}},
		{"RSET, EHLO, Date", "\nRSET\nEHLO\nDate\nrcp\n", Facts{Size: 25}},
		{"another word after blanks", "\n x MAIL\n", Facts{Size: 11}},
		{"MAIL within", "A: b\n\nxMAIL\nMxAIL\n", Facts{Size: 22, HeaderSize: 6}},
		{"a bare CR before MAIL", "\n\rMAIL\n", Facts{Size: 9, StrayCRs: 1, LineStartsWithCommand: true}},
		{"a bare CR within MAIL", "\nMA\rIL\n", Facts{Size: 9, StrayCRs: 1}},
		{"MAIL after a fold", "\n" + long + "MAIL\n", Facts{Size: 1009, Folds: 1, LineStartsWithCommand: true}},
		{"MAIL across a fold", "\n" + long[2:] + "MAIL\n", Facts{Size: 1007, Folds: 1}},
		{"M, then AIL after the fold", "\nM" + long[1:] + "AIL\n", Facts{Size: 1008, Folds: 1}},
		{"no letters but alike in five bits", "\nM\x01IL\n\rA\n", Facts{Size: 12, StrayCRs: 1}},
	} {
		_, whole := canonical(t, test.in)
		_, single := canonical(t, strings.Split(test.in, "")...)
		if whole != test.want || single != test.want {
			t.Errorf("%s: got %+v, byte by byte %+v, want %+v", test.why, whole, single, test.want)
		}
	}
}

func TestCanonicalizerErrors(t *testing.T) {
	full := errors.New("disk full")
	c := NewCanonicalizer(failing{full})
	for range 3 {
		if _, err := c.Write(make([]byte, bufferSize)); err != nil && err != full {
			t.Fatal(err)
		}
	}
	if _, err := c.Write([]byte("a")); err != full {
		t.Errorf("Write after an error: %v", err)
	}
	if err := c.Close(); err != full {
		t.Errorf("Close after an error: %v", err)
	}
	c = NewCanonicalizer(failing{full})
	if _, err := c.Write([]byte("a")); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != full {
		t.Errorf("Close: %v", err)
	}
	if _, err := c.Write([]byte("a")); err != ErrClosed {
		t.Errorf("Write after Close: %v", err)
	}
	if err := c.Close(); err != full {
		t.Errorf("second Close: %v", err)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// failAt takes a number of bytes, then no more.
type failAt struct{ left int }

func (f *failAt) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	if n < len(p) {
		return n, io.ErrClosedPipe
	}
	return n, nil
}

func TestDotWriter(t *testing.T) {
	for _, test := range []struct{ ref, in, want string }{
		{"empty", "", ".\r\n"},
		{"RFC 5321 §4.5.2", "a\r\n.\r\n..b\r\nc.\r\n", "a\r\n..\r\n...b\r\nc.\r\n.\r\n"},
		{"a dot first of all", ".\r\n", "..\r\n.\r\n"},
		{"without a last line end", "a", "a\r\n.\r\n"},
		{"a lone dot without end", ".", "..\r\n.\r\n"},
	} {
		whole := dotted(t, test.in)
		single := dotted(t, strings.Split(test.in, "")...)
		if whole != test.want || single != test.want {
			t.Errorf("%s: got %q, byte by byte %q", test.ref, whole, single)
		}
	}
}

// Of a write that fails, no more bytes are claimed than were taken.
func TestDotWriterErrors(t *testing.T) {
	const in = ".a\r\n.b\r\nc\r\n"
	for room := range len(in) + 2 {
		d := NewDotWriter(&failAt{room})
		n, err := d.Write([]byte(in))
		if err != io.ErrClosedPipe || n > room || n >= len(in) {
			t.Errorf("room for %d: %d, %v", room, n, err)
		}
	}
	if err := NewDotWriter(&failAt{2}).Close(); err != io.ErrClosedPipe {
		t.Errorf("Close: %v", err)
	}
}
