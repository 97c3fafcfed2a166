package resolver

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/cache"
)

// Type is the type of a record (RFC 1035 §3.2.2), as on the wire.
type Type uint16

// The types that a Resolver looks up.
const (
	TypeA     Type = 1
	TypeCNAME Type = 5
	TypePTR   Type = 12
	TypeMX    Type = 15
	TypeTXT   Type = 16
	TypeAAAA  Type = 28
	TypeTLSA  Type = 52
)

// String gives the type's mnemonic, as in "MX".
func (t Type) String() string { return dns.Type(t).String() }

// known reports whether records of the type can be read.
func (t Type) known() bool {
	switch t {
	case TypeA, TypeAAAA, TypeCNAME, TypePTR, TypeMX, TypeTXT, TypeTLSA:
		return true
	}
	return false
}

// Records are the records of an Answer: [Addrs], [MXs], [TLSAs], [Texts] or
// [Names]. They are shared, so they must not be changed.
type Records interface {
	// Len is how many there are.
	Len() int
	// Strings gives each in presentation form (RFC 1035 §5.1), printable.
	Strings() []string
	// bytes is how many bytes they take in memory.
	bytes() int
}

// MX is a mail exchanger (RFC 1035 §3.3.9).
type MX struct {
	Preference uint16
	// Host is in presentation form, absolute, in the letter case of the
	// zone; "." takes no mail (RFC 7505).
	Host string
}

// TLSA is a certificate association (RFC 6698 §2.1). The numbers are as on the
// wire, and may be ones without a known meaning.
type TLSA struct {
	Usage, Selector, Matching uint8
	Data                      []byte
}

// The lists of records, one for each kind.
type (
	// Addrs are those of A and AAAA. No address comes twice, and an IPv4
	// address in the clothes of an IPv6 one is the IPv4 address.
	Addrs []netip.Addr
	// MXs are the best first, by preference.
	MXs []MX
	// TLSAs are those that SMTP can use first (RFC 7672 §3.1).
	TLSAs []TLSA
	// Texts are the bytes of TXT records, whatever they are: each record's
	// strings joined as RFC 8461 §3.1 and RFC 8460 §3 have it.
	Texts []string
	// Names are the targets of CNAME and PTR: presentation form, absolute,
	// lower case.
	Names []string
)

// How many records of an answer are kept: what a delivery can use.
const (
	maxAddrs = 50  // of each family
	maxMXs   = 100 // as many hosts as a route has
	maxTLSAs = 64  // as many as one set matches
	maxTexts = 100
	maxNames = 100
)

// Len implements Records.
func (l Addrs) Len() int { return len(l) }

// Len implements Records.
func (l MXs) Len() int { return len(l) }

// Len implements Records.
func (l TLSAs) Len() int { return len(l) }

// Len implements Records.
func (l Texts) Len() int { return len(l) }

// Len implements Records.
func (l Names) Len() int { return len(l) }

// Strings implements Records.
func (l Addrs) Strings() []string { return written(l, netip.Addr.String) }

// Strings implements Records.
func (l MXs) Strings() []string {
	return written(l, func(m MX) string { return strconv.Itoa(int(m.Preference)) + " " + m.Host })
}

// Strings implements Records.
func (l TLSAs) Strings() []string {
	return written(l, func(t TLSA) string {
		return fmt.Sprintf("%d %d %d %s", t.Usage, t.Selector, t.Matching, hex.EncodeToString(t.Data))
	})
}

// Strings implements Records.
func (l Texts) Strings() []string { return written(l, quoteText) }

// Strings implements Records.
func (l Names) Strings() []string { return slices.Clone(l) }

// alloc is what the allocator adds to a piece of memory, on average.
const alloc = 8

func (l Addrs) bytes() int { return sizeOf(l, func(netip.Addr) int { return 0 }) }
func (l MXs) bytes() int   { return sizeOf(l, func(m MX) int { return len(m.Host) + alloc }) }
func (l TLSAs) bytes() int { return sizeOf(l, func(t TLSA) int { return len(t.Data) + alloc }) }
func (l Texts) bytes() int { return sizeOf(l, func(s string) int { return len(s) + alloc }) }
func (l Names) bytes() int { return sizeOf(l, func(s string) int { return len(s) + alloc }) }

// sizeOf counts a list, and what each of its elements points to.
func sizeOf[T any](list []T, each func(T) int) int {
	n := int(reflect.TypeFor[[]T]().Size()) + alloc + cap(list)*int(reflect.TypeFor[T]().Size()) + alloc
	for _, v := range list {
		n += each(v)
	}
	return n
}

// cost is how many bytes that takes to which an entry of the cache points.
func cost(q question, e cache.Entry[kept]) int {
	n := len(q.name) + alloc
	if e.Err != nil {
		return n + failureBytes
	}
	if c := e.Value.canonical; c != nil {
		n += int(reflect.TypeFor[string]().Size()) + len(*c) + 2*alloc
	}
	if e.Value.records != nil {
		n += e.Value.records.bytes()
	}
	return n
}

func written[T any](list []T, write func(T) string) []string {
	out := make([]string, len(list))
	for i, record := range list {
		out[i] = write(record)
	}
	return out
}

// Addrs gives the addresses of an answer about A or AAAA.
func (a *Answer) Addrs() []netip.Addr { l, _ := a.Records.(Addrs); return l }

// MXs gives the mail exchangers of an answer about MX.
func (a *Answer) MXs() []MX { l, _ := a.Records.(MXs); return l }

// TLSAs gives the associations of an answer about TLSA.
func (a *Answer) TLSAs() []TLSA { l, _ := a.Records.(TLSAs); return l }

// Texts gives the texts of an answer about TXT.
func (a *Answer) Texts() []string { l, _ := a.Records.(Texts); return l }

// Names gives the names of an answer about CNAME or PTR.
func (a *Answer) Names() []string { l, _ := a.Records.(Names); return l }

// readRecords takes the values out of records that are all of one type, and
// tells how many beyond the bounds were left out. The type is a known one.
func readRecords(rrs []dns.RR) (records Records, omitted int) {
	switch rrs[0].(type) {
	case *dns.A, *dns.AAAA:
		return readAddrs(rrs)
	case *dns.MX:
		list := read(rrs, func(r *dns.MX) MX { return MX{r.Preference, r.Mx} })
		slices.SortStableFunc(list, func(a, b MX) int { return cmp.Compare(a.Preference, b.Preference) })
		list, omitted = bound(list, maxMXs)
		return MXs(list), omitted
	case *dns.TLSA:
		list := read(rrs, readTLSA)
		slices.SortFunc(list, compareTLSA)
		list, omitted = bound(list, maxTLSAs)
		return TLSAs(list), omitted
	case *dns.TXT:
		list, omitted := bound(read(rrs, func(r *dns.TXT) string { return rawText(r.Txt) }), maxTexts)
		return Texts(list), omitted
	case *dns.CNAME:
		list, omitted := bound(read(rrs, func(r *dns.CNAME) string { return dns.CanonicalName(r.Target) }), maxNames)
		return Names(list), omitted
	case *dns.PTR:
		list, omitted := bound(read(rrs, func(r *dns.PTR) string { return dns.CanonicalName(r.Ptr) }), maxNames)
		return Names(list), omitted
	}
	return nil, len(rrs)
}

// read turns the library's records into ours.
func read[R dns.RR, T any](rrs []dns.RR, value func(R) T) []T {
	list := make([]T, 0, len(rrs))
	for _, rr := range rrs {
		if r, ok := rr.(R); ok {
			list = append(list, value(r))
		}
	}
	return list
}

// bound keeps the first n, and no memory of the others.
func bound[T any](list []T, n int) (kept []T, omitted int) {
	if len(list) <= n {
		return slices.Clip(list), 0
	}
	return slices.Clone(list[:n]), len(list) - n
}

func readAddrs(rrs []dns.RR) (Addrs, int) {
	list := make(Addrs, 0, min(len(rrs), maxAddrs))
	for i, rr := range rrs {
		if len(list) == maxAddrs {
			return list, len(rrs) - i
		}
		var ip net.IP
		switch rr := rr.(type) {
		case *dns.A:
			ip = rr.A
		case *dns.AAAA:
			ip = rr.AAAA
		}
		if addr, ok := netip.AddrFromSlice(ip); ok && !slices.Contains(list, addr.Unmap()) {
			list = append(list, addr.Unmap())
		}
	}
	return list, 0
}

// readTLSA reads a TLSA record. Data that is not hexadecimal, which the wire
// cannot carry, becomes empty and thereby unusable: it never goes missing.
func readTLSA(r *dns.TLSA) TLSA {
	data, err := hex.DecodeString(r.Certificate)
	if err != nil {
		data = nil
	}
	return TLSA{Usage: r.Usage, Selector: r.Selector, Matching: r.MatchingType, Data: data}
}

// compareTLSA puts the usages of SMTP first, DANE-TA and DANE-EE (RFC 7672
// §3.1.3), so that nothing that can be used makes room for what cannot. The
// rest of the order only makes it the same for every order of the records.
func compareTLSA(a, b TLSA) int {
	unusable := func(t TLSA) int {
		if t.Usage == 2 || t.Usage == 3 {
			return 0
		}
		return 1
	}
	return cmp.Or(
		cmp.Compare(unusable(a), unusable(b)), cmp.Compare(a.Usage, b.Usage), cmp.Compare(a.Selector, b.Selector),
		cmp.Compare(a.Matching, b.Matching), slices.Compare(a.Data, b.Data))
}

// rawText joins the strings of a TXT record, and turns the presentation form
// that the library gives them (RFC 1035 §5.1: \DDD and \X) back into the bytes
// that were on the wire.
func rawText(parts []string) string {
	var b strings.Builder
	for _, s := range parts {
		for i := 0; i < len(s); i++ {
			if s[i] != '\\' || i+1 == len(s) {
				b.WriteByte(s[i])
				continue
			}
			if i++; i+2 < len(s) {
				if n, err := strconv.ParseUint(s[i:i+3], 10, 8); err == nil {
					b.WriteByte(byte(n))
					i += 2
					continue
				}
			}
			b.WriteByte(s[i])
		}
	}
	return b.String()
}

// quoteText writes bytes in presentation form, between quotation marks.
func quoteText(text string) string {
	b := []byte{'"'}
	for i := range len(text) {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, "\\%03d", c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}

// ReverseName is the name at which the PTR records of an address stand (RFC
// 1035 §3.5, RFC 3596 §2.5), absolute.
func ReverseName(addr netip.Addr) string {
	// The library refuses nothing that a netip.Addr without a zone writes.
	name, _ := dns.ReverseAddr(addr.Unmap().WithZone("").String())
	return name
}
