// Package source chooses the address that a message leaves from, out of a
// pool. Each address has its own reputation at every large receiver, so that
// what keeps one (a sender's domain, a destination, or each message by itself)
// should keep it: the same key gets the same source as long as that is usable.
//
// The choice is by weighted rendezvous hashing: each source has a score for
// the key, and the highest score wins. A source that is added or taken away
// therefore moves only the keys that it wins or loses, in proportion to its
// weight, and nothing needs to be remembered.
//
// What is not usable is left out, and the next best has the message: a source
// that has no address of a family that the host has, that this host cannot
// bind, that a receiver has asked to pause, or whose messages of the day are
// used up ([Daily]). When none is left the message waits with the mail server:
// [None] says why. A source is asked for again a second later, so that an
// address that comes back needs nobody's help.
//
// The choice itself is pure; [Pool] adds what is known of each source now.
package source

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/netip"
	"slices"
)

// MaxPool is how many sources a pool has at most.
const MaxPool = 1000

// MaxWeight is the largest weight of a source.
const MaxWeight = 10_000

// Config is a pool of sources (sources). It is not changed once used.
type Config struct {
	By   By
	Pool []Source
}

// Source is one way to leave: an address of either family, and its name.
type Source struct {
	// IPs has one address, or one of each family.
	IPs []netip.Addr
	// Hostname is the name in EHLO; empty: the transport's.
	Hostname string
	// Weight is its share among the others; 0 counts as 1.
	Weight int
	// Daily is how many messages it may send on one UTC day; 0: no bound.
	Daily int
}

// Name stands for the source in the choice, in status and in the file of daily
// counts: its IPv4 address, or its IPv6 address where it has no other.
func (s *Source) Name() string {
	name := netip.Addr{}
	for _, ip := range s.IPs {
		if !name.IsValid() || ip.Is4() {
			name = ip
		}
	}
	if !name.IsValid() {
		return ""
	}
	return name.String()
}

// Addrs are the addresses of all sources.
func (c *Config) Addrs() (all []netip.Addr) {
	if c == nil {
		return nil
	}
	for i := range c.Pool {
		all = append(all, c.Pool[i].IPs...)
	}
	return all
}

// Hostnames are the names of all sources that have their own, each once.
func (c *Config) Hostnames() (all []string) {
	if c == nil {
		return nil
	}
	for i := range c.Pool {
		if name := c.Pool[i].Hostname; name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

// By is what keeps its source.
type By uint8

// The kinds of key. The zero By is the sender's domain.
const (
	BySender      By = iota // the sender's domain
	ByDestination           // the recipient's domain, or the next hop
	ByMessage               // each message by itself
)

// String is the word of the configuration.
func (b By) String() string { return [...]string{"sender", "destination", "message"}[b] }

// Key gives the key of a message: its sender's domain, its destination, or
// its own name. The null sender has no domain; its messages keep to their
// destination's source, so that bounces do not all leave by one.
func (b By) Key(sender, destination, message string) string {
	switch b {
	case ByDestination:
		return destination
	case ByMessage:
		return message
	}
	return cmp.Or(sender, destination)
}

// scored is a source's chance at a key.
type scored struct {
	index int
	score float64
}

// rank calls try with the index of one source after another, the one with the
// highest score for a key first, until it says yes. hashes and weights are
// those of the sources.
func rank(hashes []uint64, weights []int, key string, try func(i int) bool) bool {
	at := hash(key)
	order := make([]scored, len(hashes))
	best := 0
	for i := range hashes {
		order[i] = scored{i, score(mix(hashes[i]^at), weights[i])}
		if order[i].score > order[best].score {
			best = i
		}
	}
	if len(order) == 0 {
		return false
	}
	// The first is the answer nearly always; the others need not be sorted
	// then.
	if try(best) {
		return true
	}
	slices.SortFunc(order, func(a, b scored) int { return cmp.Or(cmp.Compare(b.score, a.score), cmp.Compare(a.index, b.index)) })
	for _, s := range order {
		if s.index != best && try(s.index) {
			return true
		}
	}
	return false
}

// score is -w/ln(u) for a u in (0,1) that depends on the source and the key
// alone: the source with the highest one wins with a chance of its weight
// over the sum of weights.
func score(h uint64, weight int) float64 {
	u := (float64(h>>11) + 0.5) / (1 << 53) // 53 bits, as a float64 holds
	return -float64(max(weight, 1)) / math.Log(u)
}

// hash is the same on every host and in every version, so that keys keep their
// sources over a restart.
func hash(text string) uint64 {
	sum := sha256.Sum256([]byte(text))
	return binary.BigEndian.Uint64(sum[:])
}

// mix spreads every bit of x over all bits (the finalizer of SplitMix64).
func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}
