// Package internet is the rest of the world for benchmarks, in one process and
// on loopback: a DNS server that knows millions of domains without a zone, and
// mail servers that take mail as fast as they can be given it.
//
// The domains are made up from their names:
//
//	dX.hosts.bench    each has a mail server of its own, hX.hosts.bench
//	dX.shared.bench   all share h0, h1 and h2.shared.bench
//	dX.dane.bench     as shared, signed, and with TLSA records
//
// A mail server is a [Sink]. It listens on every address of loopback at its
// port, so that one of them is all hosts; it reads what RFC 5321 has a client
// say, keeps nothing, and counts. It is no judge of its clients: that is what
// internal/lab/mx is for, which takes ten times as long.
package internet

import (
	"crypto/tls"
	"fmt"
	"strings"
	"sync"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
)

// Internet is a DNS server and an authority that vouches for mail servers.
type Internet struct {
	*ca.Authority
	names *names
	dane  tls.Certificate

	mu    sync.Mutex
	certs map[certKey]*tls.Certificate
	sinks []*Sink
}

type certKey struct {
	name string
	kind ca.KeyType
}

// Start starts the DNS server. tlsaPort is the port for which the hosts of
// dane.bench have TLSA records.
func Start(tlsaPort int) (*Internet, error) {
	n := &Internet{certs: map[certKey]*tls.Certificate{}}
	var err error
	if n.Authority, err = ca.New(ca.Options{Intermediates: 1}); err != nil {
		return nil, err
	}
	if n.dane, err = n.Issue(ca.For("*.dane.bench")); err != nil {
		return nil, err
	}
	record := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, n.dane.Leaf)
	if n.names, err = startNames(fmt.Sprintf("_%d._tcp.", tlsaPort), record.Hex()); err != nil {
		return nil, err
	}
	return n, nil
}

// DNS is host:port of the DNS server.
func (n *Internet) DNS() string { return n.names.packets.LocalAddr().String() }

// Questions is how many questions the DNS server was asked so far.
func (n *Internet) Questions() int64 { return n.names.asked.Load() }

// Stop ends the DNS server and all mail servers.
func (n *Internet) Stop() {
	n.mu.Lock()
	sinks := n.sinks
	n.mu.Unlock()
	for _, s := range sinks {
		s.stop()
	}
	n.names.stop()
}

// certificate gives a host's certificate, and makes it when it is wanted for
// the first time.
func (n *Internet) certificate(host string, kind ca.KeyType) (*tls.Certificate, error) {
	name := host
	if _, domain, ok := strings.Cut(host, "."); ok && domain != "hosts.bench" {
		name = "*." + domain
	}
	if name == "*.dane.bench" && kind == ca.ECDSA {
		return &n.dane, nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	key := certKey{name, kind}
	if cert := n.certs[key]; cert != nil {
		return cert, nil
	}
	cert, err := n.Issue(ca.Spec{Names: []string{name}, Key: kind})
	if err != nil {
		return nil, err
	}
	n.certs[key] = &cert
	return &cert, nil
}
