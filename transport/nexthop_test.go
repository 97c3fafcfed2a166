package transport

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// addOverride makes an override from the transport's own settings.
func addOverride(c *Config, match, nexthop string, change func(*Config)) {
	over := *c
	over.Overrides = nil
	if change != nil {
		change(&over)
	}
	c.Overrides = append(c.Overrides, Override{Match: match, Nexthop: nexthop, Config: &over})
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.zone("a.example. MX 10 mx.a.example.\nsub.a.example. MX 10 mx.sub.a.example.\ndeep.sub.a.example. MX 10 mx.a.example.")
	l.zone("b.example. MX 10 mx.b.example.\nc.example. MX 10 mx.c.example.\nd.example. MX 10 mx.d.example.\nxn--bcher-kva.example. MX 10 mx.b.example.")
	for _, name := range []string{"mx.a.example", "mx.sub.a.example", "mx.b.example", "mx.d.example"} {
		l.mx(name, byData)
	}
	l.dead("mx.c.example")
	relay := l.mx("relay.example", byData)
	for _, domain := range []string{"a.example", "sub.a.example", "deep.sub.a.example", "b.example", "d.example", "xn--bcher-kva.example"} {
		l.policy(domain, mtasts.ModeEnforce, "mx."+domain)
	}
	none := func(c *Config) { c.MXAuth = PolicySet{} }
	l.start(func(c *Config) {
		everything(c)
		addOverride(c, "a.example", "", none)
		addOverride(c, ".sub.a.example", "", none)
		addOverride(c, "b.example", "", none)
		// the first match counts
		addOverride(c, "b.example", "[nowhere.example]", nil)
		addOverride(c, "c.example", fmt.Sprintf("[%s]:%d", strings.Split(relay.Addr(), ":")[0], l.port), none)
		addOverride(c, "xn--bcher-kva.example", "[relay.example]", nil)
	})
	expect(t, l.send("x@a.example", "x@A.Example", "x@sub.a.example", "x@deep.sub.a.example", "x@b.example", "x@c.example", "x@d.example", "x@bücher.example"),
		"2.0.0 mx.a.example: 250", "2.0.0 mx.a.example: 250",
		"4.7.5 mx.sub.a.example",  // example.org is that domain alone
		"2.0.0 mx.a.example: 250", // .example.org its subdomains
		"2.0.0 mx.b.example: 250",
		"2.0.0 ["+strings.Split(relay.Addr(), ":")[0]+"]: 250",
		"4.7.5 mx.d.example", // no override, so the policy holds
		"2.0.0 relay.example: 250")
	for domain, match := range map[string]string{"a.example": "a.example", "sub.a.example": "", "deep.sub.a.example": ".sub.a.example", "Bücher.example": "xn--bcher-kva.example"} {
		if e := l.transport.Explain(t.Context(), &Question{Domain: domain}); e.Override != match {
			t.Errorf("%s is explained with the override %q, want %q", domain, e.Override, match)
		}
	}
}

// TestNexthop has the mail server name where the message goes.
func TestNexthop(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	own, relay, second := l.mx("mx.a.example", nil), l.mx("mx.relay.example", nil), l.mx("relay.example", nil)
	l.zone("a.example. MX 10 mx.a.example.\nrelay.example. MX 10 mx.relay.example.\nelsewhere.example. MX 10 nowhere.example.")
	address := strings.Split(second.Addr(), ":")[0]
	// The domain's own policy says nothing about the relay.
	l.policy("a.example", mtasts.ModeEnforce, "mx.a.example")
	// The relay's own is about its MX hosts (RFC 8461 §3.4), not about a host.
	l.policy("relay.example", mtasts.ModeEnforce, "mx.relay.example")
	l.start(everything)
	last := map[*mx.Server]int{}
	for _, tt := range []struct {
		nexthop string
		at      *mx.Server
		want    string
	}{
		{"", own, "2.0.0 mx.a.example: 250"},
		{"a.example", own, "2.0.0 , mtasts"},
		{"A.Example.", own, "2.0.0 , mtasts"},
		{"relay.example", relay, "2.0.0 mx.relay.example: 250"},
		{"[relay.example]", second, "2.0.0 relay.example: 250"},
		{fmt.Sprintf("[relay.example]:%d", l.port), second, "2.0.0 relay.example: 250"},
		{fmt.Sprintf("relay.example:%d", l.port), relay, "2.0.0 mx.relay.example: 250"},
		{"[" + address + "]", second, "2.0.0 [" + address + "]: 250"},
		{fmt.Sprintf("[%s]:%d", address, l.port), second, "2.0.0 [" + address + "]: 250"},
		// An administrator's mistakes bounce no one's mail.
		{"[relay.example]:1", nil, "4.4.1 relay.example"},
		{"[relay.example", nil, "4.3.5 next hop"},
		{"relay.example:smtp", nil, "4.3.5 next hop"},
		{address, nil, "4.3.5 next hop"},
		{"nosuch.example", nil, "4.4.4 does not exist"},
		{"elsewhere.example", nil, "4.4.4"},
	} {
		results := l.sendAs(func(e *Envelope) { e.Nexthop = tt.nexthop }, "x@a.example", "y@a.example")
		t.Run(tt.nexthop, func(t *testing.T) { expect(t, results, tt.want, tt.want) })
		for _, server := range []*mx.Server{own, relay, second} {
			n := len(server.Messages())
			if got := n > last[server]; got != (server == tt.at) {
				t.Errorf("next hop %q: %s got the message: %v", tt.nexthop, server.Behaviour().Hostname, got)
			}
			last[server] = n
		}
	}
}

// What is the administrator's mistake for one recipient stays the address's
// for another whose own domain the next hop is.
func TestNexthopIsAskedForByEachRecipient(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.zone("b.example. TXT here")
	l.start(everything)
	expect(t, l.sendAs(func(e *Envelope) { e.Nexthop = "a.example" }, "x@a.example", "x@b.example"), "5.4.4", "4.4.4")
}

func TestAddressLiterals(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	address := strings.Split(server.Addr(), ":")[0]
	l.start(func(c *Config) { everything(c); c.LocalIP = []netip.Addr{netip.MustParseAddr("127.0.9.9")} })
	expect(t, l.send("b@["+address+"]", "b@["+address+"]"), "2.0.0 ["+address+"]: 250", "2.0.0 ["+address+"]: 250")
	expect(t, l.send("b@[127.0.9.9]", "b@[127.0.0.300]"), "5.4.6 loops back", "5.1.3")
	m := server.Messages()
	if len(m) != 1 || m[0].Recipients[0].Address != "b@["+address+"]" || m[0].TLS.ServerName != "" {
		t.Errorf("%+v", m)
	}
	if n := l.dns.Queries("", dns.TypeANY); n.UDP > 0 {
		t.Errorf("the DNS was asked %+v", n)
	}
}

// A certificate can be valid for an address, of either family.
func TestCertificateForAnAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	v4 := l.address()
	start := func(addr string) *mx.Server {
		habits := mx.Modern(l.cert(ca.For(strings.Trim(addr, "[]"))))
		server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", addr, l.port), Behaviour: habits})
		l.must(err)
		t.Cleanup(func() { server.Stop() })
		return server
	}
	start(v4)
	v6 := start("[::1]")
	l.start(everything)
	expect(t, l.send("b@["+v4+"]", "b@[IPv6:::1]"), "2.0.0 , webpki", "2.0.0 [IPv6:::1]: 250")
	if r := l.send("b@[ipv6:0::1]")[0]; !strings.Contains(r.Text, ", webpki") {
		t.Errorf("%v %s", r.Code, r.Text)
	}
	for _, m := range v6.Messages() {
		if m.TLS == nil || m.TLS.ServerName != "" {
			t.Errorf("%+v; an address is no server name (RFC 6066 §3)", m.TLS)
		}
	}
}

func TestLocalIP(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	const dialogue = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: DATA\nS: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 ok\nC: QUIT\nS: 221 bye"
	server := l.play("mx.a.example", dialogue)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) {
		c.LocalIP = []netip.Addr{netip.MustParseAddr("127.0.9.9"), netip.MustParseAddr("::1")}
		c.Hostname = "out.example"
	})
	expect(t, l.send("b@a.example"), "2.0.0")
	c, err := server.Wait(t.Context(), 1)
	l.must(err)
	if !strings.HasPrefix(c.Remote, "127.0.9.9:") || c.Commands[0] != "EHLO out.example" {
		t.Errorf("from %s with %q", c.Remote, c.Commands[0])
	}
}

func TestForceIPv4(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. AAAA ::1\nb.example. MX 10 six.b.example.\nsix.b.example. AAAA ::1")
	l.start(func(c *Config) { everything(c); c.ForceIPv4 = true })
	expect(t, l.send("b@a.example", "b@b.example", "b@[IPv6:::1]"), "2.0.0", "4.4.4 force_ipv4", "4.4.4 force_ipv4")
	if n := l.dns.Queries("", dns.TypeAAAA); n.UDP > 0 {
		t.Errorf("asked for AAAA: %+v", n)
	}
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) { c.QuarantineHeader = "X-Quarantined: yes" })
	expect(t, l.sendAs(func(e *Envelope) { e.Quarantined = true }, "b@a.example", "c@b.example"), "5.7.0 quarantined", "5.7.0 quarantined")
	for header, want := range map[string]string{
		"X-Quarantined: yes\n":              "5.7.0 quarantined",
		"x-quarantined:\n YES\n":            "5.7.0 quarantined",
		"X-Quarantined: no\n":               "2.0.0",
		"X-Quarantined-By: yes\n":           "2.0.0",
		"A: b\n\nX-Quarantined: yes\n":      "2.0.0",
		"From nobody\nX-Quarantined: yes\n": "5.7.0 quarantined",
	} {
		if r := l.sendText(t.Context(), header+text, "b@a.example")[0]; !strings.HasPrefix(r.Code.String()+" "+r.Text, want[:5]) {
			t.Errorf("%q: %v %s, want %s", header, r.Code, r.Text, want)
		}
	}
	counts(t, server, 3, 3)
}

// TestTLSClient: tls_client's protocols, ciphers, curves, root_ca, cert and
// key.
func TestTLSClient(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	dir := t.TempDir()
	mine := l.cert(ca.For("client.example"))
	certPath, keyPath := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	l.must(ca.WritePair(mine, certPath, keyPath))
	for i, tt := range []struct {
		name   string
		server func(*mx.Behaviour)
		client func(*TLSClient)
		want   string
		check  func(tls.ConnectionState) bool
	}{
		{"tls1.2 alone", nil, func(c *TLSClient) {
			c.MinVersion, c.MaxVersion, c.FixedVersions = tls.VersionTLS12, tls.VersionTLS12, true
		}, "2.0.0 TLS1.2", nil},
		{"tls1.3 alone, not there", func(h *mx.Behaviour) { h.TLS.MaxVersion = tls.VersionTLS12 },
			func(c *TLSClient) {
				c.MinVersion, c.MaxVersion, c.FixedVersions = tls.VersionTLS13, tls.VersionTLS13, true
			}, "2.0.0 , plaintext", nil},
		{"cipher", func(h *mx.Behaviour) { h.TLS.MaxVersion = tls.VersionTLS12 },
			func(c *TLSClient) { c.Ciphers = []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384} }, "2.0.0 TLS1.2",
			func(s tls.ConnectionState) bool { return s.CipherSuite == tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 }},
		{"curve", nil, func(c *TLSClient) { c.Curves = []uint16{uint16(tls.CurveP384)} }, "2.0.0 TLS1.3",
			func(s tls.ConnectionState) bool { return s.CurveID == tls.CurveP384 }},
		{"root_ca", nil, nil, "2.0.0 , webpki", nil},
		{"no root_ca", nil, func(c *TLSClient) { c.RootCA = nil }, "2.0.0 , encrypted", nil},
		{"certificate, asked for", func(h *mx.Behaviour) { h.TLS.AskForClient = true }, func(c *TLSClient) { c.Cert, c.Key = certPath, keyPath }, "2.0.0 TLS1.3",
			func(s tls.ConnectionState) bool {
				return len(s.PeerCertificates) > 0 && bytes.Equal(s.PeerCertificates[0].Raw, mine.Leaf.Raw)
			}},
		{"certificate, not asked for", nil, func(c *TLSClient) { c.Cert, c.Key = certPath, keyPath }, "2.0.0 TLS1.3",
			func(s tls.ConnectionState) bool { return len(s.PeerCertificates) == 0 }},
		{"no certificate, asked for", func(h *mx.Behaviour) { h.TLS.AskForClient = true }, nil, "2.0.0 TLS1.3",
			func(s tls.ConnectionState) bool { return len(s.PeerCertificates) == 0 }},
	} {
		domain := fmt.Sprintf("d%d.example", i)
		server := l.mx("mx."+domain, tt.server)
		l.zone("%s. MX 10 mx.%s.", domain, domain)
		l.start(func(c *Config) {
			if tt.client != nil {
				tt.client(&c.TLSClient)
			}
		})
		results := l.send("b@" + domain)
		t.Run(tt.name, func(t *testing.T) {
			expect(t, results, tt.want)
			if m := server.Messages(); tt.check != nil && (len(m) != 1 || m[0].TLS == nil || !tt.check(*m[0].TLS)) {
				t.Errorf("the server saw %+v", m)
			}
		})
	}
	for _, wrong := range []TLSClient{
		{Cert: certPath, Key: certPath},
		{RootCA: []string{filepath.Join(dir, "nothing")}},
		{RootCA: []string{keyPath}},
	} {
		cfg := l.config()
		cfg.TLSClient = wrong
		if tr, err := New(cfg, Deps{Resolver: l.resolver}); err == nil {
			tr.Close()
			t.Errorf("%+v was taken", wrong)
		}
	}
	if _, err := os.Stat(certPath); err != nil {
		t.Error(err)
	}
}

// TestDSN: what is known of delivery status notifications is passed on where
// it is understood (RFC 3461), and left out elsewhere.
func TestDSN(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	with, without := l.mx("mx.a.example", nil), l.mx("mx.b.example", func(h *mx.Behaviour) { h.Keywords &^= mx.DSN })
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.")
	l.start(nil)
	env := &Envelope{ID: "test", Sender: "a@client.example", Ret: "HDRS", EnvID: "Q+1=2 ä", Recipients: []Recipient{
		{Address: "x@a.example", Notify: "SUCCESS,FAILURE", ORcpt: "rfc822;x+y=z@old.example"},
		{Address: "y@a.example", Notify: "NEVER", ORcpt: "rfc822;jürgen@old.example"},
		{Address: "z@a.example"},
		{Address: "x@b.example", Notify: "NEVER", ORcpt: "rfc822;x@old.example"},
	}}
	expect(t, l.transport.Deliver(t.Context(), env, msg(t, text)), "2.0.0", "2.0.0", "2.0.0", "2.0.0")
	m := with.Messages()[0]
	if ret, _ := m.Param("RET"); ret != "HDRS" {
		t.Errorf("RET=%s", ret)
	}
	if id, _ := m.Param("ENVID"); id != "Q+2B1+3D2+20+C3+A4" {
		t.Errorf("ENVID=%s", id)
	}
	for i, want := range [][]string{
		{"NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;x+2By+3Dz@old.example"},
		{"NOTIFY=NEVER", `ORCPT=utf-8;j\x{FC}rgen@old.example`},
		nil,
	} {
		if got := m.Recipients[i].Params; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", m.Recipients[i].Address, got, want)
		}
	}
	if m := without.Messages()[0]; m.Recipients[0].Params != nil || len(m.Params) != 1 {
		t.Errorf("%q, %q", m.Params, m.Recipients[0].Params)
	}
	counts(t, with, 1, 1)
	counts(t, without, 1, 1)
}

// TestSizeLimit: a message that is larger than a server says it takes is not
// sent (RFC 1870 §6.1).
func TestSizeLimit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	size := msg(t, text).Facts.Size
	limited := func(n int64, extra ...string) func(*mx.Behaviour) {
		return func(h *mx.Behaviour) { h.Size, h.Extra = n, extra }
	}
	small, exact := l.mx("mx.a.example", limited(size-1)), l.mx("mx.b.example", limited(size))
	any, odd := l.mx("mx.c.example", limited(0)), l.mx("mx.d.example", func(h *mx.Behaviour) { h.Keywords &^= mx.Size; h.Extra = []string{"SIZE many"} })
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.\nc.example. MX 10 mx.c.example.\nd.example. MX 10 mx.d.example.")
	l.zone("e.example. MX 10 mx.a.example.\ne.example. MX 20 mx.b.example.")
	l.start(nil)
	expect(t, l.send("x@a.example", "x@b.example", "x@c.example", "x@d.example", "x@e.example"),
		fmt.Sprintf("5.3.4 mx.a.example: the message has %d bytes, the server takes at most %d bytes", size, size-1),
		"2.0.0", "2.0.0", "2.0.0", "2.0.0 mx.b.example")
	if c := small.Counters(); c.Verbs["MAIL"] > 0 || c.Verbs["STARTTLS"] == 0 {
		t.Errorf("%+v", c.Verbs)
	}
	for _, server := range []*mx.Server{exact, any, odd} {
		if server.Counters().Refused > 0 {
			t.Errorf("%s refused the message", server.Behaviour().Hostname)
		}
	}
	if v := odd.Violations(); len(v) != 0 && v[0].Breach != mx.Unoffered {
		t.Errorf("%v", v)
	}
}

// TestEightBit: BODY=8BITMIME is said of what is not ASCII, or was declared so,
// and of nothing else (RFC 6152 §3).
func TestEightBit(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(nil)
	expect(t, l.send("x@a.example"), "2.0.0")
	expect(t, l.sendText(t.Context(), text+"Grüße\n", "x@a.example"), "2.0.0")
	expect(t, l.sendAs(func(e *Envelope) { e.EightBit = true }, "x@a.example"), "2.0.0")
	for i, want := range []string{"", "8BITMIME", "8BITMIME"} {
		if body, _ := server.Messages()[i].Param("BODY"); body != want {
			t.Errorf("message %d: BODY=%s, want %s", i, body, want)
		}
	}
	counts(t, server, 3, 3)
}
