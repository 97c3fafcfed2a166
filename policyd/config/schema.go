package config

import (
	"errors"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
)

// config reads the whole file. What leans on other keys (policy sets on
// state_dir, transports on hostname and policy sets, LMTP sockets on
// transports) is read after them, whatever the order of the file.
func (d *decoder) config(root value) *Config {
	c := &Config{
		ShutdownTimeout: 30 * time.Second,
		Log:             Log{Level: slog.LevelInfo, Format: LogText},
		DNS:             DNS{TrustAD: TrustLoopback, Timeout: 5 * time.Second, Attempts: 3},
		MaxMessageSize:  100 << 20,
		MaxDeliveries:   1000,
		History:         History{Entries: 10_000, Memory: 16 << 20},
	}
	seen := root.block(d.topKeys(c)...)
	if _, given := seen["state_dir"]; !given {
		c.StateDir = d.defaultStateDir()
	}
	if _, given := seen["hostname"]; !given {
		c.Hostname = d.defaultHostname()
	}
	if r := c.TLSRPT.Report; r != nil && r.Organization == "" {
		r.Organization = c.Hostname
	}
	c.MXAuth = map[string]transport.PolicySet{BuiltinPolicySet: builtinPolicies(c.StateDir)}
	if v, given := seen["mx_auth"]; given && !v.isNull() {
		c.MXAuth = d.policySets(v, c.StateDir)
	}
	c.Transports = make(map[string]*transport.Config)
	if v, given := seen["transports"]; given && !v.isNull() {
		d.transports(v, c)
	}
	if c.Transports[DefaultTransport] == nil {
		t := newTransport(DefaultTransport, c.Hostname)
		t.MXAuth = builtinPolicies(c.StateDir)
		c.Transports[DefaultTransport] = t
	}
	if v, given := seen["listen"]; given && !v.isNull() {
		d.listen(v, c)
	} else {
		c.Listen = Listen{Builtin: true, Pipe: newSocket("pipe", 0o660), Admin: &Admin{Socket: *newSocket("admin", 0o600)}}
	}
	d.warnUntold(&c.Listen)
	return c
}

// topKeys is the top level of the schema.
func (d *decoder) topKeys(c *Config) []key {
	later := func(value) {}
	return []key{
		{"hostname", set(&c.Hostname, hostname())},
		{"state_dir", set(&c.StateDir, absolute())},
		{"shutdown_timeout", set(&c.ShutdownTimeout, duration(0, time.Hour))},
		{"log", func(v value) { v.block(logKeys(&c.Log)...) }},
		{"dns", func(v value) { v.block(dnsKeys(&c.DNS)...) }},
		{"listen", later},
		{"max_message_size", set(&c.MaxMessageSize, size(1<<10, 2<<30))},
		{"max_deliveries", set(&c.MaxDeliveries, number(1, 100_000))},
		{"mx_auth", later},
		{"transports", later},
		{"tlsrpt", func(v value) { d.tlsrpt(v, c) }},
		{"providers", func(v value) { d.providers(v, c) }},
		{"replies", func(v value) { d.replies(v, c) }},
		{"history", func(v value) { v.block(historyKeys(&c.History)...) }},
	}
}

func historyKeys(h *History) []key {
	return []key{
		{"entries", set(&h.Entries, number(1, 1_000_000))},
		{"memory", set(&h.Memory, size(64<<10, 4<<30))},
		{"keep", set(&h.Keep, boolean())},
		{"addresses", set(&h.Addresses, boolean())},
	}
}

func logKeys(l *Log) []key {
	return []key{
		{"level", set(&l.Level, oneOf(choice[slog.Level]{"debug", slog.LevelDebug}, choice[slog.Level]{"info", slog.LevelInfo},
			choice[slog.Level]{"warn", slog.LevelWarn}, choice[slog.Level]{"error", slog.LevelError}))},
		{"format", set(&l.Format, oneOf(choice[LogFormat]{"text", LogText}, choice[LogFormat]{"json", LogJSON},
			choice[LogFormat]{"journal", LogJournal}))},
	}
}

func dnsKeys(n *DNS) []key {
	return []key{
		{"servers", setList(&n.Servers, 10, resolver())},
		{"trust_ad", set(&n.TrustAD, oneOf(choice[TrustAD]{"loopback", TrustLoopback}, choice[TrustAD]{"all", TrustAll},
			choice[TrustAD]{"none", TrustNone}))},
		{"timeout", set(&n.Timeout, duration(time.Millisecond, time.Minute))},
		{"attempts", set(&n.Attempts, number(1, 10))},
	}
}

// elsewhere tells which key was given in the wrong place and where in the
// schema it belongs, "" when it belongs nowhere.
func (d *decoder) elsewhere(name string) (known, where string) {
	var t transport.Config
	var p transport.PolicySet
	for _, place := range []struct {
		where string
		keys  []key
	}{
		{"at the top level", d.topKeys(&Config{})},
		{"in listen", listenKeys(&Listen{}, nil)},
		{"in dns", dnsKeys(&DNS{})},
		{"in log", logKeys(&Log{})},
		{"in tlsrpt.report", tlsReportKeys(&TLSReport{})},
		{"in history", historyKeys(&History{})},
		{"in mx_auth.NAME", policyKeys(&p, "")},
		{"in mx_auth.NAME.mtasts", mtastsKeys(&transport.MTASTS{}, "")},
		{"in mx_auth.NAME.local_policy", localPolicyKeys(&transport.LocalPolicy{})},
		{"in transports.NAME", d.transportKeys(&t, nil, "")},
		{"in transports.NAME", []key{{name: "overrides"}}},
		{"in transports.NAME.overrides", overrideKeys(&transport.Override{})},
		{"in transports.NAME.sources", []key{{name: "pool"}}},
		{"in transports.NAME.sources.pool", []key{{name: "daily"}, {name: "weight"}}},
		{"in providers.NAME", providerKeys(&provider.Provider{}, &limit.Limit{})},
		{"in replies", replyKeys(&replyrule.Rule{})},
		{"in replies.do", replyActionKeys(&replyrule.Rule{})},
		{"in transports.NAME.tls_client", d.tlsKeys(&t.TLSClient, new([]uint16))},
		{"in transports.NAME.limits", limitsKeys(&t.Limits)},
		{"in transports.NAME.proxy", []key{{name: "password_file"}}},
		// the other names are common
		{"in transports.NAME.relay", []key{{name: "password_file"}, {name: "auth"}}},
	} {
		for _, k := range place.keys {
			if folded(k.name) == folded(name) {
				return k.name, place.where
			}
		}
	}
	return "", ""
}

// defaultStateDir takes the first of systemd's state directories.
func (d *decoder) defaultStateDir() string {
	first, _, _ := strings.Cut(d.env.StateDirectory, ":")
	if first == "" {
		return DefaultStateDir
	}
	dir, err := absolute().read(first)
	if err != nil {
		d.mistake(&yaml.Node{}, "state_dir: not given, and $STATE_DIRECTORY: %s; expected an absolute path", err)
		return DefaultStateDir
	}
	return dir
}

// defaultHostname takes this host's own name, which need not be fit for EHLO.
func (d *decoder) defaultHostname() string {
	var name string
	err := errors.New("is not known")
	if d.env.FQDN != nil {
		name, err = hostname().read(d.env.FQDN())
	}
	if err != nil {
		d.mistake(&yaml.Node{}, "hostname: not given, and this host's own name: %s; expected a key such as hostname: mx.example.org", err)
	}
	return name
}

// transports reads the transports in the order of the file.
func (d *decoder) transports(v value, c *Config) {
	v.named("a transport", func(name string, v value) {
		t := newTransport(name, c.Hostname)
		c.Transports[name] = t
		d.transport(v, t, c)
	})
}

// policySets reads the named policy sets. One with a mistake is there all the
// same, so that its users are not complained of too.
func (d *decoder) policySets(v value, state string) map[string]transport.PolicySet {
	sets := make(map[string]transport.PolicySet)
	v.named("a policy set", func(name string, v value) {
		if noPolicies(name) {
			v.wrong("%s as a name means no mechanism at all; expected another name", quote(name))
		}
		sets[name] = policySet(v, state)
	})
	return sets
}

// sortedNames gives the keys of a map in order.
func sortedNames[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
