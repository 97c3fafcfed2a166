package config

import (
	"fmt"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/relay"
)

// proxy reads a SOCKS5 proxy: its address alone, a block, or the word off.
func (d *decoder) proxy(v value, t *transport.Config) {
	t.Proxy = nil
	if v.isNull() || v.isOff() || v.node.Value == "none" {
		return
	}
	p := &proxy.Config{}
	before := d.count
	if v.node.Kind != yaml.MappingNode {
		set(p, proxyAddress())(v)
		if d.count == before {
			t.Proxy = p
		}
		return
	}
	seen := v.block(d.proxyKeys(p)...)
	at := func(name string) value {
		if there, given := seen[name]; given {
			return there
		}
		return v
	}
	switch _, given := seen["address"]; {
	case d.count > before:
	case !given:
		v.wrong("address is missing; expected a key such as address: \"socks5://proxy.example:1080\"")
	case p.User == "" && p.PasswordFile != "":
		at("password_file").wrong("there is no user whose password it is; expected a key such as user: NAME")
	case p.User != "" && p.PasswordFile == "":
		at("user").wrong("there is no password; expected a key such as password_file: /etc/mxpolicyd/proxy.password")
	case len(p.User) > proxy.MaxLogin:
		at("user").wrong("has %d bytes; expected at most %d, as SOCKS5 has no longer ones", len(p.User), proxy.MaxLogin)
	default:
		t.Proxy = p
	}
}

// proxyKeys is the schema of proxy.
func (d *decoder) proxyKeys(p *proxy.Config) []key {
	return []key{
		{"address", func(v value) {
			if got, ok := plain(v, proxyAddress()); ok {
				p.Host, p.Addr, p.Port = got.Host, got.Addr, got.Port
			}
		}},
		{"user", set(&p.User, loginName())},
		{"password_file", set(&p.PasswordFile, d.passwordFile())},
	}
}

// proxyAddress is the form of a proxy's address.
func proxyAddress() format[proxy.Config] {
	const want = "the address of a SOCKS5 proxy such as socks5://proxy.example:1080"
	host := relayHost()
	return format[proxy.Config]{want, func(s string) (p proxy.Config, err error) {
		scheme, rest, found := strings.Cut(s, "://")
		if _, bad := host.read(s); !found && bad == nil {
			return p, hintError{quote(s) + " does not say what kind of proxy it is", "socks5:// before the host"}
		}
		if !found || !strings.EqualFold(scheme, "socks5") {
			return p, fmt.Errorf("%s is not a SOCKS5 proxy", quote(s))
		}
		rest = strings.TrimSuffix(rest, "/")
		if strings.Contains(rest, "@") {
			return p, hintError{"has a user in it", "a block with address, user and password_file"}
		}
		var r relay.Relay
		if r, err = host.read(rest); err != nil {
			return p, err
		}
		p = proxy.Config{Host: r.Host, Addr: r.Addr, Port: r.Port}
		if p.Port == 0 {
			p.Port = proxy.DefaultPort
		}
		return p, nil
	}}
}

// proxy writes a proxy as the file would say it.
func (s dump) proxy(path string, p *proxy.Config) {
	if p == nil {
		s.put(path, "off")
		return
	}
	s.put(path+".address", p.URL())
	s.put(path+".user", p.User)
	s.put(path+".password_file", p.PasswordFile)
}
