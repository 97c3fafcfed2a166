package labdns

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// defaultTTL is the TTL of records that give none, and of negative answers
// where no SOA record was added.
const defaultTTL = 300

// maxAliases is how many CNAME records one answer follows.
const maxAliases = 32

// zones is what the lab's DNS holds. It knows nothing of servers and faults.
type zones struct {
	mu      sync.Mutex
	records map[string]map[uint16][]dns.RR
	secure  map[string]bool // by suffix; the longest that fits decides
}

// answer is what the zones say to a question.
type answer struct {
	rcode     int
	answer    []dns.RR
	authority []dns.RR
	secure    bool
}

// add reads zone-file text. Nothing is added when a line of it is malformed.
func (z *zones) add(text string) error {
	parser := dns.NewZoneParser(strings.NewReader(text), ".", "")
	parser.SetDefaultTTL(defaultTTL)
	var rrs []dns.RR
	for rr, ok := parser.Next(); ok; rr, ok = parser.Next() {
		rrs = append(rrs, rr)
	}
	if err := parser.Err(); err != nil {
		return fmt.Errorf("lab DNS: %w", err)
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	for _, rr := range rrs {
		name := dns.CanonicalName(rr.Header().Name)
		if z.records[name] == nil {
			z.records[name] = map[uint16][]dns.RR{}
		}
		t := rr.Header().Rrtype
		z.records[name][t] = append(z.records[name][t], rr)
	}
	return nil
}

func (z *zones) remove(name string, qtype uint16) {
	z.mu.Lock()
	defer z.mu.Unlock()
	name = dns.CanonicalName(name)
	if qtype == dns.TypeANY {
		delete(z.records, name)
		return
	}
	delete(z.records[name], qtype)
	if len(z.records[name]) == 0 {
		delete(z.records, name)
	}
}

func (z *zones) setSecure(suffix string, secure bool) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.secure[dns.CanonicalName(suffix)] = secure
}

// ask answers a question; follow tells whether aliases are followed.
func (z *zones) ask(q dns.Question, follow bool) answer {
	z.mu.Lock()
	defer z.mu.Unlock()
	name := dns.CanonicalName(q.Name)
	a := answer{secure: z.isSecure(name)}
	for range maxAliases {
		if rrs := z.records[name][q.Qtype]; len(rrs) > 0 {
			a.answer = append(a.answer, rrs...)
			return a
		}
		alias := z.records[name][dns.TypeCNAME]
		if len(alias) == 0 {
			break
		}
		a.answer = append(a.answer, alias[0])
		if !follow {
			return a
		}
		name = dns.CanonicalName(alias[0].(*dns.CNAME).Target)
		a.secure = a.secure && z.isSecure(name)
	}
	if !z.exists(name) {
		a.rcode = dns.RcodeNameError
	}
	a.authority = []dns.RR{z.soa(name)}
	return a
}

// exists reports whether there is anything at a name or below it (RFC 8020 §2).
func (z *zones) exists(name string) bool {
	for owner := range z.records {
		if dns.IsSubDomain(name, owner) {
			return true
		}
	}
	return false
}

func (z *zones) isSecure(name string) bool {
	for _, suffix := range suffixes(name) {
		if secure, ok := z.secure[suffix]; ok {
			return secure
		}
	}
	return false
}

// soa gives the SOA record of the closest zone, or one of the root made up.
func (z *zones) soa(name string) dns.RR {
	for _, suffix := range suffixes(name) {
		if rrs := z.records[suffix][dns.TypeSOA]; len(rrs) > 0 {
			return rrs[0]
		}
	}
	return &dns.SOA{
		Hdr: dns.RR_Header{Name: ".", Rrtype: dns.TypeSOA, Class: dns.ClassINET, Ttl: defaultTTL},
		Ns:  "ns.lab.", Mbox: "hostmaster.lab.", Serial: 1, Refresh: 3600, Retry: 600, Expire: 86400, Minttl: defaultTTL,
	}
}

// suffixes lists a name and its parents, the root last.
func suffixes(name string) []string {
	var list []string
	for _, i := range dns.Split(name) {
		list = append(list, name[i:])
	}
	return slices.Concat(list, []string{"."})
}
