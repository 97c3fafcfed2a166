package dnssec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// maxAliases is how many CNAME records a look-up follows.
const maxAliases = 11

// Why a look-up brings nothing, besides an *invalidError. The front says
// SERVFAIL.
var (
	errAliases  = errors.New("too many aliases")
	errServer   = errors.New("the server gives no answer")
	errReferral = errors.New("the server refers to servers outside the lab")
)

// walker looks names up from the root down. It never changes.
type walker struct {
	server string  // authoritative for everything, host:port
	anchor *dns.DS // of the root's key
	now    func() time.Time
}

// found is the result of a look-up: a message's contents, and whether all of it
// was validated.
type found struct {
	rcode     int
	answer    []dns.RR
	authority []dns.RR
	secure    bool
}

// trust is what is known of a zone. Without keys it is insecure: its data is
// taken as it comes.
type trust struct {
	zone string
	keys []*dns.DNSKEY
}

func (t trust) secure() bool { return len(t.keys) > 0 }

// lookup answers a question, following aliases. Unchecked means that nothing is
// validated (CD, RFC 4035 §3.2.2).
func (w *walker) lookup(ctx context.Context, q question, unchecked bool) (found, error) {
	result := found{secure: true}
	for range maxAliases + 1 {
		msg, err := w.ask(ctx, q)
		if err != nil {
			return found{}, err
		}
		zone := trust{zone: "."}
		if !unchecked {
			if zone, err = w.descend(ctx, signer(msg, q)); err != nil {
				return found{}, err
			}
		}
		part, err := zone.check(msg, q, w.now())
		if err != nil {
			return found{}, err
		}
		result.secure = result.secure && zone.secure()
		result.answer = append(result.answer, part.answer...)
		result.rcode, result.authority = part.rcode, part.authority
		if part.alias == "" {
			return result, nil
		}
		q.name = part.alias
	}
	return found{}, errAliases
}

// signer gives the name to find the keys of: that of the zone which has signed
// the answer to a question or, when none has, the lowest that a zone with the
// answer can have. A signer is not believed, only asked about.
func signer(msg *dns.Msg, q question) string {
	lowest := q.name
	if q.qtype == dns.TypeDS && q.name != "." {
		lowest = ancestors(q.name)[1] // the parent answers
	}
	sigs := slices.Concat(pick(msg.Answer, q).sigs, pick(msg.Answer, question{q.name, dns.TypeCNAME}).sigs)
	for _, rr := range msg.Ns {
		if sig, ok := rr.(*dns.RRSIG); ok {
			sigs = append(sigs, sig)
		}
	}
	for _, sig := range sigs {
		if name := dns.CanonicalName(sig.SignerName); dns.IsSubDomain(name, lowest) {
			return name
		}
	}
	return lowest
}

// descend finds the zone that a name is in and the keys to trust in it. It asks
// for DS records at every name on the way: each is a delegation with keys, one
// proven to have none, or no delegation at all (RFC 4035 §5).
func (w *walker) descend(ctx context.Context, to string) (trust, error) {
	zone, err := w.keys(ctx, ".", []*dns.DS{w.anchor})
	if err != nil {
		return trust{}, err
	}
	names := ancestors(to)
	slices.Reverse(names)
	for _, name := range names[1:] {
		dsQuestion := question{name, dns.TypeDS}
		msg, err := w.ask(ctx, dsQuestion)
		if err != nil {
			return trust{}, err
		}
		part, err := zone.check(msg, dsQuestion, w.now())
		switch {
		case err != nil:
			return trust{}, err
		case part.alias != "" || part.wildcard:
		case part.rcode == dns.RcodeNameError:
			return zone, nil
		case len(part.answer) > 0:
			if zone, err = w.keys(ctx, name, known(part.answer)); err != nil {
				return trust{}, err
			}
		case part.delegation:
			return trust{zone: name}, nil
		}
		if !zone.secure() {
			return zone, nil
		}
	}
	return zone, nil
}

// known picks the DS records whose digest and algorithm can be checked. If
// there are none the zone is treated as insecure (RFC 4035 §5.2, RFC 6840
// §5.2).
func known(list []dns.RR) []*dns.DS {
	var out []*dns.DS
	for _, rr := range list {
		ds, ok := rr.(*dns.DS)
		if !ok || ds.DigestType != dns.SHA256 && ds.DigestType != dns.SHA384 {
			continue
		}
		switch ds.Algorithm {
		case dns.RSASHA256, dns.RSASHA512, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519:
			out = append(out, ds)
		}
	}
	return out
}

// keys gets a zone's keys and checks them against the DS records: one that a DS
// record names must have signed them all.
func (w *walker) keys(ctx context.Context, name string, digests []*dns.DS) (trust, error) {
	if len(digests) == 0 {
		return trust{zone: name}, nil
	}
	msg, err := w.ask(ctx, question{name, dns.TypeDNSKEY})
	if err != nil {
		return trust{}, err
	}
	set := pick(msg.Answer, question{name, dns.TypeDNSKEY})
	var all, entry []*dns.DNSKEY
	for _, rr := range set.records {
		key := rr.(*dns.DNSKEY)
		all = append(all, key)
		for _, ds := range digests {
			if made := key.ToDS(ds.DigestType); ds.KeyTag == key.KeyTag() && ds.Algorithm == key.Algorithm &&
				made != nil && strings.EqualFold(made.Digest, ds.Digest) {
				entry = append(entry, key)
			}
		}
	}
	if len(entry) == 0 {
		return trust{}, &invalidError{dns.ExtendedErrorCodeDNSKEYMissing, "no DNSKEY record of " + name + " fits its DS records"}
	}
	if _, err := (trust{name, entry}).verify(set, w.now()); err != nil {
		return trust{}, err
	}
	return trust{name, all}, nil
}

// ask puts a question to the server, over TCP when the answer is too large for
// UDP.
func (w *walker) ask(ctx context.Context, q question) (*dns.Msg, error) {
	query := new(dns.Msg).SetQuestion(q.name, q.qtype)
	query.RecursionDesired = false
	query.SetEdns0(4096, true)
	for _, network := range []string{"udp", "tcp"} {
		msg, err := w.exchange(ctx, network, query)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%w: %w", errServer, err)
		case msg.Truncated:
			continue
		case msg.Rcode != dns.RcodeSuccess && msg.Rcode != dns.RcodeNameError:
			return nil, fmt.Errorf("%w: %s", errServer, dns.RcodeToString[msg.Rcode])
		}
		return msg, nil
	}
	return nil, errServer
}

func (w *walker) exchange(ctx context.Context, network string, query *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	raw, err := new(net.Dialer).DialContext(ctx, network, w.server)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	conn := &dns.Conn{Conn: raw, UDPSize: 4096}
	if err := conn.WriteMsg(query); err != nil {
		return nil, err
	}
	msg, err := conn.ReadMsg()
	if err != nil {
		return nil, err
	}
	if msg.Id != query.Id || len(msg.Question) != 1 || msg.Question[0] != query.Question[0] {
		return nil, dns.ErrId
	}
	return msg, nil
}
