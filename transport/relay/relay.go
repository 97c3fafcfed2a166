// Package relay says what a relay is: one mail server that takes mail for
// anybody, instead of the mail servers of the recipients' domains, and that
// mostly wants to know who we are. It holds the values of the configuration's
// relay and fallback_relay blocks, and knows nobody who uses them.
//
// The password is not among them: a Relay names the file that holds it, so that
// whatever shows or compares a configuration cannot show a password.
package relay

import (
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

// TLS is how a connection to a relay comes to TLS (tls).
type TLS uint8

// The ways to TLS. With both of the first the relay's certificate must be right
// before anything is said about a message, or about us.
const (
	STARTTLS TLS = iota // RFC 3207
	Implicit            // from the first byte (RFC 8314 §3.3)
	NoTLS               // none: for relays on this host
)

// String gives the configuration's word.
func (t TLS) String() string { return [...]string{"starttls", "implicit", "none"}[t] }

// The ports of submission (RFC 6409, RFC 8314).
const (
	portSTARTTLS = 587
	portImplicit = 465
)

// Port is where a relay listens unless the administrator says otherwise.
func (t TLS) Port() uint16 {
	if t == Implicit {
		return portImplicit
	}
	return portSTARTTLS
}

// Relay is one relay. It is never changed.
type Relay struct {
	// Host is the relay's name as A-labels, or Addr its address. Brackets
	// around it mean nothing: no MX record is ever asked for.
	Host string
	Addr netip.Addr
	Port uint16
	TLS  TLS
	// User is who we are there (user); empty with auth external alone, and
	// where no login is wanted.
	User string
	// PasswordFile is the absolute path of the file with the password, or with
	// the token (password_file).
	PasswordFile string
	// Auth are the mechanisms that may be used, the best first (auth); empty:
	// there is no login.
	Auth []sasl.Mechanism
}

// Fallback is a relay for mail that its own hosts could not be given
// (fallback_relay).
type Fallback struct {
	Relay
	// After is how long a destination must have failed (after).
	After time.Duration
	// Trusted has it take mail of domains whose policies it cannot keep
	// (trusted).
	Trusted bool
}

// String gives host and port, the relay's name for people.
func (r *Relay) String() string { return net.JoinHostPort(r.Name(), strconv.Itoa(int(r.Port))) }

// Name gives the host alone.
func (r *Relay) Name() string {
	if r.Addr.IsValid() {
		return r.Addr.String()
	}
	return r.Host
}

// Destination gives the relay as a place to send mail to.
func (r *Relay) Destination() route.Destination {
	return route.Destination{Domain: r.Host, Literal: r.Addr, Nexthop: true, Port: r.Port}
}

// Is reports whether a next hop, as mail servers write it, is this relay:
// brackets or not, it has the same host and the same port. Without a port it is
// that of SMTP, which other is.
func (r *Relay) Is(nexthop route.Destination, other uint16) bool {
	port := nexthop.Port
	if port == 0 {
		port = other
	}
	return port == r.Port && nexthop.Domain == r.Host && nexthop.Literal == r.Addr
}

// Loopback reports whether the relay is on this host, as far as its name tells.
func (r *Relay) Loopback() bool { return r.Addr.IsLoopback() || r.Host == "localhost" }

// Password reads what a password file holds: one newline at its end, be it LF
// or CRLF, is no part of the password. problem says, without quoting any of it,
// what no password has; empty: it is one.
func Password(text []byte) (password, problem string) {
	s := string(text)
	if rest, ok := strings.CutSuffix(s, "\n"); ok {
		s = strings.TrimSuffix(rest, "\r")
	}
	switch {
	case s == "":
		return "", "is empty"
	case len(s) > maxPassword:
		return "", "is longer than " + strconv.Itoa(maxPassword) + " bytes"
	case strings.ContainsAny(s, "\r\n"):
		return "", "has more than one line"
	case !utf8.ValidString(s):
		return "", "is not UTF-8"
	case strings.ContainsFunc(s, unicode.IsControl):
		return "", "has a control character"
	}
	return s, ""
}

// maxPassword bounds a password, or a token, in bytes: a line with its base64
// must be taken by the server (RFC 4954 §4 has room for 12,288).
const maxPassword = 8000

// Literal gives the address of a host that is written as one, with or without
// brackets; ok is false for a name.
func Literal(host string) (addr netip.Addr, ok bool) {
	if addr, ok = address.Literal(host); ok {
		return addr.Unmap(), true
	}
	addr, err := netip.ParseAddr(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]"))
	return addr.Unmap(), err == nil && addr.Zone() == ""
}
