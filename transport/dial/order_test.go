package dial_test

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/dial"
)

func TestOrder(t *testing.T) {
	const v41, v42, v61, v62 = "192.0.2.1", "192.0.2.2", "2001:db8::1", "2001:db8::2"
	for _, tc := range []struct {
		addrs  []netip.Addr
		prefer dial.Family
		first  string
		want   string
	}{
		{addrs(v41, v42, v61, v62), dial.AnyFamily, "", "[2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2]"},
		{addrs(v41, v42, v61, v62), dial.IPv6, "", "[2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2]"},
		{addrs(v41, v42, v61, v62), dial.IPv4, "", "[192.0.2.1 2001:db8::1 192.0.2.2 2001:db8::2]"},
		{addrs(v41, v42, v61, v62), dial.AnyFamily, v42, "[192.0.2.2 2001:db8::1 192.0.2.1 2001:db8::2]"},
		{addrs(v41, v42, v61, v62), dial.AnyFamily, v62, "[2001:db8::2 192.0.2.1 2001:db8::1 192.0.2.2]"},
		{addrs(v41, v42, v61, v62), dial.IPv4, v62, "[2001:db8::2 192.0.2.1 2001:db8::1 192.0.2.2]"},
		{addrs(v41, v42, v61, v62), dial.IPv4, v42, "[192.0.2.2 2001:db8::1 192.0.2.1 2001:db8::2]"},
		{addrs(v41, v61), dial.AnyFamily, "::ffff:" + v41, "[192.0.2.1 2001:db8::1]"},
		// no longer listed
		{addrs(v41, v61), dial.AnyFamily, "192.0.2.99", "[2001:db8::1 192.0.2.1]"},
		{addrs(v41, v42), dial.IPv6, "", "[192.0.2.1 192.0.2.2]"},
		{addrs(v61, v62, v41), dial.IPv4, "", "[192.0.2.1 2001:db8::1 2001:db8::2]"},
		{addrs(v41, "::ffff:"+v41, v61, v61), dial.AnyFamily, v61, "[2001:db8::1 192.0.2.1]"},
		{[]netip.Addr{{}}, dial.AnyFamily, "", "[]"},
		{nil, dial.IPv4, v41, "[]"},
	} {
		var first netip.Addr
		if tc.first != "" {
			first = netip.MustParseAddr(tc.first)
		}
		before := fmt.Sprint(tc.addrs)
		if got := fmt.Sprint(dial.Order(tc.addrs, tc.prefer, first)); got != tc.want {
			t.Errorf("%v, %v preferred, first %s: %s, want %s", tc.addrs, tc.prefer, tc.first, got, tc.want)
		}
		if fmt.Sprint(tc.addrs) != before {
			t.Errorf("%s became %v", before, tc.addrs)
		}
	}
}

func TestHistory(t *testing.T) {
	now := time.Unix(1000, 0)
	h := dial.NewHistory(func() time.Time { return now })
	v4, v6 := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")
	first := func(want netip.Addr) {
		t.Helper()
		if got := h.First("a"); got != want {
			t.Fatalf("first %v, want %v", got, want)
		}
	}
	first(netip.Addr{})
	h.Worked("a", v4)
	first(v4)
	if h.First("b").IsValid() {
		t.Error("one host's address is another's")
	}
	h.Failed("a", v6)
	first(v4)
	now = now.Add(6 * time.Minute)
	h.Worked("a", v4) // which does not prolong it
	now = now.Add(4*time.Minute - 1)
	first(v4)
	now = now.Add(1)
	first(netip.Addr{})
	h.Worked("a", v4)
	h.Worked("a", v6)
	first(v6)
	h.Failed("a", v6)
	first(netip.Addr{})
	if h.Len() != 0 {
		t.Errorf("%d hosts", h.Len())
	}
	for i := range 10_001 {
		h.Worked(fmt.Sprint(i), v4)
	}
	if u := h.Usage(); u.Entries != 10_000 || u.Bytes < 256*10_000 || u.Bytes > u.MaxBytes || u.MaxBytes != 10_000*(256+261) {
		t.Errorf("%+v", u)
	}
	if h.Len() != 10_000 || h.First("0").IsValid() || !h.First("1").IsValid() || !h.First("10000").IsValid() {
		t.Errorf("%d hosts, the first %v, the last %v", h.Len(), h.First("0"), h.First("10000"))
	}
}
