package smtpconn

import (
	"bytes"
	"strings"
	"testing"
)

func TestUnstuffer(t *testing.T) {
	tests := []struct {
		name, in, text, rest string
		done                 bool
	}{
		{"RFC 5321 §4.1.1.4: the dot line ends the body", "a\r\n.\r\nQUIT\r\n", "a\r\n", "QUIT\r\n", true},
		{"an empty body", ".\r\n", "", "", true},
		{"RFC 5321 §4.5.2: a doubled dot is one", "..\r\n..a\r\n.\r\n", ".\r\n.a\r\n", "", true},
		{"RFC 5321 §4.5.2: a single dot before text goes away", ".a\r\n.\r\n", "a\r\n", "", true},
		{"a dot in the middle stays", "a.b\r\n.\r\n", "a.b\r\n", "", true},
		{"LF.LF ends nothing", "a\n.\nb\r\n.\r\n", "a\n.\nb\r\n", "", true},
		{"LF.CRLF ends nothing", "a\n.\r\nb\r\n.\r\n", "a\n.\r\nb\r\n", "", true},
		{"CR.CR ends nothing", "a\r.\rb\r\n.\r\n", "a\r.\rb\r\n", "", true},
		{"CRLF.LF ends nothing", "a\r\n.\nb\r\n.\r\n", "a\r\n\nb\r\n", "", true},
		{"CRLF.CR ends nothing", "a\r\n.\rb\r\n.\r\n", "a\r\n\rb\r\n", "", true},
		{"CRCRLF.CRLF ends: the second CR makes the CRLF", "a\r\r\n.\r\n", "a\r\r\n", "", true},
		{"CRLF.CRCRLF ends nothing", "a\r\n.\r\r\n.\r\n", "a\r\n\r\r\n", "", true},
		{"unfinished", "a\r\n.\r", "a\r\n", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var u Unstuffer
			used, done := u.Feed([]byte(tt.in))
			if string(u.Text) != tt.text || done != tt.done || tt.in[used:] != tt.rest {
				t.Errorf("got %q, done %v, rest %q", u.Text, done, tt.in[used:])
			}
		})
	}
}

func TestUnstufferBound(t *testing.T) {
	u := Unstuffer{Max: 3}
	if _, done := u.Feed([]byte("abcdef\r\n.\r\n")); !done || !u.Long || string(u.Text) != "abc" {
		t.Errorf("got %q, long %v, done %v", u.Text, u.Long, done)
	}
}

// FuzzUnstuffer holds the state machine against the definition in words: the
// body ends at the first CRLF.CRLF, and each line that begins with a dot loses
// it.
func FuzzUnstuffer(f *testing.F) {
	for _, s := range []string{"", ".\r\n", "a\r\n.\r\n", "..\r\n.\r\n", "a\n.\r\n", "\r\r\n.\r\nx", "\r\n.\r\r\n.\r\n"} {
		f.Add([]byte(s), uint8(1))
	}
	f.Fuzz(func(t *testing.T, in []byte, step uint8) {
		var u Unstuffer
		used, done := 0, false
		for rest := in; len(rest) > 0 && !done; rest = in[used:] {
			n, end := u.Feed(rest[:min(len(rest), int(step)+1)])
			used, done = used+n, end
		}
		whole := "\r\n" + string(in)
		end := strings.Index(whole, "\r\n.\r\n")
		if done != (end >= 0) {
			t.Fatalf("done %v, the end is at %d", done, end)
		}
		if !done {
			return
		}
		if want := end + len(".\r\n"); used != want {
			t.Errorf("used %d bytes of %d", used, want)
		}
		want := strings.ReplaceAll(whole[:end+2], "\r\n.", "\r\n")[2:]
		if !bytes.Equal(u.Text, []byte(want)) {
			t.Errorf("got %q, want %q", u.Text, want)
		}
	})
}
