package config

import (
	"fmt"
	"io/fs"

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
			v.wrong("the path %s is that of %s too, would be another one", quote(path), other)
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
		seen["metrics"].wrong("the address %s is that of listen.socketmap too, would be another one", quote(s.Address))
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

// given reports whether something stands behind a socket's key. A key alone is
// refused, since it could mean the default socket or none.
func (v value) given() bool {
	if v.isNull() {
		v.wrong("has no value, would be {} for the default, or left out for none")
	}
	return !v.isNull()
}

func socketKeys(s *Socket) []key {
	return []key{
		{"path", set(&s.Path, socketPath())},
		{"mode", set(&s.Mode, mode())},
		{"group", set(&s.Group, optional(group()))},
	}
}

func unixSocket(v value, name string, mode fs.FileMode) *Socket {
	s := newSocket(name, mode)
	if v.given() {
		v.block(socketKeys(s)...)
	}
	return s
}

func admin(v value) *Admin {
	a := &Admin{Socket: *newSocket("admin", 0o600)}
	if v.given() {
		v.block(append(socketKeys(&a.Socket), key{"pprof", set(&a.PProf, boolean())})...)
	}
	return a
}

func socketmap(v value) *Socketmap {
	m := &Socketmap{Socket: *newSocket("socketmap", 0o660)}
	if !v.given() {
		return m
	}
	seen := v.block(append(socketKeys(&m.Socket), key{"address", set(&m.Address, listenAddress())})...)
	if at, ok := seen["address"]; ok {
		for _, k := range socketKeys(&m.Socket) {
			if _, both := seen[k.name]; both {
				at.wrong("stands beside %s, would be an address or a unix socket, not both", k.name)
			}
		}
		m.Socket = Socket{}
	}
	return m
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
		v.wrong("has %d items, would be at most %d", count, maxLMTP)
		return nil
	}
	var all []LMTP
	for i := range count {
		l := LMTP{Socket: *newSocket("lmtp", 0o660), Transport: DefaultTransport}
		item := v.item(i)
		if !item.given() {
			continue
		}
		seen := item.block(append(socketKeys(&l.Socket), key{"transport", set(&l.Transport, known("transport", transports))})...)
		if _, ok := seen["path"]; !ok && l.Transport != DefaultTransport {
			l.Path = newSocket("lmtp-"+l.Transport, 0).Path
		}
		all = append(all, l)
	}
	return all
}
