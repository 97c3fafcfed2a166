package route

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/transport/address"
)

// Self is what this host is known by, so that mail does not go round in
// circles (RFC 5321 §5.1). The zero Self recognises nothing.
type Self struct {
	// Names are what we call ourselves: the name that we say in EHLO, and that
	// of the mail server beside us.
	Names []string
	// LocalIP are the configured source addresses. They are ours at every
	// port.
	LocalIP []netip.Addr
	// Interfaces are the addresses of this host's interfaces. Loopback
	// addresses are ours only at port 25, all of them: whatever listens
	// elsewhere on loopback is another server, of a lab or behind a tunnel.
	Interfaces []netip.Addr
}

// ThisHost reads the addresses of this host's interfaces. The error is that of
// the operating system.
func ThisHost() (Self, error) {
	list, err := net.InterfaceAddrs()
	if errors.Is(err, syscall.EAFNOSUPPORT) {
		// The kernel may not be asked: the unit allows no netlink sockets.
		all, err := procAddrs("/proc/self/net")
		return Self{Interfaces: all}, err
	}
	if err != nil {
		return Self{}, err
	}
	var self Self
	for _, a := range list {
		if prefix, err := netip.ParsePrefix(a.String()); err == nil {
			self.Interfaces = append(self.Interfaces, prefix.Addr())
		}
	}
	return self, nil
}

// is reports whether a host, with what was found of it, is ourselves. A host
// whose look-up failed is not.
func (s Self) is(h Host, found addrResult) bool {
	if slices.Contains(s.Names, h.Name) || found.Canonical != "" && slices.Contains(s.Names, found.Canonical) {
		return true
	}
	for _, addr := range found.Addrs {
		if s.owns(addr, h.notPort) {
			return true
		}
	}
	return false
}

// owns reports whether a server at addr and port is ourselves.
func (s Self) owns(addr netip.Addr, port uint16) bool {
	addr = addr.Unmap()
	for _, own := range s.LocalIP {
		if own.Unmap().WithZone("") == addr {
			return true
		}
	}
	switch {
	case addr.IsUnspecified():
		return true // a connection to it goes to this host
	case addr.IsLoopback() && port == smtpPort:
		return true // whatever the interface is said to have
	}
	for _, own := range s.Interfaces {
		if own.Unmap().WithZone("") == addr {
			return !addr.IsLoopback()
		}
	}
	return false
}

// SharedName reports whether a name, as lower-case A-labels or as an address
// literal, is one that other hosts call themselves by too. A server that says
// it need not be this host.
func SharedName(name string) bool {
	if addr, ok := address.Literal(name); ok {
		return !addr.IsGlobalUnicast() || addr.IsPrivate()
	}
	if !strings.Contains(name, ".") || strings.HasPrefix(name, "localhost.") {
		return true
	}
	for _, everywhere := range []string{".localhost", ".localdomain", ".local"} {
		if strings.HasSuffix(name, everywhere) {
			return true
		}
	}
	return false
}

// normalHost brings a host name to the form in which names are compared: lower
// case without a final dot. What cannot be the name of a mail server, such as
// an address, gives "".
func normalHost(name string) string {
	ascii := asciiDomain(name)
	if numeric(ascii) {
		return ""
	}
	return ascii
}
