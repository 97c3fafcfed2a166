package dnssec

import (
	"crypto"
	"fmt"
	"slices"
	"strings"

	"github.com/miekg/dns"
)

// rrsets are records by name, in canonical form, and type.
type rrsets map[string]map[uint16][]dns.RR

func (r rrsets) add(rr dns.RR) {
	name := rr.Header().Name
	if r[name] == nil {
		r[name] = map[uint16][]dns.RR{}
	}
	t := rr.Header().Rrtype
	r[name][t] = append(r[name][t], rr)
}

// remove takes away an RRset, or all of them for dns.TypeANY.
func (r rrsets) remove(q question) {
	delete(r[q.name], q.qtype)
	if q.qtype == dns.TypeANY || len(r[q.name]) == 0 {
		delete(r, q.name)
	}
}

// parse reads zone-file text. Nothing is returned when a line of it is
// malformed.
func parse(text, origin string, ttl uint32) ([]dns.RR, error) {
	// With a $TTL line a TTL in one record is not the default of the next (RFC
	// 2308 §4).
	parser := dns.NewZoneParser(strings.NewReader(fmt.Sprintf("$TTL %d\n%s\n", ttl, text)), origin, "")
	var list []dns.RR
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		rr.Header().Name = dns.CanonicalName(rr.Header().Name)
		list = append(list, rr)
	}
	if err := parser.Err(); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: zone %s: %w", origin, err)
	}
	return list, nil
}

// zone is one zone of a Server, which guards it by its lock.
type zone struct {
	name     string
	signing  Signing
	ttl      uint32
	negative uint32
	records  rrsets // as given
	secret   crypto.Signer
	public   *dns.DNSKEY
	// from records, the children and signing; nil when that must be done again
	made *contents
}

func newZone(z Zone) (*zone, error) {
	name := dns.CanonicalName(z.Name)
	if _, ok := dns.IsDomainName(name); !ok {
		return nil, fmt.Errorf("lab DNSSEC: %q is no name for a zone", z.Name)
	}
	made := &zone{name: name, signing: z.Signing, ttl: z.TTL, negative: z.NegativeTTL, records: rrsets{}}
	if made.ttl == 0 {
		made.ttl = DefaultTTL
	}
	if made.negative == 0 {
		made.negative = DefaultTTL
	}
	list, err := parse(z.Text, name, made.ttl)
	if err != nil {
		return nil, err
	}
	for _, rr := range list {
		if !dns.IsSubDomain(name, rr.Header().Name) {
			return nil, fmt.Errorf("lab DNSSEC: %s is not in the zone %s", rr.Header().Name, name)
		}
		made.records.add(rr)
	}
	return made, nil
}

// header is for the records that the server makes.
func header(name string, rrtype uint16, ttl uint32) dns.RR_Header {
	return dns.RR_Header{Name: name, Rrtype: rrtype, Class: dns.ClassINET, Ttl: ttl}
}

// soa gives the zone's SOA record, made up where the text has none.
func (z *zone) soa() *dns.SOA {
	if list := z.records[z.name][dns.TypeSOA]; len(list) > 0 {
		return list[0].(*dns.SOA)
	}
	return &dns.SOA{
		Hdr: header(z.name, dns.TypeSOA, z.negative), Ns: "ns.invalid.", Mbox: "hostmaster.invalid.",
		Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: z.negative,
	}
}

// ns gives the zone's name servers. No one needs their addresses: resolvers are
// told where the lab's Server is.
func (z *zone) ns() []dns.RR {
	if list := z.records[z.name][dns.TypeNS]; len(list) > 0 {
		return list
	}
	return []dns.RR{&dns.NS{Hdr: header(z.name, dns.TypeNS, z.ttl), Ns: "ns.invalid."}}
}

// contents is a zone as it is served: complete with SOA, NS, DNSKEY, DS and
// NSEC records, and without the records that a delegation hides. Only sigs
// changes later.
type contents struct {
	zone *zone
	sets rrsets
	// names that exist, those without records (empty non-terminals) included
	nodes map[string]bool
	cuts  map[string]bool // delegations
	chain []*dns.NSEC     // in canonical order
	sigs  map[question]*dns.RRSIG
}

// build makes a zone's contents; children are the zones below it that are
// delegated from it.
func (z *zone) build(children []*zone) (*contents, error) {
	c := &contents{zone: z, sets: rrsets{}, nodes: map[string]bool{}, cuts: map[string]bool{}, sigs: map[question]*dns.RRSIG{}}
	for name, types := range z.records {
		if name != z.name && len(types[dns.TypeNS]) > 0 {
			c.cuts[name] = true
		}
	}
	for _, child := range children {
		c.cuts[child.name] = true
	}
	for name, types := range z.records {
		if c.cutAbove(name) != "" {
			continue
		}
		for t, list := range types {
			if !c.cuts[name] || t == dns.TypeNS || t == dns.TypeDS {
				c.set(name, t, list)
			}
		}
	}
	for _, child := range children {
		if c.cutAbove(child.name) != "" {
			continue
		}
		c.set(child.name, dns.TypeNS, child.ns())
		ds, err := child.ds(z.ttl)
		if err != nil {
			return nil, err
		}
		delete(c.sets[child.name], dns.TypeDS)
		if ds != nil {
			c.set(child.name, dns.TypeDS, []dns.RR{ds})
		}
	}
	c.set(z.name, dns.TypeSOA, []dns.RR{z.soa()})
	c.set(z.name, dns.TypeNS, z.ns())
	if z.signing.signs() {
		if err := z.makeKey(); err != nil {
			return nil, err
		}
		c.set(z.name, dns.TypeDNSKEY, []dns.RR{z.public})
	}
	for name := range c.sets {
		for _, n := range ancestors(name) {
			if dns.IsSubDomain(z.name, n) {
				c.nodes[n] = true
			}
		}
	}
	if z.signing.signs() {
		c.link(z.soa())
	}
	return c, nil
}

// set replaces an RRset.
func (c *contents) set(name string, t uint16, list []dns.RR) {
	if c.sets[name] == nil {
		c.sets[name] = map[uint16][]dns.RR{}
	}
	c.sets[name][t] = list
}

// cutAbove finds the delegation that a name lies strictly below, the uppermost
// of several; "" if there is none.
func (c *contents) cutAbove(name string) string {
	found := ""
	for _, n := range ancestors(name)[1:] {
		if c.cuts[n] {
			found = n
		}
	}
	return found
}

// link makes the chain of NSEC records (RFC 4034 §4, RFC 4035 §2.3). Their TTL
// is that of negative answers (RFC 9077 §3).
func (c *contents) link(soa *dns.SOA) {
	type owner struct{ key, name string }
	var owners []owner
	for name := range c.sets {
		owners = append(owners, owner{orderKey(name), name})
	}
	slices.SortFunc(owners, func(a, b owner) int { return strings.Compare(a.key, b.key) })
	for i, o := range owners {
		nsec := &dns.NSEC{
			Hdr:        header(o.name, dns.TypeNSEC, min(soa.Minttl, soa.Hdr.Ttl)),
			NextDomain: owners[(i+1)%len(owners)].name,
			TypeBitMap: []uint16{dns.TypeRRSIG, dns.TypeNSEC},
		}
		for t := range c.sets[o.name] {
			nsec.TypeBitMap = append(nsec.TypeBitMap, t)
		}
		slices.Sort(nsec.TypeBitMap)
		c.chain = append(c.chain, nsec)
	}
	for _, nsec := range c.chain {
		c.set(nsec.Hdr.Name, dns.TypeNSEC, []dns.RR{nsec})
	}
}

// nsecFor finds the record at a name, or the one that covers it; nil in a zone
// without signatures.
func (c *contents) nsecFor(name string) *dns.NSEC {
	if len(c.chain) == 0 {
		return nil
	}
	i, found := slices.BinarySearchFunc(c.chain, orderKey(name), func(nsec *dns.NSEC, key string) int {
		return strings.Compare(orderKey(nsec.Hdr.Name), key)
	})
	if !found {
		// the zone's own name is the first, so that there is one before every
		// other
		i--
	}
	return c.chain[i]
}
