package dane_test

import (
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// BenchmarkVerify measures what DANE adds to a handshake: "3 1 1" is the usual
// record, "2 0 1" walks a path of three, and "mismatch" composes the error.
func BenchmarkVerify(b *testing.B) {
	a := newCA(b)
	root := a.root(a.ec(), "root")
	inter := a.issued(root, a.ec(), "inter")
	leaf := a.leaf(inter, a.ec())
	certs := chain(leaf, inter, root)
	r311 := rec(dane.DANEEE, dane.SPKI, dane.SHA256, leaf)
	for _, c := range []struct {
		name    string
		records records
		fails   bool
	}{
		{"3 1 1", records{r311}, false},
		{"2 0 1", records{rec(dane.DANETA, dane.Cert, dane.SHA256, root)}, false},
		{"mismatch", records{off(r311)}, true},
	} {
		b.Run(c.name, func(b *testing.B) {
			set, names := dane.NewSet(c.records), []string{host}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := set.Verify(certs, names, a.now); (err != nil) != c.fails {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewSet(b *testing.B) {
	given := records{digest(3, 1, 1, 1), digest(3, 1, 1, 2), digest(2, 0, 1, 3)}
	b.ReportAllocs()
	for b.Loop() {
		if !dane.NewSet(given).Usable() {
			b.Fatal("unusable")
		}
	}
}
