package soak

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// lab is the internet of the run.
type lab struct {
	dns     *labdns.Server
	web     *sts.Server
	ca      *ca.Authority
	roots   string
	port    int
	domains []*domain
	changes atomic.Int64
}

// domain is a domain with its mail server.
type domain struct {
	name, host, addr string
	policy           bool // MTA-STS
	dane             bool

	mu        sync.Mutex
	server    *mx.Server
	behaviour mx.Behaviour
	before    int64 // messages that arrived at earlier servers
}

func newLab(t *testing.T, n int) *lab {
	t.Helper()
	l := &lab{roots: filepath.Join(t.TempDir(), "roots.pem")}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	l.dns, err = labdns.Start()
	must(err)
	t.Cleanup(l.dns.Stop)
	l.ca, err = ca.New(ca.Options{})
	must(err)
	must(l.ca.WriteRoots(l.roots))
	l.web, err = sts.Start(l.ca, "")
	must(err)
	t.Cleanup(l.web.Stop)
	l.port = ports.For(t)
	for i := range n {
		name := fmt.Sprintf("d%d.soak.example", i)
		d := &domain{name: name, host: "mx." + name, addr: fmt.Sprintf("127.30.%d.%d", i/250, i%250+1), policy: i%4 == 1, dane: i%4 == 2}
		l.domains = append(l.domains, d)
		must(l.publish(d))
		must(d.start(l.port))
		t.Cleanup(func() { d.server.Stop() })
	}
	return l
}

// publish puts a domain into the DNS, and its policy on the web.
func (l *lab) publish(d *domain) error {
	cert, err := l.ca.Issue(ca.For(d.host))
	if err != nil {
		return err
	}
	d.behaviour = mx.Modern(cert)
	d.behaviour.Hostname = d.host
	zone := fmt.Sprintf("%s. 60 MX 10 %s.\n%[2]s. 60 A %[3]s\n", d.name, d.host, d.addr)
	if d.dane {
		l.dns.Secure(d.name, true)
		zone += fmt.Sprintf("_%d._tcp.%s. 2 TLSA %s\n", l.port, d.host, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf))
	}
	if d.policy {
		if err := l.web.Publish(d.name, sts.Site{Policy: sts.Policy("enforce", time.Hour, d.host)}); err != nil {
			return err
		}
		zone += fmt.Sprintf("_mta-sts.%s. 5 TXT \"v=STSv1; id=0;\"\nmta-sts.%[1]s. A %[2]s\n", d.name, l.web.Addr().Addr())
	}
	return l.dns.Add(zone)
}

func (d *domain) start(port int) (err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.server, err = mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", d.addr, port), Behaviour: d.behaviour, Discard: true, MaxMessages: 1})
	return err
}

// arrived counts the messages that mail servers took.
func (l *lab) arrived() (n int64) {
	for _, d := range l.domains {
		d.mu.Lock()
		n += d.before + int64(d.server.Counters().Messages)
		d.mu.Unlock()
	}
	return n
}

// churn changes something in every moment until stop. Hosts go away for good
// moments only in a long run, since each is believed dead for a minute then;
// else they drop their connections.
func (l *lab) churn(stop <-chan struct{}, long bool) {
	for {
		select {
		case <-stop:
			return
		case <-time.After(10 * time.Millisecond):
		}
		d := l.domains[rand.IntN(len(l.domains))]
		var err error
		switch chance := rand.IntN(100); {
		case chance < 30:
			err = l.changePolicy(d)
		case chance < 70:
			err = l.roll(d)
		case chance < 99 || !long:
			d.mu.Lock()
			d.server.DropConnections()
			d.mu.Unlock()
		default:
			err = d.away(l.port, stop)
		}
		if err != nil {
			panic(err) // the lab itself is at fault
		}
		l.changes.Add(1)
	}
}

// changePolicy gives a policy another id, and another mode at times.
func (l *lab) changePolicy(d *domain) error {
	if !d.policy {
		return nil
	}
	mode := []string{"enforce", "enforce", "testing"}[rand.IntN(3)]
	if err := l.web.Publish(d.name, sts.Site{Policy: sts.Policy(mode, time.Hour, d.host)}); err != nil {
		return err
	}
	l.dns.Remove("_mta-sts."+d.name, dns.TypeTXT)
	return l.dns.Add(fmt.Sprintf("_mta-sts.%s. 5 TXT \"v=STSv1; id=%d;\"", d.name, rand.IntN(1e9)))
}

// roll gives a host a new certificate. Its TLSA record is there beside the one
// before, as it should be.
func (l *lab) roll(d *domain) error {
	cert, err := l.ca.Issue(ca.For(d.host))
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.dane {
		name := fmt.Sprintf("_%d._tcp.%s", l.port, d.host)
		l.dns.Remove(name, dns.TypeTLSA)
		// In this world nothing waits for a TTL to pass: the old certificate
		// stays for TLS, the new record is an extra.
		return l.dns.Add(fmt.Sprintf("%s. 2 TLSA %s\n%[1]s. 2 TLSA %[3]s", name,
			ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, d.behaviour.TLS.Certificate.Leaf), ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)))
	}
	d.behaviour.TLS.Certificate = cert
	d.server.SetBehaviour(d.behaviour)
	return nil
}

// away has a host go, with all of its connections, and come back.
func (d *domain) away(port int, stop <-chan struct{}) error {
	d.mu.Lock()
	d.server.Stop()
	d.before += int64(d.server.Counters().Messages)
	d.mu.Unlock()
	select {
	case <-stop:
	case <-time.After(100 * time.Millisecond):
	}
	// Its messages are counted with the new one's from now on.
	return d.start(port)
}
