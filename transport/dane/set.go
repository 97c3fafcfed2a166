package dane

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"slices"
)

// maxRecords is how many usable records of a set can match. Key rollover
// needs two for each combination of parameters (RFC 7671 §8), so 64 leaves
// room for every public CA's intermediates and still bounds the work.
const maxRecords = 64

// Set is one server's TLSA records, made ready for matching. It never changes
// after [NewSet], so it may be shared between goroutines and kept in caches.
// The zero Set has no records.
type Set struct {
	usable      []entry // in the order of compare, no two alike
	unusable    []Unusable
	fingerprint string
}

// Unusable is a record that does not count, and why.
type Unusable struct {
	Record Record
	Reason Reason
}

// NewSet makes the records of one secure TLSA RRset ready: unusable ones are
// put aside, then digest algorithm agility is applied (RFC 7671 §9), then
// everything beyond 64 records is put aside as well. The order of the
// records makes no difference. Work is linear in the size of the RRset, which
// a DNS message bounds.
func NewSet(records []Record) Set {
	var s Set
	var strongest [DANEEE + 1][SPKI + 1]Matching
	for _, r := range records {
		e, reason := parse(r)
		if reason != ReasonNone {
			s.putAside(r, reason)
			continue
		}
		s.usable = append(s.usable, e)
		best := &strongest[r.Usage][r.Selector]
		*best = max(*best, r.Matching)
	}
	slices.SortFunc(s.usable, func(a, b entry) int { return compare(a.Record, b.Record) })
	s.usable = slices.CompactFunc(s.usable, func(a, b entry) bool { return compare(a.Record, b.Record) == 0 })

	kept := s.usable[:0]
	for _, e := range s.usable {
		switch {
		case e.Matching != Full && e.Matching < strongest[e.Usage][e.Selector]:
			s.putAside(e.Record, ReasonWeaker)
		case len(kept) == maxRecords:
			s.putAside(e.Record, ReasonSurplus)
		default:
			kept = append(kept, e)
		}
	}
	clear(s.usable[len(kept):]) // let go of what was put aside
	s.usable = kept
	s.fingerprint = fingerprint(kept)
	return s
}

// putAside notes a record that does not count. The notes are for people, so
// they are bounded like the records.
func (s *Set) putAside(r Record, reason Reason) {
	if len(s.unusable) < maxRecords {
		s.unusable = append(s.unusable, Unusable{r, reason})
	}
}

// Usable reports whether there is a usable record: the server must be
// authenticated by [Set.Verify]. A Set of records none of which is usable
// obliges to TLS without authentication (RFC 7672 §2.2).
func (s Set) Usable() bool { return len(s.usable) > 0 }

// Records returns the records that count, in an order of their own; at most 64.
func (s Set) Records() []Record {
	records := make([]Record, len(s.usable))
	for i, e := range s.usable {
		records[i] = e.Record
	}
	return records
}

// Unusable returns the records that do not count, with reasons; at most
// 64 of them.
func (s Set) Unusable() []Unusable { return slices.Clone(s.unusable) }

// Fingerprint names the records that count: equal for equal sets whatever
// their order, different for different ones, 64 hexadecimal digits. It is
// empty when no record is usable. A connection pool can keep it as what a
// connection proved; for DANE-TA the proof also holds for [Match].Name only.
func (s Set) Fingerprint() string { return s.fingerprint }

func fingerprint(entries []entry) string {
	if len(entries) == 0 {
		return ""
	}
	h := sha256.New()
	for _, e := range entries {
		// The length keeps two records from reading like one longer record.
		head := []byte{byte(e.Usage), byte(e.Selector), byte(e.Matching), 0, 0, 0, 0, 0, 0, 0, 0}
		binary.BigEndian.PutUint64(head[3:], uint64(len(e.Data)))
		h.Write(head)
		h.Write(e.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Size is about what the set takes in memory, in bytes.
func (s Set) Size() int {
	const record, certificate = 96, 8 << 10 // with their slices; parsed
	n := len(s.fingerprint)
	for i := range s.usable {
		n += record + len(s.usable[i].Data)
		if s.usable[i].cert != nil {
			n += certificate + len(s.usable[i].cert.Raw)
		}
	}
	for i := range s.unusable {
		n += record + len(s.unusable[i].Record.Data)
	}
	return n
}
