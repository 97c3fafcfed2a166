package config

import (
	"net/netip"
	"strconv"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/source"
)

// localIP reads one source address or one of each family.
func localIP(into *[]netip.Addr) func(value) {
	return func(v value) {
		var addrs []netip.Addr
		setList(&addrs, 2, sourceAddr())(v)
		if len(addrs) == 2 && addrs[0].Is4() == addrs[1].Is4() {
			v.wrong("%s and %s are of the same family; expected at most one address of each family", addrs[0], addrs[1])
			return
		}
		*into = addrs
	}
}

// checkSource compares local_ip, sources and prefer with each other and with
// force_ipv4 where the block touches either. Of local_ip and sources an
// override has what it says itself, and not what it would inherit of the other.
func checkSource(seen map[string]value, t *transport.Config) {
	_, address := seen["local_ip"]
	switch at, pool := seen["sources"]; {
	case t.Sources == nil || len(t.LocalIP) == 0:
	case pool && address:
		at.wrong("cannot be used with local_ip; expected one of the two")
	case pool:
		t.LocalIP = nil
	case address:
		t.Sources = nil
	}
	if at, touched := firstOf(seen, "sources", "force_ipv4"); touched && t.ForceIPv4 && t.Sources != nil {
		for i := range t.Sources.Pool {
			if ips := t.Sources.Pool[i].IPs; len(ips) == 1 && ips[0].Is6() {
				at.wrong("force_ipv4 cannot be used with the source %s; expected an IPv4 address as well, or force_ipv4: false", ips[0])
			}
		}
	}
	if at, touched := firstOf(seen, "force_ipv4", "local_ip"); touched && t.ForceIPv4 && len(t.LocalIP) == 1 && t.LocalIP[0].Is6() {
		at.wrong("force_ipv4 cannot be used with local_ip %s; expected an IPv4 local_ip, or force_ipv4: false", t.LocalIP[0])
	}
	if at, touched := firstOf(seen, "prefer", "force_ipv4"); touched && t.ForceIPv4 && t.Prefer == transport.IPv6 {
		at.wrong("force_ipv4 cannot be used with prefer: ipv6; expected prefer: any, or force_ipv4: false")
	}
}

// sources reads the pool of addresses to leave from, or the word off.
func sources(v value, t *transport.Config) {
	t.Sources = nil
	if v.isNull() || v.isOff() || v.node.Value == "none" {
		return
	}
	c := &source.Config{}
	before := v.d.count
	seen := v.block(sourcesKeys(c)...)
	switch {
	case v.d.count > before:
		return
	case len(c.Pool) == 0:
		at := v
		if pool, given := seen["pool"]; given {
			at = pool
		}
		at.wrong("has no addresses; expected sources with pool: [{ip: 192.0.2.1}, {ip: 192.0.2.2}]")
		return
	}
	t.Sources = c
}

// sourcesKeys is the schema of sources.
func sourcesKeys(c *source.Config) []key {
	return []key{
		{"by", set(&c.By, oneOf(choice[source.By]{"sender", source.BySender}, choice[source.By]{"destination", source.ByDestination},
			choice[source.By]{"message", source.ByMessage}))},
		{"pool", func(v value) { sourcePool(v, c) }},
	}
}

// sourcePool reads the sources. Each address stands there once.
func sourcePool(v value, c *source.Config) {
	switch {
	case v.node.Kind != yaml.SequenceNode:
		v.notKind("a list of blocks such as - {ip: 192.0.2.1, hostname: out1.example.org}")
		return
	case len(v.node.Content) > source.MaxPool:
		v.wrong("has %d items; expected at most %d", len(v.node.Content), source.MaxPool)
		return
	}
	lines := map[netip.Addr]int{}
	for i := range v.node.Content {
		item := v.item(i)
		if item.node.Kind != yaml.MappingNode {
			item.notKind("a block such as {ip: 192.0.2.1, hostname: out1.example.org}")
			continue
		}
		var s source.Source
		before := v.d.count
		seen := item.block(sourceKeys(&s)...)
		switch at, given := seen["ip"]; {
		case v.d.count > before:
		case !given || len(s.IPs) == 0:
			item.wrong("ip is missing; expected a key such as ip: 192.0.2.1")
		default:
			for _, ip := range s.IPs {
				if line := lines[ip]; line > 0 {
					at.wrong("%s is in line %d already; expected another address, or a higher weight there", ip, line)
				}
				lines[ip] = at.node.Line
			}
			c.Pool = append(c.Pool, s)
		}
	}
}

// sourceKeys is the schema of one source.
func sourceKeys(s *source.Source) []key {
	return []key{
		{"ip", localIP(&s.IPs)},
		{"hostname", set(&s.Hostname, hostname())},
		{"weight", set(&s.Weight, number(1, source.MaxWeight))},
		{"daily", set(&s.Daily, number(1, 1_000_000_000))},
	}
}

// sources writes the pool as the file would say it.
func (s dump) sources(path string, c *source.Config) {
	if c == nil {
		s.put(path, "off")
		return
	}
	s.put(path+".by", c.By.String())
	for i := range c.Pool {
		m := &c.Pool[i]
		at := path + ".pool[" + m.Name() + "]"
		s.put(at+".ip", joined(m.IPs, netip.Addr.String))
		s.put(at+".hostname", m.Hostname)
		s.put(at+".weight", strconv.Itoa(max(m.Weight, 1)))
		if m.Daily > 0 {
			s.put(at+".daily", strconv.Itoa(m.Daily))
		}
	}
}
