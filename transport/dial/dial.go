// Package dial connects to one of a host's addresses. (Walking version, so that
// the rest can be built; whoever owns this package replaces it.)
package dial

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Dialer connects.
type Dialer struct {
	LocalIPs []netip.Addr
}

// Dial tries the addresses in turn.
func (d *Dialer) Dial(ctx context.Context, addrs []netip.Addr, port uint16) (net.Conn, netip.Addr, error) {
	var failed error
	for _, a := range addrs {
		var nd net.Dialer
		for _, l := range d.LocalIPs {
			if l.Is4() == a.Is4() {
				nd.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(l, 0))
			}
		}
		conn, err := nd.DialContext(ctx, "tcp", netip.AddrPortFrom(a, port).String())
		if err == nil {
			return conn, a, nil
		}
		failed = errors.Join(failed, err)
	}
	return nil, netip.Addr{}, failed
}
