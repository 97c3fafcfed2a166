package reply

import (
	"bufio"
	"errors"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
	"unicode"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/status"
)

func reader(s string) *bufio.Reader { return bufio.NewReader(strings.NewReader(s)) }

func TestRead(t *testing.T) {
	long := strings.Repeat("x", MaxLine-4)
	for _, test := range []struct {
		ref   string
		in    string
		code  int
		st    string
		lines []string
	}{
		{"RFC 5321 §4.2: code, blank, text", "250 ok\r\n", 250, "", []string{"ok"}},
		{"RFC 5321 §4.2: bare code", "250\r\n", 250, "", []string{""}},
		{"RFC 5321 §4.2: code and blank", "354 \r\n", 354, "", []string{""}},
		{"RFC 5321 §4.2.1: multiline", "250-First line\r\n250-Second line\r\n250-234 Text beginning with numbers\r\n250 The last line\r\n",
			250, "", []string{"First line", "Second line", "234 Text beginning with numbers", "The last line"}},
		{"RFC 5321 §4.2.1: last line a bare code", "250-a\r\n250\r\n", 250, "", []string{"a", ""}},
		{"RFC 5321 §4.2.1: continuation without text", "250-\r\n250 b\r\n", 250, "", []string{"", "b"}},
		{"servers that end lines with LF", "220-a\n220 b\n", 220, "", []string{"a", "b"}},
		{"LF and CRLF mixed", "220-a\n220 b\r\n", 220, "", []string{"a", "b"}},
		{"a CR too many", "220 b\r\r\n", 220, "", []string{"b"}},
		{"RFC 5321 §4.3.2: a code not in the list", "299 x\r\n", 299, "", []string{"x"}},
		{"a code beyond 559", "599 x\r\n", 599, "", []string{"x"}},
		{"RFC 2034 §4: enhanced code", "550 5.1.1 no such user\r\n", 550, "5.1.1", []string{"5.1.1 no such user"}},
		{"RFC 2034 §4: on each line, the first counts", "450-4.2.2 full\r\n450 4.2.1 x\r\n", 450, "4.2.2", []string{"4.2.2 full", "4.2.1 x"}},
		{"RFC 2034 §4: the class must agree", "550 4.1.1 x\r\n", 550, "", []string{"4.1.1 x"}},
		{"RFC 3463 §2: no class 3", "354 3.0.0 go\r\n", 354, "", []string{"3.0.0 go"}},
		{"enhanced code without text", "250 2.0.0\r\n", 250, "2.0.0", []string{"2.0.0"}},
		{"blanks before the enhanced code", "550  5.1.1 x\r\n", 550, "5.1.1", []string{"5.1.1 x"}},
		{"control characters", "550 a\x00b\x1b[31mc\td\x7f\r\n", 550, "", []string{"a?b?[31mc d?"}},
		{"a CR inside", "550 a\rb\r\n", 550, "", []string{"a b"}},
		{"valid UTF-8 stays (RFC 6531 §3.7.4.2)", "550 größer\r\n", 550, "", []string{"größer"}},
		{"what is not UTF-8 goes", "550 gr\xf6\xdfer\r\n", 550, "", []string{"gr??er"}},
		{"C1 controls and direction marks go", "550 a\u0085b\u202ec\u2028d\r\n", 550, "", []string{"a?b?c?d"}},
		{"the longest line", "250 " + long + "\r\n", 250, "", []string{long}},
	} {
		for name, br := range map[string]*bufio.Reader{
			"whole":      reader(test.in + "221 next\r\n"),
			"by bytes":   bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(test.in+"221 next\r\n")), 16),
			"big buffer": bufio.NewReaderSize(strings.NewReader(test.in+"221 next\r\n"), 1<<16),
		} {
			r, err := Read(br)
			if err != nil {
				t.Errorf("%s, %s: %v", test.ref, name, err)
				continue
			}
			st := ""
			if !r.Status.IsZero() {
				st = r.Status.String()
			}
			if r.Code != test.code || st != test.st || !reflect.DeepEqual(r.Lines, test.lines) {
				t.Errorf("%s, %s: got %d %q %q", test.ref, name, r.Code, st, r.Lines)
			}
			if next, err := Read(br); err != nil || next.Code != 221 {
				t.Errorf("%s, %s: the next reply is %v, %v", test.ref, name, next, err)
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, test := range []struct {
		ref, in string
		want    error
	}{
		{"end before a reply", "", io.EOF},
		{"end within a line", "250", io.ErrUnexpectedEOF},
		{"end within a line, after its CR", "250 ok\r", io.ErrUnexpectedEOF},
		{"end within a reply", "250-a\r\n", io.ErrUnexpectedEOF},
		{"end within the second line", "250-a\r\n25", io.ErrUnexpectedEOF},
		{"RFC 5321 §4.2: first digit 1", "150 wait\r\n", ErrMalformed},
		{"RFC 5321 §4.2: first digit 6", "600 x\r\n", ErrMalformed},
		{"RFC 5321 §4.2: first digit 0", "000 x\r\n", ErrMalformed},
		{"two digits", "25 x\r\n", ErrMalformed},
		{"four digits", "2500 x\r\n", ErrMalformed},
		{"letters", "2x0 x\r\n", ErrMalformed},
		{"another protocol", "SSH-2.0-OpenSSH_9.2\r\n", ErrMalformed},
		{"empty line", "\r\n250 ok\r\n", ErrMalformed},
		{"blank first", " 250 ok\r\n", ErrMalformed},
		{"TAB as separator", "250\tok\r\n", ErrMalformed},
		{"underscore as separator", "250_ok\r\n", ErrMalformed},
		{"RFC 5321 §4.2.1: another code, more to come", "250-a\r\n550-b\r\n250 c\r\n", ErrMalformed},
		{"RFC 5321 §4.2.1: another code, last", "250-a\r\n550 b\r\n", ErrMalformed},
		{"text on a line of its own", "250-a\r\nb\r\n250 c\r\n", ErrMalformed},
		{"a line too long", "250 " + strings.Repeat("x", MaxLine-3) + "\r\n", ErrTooLong},
		{"a line without end", "250 " + strings.Repeat("x", 1<<20), ErrTooLong},
		{"too many lines", strings.Repeat("250-x\r\n", MaxLines) + "250 x\r\n", ErrTooLong},
	} {
		for _, size := range []int{16, 4096, 1 << 16} {
			_, err := Read(bufio.NewReaderSize(strings.NewReader(test.in), size))
			if !errors.Is(err, test.want) {
				t.Errorf("%s, buffer %d: got %v, want %v", test.ref, size, err, test.want)
			}
		}
	}
}

// A hundred lines are within the bound.
func TestReadMostLines(t *testing.T) {
	r, err := Read(reader(strings.Repeat("250-x\r\n", MaxLines-1) + "250 x\r\n"))
	if err != nil || len(r.Lines) != MaxLines {
		t.Fatalf("got %d lines, %v", len(r.Lines), err)
	}
}

// An endless line must be given up after little more than MaxLine bytes, not
// read into memory.
func TestReadIsBounded(t *testing.T) {
	src := &countReader{}
	if _, err := Read(bufio.NewReaderSize(src, 512)); !errors.Is(err, ErrTooLong) {
		t.Fatalf("got %v", err)
	}
	if src.n > MaxLine+1024 {
		t.Errorf("read %d bytes of an endless line", src.n)
	}
}

type countReader struct{ n int }

func (c *countReader) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = '2'
	}
	c.n += len(p)
	return len(p), nil
}

// The connection's own errors keep their identity, so that a time-out can be
// told from a lost connection.
func TestReadPassesErrors(t *testing.T) {
	for _, in := range []string{"", "25", "250-a\r\n", "250-a\r\n2"} {
		br := bufio.NewReader(io.MultiReader(strings.NewReader(in), iotest.ErrReader(os.ErrDeadlineExceeded)))
		if _, err := Read(br); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("after %q: %v", in, err)
		}
	}
}

func TestMalformedErrorShowsTheLine(t *testing.T) {
	_, err := Read(reader("SSH-2.0-\x1b[1mOpenSSH\r\n"))
	if err == nil || !strings.Contains(err.Error(), "SSH-2.0-?[1mOpenSSH") {
		t.Errorf("got %v", err)
	}
}

func TestReadLeavesWhatCameAfter(t *testing.T) {
	br := reader("220 go\r\n250 injected\r\n")
	if _, err := Read(br); err != nil {
		t.Fatal(err)
	}
	if got := br.Buffered(); got != len("250 injected\r\n") {
		t.Errorf("Buffered = %d", got)
	}
	if got, err := Read(br); err != nil || got.Lines[0] != "injected" || br.Buffered() != 0 {
		t.Errorf("got %v, %v, %d left", got, err, br.Buffered())
	}
}

func TestText(t *testing.T) {
	long := strings.Repeat("é", MaxText)
	st := status.New(status.Permanent, 7, 1)
	for _, test := range []struct {
		in   Reply
		want string
	}{
		{Reply{}, "no reply"},
		{Reply{Code: 550, Lines: []string{"5.1.1 no such user"}}, "550 5.1.1 no such user"},
		{Reply{Code: 250}, "250"},
		{Reply{Code: 250, Lines: []string{"", "a", "", "b"}}, "250 a b"},
		{Reply{Code: 550, Status: st, Lines: []string{"5.7.1 go", "5.7.1 away", "5.7.1", "5.7.10 x"}}, "550 5.7.1 go away 5.7.10 x"},
	} {
		if got := test.in.Text(); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
	got := Reply{Code: 550, Lines: []string{long, long}}.Text()
	if len(got) > MaxText || !utf8.ValidString(got) || !strings.HasSuffix(got, "é...") {
		t.Errorf("cut badly: %d bytes, %q", len(got), got)
	}
}

func TestCut(t *testing.T) {
	for _, test := range []struct {
		in   string
		n    int
		want string
	}{
		{"abcdef", 6, "abcdef"}, {"abcdef", 5, "ab..."}, {"a bcdef", 5, "a..."},
		{"éééé", 6, "é..."}, {"abcdef", 2, ".."}, {"abcdef", 0, ""},
	} {
		if got := Cut(test.in, test.n); got != test.want {
			t.Errorf("Cut(%q, %d) = %q, want %q", test.in, test.n, got, test.want)
		}
	}
}

func TestClasses(t *testing.T) {
	type class struct {
		digit                int
		temporary, permanent bool
	}
	for code, want := range map[int]class{250: {2, false, false}, 354: {3, false, false}, 421: {4, true, false}, 550: {5, false, true}, 0: {}} {
		r := Reply{Code: code}
		if got := (class{r.Class(), r.Temporary(), r.Permanent()}); got != want {
			t.Errorf("%d: %v", code, got)
		}
	}
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// FuzzRead holds Read to its promises whatever arrives, and to the same answer
// however the bytes are cut into pieces.
func FuzzRead(f *testing.F) {
	for _, seed := range []string{
		"250 ok\r\n", "250-a\r\n250 b\r\n", "250\n", "550 5.1.1 x\r\n", "250-a\r\n550 b\r\n", "2500\r\n",
		"250-\x00\xff\r\n250 \u202e\r\n", "421-4.3.2 a\r\n421-4.3.2 b\r\n421\r\n", "\r\n", "250 a\r\r\n", "250-", "354 go\n.\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		whole := bufio.NewReaderSize(strings.NewReader(string(in)), 1<<16)
		pieces := bufio.NewReaderSize(iotest.OneByteReader(strings.NewReader(string(in))), 16)
		for {
			r, err := Read(whole)
			r2, err2 := Read(pieces)
			if !reflect.DeepEqual(r, r2) || (err == nil) != (err2 == nil) {
				t.Fatalf("whole %v, %v; in pieces %v, %v", r, err, r2, err2)
			}
			if err != nil {
				if !printable(err.Error()) {
					t.Fatalf("error %q", err)
				}
				return
			}
			if r.Class() < 2 || r.Class() > 5 || len(r.Lines) == 0 || len(r.Lines) > MaxLines {
				t.Fatalf("reply %v", r)
			}
			if !r.Status.IsZero() && int(r.Status.Class) != r.Class() {
				t.Fatalf("status %v of a %d", r.Status, r.Code)
			}
			for _, line := range r.Lines {
				if !printable(line) {
					t.Fatalf("line %q", line)
				}
			}
			if text := r.Text(); !printable(text) || len(text) > MaxText {
				t.Fatalf("text %q", text)
			}
		}
	})
}

// What Read takes, Junk takes alike and finds no fault with; what it skips
// is bounded, and what follows the reply stays.
func FuzzJunk(f *testing.F) {
	for _, seed := range []string{
		"220 mx\r\n", "\r\n220 mx\r\n", "\xff\xfb\x01220 mx\r\n", "220-a\r\n250 b\r\n", "220\tmx\r\n", "250-a\r\nx\r\n250 b\r\n",
		"\xff\xfa\xff\xf0220 x\n", "220-\r\n\xff\xf1220\r\n", strings.Repeat("x\n", 20),
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReader(strings.NewReader(string(in)))
		var junk Junk
		got, err := junk.Read(br)
		want, strictErr := Read(bufio.NewReader(strings.NewReader(string(in))))
		if strictErr == nil && (err != nil || !reflect.DeepEqual(got, want) || junk.Lines > 0) {
			t.Fatalf("%q: %+v, %v, %v", in, got, err, &junk)
		}
		if err == nil && (got.Code < 200 || got.Code > 599 || len(got.Lines) > MaxLines || junk.Lines > MaxJunkLines || junk.bytes > MaxJunkBytes) {
			t.Fatalf("%q: %+v, %v", in, got, &junk)
		}
		if !printable(got.Text() + junk.First) {
			t.Fatalf("%q: %q, %q", in, got.Text(), junk.First)
		}
		if err != nil {
			return
		}
		before := br.Buffered()
		if err := junk.Skip(br); err == nil && br.Buffered() > before {
			t.Fatal("more than before")
		}
		brief, err := ReadBrief(bufio.NewReader(strings.NewReader(string(in))))
		if strictErr == nil && (err != nil || brief.Code != want.Code || len(strings.Join(brief.Lines, "")) > MaxText) {
			t.Fatalf("%q: %+v, %v", in, brief, err)
		}
	})
}

func BenchmarkRead(b *testing.B) {
	const in = "250 2.0.0 Ok: queued as 4XyZAbCdEf\r\n"
	src := strings.NewReader("")
	br := bufio.NewReader(src)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		src.Reset(in)
		br.Reset(src)
		if _, err := Read(br); err != nil {
			b.Fatal(err)
		}
	}
}

// Text says the same of a brief reply as of the whole one.
func TestReadBrief(t *testing.T) {
	for _, in := range []string{
		"250 ok\r\n", "550 " + strings.Repeat("x", 1990) + "\r\n", "550-5.1.1 " + strings.Repeat("é", 290) + "\r\n550-5.1.1 more\r\n550 5.1.1 and more\r\n",
		strings.Repeat("550-5.1.1 no\r\n", 99) + "550 5.1.1 end\r\n", strings.Repeat("450-\r\n", 99) + "450 x\r\n",
	} {
		whole, err := Read(reader(in))
		brief, err2 := ReadBrief(reader(in))
		if err != nil || err2 != nil || brief.Code != whole.Code || brief.Status != whole.Status || len(strings.Join(brief.Lines, "")) > MaxText {
			t.Errorf("%.30q: %+v, %v, %v", in, brief, err, err2)
		}
		if got, want := brief.Text(), whole.Text(); got != want && (!strings.HasSuffix(got, "...") || len(got) > MaxText || !strings.HasPrefix(want, strings.TrimSuffix(got, "..."))) {
			t.Errorf("%.30q: %q, whole %q", in, got, want)
		}
	}
}
