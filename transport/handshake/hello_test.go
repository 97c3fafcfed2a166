package handshake

import (
	"crypto/tls"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// outline writes hellos in short: the step, the versions, and what is special.
func outline(hellos []Hello) string {
	var all []string
	for _, h := range hellos {
		text := fmt.Sprintf("%v 1.%d-1.%d", h.Step, h.Min-tls.VersionTLS10, h.Max-tls.VersionTLS10)
		has := func(what string, is bool) {
			if is {
				text += " " + what
			}
		}
		has("go-groups", h.Curves == nil)
		has("classical", slices.Equal(h.Curves, classical))
		has("go-suites", h.Ciphers == nil)
		has("rsa", slices.Contains(h.Ciphers, tls.TLS_RSA_WITH_AES_128_GCM_SHA256))
		has("cbc-sha256", slices.Contains(h.Ciphers, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256))
		has("3des", slices.Contains(h.Ciphers, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA))
		has("ticket", h.Ticket)
		has("sni", h.SNI)
		all = append(all, text)
	}
	return strings.Join(all, " | ")
}

// The four steps of DESIGN §7, and what settings leave of them.
func TestHellos(t *testing.T) {
	only := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	pq := []tls.CurveID{tls.X25519MLKEM768}
	for _, tt := range []struct {
		name     string
		settings Settings
		floor    Floor
		want     string
	}{
		{"as installed", Settings{Legacy: true}, Opportunistic,
			"full 1.2-1.3 go-groups go-suites ticket sni | classical 1.2-1.3 classical go-suites sni | " +
				"compatible 1.0-1.3 classical rsa cbc-sha256 3des sni | without-sni 1.0-1.3 classical rsa cbc-sha256 3des"},
		{"as installed, TLS required", Settings{Legacy: true}, Required,
			"full 1.2-1.3 go-groups go-suites ticket sni | classical 1.2-1.3 classical go-suites sni | " +
				"compatible 1.2-1.3 classical rsa cbc-sha256 sni"},
		{"legacy off", Settings{}, Opportunistic,
			"full 1.2-1.3 go-groups go-suites ticket sni | classical 1.2-1.3 classical go-suites sni | " +
				"compatible 1.2-1.3 classical rsa cbc-sha256 sni | without-sni 1.2-1.3 classical rsa cbc-sha256"},
		{"protocols written", Settings{Legacy: true, Min: tls.VersionTLS12, Max: tls.VersionTLS13, Fixed: true}, Opportunistic,
			"full 1.2-1.3 go-groups go-suites ticket sni | classical 1.2-1.3 classical go-suites sni | " +
				"compatible 1.2-1.3 classical rsa cbc-sha256 3des sni | without-sni 1.2-1.3 classical rsa cbc-sha256 3des"},
		{"TLS 1.0 written", Settings{Legacy: true, Min: tls.VersionTLS10, Max: tls.VersionTLS13, Fixed: true}, Required,
			"full 1.2-1.3 go-groups go-suites ticket sni | classical 1.2-1.3 classical go-suites sni | " +
				"compatible 1.2-1.3 classical rsa cbc-sha256 sni"},
		{"ciphers written", Settings{Legacy: true, Ciphers: only}, Opportunistic,
			"full 1.2-1.3 go-groups ticket sni | classical 1.2-1.3 classical sni | " +
				"compatible 1.0-1.3 classical sni | without-sni 1.0-1.3 classical"},
		{"ciphers written, TLS required", Settings{Legacy: true, Ciphers: only}, Required,
			"full 1.2-1.3 go-groups ticket sni | classical 1.2-1.3 classical sni"},
		{"curves written", Settings{Legacy: true, Curves: pq}, Required,
			"full 1.2-1.3 go-suites ticket sni | classical 1.2-1.3 go-suites sni | compatible 1.2-1.3 rsa cbc-sha256 sni"},
		{"all written", Settings{Legacy: true, Curves: pq, Ciphers: only, Min: tls.VersionTLS12, Max: tls.VersionTLS13, Fixed: true}, Opportunistic,
			"full 1.2-1.3 ticket sni | classical 1.2-1.3 sni | without-sni 1.2-1.3"},
	} {
		if got := outline(tt.settings.Hellos(tt.floor)); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

// Every suite of Go's own choice is in a compatible hello: it takes nothing
// away.
func TestCompatibleWidens(t *testing.T) {
	s := Settings{Legacy: true}
	hellos := s.Hellos(Opportunistic)
	for _, suite := range tls.CipherSuites() {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS12) && !slices.Contains(hellos[Compatible].Ciphers, suite.ID) {
			t.Errorf("%s is missing", suite.Name)
		}
	}
	for _, suite := range tls.InsecureCipherSuites() {
		rc4 := strings.Contains(suite.Name, "RC4")
		if slices.Contains(hellos[Compatible].Ciphers, suite.ID) == rc4 {
			t.Errorf("%s: offered %t", suite.Name, !rc4)
		}
	}
}

func TestOrder(t *testing.T) {
	s := Settings{Legacy: true}
	steps := func(hellos []Hello) (all []Step) {
		for _, h := range hellos {
			all = append(all, h.Step)
		}
		return all
	}
	for _, tt := range []struct {
		floor Floor
		first Step
		want  []Step
	}{
		{Opportunistic, Full, []Step{Full, Classical, Compatible, NoSNI}},
		{Opportunistic, Classical, []Step{Classical, Full, Compatible, NoSNI}},
		{Opportunistic, NoSNI, []Step{NoSNI, Full, Classical, Compatible}},
		{Required, Compatible, []Step{Compatible, Full, Classical}},
		{Required, NoSNI, []Step{Full, Classical, Compatible}}, // excluded
	} {
		if got := steps(Order(s.Hellos(tt.floor), tt.first)); !slices.Equal(got, tt.want) {
			t.Errorf("%v, %v first: %v, want %v", tt.floor, tt.first, got, tt.want)
		}
	}
}

func TestApply(t *testing.T) {
	s := Settings{Legacy: true}
	hellos := s.Hellos(Opportunistic)
	for _, h := range hellos {
		cfg := &tls.Config{ServerName: "mx.example.org", ClientSessionCache: tls.NewLRUClientSessionCache(1)}
		h.Apply(cfg)
		if cfg.MinVersion != h.Min || cfg.MaxVersion != h.Max || !slices.Equal(cfg.CipherSuites, h.Ciphers) ||
			!slices.Equal(cfg.CurvePreferences, h.Curves) || (cfg.ServerName != "") != h.SNI ||
			(cfg.ClientSessionCache != nil) != h.Ticket || cfg.SessionTicketsDisabled == h.Ticket {
			t.Errorf("%v: %+v", h.Step, cfg)
		}
	}
}

// Below TLS 1.2, or with 3DES, the TLS level is none (DESIGN §7).
func TestWeak(t *testing.T) {
	for _, tt := range []struct {
		version, cipher uint16
		want            bool
	}{
		{tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, false},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, false},
		{tls.VersionTLS12, tls.TLS_RSA_WITH_AES_128_CBC_SHA, false},
		{tls.VersionTLS12, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA, true},
		{tls.VersionTLS12, tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, true},
		{tls.VersionTLS11, tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA, true},
		{tls.VersionTLS10, tls.TLS_RSA_WITH_AES_128_CBC_SHA, true},
		{0, 0, true},
	} {
		if got := Weak(tt.version, tt.cipher); got != tt.want {
			t.Errorf("%s, %s: %t", tls.VersionName(tt.version), tls.CipherSuiteName(tt.cipher), got)
		}
	}
}
