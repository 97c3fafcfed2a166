// Package sts is a web server for MTA-STS policies (RFC 8461 §3.3): that of
// every domain of the lab, on one address of loopback, over HTTPS.
//
// Publish gives a domain its Site: the text of its policy, the certificate of
// mta-sts.DOMAIN, and a fault, as real web servers have: redirects,
// errors, silence, endless bodies. What is published can be changed at any
// time; the next connection sees it. A client is told apart by the server name
// it asks for (SNI), as RFC 8461 §7.1 requires of senders; the certificate
// comes from the lab's authority and is made once for each Site.
//
// Requests and Handshakes count by domain, so that a test sees whether a policy
// was fetched at all. Hold makes requests wait until a test releases them.
// Nothing here depends on testing.T. All methods may be called from any
// goroutine.
package sts

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// Path is where a policy is (RFC 8461 §3.2).
const Path = "/.well-known/mta-sts.txt"

// hostLabel stands before a domain's name.
const hostLabel = "mta-sts."

// Site is what one domain publishes. The zero value is an empty policy behind a
// sound certificate.
type Site struct {
	Policy string // the body, as it is; see Policy
	Fault  Fault
	// Cert is what the certificate shall be. Without Names it is for
	// mta-sts.DOMAIN; ca.ExpiredFor and the like give others, as do SelfSigned
	// and Chain.
	Cert ca.Spec
	// Authority signs the certificate; nil means the one that the server was
	// started with.
	Authority *ca.Authority
	// Status and ContentType replace "200" and "text/plain" where they are not
	// zero.
	Status      int
	ContentType string
}

// Policy gives the text of a sound policy (RFC 8461 §3.2). The mode is
// "enforce", "testing" or "none"; maxAge is rounded to seconds.
func Policy(mode string, maxAge time.Duration, mx ...string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "version: STSv1\r\nmode: %s\r\n", mode)
	for _, pattern := range mx {
		fmt.Fprintf(&b, "mx: %s\r\n", pattern)
	}
	fmt.Fprintf(&b, "max_age: %d\r\n", int(maxAge.Round(time.Second).Seconds()))
	return b.String()
}

// Server is the web server.
type Server struct {
	authority *ca.Authority
	addr      netip.AddrPort
	http      *http.Server
	done      chan struct{} // ends the faults that wait
	stop      sync.Once
	serve     sync.WaitGroup // the listener and each connection

	mu         sync.Mutex
	sites      map[string]*site
	holds      map[string]chan struct{}
	requests   map[string]int
	handshakes map[string]int
}

// site is a Site with its certificate.
type site struct {
	Site
	cert tls.Certificate
}

// Start begins to serve; Stop must be called. The address is host:port; when
// empty, it is a free port of 127.0.0.1. An error means that it cannot be had.
func Start(authority *ca.Authority, address string) (*Server, error) {
	if authority == nil {
		return nil, errors.New("lab STS: no authority")
	}
	if address == "" {
		address = "127.0.0.1:0"
	}
	listener, err := forks.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("lab STS: %w", err)
	}
	s := &Server{
		authority: authority,
		addr:      listener.Addr().(*net.TCPAddr).AddrPort(),
		done:      make(chan struct{}),
		sites:     map[string]*site{}, holds: map[string]chan struct{}{}, requests: map[string]int{}, handshakes: map[string]int{},
	}
	s.http = &http.Server{
		Handler:           s,
		TLSConfig:         &tls.Config{GetCertificate: s.certificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}},
		ReadHeaderTimeout: 30 * time.Second,
		IdleTimeout:       30 * time.Second,
		ConnState:         s.track,
		// Clients that refuse a certificate are the rule here.
		ErrorLog: log.New(io.Discard, "", 0),
	}
	// It returns when Stop closes it; a failure before shows as a request
	// without an answer.
	s.serve.Go(func() { _ = s.http.ServeTLS(listener, "", "") })
	return s, nil
}

// track counts the connections' goroutines, which http.Server waits for in no
// way that ends soon.
func (s *Server) track(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.serve.Add(1)
	case http.StateHijacked, http.StateClosed:
		s.serve.Done()
	}
}

// Addr is where the server listens.
func (s *Server) Addr() netip.AddrPort { return s.addr }

// Stop ends the server and its connections, and waits until nothing of them is
// left. It may be called more than once.
func (s *Server) Stop() {
	s.stop.Do(func() {
		close(s.done)
		// The error would be the listener's, which is closed either way.
		_ = s.http.Close()
		s.serve.Wait()
	})
}

// Publish gives a domain its site, in place of the one it had. The error is the
// authority's.
func (s *Server) Publish(domain string, what Site) error {
	domain = canonical(domain)
	authority := what.Authority
	if authority == nil {
		authority = s.authority
	}
	spec := what.Cert
	if len(spec.Names) == 0 {
		spec.Names = []string{hostLabel + domain}
	}
	cert, err := authority.Issue(spec)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sites[domain] = &site{what, cert}
	return nil
}

// Withdraw takes a domain's site away. Handshakes for it then fail with the
// alert unrecognized_name.
func (s *Server) Withdraw(domain string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sites, canonical(domain))
}

// Hold makes requests for a domain's policy wait, after they were counted,
// until release is called or the server stops.
func (s *Server) Hold(domain string) (release func()) {
	domain, gate := canonical(domain), make(chan struct{})
	s.mu.Lock()
	defer s.mu.Unlock()
	s.holds[domain] = gate
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.holds[domain] == gate {
			delete(s.holds, domain)
		}
		close(gate)
	})
}

// Requests tells how many requests came for a domain, whatever they asked for;
// the empty domain stands for all.
func (s *Server) Requests(domain string) int { return s.count(s.requests, domain) }

// Handshakes tells how many TLS handshakes began for a domain, those that the
// client broke off included; the empty domain stands for all.
func (s *Server) Handshakes(domain string) int { return s.count(s.handshakes, domain) }

func (s *Server) count(counts map[string]int, domain string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if domain != "" {
		return counts[canonical(domain)]
	}
	sum := 0
	for _, n := range counts {
		sum += n
	}
	return sum
}

// Reset forgets what was counted.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.requests)
	clear(s.handshakes)
}

func canonical(domain string) string { return strings.TrimSuffix(strings.ToLower(domain), ".") }

// domainOf gives the domain whose policy host a name is; "" if it is none.
func domainOf(host string) string {
	domain, ok := strings.CutPrefix(canonical(host), hostLabel)
	if !ok {
		return ""
	}
	return domain
}

var errNoSite = errors.New("lab STS: no such site")

// certificate finds the certificate for a client's server name.
func (s *Server) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	domain := domainOf(hello.ServerName)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.handshakes[domain]++
	found := s.sites[domain]
	switch {
	case found == nil:
		return nil, errNoSite
	case found.Fault == NoHandshake:
		return nil, errors.New("lab STS: this site makes no handshake")
	}
	return &found.cert, nil
}

// ServeHTTP answers one request; it is for the library that reads them.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	// The connection may be taken out of the library's hands, which then counts
	// it no more.
	s.serve.Add(1)
	defer s.serve.Done()
	domain := domainOf(r.TLS.ServerName)
	s.mu.Lock()
	s.requests[domain]++
	found, gate := s.sites[domain], s.holds[domain]
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-r.Context().Done():
			raw(w, "")
			return
		case <-s.done:
			raw(w, "")
			return
		}
	}
	host, _, err := net.SplitHostPort(r.Host)
	if err != nil {
		host = r.Host
	}
	switch {
	case found == nil || domainOf(host) != domain:
		http.Error(w, "not here", http.StatusMisdirectedRequest)
	case r.URL.Path != Path && !strings.HasPrefix(r.URL.Path, redirected):
		http.NotFound(w, r)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		http.Error(w, "GET it", http.StatusMethodNotAllowed)
	default:
		found.serve(w, r, s.done)
	}
}
