package netstring

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

const most = 20

// read reads all strings of an input.
func read(r io.Reader) (list []string, err error) {
	in := NewReader(r, most)
	for {
		s, err := in.Next()
		if err != nil {
			if _, again := in.Next(); !errors.Is(again, err) {
				return list, errors.New("the error did not stay")
			}
			return list, err
		}
		list = append(list, string(s))
	}
}

func TestReader(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want string // the strings, each followed by a bar
		err  error
	}{
		{"", "", io.EOF},
		{"0:,", "|", io.EOF},
		{"5:hello,", "hello|", io.EOF},
		{"5:hello,6: world,0:,", "hello| world||", io.EOF},
		{"3:a,b,1:\n,4:\x00\xff:,,", "a,b|\n|\x00\xff:,|", io.EOF},
		{"20:" + strings.Repeat("x", 20) + ",", strings.Repeat("x", 20) + "|", io.EOF},
		{"21:" + strings.Repeat("x", 21) + ",", "", ErrTooLong},
		{"1:a,99999999999999999999999999:", "a|", ErrTooLong},
		{"5:hello", "", io.ErrUnexpectedEOF},
		{"5:hell", "", io.ErrUnexpectedEOF},
		{"5:", "", io.ErrUnexpectedEOF},
		{"5", "", io.ErrUnexpectedEOF},
		{"1:a,5", "a|", io.ErrUnexpectedEOF},
		{"5:hello;", "", ErrMalformed},
		{"5:hello\n,", "", ErrMalformed},
		{"05:hello,", "", ErrMalformed},
		{"00:,", "", ErrMalformed},
		{":,", "", ErrMalformed},
		{"+5:hello,", "", ErrMalformed},
		{"-1:,", "", ErrMalformed},
		{" 5:hello,", "", ErrMalformed},
		{"5 :hello,", "", ErrMalformed},
		{"1:a,\n1:b,", "a|", ErrMalformed},
		{"GET / HTTP/1.1\r\n", "", ErrMalformed},
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(tt.in), "byte by byte": iotest.OneByteReader(strings.NewReader(tt.in))} {
			list, err := read(r)
			got := strings.Join(append(list, ""), "|")
			if got != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("%q %s: %q, %v; want %q, %v", tt.in, name, got, err, tt.want, tt.err)
			}
		}
	}
}

// What is too long is refused by its length alone.
func TestTooLongIsNotWaitedFor(t *testing.T) {
	in := NewReader(io.MultiReader(strings.NewReader("21"), iotest.ErrReader(errors.New("it read on"))), most)
	if _, err := in.Next(); !errors.Is(err, ErrTooLong) {
		t.Error(err)
	}
}

func TestErrorOfTheInput(t *testing.T) {
	for _, in := range []string{"", "1", "1:", "1:a"} {
		if _, err := read(io.MultiReader(strings.NewReader(in), iotest.ErrReader(iotest.ErrTimeout))); !errors.Is(err, iotest.ErrTimeout) {
			t.Errorf("%q: %v", in, err)
		}
	}
}

func TestBuffered(t *testing.T) {
	in := NewReader(strings.NewReader("1:a,1:b,"), most)
	for _, want := range []bool{true, false} {
		if _, err := in.Next(); err != nil || in.Buffered() != want {
			t.Error(err, in.Buffered())
		}
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{"5:hello,", "0:,", "1:a,1:b,", "05:hello,", "5:hello", "21:x", "3:a,b,7", "99999999999999999999:"} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		list, err := read(bytes.NewReader(in))
		slow, slowErr := read(iotest.OneByteReader(bytes.NewReader(in)))
		if strings.Join(list, "|") != strings.Join(slow, "|") || !errors.Is(slowErr, err) {
			t.Fatalf("%q: %q, %v at once, and %q, %v byte by byte", in, list, err, slow, slowErr)
		}
		// What was read is what stands there, and written again it is the same.
		var again []byte
		for _, s := range list {
			if len(s) > most {
				t.Fatalf("%q: a string of %d bytes", in, len(s))
			}
			again = Append(again, s)
		}
		if !bytes.HasPrefix(in, again) || errors.Is(err, io.EOF) && len(again) != len(in) {
			t.Fatalf("%q: read as %q, written as %q, %v", in, list, again, err)
		}
	})
}
