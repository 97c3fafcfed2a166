package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

// relay reads a relay block, or the word off.
func (d *decoder) relay(v value, t *transport.Config) {
	t.Relay = nil
	if v.isOff() || v.node.Value == "none" {
		return
	}
	r := &relay.Relay{}
	if d.relayBlock(v, r, d.relayKeys(r), t) {
		t.Relay = r
	}
}

// fallbackRelay reads a fallback_relay block, or the word off.
func (d *decoder) fallbackRelay(v value, t *transport.Config) {
	t.FallbackRelay = nil
	if v.isOff() || v.node.Value == "none" {
		return
	}
	f := &relay.Fallback{After: 30 * time.Minute}
	if d.relayBlock(v, &f.Relay, d.fallbackKeys(f), t) {
		t.FallbackRelay = f
	}
}

func (d *decoder) fallbackKeys(f *relay.Fallback) []key {
	return append(d.relayKeys(&f.Relay),
		key{"after", set(&f.After, duration(0, 5*24*time.Hour))},
		key{"trusted", set(&f.Trusted, boolean())})
}

// relayBlock reads a relay's keys and compares them. ok says that it can be
// used.
func (d *decoder) relayBlock(v value, r *relay.Relay, keys []key, t *transport.Config) (ok bool) {
	before := d.count
	seen := v.block(keys...)
	if d.count > before {
		return false
	}
	if _, given := seen["host"]; !given {
		v.wrong("host is missing; expected a key such as host: \"smtp.relay.example:587\"")
		return false
	}
	if r.Port == 0 {
		r.Port = r.TLS.Port()
	}
	if auth := seen["auth"]; len(r.Auth) == 0 && r.User != "" {
		if auth.node != nil {
			auth.wrong("names no mechanism; expected some of %s, or no user", joinOr(mechanismWords()))
			return false
		}
		r.Auth = sasl.Default()
	}
	external := len(r.Auth) > 0 && !slices.ContainsFunc(r.Auth, func(m sasl.Mechanism) bool { return m != sasl.External })
	at := func(name string) value {
		if there, given := seen[name]; given {
			return there
		}
		return v
	}
	switch {
	case r.TLS == relay.NoTLS && !r.Loopback():
		at("tls").wrong("none is for a relay on this host, and %s is elsewhere; expected starttls or implicit, or a host such as 127.0.0.1", r.Name())
	case r.TLS == relay.NoTLS && len(r.Auth) > 0:
		at("tls").wrong("none allows no login; expected starttls or implicit, or neither user nor auth")
	case len(r.Auth) > 0 && r.User == "" && !external:
		at("auth").wrong("there is no user to log in; expected a key such as user: NAME")
	case r.User == "" && r.PasswordFile != "":
		at("password_file").wrong("there is no user whose password it is; expected a key such as user: NAME")
	case r.User != "" && r.PasswordFile == "" && !external:
		at("user").wrong("there is no password; expected a key such as password_file: /etc/mxpolicyd/relay.password, or auth: external")
	case slices.Contains(r.Auth, sasl.External) && t.TLSClient.Cert == "":
		at("auth").wrong("external needs a client certificate; expected tls_client with cert and key")
	default:
		return true
	}
	return false
}

// relayKeys is the schema of relay.
func (d *decoder) relayKeys(r *relay.Relay) []key {
	return []key{
		{"host", func(v value) {
			if got, ok := plain(v, relayHost()); ok {
				r.Host, r.Addr, r.Port = got.Host, got.Addr, got.Port
			}
		}},
		{"tls", set(&r.TLS, oneOf(choice[relay.TLS]{"starttls", relay.STARTTLS}, choice[relay.TLS]{"implicit", relay.Implicit}, choice[relay.TLS]{"none", relay.NoTLS}))},
		{"user", set(&r.User, loginName())},
		{"password_file", set(&r.PasswordFile, d.passwordFile())},
		{"auth", setWords(&r.Auth, len(sasl.Mechanisms), mechanism())},
	}
}

// checkRelay compares an override's relay with its nexthop. A relay that is the
// transport's gives way.
func checkRelay(seen map[string]value, t *transport.Config) {
	_, nexthop := seen["nexthop"]
	at, given := seen["relay"]
	switch {
	case nexthop && given && t.Relay != nil:
		at.wrong("cannot be used with nexthop; expected one of the two")
	case nexthop:
		t.Relay = nil
	}
}

// compareRelay warns of a relay that is at the host and port of one before it,
// with another login or TLS: a next hop cannot tell which of them it means.
func (d *decoder) compareRelay(at value, r *relay.Relay, before []*relay.Relay) {
	for _, other := range before {
		if r != nil && other != nil && r.String() == other.String() && !reflect.DeepEqual(r, other) {
			d.warn(at.node, "%s is at %s as one before it, with another login or TLS; --nexthop %s goes to the one of the recipient's override, else to the one before",
				at.path, r, r)
			return
		}
	}
}

func mechanismWords() (words []string) {
	for _, m := range sasl.Mechanisms {
		words = append(words, m.Word())
	}
	return words
}

// mechanism is the form of a SASL mechanism.
func mechanism() format[sasl.Mechanism] {
	var choices []choice[sasl.Mechanism]
	for _, m := range sasl.Mechanisms {
		choices = append(choices, choice[sasl.Mechanism]{m.Word(), m})
	}
	return oneOf(choices...)
}

// relayHost is the form of a relay's host, with a port or without. Brackets
// mean nothing.
func relayHost() format[relay.Relay] {
	return format[relay.Relay]{"a host or an address, with a port or without, such as smtp.relay.example:587", func(s string) (r relay.Relay, err error) {
		if strings.HasPrefix(s, "unix:") || strings.HasPrefix(s, "/") {
			return r, hintError{quote(s) + " is a unix socket, which no relay is reached by", "a port of this host, such as 127.0.0.1:10025"}
		}
		host, tail := s, ""
		if addr, err := netip.ParseAddr(s); err == nil && addr.Is6() {
			host = s // its colons are its own
		} else if strings.HasPrefix(s, "[") {
			end := strings.IndexByte(s, ']')
			if end < 0 {
				return r, fmt.Errorf("%s has no closing bracket", quote(s))
			}
			host, tail = s[:end+1], s[end+1:]
		} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
			host, tail = s[:i], s[i:]
		}
		if tail != "" {
			digits, ok := strings.CutPrefix(tail, ":")
			if !ok {
				return r, fmt.Errorf("%s has text after the bracket", quote(s))
			}
			if r.Port, err = port().read(digits); err != nil {
				return r, hintError{quote(s) + " has no usable port", port().want + " after the colon"}
			}
		}
		if addr, ok := relay.Literal(host); ok {
			r.Addr = addr
			return r, nil
		}
		if r.Host, err = domainName(strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")); err != nil {
			return r, errors.New(quote(s) + " names no host")
		}
		return r, nil
	}}
}

// loginName is the form of a user at a relay.
func loginName() format[string] {
	return format[string]{"the name of a user", func(s string) (string, error) {
		switch {
		case s == "":
			return "", errors.New("is empty")
		case s != printable(s) || len(s) > 500:
			return "", fmt.Errorf("%s is no such name", quote(s))
		}
		return s, nil
	}}
}

// passwordFile is the form of the place of a password.
func (d *decoder) passwordFile() format[string] {
	path := absolute()
	return format[string]{"the absolute path of a file with a password, or the name of a systemd credential", func(s string) (string, error) {
		name := s
		if s != "" && s != "." && s != ".." && !strings.ContainsAny(s, "/\\") && s == printable(s) && len(s) <= 255 {
			if d.env.Credentials == "" {
				return "", hintError{quote(s) + " is the name of a credential, and systemd has given none ($CREDENTIALS_DIRECTORY is not set)",
					"LoadCredential=" + s + ":/path in the unit, or the absolute path of a file"}
			}
			name = filepath.Join(d.env.Credentials, s)
		}
		name, err := path.read(name)
		if err != nil {
			return "", err
		}
		text, checked, err := d.readBy(d.env.ReadSecret, name)
		if err != nil {
			return "", hintError{err.Error(), "a file of mode 0600 that belongs to the daemon's user (mxpolicyd) or to root"}
		}
		if checked {
			if _, problem := relay.Password(text); problem != "" {
				return "", hintError{quote(s) + " " + problem, "the password in one line"}
			}
		}
		return name, nil
	}}
}
