package dnssec

import (
	"github.com/miekg/dns"
)

// response is what the server says to a question, before it is put into a
// message.
type response struct {
	rcode      int
	referral   bool
	answer     []dns.RR
	authority  []dns.RR
	additional []dns.RR
}

// answerer makes one response out of a zone's contents. The first error stays.
type answerer struct {
	*contents
	faults map[question]Fault
	dnssec bool // signatures and proofs are wanted
	err    error
}

// respond answers a question that belongs to this zone (RFC 1034 §4.3.2, RFC
// 4035 §3.1). It does not follow aliases: that is the resolver's work.
func (a *answerer) respond(q question, asked string) response {
	if cut := a.cutFor(q); cut != "" {
		return a.referral(cut)
	}
	if a.nodes[q.name] {
		return a.at(q, q.name, "")
	}
	// Every name in the zone is below its apex, which exists.
	encloser := q.name
	for !a.nodes[encloser] {
		encloser = ancestors(encloser)[1]
	}
	wildcard := wildcardAt(encloser)
	if a.nodes[wildcard] {
		r := a.at(q, wildcard, asked)
		if len(r.answer) > 0 || a.nsecFor(q.name) != a.nsecFor(wildcard) {
			r.authority = append(r.authority, a.proof(q.name)...)
		}
		return r
	}
	r := a.negative(dns.RcodeNameError)
	r.authority = append(r.authority, a.proofs(q.name, wildcard)...)
	return r
}

// cutFor finds the delegation that takes a question out of this zone; "" if it
// stays. DS records are on the parent's side (RFC 4035 §3.1.4.1).
func (a *answerer) cutFor(q question) string {
	if cut := a.cutAbove(q.name); cut != "" {
		return cut
	}
	if a.cuts[q.name] && q.qtype != dns.TypeDS {
		return q.name
	}
	return ""
}

func (a *answerer) referral(cut string) response {
	r := response{referral: true, authority: a.set(question{cut, dns.TypeNS}, "")}
	if ds := a.set(question{cut, dns.TypeDS}, ""); ds != nil {
		if a.dnssec {
			r.authority = append(r.authority, ds...)
		}
	} else {
		r.authority = append(r.authority, a.proof(cut)...)
	}
	for _, rr := range a.sets[cut][dns.TypeNS] {
		host := dns.CanonicalName(rr.(*dns.NS).Ns)
		for _, t := range []uint16{dns.TypeA, dns.TypeAAAA} {
			r.additional = append(r.additional, a.zone.records[host][t]...)
		}
	}
	return r
}

// at answers from the records at a name: the question's, or the wildcard that
// stands for asked.
func (a *answerer) at(q question, name, asked string) response {
	for _, t := range []uint16{q.qtype, dns.TypeCNAME} {
		if set := a.set(question{name, t}, asked); set != nil {
			return response{answer: set}
		}
	}
	r := a.negative(dns.RcodeSuccess)
	r.authority = append(r.authority, a.proof(name)...)
	return r
}

// negative gives what every negative answer has (RFC 2308 §2).
func (a *answerer) negative(rcode int) response {
	return response{rcode: rcode, authority: a.set(question{a.zone.name, dns.TypeSOA}, "")}
}

// set gives an RRset with its signature, under the name asked for where a
// wildcard stands for that; nil if there is none.
func (a *answerer) set(q question, asked string) []dns.RR {
	list := a.sets[q.name][q.qtype]
	if len(list) == 0 {
		return nil
	}
	out := make([]dns.RR, 0, len(list)+1)
	out = append(out, list...)
	if a.dnssec {
		sig, err := a.signature(q, a.faults[q])
		if err != nil && a.err == nil {
			a.err = err
		}
		if sig != nil {
			out = append(out, sig)
		}
	}
	if asked != "" {
		for i, rr := range out {
			out[i] = dns.Copy(rr)
			out[i].Header().Name = asked
		}
	}
	return out
}

// proof gives the NSEC record at a name or the one that covers it.
func (a *answerer) proof(name string) []dns.RR {
	nsec := a.nsecFor(name)
	if nsec == nil || !a.dnssec {
		return nil
	}
	return a.set(question{nsec.Hdr.Name, dns.TypeNSEC}, "")
}

// proofs gives the NSEC records for two names, each record once.
func (a *answerer) proofs(name, wildcard string) []dns.RR {
	if a.nsecFor(name) == a.nsecFor(wildcard) {
		return a.proof(name)
	}
	return append(a.proof(name), a.proof(wildcard)...)
}
