package route

import (
	"errors"
	"net/netip"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/transport/address"
)

// What is wrong with a destination. For a recipient's domain the caller
// answers 5.1.2 or 5.1.3; for a next hop, which the administrator wrote, with
// a temporary failure.
var (
	ErrDomain  = errors.New("not a domain name or an address literal")
	ErrNexthop = errors.New("want domain, [host], [IPv4] or [IPv6:address], with :port or without")
)

// maxText bounds the text of a destination. 253 bytes is a domain name's
// bound; international names take more bytes before they are A-labels.
const maxText = 1100

// Destination is where mail is to go: a domain, a host, or an address. It is
// comparable.
type Destination struct {
	// as A-labels, lower case, without a final dot; empty for an address
	Domain  string
	Literal netip.Addr // not valid for a domain or a host
	// the administrator named this very host or address: no MX, and it may be
	// this host
	Nexthop bool
	Port    uint16 // 0: the transport's
}

// ParseNexthop reads a next hop as mail servers write it: "domain", whose MX
// records are looked up, or a host or address in brackets, "[host]",
// "[192.0.2.1]", "[IPv6:2001:db8::1]" or "[2001:db8::1]". Each may be followed
// by ":port". An address without brackets is refused, because a look-up of it
// would say that there is no such domain, and have the mail bounced.
func ParseNexthop(s string) (Destination, error) {
	if len(s) > maxText {
		return Destination{}, ErrNexthop
	}
	var d Destination
	name, port := s, ""
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return Destination{}, ErrNexthop
		}
		name, port, d.Nexthop = s[1:end], s[end+1:], true
	} else if i := strings.IndexByte(s, ':'); i >= 0 {
		name, port = s[:i], s[i:]
	}
	if port != "" {
		var ok bool
		if d.Port, ok = parsePort(port); !ok {
			return Destination{}, ErrNexthop
		}
	}
	if d.Nexthop {
		if addr, ok := address.Literal("[" + name + "]"); ok {
			d.Literal = addr.Unmap()
			return d, nil
		}
	}
	if d.Domain = normalHost(name); d.Domain == "" {
		return Destination{}, ErrNexthop
	}
	return d, nil
}

// parsePort reads ":port".
func parsePort(s string) (uint16, bool) {
	digits, ok := strings.CutPrefix(s, ":")
	if !ok || digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	return uint16(n), err == nil && n > 0
}

// ForDomain reads a recipient's domain: a domain name as U-labels or A-labels,
// or an address literal (RFC 5321 §4.1.3).
func ForDomain(domain string) (Destination, error) {
	if len(domain) > maxText {
		return Destination{}, ErrDomain
	}
	if strings.HasPrefix(domain, "[") {
		addr, ok := address.Literal(domain)
		if !ok {
			return Destination{}, ErrDomain
		}
		return Destination{Literal: addr.Unmap()}, nil
	}
	ascii := asciiDomain(domain)
	if ascii == "" {
		return Destination{}, ErrDomain
	}
	return Destination{Domain: ascii}, nil
}

// String gives the canonical text, which ParseNexthop or ForDomain reads back.
// It serves as a key: two destinations with one text lead to the same hosts.
func (d Destination) String() string {
	s := d.Domain
	switch {
	case d.Literal.IsValid():
		s = address.FormatLiteral(d.Literal)
	case d.Nexthop:
		s = "[" + s + "]"
	}
	if d.Port != 0 {
		s += ":" + strconv.Itoa(int(d.Port))
	}
	return s
}

// asciiDomain brings a domain name to lower-case A-labels; "" means that it is
// none. Malformed UTF-8 must not pass for the character that stands for it.
func asciiDomain(name string) string {
	if !utf8.ValidString(name) || strings.ContainsRune(name, utf8.RuneError) {
		return ""
	}
	ascii, err := address.ASCIIDomain(name)
	if err != nil {
		return ""
	}
	return ascii
}

// numeric reports whether the last label of a name is a number, as in an IPv4
// address; no such top-level domain exists (RFC 3696 §2).
func numeric(name string) bool {
	last := name[strings.LastIndexByte(name, '.')+1:]
	return last != "" && strings.Trim(last, "0123456789") == ""
}
