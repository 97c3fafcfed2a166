package config

import (
	"crypto/tls"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

// Change is one setting that differs between two configurations.
type Change struct {
	// of the key, as in "transports.default.port"; an override is named by its
	// match
	Path     string
	Old, New string // as the file would say it; empty: not there
}

// String gives the line for the log, with control characters escaped.
func (c Change) String() string {
	return c.Path + ": " + strconv.Quote(c.Old) + " -> " + strconv.Quote(c.New)
}

// Changes lists what differs from one configuration to the next, by path, for
// the log of a reload. A changed policy set shows up at every transport and
// override that uses it as well.
func Changes(from, to *Config) []Change {
	before, after := settings(from), settings(to)
	paths := maps.Clone(before)
	maps.Copy(paths, after)
	var changes []Change
	for _, path := range slices.Sorted(maps.Keys(paths)) {
		if before[path] != after[path] {
			changes = append(changes, Change{path, before[path], after[path]})
		}
	}
	return changes
}

// settings writes every setting as the file would say it, by path. A setting
// that is not there is left out.
func settings(c *Config) map[string]string {
	s := dump{}
	s.put("hostname", c.Hostname)
	s.put("state_dir", c.StateDir)
	s.put("shutdown_timeout", formatDuration(c.ShutdownTimeout))
	s.put("log.level", strings.ToLower(c.Log.Level.String()))
	s.put("log.format", c.Log.Format.String())
	s.put("dns.servers", strings.Join(c.DNS.Servers, " "))
	s.put("dns.trust_ad", c.DNS.TrustAD.String())
	s.put("dns.timeout", formatDuration(c.DNS.Timeout))
	s.put("dns.attempts", strconv.Itoa(c.DNS.Attempts))
	s.put("max_message_size", bytesText(c.MaxMessageSize))
	s.put("max_deliveries", strconv.Itoa(c.MaxDeliveries))
	s.put("tlsrpt.socket", c.TLSRPT.Socket)
	if r := c.TLSRPT.Report; r != nil {
		s.put("tlsrpt.report.organization", r.Organization)
		s.put("tlsrpt.report.contact", r.Contact)
		s.put("tlsrpt.report.from", r.From)
		s.put("tlsrpt.report.send", r.Send)
		s.put("tlsrpt.report.exclude", strings.Join(r.Exclude, " "))
		s.put("tlsrpt.report.allow_private", strings.Trim(fmt.Sprint(r.AllowPrivate), "[]"))
		s.put("tlsrpt.report.max_size", bytesText(r.MaxSize))
	}
	for _, p := range c.Providers {
		s.put("providers."+p.Name+".mx", strings.Join(p.MX, " "))
	}
	for name, l := range c.ProviderLimits {
		s.limit("providers."+name+".limits", l)
	}
	for i := range c.Replies {
		r := &c.Replies[i]
		at := fmt.Sprintf("replies[%d].", i)
		s.put(at+"match", r.Match)
		s.put(at+"provider", r.Provider)
		switch r.Do {
		case replyrule.Pause:
			s.put(at+"do.pause", formatDuration(r.Pause))
			s.put(at+"do.scope", r.Scope.String())
		default:
			s.put(at+"do", r.Do.String())
		}
	}
	s.put("history.entries", strconv.Itoa(c.History.Entries))
	s.put("history.memory", bytesText(c.History.Memory))
	s.put("history.keep", strconv.FormatBool(c.History.Keep))
	s.put("history.addresses", strconv.FormatBool(c.History.Addresses))
	s.listen(&c.Listen)
	for name, p := range c.MXAuth {
		s.policies("mx_auth."+name, p)
	}
	for name, t := range c.Transports {
		s.transport("transports."+name, t)
	}
	return s
}

type dump map[string]string

func (s dump) put(path, text string) {
	if text != "" {
		s[path] = text
	}
}

func (s dump) listen(l *Listen) {
	if l.Pipe != nil {
		s.socket("listen.pipe", *l.Pipe)
	}
	for i, m := range l.LMTP {
		path := fmt.Sprintf("listen.lmtp[%d]", i)
		s.socket(path, m.Socket)
		s.put(path+".transport", m.Transport)
	}
	if l.Socketmap != nil {
		s.socket("listen.socketmap", l.Socketmap.Socket)
		s.put("listen.socketmap.address", l.Socketmap.Address)
	}
	if l.Admin != nil {
		s.socket("listen.admin", l.Admin.Socket)
		s.put("listen.admin.pprof", strconv.FormatBool(l.Admin.PProf))
	}
	s.put("listen.metrics.address", l.Metrics)
}

func (s dump) socket(path string, k Socket) {
	if k.Path == "" {
		return
	}
	s.put(path+".path", k.Path)
	s.put(path+".mode", fmt.Sprintf("%04o", k.Mode))
	s.put(path+".group", k.Group)
}

func (s dump) policies(path string, p transport.PolicySet) {
	s.put(path+".dnssec", onOff(p.DNSSEC))
	s.put(path+".dane", onOff(p.DANE))
	s.put(path+".mtasts", onOff(p.MTASTS != nil))
	if m := p.MTASTS; m != nil {
		cache := "ram"
		if m.OnDisk {
			cache = "fs"
			s.put(path+".mtasts.fs_dir", m.Dir)
		}
		s.put(path+".mtasts.cache", cache)
		s.put(path+".mtasts.https_port", strconv.Itoa(int(m.HTTPSPort)))
	}
	s.put(path+".local_policy", onOff(p.Local != nil))
	if l := p.Local; l != nil {
		s.put(path+".local_policy.min_tls_level", l.MinTLS.String())
		s.put(path+".local_policy.min_mx_level", l.MinMX.String())
	}
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

func (s dump) transport(path string, t *transport.Config) {
	s.policies(path+".mx_auth", t.MXAuth)
	s.put(path+".hostname", t.Hostname)
	s.put(path+".local_ip", joined(t.LocalIP, netip.Addr.String))
	s.sources(path+".sources", t.Sources)
	s.put(path+".force_ipv4", strconv.FormatBool(t.ForceIPv4))
	s.put(path+".prefer", t.Prefer.String())
	s.proxy(path+".proxy", t.Proxy)
	s.put(path+".port", strconv.Itoa(int(t.Port)))
	s.put(path+".connect_timeout", formatDuration(t.ConnectTimeout))
	s.put(path+".command_timeout", formatDuration(t.CommandTimeout))
	s.put(path+".submission_timeout", formatDuration(t.SubmissionTimeout))
	s.put(path+".debug", strconv.FormatBool(t.Debug))
	s.put(path+".requiretls_override", strconv.FormatBool(t.RequireTLSOverride))
	s.put(path+".relaxed_requiretls", strconv.FormatBool(t.RelaxedRequireTLS))
	s.put(path+".conn_reuse_limit", strconv.Itoa(t.ConnReuseLimit))
	s.put(path+".conn_max_idle_count", strconv.Itoa(t.ConnMaxIdleCount))
	s.put(path+".conn_max_idle_time", formatDuration(t.ConnMaxIdleTime))
	s.put(path+".chunking", chunkingWord(t.Chunking))
	s.put(path+".quarantine_header", t.QuarantineHeader)
	s.tls(path+".tls_client", &t.TLSClient)
	for scope, l := range t.Limits {
		s.limit(path+".limits."+limit.Scope(scope).Word(), l)
	}
	if t.Relay != nil {
		s.relay(path+".relay", t.Relay)
	}
	if f := t.FallbackRelay; f != nil {
		s.relay(path+".fallback_relay", &f.Relay)
		s.put(path+".fallback_relay.after", formatDuration(f.After))
		s.put(path+".fallback_relay.trusted", strconv.FormatBool(f.Trusted))
	}
	order := make([]string, len(t.Overrides))
	for i, o := range t.Overrides {
		order[i] = o.Match
		at := path + ".overrides[" + o.Match + "]"
		s.put(at+".nexthop", o.Nexthop)
		s.put(at+".pin", joined(o.Pins, pin.Pin.String))
		s.transport(at, o.Config)
	}
	s.put(path+".overrides", strings.Join(order, " "))
}

func (s dump) relay(path string, r *relay.Relay) {
	s.put(path+".host", r.String())
	s.put(path+".tls", r.TLS.String())
	s.put(path+".user", r.User)
	s.put(path+".password_file", r.PasswordFile)
	s.put(path+".auth", joined(r.Auth, sasl.Mechanism.Word))
}

func chunkingWord(c transport.Chunking) string {
	switch c {
	case transport.ChunkingWaiting:
		return "waiting"
	case transport.ChunkingOff:
		return "off"
	}
	return "pipelined"
}

func (s dump) tls(path string, c *transport.TLSClient) {
	protocols := protocolName(c.MinVersion) + " " + protocolName(c.MaxVersion)
	if c.FixedVersions && c.MinVersion == tls.VersionTLS12 && c.MaxVersion == tls.VersionTLS13 {
		// which the same, not written out, does not say
		protocols += ", and no others"
	}
	s.put(path+".protocols", protocols)
	s.put(path+".legacy", strconv.FormatBool(c.Legacy))
	s.put(path+".ciphers", joined(c.Ciphers, tls.CipherSuiteName))
	s.put(path+".curves", joined(c.Curves, func(id uint16) string { return tls.CurveID(id).String() }))
	s.put(path+".root_ca", strings.Join(c.RootCA, " "))
	s.put(path+".cert", c.Cert)
	s.put(path+".key", c.Key)
}

func (s dump) limit(path string, l limit.Limit) {
	if l.Rate > 0 {
		s.put(path+".rate", strconv.Itoa(l.Rate)+"/"+formatDuration(l.Period))
	}
	if l.Concurrency > 0 {
		s.put(path+".concurrency", strconv.Itoa(l.Concurrency))
	}
}

func joined[T any](list []T, text func(T) string) string {
	words := make([]string, len(list))
	for i, l := range list {
		words[i] = text(l)
	}
	return strings.Join(words, " ")
}
