package socketmap

import (
	"fmt"
	"slices"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Level is a security level of Postfix's smtp(8).
type Level uint8

// The levels that are answered. What Postfix makes of them at one host is in
// its TLS_README.
const (
	// Refused: no host may have the mail now, or none that Postfix could be
	// told to choose.
	Refused Level = iota
	// Default: nothing is asked for, so main.cf decides
	// (smtp_tls_security_level).
	Default
	// May: TLS if offered.
	May
	// Encrypt: TLS with any certificate.
	Encrypt
	// DANE: at a host with TLSA records a certificate that matches, TLS with
	// any certificate if none is usable, no delivery if they cannot be looked
	// up; at a host without TLSA records the same as May.
	DANE
	// DANEOnly: a certificate that matches a TLSA record of a host from a
	// signed MX set. Other hosts get nothing.
	DANEOnly
	// Secure: a certificate that WebPKI proves to be for one of some names.
	Secure
	// Fingerprint: a key of the server's own that is one of some.
	Fingerprint
)

// Policy is what Postfix is told about a domain.
type Policy struct {
	Level Level
	Names []string // for Secure; for Fingerprint the keys' digests
	// for Secure and Fingerprint: over TLS 1.2 or better (RFC 8461 §4)
	TLS12 bool
	// MissingHosts says that a host which the MTA-STS policy lists is not among
	// Names.
	MissingHosts bool
	// NothingRequired says that nothing is asked of any host, whatever the
	// Level.
	NothingRequired bool
	Reason          string // for Refused
}

// words that Postfix does not take for names after match=.
var notNames = []string{"hostname", "nexthop", "dot-nexthop"}

// Decide gives the policy for a domain. The package comment says why.
func Decide(plan *plan.Plan) Policy {
	if plan.Err != nil && !proven(plan.Err) {
		return refuse(plan.Err.Code, plan.Err)
	}
	s := summarise(plan)
	switch {
	case len(s.hosts) > 0 && s.eligible == 0:
		return s.refusal()
	case !plan.Rules.Pins.Empty() && s.unknown == nil:
		return s.pinned()
	case plan.Rules.Pins.Empty() && plan.Route.Secure && s.dane == len(s.hosts) && s.dane > 0:
		return Policy{Level: DANEOnly}
	case plan.Rules.Pins.Empty() && s.unknown != nil && plan.Route.Secure && s.dane > 0:
		return Policy{Level: DANEOnly} // no MTA-STS policy asks for more
	case s.unknown != nil:
		return refuse(status.New(status.Temporary, 4, 3), fmt.Errorf("%s: %w", plan.Target.Domain, s.unknown))
	case s.tlsa > 0 && s.fallback == verdict.NeedNothing:
		return Policy{Level: DANE}
	case plan.Route.Secure && s.dane > 0:
		return Policy{Level: DANEOnly}
	case s.need == verdict.NeedNothing:
		return s.nothing()
	case s.need == verdict.NeedTLS:
		return Policy{Level: Encrypt}
	}
	return s.named()
}

// proven reports whether it is proven that a domain has no mail servers, which
// is for Postfix to find out, and to bounce. Anything else, a mail loop
// included, leaves open where Postfix would go.
func proven(err *status.Error) bool {
	return err.Code.Class == status.Permanent && err.Code != status.New(status.Permanent, 4, 6)
}

// summary is what the hosts of a domain ask for, summed up.
type summary struct {
	*plan.Plan
	hosts []hostNeed
	// eligible counts the hosts that may have the mail, dane those that must
	// show a certificate which matches a TLSA record, and tlsa those of which
	// it is not proven that they have no TLSA records.
	eligible, dane, tlsa int
	// need is the most that any host asks for, those included that a forger
	// could bring in; refused counts as unreachable.
	need verdict.Need
	// fallback is the same, were there no TLSA records.
	fallback verdict.Need
	// unknown is why it is not known whether the domain has an MTA-STS policy;
	// nil: it is known, or not asked for.
	unknown error
}

// unknownPolicy tells why it is not known whether a domain has an MTA-STS
// policy: the DNS did not say. A policy that is there and cannot be fetched is
// another matter: mail goes on without (RFC 8461 §3.3).
func unknownPolicy(plan *plan.Plan) error {
	var err error
	switch e := plan.Policy; {
	case e == nil && plan.STS.State == verdict.STSFailed:
		err = plan.STS.Err
	case e != nil && e.State == policycache.Failed && e.Failure() == mtasts.FailureDNS:
		err = e.Err
	default:
		return nil
	}
	return fmt.Errorf("the MTA-STS record cannot be looked up: %w", err)
}

// unreachable is more than any need: not even Postfix's word for the strongest
// one makes up for a host that may not have the mail at all.
const unreachable = verdict.NeedDANE + 1

// hostNeed is one host.
type hostNeed struct {
	*plan.Host
	need  verdict.Need // unreachable: it may not have the mail
	plain verdict.Need // the same, without TLSA records
}

func summarise(plan *plan.Plan) *summary {
	s := &summary{Plan: plan, unknown: unknownPolicy(plan)}
	for i := range plan.Hosts {
		h := hostNeed{Host: plan.Hosts[i], need: unreachable}
		bare := h.Facts
		bare.TLSA = verdict.TLSA{}
		h.plain = decide(bare, plan.Rules)
		switch {
		case h.Err != nil && plan.Rules.DANE:
		case h.Err != nil:
			h.need = h.plain // nothing about it depends on its addresses
		case h.Verdict.Refusal == nil:
			h.need = h.Verdict.Need
		}
		if plan.Rules.DANE && (h.Err != nil || h.Facts.TLSA.State != verdict.TLSANone) {
			s.tlsa++
		}
		if h.need < unreachable {
			s.eligible++
		}
		if h.need == verdict.NeedDANE {
			s.dane++
		}
		s.need, s.fallback = max(s.need, h.need), max(s.fallback, h.plain)
		s.hosts = append(s.hosts, h)
	}
	if !plan.Route.Secure {
		stranger := decide(verdict.Facts{STS: plan.STS}, plan.Rules)
		s.need, s.fallback = max(s.need, stranger), max(s.fallback, stranger)
	}
	return s
}

// decide has the verdict decide what a host must show of which there is no
// verdict yet.
func decide(f verdict.Facts, rules verdict.Rules) verdict.Need {
	v := verdict.Decide(f, rules, verdict.Demands{Relaxed: true})
	if v.Refusal != nil {
		return unreachable
	}
	return v.Need
}

// nothing is the policy where nothing is asked of any host. An override that
// has policies of its own is an answer of its own, which main.cf must not
// override in turn.
func (s *summary) nothing() Policy {
	p := Policy{Level: Default, NothingRequired: true}
	switch {
	case s.OwnPolicies && s.Rules.DANE:
		p.Level = DANE
	case s.OwnPolicies:
		p.Level = May
	}
	return p
}

// pinned is the policy where the administrator has written keys down. A pin
// comes on top of DANE and MTA-STS, and Postfix can be told one of them.
func (s *summary) pinned() Policy {
	if s.need > verdict.NeedProof {
		return Policy{Level: Refused, Reason: "4.7.5 Postfix has no word for a pin on top of DANE or MTA-STS, which " + s.Target.Domain + " has; mxpipe and LMTP can deliver to it"}
	}
	p := Policy{Level: Fingerprint, TLS12: true}
	for _, pin := range s.Rules.Pins.Pins() {
		p.Names = append(p.Names, pin.Hex())
	}
	return p
}

// named is the policy of last resort: only those who prove to be one of the
// hosts that may have the mail upon such a proof.
func (s *summary) named() Policy {
	p := Policy{Level: Secure}
	for _, h := range s.hosts {
		need := h.need
		// and the MX set is not signed, or it would be dane-only
		if need == verdict.NeedDANE {
			need = h.plain
		}
		if need <= verdict.NeedWebPKI && !slices.Contains(notNames, h.name()) && !h.literal() {
			p.Names = append(p.Names, h.name())
			p.TLS12 = p.TLS12 || need == verdict.NeedWebPKI
		} else if s.STS.Policy.Match(h.name()) {
			p.MissingHosts = true
		}
	}
	if len(p.Names) > 0 {
		return p
	}
	if s.Err != nil {
		return refuse(s.Err.Code, s.Err)
	}
	return Policy{Level: Refused, Reason: "4.7.5 Postfix cannot express the policies of " + s.Target.Domain + " for its mail servers; mxpipe and LMTP can deliver to them"}
}

// literal reports whether the host is an address.
func (h *hostNeed) literal() bool { return h.name() != "" && h.name()[0] == '[' }

// name gives the host's name.
func (h *hostNeed) name() string { return h.Host.Host.Name }

// refusal is the policy where no host may have the mail: the reason of the
// host that would be tried first, as its owner will mend that one first.
func (s *summary) refusal() Policy {
	first := s.Hosts[0]
	if first.Err != nil {
		return refuse(first.Err.Code, first.Err)
	}
	f := first.Verdict.Refusal
	return refuse(f.Code, fmt.Errorf("%s: %w", first.Host.Name, f))
}

// refuse says why mail has to wait.
func refuse(code status.Code, reason error) Policy {
	// there is nothing that Postfix would not try again
	code.Class = status.Temporary
	return Policy{Level: Refused, Reason: fmt.Sprintf("%v %v", code, reason)}
}
