package dane_test

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	mathrand "math/rand/v2"
	"slices"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// digest makes a record whose data starts with a number, as records of keys
// that no server has.
func digest(u dane.Usage, s dane.Selector, m dane.Matching, n int) dane.Record {
	size := map[dane.Matching]int{dane.SHA256: 32, dane.SHA512: 64}[m]
	data := make([]byte, size)
	binary.BigEndian.PutUint32(data, uint32(n))
	return dane.Record{Usage: u, Selector: s, Matching: m, Data: data}
}

// TestAgility is about which records count (RFC 7671 §9).
func TestAgility(t *testing.T) {
	a := newCA(t)
	p := a.leaf(party{}, a.ec())
	full := rec(dane.DANEEE, dane.SPKI, dane.Full, p)
	for _, c := range []struct {
		name  string
		given []dane.Record
		count []dane.Record // by their place in the set's order
		aside []dane.Reason
	}{
		{"nothing", nil, nil, nil},
		{"one", records{digest(3, 1, 1, 1)}, records{digest(3, 1, 1, 1)}, nil},
		{"stronger wins", records{digest(3, 1, 1, 1), digest(3, 1, 2, 1)}, records{digest(3, 1, 2, 1)}, []dane.Reason{dane.ReasonWeaker}},
		{"every weaker one goes", records{digest(3, 1, 1, 1), digest(3, 1, 2, 1), digest(3, 1, 1, 2)}, records{digest(3, 1, 2, 1)}, []dane.Reason{dane.ReasonWeaker, dane.ReasonWeaker}},
		{"full always counts", records{full, digest(3, 1, 1, 1), digest(3, 1, 2, 1)}, records{full, digest(3, 1, 2, 1)}, []dane.Reason{dane.ReasonWeaker}},
		{"full is no digest", records{full, digest(3, 1, 1, 1)}, records{full, digest(3, 1, 1, 1)}, nil},
		{"selectors apart", records{digest(3, 0, 2, 1), digest(3, 1, 1, 1)}, records{digest(3, 0, 2, 1), digest(3, 1, 1, 1)}, nil},
		{"usages apart", records{digest(2, 1, 2, 1), digest(3, 1, 1, 1)}, records{digest(3, 1, 1, 1), digest(2, 1, 2, 1)}, nil},
		{"malformed first", records{cut(digest(3, 1, 2, 1)), digest(3, 1, 1, 1)}, records{digest(3, 1, 1, 1)}, []dane.Reason{dane.ReasonLength}},
		{"unusable usage first", records{digest(1, 1, 2, 1), digest(3, 1, 1, 1)}, records{digest(3, 1, 1, 1)}, []dane.Reason{dane.ReasonUsage}},
		{"doubles", records{digest(3, 1, 1, 1), digest(3, 1, 1, 1)}, records{digest(3, 1, 1, 1)}, nil},
		{"none usable", records{digest(0, 0, 1, 1), digest(1, 1, 1, 1)}, nil, []dane.Reason{dane.ReasonUsage, dane.ReasonUsage}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := dane.NewSet(c.given)
			same := func(a, b dane.Record) bool { return a.String() == b.String() }
			if got := s.Records(); !slices.EqualFunc(got, c.count, same) {
				t.Errorf("records that count: %v, want %v", got, c.count)
			}
			var reasons []dane.Reason
			for _, u := range s.Unusable() {
				reasons = append(reasons, u.Reason)
			}
			if !slices.Equal(reasons, c.aside) {
				t.Errorf("put aside because %v, want %v", reasons, c.aside)
			}
			if s.Usable() != (len(c.count) > 0) || (s.Fingerprint() == "") == s.Usable() {
				t.Errorf("usable %v, fingerprint %q", s.Usable(), s.Fingerprint())
			}
		})
	}
}

func TestFingerprint(t *testing.T) {
	base := records{digest(3, 1, 1, 1), digest(3, 1, 1, 2), digest(2, 0, 2, 3)}
	want := dane.NewSet(base).Fingerprint()
	for name, same := range map[string]records{
		"another order":       {base[2], base[1], base[0]},
		"a double":            {base[0], base[1], base[2], base[0]},
		"an unusable one":     {base[0], base[1], base[2], digest(1, 1, 1, 9)},
		"a weaker one beside": {base[0], base[1], base[2], digest(2, 0, 1, 9)},
	} {
		if got := dane.NewSet(same).Fingerprint(); got != want {
			t.Errorf("%s changes the fingerprint", name)
		}
	}
	seen := map[string]string{want: "the set itself"}
	for name, other := range map[string]records{
		"one fewer":       base[:2],
		"one more":        {base[0], base[1], base[2], digest(3, 1, 1, 4)},
		"another usage":   {base[0], base[1], digest(3, 0, 2, 3)},
		"other selector":  {base[0], base[1], digest(2, 1, 2, 3)},
		"one byte off":    {base[0], base[1], off(base[2])},
		"another digest":  {base[0], base[1], digest(2, 0, 1, 3)},
		"an empty set":    {},
		"only the weaker": {digest(2, 0, 1, 3)},
	} {
		got := dane.NewSet(other).Fingerprint()
		if seen[got] != "" {
			t.Errorf("%s has the fingerprint of %s", name, seen[got])
		}
		seen[got] = name
	}
}

// TestFlood asserts that a flood of records neither switches DANE off nor
// depends on the order in which DNS gave them.
func TestFlood(t *testing.T) {
	a := newCA(t)
	p := a.leaf(party{}, a.ec())
	var flood records
	for n := range 5000 {
		flood = append(flood, digest(3, 1, 1, n))
	}
	first := dane.NewSet(flood)
	if !first.Usable() || len(first.Records()) != 64 || len(first.Unusable()) != 64 {
		t.Fatalf("usable %v, %d records, %d put aside", first.Usable(), len(first.Records()), len(first.Unusable()))
	}
	for _, u := range first.Unusable() {
		if u.Reason != dane.ReasonSurplus {
			t.Fatalf("%v put aside because %v", u.Record, u.Reason)
		}
	}
	mathrand.Shuffle(len(flood), func(i, j int) { flood[i], flood[j] = flood[j], flood[i] })
	if dane.NewSet(flood).Fingerprint() != first.Fingerprint() {
		t.Error("the order of the records decides which of them count")
	}
	if _, err := first.Verify(chain(p), []string{host}, a.now); !errors.Is(err, dane.ErrNoMatch) {
		t.Errorf("got %v, want a mismatch", err)
	}

	// Unusable records, however many, do not displace a usable one.
	match := rec(dane.DANEEE, dane.SPKI, dane.SHA256, p)
	var junk records
	for n := range 5000 {
		junk = append(junk, digest(1, 1, 1, n))
	}
	if _, err := dane.NewSet(append(junk, match)).Verify(chain(p), nil, a.now); err != nil {
		t.Errorf("a usable record after unusable ones: %v", err)
	}
	// Nor does a flood of weaker digests revive when it displaces stronger
	// ones: agility comes before the bound.
	strong := records{match}
	for n := range 5000 {
		strong = append(strong, digest(3, 1, 2, n))
	}
	if _, err := dane.NewSet(strong).Verify(chain(p), nil, a.now); !errors.Is(err, dane.ErrNoMatch) {
		t.Errorf("a weaker digest after a flood of stronger ones: got %v", err)
	}
}

// TestManyKeys asserts that signature checks by bare keys are bounded, and that
// running out of them fails instead of passing.
func TestManyKeys(t *testing.T) {
	a := newCA(t)
	var roots []party
	var keys records
	for range 64 {
		roots = append(roots, a.root(a.ec(), "root"))
	}
	spki := func(p party) []byte { return p.cert.RawSubjectPublicKeyInfo }
	slices.SortFunc(roots, func(a, b party) int { return bytes.Compare(spki(a), spki(b)) })
	for _, r := range roots {
		keys = append(keys, rec(dane.DANETA, dane.SPKI, dane.Full, r))
	}
	set := dane.NewSet(keys)
	for _, c := range []struct {
		name   string
		signer party
		want   error
	}{
		{"the first of many keys", roots[0], nil},
		{"the last of many keys", roots[len(roots)-1], dane.ErrNoMatch},
	} {
		server := servers{a.leaf(c.signer, a.ec())}
		for range 31 {
			server = append(server, a.issued(c.signer, a.ec(), "another"))
		}
		if _, err := set.Verify(chain(server...), []string{host}, a.now); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if _, err := set.Verify(chain(server[0]), []string{host}, a.now); err != nil {
			t.Errorf("%s, a short chain: %v", c.name, err)
		}
	}
}

// TestMaze asserts that a chain made to have as many paths as possible ends in
// an error, or in a match where one lies near.
func TestMaze(t *testing.T) {
	a := newCA(t)
	root, lost := a.root(a.ec(), "same"), a.root(a.ec(), "same")
	maze := servers{a.leaf(root, a.ec(), cn("server"))}
	for range 30 {
		// Same name, same key, each issued by each: only the SAN differs.
		maze = append(maze, a.issued(root, root.key, "same", dnsID(rand.Text()+".test")))
	}
	wrong := dane.NewSet(records{rec(dane.DANETA, dane.Cert, dane.SHA256, lost)})
	if _, err := wrong.Verify(chain(append(maze, lost)...), []string{host}, a.now); !errors.Is(err, dane.ErrPath) {
		t.Errorf("an anchor that signed nothing: got %v, want %v", err, dane.ErrPath)
	}
	near := dane.NewSet(records{rec(dane.DANETA, dane.Cert, dane.SHA256, root)})
	if _, err := near.Verify(chain(append(maze, root)...), []string{host}, a.now); err != nil {
		t.Errorf("the anchor that signed it: %v", err)
	}
}
