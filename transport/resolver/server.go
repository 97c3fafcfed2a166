package resolver

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/transport/address"
)

// TrustAD says whose AD flag counts (RFC 4035 §4.9.3): a stub resolver may
// believe the flag only where no one can meddle on the way.
type TrustAD uint8

// The choices.
const (
	TrustLoopback TrustAD = iota // servers at loopback addresses
	TrustAll                     // every server
	TrustNone                    // no server: nothing is ever secure
)

// trusts reports whether the flag of a server at addr counts.
func (t TrustAD) trusts(addr netip.Addr) bool {
	switch t {
	case TrustLoopback:
		return addr.Unmap().IsLoopback()
	case TrustAll:
		return true
	}
	return false
}

// downTime is how long a server that did not answer is asked last.
const downTime = 30 * time.Second

// server is a server to ask.
type server struct {
	addr  string       // host:port
	local bool         // at a loopback address, or called localhost
	down  atomic.Int64 // until when it is asked last, Unix nanoseconds
	edns
	health
}

func (s *server) answered()           { s.down.Store(0) }
func (s *server) failed(at time.Time) { s.down.Store(at.Add(downTime).UnixNano()) }

// inOrder puts servers that did not answer lately after the others. They are
// asked all the same, since they may be the only ones that can.
func inOrder(servers []*server, now time.Time) []*server {
	list := make([]*server, 0, len(servers))
	for _, late := range []bool{false, true} {
		for _, s := range servers {
			if (s.down.Load() > now.UnixNano()) == late {
				list = append(list, s)
			}
		}
	}
	return list
}

// choose leaves the untrusted servers out when there are trusted ones.
func choose(all []*server, trust TrustAD) (use, left []*server) {
	if trust != TrustLoopback {
		return all, nil
	}
	for _, s := range all {
		if s.local {
			use = append(use, s)
		} else {
			left = append(left, s)
		}
	}
	if len(use) == 0 {
		return all, nil
	}
	return use, left
}

func parseServers(list []string) ([]*server, error) {
	if len(list) == 0 {
		return nil, errors.New("no DNS server is configured")
	}
	var servers []*server
	for _, text := range list {
		s, err := parseServer(text)
		if err != nil {
			return nil, fmt.Errorf("DNS server %q: %w", text, err)
		}
		servers = append(servers, s)
	}
	return servers, nil
}

func parseServer(text string) (*server, error) {
	host, port := text, "53"
	if _, err := netip.ParseAddr(text); err != nil {
		if inner, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(inner, "]") {
			host = strings.TrimSuffix(inner, "]")
		} else if strings.Contains(text, ":") {
			if host, port, err = net.SplitHostPort(text); err != nil {
				return nil, errors.New("want host, host:port, [IPv6] or [IPv6]:port")
			}
		}
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return nil, errors.New("the port must be a number from 1 to 65535")
	}
	s := &server{addr: net.JoinHostPort(host, port)}
	if addr, err := netip.ParseAddr(host); err == nil {
		s.local = addr.Unmap().IsLoopback()
		return s, nil
	}
	name, err := normalName(host)
	if err != nil {
		return nil, err
	}
	s.local = name == "localhost."
	return s, nil
}

// FromResolvConf reads the name servers of a file in the format of
// resolv.conf(5). Everything else in it, search domains above all, is ignored.
// A file that names none means the server on this host, as everywhere.
func FromResolvConf(path string) ([]string, error) {
	conf, err := dns.ClientConfigFromFile(path)
	if err != nil {
		return nil, err
	}
	if len(conf.Servers) == 0 {
		return []string{"127.0.0.1"}, nil
	}
	return conf.Servers[:min(len(conf.Servers), 10)], nil
}

var (
	errName = errors.New("not a domain name")
	errType = errors.New("records of this type cannot be read")
)

// normalName brings a name to the one form that is asked for and compared:
// lower case, absolute, escapes as the library writes them. Labels have up to
// 63 bytes, the whole up to 255 (RFC 1035 §2.3.4).
func normalName(name string) (string, error) {
	if name == "" || name == "." || len(name) > 1100 {
		return "", errName
	}
	if isPlain(name) {
		return dns.Fqdn(name), nil
	}
	for i := 0; i < len(name); i++ {
		if name[i] <= ' ' || name[i] > '~' {
			return "", errName
		}
	}
	return throughWire(name)
}

// throughWire has the library read a name, and write it in its one form.
func throughWire(name string) (string, error) {
	var wire [255]byte
	if _, err := dns.PackDomainName(dns.Fqdn(name), wire[:], 0, nil, false); err != nil {
		return "", errName
	}
	text, _, err := dns.UnpackDomainName(wire[:], 0)
	if err != nil || text == "." {
		return "", errName
	}
	return dns.CanonicalName(text), nil
}

// isPlain reports whether a name is in its one form already but for the dot at
// its end, as nearly all are. It saves every look-up in the cache the way
// through the wire form, in which there is one byte more before the first
// label, and one at the end.
func isPlain(name string) bool {
	return address.IsPlain(strings.TrimSuffix(name, "."))
}
