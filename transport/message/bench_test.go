package message

import (
	"io"
	"strings"
	"testing"
)

func TestNoAllocations(t *testing.T) {
	in := []byte(strings.Repeat("a line of mail\r\n.\n\r\xff", 100))
	c := NewCanonicalizer(io.Discard)
	d := NewDotWriter(io.Discard)
	if n := testing.AllocsPerRun(100, func() { c.Write(in) }); n != 0 {
		t.Errorf("Canonicalizer.Write: %v allocations", n)
	}
	if n := testing.AllocsPerRun(100, func() { d.Write(in) }); n != 0 {
		t.Errorf("DotWriter.Write: %v allocations", n)
	}
}

func benchmarkInput(end string) []byte {
	line := "The quick brown fox jumps over the lazy dog, and then does it again, " + end
	return []byte(strings.Repeat(line, (64<<10)/len(line)))
}

func BenchmarkCanonicalizer(b *testing.B) {
	for name, end := range map[string]string{"LF": "\n", "CRLF": "\r\n"} {
		b.Run(name, func(b *testing.B) {
			in := benchmarkInput(end)
			c := NewCanonicalizer(io.Discard)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				c.Write(in)
			}
		})
	}
}

func BenchmarkDotWriter(b *testing.B) {
	for name, end := range map[string]string{"few": "\r\n", "each line": "\r\n."} {
		b.Run(name, func(b *testing.B) {
			in := benchmarkInput(end)
			d := NewDotWriter(io.Discard)
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				d.Write(in)
			}
		})
	}
}

// BenchmarkCopy is the measure for the two above.
func BenchmarkCopy(b *testing.B) {
	in := benchmarkInput("\r\n")
	buf := make([]byte, len(in))
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		copy(buf, in)
	}
}
