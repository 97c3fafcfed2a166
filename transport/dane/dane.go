// Package dane decides whether a mail server's certificate is the one that
// the server's TLSA records promise: DANE for SMTP (RFC 6698, 7671, 7672). It
// is pure. Records, certificates, names and the time go in, a [Match] or an
// [Error] comes out; it asks no DNS, opens nothing, and looks at no clock.
// The caller answers for the records being DNSSEC-validated (RFC 7672 §2.2).
//
// A set of TLSA records is made ready in this order:
//
//   - Records that cannot be used are put aside with a [Reason]: certificate
//     usages 0 and 1, which mean nothing between mail servers (RFC 7672
//     §3.1.3), unknown numbers, digests of an impossible length, and full data
//     that is no certificate or no key (RFC 6698 §4.1).
//   - For each usage and selector only the strongest digest counts, and full
//     data always counts (RFC 7671 §9). A server that matches just the weaker
//     digest is not authenticated.
//   - At most 64 records stay. What exceeds that can no longer match, but
//     the set stays usable, so that a flood of records never switches
//     authentication off.
//
// A server is authenticated by the first of these that holds:
//
//   - DANE-EE(3): its own certificate matches. Names, dates, signatures and
//     the rest of the chain do not count (RFC 7672 §3.1.1).
//   - DANE-TA(2): a path of valid signatures leads from its certificate to a
//     trust anchor, and its certificate bears one of the reference names. The
//     anchor is a certificate that the server presents above its own and that
//     matches, or a whole certificate in DNS, or a bare key in DNS that signed
//     something on the path (RFC 7671 §5.2). The order of the presented
//     certificates and strangers among them do not matter.
//
// What is refused although one could think otherwise:
//
//   - A certificate is not its own trust anchor: DANE-TA(2) is about issuers,
//     so a self-signed server certificate needs a DANE-EE(3) record. The one
//     exception is its bare key in DNS ("2 1 0"), which did sign the topmost
//     certificate as RFC 7671 §5.2.3 asks. OpenSSL, and Postfix with it, draws
//     the line in the same place.
//   - Every certificate on a DANE-TA path below the anchor must be within its
//     dates, and constraints in the anchor's certificate are obeyed (RFC 7671
//     §5.2.1). The anchor's own dates are no part of the path (RFC 6698 §2.1.1,
//     RFC 5280 §6.1); OpenSSL draws this line in the same place for anchors
//     that another CA signed, and looks at the dates of self-signed ones.
//     SHA-1 and MD5 signatures are too weak (RFC 6698 §4.1).
//   - Nothing is taken from the system's certificate store.
//
// Work is bounded whatever a stranger sends: 64 records, 32
// certificates, 100 signature checks along paths and 64 by bare
// keys, and no check with an RSA key longer than 8,192 bits.
package dane

import (
	"bytes"
	"cmp"
	"crypto"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"fmt"
)

// Usage is the certificate usage of a TLSA record (RFC 6698 §2.1.1).
type Usage uint8

// The certificate usages, by the names of RFC 7218. Mail servers are
// authenticated by the last two only (RFC 7672 §3.1.3).
const (
	PKIXTA Usage = 0
	PKIXEE Usage = 1
	DANETA Usage = 2
	DANEEE Usage = 3
)

// Selector is the part of a certificate that a TLSA record is about (RFC 6698
// §2.1.2).
type Selector uint8

// The selectors.
const (
	Cert Selector = 0 // the whole certificate
	SPKI Selector = 1 // its SubjectPublicKeyInfo
)

// Matching is the form in which a TLSA record gives that part (RFC 6698
// §2.1.3).
type Matching uint8

// The matching types.
const (
	Full   Matching = 0 // as it is
	SHA256 Matching = 1
	SHA512 Matching = 2
)

// Record is the content of one TLSA record. Data is shared, never copied:
// the maker of a Record must not change it afterwards.
type Record struct {
	Usage    Usage
	Selector Selector
	Matching Matching
	Data     []byte // the certificate association data, as bytes
}

// String gives the record for logs and answers, as in "3 1 1
// 8cb0fc6c527506a0...": the three numbers and the first eight bytes. Full
// data, which always starts alike, is shown by its digest: "2 0 0
// sha256:5f2a...". It is printable ASCII of at most 38 bytes.
func (r Record) String() string {
	data := r.Data
	mark := ""
	if r.Matching == Full {
		sum := sha256.Sum256(r.Data)
		data, mark = sum[:], "sha256:"
	}
	more := ""
	if len(data) > 8 {
		data, more = data[:8], "..."
	}
	return fmt.Sprintf("%d %d %d %s%s%s", r.Usage, r.Selector, r.Matching, mark, hex.EncodeToString(data), more)
}

// Reason says why a record does not count.
type Reason uint8

// The reasons. The first five come from the record itself, the last two from
// the set it is in.
const (
	ReasonNone Reason = iota // it counts
	// usage 0, 1 or unknown (RFC 7672 §3.1.3, RFC 6698 §4.1)
	ReasonUsage
	ReasonSelector // unknown selector (RFC 6698 §4.1)
	ReasonMatching // unknown matching type (RFC 6698 §4.1)
	// no digest of this type has that length (RFC 7671 §9)
	ReasonLength
	// full data that is no certificate (RFC 6698 §4.1)
	ReasonCertificate
	// full data that is no public key of a known kind (RFC 6698 §4.1)
	ReasonKey
	// the set has a stronger digest (RFC 7671 §9)
	ReasonWeaker
	ReasonSurplus // the set has 64 others
)

// String gives the reason for people.
func (r Reason) String() string {
	switch r {
	case ReasonNone:
		return "usable"
	case ReasonUsage:
		return "certificate usage not for SMTP"
	case ReasonSelector:
		return "unknown selector"
	case ReasonMatching:
		return "unknown matching type"
	case ReasonLength:
		return "impossible digest length"
	case ReasonCertificate:
		return "not a certificate"
	case ReasonKey:
		return "not a known public key"
	case ReasonWeaker:
		return "a stronger digest is published"
	case ReasonSurplus:
		return "too many records"
	}
	return "unknown reason"
}

// entry is a usable record with its full data parsed once.
type entry struct {
	Record
	cert *x509.Certificate // for Cert(0) Full(0)
	key  crypto.PublicKey  // for SPKI(1) Full(0)
}

// parse judges a record. Work is linear in the length of the data.
func parse(r Record) (entry, Reason) {
	e := entry{Record: r}
	if r.Usage != DANETA && r.Usage != DANEEE {
		return e, ReasonUsage
	}
	if r.Selector != Cert && r.Selector != SPKI {
		return e, ReasonSelector
	}
	switch r.Matching {
	case SHA256, SHA512:
		if len(r.Data) != r.Matching.size() {
			return e, ReasonLength
		}
		return e, ReasonNone
	case Full:
	default:
		return e, ReasonMatching
	}
	var err error
	if r.Selector == Cert {
		if e.cert, err = x509.ParseCertificate(r.Data); err != nil {
			return e, ReasonCertificate
		}
		return e, ReasonNone
	}
	if e.key, err = x509.ParsePKIXPublicKey(r.Data); err != nil {
		return e, ReasonKey
	}
	return e, ReasonNone
}

// size is the length of a digest in bytes; 0 for what is no digest.
func (m Matching) size() int {
	switch m {
	case SHA256:
		return sha256.Size
	case SHA512:
		return sha512.Size
	}
	return 0
}

// compare orders records so that the same set always looks the same: DANE-EE
// first, because it is the cheapest to check and the commonest, then by the
// other numbers and the data.
func compare(a, b Record) int {
	return cmp.Or(
		cmp.Compare(b.Usage, a.Usage),
		cmp.Compare(a.Selector, b.Selector),
		cmp.Compare(a.Matching, b.Matching),
		bytes.Compare(a.Data, b.Data),
	)
}
