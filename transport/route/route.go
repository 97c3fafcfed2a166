// Package route finds the hosts for a destination. (Walking version, so that
// the rest can be built; whoever owns this package replaces it.)
package route

import (
	"context"
	"net/netip"
	"sort"
	"strconv"
	"strings"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/transport/address"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/status"
)

type Resolver interface {
	Lookup(ctx context.Context, name string, qtype uint16) (resolver.Answer, error)
}

type Self struct {
	Hostname   string
	LocalIP    []netip.Addr
	Interfaces []netip.Addr
}

func ThisHost() (Self, error) { return Self{}, nil }

type Destination struct {
	Domain  string
	Literal netip.Addr
	Nexthop bool
	Port    uint16
}

func (d Destination) String() string {
	s := d.Domain
	if d.Literal.IsValid() {
		s = address.FormatLiteral(d.Literal)
	} else if d.Nexthop {
		s = "[" + s + "]"
	}
	if d.Port != 0 {
		s += ":" + strconv.Itoa(int(d.Port))
	}
	return s
}

func ParseNexthop(s string) (Destination, error) {
	var d Destination
	if i := strings.LastIndexByte(s, ':'); i > strings.LastIndexByte(s, ']') && strings.Count(s, ":") == 1 || i > 0 && s[i-1] == ']' {
		p, err := strconv.ParseUint(s[i+1:], 10, 16)
		if err != nil {
			return d, err
		}
		d.Port, s = uint16(p), s[:i]
	}
	if a, ok := address.Literal(s); ok {
		d.Literal = a
		return d, nil
	}
	if strings.HasPrefix(s, "[") {
		d.Nexthop = true
		s = strings.Trim(s, "[]")
	}
	var err error
	d.Domain, err = address.ASCIIDomain(s)
	return d, err
}

func ForDomain(s string) (Destination, error) {
	if a, ok := address.Literal(s); ok {
		return Destination{Literal: a}, nil
	}
	d, err := address.ASCIIDomain(s)
	return Destination{Domain: d}, err
}

type Host struct {
	Name       string
	Preference uint16
	Addr       netip.Addr
}

func (h Host) Literal() bool { return h.Addr.IsValid() }

type Route struct {
	Destination Destination
	Hosts       []Host
	Secure      bool
	Canonical   string
}

type Addresses struct {
	Addrs     []netip.Addr
	Secure    bool
	Canonical string
}

type Config struct {
	Resolver  Resolver
	Self      Self
	ForceIPv4 bool
	Port      uint16
}

type Finder struct{ cfg Config }

func New(cfg Config) *Finder { return &Finder{cfg} }

func (f *Finder) Route(ctx context.Context, d Destination) (Route, error) {
	if d.Literal.IsValid() {
		return Route{Destination: d, Hosts: []Host{{Name: address.FormatLiteral(d.Literal), Addr: d.Literal}}}, nil
	}
	if d.Nexthop {
		return Route{Destination: d, Hosts: []Host{{Name: d.Domain}}, Secure: true, Canonical: d.Domain}, nil
	}
	a, err := f.cfg.Resolver.Lookup(ctx, d.Domain, dns.TypeMX)
	if err != nil {
		return Route{}, &status.Error{Code: status.New(4, 4, 3), Host: d.Domain, Err: err}
	}
	if a.Existence == resolver.NXDomain {
		return Route{}, &status.Error{Code: status.New(5, 4, 4), Host: d.Domain, Text: "no such domain"}
	}
	r := Route{Destination: d, Secure: a.Secure, Canonical: strings.TrimSuffix(a.Canonical, ".")}
	for _, rr := range a.RRs {
		mx := rr.(*dns.MX)
		if mx.Mx == "." {
			return Route{}, &status.Error{Code: status.New(5, 1, 10), Host: d.Domain, Text: "the domain takes no mail"}
		}
		r.Hosts = append(r.Hosts, Host{Name: strings.ToLower(strings.TrimSuffix(mx.Mx, ".")), Preference: mx.Preference})
	}
	sort.Slice(r.Hosts, func(i, j int) bool { return r.Hosts[i].Preference < r.Hosts[j].Preference })
	if len(r.Hosts) == 0 {
		r.Hosts = []Host{{Name: d.Domain}}
	}
	return r, nil
}

func (f *Finder) Addresses(ctx context.Context, h Host) (Addresses, error) {
	if h.Literal() {
		return Addresses{Addrs: []netip.Addr{h.Addr}}, nil
	}
	a, err := f.cfg.Resolver.Lookup(ctx, h.Name, dns.TypeA)
	if err != nil {
		return Addresses{}, &status.Error{Code: status.New(4, 4, 3), Host: h.Name, Err: err}
	}
	out := Addresses{Secure: a.Secure, Canonical: strings.TrimSuffix(a.Canonical, ".")}
	for _, rr := range a.RRs {
		if ip, ok := netip.AddrFromSlice(rr.(*dns.A).A.To4()); ok {
			out.Addrs = append(out.Addrs, ip)
		}
	}
	if len(out.Addrs) == 0 {
		return out, &status.Error{Code: status.New(4, 4, 4), Host: h.Name, Text: "no address"}
	}
	return out, nil
}
