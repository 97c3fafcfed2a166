package config

import (
	"cmp"
	"errors"
	"net"
	"net/mail"
	"net/netip"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport/address"
)

// tlsrpt reads the tlsrpt block. What a report says of us is completed when the
// hostname is known.
func (d *decoder) tlsrpt(v value, c *Config) {
	report := key{"report", func(v value) {
		if v.isNull() {
			return
		}
		r := &TLSReport{Send: "127.0.0.1:25", MaxSize: 10_000_000}
		if _, given := v.block(tlsReportKeys(r)...)["from"]; !given && v.node.Kind == yaml.MappingNode {
			v.wrong("from is missing; expected a mail address that takes bounces, such as from: tlsrpt@example.org")
			return
		}
		r.Contact = cmp.Or(r.Contact, r.From)
		c.TLSRPT.Report = r
	}}
	v.block(key{"socket", set(&c.TLSRPT.Socket, optional(socketPath()))}, report)
}

func tlsReportKeys(r *TLSReport) []key {
	line := format[string]{want: "one line of text", read: func(s string) (string, error) {
		if s == "" || strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c == 0x7f }) || len(s) > 200 {
			return "", errors.New("not one line")
		}
		return s, nil
	}}
	return []key{
		{"organization", set(&r.Organization, line)},
		{"contact", set(&r.Contact, line)},
		{"from", set(&r.From, mailAddress())},
		{"send", set(&r.Send, mailServer())},
		{"exclude", setList(&r.Exclude, 1000, domainPattern())},
		{"allow_private", setList(&r.AllowPrivate, 100, network())},
		{"max_size", set(&r.MaxSize, size(1<<10, 100<<20))},
	}
}

func mailAddress() format[string] {
	return format[string]{want: "a mail address such as tlsrpt@example.org", read: func(s string) (string, error) {
		a, err := mail.ParseAddress(s)
		if err == nil && (a.Address != s || strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c > '~' })) {
			err = errors.New("not a plain address")
		}
		if err != nil {
			return "", errors.New(quote(s) + " is not one address")
		}
		return s, nil
	}}
}

// mailServer reads the host's own mail server, as host:port or
// smtp://host:port.
func mailServer() format[string] {
	return format[string]{want: "a mail server such as smtp://127.0.0.1:25", read: func(s string) (string, error) {
		s = strings.TrimPrefix(s, "smtp://")
		host, port, err := net.SplitHostPort(s)
		if err != nil {
			host, port = s, "25"
		}
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || host == "" || strings.ContainsAny(host, "/ \x7f?") {
			return "", errors.New("no host and port")
		}
		return net.JoinHostPort(host, port), nil
	}}
}

// domainPattern is a domain, or with a dot before it all below it.
func domainPattern() format[string] {
	return format[string]{want: "a domain, or .example.org for all below it", read: func(s string) (string, error) {
		rest, below := strings.CutPrefix(s, ".")
		ascii, err := address.ASCIIDomain(rest)
		if below {
			ascii = "." + ascii
		}
		return ascii, err
	}}
}

// network is a network in CIDR notation, or one address.
func network() format[netip.Prefix] {
	return format[netip.Prefix]{want: "a network such as 10.0.0.0/8", read: func(s string) (netip.Prefix, error) {
		if addr, err := netip.ParseAddr(s); err == nil && addr.Zone() == "" {
			return netip.PrefixFrom(addr, addr.BitLen()), nil
		}
		p, err := netip.ParsePrefix(s)
		if err == nil && p != p.Masked() {
			err = errors.New(quote(s) + " has bits beyond its length")
		}
		return p, err
	}}
}
