package store

import (
	"fmt"
	"os"
	"testing"
)

// BenchmarkStart shows what a start costs with many policies on disk: opening
// the store and loading the first policy reads no other.
func BenchmarkStart(b *testing.B) {
	for _, files := range []int{1, 10_000} {
		b.Run(fmt.Sprint(files), func(b *testing.B) {
			dir := b.TempDir()
			for i := range files {
				p := sample(fmt.Sprintf("d%d.example", i), "1")
				if err := os.WriteFile(dir+"/"+p.Domain+suffix, encode(p), 0o600); err != nil {
					b.Fatal(err)
				}
			}
			for b.Loop() {
				f, err := NewFS(FSConfig{Dir: dir})
				if err != nil {
					b.Fatal(err)
				}
				if _, ok, err := f.Load("d0.example"); !ok || err != nil {
					b.Fatal(ok, err)
				}
			}
		})
	}
}
