package store

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
)

var day = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func sample(domain, id string) Policy {
	return Policy{
		Domain: domain, ID: id, Fetched: day,
		Policy: mtasts.Policy{Mode: mtasts.ModeEnforce, MaxAge: 7 * 24 * time.Hour, MX: []string{"mx." + domain, "*.backup." + domain}},
	}
}

func mustLoad(t *testing.T, s Store, want Policy) {
	t.Helper()
	got, ok, err := s.Load(want.Domain)
	if err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("Load(%s) = %+v, %t, %v; want %+v", want.Domain, got, ok, err, want)
	}
}

func mustMiss(t *testing.T, s Store, domain string) {
	t.Helper()
	if got, ok, err := s.Load(domain); ok || err != nil {
		t.Errorf("Load(%s) = %+v, %t, %v; want nothing", domain, got, ok, err)
	}
}

// TestStores holds both stores to what Store promises.
func TestStores(t *testing.T) {
	for name, open := range map[string]func(t *testing.T) Store{
		"ram": func(*testing.T) Store { return NewRAM(1 << 20) },
		"fs":  func(t *testing.T) Store { return openFS(t, FSConfig{Dir: t.TempDir() + "/made/here"}) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			mustMiss(t, s, "example.org")
			if err := s.Remove("example.org"); err != nil {
				t.Errorf("removing what is not there: %v", err)
			}
			longest := strings.Repeat("a", 60) + strings.Repeat(".b", 92)
			if len(longest) != 244 {
				t.Fatal(len(longest))
			}
			for _, domain := range []string{"example.org", "xn--bcher-kva.example", longest} {
				want := sample(domain, "1")
				if err := s.Save(want); err != nil {
					t.Fatal(err)
				}
				mustLoad(t, s, want)
			}
			next := sample("example.org", "2")
			next.Policy = mtasts.Policy{Mode: mtasts.ModeTesting, MaxAge: 31557600 * time.Second, MX: []string{"other.test"}}
			if err := s.Save(next); err != nil {
				t.Fatal(err)
			}
			mustLoad(t, s, next)
			if got, err := s.Domains(); err != nil || !slices.Equal(got, []string{longest, "example.org", "xn--bcher-kva.example"}) {
				t.Errorf("Domains() = %v, %v", got, err)
			}
			if err := s.Remove("example.org"); err != nil {
				t.Error(err)
			}
			mustMiss(t, s, "example.org")
			mustLoad(t, s, sample("xn--bcher-kva.example", "1"))
		})
	}
}

func TestStoresAtTheSameTime(t *testing.T) {
	for name, s := range map[string]Store{
		"ram": NewRAM(1 << 20),
		"fs":  openFS(t, FSConfig{Dir: t.TempDir(), MaxFiles: 20}),
	} {
		t.Run(name, func(t *testing.T) {
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for i := range 30 {
						domain := fmt.Sprintf("d%d.example", i%5)
						if err := s.Save(sample(domain, fmt.Sprintf("w%di%d", w, i))); err != nil {
							t.Errorf("Save: %v", err)
						}
						// Whichever writer was last, the file is always whole.
						p, ok, err := s.Load(domain)
						if err != nil || ok && p.Domain != domain {
							t.Errorf("Load(%s) = %+v, %t, %v", domain, p, ok, err)
						}
						if i%10 == 9 {
							if err := s.Remove(domain); err != nil {
								t.Errorf("Remove: %v", err)
							}
						}
						if _, err := s.Domains(); err != nil {
							t.Errorf("Domains: %v", err)
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

func TestRAMForgetsWhatWasNotUsedForLongest(t *testing.T) {
	cost := sample("d0.example", "1").Cost()
	r := NewRAM(3 * cost)
	for i := range 3 {
		r.Save(sample(fmt.Sprintf("d%d.example", i), "1"))
	}
	mustLoad(t, r, sample("d0.example", "1"))
	r.Save(sample("d3.example", "1"))
	mustMiss(t, r, "d1.example")
	mustLoad(t, r, sample("d0.example", "1"))
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(sample("example.org", "1")))
	f.Add([]byte(formatLine))
	f.Add(append(encode(sample("a.example", "x")), '\n'))
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := decode(text)
		if err == nil {
			if string(encode(p)) != string(text) {
				t.Fatalf("two texts for one policy: %q", text)
			}
			return
		}
		// Give what the fuzzer found a right checksum, so that it gets past it.
		if resummed, ok := resum(text); ok {
			if p, err := decode(resummed); err == nil && (!canonical(p.Domain) || string(encode(p)) != string(resummed)) {
				t.Fatalf("accepted %q", resummed)
			}
		}
	})
}
