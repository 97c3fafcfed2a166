// Package verdict decides what one MX host must show before mail for one
// domain may go to it, and whether a connection showed it. It is pure: what
// the DNS and the MTA-STS policy said goes in, a [Verdict] comes out; what a
// connection proved goes in, and it passes or a reason comes out.
//
// [Decide] goes through the rules in this order, and the first that the host
// fails settles it before anything is dialled:
//
//  1. A message with "TLS-Required: No" is under no policy at all (RFC 8689
//     §3), unless it asks for REQUIRETLS as well.
//  2. TLSA records that could not be looked up: the host is skipped, as
//     an attacker who can suppress them must gain nothing (RFC 7672 §2.1.2).
//  3. Usable TLSA records: the certificate must match one of them, and
//     nothing else decides about it (RFC 7672 §2.2, RFC 8461 §2).
//  4. TLSA records none of which is usable: TLS, with any certificate
//     (RFC 7672 §2.2).
//  5. MTA-STS enforce: the policy must list the host, unless a signed MX set
//     and usable TLSA records vouch for it; without usable TLSA records its
//     certificate must be valid for its name, over TLS 1.2 or better (RFC
//     8461 §4, §5). In testing mode a failure is only noted.
//  6. REQUIRETLS: MX level at least mtasts, TLS level authenticated (RFC 8689
//     §4.2.1). Failing this is the one failure that is permanent, unless the
//     level was missed for a look-up that may work later.
//  7. local_policy: the administrator's minima.
//  8. A relay, which the administrator named: an authenticated connection, also
//     beside "TLS-Required: No", since a login follows. Its name needs no other
//     witness, so that it meets each MX level. With tls: none it needs nothing.
//  9. Pins: a key that the administrator wrote down, on top of all the others,
//     and beside "TLS-Required: No".
//
// Where any of them asks for TLS, a connection below TLS 1.2, or with 3DES, is
// none.
//
// Whatever is left is opportunistic: TLS when offered, its certificate
// looked at but not insisted on, plaintext otherwise (RFC 7435).
package verdict

import (
	"fmt"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/pin"
)

// Rules are the policies that a transport obeys (mx_auth). The zero Rules
// obey none.
type Rules struct {
	DNSSEC bool     // a signed MX set counts
	DANE   bool     // TLSA records count
	MTASTS bool     // MTA-STS policies count
	MinTLS TLSLevel // local_policy
	MinMX  MXLevel  // local_policy
	Pins   pin.Set  // of the override; empty: none
	Relay  Relay    // the host is a relay
}

// Keeping gives rules that demand what own does as well, by local_policy and
// pins, of whatever host the mail goes to. Of two sets of pins own's counts.
func (r Rules) Keeping(own Rules) Rules {
	r.MinTLS, r.MinMX = max(r.MinTLS, own.MinTLS), max(r.MinMX, own.MinMX)
	if !own.Pins.Empty() {
		r.Pins = own.Pins
	}
	return r
}

// Relay says whether a host is a relay, and how it is connected to.
type Relay uint8

// The kinds of hosts.
const (
	NoRelay    Relay = iota // a mail server of the domain
	RelayTLS                // a relay, by TLS
	RelayPlain              // a relay on this host, in the clear (tls: none)
)

// Demands are what the message itself asks for (RFC 8689).
type Demands struct {
	// it must not travel over less than an authenticated connection
	RequireTLS    bool
	Relaxed       bool // relaxed_requiretls: a host need not offer REQUIRETLS
	TLSRequiredNo bool // "TLS-Required: No", and it may be honoured
}

// Facts are what was found out about one MX host before it is dialled.
type Facts struct {
	Host string // MX host name, A-label
	// the MX set, or what stands in its place, was DNSSEC-validated
	Signed bool
	TLSA   TLSA
	STS    STS
}

// TLSAState says what came of the look-up of TLSA records.
type TLSAState uint8

// The TLSA states.
const (
	// proven absent, or not asked since the addresses are not signed
	TLSANone    TLSAState = iota
	TLSAPresent           // there are secure records
	TLSAFailed            // the look-up failed: nothing is proven
)

// TLSA is what the DNS says about a host's certificate.
type TLSA struct {
	State TLSAState
	Set   dane.Set // when present
	Base  string   // the TLSA base domain, for SNI and names (RFC 7672 §2.2.3)
	Names []string // reference identifiers for DANE-TA (RFC 7672 §3.2.2)
	Err   error    // why the look-up failed
}

// STSState says what is known of a domain's MTA-STS policy.
type STSState uint8

// The MTA-STS states.
const (
	STSNone  STSState = iota // no policy
	STSFound                 // a policy is known
	// one may exist, but could not be had; deliveries go on without (RFC 8461
	// §3.3)
	STSFailed
)

// STS is what is known of the domain's MTA-STS policy.
type STS struct {
	State  STSState
	Policy mtasts.Policy
	Err    error
}

// Need is what a connection's peer must prove.
type Need uint8

// The needs, each more than the one before.
const (
	NeedNothing Need = iota // TLS if offered; plaintext will do
	NeedTLS                 // TLS with any certificate
	// TLS with a certificate that anything proves: DANE or WebPKI
	NeedProof
	// TLS 1.2 or better, certificate valid for the host's name
	NeedWebPKI
	NeedDANE // a certificate that matches a TLSA record
)

// String gives the need in words.
func (n Need) String() string {
	switch n {
	case NeedTLS:
		return "TLS with any certificate"
	case NeedProof:
		return "TLS with a valid certificate"
	case NeedWebPKI:
		return "TLS 1.2 or later with a certificate valid for the host name"
	case NeedDANE:
		return "a certificate that matches a TLSA record"
	}
	return "TLS if offered"
}

// Verdict is what one host must show. It is never changed, and safe to share.
type Verdict struct {
	Host  string
	MX    MXLevel // how far the host's name can be trusted
	Need  Need
	Names []string // SNI first; for NeedDANE the reference identifiers
	TLSA  dane.Set // for NeedDANE
	Pins  pin.Set  // one of which the server must match besides; empty: none
	// NeedRequireTLS says that the host must offer REQUIRETLS (RFC 8689
	// §4.2.1).
	NeedRequireTLS bool
	// Refusal is why the host may not even be dialled; nil: it may.
	Refusal *Failure
	// Reason says in words which rule Need comes from.
	Reason string
	// Rule is the same for machines: what Judge blames when Need is not met.
	Rule Rule
	// TestingRefusal is what testing mode lets pass; nil: nothing.
	TestingRefusal *Failure

	// an MTA-STS policy in testing mode applies to the certificate
	testedWebPKI bool
}

// Plaintext reports whether the message may travel in the clear.
func (v *Verdict) Plaintext() bool { return v.Need == NeedNothing }

// Floor is the least that the connection must be.
func (v *Verdict) Floor() handshake.Floor {
	if v.Plaintext() {
		return handshake.Opportunistic
	}
	return handshake.Required
}

// Decide gives the verdict for one host.
func Decide(f Facts, rules Rules, demands Demands) Verdict {
	v := Verdict{Host: f.Host, Names: []string{f.Host}, Reason: "no policy: TLS if offered"}
	switch {
	case rules.Relay == RelayPlain:
		v.Reason = "a relay with tls: none"
		if demands.RequireTLS {
			v.Refusal = failure(5, Relayed, NoSTARTTLS, "REQUIRETLS, but the relay has tls: none")
		}
		return v
	case demands.TLSRequiredNo && !demands.RequireTLS && rules.Relay == NoRelay:
		v.Reason = "TLS-Required: No overrides every policy"
	default:
		v.policies(f, rules, demands)
	}
	if v.Refusal == nil && rules.Relay == RelayTLS {
		v.relay(f.Host)
	}
	if v.Refusal == nil {
		v.pinned(rules.Pins)
	}
	return v
}

// policies applies the rules that "TLS-Required: No" lifts.
func (v *Verdict) policies(f Facts, rules Rules, demands Demands) {
	if rules.DNSSEC && f.Signed {
		v.MX = MXDNSSEC
		v.Reason = "signed MX set, no TLSA records: TLS if offered"
	}
	if rules.DANE {
		v.dane(f)
	}
	if rules.MTASTS && v.Refusal == nil {
		v.sts(f)
	}
	if demands.RequireTLS && v.Refusal == nil {
		v.requireTLS(f, rules, demands)
	}
	if v.Refusal == nil {
		v.local(rules)
	}
}

func (v *Verdict) dane(f Facts) {
	switch {
	case f.TLSA.State == TLSAFailed:
		v.Refusal = failure(5, DANE, TLSALookup, fmt.Sprintf("the TLSA records cannot be looked up: %v", f.TLSA.Err))
		v.Reason = "TLSA records unknown"
	case f.TLSA.State == TLSANone:
	case f.TLSA.Set.Usable():
		v.Need, v.Rule = NeedDANE, DANE
		v.TLSA, v.Names = f.TLSA.Set, f.TLSA.Names
		v.Reason = "usable TLSA records at " + f.TLSA.Base
	default:
		v.Need, v.Rule = NeedTLS, UnusableTLSA
		v.Names = []string{f.TLSA.Base}
		v.Reason = "TLSA records at " + f.TLSA.Base + ", none usable: TLS with any certificate"
	}
}

func (v *Verdict) sts(f Facts) {
	if f.STS.State != STSFound || f.STS.Policy.Mode == mtasts.ModeNone {
		return
	}
	policy := f.STS.Policy
	listed := policy.Match(f.Host)
	if listed {
		v.MX = max(v.MX, MXMTASTS)
	}
	if policy.Mode == mtasts.ModeTesting {
		if !listed {
			v.TestingRefusal = failure(5, MTASTS, NotListed, "MTA-STS testing: the policy does not list this host")
		}
		v.testedWebPKI = v.Need != NeedDANE
		if v.Need == NeedNothing {
			v.Reason = "MTA-STS policy in testing mode: TLS if offered"
		}
		return
	}
	switch {
	case v.Need == NeedDANE && (listed || v.MX == MXDNSSEC):
		// DANE decides about the certificate, and the signed MX set about the
		// host.
	case !listed:
		v.Refusal = failure(5, MTASTS, NotListed, "the domain's MTA-STS policy does not list this host")
		v.Reason = "MTA-STS enforce, host not listed"
	default:
		v.Need, v.Rule = NeedWebPKI, MTASTS
		v.Names = []string{f.Host}
		v.Reason = "MTA-STS enforce: " + NeedWebPKI.String()
	}
}

func (v *Verdict) requireTLS(f Facts, rules Rules, demands Demands) {
	v.NeedRequireTLS = !demands.Relaxed
	if v.MX < MXMTASTS && rules.Relay == NoRelay {
		if rules.MTASTS && f.STS.State == STSFailed {
			v.Refusal = failure(5, RequireTLS, MXLevelTooLow, fmt.Sprintf("REQUIRETLS: the domain's MTA-STS policy is currently unknown: %v", f.STS.Err))
		} else {
			v.Refusal = final(MXLevelTooLow, "neither DNSSEC nor MTA-STS verifies this host")
		}
		v.Reason = "REQUIRETLS, MX level none"
		return
	}
	if v.Need < NeedProof {
		v.Need, v.Rule = NeedProof, RequireTLS
		v.Reason = "REQUIRETLS: " + NeedProof.String()
	}
}

func (v *Verdict) local(rules Rules) {
	if v.MX < rules.MinMX && rules.Relay == NoRelay {
		v.Refusal = failure(5, LocalPolicy, MXLevelTooLow, fmt.Sprintf("MX level %v, local_policy requires %v", v.MX, rules.MinMX))
		v.Reason = fmt.Sprintf("local_policy: min_mx_level %v", rules.MinMX)
		return
	}
	need := [...]Need{TLSNone: NeedNothing, TLSEncrypted: NeedTLS, TLSAuthenticated: NeedProof}[rules.MinTLS]
	if v.Need < need {
		v.Need, v.Rule = need, LocalPolicy
		v.Reason = fmt.Sprintf("local_policy: min_tls_level %v", rules.MinTLS)
	}
}

// relay asks for an authenticated connection, where nothing asks for more.
func (v *Verdict) relay(host string) {
	if v.Need < NeedProof {
		v.Need, v.Rule, v.Names = NeedProof, Relayed, []string{host}
		v.Reason = "relay: " + NeedProof.String()
	}
}

func (v *Verdict) pinned(pins pin.Set) {
	if pins.Empty() {
		return
	}
	v.Pins = pins
	if v.Need == NeedNothing {
		v.Need, v.Rule = NeedTLS, Pinned
		v.Reason = "pin: TLS with a pinned key"
	} else {
		v.Reason += ", and a pinned key"
	}
}
