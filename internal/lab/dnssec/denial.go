package dnssec

import (
	"slices"

	"github.com/miekg/dns"
)

// has reports whether an NSEC record says that its owner has records of a type.
func has(nsec *dns.NSEC, t uint16) bool { return slices.Contains(nsec.TypeBitMap, t) }

// isCut reports whether an NSEC record is the parent's at a delegation. Such a
// record says nothing about names below (RFC 6840 §4.1).
func isCut(nsec *dns.NSEC) bool { return has(nsec, dns.TypeNS) && !has(nsec, dns.TypeSOA) }

// denies reports whether an NSEC record proves that a name has no records: it
// is not there, or there is only something below it.
func denies(nsec *dns.NSEC, name string) bool {
	owner := dns.CanonicalName(nsec.Hdr.Name)
	if below(name, owner) && (isCut(nsec) || has(nsec, dns.TypeDNAME)) {
		return false
	}
	return covers(nsec, name)
}

// encloser gives the longest name above a denied one that exists, as the NSEC
// record that denies it shows: it is above one of the record's two names (RFC
// 4592 §3.3.1).
func encloser(nsec *dns.NSEC, name string) string {
	owner, next := dns.CanonicalName(nsec.Hdr.Name), dns.CanonicalName(nsec.NextDomain)
	for _, n := range ancestors(name)[1:] {
		if dns.IsSubDomain(n, owner) || dns.IsSubDomain(n, next) {
			return n
		}
	}
	return "."
}

// wildcardAt gives the wildcard right below a name.
func wildcardAt(encloser string) string {
	if encloser == "." {
		return "*."
	}
	return "*." + encloser
}

// noName reports whether a chain of NSEC records proves that a name does not
// exist: nothing is at it or below it, and no wildcard stands for it (RFC 4035
// §3.1.3.2).
func noName(chain []*dns.NSEC, name string) bool {
	for _, nsec := range chain {
		if !denies(nsec, name) || below(dns.CanonicalName(nsec.NextDomain), name) {
			continue
		}
		wildcard := wildcardAt(encloser(nsec, name))
		return slices.ContainsFunc(chain, func(other *dns.NSEC) bool { return denies(other, wildcard) })
	}
	return false
}

// noData reports whether a chain of NSEC records proves that there are no
// records of a type at a name (RFC 4035 §3.1.3.1, §3.1.3.4): the name's own
// record says so, or there are only names below it, or the name does not exist
// and the wildcard that stands for it has no such records.
func (p *part) noData(chain []*dns.NSEC, q question) bool {
	for _, nsec := range chain {
		if dns.CanonicalName(nsec.Hdr.Name) == q.name {
			p.delegation = isCut(nsec)
			return lacks(nsec, q.qtype)
		}
	}
	for _, nsec := range chain {
		if !denies(nsec, q.name) {
			continue
		}
		if below(dns.CanonicalName(nsec.NextDomain), q.name) {
			return true
		}
		wildcard := wildcardAt(encloser(nsec, q.name))
		p.wildcard = true
		return slices.ContainsFunc(chain, func(other *dns.NSEC) bool {
			return dns.CanonicalName(other.Hdr.Name) == wildcard && lacks(other, q.qtype)
		})
	}
	return false
}

// lacks reports whether an NSEC record denies a type at its owner. About DS
// records only the parent's may speak, about all others only the zone's own
// (RFC 6840 §4.1, §4.4).
func lacks(nsec *dns.NSEC, t uint16) bool {
	if t == dns.TypeDS {
		if has(nsec, dns.TypeSOA) && nsec.Hdr.Name != "." {
			return false
		}
	} else if isCut(nsec) {
		return false
	}
	return !has(nsec, t) && !has(nsec, dns.TypeCNAME)
}
