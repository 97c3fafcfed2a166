package config

import (
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/source"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// someHost is a machine that varies with nothing.
func someHost() Environment {
	return Environment{FQDN: func() string { return "host.example.net" }}
}

// defaults is what the built-in configuration must be.
func defaults() *Config {
	policies := func() transport.PolicySet {
		return transport.PolicySet{DNSSEC: true, DANE: true,
			MTASTS: &transport.MTASTS{OnDisk: true, Dir: "/var/lib/mxpolicyd/mtasts_cache", HTTPSPort: 443}}
	}
	return &Config{
		Hostname:        "host.example.net",
		StateDir:        "/var/lib/mxpolicyd",
		ShutdownTimeout: 30 * time.Second,
		Log:             Log{slog.LevelInfo, LogText},
		DNS:             DNS{nil, TrustLoopback, 5 * time.Second, 3},
		MaxMessageSize:  100 * 1024 * 1024,
		MaxDeliveries:   1000,
		History:         History{Entries: 10_000, Memory: 16 << 20},
		MXAuth:          map[string]transport.PolicySet{"outbound": policies()},
		Transports:      map[string]*transport.Config{"default": defaultTransport(policies())},
		Listen: Listen{
			Builtin: true,
			Pipe:    &Socket{"/run/mxpolicyd/pipe.sock", 0o660, ""},
			Admin:   &Admin{Socket: Socket{"/run/mxpolicyd/admin.sock", 0o600, ""}},
		},
	}
}

func defaultTransport(p transport.PolicySet) *transport.Config {
	return &transport.Config{
		Name: "default", MXAuth: p, Hostname: "host.example.net", Port: 25,
		ConnectTimeout: 5 * time.Minute, CommandTimeout: 5 * time.Minute, SubmissionTimeout: 12 * time.Minute,
		RequireTLSOverride: true, RelaxedRequireTLS: true,
		ConnReuseLimit: 10, ConnMaxIdleCount: 10, ConnMaxIdleTime: 150 * time.Second,
		Chunking:  transport.ChunkingPipelined,
		TLSClient: transport.TLSClient{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, Legacy: true},
	}
}

// same compares two configurations and shows where they differ.
func same(t *testing.T, got, want *Config) bool {
	t.Helper()
	settings := *got
	settings.Warnings = nil // which TestWarnings looks at
	got = &settings
	if reflect.DeepEqual(got, want) {
		return true
	}
	t.Errorf("the configurations differ:\ngot  %+v\nwant %+v", got, want)
	for _, c := range Changes(want, got) {
		t.Error(c)
	}
	return false
}

func TestDefault(t *testing.T) {
	got, err := Default(someHost())
	if err != nil {
		t.Fatal(err)
	}
	same(t, got, defaults())
}

// What says nothing is the same as no file.
func TestNothingGiven(t *testing.T) {
	for _, text := range []string{
		"", "\n", "# only a comment\n", "---\n", "---\n...\n", "{}", "~\n", "\ufeff# with a byte order mark\n", "\r\n",
		// blocks with all their lines commented out
		"log:\ndns:\nlisten:\ntlsrpt:\nmx_auth:\ntransports:\n",
		"log: {}\ndns: {}\ntlsrpt: {}\ntransports: {}\n",
	} {
		got, err := Parse("f.yaml", []byte(text), someHost())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		same(t, got, defaults())
	}
}

// The example of the design, in which the policy set "strict" is added that
// its overrides name.
func TestCompleteExample(t *testing.T) {
	text, err := os.ReadFile("testdata/complete.yaml")
	if err != nil {
		t.Fatal(err)
	}
	env := Environment{FQDN: func() string { t.Error("FQDN was asked for although hostname is given"); return "" }}
	got, err := Parse("complete.yaml", text, env)
	if err != nil {
		t.Fatal(err)
	}
	outbound := transport.PolicySet{
		DNSSEC: true, DANE: true,
		MTASTS: &transport.MTASTS{OnDisk: true, Dir: "/var/lib/mxpolicyd/mtasts_cache", HTTPSPort: 443},
		Local:  &transport.LocalPolicy{MinTLS: verdict.TLSEncrypted, MinMX: verdict.MXNone},
	}
	strict := transport.PolicySet{
		DNSSEC: true, DANE: true,
		Local: &transport.LocalPolicy{MinTLS: verdict.TLSAuthenticated, MinMX: verdict.MXDNSSEC},
	}
	t0 := transport.Config{
		Name: "default", MXAuth: outbound, Hostname: "mx.example.org",
		LocalIP: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Port: 25,
		ConnectTimeout: 5 * time.Minute, CommandTimeout: 5 * time.Minute, SubmissionTimeout: 12 * time.Minute,
		RequireTLSOverride: true, RelaxedRequireTLS: true,
		ConnReuseLimit: 10, ConnMaxIdleCount: 10, ConnMaxIdleTime: 150 * time.Second,
		TLSClient: transport.TLSClient{MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS13, FixedVersions: true, Legacy: true},
		Limits: limit.ByScope{
			limit.All:         {Rate: 20, Period: time.Second, Concurrency: 100},
			limit.IP:          {Concurrency: 20},
			limit.Source:      {Rate: 100, Period: time.Minute},
			limit.Destination: {Concurrency: 10},
		},
	}
	partner, lab, pinned := t0, t0, t0
	partner.MXAuth, lab.MXAuth = strict, transport.PolicySet{}
	t0.Overrides = []transport.Override{
		{Match: "partner.example", Config: &partner},
		{Match: ".lab.example", Nexthop: "[10.0.0.5]:2525", Config: &lab},
		{Match: "pinned.example", Pins: []pin.Pin{sha256.Sum256(nil)}, Config: &pinned},
	}
	same(t, got, &Config{
		Hostname: "mx.example.org", StateDir: "/var/lib/mxpolicyd", ShutdownTimeout: 30 * time.Second,
		Log:            Log{slog.LevelInfo, LogText},
		DNS:            DNS{[]string{"127.0.0.1:53"}, TrustLoopback, 5 * time.Second, 3},
		MaxMessageSize: 104857600, MaxDeliveries: 1000,
		History:    History{Entries: 10_000, Memory: 16 << 20},
		MXAuth:     map[string]transport.PolicySet{"outbound": outbound, "strict": strict},
		Transports: map[string]*transport.Config{"default": &t0},
		Listen: Listen{
			Pipe:      &Socket{"/run/mxpolicyd/pipe.sock", 0o660, "mxpipe"},
			LMTP:      []LMTP{{Socket{"/run/mxpolicyd/lmtp.sock", 0o660, ""}, "default"}},
			Socketmap: &Socketmap{Socket: Socket{"/run/mxpolicyd/socketmap.sock", 0o660, ""}},
			Admin:     &Admin{Socket: Socket{"/run/mxpolicyd/admin.sock", 0o600, ""}},
			Metrics:   "127.0.0.1:9461",
		},
	})
}

// Each case changes the defaults in one place.
func TestValues(t *testing.T) {
	dt := func(c *Config) *transport.Config { return c.Transports["default"] }
	// bare is what a configured default transport without mx_auth has.
	bare := func(change func(*transport.Config)) func(*Config) {
		return func(c *Config) {
			dt(c).MXAuth = transport.PolicySet{}
			change(dt(c))
		}
	}
	set := func(p transport.PolicySet) func(*Config) {
		return func(c *Config) { c.MXAuth = map[string]transport.PolicySet{"s": p} }
	}
	tests := []struct {
		text string
		want func(*Config)
	}{
		{"hostname: MX.Example.ORG.", func(c *Config) { c.Hostname = "mx.example.org"; dt(c).Hostname = "mx.example.org" }},
		{"hostname: bücher.example", func(c *Config) {
			c.Hostname = "xn--bcher-kva.example"
			dt(c).Hostname = "xn--bcher-kva.example"
		}},
		// RFC 5321 §4.1.3: a host without a name says its address.
		{"hostname: '[192.0.2.7]'", func(c *Config) { c.Hostname = "[192.0.2.7]"; dt(c).Hostname = "[192.0.2.7]" }},
		{"hostname: '[2001:DB8::1]'", func(c *Config) {
			c.Hostname = "[IPv6:2001:db8::1]"
			dt(c).Hostname = "[IPv6:2001:db8::1]"
		}},
		{"state_dir: /srv/mx/", func(c *Config) {
			c.StateDir = "/srv/mx"
			c.MXAuth["outbound"].MTASTS.Dir = "/srv/mx/mtasts_cache"
			dt(c).MXAuth.MTASTS.Dir = "/srv/mx/mtasts_cache"
		}},
		{"shutdown_timeout: 0s", func(c *Config) { c.ShutdownTimeout = 0 }},
		{"shutdown_timeout: 1m30s", func(c *Config) { c.ShutdownTimeout = 90 * time.Second }},
		{"log: {level: debug, format: json}", func(c *Config) { c.Log = Log{slog.LevelDebug, LogJSON} }},
		{"log: {format: journal}", func(c *Config) { c.Log.Format = LogJournal }},
		{"dns: {servers: [127.0.0.1, '127.0.0.1:5353', '::1', '[::1]', '[::1]:54', 'fe80::1%eth0', unbound, 'unbound:5353']}", func(c *Config) {
			c.DNS.Servers = []string{"127.0.0.1:53", "127.0.0.1:5353", "[::1]:53", "[::1]:53", "[::1]:54", "[fe80::1%eth0]:53", "unbound:53", "unbound:5353"}
		}},
		{"dns: {servers: 192.0.2.53, trust_ad: all}", func(c *Config) { c.DNS.Servers, c.DNS.TrustAD = []string{"192.0.2.53:53"}, TrustAll }},
		{"dns: {trust_ad: none, timeout: 500ms, attempts: 10}", func(c *Config) { c.DNS.TrustAD, c.DNS.Timeout, c.DNS.Attempts = TrustNone, time.Second/2, 10 }},
		{"max_message_size: 1MB", func(c *Config) { c.MaxMessageSize = 1_000_000 }},
		{"max_message_size: 512 KiB", func(c *Config) { c.MaxMessageSize = 524288 }},
		{"max_message_size: 2048", func(c *Config) { c.MaxMessageSize = 2048 }},
		{"max_message_size: 2GiB", func(c *Config) { c.MaxMessageSize = 1 << 31 }},
		{"max_deliveries: 1", func(c *Config) { c.MaxDeliveries = 1 }},
		{"tlsrpt: {socket: /run/tlsrpt.sock}", func(c *Config) { c.TLSRPT.Socket = "/run/tlsrpt.sock" }},
		{"tlsrpt: {socket: ''}", func(*Config) {}},
		{"history: {entries: 50, memory: 1MiB, keep: true, addresses: true}", func(c *Config) { c.History = History{50, 1 << 20, true, true} }},

		{"listen: {}", func(c *Config) { c.Listen = Listen{} }},
		{"listen: {pipe: {}}", func(c *Config) { c.Listen = Listen{Pipe: &Socket{"/run/mxpolicyd/pipe.sock", 0o660, ""}} }},
		{"listen: {pipe: {path: /p, mode: 0600, group: \"12\"}}", func(c *Config) { c.Listen = Listen{Pipe: &Socket{"/p", 0o600, "12"}} }},
		{"listen: {admin: {mode: 0o640, pprof: on}}", func(c *Config) {
			c.Listen = Listen{Admin: &Admin{Socket{"/run/mxpolicyd/admin.sock", 0o640, ""}, true}}
		}},
		{"listen: {metrics: {}}", func(c *Config) { c.Listen = Listen{Metrics: "127.0.0.1:9461"} }},
		{"listen: {metrics: {address: ':9000'}}", func(c *Config) { c.Listen = Listen{Metrics: ":9000"} }},
		{"listen: {socketmap: {}}", func(c *Config) {
			c.Listen = Listen{Socketmap: &Socketmap{Socket: Socket{"/run/mxpolicyd/socketmap.sock", 0o660, ""}}}
		}},
		{"listen: {socketmap: {address: '[::1]:8461'}}", func(c *Config) { c.Listen = Listen{Socketmap: &Socketmap{Address: "[::1]:8461"}} }},
		{"listen: {lmtp: {path: /l}}", func(c *Config) { c.Listen = Listen{LMTP: []LMTP{{Socket{"/l", 0o660, ""}, "default"}}} }},
		{"listen: {lmtp: [{}, {transport: b}]}\ntransports: {b: {mx_auth: outbound}}", func(c *Config) {
			c.Listen = Listen{LMTP: []LMTP{{Socket{"/run/mxpolicyd/lmtp.sock", 0o660, ""}, "default"}, {Socket{"/run/mxpolicyd/lmtp-b.sock", 0o660, ""}, "b"}}}
			b := *dt(c)
			b.Name = "b"
			c.Transports["b"] = &b
		}},

		// A key without a name for the built-in set leaves none of that name,
		// but the built-in transport keeps what it needs.
		{"mx_auth: {}", func(c *Config) { c.MXAuth = map[string]transport.PolicySet{} }},
		{"mx_auth: {s: {}}", set(transport.PolicySet{})},
		{"mx_auth: {s: {dane: {}}}", set(transport.PolicySet{DANE: true})},
		{"mx_auth: {s: {dnssec: on, dane: off, mtasts: off, local_policy: off}}", set(transport.PolicySet{DNSSEC: true})},
		{"mx_auth: {s: {mtasts: {cache: ram}}}", set(transport.PolicySet{MTASTS: &transport.MTASTS{HTTPSPort: 443}})},
		{"mx_auth: {s: {mtasts: {cache: ram, fs_dir: x}}}", set(transport.PolicySet{MTASTS: &transport.MTASTS{HTTPSPort: 443}})},
		{"mx_auth: {s: {mtasts: {fs_dir: a/../b, https_port: 8443}}}", set(transport.PolicySet{MTASTS: &transport.MTASTS{OnDisk: true, Dir: "/var/lib/mxpolicyd/b", HTTPSPort: 8443}})},
		{"mx_auth: {s: {mtasts: {fs_dir: /srv/sts}}}", set(transport.PolicySet{MTASTS: &transport.MTASTS{OnDisk: true, Dir: "/srv/sts", HTTPSPort: 443}})},
		{"mx_auth: {s: {local_policy: {}}}", set(transport.PolicySet{Local: &transport.LocalPolicy{MinTLS: verdict.TLSEncrypted}})},
		{"mx_auth: {s: {local_policy: {min_tls_level: none}}}", set(transport.PolicySet{Local: &transport.LocalPolicy{}})},
		{"mx_auth: {s: {dnssec: {}, local_policy: {min_tls_level: authenticated, min_mx_level: mtasts}}}",
			set(transport.PolicySet{DNSSEC: true, Local: &transport.LocalPolicy{MinTLS: verdict.TLSAuthenticated, MinMX: verdict.MXMTASTS}})},

		{"transports: {default: {}}", bare(func(*transport.Config) {})},
		{"transports: {default: {mx_auth: none}}", bare(func(*transport.Config) {})},
		{"transports: {default: {mx_auth: off}}", bare(func(*transport.Config) {})},
		{"transports: {default: {mx_auth: outbound}}", func(*Config) {}},
		{"transports: {default: {mx_auth: {dane: {}}}}", bare(func(t *transport.Config) { t.MXAuth.DANE = true })},
		{"transports: {default: {hostname: out.example}}", bare(func(t *transport.Config) { t.Hostname = "out.example" })},
		{"hostname: a.example\ntransports: {default: {hostname: out.example}}", func(c *Config) {
			c.Hostname = "a.example"
			bare(func(t *transport.Config) { t.Hostname = "out.example" })(c)
		}},
		{"transports: {default: {local_ip: 2001:db8::1}}", bare(func(t *transport.Config) { t.LocalIP = []netip.Addr{netip.MustParseAddr("2001:db8::1")} })},
		{"transports: {default: {force_ipv4: yes, local_ip: ['2001:db8::1', 192.0.2.1]}}", bare(func(t *transport.Config) {
			t.ForceIPv4 = true
			t.LocalIP = []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("192.0.2.1")}
		})},
		{"transports: {default: {port: 65535, connect_timeout: 2d, command_timeout: 1h30m, submission_timeout: 1d}}", nil},
		{"transports: {default: {port: 65535, connect_timeout: 10s, command_timeout: 1h30m, submission_timeout: 1d}}", bare(func(t *transport.Config) {
			t.Port, t.ConnectTimeout, t.CommandTimeout, t.SubmissionTimeout = 65535, 10*time.Second, 90*time.Minute, 24*time.Hour
		})},
		{"transports: {default: {debug: true, requiretls_override: false, relaxed_requiretls: no}}", bare(func(t *transport.Config) {
			t.Debug, t.RequireTLSOverride, t.RelaxedRequireTLS = true, false, false
		})},
		{"transports: {default: {conn_reuse_limit: 0, conn_max_idle_count: 0, conn_max_idle_time: 1ms}}", bare(func(t *transport.Config) {
			t.ConnReuseLimit, t.ConnMaxIdleCount, t.ConnMaxIdleTime = 0, 0, time.Millisecond
		})},
		{"transports: {default: {chunking: waiting, quarantine_header: 'X-Spam:  yes '}}", bare(func(t *transport.Config) {
			t.Chunking, t.QuarantineHeader = transport.ChunkingWaiting, "X-Spam: yes"
		})},
		{"transports: {default: {sources: {by: message, pool: [{ip: 192.0.2.1, hostname: OUT1.example.org, weight: 3}, {ip: ['2001:db8::2', 192.0.2.2], daily: 5000}]}}}", bare(func(t *transport.Config) {
			t.Sources = &source.Config{By: source.ByMessage, Pool: []source.Source{
				{IPs: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Hostname: "out1.example.org", Weight: 3},
				{IPs: []netip.Addr{netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("192.0.2.2")}, Daily: 5000},
			}}
		})},
		{"transports: {default: {proxy: 'socks5://proxy.example'}}", bare(func(t *transport.Config) { t.Proxy = &proxy.Config{Host: "proxy.example", Port: 1080} })},
		{"transports: {default: {proxy: {address: 'socks5://[2001:db8::1]:1081', user: bob, password_file: /password}}}", bare(func(t *transport.Config) {
			t.Proxy = &proxy.Config{Addr: netip.MustParseAddr("2001:db8::1"), Port: 1081, User: "bob", PasswordFile: "/password"}
		})},
		{"transports: {default: {proxy: off}}", bare(func(*transport.Config) {})},
		{"transports: {default: {sources: off, local_ip: []}}", bare(func(*transport.Config) {})},
		{"transports: {default: {prefer: ipv4}}", bare(func(t *transport.Config) { t.Prefer = transport.IPv4 })},
		{"transports: {default: {prefer: ipv6}}", bare(func(t *transport.Config) { t.Prefer = transport.IPv6 })},
		{"transports: {default: {prefer: any}}", bare(func(*transport.Config) {})},
		{"transports: {default: {chunking: off}}", bare(func(t *transport.Config) { t.Chunking = transport.ChunkingOff })},
		{"transports: {default: {tls_client: {protocols: tls1.0 tls1.1}}}", bare(func(t *transport.Config) {
			t.TLSClient.MinVersion, t.TLSClient.MaxVersion, t.TLSClient.FixedVersions = tls.VersionTLS10, tls.VersionTLS11, true
		})},
		{"transports: {default: {tls_client: {protocols: tls1.2 tls1.3}}}", bare(func(t *transport.Config) { t.TLSClient.FixedVersions = true })},
		{"transports: {default: {tls_client: {legacy: false}}}", bare(func(t *transport.Config) { t.TLSClient.Legacy = false })},
		{"transports: {default: {tls_client: {protocols: tls1.3}}}", bare(func(t *transport.Config) { t.TLSClient.MinVersion, t.TLSClient.FixedVersions = tls.VersionTLS13, true })},
		{"transports: {default: {tls_client: {protocols: [tls1.1, tls1.3]}}}", bare(func(t *transport.Config) { t.TLSClient.MinVersion, t.TLSClient.FixedVersions = tls.VersionTLS11, true })},
		{"transports: {default: {tls_client: {ciphers: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 ECDHE-ECDSA-WITH-AES256-GCM-SHA384 ECDHE-RSA-WITH-CHACHA20-POLY1305 RSA-WITH-3DES-EDE-CBC-SHA}}}",
			bare(func(t *transport.Config) {
				t.TLSClient.Ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
					tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}
			})},
		{"transports: {default: {tls_client: {curves: [p256, P384, p521, x25519, X25519MLKEM768, SecP256r1MLKEM768, SecP384r1MLKEM1024]}}}",
			bare(func(t *transport.Config) { t.TLSClient.Curves = []uint16{23, 24, 25, 29, 4588, 4587, 4589} })},
		// Without ReadFile the files are not looked at.
		{"transports: {default: {tls_client: {root_ca: /a.pem, cert: /c.pem, key: /k.pem}}}", bare(func(t *transport.Config) {
			t.TLSClient.RootCA, t.TLSClient.Cert, t.TLSClient.Key = []string{"/a.pem"}, "/c.pem", "/k.pem"
		})},
		{"transports: {default: {limits: {all: {rate: 5/2m}, ip: off, source: {}}}}", bare(func(t *transport.Config) {
			t.Limits[limit.All] = limit.Limit{Rate: 5, Period: 2 * time.Minute}
		})},
		{"transports: {default: {limits: off}}", bare(func(*transport.Config) {})},
		{"transports: {other: {mx_auth: outbound, port: 26}}", func(c *Config) {
			o := *dt(c)
			o.Name, o.Port = "other", 26
			c.Transports["other"] = &o
		}},
	}
	for _, tt := range tests {
		got, err := Parse("f.yaml", []byte(tt.text), someHost())
		if tt.want == nil {
			if err == nil {
				t.Errorf("%s: no mistake", tt.text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		want := defaults()
		tt.want(want)
		if !same(t, got, want) {
			t.Errorf("that was %s", tt.text)
		}
	}
}

func TestOverrides(t *testing.T) {
	got, err := Parse("f.yaml", []byte(`
transports:
  default:
    overrides:                       # stands above what it inherits
      - match: Bücher.Example
        port: 26
        hostname: other.example
        tls_client: {curves: p256}
        limits: {destination: {rate: 1/1s}, ip: off}
      - match: .sub.example.
        nexthop: relay.Example:587
        mx_auth: {dane: {}}
        local_ip: []
      - match: third.example
        nexthop: ""
    mx_auth: outbound
    port: 2525
    local_ip: 192.0.2.1
    tls_client: {protocols: tls1.3, curves: [p384]}
    limits: {ip: {concurrency: 5}, destination: {concurrency: 7}, all: {concurrency: 9}}
`), someHost())
	if err != nil {
		t.Fatal(err)
	}
	base := *got.Transports["default"]
	o := base.Overrides
	base.Overrides = nil
	if len(o) != 3 {
		t.Fatalf("%d overrides, want 3", len(o))
	}
	first := base
	first.Port, first.Hostname = 26, "other.example"
	first.TLSClient.Curves = []uint16{uint16(tls.CurveP256)}
	first.Limits[limit.IP], first.Limits[limit.Destination] = limit.Limit{}, limit.Limit{Rate: 1, Period: time.Second}
	second := base
	second.MXAuth, second.LocalIP = transport.PolicySet{DANE: true}, nil
	for i, want := range []transport.Override{
		{Match: "xn--bcher-kva.example", Config: &first},
		{Match: ".sub.example", Nexthop: "relay.example:587", Config: &second},
		{Match: "third.example", Config: &base},
	} {
		if !reflect.DeepEqual(o[i], want) {
			t.Errorf("override %d:\ngot  %+v %+v\nwant %+v %+v", i, o[i], *o[i].Config, want, *want.Config)
		}
	}
	if base.Port != 2525 || len(base.LocalIP) != 1 || base.TLSClient.Curves[0] != uint16(tls.CurveP384) || base.Limits[limit.IP].Concurrency != 5 {
		t.Errorf("an override changed its transport: %+v", base)
	}
}

func TestNexthops(t *testing.T) {
	for in, want := range map[string]string{
		"example.org": "example.org", "Example.ORG:26": "example.org:26", "[mx.example.org]": "[mx.example.org]",
		"[192.0.2.1]": "[192.0.2.1]", "[192.0.2.1]:2525": "[192.0.2.1]:2525",
		"[2001:DB8::1]:25": "[2001:db8::1]:25", "[IPv6:2001:db8::1]": "[2001:db8::1]", "bücher.example:025": "xn--bcher-kva.example:25",
	} {
		if got, err := nexthop().read(in); err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", in, got, err, want)
		}
	}
}

func TestEnvironment(t *testing.T) {
	tests := []struct {
		env             Environment
		hostname, state string
		mistake         string
	}{
		{Environment{FQDN: func() string { return "A.example" }, StateDirectory: "/a/b:/c"}, "a.example", "/a/b", ""},
		{Environment{FQDN: func() string { return "short" }}, "short", "/var/lib/mxpolicyd", ""},
		{Environment{}, "", "", "hostname: not given, and this host's own name: is not known; expected a key such as hostname: mx.example.org"},
		{Environment{FQDN: func() string { return "" }}, "", "", "hostname: not given, and this host's own name: is empty; expected a key such as hostname: mx.example.org"},
		{Environment{FQDN: func() string { return "my_host" }}, "", "",
			"hostname: not given, and this host's own name: \"my_host\" is not a host name: labels have letters, digits and inner hyphens; expected a key such as hostname: mx.example.org"},
		{Environment{FQDN: func() string { return "a.example" }, StateDirectory: "rel"}, "", "",
			"state_dir: not given, and $STATE_DIRECTORY: \"rel\" is a relative path; expected an absolute path"},
	}
	for _, tt := range tests {
		c, err := Default(tt.env)
		if tt.mistake != "" {
			if err == nil || err.Error() != tt.mistake {
				t.Errorf("got %v\nwant %s", err, tt.mistake)
			}
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		if c.Hostname != tt.hostname || c.StateDir != tt.state || c.Transports["default"].MXAuth.MTASTS.Dir != tt.state+"/mtasts_cache" {
			t.Errorf("%q %q, want %q %q", c.Hostname, c.StateDir, tt.hostname, tt.state)
		}
	}
	// Settings in the file make up for what the environment lacks.
	text := "hostname: a.example\nstate_dir: /s"
	if _, err := Parse("f", []byte(text), Environment{StateDirectory: "rel"}); err != nil {
		t.Error(err)
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	file, missing := filepath.Join(dir, "f.yaml"), filepath.Join(dir, "missing.yaml")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("max_deliveries: 7\n")
	if c, err := Load(file, someHost()); err != nil || c.MaxDeliveries != 7 {
		t.Errorf("%+v, %v", c, err)
	}
	write("max_deliveries: x\n")
	_, err := Load(file, someHost())
	want := file + `:1:17: max_deliveries: "x" is not a whole number; expected a number from 1 to 100000`
	if m, ok := errors.AsType[Mistakes](err); !ok || m.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	write(strings.Repeat("# large\n", maxFile/8+1))
	_, err = Load(file, someHost())
	if m, ok := errors.AsType[Mistakes](err); !ok || !strings.Contains(m.Error(), "larger than 1 MiB") {
		t.Errorf("got %v", err)
	}
	if _, err := Load(missing, someHost()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := Load(dir, someHost()); err == nil || errors.As(err, new(Mistakes)) {
		t.Errorf("a directory: got %v", err)
	}
	// Only the default file may be missing.
	c, err := load(missing, missing, someHost())
	if err != nil {
		t.Fatal(err)
	}
	same(t, c, defaults())
}
