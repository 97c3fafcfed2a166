package config

import (
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"gopkg.in/yaml.v3"
)

// maxLMTP bounds the LMTP sockets.
const maxLMTP = 100

func newSocket(name string, mode fs.FileMode) *Socket {
	return &Socket{Path: DefaultSocketDir + "/" + name + ".sock", Mode: mode}
}

// listen reads the listen block.
func (d *decoder) listen(v value, c *Config) {
	before := d.count
	seen := v.block(listenKeys(&c.Listen, sortedNames(c.Transports))...)
	if d.count > before {
		return
	}
	paths := make(map[string]string)
	unique := func(v value, path string) {
		if other, taken := paths[path]; taken && path != "" {
			v.wrong("path %s is also used by %s; use another one", quote(path), other)
		}
		paths[path] = v.path
	}
	if c.Listen.Pipe != nil {
		unique(seen["pipe"], c.Listen.Pipe.Path)
	}
	for i := range c.Listen.LMTP {
		unique(seen["lmtp"].item(i), c.Listen.LMTP[i].Path)
	}
	if c.Listen.Socketmap != nil {
		unique(seen["socketmap"], c.Listen.Socketmap.Path)
	}
	if c.Listen.Admin != nil {
		unique(seen["admin"], c.Listen.Admin.Path)
	}
	if s := c.Listen.Socketmap; s != nil && s.Address != "" && s.Address == c.Listen.Metrics {
		seen["metrics"].wrong("address %s is also used by listen.socketmap; use another one", quote(s.Address))
	}
}

// listenKeys is the schema of listen.
func listenKeys(l *Listen, transports []string) []key {
	return []key{
		{"pipe", func(v value) { l.Pipe = unixSocket(v, "pipe", 0o660) }},
		{"lmtp", func(v value) { l.LMTP = lmtpSockets(v, transports) }},
		{"socketmap", func(v value) { l.Socketmap = socketmap(v) }},
		{"admin", func(v value) { l.Admin = admin(v) }},
		{"metrics", func(v value) {
			if v.given() {
				l.Metrics = DefaultMetricsAddress
				v.block(key{"address", set(&l.Metrics, listenAddress())})
			}
		}},
	}
}

// given reports whether something follows a socket's key. A key alone is
// refused, since it could mean the default socket or none.
func (v value) given() bool {
	if v.isNull() {
		v.wrong("has no value; expected {} for the default, or leave the key out for none")
	}
	return !v.isNull()
}

func socketKeys(s *Socket, find func(string) error) []key {
	return []key{
		{"path", set(&s.Path, socketPath())},
		{"mode", set(&s.Mode, mode())},
		{"group", set(&s.Group, optional(group(find)))},
	}
}

func unixSocket(v value, name string, mode fs.FileMode) *Socket {
	s := newSocket(name, mode)
	if v.given() {
		v.block(socketKeys(s, v.d.env.Group)...)
	}
	return s
}

func admin(v value) *Admin {
	a := &Admin{Socket: *newSocket("admin", 0o600)}
	if v.given() {
		v.block(append(socketKeys(&a.Socket, v.d.env.Group), key{"pprof", set(&a.PProf, boolean())})...)
	}
	return a
}

func socketmap(v value) *Socketmap {
	m := &Socketmap{Socket: *newSocket("socketmap", 0o660)}
	if !v.given() {
		return m
	}
	seen := v.block(append(socketKeys(&m.Socket, v.d.env.Group), key{"address", set(&m.Address, listenAddress())})...)
	if at, ok := seen["address"]; ok {
		for _, k := range socketKeys(&m.Socket, v.d.env.Group) {
			if _, both := seen[k.name]; both {
				at.wrong("conflicts with %s; expected an address or a unix socket, not both", k.name)
			}
		}
		m.Socket = Socket{}
		at.loopback(m.Address)
	}
	return m
}

// loopback notes an address that others than this host's programs can reach.
func (v value) loopback(hostPort string) {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil {
		return // that was noted
	}
	const want = "expected a loopback address such as 127.0.0.1:8461, or a unix socket"
	if host == "" {
		v.wrong("%s means every address of this host, so answers could be forged on the network; %s", quote(hostPort), want)
		return
	}
	var all []netip.Addr
	if addr, err := netip.ParseAddr(host); err == nil {
		all = []netip.Addr{addr}
	} else if v.d.env.Addresses == nil {
		return
	} else if all, err = v.d.env.Addresses(host); err != nil {
		v.wrong("%s does not resolve to an address: %s; %s", quote(host), printable(err.Error()), want)
		return
	}
	for _, addr := range all {
		if !addr.Unmap().IsLoopback() {
			v.wrong("%s is not a loopback address, so answers could be forged on the network; %s", quote(addr.String()), want)
			return
		}
	}
}

// item is one item of a list, or the whole when it stands without the list.
func (v value) item(i int) value {
	if v.node.Kind != yaml.SequenceNode {
		return v
	}
	return value{v.d, v.node.Content[i], fmt.Sprintf("%s[%d]", v.path, i)}
}

// lmtpSockets reads a list of LMTP sockets; one alone may stand without the
// list.
func lmtpSockets(v value, transports []string) []LMTP {
	count := 1
	switch v.node.Kind {
	case yaml.SequenceNode:
		count = len(v.node.Content)
	case yaml.MappingNode:
	default:
		v.notKind("a list of blocks with the keys path, mode, group, transport")
		return nil
	}
	if count > maxLMTP {
		v.wrong("has %d items; expected at most %d", count, maxLMTP)
		return nil
	}
	var all []LMTP
	for i := range count {
		l := LMTP{Socket: *newSocket("lmtp", 0o660), Transport: DefaultTransport}
		item := v.item(i)
		if !item.given() {
			continue
		}
		seen := item.block(append(socketKeys(&l.Socket, v.d.env.Group), key{"transport", set(&l.Transport, known("transport", transports))})...)
		if _, ok := seen["path"]; !ok && l.Transport != DefaultTransport {
			l.Path = newSocket("lmtp-"+l.Transport, 0).Path
		}
		all = append(all, l)
	}
	return all
}
