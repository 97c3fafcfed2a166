package resolver

import (
	"errors"
	"slices"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/cache"
)

// Existence is what an Answer says about the records asked for.
type Existence uint8

// What can be known. The last two are proven, as far as the DNS proves
// anything; when Answer.Secure is set, by signatures (RFC 2308 §2).
const (
	Exists Existence = iota // there are records
	NoData                  // the name exists, but has no record of this type
	// the name does not exist, and so has no record of any type
	NXDomain
)

// String gives the word for the log.
func (e Existence) String() string {
	switch e {
	case NoData:
		return "no data"
	case NXDomain:
		return "no such name"
	}
	return "exists"
}

// Answer is what the DNS says to a question.
type Answer struct {
	Name string // asked for: lower case, absolute
	Type Type   // asked for
	// Name, or the end of its chain of aliases: lower case, absolute
	Canonical string
	Existence Existence // of the records at Canonical
	// a trusted resolver validated all of it: each alias, and the records or
	// their absence
	Secure  bool
	Records Records   // of the type asked for; nil unless Existence is Exists
	Omitted int       // how many records there are beyond those in Records
	Expires time.Time // when it is asked for again
}

// kept is what the cache has of an Answer: what the question, and the time at
// which it is asked again, do not tell.
type kept struct {
	records   Records
	canonical *string // nil: the name that was asked for
	omitted   uint32
	existence Existence
	secure    bool
}

// answerOf gives the Answer to a question from what the cache has of it; there
// is none beside an error.
func answerOf(q question, e cache.Entry[kept]) Answer {
	if e.Err != nil {
		return Answer{}
	}
	a := Answer{
		Name: q.name, Type: q.qtype, Canonical: q.name, Existence: e.Value.existence, Secure: e.Value.secure,
		Records: e.Value.records, Omitted: int(e.Value.omitted), Expires: e.Expires,
	}
	if e.Value.canonical != nil {
		a.Canonical = *e.Value.canonical
	}
	return a
}

// Len is how many records there are.
func (a *Answer) Len() int {
	if a.Records == nil {
		return 0
	}
	return a.Records.Len()
}

// Bounds on what is believed.
const (
	maxAliases = 16
	maxTTL     = 24 * time.Hour
	// minTTL is for addresses with a TTL of zero, which may be used for what is
	// under way (RFC 1035 §3.2.1): a delivery asks for them once.
	minTTL         = time.Second
	maxNegativeTTL = time.Hour // RFC 2308 §5
	// noSOATTL is for negative answers without an SOA record. RFC 2308 §5
	// would not cache them, lest servers hand them round for ever; no one
	// asks a stub resolver, and some forwarders leave the record out.
	noSOATTL = 30 * time.Second
)

// What can be wrong with a message that is well formed and answers the
// question.
var (
	errAliases       = errors.New("the aliases form a loop, or there are more than 16 of them")
	errOtherName     = errors.New("the answer is about another name")
	errContradiction = errors.New("the answer says both that the name exists and that it does not")
	errEmpty         = errors.New("the records have no data")
	errReferral      = errors.New("the server refers to other servers and does not resolve names itself")
)

// response is what one message contributes to an Answer.
type response struct {
	canonical string
	existence Existence
	records   Records
	omitted   int
	ttl       time.Duration
	aliases   int
	// canonical is the target of an alias, and the message says no more about
	// it
	unfinished bool
	secure     bool
}

// parseResponse reads what a message with the code NOERROR or NXDOMAIN says to
// a question. It looks at nothing but the chain that leads from the name to the
// records, so that nothing a server adds to it is believed.
func parseResponse(msg *dns.Msg, q question) (response, error) {
	p := response{canonical: q.name, ttl: maxTTL}
	for {
		var found []dns.RR
		var alias *dns.CNAME
		for _, rr := range msg.Answer {
			h := rr.Header()
			if h.Class != dns.ClassINET || dns.CanonicalName(h.Name) != p.canonical {
				continue
			}
			if h.Rrtype == uint16(q.qtype) {
				found = append(found, rr)
				p.ttl = min(p.ttl, ttlOf(h.Ttl))
			} else if c, ok := rr.(*dns.CNAME); ok && alias == nil {
				alias = c
			}
		}
		if len(found) > 0 {
			if msg.Rcode == dns.RcodeNameError {
				return response{}, errContradiction
			}
			if q.qtype == TypeA || q.qtype == TypeAAAA {
				p.ttl = max(p.ttl, minTTL)
			}
			p.records, p.omitted = readRecords(found)
			if p.records.Len() == 0 {
				return response{}, errEmpty
			}
			return p, nil
		}
		if alias == nil {
			if p.aboutOthers(msg, q.qtype) {
				return response{}, errOtherName
			}
			return p.absent(msg)
		}
		p.ttl = min(p.ttl, ttlOf(alias.Hdr.Ttl))
		p.canonical = dns.CanonicalName(alias.Target)
		if p.aliases++; p.aliases > maxAliases { // a loop is endless, too
			return response{}, errAliases
		}
	}
}

// aboutOthers says whether a message has records of the type, or aliases, but
// of names to which nothing leads from the one that was asked for. That there
// is nothing of this one, it does not say.
func (p *response) aboutOthers(msg *dns.Msg, qtype Type) bool {
	return slices.ContainsFunc(msg.Answer, func(rr dns.RR) bool {
		h := rr.Header()
		return h.Class == dns.ClassINET && (h.Rrtype == uint16(qtype) || h.Rrtype == dns.TypeCNAME && p.aliases == 0)
	})
}

// absent reads what a message says about a name for which it has no records.
func (p response) absent(msg *dns.Msg) (response, error) {
	var soa *dns.SOA
	referral := false
	for _, rr := range msg.Ns {
		switch rr := rr.(type) {
		case *dns.SOA:
			// One of another zone is about an alias on the way, not about
			// the end of it.
			if dns.IsSubDomain(dns.CanonicalName(rr.Hdr.Name), p.canonical) {
				soa = rr
			}
		case *dns.NS:
			referral = true
		}
	}
	if msg.Rcode == dns.RcodeNameError {
		// After aliases the code is about the last of them (RFC 6604 §3).
		p.existence = NXDomain
	} else {
		p.existence = NoData
		switch {
		case soa != nil:
		case p.aliases > 0:
			p.unfinished = true
			return p, nil
		case referral:
			return response{}, errReferral
		}
	}
	if soa == nil {
		p.ttl = min(p.ttl, noSOATTL)
	} else {
		p.ttl = min(p.ttl, maxNegativeTTL, ttlOf(soa.Hdr.Ttl), ttlOf(soa.Minttl))
	}
	return p, nil
}

// ttlOf reads a TTL; with the top bit set it means zero (RFC 2181 §8).
func ttlOf(ttl uint32) time.Duration {
	if ttl > 1<<31-1 {
		return 0
	}
	return time.Duration(ttl) * time.Second
}
