package config

import (
	"crypto/tls"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// newTransport gives a transport with the defaults of its keys; it obeys no
// mechanism yet.
func newTransport(name, hostname string) *transport.Config {
	return &transport.Config{
		Name:               name,
		Hostname:           hostname,
		Port:               25,
		ConnectTimeout:     5 * time.Minute,
		CommandTimeout:     5 * time.Minute,
		SubmissionTimeout:  12 * time.Minute,
		RequireTLSOverride: true,
		RelaxedRequireTLS:  true,
		ConnReuseLimit:     10,
		ConnMaxIdleCount:   10,
		ConnMaxIdleTime:    150 * time.Second,
		Chunking:           transport.ChunkingPipelined,
		TLSClient:          transport.TLSClient{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, Legacy: true},
	}
}

// transport reads one transport and then its overrides, which start from it.
func (d *decoder) transport(v value, t *transport.Config, c *Config) {
	if v.isNull() {
		v.wrong("has no value; expected a block of keys such as mx_auth: NAME")
		return
	}
	overrides := key{"overrides", func(value) {}}
	seen := v.block(append(d.transportKeys(t, c.MXAuth, c.StateDir), overrides)...)
	if _, given := seen["mx_auth"]; !given {
		d.warn(v.node, "%s has no mx_auth, so it uses neither DANE nor MTA-STS and requires no TLS; expected mx_auth: with %s, or mx_auth: none if that is intended",
			v.path, joinOr(append(sortedNames(c.MXAuth), "a block of its own")))
	}
	checkSource(seen, t)
	d.noteUntold(seen, t.Name)
	if v, given := seen["overrides"]; given && !v.isNull() {
		d.overrides(v, t, c)
	}
}

// transportKeys is the schema of a transport and of an override.
func (d *decoder) transportKeys(t *transport.Config, sets map[string]transport.PolicySet, state string) []key {
	timeout := duration(time.Millisecond, 24*time.Hour)
	return []key{
		{"mx_auth", mxAuth(&t.MXAuth, sets, state)},
		{"hostname", set(&t.Hostname, hostname())},
		{"local_ip", localIP(&t.LocalIP)},
		{"sources", func(v value) { sources(v, t) }},
		{"force_ipv4", set(&t.ForceIPv4, boolean())},
		{"prefer", set(&t.Prefer, oneOf(choice[transport.Family]{"any", transport.AnyFamily}, choice[transport.Family]{"ipv4", transport.IPv4}, choice[transport.Family]{"ipv6", transport.IPv6}))},
		{"proxy", func(v value) { d.proxy(v, t) }},
		{"port", set(&t.Port, port())},
		{"connect_timeout", set(&t.ConnectTimeout, timeout)},
		{"command_timeout", set(&t.CommandTimeout, timeout)},
		{"submission_timeout", set(&t.SubmissionTimeout, timeout)},
		{"debug", set(&t.Debug, boolean())},
		{"requiretls_override", set(&t.RequireTLSOverride, boolean())},
		{"relaxed_requiretls", set(&t.RelaxedRequireTLS, boolean())},
		{"conn_reuse_limit", set(&t.ConnReuseLimit, number(0, 1_000_000))},
		{"conn_max_idle_count", set(&t.ConnMaxIdleCount, number(0, 10_000))},
		{"conn_max_idle_time", set(&t.ConnMaxIdleTime, timeout)},
		{"chunking", set(&t.Chunking, oneOf(choice[transport.Chunking]{"pipelined", transport.ChunkingPipelined},
			choice[transport.Chunking]{"waiting", transport.ChunkingWaiting}, choice[transport.Chunking]{"off", transport.ChunkingOff}))},
		{"quarantine_header", set(&t.QuarantineHeader, optional(headerField()))},
		{"tls_client", func(v value) { d.tlsClient(v, &t.TLSClient) }},
		{"limits", func(v value) {
			if v.isOff() {
				t.Limits = limit.ByScope{}
				return
			}
			v.block(limitsKeys(&t.Limits)...)
		}},
		{"relay", func(v value) { d.relay(v, t) }},
		{"fallback_relay", func(v value) { d.fallbackRelay(v, t) }},
	}
}

// firstOf gives the first of two keys that a block has.
func firstOf(seen map[string]value, first, second string) (value, bool) {
	if at, ok := seen[first]; ok {
		return at, true
	}
	at, ok := seen[second]
	return at, ok
}

// isOff reports whether a value is the word off, or false.
func (v value) isOff() bool {
	return v.node.Kind == yaml.ScalarNode && (v.node.Value == "off" || v.node.Value == "false")
}

// limitsKeys is the schema of limits, a key for each scope. A limit replaces
// the one that an override inherits as a whole.
func limitsKeys(l *limit.ByScope) []key {
	keys := make([]key, 0, limit.Scopes)
	for scope := range limit.Scopes {
		keys = append(keys, key{scope.Word(), limitOf(&l[scope])})
	}
	return keys
}

// limitOf reads the limit of one scope.
func limitOf(into *limit.Limit) func(value) {
	return func(v value) {
		*into = limit.Limit{}
		if v.isOff() {
			return
		}
		var bucket limit.Limit
		v.block(
			key{"rate", set(&bucket, rate())},
			key{"concurrency", set(&into.Concurrency, number(1, 100_000))})
		into.Rate, into.Period = bucket.Rate, bucket.Period
	}
}

// overrides reads a transport's overrides. Each is the transport's own
// settings with the override's keys laid over: a key replaces the
// transport's, the blocks tls_client and limits do so key by key, and mx_auth
// as a whole.
func (d *decoder) overrides(v value, t *transport.Config, c *Config) {
	if v.node.Kind != yaml.SequenceNode {
		v.notKind("a list of blocks such as - {match: example.org, mx_auth: none}")
		return
	}
	lines := make(map[string]int) // of the patterns so far
	relays := []*relay.Relay{t.Relay}
	var all []transport.Override
	for i := range v.node.Content {
		item := v.item(i)
		laid := *t
		o := transport.Override{Config: &laid}
		nested := key{"overrides", func(v value) { v.wrong("an override cannot have overrides; expected another item of the list") }}
		keys := append(overrideKeys(&o), d.transportKeys(&laid, c.MXAuth, c.StateDir)...)
		if item.node.Kind != yaml.MappingNode {
			item.notKind("a block with match and other keys")
			continue
		}
		seen := item.block(append(keys, nested)...)
		checkSource(seen, &laid)
		checkRelay(seen, &laid)
		if at, given := seen["relay"]; given {
			d.compareRelay(at, laid.Relay, relays)
			relays = append(relays, laid.Relay)
		}
		d.noteUntold(seen, t.Name)
		if match, given := seen["match"]; !given {
			item.wrong("match is missing; expected a key such as match: example.org")
		} else if o.Match != "" {
			if line := matchedBefore(o.Match, lines); line > 0 {
				match.wrong("%s is never reached, as line %d matches it first; move it above that line or remove it", quote(o.Match), line)
			} else {
				lines[o.Match] = match.node.Line
			}
		}
		all = append(all, o)
	}
	t.Overrides = all
}

func overrideKeys(o *transport.Override) []key {
	return []key{
		{"match", set(&o.Match, pattern())},
		{"nexthop", set(&o.Nexthop, optional(nexthop()))},
		{"pin", pins(&o.Pins)},
	}
}

// matchedBefore gives the line of an earlier pattern that takes everything a
// pattern matches, 0 when there is none.
func matchedBefore(match string, lines map[string]int) int {
	if line := lines[match]; line > 0 {
		return line
	}
	for rest := strings.TrimPrefix(match, "."); ; {
		_, parent, found := strings.Cut(rest, ".")
		if !found {
			return 0
		}
		if line := lines["."+parent]; line > 0 {
			return line
		}
		rest = parent
	}
}
