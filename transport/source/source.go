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
// What is not usable is left out before the choice: a source that has no
// address of a family that the host has, that this machine cannot bind, whose
// messages of the day are used up (package comment of [Daily]), or that a
// receiver has asked to pause. What is left over goes to the others.
package source

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"net/netip"
)

// Source is one way to leave: an address of either family, and its name.
type Source struct {
	// IPs has at most one address of each family, and at least one.
	IPs []netip.Addr
	// Hostname is the name in EHLO; empty: the transport's.
	Hostname string
	// Weight is its share among the others; 0 counts as 1.
	Weight int
	// Daily is how many messages it may send on one UTC day; 0: no bound.
	Daily int
}

// Name stands for the source in logs, status and the file of daily counts:
// its first address.
func (s *Source) Name() string {
	if len(s.IPs) == 0 {
		return ""
	}
	return s.IPs[0].String()
}

// By is what keeps its source.
type By uint8

// The kinds of key. The zero By is the sender's domain.
const (
	BySender      By = iota // the sender's domain
	ByDestination           // the recipient's domain
	ByMessage               // each message by itself
)

var byWords = [...]string{"sender", "destination", "message"}

// String is the word of the configuration.
func (b By) String() string { return byWords[b] }

// ParseBy reads the word of the configuration.
func ParseBy(word string) (By, bool) {
	for i, w := range byWords {
		if w == word {
			return By(i), true
		}
	}
	return 0, false
}

// Pick gives the index of the source for a key among those that usable says
// yes to, or -1 when there is none. usable is asked at most once for each
// source; nil: all are.
func Pick(pool []Source, key string, usable func(i int) bool) int {
	best, most := -1, math.Inf(-1)
	for i := range pool {
		if usable != nil && !usable(i) {
			continue
		}
		if s := score(&pool[i], key); s > most {
			best, most = i, s
		}
	}
	return best
}

// score is -w/ln(u) for a u in (0,1) that depends on the source and the key
// alone: the source with the highest one wins with a chance of its weight
// over the sum of weights.
func score(s *Source, key string) float64 {
	h := sha256.New()
	h.Write([]byte(s.Name()))
	h.Write([]byte{0})
	h.Write([]byte(key))
	var sum [sha256.Size]byte
	bits := binary.BigEndian.Uint64(h.Sum(sum[:0])) >> 11 // 53, as a float64 holds
	u := (float64(bits) + 0.5) / (1 << 53)
	return -float64(max(s.Weight, 1)) / math.Log(u)
}
