// Package sample is a little Internet with every verdict that DNSSEC has, and
// questions about it with the answers that a validating resolver must give. It
// is what the lab's own front and a real resolver are compared by.
package sample

import (
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
)

// patience is how long an answer is waited for: a real resolver asks others
// first.
const patience = 30 * time.Second

// domain is the text of a domain that receives mail. Each of the sample's
// domains has it.
const domain = `
@             IN MX 10 mx
@             IN MX 20 mx.branch
@             IN TXT "v=spf1 -all"
mx            IN A 127.0.0.1
_25._tcp.mx   IN TLSA 3 1 1 0000000000000000000000000000000000000000000000000000000000000000
mx.branch     IN A 127.0.0.2
alias         IN CNAME mx
dangling      IN CNAME nowhere
*.wild        IN A 127.0.0.3
*.wild        IN TXT "expanded"
there.wild    IN A 127.0.0.4
*.wildalias   IN CNAME mx
`

// Zones gives the sample's zones, for dnssec.Start. The zone good.test is
// signed; the others are named after what is wrong with them. "plain." is a
// top-level domain without signatures.
func Zones() []dnssec.Zone {
	zones := []dnssec.Zone{
		{Name: "test"},
		{Name: "plain", Signing: dnssec.Unsigned},
		// an island: its parent can prove nothing
		{Name: "signed.plain", Text: domain},
		{Name: "good.test", Text: domain + `
toplain       IN CNAME mx.plain.test.
toexpired     IN CNAME mx.expired.test.
toother       IN CNAME alias.other.test.
tonothing     IN CNAME nowhere.other.test.
toplainnothing IN CNAME nowhere.plain.test.
loop          IN CNAME loop2
loop2         IN CNAME loop
empty.non.terminal IN A 127.0.0.5
broken        IN A 127.0.0.6
expiredset    IN A 127.0.0.7
futureset     IN A 127.0.0.8
nosig         IN A 127.0.0.9
_25._tcp.mx.branch IN TLSA 3 1 1 1111111111111111111111111111111111111111111111111111111111111111
zz            IN A 127.0.0.10
fails         IN A 127.0.0.11
big           IN TXT ` + strings.Repeat(`"0123456789012345678901234567890123456789012345678901234567890123456789" `, 40) + `
`},
		{Name: "sub.good.test", Text: domain},
		{Name: "plain.good.test", Text: domain, Signing: dnssec.Unsigned},
		{Name: "other.test", Text: domain},
		{Name: "null.test", Text: "@ IN MX 0 ."},
	}
	for name, signing := range map[string]dnssec.Signing{
		"plain.test": dnssec.Unsigned, "nods.test": dnssec.NoDS, "unknown.test": dnssec.UnknownDigest,
		"expired.test": dnssec.Expired, "future.test": dnssec.NotYetValid, "bad.test": dnssec.BadSignatures,
		"wrongds.test": dnssec.WrongDS, "stripped.test": dnssec.Stripped,
	} {
		zones = append(zones, dnssec.Zone{Name: name, Signing: signing, Text: domain + `
togood        IN CNAME mx.good.test.
tobad         IN CNAME broken.good.test.
`})
	}
	return zones
}

// Spoil gives the faults of single RRsets to a server that has the sample's
// zones.
func Spoil(s *dnssec.Server) {
	s.Fault("broken.good.test", dns.TypeA, dnssec.BadSignature)
	s.Fault("expiredset.good.test", dns.TypeA, dnssec.ExpiredSignature)
	s.Fault("futureset.good.test", dns.TypeA, dnssec.FutureSignature)
	s.Fault("nosig.good.test", dns.TypeA, dnssec.NoSignature)
	s.Fault("_25._tcp.mx.branch.good.test", dns.TypeTLSA, dnssec.BadSignature)
	s.Fault("zz.good.test", dns.TypeNSEC, dnssec.BadSignature)
	s.Fault("fails.good.test", dns.TypeA, dnssec.ServFail)
	// which an unsigned zone does not have
	s.Fault("mx.plain.test", dns.TypeA, dnssec.BadSignature)
}

// Verdict is what a validating resolver says of an answer.
type Verdict string

// The verdicts.
const (
	Secure   Verdict = "secure"   // AD is set
	Insecure Verdict = "insecure" // AD is not set
	Failed   Verdict = "SERVFAIL"
)

// Question is a question with the answer to expect.
type Question struct {
	Name    string
	Type    uint16
	Verdict Verdict
	Rcode   int // unless Failed
	Records int // of the type asked for, in the answer
}

// Questions gives the table.
func Questions() []Question {
	const none, nx = dns.RcodeSuccess, dns.RcodeNameError
	list := []Question{
		// Records in a chain of signed zones.
		{"good.test", dns.TypeMX, Secure, none, 2},
		{"GOOD.Test", dns.TypeMX, Secure, none, 2},
		{"good.test", dns.TypeTXT, Secure, none, 1},
		{"mx.good.test", dns.TypeA, Secure, none, 1},
		{"_25._tcp.mx.good.test", dns.TypeTLSA, Secure, none, 1},
		{"mx.sub.good.test", dns.TypeA, Secure, none, 1},
		{"null.test", dns.TypeMX, Secure, none, 1},
		{"big.good.test", dns.TypeTXT, Secure, none, 1}, // too large for UDP
		{"good.test", dns.TypeDNSKEY, Secure, none, 1},
		{"good.test", dns.TypeDS, Secure, none, 1},
		{"good.test", dns.TypeSOA, Secure, none, 1},
		{"good.test", dns.TypeNS, Secure, none, 1},
		{"mx.good.test", dns.TypeNSEC, Secure, none, 1},
		{".", dns.TypeDNSKEY, Secure, none, 1},
		{".", dns.TypeSOA, Secure, none, 1},

		// Proofs of absence (RFC 4035 §3.1.3).
		{"nowhere.good.test", dns.TypeA, Secure, nx, 0},
		{"a.b.c.nowhere.good.test", dns.TypeA, Secure, nx, 0},
		{"_25._tcp.nowhere.good.test", dns.TypeTLSA, Secure, nx, 0},
		// before all but the apex
		{"aaa.good.test", dns.TypeA, Secure, nx, 0},
		// close to the end
		{"zy.good.test", dns.TypeA, Secure, nx, 0},
		// below a name with records
		{"below.mx.good.test", dns.TypeA, Secure, nx, 0},
		// in a zone below
		{"nowhere.sub.good.test", dns.TypeA, Secure, nx, 0},
		// in the top-level domain
		{"nowhere.test", dns.TypeMX, Secure, nx, 0},
		// in the root
		{"nowhere", dns.TypeMX, Secure, nx, 0},
		{"mx.good.test", dns.TypeAAAA, Secure, none, 0}, // NODATA
		// at the apex
		{"good.test", dns.TypeA, Secure, none, 0},
		// in a zone of one name
		{"null.test", dns.TypeA, Secure, none, 0},
		// empty non-terminals
		{"non.terminal.good.test", dns.TypeA, Secure, none, 0},
		{"terminal.good.test", dns.TypeMX, Secure, none, 0},       //
		{"_tcp.mx.good.test", dns.TypeTLSA, Secure, none, 0},      //
		{"_25._tcp.mx.sub.good.test", dns.TypeA, Secure, none, 0}, //
		// no delegation at all
		{"mx.good.test", dns.TypeDS, Secure, none, 0},
		// a delegation without DS
		{"plain.test", dns.TypeDS, Secure, none, 0},
		{"plain.good.test", dns.TypeDS, Secure, none, 0},            //
		{"nods.test", dns.TypeDS, Secure, none, 0},                  //
		{"plain", dns.TypeDS, Secure, none, 0},                      //
		{"nowhere.nowhere.plain.test", dns.TypeDS, Insecure, nx, 0}, //

		// Aliases.
		{"alias.good.test", dns.TypeA, Secure, none, 1},
		{"alias.good.test", dns.TypeCNAME, Secure, none, 1},
		{"alias.good.test", dns.TypeAAAA, Secure, none, 0},
		{"dangling.good.test", dns.TypeA, Secure, nx, 0},
		// two aliases, two zones
		{"toother.good.test", dns.TypeA, Secure, none, 1},
		{"tonothing.good.test", dns.TypeA, Secure, nx, 0},
		{"toplain.good.test", dns.TypeA, Insecure, none, 1},
		{"toplain.good.test", dns.TypeAAAA, Insecure, none, 0},
		{"toplainnothing.good.test", dns.TypeA, Insecure, nx, 0},
		{"togood.plain.test", dns.TypeA, Insecure, none, 1},
		{"togood.plain.test", dns.TypeAAAA, Insecure, none, 0},
		{"toexpired.good.test", dns.TypeA, Failed, 0, 0},
		{"tobad.plain.test", dns.TypeA, Failed, 0, 0},
		{"togood.expired.test", dns.TypeA, Failed, 0, 0},

		// Wildcards (RFC 4592).
		{"x.wild.good.test", dns.TypeA, Secure, none, 1},
		{"x.y.wild.good.test", dns.TypeA, Secure, none, 1},
		{"x.wild.good.test", dns.TypeMX, Secure, none, 0},
		// not from the wildcard
		{"there.wild.good.test", dns.TypeTXT, Secure, none, 0},
		{"x.there.wild.good.test", dns.TypeA, Secure, nx, 0}, // nor here
		{"*.wild.good.test", dns.TypeA, Secure, none, 1},
		{"x.wildalias.good.test", dns.TypeA, Secure, none, 1},
		{"x.wild.plain.test", dns.TypeA, Insecure, none, 1},

		// RRsets with faults; what is beside them is sound.
		{"broken.good.test", dns.TypeA, Failed, 0, 0},
		{"broken.good.test", dns.TypeAAAA, Secure, none, 0},
		{"expiredset.good.test", dns.TypeA, Failed, 0, 0},
		{"futureset.good.test", dns.TypeA, Failed, 0, 0},
		{"nosig.good.test", dns.TypeA, Failed, 0, 0},
		{"mx.branch.good.test", dns.TypeA, Secure, none, 1},
		{"_25._tcp.mx.branch.good.test", dns.TypeTLSA, Failed, 0, 0},
		{"zz.good.test", dns.TypeA, Secure, none, 1},
		{"zz.good.test", dns.TypeAAAA, Failed, 0, 0},
		{"zzz.good.test", dns.TypeA, Failed, 0, 0},
		{"fails.good.test", dns.TypeA, Failed, 0, 0},

		// The domain above is signed, but its parent is not.
		{"signed.plain", dns.TypeMX, Insecure, none, 2},
		{"nowhere.plain", dns.TypeMX, Insecure, nx, 0},
		{"mx.plain.good.test", dns.TypeA, Insecure, none, 1},
	}
	for _, name := range []string{"plain.test", "nods.test", "unknown.test"} {
		list = append(list,
			Question{name, dns.TypeMX, Insecure, none, 2},
			Question{"_25._tcp.mx." + name, dns.TypeTLSA, Insecure, none, 1},
			Question{"alias." + name, dns.TypeA, Insecure, none, 1},
			Question{"nowhere." + name, dns.TypeA, Insecure, nx, 0},
			Question{"mx." + name, dns.TypeAAAA, Insecure, none, 0},
		)
	}
	for _, name := range []string{"expired.test", "future.test", "bad.test", "wrongds.test", "stripped.test"} {
		list = append(list,
			Question{name, dns.TypeMX, Failed, 0, 0},
			Question{"_25._tcp.mx." + name, dns.TypeTLSA, Failed, 0, 0},
			Question{"nowhere." + name, dns.TypeA, Failed, 0, 0},
			Question{"mx." + name, dns.TypeAAAA, Failed, 0, 0},
			Question{name, dns.TypeDS, Secure, none, 1}, // the parent is sound
		)
	}
	return list
}

// Read gives what a resolver's reply says, in the form of a question of the
// table.
func Read(reply *dns.Msg) Question {
	q := reply.Question[0]
	got := Question{Name: q.Name, Type: q.Qtype, Verdict: Insecure, Rcode: reply.Rcode}
	switch {
	case reply.Rcode == dns.RcodeServerFailure:
		return Question{Name: q.Name, Type: q.Qtype, Verdict: Failed}
	case reply.AuthenticatedData:
		got.Verdict = Secure
	}
	for _, rr := range reply.Answer {
		if rr.Header().Rrtype == q.Qtype {
			got.Records++
		}
	}
	return got
}

// String gives a line for a test's message.
func (q Question) String() string {
	return fmt.Sprintf("%s %s: %s, %s, %d records", q.Name, dns.TypeToString[q.Type], q.Verdict, dns.RcodeToString[q.Rcode], q.Records)
}

// Ask asks a resolver at host:port as a stub resolver does: with AD and DO, and
// over TCP when the answer is cut.
func Ask(addr, name string, qtype uint16) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	query.AuthenticatedData = true
	query.SetEdns0(1232, true)
	reply, _, err := (&dns.Client{Timeout: patience}).Exchange(query, addr)
	if err == nil && reply.Truncated {
		reply, _, err = (&dns.Client{Net: "tcp", Timeout: patience}).Exchange(query, addr)
	}
	return reply, err
}
