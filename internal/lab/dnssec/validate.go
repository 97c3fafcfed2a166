package dnssec

import (
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// invalidError means that data which should be signed well is not: it is bogus
// (RFC 4033 §5).
type invalidError struct {
	code uint16 // RFC 8914
	text string
}

func (e *invalidError) Error() string { return e.text }

// part is what one message says to a question.
type part struct {
	rcode     int
	answer    []dns.RR
	authority []dns.RR
	alias     string // where the answer goes on; "" when it is complete
	wildcard  bool   // the answer was made from a wildcard, or denied at one
	// to a DS question: there is a delegation without DS records
	delegation bool
}

// signedSet is an RRset with the signatures beside it.
type signedSet struct {
	records []dns.RR
	sigs    []*dns.RRSIG
}

// all lists the records, then the signatures.
func (s signedSet) all() []dns.RR {
	list := slices.Clone(s.records)
	for _, sig := range s.sigs {
		list = append(list, sig)
	}
	return list
}

// pick finds an RRset in a section.
func pick(section []dns.RR, q question) signedSet {
	var set signedSet
	for _, rr := range section {
		h := rr.Header()
		if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != q.name {
			continue
		}
		if sig, ok := rr.(*dns.RRSIG); ok && sig.TypeCovered == q.qtype {
			set.sigs = append(set.sigs, sig)
		} else if h.Rrtype == q.qtype {
			set.records = append(set.records, rr)
		}
	}
	return set
}

// check reads what a message says to a question, and verifies all of it when
// the zone is secure.
func (t trust) check(msg *dns.Msg, q question, now time.Time) (part, error) {
	for _, qtype := range []uint16{q.qtype, dns.TypeCNAME} {
		set := pick(msg.Answer, question{q.name, qtype})
		if len(set.records) == 0 {
			continue
		}
		p := part{answer: set.all()}
		if qtype != q.qtype {
			p.alias = dns.CanonicalName(set.records[0].(*dns.CNAME).Target)
		}
		if t.secure() {
			labels, err := t.verify(set, now)
			if err != nil {
				return part{}, err
			}
			if labels < dns.CountLabel(q.name) && !strings.HasPrefix(q.name, "*.") {
				return t.expanded(p, msg, q.name, labels, now)
			}
		}
		return p, nil
	}
	return t.absent(msg, q, now)
}

// expanded checks that a wildcard was allowed to answer: that there is nothing
// closer (RFC 4035 §5.3.4).
func (t trust) expanded(p part, msg *dns.Msg, name string, labels int, now time.Time) (part, error) {
	proofs, err := t.proofs(msg, now)
	if err != nil {
		return part{}, err
	}
	p.wildcard = true
	for _, nsec := range proofs.records {
		if n := nsec.(*dns.NSEC); denies(n, name) && dns.CountLabel(encloser(n, name)) == labels {
			p.authority = proofs.all()
			return p, nil
		}
	}
	return part{}, &invalidError{dns.ExtendedErrorCodeNSECMissing, "no proof that a wildcard stands for " + name}
}

// absent reads a negative answer (RFC 2308 §2) and checks its proof (RFC 4035
// §5.4).
func (t trust) absent(msg *dns.Msg, q question, now time.Time) (part, error) {
	p := part{rcode: msg.Rcode}
	soaAt := ""
	for _, rr := range msg.Ns {
		if rr.Header().Rrtype == dns.TypeSOA {
			soaAt = dns.CanonicalName(rr.Header().Name)
		}
	}
	if soaAt == "" || !dns.IsSubDomain(soaAt, q.name) {
		return part{}, errReferral
	}
	soa := pick(msg.Ns, question{soaAt, dns.TypeSOA})
	p.authority = soa.all()
	if !t.secure() {
		return p, nil
	}
	if _, err := t.verify(soa, now); err != nil {
		return part{}, err
	}
	proofs, err := t.proofs(msg, now)
	if err != nil {
		return part{}, err
	}
	p.authority = append(p.authority, proofs.all()...)
	var chain []*dns.NSEC
	for _, rr := range proofs.records {
		chain = append(chain, rr.(*dns.NSEC))
	}
	proven := false
	if msg.Rcode == dns.RcodeNameError {
		proven = noName(chain, q.name)
	} else {
		proven = p.noData(chain, q)
	}
	if !proven {
		return part{}, &invalidError{dns.ExtendedErrorCodeNSECMissing, "no proof that there is no " + dns.TypeToString[q.qtype] + " record at " + q.name}
	}
	return p, nil
}

// proofs collects the NSEC records of a message and verifies each.
func (t trust) proofs(msg *dns.Msg, now time.Time) (signedSet, error) {
	var all signedSet
	for _, rr := range msg.Ns {
		if rr.Header().Rrtype != dns.TypeNSEC {
			continue
		}
		set := pick(msg.Ns, question{dns.CanonicalName(rr.Header().Name), dns.TypeNSEC})
		if _, err := t.verify(set, now); err != nil {
			return signedSet{}, err
		}
		all.records = append(all.records, set.records...)
		all.sigs = append(all.sigs, set.sigs...)
	}
	return all, nil
}

// verify checks an RRset (RFC 4035 §5.3) and gives the number of labels that
// were signed, which is smaller than that of the owner when a wildcard was
// expanded. Among several signatures one good one is enough.
func (t trust) verify(set signedSet, now time.Time) (int, error) {
	h := set.records[0].Header()
	what := dns.TypeToString[h.Rrtype] + " records of " + h.Name
	problem := &invalidError{dns.ExtendedErrorCodeRRSIGsMissing, "no signature for the " + what}
	for _, sig := range set.sigs {
		// The library compares text where it should compare labels.
		if dns.CanonicalName(sig.SignerName) != t.zone || !dns.IsSubDomain(t.zone, dns.CanonicalName(h.Name)) {
			problem = &invalidError{dns.ExtendedErrorCodeDNSBogus, "a stranger has signed the " + what}
			continue
		}
		for _, key := range t.keys {
			if key.KeyTag() != sig.KeyTag || key.Algorithm != sig.Algorithm {
				continue
			}
			switch err := sig.Verify(key, set.records); {
			case err != nil:
				problem = &invalidError{dns.ExtendedErrorCodeDNSBogus, "a wrong signature for the " + what}
			case sig.ValidityPeriod(now):
				return int(sig.Labels), nil
			case int32(sig.Expiration-uint32(now.Unix())) < 0:
				problem = &invalidError{dns.ExtendedErrorCodeSignatureExpired, "an expired signature for the " + what}
			default:
				problem = &invalidError{dns.ExtendedErrorCodeSignatureNotYetValid, "a signature of the future for the " + what}
			}
		}
	}
	return 0, problem
}
