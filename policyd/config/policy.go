package config

import (
	"path/filepath"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// BuiltinPolicySet is the name of the policy set that exists when the file has
// no mx_auth key.
const BuiltinPolicySet = "outbound"

// mtastsDir is the default of fs_dir.
const mtastsDir = "mtasts_cache"

// builtinPolicies enforces everything that a domain publishes and asks nothing
// of those that publish nothing.
func builtinPolicies(state string) transport.PolicySet {
	return transport.PolicySet{DNSSEC: true, DANE: true, MTASTS: newMTASTS(state)}
}

func newMTASTS(state string) *transport.MTASTS {
	return &transport.MTASTS{OnDisk: true, Dir: filepath.Join(state, mtastsDir), HTTPSPort: 443}
}

// noPolicies reports whether a word in the place of a policy set's name means
// that there is none.
func noPolicies(word string) bool { return word == "none" || word == "off" }

// mxAuth reads a transport's mx_auth: the name of a policy set, a block in
// place, or none.
func mxAuth(into *transport.PolicySet, sets map[string]transport.PolicySet, state string) func(value) {
	return func(v value) {
		switch {
		case v.isNull():
			v.wrong("has no value; expected the name of a policy set, a block, or none")
		case v.node.Kind == yaml.MappingNode:
			*into = policySet(v, state)
		case v.node.Kind == yaml.ScalarNode && noPolicies(v.node.Value):
			*into = transport.PolicySet{}
		default:
			defined := sortedNames(sets)
			if name, ok := plain(v, known("policy set", append(defined, "none"))); ok {
				*into = sets[name]
			}
		}
	}
}

// policySet reads one mx_auth block.
func policySet(v value, state string) transport.PolicySet {
	var p transport.PolicySet
	if v.isNull() {
		v.wrong("has no value; expected a block with dnssec, dane, mtasts or local_policy, or {} for none of them")
		return p
	}
	before := v.d.count
	seen := v.block(policyKeys(&p, state)...)
	if local, ok := seen["local_policy"]; ok && p.Local != nil && before == v.d.count {
		switch {
		case p.Local.MinMX == verdict.MXDNSSEC && !p.DNSSEC:
			local.wrong("min_mx_level dnssec can never be met here; add dnssec: {} to the same policy set")
		case p.Local.MinMX == verdict.MXMTASTS && p.MTASTS == nil && !p.DNSSEC:
			local.wrong("min_mx_level mtasts can never be met here; add mtasts: {} or dnssec: {} to the same policy set")
		}
	}
	return p
}

// policyKeys is the schema of a policy set.
func policyKeys(p *transport.PolicySet, state string) []key {
	return []key{
		{"dnssec", func(v value) { p.DNSSEC = v.mechanism() }},
		{"dane", func(v value) { p.DANE = v.mechanism() }},
		{"mtasts", func(v value) {
			m := newMTASTS(state)
			if v.mechanism(mtastsKeys(m, state)...) {
				p.MTASTS = m
			}
			if !m.OnDisk {
				m.Dir = ""
			}
		}},
		{"local_policy", func(v value) {
			l := &transport.LocalPolicy{MinTLS: verdict.TLSEncrypted, MinMX: verdict.MXNone}
			if v.mechanism(localPolicyKeys(l)...) {
				p.Local = l
			}
		}},
	}
}

func mtastsKeys(m *transport.MTASTS, state string) []key {
	return []key{
		{"cache", set(&m.OnDisk, oneOf(choice[bool]{"fs", true}, choice[bool]{"ram", false}))},
		{"fs_dir", set(&m.Dir, stateful(state))},
		{"https_port", set(&m.HTTPSPort, port())},
	}
}

func localPolicyKeys(l *transport.LocalPolicy) []key {
	return []key{
		{"min_tls_level", set(&l.MinTLS, oneOf(levels(verdict.TLSNone, verdict.TLSEncrypted, verdict.TLSAuthenticated)...))},
		{"min_mx_level", set(&l.MinMX, oneOf(levels(verdict.MXNone, verdict.MXMTASTS, verdict.MXDNSSEC)...))},
	}
}

// levels lists levels by their own words.
func levels[T interface{ String() string }](all ...T) []choice[T] {
	list := make([]choice[T], len(all))
	for i, l := range all {
		list[i] = choice[T]{l.String(), l}
	}
	return list
}

// mechanism reads one mechanism of a policy set, a block with these keys or
// the words on and off, and reports whether it is used. Nothing at all after
// the key is refused: it could mean either.
func (v value) mechanism(keys ...key) bool {
	if v.node.Kind == yaml.MappingNode {
		v.block(keys...)
		return true
	}
	want := "{} or off"
	if len(keys) > 0 {
		want = "{}, a block with " + strings.Join(names(keys), ", ") + ", or off"
	}
	f := boolean()
	f.want = want
	used, _ := plain(v, f)
	return used
}
