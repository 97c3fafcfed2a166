package dnssec

import (
	"crypto"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// The validity of signatures. The bad ones are off by more than the clock skew
// that resolvers forgive, a day in Unbound.
const (
	sinceGood = time.Hour
	untilGood = 60 * 24 * time.Hour
	month     = 30 * 24 * time.Hour
)

// makeKey gives the zone a key, once. One key signs everything: a secure entry
// point with the flags 257.
func (z *zone) makeKey() error {
	if z.public != nil {
		return nil
	}
	public := &dns.DNSKEY{
		Hdr:   header(z.name, dns.TypeDNSKEY, z.ttl),
		Flags: dns.ZONE | dns.SEP, Protocol: 3, Algorithm: dns.ECDSAP256SHA256,
	}
	secret, err := public.Generate(256)
	if err != nil {
		return fmt.Errorf("lab DNSSEC: a key for %s: %w", z.name, err)
	}
	signer, ok := secret.(crypto.Signer)
	if !ok {
		return errors.New("lab DNSSEC: the key cannot sign")
	}
	z.public, z.secret = public, signer
	return nil
}

// ds gives what the parent publishes for a zone, nil for nothing.
func (z *zone) ds(ttl uint32) (*dns.DS, error) {
	if z.signing == Unsigned || z.signing == NoDS {
		return nil, nil
	}
	if err := z.makeKey(); err != nil {
		return nil, err
	}
	ds := z.public.ToDS(dns.SHA256)
	ds.Hdr = header(z.name, dns.TypeDS, ttl)
	switch z.signing {
	case WrongDS:
		ds.Digest = strings.Repeat("0123456789abcdef", 4)
	case UnknownDigest:
		ds.DigestType = 250
	}
	return ds, nil
}

// fault gives the fault of all of a zone's signatures.
func (z *zone) fault() Fault {
	switch z.signing {
	case Expired:
		return ExpiredSignature
	case NotYetValid:
		return FutureSignature
	case BadSignatures:
		return BadSignature
	}
	return Sound
}

// signature gives the signature of an RRset of the zone, nil where there is
// none. It is made once, and again after a change in the zone.
func (c *contents) signature(q question, fault Fault) (*dns.RRSIG, error) {
	if !c.zone.signing.signs() || fault == NoSignature || c.cuts[q.name] && q.qtype == dns.TypeNS {
		return nil, nil
	}
	if sig := c.sigs[q]; sig != nil {
		return sig, nil
	}
	if fault == Sound || fault == ServFail {
		fault = c.zone.fault()
	}
	sig, err := c.zone.sign(c.sets[q.name][q.qtype], fault)
	if err != nil {
		return nil, err
	}
	c.sigs[q] = sig
	return sig, nil
}

func (z *zone) sign(set []dns.RR, fault Fault) (*dns.RRSIG, error) {
	from, to := time.Now().Add(-sinceGood), time.Now().Add(untilGood)
	switch fault {
	case ExpiredSignature:
		from, to = from.Add(-2*month), time.Now().Add(-month)
	case FutureSignature:
		from, to = time.Now().Add(month), to.Add(month)
	}
	h := set[0].Header()
	sig := &dns.RRSIG{
		Hdr:        header(h.Name, dns.TypeRRSIG, h.Ttl),
		OrigTtl:    h.Ttl,
		Inception:  uint32(from.Unix()),
		Expiration: uint32(to.Unix()),
		KeyTag:     z.public.KeyTag(),
		SignerName: z.name,
		Algorithm:  z.public.Algorithm,
	}
	if err := sig.Sign(z.secret, set); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: signing %s: %w", h.Name, err)
	}
	if fault == BadSignature {
		raw, err := base64.StdEncoding.DecodeString(sig.Signature)
		if err != nil {
			return nil, fmt.Errorf("lab DNSSEC: signing %s: %w", h.Name, err)
		}
		raw[len(raw)-1] ^= 0xff
		sig.Signature = base64.StdEncoding.EncodeToString(raw)
	}
	return sig, nil
}
