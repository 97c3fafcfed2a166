package socketmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// sort is what the DNS says about a host.
type sort int

const (
	bare     sort = iota // no TLSA records
	usable               // TLSA records
	unusable             // TLSA records of which none can be used
	failed               // its TLSA records cannot be looked up
	unknown              // its addresses cannot be looked up
	sorts
)

func (s sort) String() string {
	return [...]string{"bare", "usable", "unusable", "failed", "unknown"}[s]
}

var (
	errBogus  = errors.New("SERVFAIL")
	errSilent = &status.Error{Code: status.New(status.Temporary, 4, 3), Host: "mx", Text: "its addresses cannot be looked up"}
)

// tlsa makes the records of a host.
func (s sort) tlsa() verdict.TLSA {
	record := dane.Record{Usage: dane.DANEEE, Selector: dane.SPKI, Matching: dane.SHA256, Data: make([]byte, 32)}
	switch s {
	case usable:
		return verdict.TLSA{State: verdict.TLSAPresent, Set: dane.NewSet([]dane.Record{record}), Base: "mx"}
	case unusable:
		record.Usage = dane.PKIXEE
		return verdict.TLSA{State: verdict.TLSAPresent, Set: dane.NewSet([]dane.Record{record}), Base: "mx"}
	case failed:
		return verdict.TLSA{State: verdict.TLSAFailed, Err: errBogus}
	}
	return verdict.TLSA{}
}

// scene is a domain, a.example, with the hosts mx1.a.example and so on.
type scene struct {
	signed bool
	mode   mtasts.Mode
	listed []string // by the MTA-STS policy; nil: it has none
	rules  verdict.Rules
	hosts  []sort
	err    *status.Error
}

func (s scene) String() string {
	return fmt.Sprintf("signed=%v %v%v %+v %v", s.signed, s.mode, s.listed, s.rules, s.hosts)
}

func target(domain string) plan.Target {
	return plan.Target{Destination: route.Destination{Domain: domain}}
}

func (s scene) plan() *plan.Plan {
	o := &plan.Plan{Target: target("a.example"), Rules: s.rules, Route: route.Route{Secure: s.signed}, Err: s.err}
	if s.listed != nil {
		o.Policy = &policycache.Entry{State: policycache.HasPolicy, Policy: mtasts.Policy{Mode: s.mode, MX: s.listed}}
		o.STS = verdict.STS{State: verdict.STSFound, Policy: o.Policy.Policy}
	}
	for i, what := range s.hosts {
		h := plan.Host{Host: route.Host{Name: fmt.Sprintf("mx%d.a.example", i+1)}}
		h.Facts = verdict.Facts{Host: h.Host.Name, Signed: s.signed, STS: o.STS}
		if what == unknown {
			h.Err = errSilent
		} else {
			if s.rules.DANE {
				h.Facts.TLSA = what.tlsa()
			}
			h.Verdict = verdict.Decide(h.Facts, s.rules, verdict.Demands{Relaxed: true})
		}
		o.Hosts = append(o.Hosts, &h)
	}
	return o
}

var (
	all      = verdict.Rules{DNSSEC: true, DANE: true, MTASTS: true}
	listsAll = []string{"*.a.example"}
	lists2   = []string{"mx2.a.example"}
)

func with(change func(*verdict.Rules)) verdict.Rules {
	r := all
	change(&r)
	return r
}

var (
	encrypted     = with(func(r *verdict.Rules) { r.MinTLS = verdict.TLSEncrypted })
	authenticated = with(func(r *verdict.Rules) { r.MinTLS = verdict.TLSAuthenticated })
	vouchedFor    = with(func(r *verdict.Rules) { r.MinMX = verdict.MXMTASTS })
	onlySigned    = with(func(r *verdict.Rules) { r.MinMX = verdict.MXDNSSEC })
	noDANE        = with(func(r *verdict.Rules) { r.DANE = false })
	keyPinned     = with(func(r *verdict.Rules) { r.Pins = pin.NewSet(pin.Pin{0xab, 1}, pin.Pin{0x0c}) })
	pinnedToo     = with(func(r *verdict.Rules) { r.Pins, r.MinTLS = keyPinned.Pins, verdict.TLSAuthenticated })
	onlySTS       = verdict.Rules{MTASTS: true}
	none          = verdict.Rules{}
)

func TestReply(t *testing.T) {
	const secure1, secure2 = "OK secure match=mx1.a.example servername=hostname", "OK secure match=mx2.a.example servername=hostname"
	const modern = " protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"
	enforce := func(signed bool, listed []string, hosts ...sort) scene {
		return scene{signed: signed, mode: mtasts.ModeEnforce, listed: listed, rules: all, hosts: hosts}
	}
	dns := func(signed bool, hosts ...sort) scene { return scene{signed: signed, rules: all, hosts: hosts} }
	ruled := func(rules verdict.Rules, s scene) scene { s.rules = rules; return s }
	for _, tt := range []struct {
		what string
		scene
		want string
	}{
		{"nothing published", dns(false, bare), "NOTFOUND "},
		{"a signed domain without TLSA records", dns(true, bare, bare), "NOTFOUND "},
		{"DANE", dns(true, usable), "OK dane-only"},
		{"DANE at two hosts", dns(true, usable, usable), "OK dane-only"},
		{"DANE at one of two hosts", dns(true, bare, usable), "OK dane"},
		{"DANE for an unsigned domain", dns(false, usable, usable), "OK dane"},
		{"unusable records", dns(true, unusable), "OK dane"},
		{"unusable records at one of two hosts", dns(true, usable, unusable), "OK dane"},
		// One host's bad DNS is not the domain's.
		{"one of two TLSA look-ups fails", dns(true, failed, usable), "OK dane"},
		{"the other host has no records", dns(false, failed, bare), "OK dane"},
		{"one host's addresses are unknown", dns(true, unknown, usable), "OK dane"},
		{"and the other has no records", dns(false, bare, unknown), "OK dane"},
		{"all TLSA look-ups fail", dns(true, failed, failed), "TEMP 4.7.5 mx1.a.example: the TLSA records cannot be looked up: SERVFAIL"},
		{"all addresses are unknown", dns(true, unknown), "TEMP 4.4.3 mx: its addresses cannot be looked up"},

		{"MTA-STS", enforce(false, listsAll, bare), secure1 + modern},
		{"MTA-STS, two hosts", enforce(false, listsAll, bare, bare), "OK secure match=mx1.a.example:mx2.a.example servername=hostname" + modern},
		{"MTA-STS for a signed domain", enforce(true, listsAll, bare), secure1 + modern},
		{"a host is not listed", enforce(false, lists2, bare, bare), secure2 + modern},
		{"no host is listed", enforce(false, []string{"elsewhere.example"}, bare, bare), "TEMP 4.7.5 mx1.a.example: the domain's MTA-STS policy does not list this host"},
		{"testing mode", scene{mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{bare}}, "NOTFOUND "},
		{"testing mode with DANE", scene{signed: true, mode: mtasts.ModeTesting, listed: listsAll, rules: all, hosts: []sort{usable}}, "OK dane-only"},

		// RFC 8461 §2: DANE outranks MTA-STS.
		{"DANE and MTA-STS", enforce(true, listsAll, usable), "OK dane-only"},
		{"DANE, and a policy that lists another", enforce(true, []string{"elsewhere.example"}, usable), "OK dane-only"},
		{"DANE at one host, MTA-STS for the other", enforce(true, listsAll, bare, usable), "OK dane-only"},
		{"unusable records and MTA-STS", enforce(true, listsAll, unusable), secure1 + modern},
		{"MTA-STS, one TLSA look-up fails", enforce(true, listsAll, failed, bare), secure2 + modern},
		{"MTA-STS, one host's addresses are unknown", enforce(false, listsAll, unknown, bare), secure2 + modern},
		{"MTA-STS, the only TLSA look-up fails", enforce(true, listsAll, failed), "TEMP 4.7.5 mx1.a.example: the TLSA records cannot be looked up: SERVFAIL"},
		{"MTA-STS, DANE at an unsigned domain's host", enforce(false, listsAll, usable), secure1 + modern},

		{"local_policy encrypted", ruled(encrypted, dns(false, bare)), "OK encrypt"},
		{"local_policy encrypted, DANE", ruled(encrypted, dns(true, bare, usable)), "OK dane-only"},
		{"local_policy encrypted, unsigned DANE", ruled(encrypted, dns(false, usable, bare)), "OK secure match=mx1.a.example:mx2.a.example servername=hostname"},
		{"local_policy encrypted, unusable records", ruled(encrypted, dns(true, unusable)), "OK encrypt"},
		{"local_policy encrypted, MTA-STS", ruled(encrypted, enforce(false, listsAll, bare)), secure1 + modern},
		{"local_policy authenticated", ruled(authenticated, dns(false, bare)), secure1},
		{"local_policy mtasts, nothing published", ruled(vouchedFor, dns(false, bare)), "TEMP 4.7.5 mx1.a.example: MX level none, local_policy requires mtasts"},
		{"local_policy mtasts, testing mode", ruled(vouchedFor, scene{mode: mtasts.ModeTesting, listed: listsAll, hosts: []sort{bare}}), secure1},
		{"local_policy dnssec", ruled(onlySigned, dns(true, bare)), "NOTFOUND "},

		{"without DANE", ruled(noDANE, dns(true, usable)), "NOTFOUND "},
		{"without DANE, MTA-STS", ruled(noDANE, enforce(true, listsAll, usable)), secure1 + modern},
		{"without DANE, addresses unknown", ruled(noDANE, dns(false, unknown)), "NOTFOUND "},
		{"without DANE, MTA-STS, addresses unknown", ruled(onlySTS, enforce(false, listsAll, unknown)), secure1 + modern},
		{"a pin", ruled(keyPinned, dns(false, bare)), "OK fingerprint match=0C" + strings.Repeat(":00", 31) + "|AB:01" + strings.Repeat(":00", 30) + modern},
		{"a pin, local_policy authenticated", ruled(pinnedToo, dns(true, bare, bare)), "OK fingerprint match=0C" + strings.Repeat(":00", 31) + "|AB:01" + strings.Repeat(":00", 30) + modern},
		{"a pin, unusable records", ruled(keyPinned, dns(true, unusable)), "OK fingerprint match=0C" + strings.Repeat(":00", 31) + "|AB:01" + strings.Repeat(":00", 30) + modern},
		{"a pin, DANE", ruled(keyPinned, dns(true, usable)), "TEMP 4.7.5 Postfix has no word for a pin on top of DANE or MTA-STS, which a.example has; mxpipe and LMTP can deliver to it"},
		{"a pin, MTA-STS", ruled(keyPinned, enforce(false, listsAll, bare)), "TEMP 4.7.5 Postfix has no word for a pin on top of DANE or MTA-STS, which a.example has; mxpipe and LMTP can deliver to it"},
		{"no mechanism", ruled(none, enforce(true, listsAll, usable)), "NOTFOUND "},
	} {
		if got := Reply(tt.plan(), false); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.what, got, tt.want)
		}
	}
}

// What an override with an mx_auth of its own says is said, whatever main.cf
// has for domains without a policy; one without changes nothing.
func TestOverridesAreAnswers(t *testing.T) {
	for _, tt := range []struct {
		own   bool
		rules verdict.Rules
		hosts []sort
		want  string
	}{
		{true, none, []sort{usable}, "OK may"},
		{true, onlySTS, []sort{bare}, "OK may"},
		{true, all, []sort{bare}, "OK dane"},
		{true, all, []sort{usable}, "OK dane-only"},
		{true, encrypted, []sort{bare}, "OK encrypt"},
		{false, none, []sort{usable}, "NOTFOUND "},
		{false, all, []sort{bare}, "NOTFOUND "},
	} {
		o := scene{signed: true, rules: tt.rules, hosts: tt.hosts}.plan()
		o.Override, o.OwnPolicies = "a.example", tt.own
		if got := Reply(o, false); got != tt.want {
			t.Errorf("%+v: %q", tt, got)
		}
	}
}

// Domains without a route.
func TestNoHosts(t *testing.T) {
	temporary, permanent := status.Temporary, status.Permanent
	enforce := scene{mode: mtasts.ModeEnforce, listed: listsAll, rules: all}
	for _, tt := range []struct {
		scene
		code status.Code
		want string
	}{
		{scene{rules: all}, status.New(permanent, 4, 4), "NOTFOUND "},
		{scene{rules: all}, status.New(permanent, 1, 10), "NOTFOUND "},
		{scene{rules: encrypted}, status.New(permanent, 1, 10), "OK encrypt"},
		// Postfix may be of another opinion about who is ourselves.
		{scene{rules: all}, status.New(permanent, 4, 6), "TEMP 4.4.6 why"},
		{scene{rules: all}, status.New(temporary, 4, 3), "TEMP 4.4.3 why"},
		{scene{rules: all}, status.New(temporary, 4, 4), "TEMP 4.4.4 why"},
		// Anyone who forges that a domain is gone must not have it lose its
		// policy.
		{enforce, status.New(permanent, 4, 4), "TEMP 4.4.4 why"},
	} {
		tt.err = &status.Error{Code: tt.code, Text: "why"}
		if got := Reply(tt.plan(), false); got != tt.want {
			t.Errorf("%v %v: %q, want %q", tt.code, tt.scene, got, tt.want)
		}
	}
}

// Host names that mean something else after match= are never there.
func TestNamesThatAreWords(t *testing.T) {
	for _, name := range []string{"hostname", "nexthop", "dot-nexthop", "[192.0.2.1]"} {
		o := scene{mode: mtasts.ModeEnforce, listed: []string{"mx1.a.example", strings.Trim(name, "[]")}, rules: all, hosts: []sort{bare, bare}}.plan()
		o.Hosts[0].Host.Name = name
		if got := Reply(o, false); !strings.HasPrefix(got, "OK secure match=mx2.a.example ") && !strings.HasPrefix(got, "TEMP ") {
			t.Errorf("%s: %q", name, got)
		}
	}
}

// fresh are the states in which Postfix may find a host when it asks the DNS
// itself, some time later.
func fresh(s sort) []sort {
	if s == failed || s == unknown {
		return []sort{bare, usable, unusable, failed}
	}
	return []sort{s}
}

// postfix is what Postfix asks of a host whose DNS it finds so; ok is false
// when it does not use the host. It is written after TLS_README, not after the
// code under test.
func postfix(level Level, signed bool, found sort) (need verdict.Need, ok bool) {
	switch level {
	case Default, May:
		return verdict.NeedNothing, true
	case Encrypt:
		return verdict.NeedTLS, true
	case DANE:
		switch found {
		case usable:
			return verdict.NeedDANE, true
		case unusable:
			return verdict.NeedTLS, true
		case bare:
			return verdict.NeedNothing, true
		}
		return 0, false
	case DANEOnly:
		return verdict.NeedDANE, signed && found == usable
	case Secure:
		return verdict.NeedWebPKI, true
	case Fingerprint:
		return verdict.NeedProof, true // and the pin
	}
	return 0, false
}

// No answer is weaker than the verdict for any host that Postfix may then use,
// and an answer never holds mail up for which some host is eligible: for every
// mixture of two and three hosts, of policies and of minima.
func TestNoAnswerIsWeakerThanTheVerdict(t *testing.T) {
	var mixtures [][]sort
	for a := range sorts {
		for b := range sorts {
			mixtures = append(mixtures, []sort{a, b})
			for c := range sorts {
				mixtures = append(mixtures, []sort{a, b, c})
			}
		}
	}
	for _, signed := range []bool{true, false} {
		for _, listed := range [][]string{nil, listsAll, lists2, {"elsewhere.example"}} {
			for _, mode := range []mtasts.Mode{mtasts.ModeTesting, mtasts.ModeEnforce} {
				for _, rules := range []verdict.Rules{all, encrypted, authenticated, vouchedFor, onlySigned, noDANE, onlySTS, none, keyPinned, pinnedToo} {
					for _, hosts := range mixtures {
						scene{signed: signed, mode: mode, listed: listed, rules: rules, hosts: hosts}.check(t)
					}
				}
			}
		}
	}
}

func (s scene) check(t *testing.T) {
	o := s.plan()
	p := Decide(o)
	eligible, served := 0, 0
	for i := range o.Hosts {
		h := o.Hosts[i]
		if may, gets := s.checkHost(t, p, h, s.hosts[i]); may {
			eligible++
			if gets {
				served++
			}
		}
	}
	if !s.signed {
		s.checkStranger(t, p, o)
	}
	// a pin beside another proof is what Postfix has no word for
	if eligible > 0 && served == 0 && s.rules.Pins.Empty() {
		t.Errorf("%v: %+v, and no host gets mail", s, p)
	}
	if p.Level == Refused && p.Reason == "" {
		t.Errorf("%v: no reason", s)
	}
}

// checkHost tells whether the host may have mail by its verdict, and whether
// it gets some from Postfix.
func (s scene) checkHost(t *testing.T, p Policy, h *plan.Host, what sort) (may, gets bool) {
	may = h.Err == nil && h.Verdict.Refusal == nil
	if p.Level == Secure {
		named := slices.Contains(p.Names, h.Host.Name)
		if !named {
			return may, false
		}
		// A server that proves to be this host gets the mail.
		v := h.Verdict
		if h.Err != nil || v.Need == verdict.NeedDANE && !s.signed {
			// Its addresses do not matter, or DANE has no say: the verdict
			// without it.
			rules := s.rules
			if rules.DANE && h.Err != nil {
				t.Errorf("%v: %s is named, of which nothing is known", s, h.Host.Name)
			}
			rules.DANE = false
			v = verdict.Decide(h.Facts, rules, verdict.Demands{Relaxed: true})
		}
		if v.Refusal != nil || v.Need > verdict.NeedWebPKI || v.Need == verdict.NeedWebPKI && !p.TLS12 {
			t.Errorf("%v: %+v names %s: %v %v", s, p, h.Host.Name, v.Refusal, v.Need)
		}
		return may, true
	}
	for _, found := range fresh(what) {
		need, used := postfix(p.Level, s.signed, found)
		if !used {
			continue
		}
		gets = true
		facts := h.Facts
		if s.rules.DANE {
			facts.TLSA = found.tlsa()
		}
		v := verdict.Decide(facts, s.rules, verdict.Demands{Relaxed: true})
		// Without a look at the records Postfix takes what they were for us.
		if p.Level != DANE && p.Level != DANEOnly && s.rules.DANE && h.Err != nil || !v.Pins.Empty() && p.Level != Fingerprint || v.Refusal != nil || need < v.Need {
			t.Errorf("%v: %+v asks %v of %s, found %v, where the verdict is %v %v", s, p, need, h.Host.Name, found, v.Refusal, v.Need)
		}
	}
	return may, gets
}

// checkStranger looks at a host that a forger put into the MX set. What it asks
// for by records of its own is the forger's business.
func (s scene) checkStranger(t *testing.T, p Policy, o *plan.Plan) {
	need, used := postfix(p.Level, false, bare)
	if !used || p.Level == Secure {
		return
	}
	v := verdict.Decide(verdict.Facts{Host: "mx.forger.example", STS: o.STS}, s.rules, verdict.Demands{Relaxed: true})
	if v.Refusal != nil || need < v.Need || !v.Pins.Empty() && p.Level != Fingerprint {
		t.Errorf("%v: %+v asks %v of a forger's host, where the verdict is %v %v", s, p, need, v.Refusal, v.Need)
	}
}
