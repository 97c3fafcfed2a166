package dial

import (
	"net/netip"
	"slices"
)

// Family is a preference among the families of addresses.
type Family uint8

// The preferences. RFC 8305 §4 has IPv6 first where nothing else is said.
const (
	AnyFamily Family = iota
	IPv4
	IPv6
)

// String gives the word of the configuration.
func (f Family) String() string {
	switch f {
	case IPv4:
		return "ipv4"
	case IPv6:
		return "ipv6"
	}
	return "any"
}

// Order puts a host's addresses into the order in which they are dialled. first
// is the one that worked last, when others did not; it is not valid where
// none is known, and counts only if it is among the addresses. Then the
// families take turns (RFC 8305 §4), the preferred one before the other unless
// first has had its turn; within a family the order stays. Repetitions and what
// is no address are left out.
func Order(addrs []netip.Addr, prefer Family, first netip.Addr) []netip.Addr {
	var v6, v4 []netip.Addr
	for _, a := range addrs {
		a = a.Unmap()
		switch {
		case a.Is4() && !slices.Contains(v4, a):
			v4 = append(v4, a)
		case a.Is6() && !slices.Contains(v6, a):
			v6 = append(v6, a)
		}
	}
	turn, other := v6, v4
	if prefer == IPv4 {
		turn, other = v4, v6
	}
	order := make([]netip.Addr, 0, len(v4)+len(v6))
	if first = first.Unmap(); slices.Contains(other, first) {
		turn, other = other, turn
	}
	if i := slices.Index(turn, first); i >= 0 {
		turn = slices.Insert(slices.Delete(turn, i, i+1), 0, first)
	}
	for i := range max(len(turn), len(other)) {
		if i < len(turn) {
			order = append(order, turn[i])
		}
		if i < len(other) {
			order = append(order, other[i])
		}
	}
	return order
}
