package dnssec

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/miekg/dns"
)

// Server is authoritative for the lab's zones.
type Server struct {
	endpoint endpoint
	tally    tally

	mu    sync.Mutex
	zones map[string]*zone
	// by the parent's name; nil when it must be made again
	children map[string][]*zone
	faults   map[question]Fault
}

// Start begins to serve zones, in any order; Stop must be called. A zone's
// parent is the closest zone above it. When there is no zone for the root, an
// empty signed one is made. An error means that a zone is malformed or given
// twice, or that no port could be had.
func Start(zones ...Zone) (*Server, error) {
	s := &Server{zones: map[string]*zone{}, faults: map[question]Fault{}}
	isRoot := func(z Zone) bool { return dns.CanonicalName(z.Name) == "." }
	root := Zone{Name: "."}
	if i := slices.IndexFunc(zones, isRoot); i >= 0 {
		root = zones[i]
		zones = slices.Concat(zones[:i], zones[i+1:])
	}
	// The root comes first, since every other zone has a parent.
	for _, z := range slices.Concat([]Zone{root}, zones) {
		if err := s.AddZone(z); err != nil {
			return nil, err
		}
	}
	if err := s.zones["."].makeKey(); err != nil {
		return nil, err
	}
	s.endpoint.handler = s
	if err := s.endpoint.start(); err != nil {
		return nil, err
	}
	return s, nil
}

// Addr is where the server listens, as host:port.
func (s *Server) Addr() string { return s.endpoint.address() }

// Stop ends the server and waits until nothing of it is left. It may be called
// more than once.
func (s *Server) Stop() { s.endpoint.stop() }

// Restart serves again, at the same address, after a Stop. An error means that
// the port is gone.
func (s *Server) Restart() error { return s.endpoint.start() }

// TrustAnchor gives the DS record of the root's key, as a line of a zone file,
// for a trust-anchor-file.
func (s *Server) TrustAnchor() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	ds := s.zones["."].public.ToDS(dns.SHA256)
	ds.Hdr = header(".", dns.TypeDS, 3600)
	return ds.String() + "\n"
}

// Zones lists the names of the zones, in canonical order.
func (s *Server) Zones() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name := range s.zones {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(orderKey(a), orderKey(b)) })
	return names
}

// AddZone serves one more zone. An error means that it is malformed, or there
// already.
func (s *Server) AddZone(z Zone) error {
	made, err := newZone(z)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.zones[made.name] != nil {
		return fmt.Errorf("lab DNSSEC: the zone %s is there already", made.name)
	}
	s.zones[made.name] = made
	s.children = nil
	s.touchParent(made.name)
	return nil
}

// SetSigning changes how a zone is signed, and what its parent says of that.
// The key stays. The error is ErrNoZone.
func (s *Server) SetSigning(name string, signing Signing) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zones[dns.CanonicalName(name)]
	if z == nil {
		return fmt.Errorf("%w: %s", ErrNoZone, name)
	}
	z.signing, z.made = signing, nil
	s.touchParent(z.name)
	return nil
}

// Add adds records, in the form of a zone file with absolute names, each to the
// closest zone. Nothing is added when the text is malformed.
func (s *Server) Add(text string) error { return s.change(text, false) }

// Set is Add, but the records take the place of those that had their names and
// types.
func (s *Server) Set(text string) error { return s.change(text, true) }

// noTTL marks records that give no TTL, until their zone is found. It is no TTL
// that anyone would write.
const noTTL = 1<<31 - 2

func (s *Server) change(text string, replace bool) error {
	list, err := parse(text, ".", noTTL)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	done := map[question]bool{}
	for _, rr := range list {
		q := question{rr.Header().Name, rr.Header().Rrtype}
		z := s.zoneOf(q)
		if rr.Header().Ttl == noTTL {
			rr.Header().Ttl = z.ttl
		}
		if replace && !done[q] {
			z.records.remove(q)
		}
		done[q] = true
		z.records.add(rr)
		s.touch(z)
	}
	return nil
}

// Remove takes the records of a name and type away; dns.TypeANY means all
// types.
func (s *Server) Remove(name string, qtype uint16) {
	q := newQuestion(name, qtype)
	s.mu.Lock()
	defer s.mu.Unlock()
	z := s.zoneOf(q)
	z.records.remove(q)
	s.touch(z)
}

// Fault spoils the signature of an RRset, or mends it with Sound; other RRsets
// stay as they are. For the proofs of what does not exist, spoil the NSEC
// record before or at the name; at a delegation that means the parent's and the
// child's. ServFail is about the question.
func (s *Server) Fault(name string, qtype uint16, fault Fault) {
	q := newQuestion(name, qtype)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults[q] = fault
	for _, n := range ancestors(q.name) {
		if z := s.zones[n]; z != nil && z.made != nil {
			delete(z.made.sigs, q)
		}
	}
}

// Queries tells how often a name and type was asked for, in any letter case.
// dns.TypeANY adds up all types, the empty name all names.
func (s *Server) Queries(name string, qtype uint16) int { return s.tally.count(name, qtype) }

// Reset forgets what was counted.
func (s *Server) Reset() { s.tally.reset() }

// touch makes a zone be made anew. Its name servers are in its parent too.
func (s *Server) touch(z *zone) {
	z.made = nil
	s.touchParent(z.name)
}

func (s *Server) touchParent(name string) {
	if name != "." {
		s.zoneOf(question{name, dns.TypeDS}).made = nil
	}
}

// zoneOf finds the zone for a question: the closest, and for DS records the one
// above (RFC 4035 §3.1.4.1). There is always a zone for the root.
func (s *Server) zoneOf(q question) *zone {
	names := ancestors(q.name)
	if q.qtype == dns.TypeDS && q.name != "." {
		names = names[1:]
	}
	for _, n := range names {
		if z := s.zones[n]; z != nil {
			return z
		}
	}
	return nil
}

// contentsOf gives a zone as it is served.
func (s *Server) contentsOf(z *zone) (*contents, error) {
	if z.made != nil {
		return z.made, nil
	}
	if s.children == nil {
		s.children = map[string][]*zone{}
		for name, child := range s.zones {
			if name != "." {
				parent := s.zoneOf(question{name, dns.TypeDS}).name
				s.children[parent] = append(s.children[parent], child)
			}
		}
	}
	made, err := z.build(s.children[z.name])
	if err != nil {
		return nil, err
	}
	z.made = made
	return made, nil
}

// ServeDNS answers one query; it is for the library that reads them.
func (s *Server) ServeDNS(w dns.ResponseWriter, query *dns.Msg) {
	asked := query.Question[0]
	q := newQuestion(asked.Name, asked.Qtype)
	s.tally.note(q)
	reply := new(dns.Msg).SetReply(query)
	opt := query.IsEdns0()
	if opt != nil {
		reply.SetEdns0(1232, opt.Do())
	}
	switch {
	case asked.Qclass != dns.ClassINET:
		reply.Rcode = dns.RcodeRefused
	case isMeta(q.qtype):
		reply.Rcode = dns.RcodeNotImplemented
	default:
		r, err := s.respond(q, asked.Name, opt != nil && opt.Do())
		if err != nil {
			r = response{rcode: dns.RcodeServerFailure}
		}
		reply.Authoritative = !r.referral
		reply.Rcode, reply.Answer, reply.Ns = r.rcode, r.answer, r.authority
		reply.Extra = append(reply.Extra, r.additional...)
	}
	send(w, query, reply)
}

var errFault = errors.New("lab DNSSEC: a fault was asked for")

func (s *Server) respond(q question, asked string, dnssec bool) (response, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.faults[q] == ServFail {
		return response{}, errFault
	}
	c, err := s.contentsOf(s.zoneOf(q))
	if err != nil {
		return response{}, err
	}
	a := &answerer{contents: c, faults: s.faults, dnssec: dnssec}
	r := a.respond(q, asked)
	return r, a.err
}

// isMeta reports whether a type is not one of records that can be looked up
// (RFC 6895 §3.1), or RRSIG, which only goes along with others.
func isMeta(t uint16) bool {
	return t == dns.TypeNone || t == dns.TypeOPT || t == dns.TypeRRSIG || 128 <= t && t <= 255
}
