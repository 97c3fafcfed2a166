// Package handshake knows how TLS with a mail server comes about: which hellos
// are worth a try, which failure of one leads to the next, what a failure means
// in words, and what a host was found to need. It is pure but for [Memory],
// which remembers; package session does the shaking.
//
// # Plainer hellos
//
// The first hello offers all that Go offers. Some servers, and boxes before
// them, cannot take it: they reset, refuse or swallow a hello that is as large
// as a post-quantum key share makes it, abort on a session ticket, or know
// nothing of what it offers. Others of the same age encrypt well with a plainer
// one. So where a hello fails before the server's certificate was
// judged, the next [Step] is tried over a connection of its own:
//
//  1. [Full]: all that Go offers, post-quantum shares and a ticket among it.
//  2. [Classical]: the groups of before, and no ticket.
//  3. [Compatible]: also RSA key exchange and CBC-SHA256. Where no TLS is
//     required, and tls_client.legacy is not off, also TLS 1.0, 1.1 and 3DES.
//  4. [NoSNI]: the same without the server's name, where no TLS is required.
//
// What protocols, ciphers or curves of tls_client say holds for every hello, so
// a step that would differ from none before it is left out.
//
// What this gives away: someone on the wire who breaks the better hellos can
// take the post-quantum share from a connection, and where the server prefers
// RSA key exchange forward secrecy; never its authentication, since each
// handshake is judged as the first would be.
package handshake

import (
	"cmp"
	"crypto/tls"
	"reflect"
	"slices"
	"strings"
)

// Step is how plain a hello is.
type Step uint8

// The steps, from the fullest to the plainest.
const (
	Full Step = iota
	Classical
	Compatible
	NoSNI
	Steps // how many there are
)

// String gives the step in a word, for texts and as a label.
func (s Step) String() string {
	if s >= Steps {
		return "unknown"
	}
	return [Steps]string{"full", "classical", "compatible", "without-sni"}[s]
}

// Floor is the least that a connection must be for a message. What a host needs
// is remembered for each floor by itself.
type Floor uint8

// The floors.
const (
	Opportunistic Floor = iota // plaintext will do, so any TLS is better
	Required                   // TLS 1.2 or better
	Floors                     // how many there are
)

// String gives the floor in a word.
func (f Floor) String() string {
	if f == Required {
		return "required"
	}
	return "opportunistic"
}

// Settings are what tls_client says about hellos.
type Settings struct {
	// Min and Max are the versions of crypto/tls to offer; 0 means TLS 1.2 and
	// 1.3. Fixed says that they were written down, so that no hello goes
	// beyond.
	Min, Max uint16
	Fixed    bool
	Ciphers  []uint16      // TLS 1.2 suites; empty: what each step has
	Curves   []tls.CurveID // empty: what each step has
	// Legacy takes TLS 1.0, 1.1 and 3DES rather than plaintext.
	Legacy bool
}

// Hello is what one hello offers.
type Hello struct {
	Step     Step
	Min, Max uint16
	Ciphers  []uint16      // nil: Go's choice
	Curves   []tls.CurveID // nil: Go's choice
	Ticket   bool          // an earlier session may be resumed
	SNI      bool          // the server's name is sent
}

// classical are the groups of before post-quantum key exchange.
var classical = []tls.CurveID{tls.X25519, tls.CurveP256, tls.CurveP384, tls.CurveP521}

// rsaAndCBC are suites that Go leaves out unless they are named.
var rsaAndCBC = []uint16{
	tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
	tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA256,
	tls.TLS_RSA_WITH_AES_128_CBC_SHA,
	tls.TLS_RSA_WITH_AES_256_CBC_SHA,
}

// tripleDES are the suites with 3DES.
var tripleDES = []uint16{tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA, tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA}

// Weak reports whether a connection counts as none: its version is below TLS
// 1.2, or its cipher is 3DES. It keeps mail from being read by who listens, and
// proves nothing.
func Weak(version, cipher uint16) bool {
	return version < tls.VersionTLS12 || slices.Contains(tripleDES, cipher)
}

// suites are the TLS 1.2 suites of a compatible hello.
func suites(legacy bool) []uint16 {
	var all []uint16
	for _, suite := range tls.CipherSuites() {
		if slices.Contains(suite.SupportedVersions, tls.VersionTLS12) {
			all = append(all, suite.ID)
		}
	}
	all = append(all, rsaAndCBC...)
	if legacy {
		all = append(all, tripleDES...)
	}
	return all
}

// hello gives what one step offers.
func (s *Settings) hello(step Step, floor Floor) Hello {
	h := Hello{
		Step: step, Ticket: step == Full, SNI: step != NoSNI,
		Min: cmp.Or(s.Min, tls.VersionTLS12), Max: cmp.Or(s.Max, tls.VersionTLS13),
		Ciphers: s.Ciphers, Curves: s.Curves,
	}
	if step >= Classical && len(s.Curves) == 0 {
		h.Curves = classical
	}
	legacy := s.Legacy && floor == Opportunistic
	if step >= Compatible {
		if len(s.Ciphers) == 0 {
			h.Ciphers = suites(legacy)
		}
		if legacy && !s.Fixed {
			h.Min = tls.VersionTLS10
		}
	}
	if floor == Required {
		h.Min = max(h.Min, tls.VersionTLS12)
	}
	return h
}

// Hellos gives the hellos that are worth a try, the fullest first: those of the
// steps that these settings and the floor do not exclude.
func (s *Settings) Hellos(floor Floor) []Hello {
	var all []Hello
	for step := range Steps {
		if step == NoSNI && floor == Required {
			// DANE and WebPKI are about a name (RFC 7672 §8.1, RFC 8461 §4)
			continue
		}
		h := s.hello(step, floor)
		if !slices.ContainsFunc(all, func(before Hello) bool { return before.same(h) }) {
			all = append(all, h)
		}
	}
	return all
}

// same reports whether two hellos offer the same.
func (h Hello) same(o Hello) bool {
	h.Step = o.Step
	return reflect.DeepEqual(h, o)
}

// Order puts the hello of a step that worked lately first. The others follow
// from the fullest on: what a host needed yesterday may be what it refuses
// today.
func Order(hellos []Hello, first Step) []Hello {
	i := slices.IndexFunc(hellos, func(h Hello) bool { return h.Step == first })
	if i <= 0 {
		return hellos
	}
	order := append([]Hello{hellos[i]}, hellos[:i]...)
	return append(order, hellos[i+1:]...)
}

// Apply has a configuration make this hello. What it does not say stays:
// ServerName is emptied where no name is sent.
func (h Hello) Apply(cfg *tls.Config) {
	cfg.MinVersion, cfg.MaxVersion = h.Min, h.Max
	cfg.CipherSuites, cfg.CurvePreferences = h.Ciphers, h.Curves
	if !h.Ticket {
		cfg.ClientSessionCache, cfg.SessionTicketsDisabled = nil, true
	}
	if !h.SNI {
		cfg.ServerName = ""
	}
}

// Versions names the versions that are offered: "TLS 1.2 and TLS 1.3".
func (h Hello) Versions() string {
	var names []string
	for v := max(h.Min, tls.VersionTLS10); v <= h.Max; v++ {
		names = append(names, tls.VersionName(v))
	}
	switch len(names) {
	case 0:
		return "no version"
	case 1:
		return names[0]
	}
	return strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1]
}
