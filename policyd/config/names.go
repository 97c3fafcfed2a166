package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/transport/address"
)

// hostname is the form of what EHLO says (RFC 5321 §4.1.1.1): a host name or
// an address literal.
func hostname() format[string] {
	return format[string]{"a domain name such as mx.example.org, or an address literal such as [192.0.2.1]", func(s string) (string, error) {
		if addr, ok := address.Literal(s); ok {
			return address.FormatLiteral(addr.Unmap()), nil
		}
		return domainName(s)
	}}
}

// domainName gives a host's name as lower-case A-labels, letters, digits and
// hyphens only (RFC 1123 §2.1).
func domainName(s string) (string, error) {
	if s == "" {
		return "", errors.New("is empty")
	}
	if addr, err := netip.ParseAddr(s); err == nil {
		return "", hintError{quote(s) + " is an address", "in brackets, " + address.FormatLiteral(addr.Unmap().WithZone(""))}
	}
	name, err := address.ASCIIDomain(s)
	if err != nil {
		return "", fmt.Errorf("%s is not a domain name", quote(s))
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") || strings.Contains(label, "_") {
			return "", fmt.Errorf("%s is not a host name: labels have letters, digits and inner hyphens", quote(s))
		}
		last = label
	}
	if _, err := strconv.ParseUint(last, 10, 64); err == nil {
		return "", fmt.Errorf("%s is not a domain name: it ends with a number", quote(s))
	}
	return name, nil
}

// pattern is the form of an override's match.
func pattern() format[string] {
	return format[string]{"example.org for that domain alone, or .example.org for its subdomains", func(s string) (string, error) {
		if rest, ok := strings.CutPrefix(s, "*."); ok {
			return "", hintError{quote(s) + " has a wildcard", strconv.Quote("."+printable(rest)) + " for the subdomains"}
		}
		if _, domain, ok := strings.Cut(s, "@"); ok {
			return "", hintError{quote(s) + " is a mail address", "its domain, " + quote(domain)}
		}
		domain, sub := strings.CutPrefix(s, ".")
		name, err := address.ASCIIDomain(domain)
		if err != nil {
			return "", fmt.Errorf("%s is not a domain name", quote(s))
		}
		if sub {
			name = "." + name
		}
		return name, nil
	}}
}

// nexthop is the form of a next hop: a domain whose MX hosts are looked up, or
// a host in brackets that stands for itself, either with a port.
func nexthop() format[string] {
	return format[string]{"\"domain\", \"[host]\", \"domain:port\" or \"[host]:port\"", func(s string) (string, error) {
		if addr, err := netip.ParseAddr(s); err == nil {
			return "", hintError{quote(s) + " is an address", "in brackets, \"[" + addr.WithZone("").String() + "]\""}
		}
		rest, bracketed := strings.CutPrefix(s, "[")
		host, tail, found := strings.Cut(rest, ":")
		if bracketed {
			host, tail, found = strings.Cut(rest, "]")
			if !found {
				return "", fmt.Errorf("%s has no closing bracket", quote(s))
			}
			if tail != "" && tail[0] != ':' {
				return "", fmt.Errorf("%s has text after the bracket", quote(s))
			}
			found = tail != ""
			tail = strings.TrimPrefix(tail, ":")
		}
		if found {
			p, err := port().read(tail)
			if err != nil {
				return "", hintError{quote(s) + " has no usable port", port().want + " after the colon"}
			}
			tail = ":" + strconv.Itoa(int(p))
		}
		if bracketed {
			if addr, ok := address.Literal("[" + host + "]"); ok {
				return "[" + addr.String() + "]" + tail, nil
			}
		} else if _, err := netip.ParseAddr(host); err == nil {
			return "", hintError{quote(s) + " is an address", "with brackets around it, \"[" + host + "]" + tail + "\""}
		}
		name, err := address.ASCIIDomain(host)
		if err != nil {
			return "", fmt.Errorf("%s names no host", quote(s))
		}
		if bracketed {
			name = "[" + name + "]"
		}
		return name + tail, nil
	}}
}

// sourceAddr is the form of an address to connect from.
func sourceAddr() format[netip.Addr] {
	return format[netip.Addr]{"an address of this host such as 192.0.2.1 or 2001:db8::1", func(s string) (netip.Addr, error) {
		addr, err := netip.ParseAddr(s)
		switch {
		case err != nil:
			return addr, fmt.Errorf("%s is not an address", quote(s))
		case addr.Zone() != "":
			return addr, hintError{quote(s) + " has a zone", "an address that the internet can reach"}
		case addr.Is4In6():
			return addr, hintError{quote(s) + " is an IPv4 address in IPv6 form", addr.Unmap().String()}
		case addr.IsUnspecified():
			return addr, hintError{quote(s) + " is not an address to send from", "nothing (leave the key out), so that the kernel chooses"}
		case addr.IsMulticast() || addr == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
			return addr, fmt.Errorf("%s is not an address to connect from", quote(s))
		}
		return addr, nil
	}}
}

// resolver is the form of a DNS server; it gives host:port.
func resolver() format[string] {
	const want = "an address or a name, with a port or without, such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53"
	return format[string]{want, func(s string) (string, error) {
		bare := s
		if strings.HasPrefix(s, "[") && strings.HasSuffix(s, "]") {
			bare = s[1 : len(s)-1]
		}
		if addr, err := netip.ParseAddr(bare); err == nil {
			return net.JoinHostPort(addr.String(), "53"), nil
		}
		if strings.Contains(s, ":") {
			return hostPort(s, false)
		}
		name, err := domainName(s)
		if err != nil {
			return "", err
		}
		return net.JoinHostPort(name, "53"), nil
	}}
}

// listenAddress is the form of a TCP address to listen at.
func listenAddress() format[string] {
	return format[string]{"host:port such as 127.0.0.1:8461, [::1]:8461 or :8461", func(s string) (string, error) {
		return hostPort(s, true)
	}}
}

// hostPort checks host:port, in which the host may be missing where that means
// every address of this host.
func hostPort(s string, every bool) (string, error) {
	host, p, err := net.SplitHostPort(s)
	if err != nil {
		return "", fmt.Errorf("%s is not host:port", quote(s))
	}
	n, err := port().read(p)
	if err != nil {
		return "", hintError{quote(s) + " has no usable port", port().want + " after the colon"}
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		host = addr.String()
	} else if host != "" || !every {
		if host, err = domainName(host); err != nil {
			return "", fmt.Errorf("%s names no host", quote(s))
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(int(n))), nil
}

// known is the form of a name that must be one of those defined elsewhere.
func known(what string, defined []string) format[string] {
	want := "one of " + strings.Join(defined, ", ")
	return format[string]{want, func(s string) (string, error) {
		if slices.Contains(defined, s) {
			return s, nil
		}
		wrong := fmt.Sprintf("unknown %s %s", what, quote(s))
		if near := nearest(s, defined); near != "" {
			return "", hintError{wrong, fmt.Sprintf("%q (known: %s)", near, strings.Join(defined, ", "))}
		}
		return "", errors.New(wrong)
	}}
}

// headerField is the form of "Name: value" (RFC 5322 §2.2).
func headerField() format[string] {
	return format[string]{"\"Name: value\" such as \"X-Quarantined: yes\"", func(s string) (string, error) {
		name, value, found := strings.Cut(s, ":")
		value = strings.TrimSpace(value)
		switch {
		case !found || name == "" || value == "":
			return "", fmt.Errorf("%s is not a header field with a value", quote(s))
		case value != printable(value) || len(s) > 900:
			return "", fmt.Errorf("%s is not a header field of one line", quote(s))
		}
		for i := 0; i < len(name); i++ {
			if name[i] <= ' ' || name[i] > '~' {
				return "", fmt.Errorf("%s has a blank or a character beyond ASCII in the field's name", quote(s))
			}
		}
		return name + ": " + value, nil
	}}
}
