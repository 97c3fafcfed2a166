package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// internet is what the tests of policies have instead of the shared DNS: signed
// zones, policy hosts, and an mxpolicyd that obeys every policy. Domains are
// added first, then serve starts the daemon, since resolvers remember for a
// moment what is not there.
type internet struct {
	*world
	zones *dnssec.Server
	web   *sts.Server
	roots string // file with the authority's root
	d     *daemon
}

func newInternet(t *testing.T) *internet {
	t.Helper()
	n := &internet{world: lab(t), roots: filepath.Join(folder(t), "roots.pem")}
	var err error
	if n.zones, err = dnssec.Start(dnssec.Zone{Name: "example"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.zones.Stop)
	if n.web, err = sts.Start(n.ca, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.web.Stop)
	if err := n.ca.WriteRoots(n.roots); err != nil {
		t.Fatal(err)
	}
	return n
}

// records says which TLSA records a mail server has.
type records int

const (
	noTLSA    records = iota
	goodTLSA          // 3 1 1 of its certificate
	wrongTLSA         // 3 1 1 of no certificate
)

// domainSpec is a domain to be made.
type domainSpec struct {
	name    string // below example
	signing dnssec.Signing
	ttl     uint32 // seconds; 0: 1
	hosts   []hostSpec
	policy  string   // mode of its MTA-STS policy; "": it has none
	listed  []string // what the policy lists; nil: all of the hosts
}

// hostSpec is a mail server of a domain; the first is preferred, and so on.
type hostSpec struct {
	cert      ca.Spec // without names it is for the host's
	tlsa      records
	behaviour func(*mx.Behaviour)
}

// domain is a domain that was made.
type domain struct {
	name  string
	hosts []*host
}

// host is one of its mail servers, with the certificate it shows.
type host struct {
	*mx.Server
	name string
	port int
	cert tls.Certificate
}

// owner is where the host's TLSA records are.
func (h *host) owner() string { return fmt.Sprintf("_%d._tcp.%s", h.port, h.name) }

// record is the line for a zone.
func (h *host) record(r records) string {
	rr := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, h.cert.Leaf)
	if r == wrongTLSA {
		rr = rr.Spoiled()
	}
	return fmt.Sprintf("%s. TLSA %s\n", h.owner(), rr)
}

// show gives the server another certificate.
func (h *host) show(cert tls.Certificate) {
	behaviour := h.Behaviour()
	behaviour.TLS.Certificate = cert
	h.SetBehaviour(behaviour)
}

// add makes a domain with its mail servers, its policy and its zone.
func (n *internet) add(t *testing.T, spec domainSpec) *domain {
	t.Helper()
	d := &domain{name: spec.name + ".example"}
	var zone strings.Builder
	for i, hs := range spec.hosts {
		h := n.newHost(t, fmt.Sprintf("mx%d.%s", i+1, d.name), hs)
		d.hosts = append(d.hosts, h)
		ip, _, _ := net.SplitHostPort(h.Addr())
		fmt.Fprintf(&zone, "@ MX %d %[2]s.\n%[2]s. A %[3]s\n", 10*(i+1), h.name, ip)
		if hs.tlsa != noTLSA {
			zone.WriteString(h.record(hs.tlsa))
		}
	}
	if spec.policy != "" {
		listed := spec.listed
		if listed == nil {
			listed = []string{"*." + d.name}
		}
		if err := n.web.Publish(d.name, sts.Site{Policy: sts.Policy(spec.policy, 24*time.Hour, listed...)}); err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&zone, "_mta-sts TXT \"v=STSv1; id=1;\"\nmta-sts A %s\n", n.web.Addr().Addr())
	}
	err := n.zones.AddZone(dnssec.Zone{Name: d.name, Signing: spec.signing, TTL: spec.ttl, NegativeTTL: spec.ttl, Text: zone.String()})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// newHost starts a mail server at an address of its own.
func (n *internet) newHost(t *testing.T, name string, spec hostSpec) *host {
	t.Helper()
	if spec.cert.Names == nil {
		spec.cert.Names = []string{name}
	}
	cert, err := n.ca.Issue(spec.cert)
	if err != nil {
		t.Fatal(err)
	}
	behaviour := mx.Modern(cert)
	behaviour.Hostname = name
	if spec.behaviour != nil {
		spec.behaviour(&behaviour)
	}
	i := n.number.Add(1)
	s, err := mx.Start(mx.Options{Addr: fmt.Sprintf("127.25.%d.%d:%d", i/250, i%250+1, n.port), Behaviour: behaviour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		for _, v := range s.Violations() {
			t.Errorf("mxpolicyd broke a rule at %s: %s", name, v)
		}
	})
	return &host{s, name, n.port, cert}
}

// unbound starts a real Unbound before the zones, which answers at port 53 of
// some addresses as well.
func (n *internet) unbound(t *testing.T, also ...string) *dnssec.Unbound {
	t.Helper()
	u, err := dnssec.StartUnbound(t.Context(), n.zones, folder(t), also...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		u.Stop()
		if t.Failed() {
			t.Logf("unbound:\n%s", u.Log())
		}
	})
	return u
}

// front starts the lab's own validating resolver, which counts questions.
func (n *internet) front(t *testing.T) *dnssec.Front {
	t.Helper()
	f, err := dnssec.NewFront(n.zones)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Stop)
	return f
}

// everyPolicy is mx_auth with all that is published and nothing else.
const everyPolicy = "{dnssec: {}, dane: {}, mtasts: {cache: fs, https_port: %d}}"

// configure writes the daemon's configuration. Lines are those of the default
// transport, and end its block.
func (n *internet) configure(t *testing.T, resolver, mxAuth, lines string) {
	t.Helper()
	if strings.Contains(mxAuth, "%d") {
		mxAuth = fmt.Sprintf(mxAuth, n.web.Addr().Port())
	}
	err := write(n.d.config, fmt.Sprintf(`hostname: out.e2e.example
state_dir: %s
dns: {servers: ["%s"], timeout: 2s}
listen: {pipe: {path: %s, mode: "0660", group: "%d"}, lmtp: [{path: %s, mode: "0666"}], socketmap: {path: %s, mode: "0666"}}
transports:
  default:
    port: %d
    tls_client: {root_ca: [%s]}
    mx_auth: %s
%s`, n.d.state, resolver, n.d.socket, nobody, n.d.lmtp, n.d.socketmap(), n.port, n.roots, mxAuth, lines))
	if err != nil {
		t.Fatal(err)
	}
}

// socketmap is where Postfix asks for TLS policies.
func (d *daemon) socketmap() string { return filepath.Join(filepath.Dir(d.socket), "socketmap.sock") }

// serve starts the daemon, with every policy and further lines of the default
// transport.
func (n *internet) serve(t *testing.T, resolver string, lines ...string) {
	t.Helper()
	var err error
	if n.d, err = n.newDaemon(folder(t), settings{}); err != nil {
		t.Fatal(err)
	}
	n.configure(t, resolver, everyPolicy, strings.Join(lines, "\n"))
	if err := n.d.start(n.world, settings{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("mxpolicyd:\n%s", tail(n.d.log))
		}
	})
}

// restart ends the daemon and starts it once more; meanwhile is what happens in
// between.
func (n *internet) restart(t *testing.T, meanwhile func()) {
	t.Helper()
	if err := n.d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	n.d.told.close()
	meanwhile()
	if err := n.d.start(n.world, settings{}); err != nil {
		t.Fatal(err)
	}
}

// postfix starts a Postfix whose mail goes to this daemon, but for bounces.
func (n *internet) postfix(t *testing.T) *postfix {
	t.Helper()
	entry, err := n.masterEntry()
	if err != nil {
		t.Fatal(err)
	}
	return anotherOutOf(t, strings.Replace(entry, n.daemon.socket, n.d.socket, 1),
		"default_transport = mxpipe\ntransport_maps = inline:{{"+keepDomain+"=keep:}}")
}

// send delivers a short message by mxpipe itself, with further flags.
func (n *internet) send(t *testing.T, to *domain, flags ...string) result {
	t.Helper()
	args := append([]string{"-f", "a@" + keepDomain}, flags...)
	return mxpipe(t, n.d, short(), append(args, "b@"+to.name)...).result(t)
}

// flushed has Postfix try a message again and again, until it is sent: caches
// between here and what was mended need a moment. It gives the try that went
// well.
func (p *postfix) flushed(t *testing.T, id string) attempt {
	t.Helper()
	late, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		n := len(p.attempts(id))
		p.retry(t, id)
		f := p.tries(t, id, n+1)[n]
		switch {
		case f.status == "sent":
			p.done(t, id)
			return f
		case f.status != "deferred":
			t.Fatalf("the message did not stay: %+v", f)
		case late.Err() != nil:
			t.Fatalf("not sent within %s: %+v", patience, f)
		}
	}
}

// bodies counts the messages that a server took.
func (h *host) bodies() int { return h.Counters().Messages }

// untouched asserts that nothing of a message came to a server, not even in
// part.
func (h *host) untouched(t *testing.T) {
	t.Helper()
	if c := h.Counters(); c.Messages+c.Verbs["MAIL"]+c.Verbs["DATA"]+c.Verbs["BDAT"] > 0 {
		t.Errorf("%s was offered the message: %+v", h.name, c)
	}
}

// daemonLog gives the daemon's log so far.
func (n *internet) daemonLog(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(n.d.log)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
