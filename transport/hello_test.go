package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// tlsServer starts the server of theDomain, with a certificate of an RSA key.
func (l *lab) tlsServer(change func(*mx.TLS)) *mx.Server {
	l.t.Helper()
	server := l.mx(theHost, func(h *mx.Behaviour) {
		h.TLS.Certificate = l.cert(ca.Spec{Names: []string{theHost}, Key: ca.RSA})
		l.certificates[theHost] = h.TLS.Certificate
		if change != nil {
			change(&h.TLS)
		}
	})
	l.zone("%s. MX 10 %s.", theDomain, theHost)
	return server
}

// travelled tells how each message came, in short: p for plaintext, T for TLS.
func travelled(server *mx.Server) string {
	var b strings.Builder
	for _, m := range server.Messages() {
		if m.TLS == nil {
			b.WriteByte('p')
		} else {
			b.WriteByte('T')
		}
	}
	return b.String()
}

// One failed handshake costs no message its TLS, let alone those after it.
func TestOneFailedHandshake(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx(theHost, func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageHandshake: {Drop: mx.Reset, Times: 1}}
	})
	l.zone("%s. MX 10 %s.", theDomain, theHost)
	l.startPooled(nil)
	for range 15 {
		expect(t, l.send("b@"+theDomain), "2.0.0")
	}
	if got := travelled(server); got != strings.Repeat("T", 15) {
		t.Errorf("%s", got)
	}
}

// What fell back to plaintext carries one message and ends: the next one finds
// TLS as soon as it is there.
func TestFallbackCarriesOneMessage(t *testing.T) {
	t.Parallel()
	for name, broken := range map[string]mx.Behaviour{
		"handshake": {At: map[mx.Stage]mx.Action{mx.StageHandshake: {Drop: mx.Close, Times: 4}}},
		"STARTTLS":  {At: map[mx.Stage]mx.Action{mx.StageSTARTTLS: {Reply: "454 4.7.0 not now", Times: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			server := l.mx(theHost, func(h *mx.Behaviour) { h.At = broken.At })
			l.zone("%s. MX 10 %s.", theDomain, theHost)
			l.startPooled(nil)
			for range 3 {
				expect(t, l.send("b@"+theDomain), "2.0.0")
			}
			if got := travelled(server); got != "pTT" {
				t.Errorf("%s, want pTT", got)
			}
			if line := l.lines("delivered")[0]; line["tls_error"] == nil {
				t.Errorf("the log does not say why: %v", line)
			}
		})
	}
}

// Servers that cannot take the first hello, what Postfix reaches with OpenSSL,
// and what we do: where no TLS is required, and under MTA-STS and DANE. A want
// that begins with 4 is the code and a part of the reason.
func TestPlainerHellos(t *testing.T) {
	t.Parallel()
	refuse := errors.New("not for me")
	only := func(ids ...uint16) func(*mx.TLS) {
		return func(s *mx.TLS) { s.MaxVersion, s.Ciphers = tls.VersionTLS12, ids }
	}
	versions := func(min, max uint16) func(*mx.TLS) {
		return func(s *mx.TLS) { s.MinVersion, s.MaxVersion = min, max }
	}
	answer := func(f func(*tls.ClientHelloInfo) error) func(*mx.TLS) {
		return func(s *mx.TLS) { s.Answer = func(hello *tls.ClientHelloInfo, _ *tls.Config) error { return f(hello) } }
	}
	for _, tt := range []struct {
		name          string
		server        func(*mx.TLS)
		conns         int            // for the first message
		step          handshake.Step // that is remembered
		opportunistic string
		required      string
	}{
		{"in order", nil, 1, handshake.Full, "webpki, TLS1.3", "TLS1.3"},
		{"refuses post-quantum shares", answer(func(h *tls.ClientHelloInfo) error {
			if slices.Contains(h.SupportedCurves, tls.X25519MLKEM768) {
				return refuse
			}
			return nil
		}), 2, handshake.Classical, "webpki, TLS1.3", "TLS1.3"},
		{"RSA key exchange only", only(tls.TLS_RSA_WITH_AES_128_GCM_SHA256), 3, handshake.Compatible, "webpki, TLS1.2", "TLS1.2"},
		{"RSA key exchange with CBC only", only(tls.TLS_RSA_WITH_AES_256_CBC_SHA), 3, handshake.Compatible, "webpki, TLS1.2", "TLS1.2"},
		{"CBC-SHA256 only", only(tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256), 3, handshake.Compatible, "webpki, TLS1.2", "TLS1.2"},
		{"3DES only", only(tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA), 3, handshake.Compatible, "weak TLS, TLS1.2", "4.7.5 no TLS cipher, group or signature in common"},
		{"TLS 1.0 only", versions(tls.VersionTLS10, tls.VersionTLS10), 3, handshake.Compatible, "weak TLS, TLS1.0", "4.7.5 the server speaks none of TLS 1.2 and TLS 1.3"},
		{"TLS 1.1 only", versions(tls.VersionTLS11, tls.VersionTLS11), 3, handshake.Compatible, "weak TLS, TLS1.1", "4.7.5 the server speaks none of TLS 1.2 and TLS 1.3"},
		{"TLS 1.2 only", versions(tls.VersionTLS12, tls.VersionTLS12), 1, handshake.Full, "webpki, TLS1.2", "TLS1.2"},
		{"TLS 1.3 only", versions(tls.VersionTLS13, tls.VersionTLS13), 1, handshake.Full, "webpki, TLS1.3", "TLS1.3"},
		{"refuses SNI", answer(func(h *tls.ClientHelloInfo) error {
			if h.ServerName != "" {
				return refuse
			}
			return nil
		}), 4, handshake.NoSNI, "webpki, TLS1.3", "4.7.5 the server's TLS had an internal error"},
		{"takes nothing", answer(func(*tls.ClientHelloInfo) error { return refuse }), 5, handshake.Full, "plaintext", "4.7.5 the server's TLS had an internal error"},
	} {
		for kind, protect := range map[string]func(*lab){
			"no policy": nil,
			"MTA-STS":   func(l *lab) { l.policy(theDomain, mtasts.ModeEnforce, theHost) },
			"DANE": func(l *lab) {
				l.signed(theDomain, "hosts.example")
				l.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates[theHost].Leaf))
			},
		} {
			t.Run(tt.name+"/"+kind, func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				server := l.tlsServer(tt.server)
				want, conns, floor := tt.opportunistic, tt.conns, handshake.Opportunistic
				if protect != nil {
					protect(l)
					want, conns, floor = tt.required, min(tt.conns, 3), handshake.Required
				}
				l.start(everything)
				first := l.send("b@" + theDomain)
				if strings.HasPrefix(want, "4") {
					expect(t, first, want)
					if got := server.Counters().Connections; got != conns || len(server.Messages()) > 0 {
						t.Errorf("%d messages over %d connections, want none over %d", len(server.Messages()), got, conns)
					}
					if text := first[0].Text; !strings.Contains(text, map[string]string{"MTA-STS": "(MTA-STS)", "DANE": "(DANE)"}[kind]) {
						t.Errorf("the reason does not say who asks for TLS: %s", text)
					}
					return
				}
				expect(t, first, "2.0.0 "+want)
				if got := server.Counters().Connections; got != conns {
					t.Errorf("the first message took %d connections, want %d", got, conns)
				}
				// What it took is remembered, but never that it was plaintext.
				again := 1
				if want == "plaintext" {
					again = 5
				}
				expect(t, l.send("b@"+theDomain), "2.0.0 "+want)
				if got := server.Counters().Connections - conns; got != again {
					t.Errorf("the second message took %d connections, want %d", got, again)
				}
				var remembered []string
				for _, r := range l.transport.Snapshot().Hellos {
					remembered = append(remembered, fmt.Sprint(r.Host, " ", r.Floor, " ", r.Step))
				}
				expected := []string{fmt.Sprint(theHost, " ", floor, " ", tt.step)}
				if tt.step == handshake.Full {
					expected = nil
				}
				if !slices.Equal(remembered, expected) {
					t.Errorf("remembered: %v, want %v", remembered, expected)
				}
				if tt.step != handshake.Full && l.transport.FlushHellos(func(host string) bool { return host == theHost }) != 1 {
					t.Error("not flushed")
				}
			})
		}
	}
}

// A server that aborts on a session ticket serves every message all the same:
// the first hello brings one from the second message on.
func TestServerThatAbortsOnTickets(t *testing.T) {
	t.Parallel()
	const preSharedKey = 41 // RFC 8446 §4.2.11
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		l := newLab(t)
		resumes := 0
		server := l.tlsServer(func(s *mx.TLS) {
			s.MaxVersion = version
			s.Answer = func(hello *tls.ClientHelloInfo, config *tls.Config) error {
				if slices.Contains(hello.Extensions, preSharedKey) {
					resumes++
					return errors.New("session id context uninitialized")
				}
				return nil
			}
		})
		l.signed(theDomain, "hosts.example")
		l.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates[theHost].Leaf))
		l.start(func(c *Config) { everything(c); c.ConnReuseLimit = 0 })
		for range 5 {
			expect(t, l.send("b@"+theDomain), "2.0.0 dane")
		}
		if got := travelled(server); got != "TTTTT" {
			t.Errorf("%s", got)
		}
		if version == tls.VersionTLS13 && resumes != 1 {
			t.Errorf("a ticket was offered %d times, want once", resumes)
		}
	}
}

// A hello that is swallowed costs ten seconds once, not command_timeout with
// each connection.
func TestSwallowedHello(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.tlsServer(nil)
	address := l.address()
	between(t, fmt.Sprintf("%s:%d", address, l.port), server.Addr(), tamper{breaks: postQuantum, swallow: true})
	l.dns.Remove(theHost, dns.TypeA)
	l.zone("%s. A %s", theHost, address)
	l.start(func(c *Config) { everything(c); c.CommandTimeout = time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for range 3 {
		expect(t, l.sendText(ctx, text, "b@"+theDomain), "2.0.0 TLS1.3")
	}
	if c := server.Counters(); c.Connections != 4 {
		t.Errorf("%d connections, want 4 for 3 messages", c.Connections)
	}
}

// A host that is silent in its handshakes leaves the next one half of the time.
func TestSilentHandshakesLeaveTime(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.tlsServer(nil)
	address := l.address()
	between(t, fmt.Sprintf("%s:%d", address, l.port), server.Addr(), tamper{breaks: func([]byte) bool { return true }, swallow: true})
	l.dns.Remove(theHost, dns.TypeA)
	l.zone("%s. A %s", theHost, address)
	next := l.mx("next.example", nil)
	l.zone("%s. MX 20 next.example.", theDomain)
	l.start(func(c *Config) { everything(c); c.CommandTimeout = time.Hour })
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	expect(t, l.sendText(ctx, text, "b@"+theDomain), "2.0.0 next.example")
	counts(t, next, 1, 1)
}

// What is written in tls_client holds for every hello.
func TestWrittenSettingsHold(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		client func(*TLSClient)
		server func(*mx.TLS)
	}{
		"protocols": {
			func(c *TLSClient) {
				c.MinVersion, c.MaxVersion, c.FixedVersions = tls.VersionTLS12, tls.VersionTLS13, true
			},
			func(s *mx.TLS) { s.MinVersion, s.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		},
		"ciphers": {
			func(c *TLSClient) { c.Ciphers = []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256} },
			func(s *mx.TLS) {
				s.MaxVersion, s.Ciphers = tls.VersionTLS12, []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
			},
		},
		"curves": {
			func(c *TLSClient) { c.Curves = []uint16{uint16(tls.X25519MLKEM768)} },
			func(s *mx.TLS) {
				s.Answer = func(_ *tls.ClientHelloInfo, config *tls.Config) error {
					config.CurvePreferences = []tls.CurveID{tls.X25519}
					return nil
				}
			},
		},
		"legacy": {
			func(c *TLSClient) { c.Legacy = false },
			func(s *mx.TLS) { s.MinVersion, s.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.tlsServer(tt.server)
			l.start(func(c *Config) { everything(c); tt.client(&c.TLSClient) })
			expect(t, l.send("b@"+theDomain), "2.0.0 plaintext")
		})
	}
}

// A server that wants a client certificate says so in TLS 1.2 within the
// handshake and in TLS 1.3 after the client is through with it. Both are failed
// handshakes, told alike.
func TestServerThatWantsACertificate(t *testing.T) {
	t.Parallel()
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		for _, signed := range []bool{false, true} {
			t.Run(fmt.Sprint(tls.VersionName(version), signed), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.tlsServer(func(s *mx.TLS) {
					s.MaxVersion = version
					s.Answer = func(_ *tls.ClientHelloInfo, config *tls.Config) error {
						config.ClientAuth = tls.RequireAnyClientCert
						return nil
					}
				})
				var attempts []Attempt
				l.observe = func(e *Event) { attempts = append(attempts, e.Attempts...) }
				if signed {
					l.signed(theDomain, "hosts.example")
					l.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates[theHost].Leaf))
				}
				l.start(everything)
				const reason = "the server asks for a client certificate (remote error: tls: "
				result := l.send("b@" + theDomain)
				if !signed {
					expect(t, result, "2.0.0 plaintext")
					if err := attempts[len(attempts)-1].TLSErr; err == nil || !strings.Contains(err.Error(), reason) {
						t.Errorf("TLS failed for: %v", err)
					}
					return
				}
				if code := result[0].Code.String(); code != "4.7.5" || !strings.Contains(result[0].Text, reason) || !strings.Contains(result[0].Text, "(DANE)") {
					t.Errorf("%s %s", code, result[0].Text)
				}
				if len(attempts) != 1 || attempts[0].Failure == nil || attempts[0].Failure.Cause != verdict.HandshakeFailed {
					t.Errorf("for reports: %+v", attempts)
				}
			})
		}
	}
}
