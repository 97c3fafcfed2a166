package message

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzCanonicalizer(f *testing.F) {
	for _, seed := range []string{
		"A: b\n\nc\n", "a\r\n.\r\n", "\r\r\n\n.\r", "MAIL\nma\ril", "\xff\n\n\x80", strings.Repeat("x", 1000) + "\n.",
	} {
		f.Add([]byte(seed), 3, uint16(2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int, repeat uint16) {
		// Long lines are out of a fuzzer's reach without help.
		in = bytes.Repeat(in, 1+int(repeat)%64)
		if len(in) > 1<<12 {
			in = in[:1<<12]
		}
		whole, facts := canonical(t, string(in))
		check(t, "", whole)
		if want := naive(string(in)); whole != want {
			t.Fatalf("%q: got %q, want %q", in, whole, want)
		}
		want := naiveFacts(whole)
		want.Folds, want.StrayCRs = facts.Folds, facts.StrayCRs
		if facts != want {
			t.Fatalf("%q: facts %+v, want %+v", in, facts, want)
		}
		step := max(1, cut%2000)
		var pieces []string
		for rest := string(in); rest != ""; {
			n := min(step, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if got, f := canonical(t, pieces...); got != whole || f != facts {
			t.Fatalf("%q in pieces of %d differs", in, step)
		}
		again, f2 := canonical(t, whole)
		if again != whole || f2.Folds != 0 || f2.StrayCRs != 0 {
			t.Fatalf("%q: the canonical form is not its own", in)
		}
	})
}

func FuzzDotWriter(f *testing.F) {
	for _, seed := range []string{"a\n.\n", ".", "..\r\n.", "\n\n.\n.\n"} {
		f.Add([]byte(seed), 1)
	}
	f.Fuzz(func(t *testing.T, in []byte, cut int) {
		out, _ := canonical(t, string(in))
		data := dotted(t, out)
		checkDots(t, out, data)
		step := max(1, cut%100)
		var pieces []string
		for rest := out; rest != ""; {
			n := min(step, len(rest))
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if dotted(t, pieces...) != data {
			t.Fatalf("%q in pieces of %d differs", out, step)
		}
	})
}
