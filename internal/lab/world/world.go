// Package world puts the parts of the lab together to a little internet on
// loopback: signed DNS zones with a validating resolver in front of them, mail
// servers that share one port on addresses of their own, the web server of the
// MTA-STS policies, and the certificate authority that all of them know.
//
// Start makes a world of Domains. A Domain says how it is signed, which mail
// servers it has, which certificates and TLSA records these show, and which
// MTA-STS policy it publishes; Start makes the zones, the records and the
// certificates. Well-known domains, one for each thing that can happen to a
// message, are listed by Domains, so that the demo, the tests of the transport
// and those of "mxpolicyd explain" can talk about the same ones.
//
// The parts stay open to tests that need more: DNS, Front, Web and Authority
// are those of the packages dnssec, sts and ca, and Server gives a mail server
// by its host name. Nothing here depends on testing.T. All methods may be
// called from any goroutine.
package world

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// TTL is that of every record, in seconds: long enough for any test to meet a
// warm cache. A test that changes records under a running daemon gives its
// domain records of its own with another TTL.
const TTL = 300

// webIP is where every policy host is.
const webIP = "127.0.0.1"

// World is a running internet.
type World struct {
	// signs what is not self-signed; clients trust its root
	Authority *ca.Authority
	DNS       *dnssec.Server // authoritative for every zone
	Front     *dnssec.Front  // the validating resolver
	Web       *sts.Server    // the policy hosts

	port *ports.Reservation

	mu sync.Mutex
	// the last address given away, counted from 127.0.0.1
	ip      int
	servers map[string]*mx.Server // by host name
	domains map[string]Domain
}

// Start makes a world of these domains; Stop must be called. An error means
// that a domain is malformed, or that no port could be had.
func Start(domains ...Domain) (*World, error) {
	w := &World{ip: 1, servers: map[string]*mx.Server{}, domains: map[string]Domain{}}
	if err := w.start(domains); err != nil {
		w.Stop()
		return nil, fmt.Errorf("lab world: %w", err)
	}
	return w, nil
}

func (w *World) start(domains []Domain) (err error) {
	if w.port, err = ports.Reserve(); err != nil {
		return err
	}
	if w.Authority, err = ca.New(ca.Options{}); err != nil {
		return err
	}
	if w.DNS, err = dnssec.Start(dnssec.Zone{Name: "example", TTL: TTL, NegativeTTL: TTL}); err != nil {
		return err
	}
	if w.Front, err = dnssec.NewFront(w.DNS); err != nil {
		return err
	}
	if w.Web, err = sts.Start(w.Authority, net.JoinHostPort(webIP, "0")); err != nil {
		return err
	}
	for _, d := range domains {
		if err := w.Add(d); err != nil {
			return err
		}
	}
	return nil
}

// Stop ends every server and waits until nothing of it is left. What the mail
// servers received can still be read. It may be called more than once.
func (w *World) Stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range w.servers {
		// The error would be the listener's, which is closed either way.
		_ = s.Stop()
	}
	if w.Web != nil {
		w.Web.Stop()
	}
	if w.Front != nil {
		w.Front.Stop()
	}
	if w.DNS != nil {
		w.DNS.Stop()
	}
	if w.port != nil {
		w.port.Release()
	}
}

// Resolver is where the validating resolver listens, for dns.servers.
func (w *World) Resolver() string { return w.Front.Addr() }

// Port is where every mail server listens, for a transport's port. TLSA records
// are for this port.
func (w *World) Port() int { return w.port.Port() }

// HTTPSPort is where the policy hosts listen, for mtasts.https_port.
func (w *World) HTTPSPort() int { return int(w.Web.Addr().Port()) }

// Server gives the mail server of that host name; nil if there is none.
func (w *World) Server(host string) *mx.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.servers[host]
}

// Servers gives all mail servers by host name.
func (w *World) Servers() map[string]*mx.Server {
	w.mu.Lock()
	defer w.mu.Unlock()
	all := make(map[string]*mx.Server, len(w.servers))
	for name, s := range w.servers {
		all[name] = s
	}
	return all
}

// Domain gives what Start or Add was told about a domain.
func (w *World) Domain(name string) (Domain, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.domains[name]
	return d, ok
}

// Add adds a domain, with its mail servers running and its policy published
// before its zone is there. What was made before an error stays until Stop.
func (w *World) Add(d Domain) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, there := w.domains[d.Name]; there {
		return fmt.Errorf("%s is there already", d.Name)
	}
	w.domains[d.Name] = d
	zone := strings.Builder{}
	for _, h := range d.Hosts {
		if err := w.addHost(&zone, d, h); err != nil {
			return fmt.Errorf("%s: %w", h.name(d), err)
		}
	}
	if d.STS != nil {
		if err := w.Web.Publish(d.Name, *d.STS); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		fmt.Fprintf(&zone, "_mta-sts TXT \"v=STSv1; id=1\"\nmta-sts A %s\n", webIP)
	}
	zone.WriteString(d.Zone)
	return w.DNS.AddZone(dnssec.Zone{Name: d.Name, Text: zone.String(), Signing: d.Signing, TTL: TTL, NegativeTTL: TTL})
}

// addHost starts a mail server and writes its records.
func (w *World) addHost(zone *strings.Builder, d Domain, h Host) error {
	name := h.name(d)
	spec := h.Cert
	if spec.Names == nil {
		spec.Names = []string{name}
	}
	cert, err := w.Authority.Issue(spec)
	if err != nil {
		return err
	}
	behaviour := h.Behaviour
	behaviour.Hostname = name
	if behaviour.TLS.Mode != mx.TLSNone {
		behaviour.TLS.Certificate = cert
	}
	server, ip, err := w.listen(behaviour)
	if err != nil {
		return err
	}
	if h.Down {
		if err := server.Stop(); err != nil {
			return err
		}
	}
	w.servers[name] = server
	label := strings.TrimSuffix(name, "."+d.Name)
	if h.Label == "" {
		label = "@"
	} else {
		fmt.Fprintf(zone, "@ MX %d %s\n", h.Preference, label)
	}
	fmt.Fprintf(zone, "%s A %s\n", label, ip)
	owner := fmt.Sprintf("_%d._tcp.%s.", w.Port(), name)
	for _, t := range h.TLSA {
		record, err := w.record(t, cert.Leaf)
		if err != nil {
			return err
		}
		fmt.Fprintf(zone, "%s TLSA %s\n", owner, record)
	}
	if h.TLSAFault != dnssec.Sound {
		w.DNS.Fault(owner, dns.TypeTLSA, h.TLSAFault)
	}
	return nil
}

// record makes a record for a server's certificate, for the one that signed it,
// or for none that the server shows.
func (w *World) record(t TLSA, of *x509.Certificate) (ca.Record, error) {
	switch {
	case t.Other:
		other, err := w.Authority.Issue(ca.Spec{SelfSigned: true})
		if err != nil {
			return ca.Record{}, err
		}
		of = other.Leaf
	case t.Usage == ca.PKIXTA || t.Usage == ca.DANETA:
		of = w.Authority.Issuer()
	}
	return ca.TLSA(t.Usage, t.Selector, t.Matching, of), nil
}

// maxIP bounds the addresses that are tried: those of 127.0.0.0/16.
const maxIP = 65534

// listen starts a mail server at the next address whose port is free: a test
// may have something of its own at the world's port.
func (w *World) listen(behaviour mx.Behaviour) (server *mx.Server, ip string, err error) {
	err = syscall.EADDRINUSE
	for w.ip < maxIP && errors.Is(err, syscall.EADDRINUSE) {
		w.ip++
		ip = fmt.Sprintf("127.0.%d.%d", w.ip>>8, w.ip&0xff)
		server, err = mx.Start(mx.Options{Addr: net.JoinHostPort(ip, strconv.Itoa(w.Port())), Behaviour: behaviour})
	}
	return server, ip, err
}
