package world_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/smtp"
	"strconv"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
	"github.com/mxpipe/mxpipe/internal/lab/world"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func start(t *testing.T, domains ...world.Domain) *world.World {
	t.Helper()
	w, err := world.Start(domains...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	return w
}

// ask puts a question to the resolver.
func ask(t *testing.T, w *world.World, name string, qtype uint16) *dns.Msg {
	t.Helper()
	q := new(dns.Msg).SetQuestion(dns.Fqdn(name), qtype)
	q.SetEdns0(1232, false)
	q.AuthenticatedData = true
	c := dns.Client{Net: "tcp"}
	reply, _, err := c.Exchange(q, w.Resolver())
	if err != nil {
		t.Fatalf("%s %s: %v", name, dns.TypeToString[qtype], err)
	}
	return reply
}

// handshake greets a mail server at the address that the DNS gives, and returns
// its certificate.
func handshake(t *testing.T, w *world.World, host string) *x509.Certificate {
	t.Helper()
	reply := ask(t, w, host, dns.TypeA)
	if len(reply.Answer) != 1 {
		t.Fatalf("%s has %d addresses", host, len(reply.Answer))
	}
	c, err := smtp.Dial(net.JoinHostPort(reply.Answer[0].(*dns.A).A.String(), strconv.Itoa(w.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.StartTLS(&tls.Config{ServerName: host, InsecureSkipVerify: true}); err != nil {
		t.Fatal(err)
	}
	state, _ := c.TLSConnectionState()
	return state.PeerCertificates[0]
}

// What the resolver says of the well-known domains is what their kinds need.
func TestDomainsInTheDNS(t *testing.T) {
	w := start(t, world.Domains()...)
	port := fmt.Sprintf("_%d._tcp.", w.Port())
	for _, c := range []struct {
		name  string
		qtype uint16
		rcode int
		ad    bool
		count int
	}{
		{"dane-ee.example", dns.TypeMX, dns.RcodeSuccess, true, 1},
		{port + "mx.dane-ee.example", dns.TypeTLSA, dns.RcodeSuccess, true, 1},
		{"_25._tcp.mx.dane-ee.example", dns.TypeTLSA, dns.RcodeNameError, true, 0},
		{port + "mx.dane-bogus.example", dns.TypeTLSA, dns.RcodeServerFailure, false, 0},
		{"mx.dane-bogus.example", dns.TypeA, dns.RcodeSuccess, true, 1},
		{"dane-second.example", dns.TypeMX, dns.RcodeSuccess, true, 2},
		{"dane-hosted.example", dns.TypeMX, dns.RcodeSuccess, false, 1},
		{"sts.example", dns.TypeMX, dns.RcodeSuccess, false, 1},
		{"_mta-sts.sts.example", dns.TypeTXT, dns.RcodeSuccess, false, 1},
		{"_mta-sts.none.example", dns.TypeTXT, dns.RcodeNameError, false, 0},
		{"no-mx.example", dns.TypeMX, dns.RcodeSuccess, false, 0},
		{"no-mx.example", dns.TypeA, dns.RcodeSuccess, false, 1},
		{"bogus.example", dns.TypeMX, dns.RcodeServerFailure, false, 0},
		{"nowhere.example", dns.TypeMX, dns.RcodeNameError, true, 0},
	} {
		reply := ask(t, w, c.name, c.qtype)
		if reply.Rcode != c.rcode || reply.AuthenticatedData != c.ad || len(reply.Answer) != c.count {
			t.Errorf("%s %s: %s, AD %v, %d records; want %s, %v, %d", c.name, dns.TypeToString[c.qtype],
				dns.RcodeToString[reply.Rcode], reply.AuthenticatedData, len(reply.Answer), dns.RcodeToString[c.rcode], c.ad, c.count)
		}
	}
}

// Names and words are good for a table: each name once, each with words, each
// server at an address of its own.
func TestDomainsAreDistinct(t *testing.T) {
	w := start(t, world.Domains()...)
	names, addrs := map[string]bool{}, map[string]bool{}
	for _, d := range world.Domains() {
		if names[d.Name] || d.About == "" || !strings.HasSuffix(d.Name, ".example") {
			t.Errorf("%q is there twice, has no words, or is not below .example", d.Name)
		}
		names[d.Name] = true
		if got, ok := w.Domain(d.Name); !ok || got.About != d.About {
			t.Errorf("the world does not know %s", d.Name)
		}
	}
	for host, s := range w.Servers() {
		if addrs[s.Addr()] || !strings.HasSuffix(s.Addr(), ":"+strconv.Itoa(w.Port())) || s.Behaviour().Hostname != host {
			t.Errorf("%s listens at %s as %s", host, s.Addr(), s.Behaviour().Hostname)
		}
		addrs[s.Addr()] = true
	}
}

// The TLSA record of the DNS is the one of the certificate that the server
// shows.
func TestTLSAFitsTheServer(t *testing.T) {
	w := start(t, world.Domains()...)
	for host, fits := range map[string]bool{"mx.dane-ee.example": true, "mx.dane-wrong.example": false} {
		cert := handshake(t, w, host)
		published := ask(t, w, fmt.Sprintf("_%d._tcp.%s", w.Port(), host), dns.TypeTLSA).Answer[0].(*dns.TLSA)
		want := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert)
		if (published.Certificate == want.Hex()) != fits {
			t.Errorf("%s: TLSA %s, certificate %s; they should fit: %v", host, published.Certificate, want.Hex(), fits)
		}
	}
}

// A policy is where the DNS says, behind a certificate of the authority.
func TestPolicyHost(t *testing.T) {
	w := start(t, world.Domains()...)
	a := ask(t, w, "mta-sts.sts.example", dns.TypeA).Answer[0].(*dns.A)
	transport := &http.Transport{TLSClientConfig: &tls.Config{ServerName: "mta-sts.sts.example", RootCAs: w.Authority.Pool()}}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, fmt.Sprintf("https://%s:%d%s", a.A, w.HTTPSPort(), sts.Path), nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Host = "mta-sts.sts.example"
	reply, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	body, err := io.ReadAll(reply.Body)
	if err != nil || !strings.Contains(string(body), "mx: *.sts.example") {
		t.Errorf("%q, %v", body, err)
	}
}

func TestDownMeansRefused(t *testing.T) {
	w := start(t, world.Domains()...)
	conn, err := net.Dial("tcp", w.Server("mx1.down.example").Addr())
	if err == nil {
		conn.Close()
		t.Error("something listens at the address of a host that is down")
	}
}

// Two worlds at once do not meet, and a domain that comes later is found.
func TestAddToOneOfTwo(t *testing.T) {
	one, two := start(t), start(t)
	d := world.Domain{Name: "late.example", Zone: "@ TXT late\n"}
	if err := one.Add(d); err != nil {
		t.Fatal(err)
	}
	if err := one.Add(d); err == nil {
		t.Error("a domain could be added twice")
	}
	if reply := ask(t, one, "late.example", dns.TypeTXT); len(reply.Answer) != 1 || !reply.AuthenticatedData {
		t.Error(reply)
	}
	if reply := ask(t, two, "late.example", dns.TypeTXT); reply.Rcode != dns.RcodeNameError {
		t.Error(reply)
	}
}

// Where somebody else has the port on one address, the next address is taken.
func TestAddressInUse(t *testing.T) {
	w := start(t)
	other, err := net.Listen("tcp", net.JoinHostPort("127.0.0.2", strconv.Itoa(w.Port())))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := w.Add(world.Domain{Name: "late.example", Hosts: []world.Host{{Label: "mx"}}}); err != nil {
		t.Fatal(err)
	}
	if reply := ask(t, w, "mx.late.example", dns.TypeA); len(reply.Answer) != 1 || reply.Answer[0].(*dns.A).A.String() != "127.0.0.3" {
		t.Error(reply)
	}
}

func TestMalformedDomain(t *testing.T) {
	if w, err := world.Start(world.Domain{Name: "bad.example", Zone: "@ MX ten\n", Signing: dnssec.Unsigned}); err == nil {
		w.Stop()
		t.Error("a malformed zone was taken")
	}
}
