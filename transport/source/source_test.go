package source

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"testing"
)

// weighted makes as many sources as there are weights.
func weighted(weights ...int) *Config {
	c := &Config{}
	for i, w := range weights {
		c.Pool = append(c.Pool, Source{IPs: []netip.Addr{netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)})}, Weight: w})
	}
	return c
}

// everywhere makes a Pool on a host that has every address.
func everywhere(c *Config) *Pool {
	return New(c, Options{Bind: func(netip.Addr) error { return nil }})
}

// chosen gives the name of the source for a key.
func chosen(t *testing.T, p *Pool, key string, not ...string) string {
	t.Helper()
	c, err := p.Take(&Want{Key: key, Not: not})
	if err != nil {
		t.Fatal(err)
	}
	return c.Name
}

// Each source gets its share of the keys within 5 %, whatever the keys are.
func TestWeights(t *testing.T) {
	const n = 20_000
	for _, tt := range []struct {
		weights []int
		key     string
	}{
		{[]int{3, 1, 0, 5}, "domain%d.example"},
		{[]int{1, 1}, "%d"},
		{[]int{100, 300}, "sender-%d.test"},
		{[]int{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, "4XyZ%d"},
	} {
		p := everywhere(weighted(tt.weights...))
		got := map[string]int{}
		for i := range n {
			got[chosen(t, p, fmt.Sprintf(tt.key, i))]++
		}
		sum := 0
		for _, w := range tt.weights {
			sum += max(w, 1)
		}
		for i, w := range tt.weights {
			share := float64(max(w, 1)) / float64(sum)
			if f := float64(got[p.all[i].name]) / n; math.Abs(f-share) > share*0.05 {
				t.Errorf("%v, source %d: %.4f of all, want %.4f", tt.weights, i, f, share)
			}
		}
	}
}

// A key keeps its source. One that is added takes keys from the others, and
// moves none between them; one that goes moves its own alone.
func TestSticky(t *testing.T) {
	const n = 10_000
	three, four := everywhere(weighted(1, 1, 1)), everywhere(weighted(1, 1, 1, 1))
	last, moved := four.all[3].name, 0
	for i := range n {
		key := fmt.Sprintf("domain%d.example", i)
		before, after := chosen(t, three, key), chosen(t, four, key)
		if before != chosen(t, three, key) {
			t.Fatal("a key changed its source")
		}
		if before != after {
			if moved++; after != last {
				t.Fatalf("%s moved from %s to %s", key, before, after)
			}
		}
		if without := chosen(t, four, key, last); without != before {
			t.Fatalf("%s: %s without the fourth, %s before it", key, without, before)
		}
	}
	if f := float64(moved) / n; math.Abs(f-0.25) > 0.0125 {
		t.Errorf("%.4f of the keys moved, want a quarter", f)
	}
}

// The choice depends on nothing but key and source, so that it outlives a
// restart and the order of the configuration. These are the choices of every
// version.
func TestChoiceIsFixed(t *testing.T) {
	c := weighted(1, 2, 3)
	slices.Reverse(c.Pool)
	one, other := everywhere(weighted(1, 2, 3)), everywhere(c)
	var got []string
	for _, key := range []string{"a.example", "b.example", "c.example", "d.example", ""} {
		name := chosen(t, one, key)
		if name != chosen(t, other, key) {
			t.Errorf("%s: the order of the configuration counts", key)
		}
		got = append(got, name)
	}
	if want := []string{"192.0.2.3", "192.0.2.3", "192.0.2.3", "192.0.2.2", "192.0.2.1"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestKey(t *testing.T) {
	for _, tt := range []struct {
		by          By
		sender, out string
	}{
		{BySender, "s.example", "s.example"},
		{BySender, "", "d.example"}, // bounces do not all leave by one
		{ByDestination, "s.example", "d.example"},
		{ByMessage, "s.example", "4XyZ"},
	} {
		if got := tt.by.Key(tt.sender, "d.example", "4XyZ"); got != tt.out {
			t.Errorf("%v %q: %q", tt.by, tt.sender, got)
		}
	}
}

func TestNames(t *testing.T) {
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	for _, tt := range []struct {
		ips  []netip.Addr
		want string
	}{{[]netip.Addr{v4}, "192.0.2.1"}, {[]netip.Addr{v6}, "2001:db8::1"}, {[]netip.Addr{v6, v4}, "192.0.2.1"}, {nil, ""}} {
		if got := (&Source{IPs: tt.ips}).Name(); got != tt.want {
			t.Errorf("%v: %q", tt.ips, got)
		}
	}
	c := &Config{Pool: []Source{{IPs: []netip.Addr{v4}, Hostname: "a.example"}, {IPs: []netip.Addr{v6}}, {Hostname: "a.example"}}}
	if got := c.Hostnames(); !slices.Equal(got, []string{"a.example"}) {
		t.Error(got)
	}
	if got := c.Addrs(); !slices.Equal(got, []netip.Addr{v4, v6}) {
		t.Error(got)
	}
	var none *Config
	if none.Addrs() != nil || none.Hostnames() != nil {
		t.Error("no pool has addresses")
	}
}

// A thousand sources are chosen from in well under a millisecond.
func BenchmarkThousand(b *testing.B) {
	c := &Config{}
	for i := range MaxPool {
		c.Pool = append(c.Pool, Source{IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	p := everywhere(c)
	for i := 0; b.Loop(); i++ {
		if _, err := p.Take(&Want{Key: fmt.Sprint(i)}); err != nil {
			b.Fatal(err)
		}
	}
}
