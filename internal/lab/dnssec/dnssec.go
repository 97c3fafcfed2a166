// Package dnssec is a small signed Internet: a root zone, top-level domains and
// domains, each made from the text of a zone file and a Signing that says
// whether its signatures are good, expired, wrong or missing.
//
// A Server is authoritative for all of the zones, on one port of 127.0.0.1 over
// UDP and TCP. It makes the keys (ECDSA P-256), the delegations with their DS
// records, the signatures, and the NSEC records that prove what does not exist
// (RFC 4033 to 4035). Records can be changed while it runs, and are signed
// again at once. Fault spoils the signature of a single RRset. TrustAnchor
// gives what a validating resolver must know of the root.
//
// Two resolvers can stand before it. A Front is the lab's own: it walks from
// the root to the answer, checks every signature on the way, and answers stub
// resolvers with AD, without AD, or with SERVFAIL. It needs nothing but Go,
// keeps no cache, so that a change is seen by the next question, and can be
// stopped and started. An Unbound is the real one, run as a child process with
// a configuration for this Server. Both give the same verdicts; a test compares
// them.
//
// What the Server does not do: NSEC3, DNAME, zone transfers, dynamic updates,
// and separate keys for keys and zones. Nothing here depends on testing.T. All
// methods may be called from any goroutine.
package dnssec

import (
	"errors"
	"fmt"
	"strings"

	"github.com/miekg/dns"
)

// DefaultTTL is the TTL in seconds of records and negative answers where a Zone
// says nothing else: short, so that tests see changes through caches.
const DefaultTTL = 1

// Signing is how a zone is signed, and what its parent says of that.
type Signing uint8

// The signings. A resolver finds the first secure, those marked insecure
// without AD, and answers SERVFAIL to the rest.
const (
	Signed Signing = iota // every signature is good
	// insecure: no signatures, and a proof in the parent that there is no DS
	// record
	Unsigned
	// insecure: signed well, but the parent has no DS record
	NoDS
	// insecure: the parent's DS record has an unknown digest type (RFC 6840
	// §5.2)
	UnknownDigest
	Expired       // bogus: every signature ended a month ago
	NotYetValid   // bogus: every signature begins in a month
	BadSignatures // bogus: every signature is wrong
	// bogus: the parent's DS record is of no key in the zone
	WrongDS
	// bogus: there is a DS record, and the zone has no keys and no signatures
	Stripped
)

// String gives a word for tables.
func (s Signing) String() string {
	words := [...]string{"signed", "unsigned", "without DS", "unknown digest", "expired", "not yet valid", "bad signatures", "wrong DS", "stripped"}
	if int(s) < len(words) {
		return words[s]
	}
	return fmt.Sprintf("signing %d", uint8(s))
}

// signs reports whether the zone itself has keys, signatures and NSEC records.
func (s Signing) signs() bool { return s != Unsigned && s != Stripped }

// Fault is what is wrong with one RRset or question.
type Fault uint8

// The faults.
const (
	Sound            Fault = iota // nothing; as the zone's Signing says
	BadSignature                  // the signature does not fit the records
	ExpiredSignature              // the signature ended a month ago
	FutureSignature               // the signature begins in a month
	NoSignature                   // there is none
	// the server answers SERVFAIL to this question, signed zone or not
	ServFail
)

// Zone is what a zone is made from.
type Zone struct {
	// such as "example.org" or "."; the letter case and the final dot do not
	// matter
	Name string
	// Text is in the form of a zone file (RFC 1035 §5); names in it are
	// relative to Name. The zone needs no SOA and NS records of its own. NS and
	// DS records for zones of the same Server are made by the Server.
	Text    string
	Signing Signing
	// seconds, for records that give none; 0 means DefaultTTL
	TTL uint32
	// seconds, unless Text has an SOA record; 0 means DefaultTTL
	NegativeTTL uint32
}

// ErrNoZone means that a name given to a method is not that of a zone. The
// caller adds the zone first.
var ErrNoZone = errors.New("lab DNSSEC: there is no such zone")

// question is a name, in canonical form, and a type.
type question struct {
	name  string
	qtype uint16
}

func newQuestion(name string, qtype uint16) question {
	return question{dns.CanonicalName(name), qtype}
}

// ancestors lists a name and those above it, the root last.
func ancestors(name string) []string {
	var list []string
	for _, i := range dns.Split(name) {
		list = append(list, name[i:])
	}
	return append(list, ".")
}

// below reports whether a name is strictly below another. Both are canonical.
func below(name, above string) bool { return name != above && dns.IsSubDomain(above, name) }

// orderKey gives a string for a name, so that strings.Compare of two of them is
// the canonical order of the names (RFC 4034 §6.1): labels from the right,
// byte by byte. The separator sorts before every byte of a label.
func orderKey(name string) string {
	var wire [255]byte
	n, err := dns.PackDomainName(dns.CanonicalName(name), wire[:], 0, nil, false)
	if err != nil {
		return name
	}
	var labels []string
	for i := 0; i < n && wire[i] != 0; i += int(wire[i]) + 1 {
		var label strings.Builder
		for _, b := range wire[i+1 : i+1+int(wire[i])] {
			switch {
			case b <= 1:
				label.Write([]byte{1, b + 1})
			case 'A' <= b && b <= 'Z':
				label.WriteByte(b - 'A' + 'a')
			default:
				label.WriteByte(b)
			}
		}
		labels = append([]string{label.String()}, labels...)
	}
	return strings.Join(labels, "\x00")
}

// covers reports whether a name lies between an NSEC record's owner and its
// next name. The last NSEC record of a zone points to the zone's own name,
// which is before all others (RFC 4034 §4.1.1).
func covers(nsec *dns.NSEC, name string) bool {
	owner, next, key := orderKey(nsec.Hdr.Name), orderKey(nsec.NextDomain), orderKey(name)
	return owner < key && (key < next || next <= owner)
}
