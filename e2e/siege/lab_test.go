package siege

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// goodDomains is how many domains good messages go to.
const goodDomains = 20

// lab is the internet, good and bad.
type lab struct {
	dns   *labdns.Server
	web   *sts.Server
	ca    *ca.Authority
	roots string
	port  int // of all mail servers
	good  []*mx.Server
	next  atomic.Int64 // the number of the next address
}

func newLab(t *testing.T) *lab {
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
	for i := range goodDomains {
		must(l.addGood(t, i))
	}
	return l
}

func goodDomain(i int) string { return fmt.Sprintf("d%d.good.example", i%goodDomains) }

// addGood sets a good domain up: some have DANE, some MTA-STS, some neither.
func (l *lab) addGood(t *testing.T, i int) error {
	name := goodDomain(i)
	host, addr := "mx."+name, l.address()
	cert, err := l.ca.Issue(ca.For(host))
	if err != nil {
		return err
	}
	behaviour := mx.Modern(cert)
	behaviour.Hostname = host
	zone := fmt.Sprintf("%s. 60 MX 10 %s.\n%[2]s. 60 A %[3]s\n", name, host, addr)
	switch i % 3 {
	case 1:
		l.dns.Secure(name, true)
		zone += fmt.Sprintf("_%d._tcp.%s. 60 TLSA %s\n", l.port, host, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf))
	case 2:
		if err := l.web.Publish(name, sts.Site{Policy: sts.Policy("enforce", time.Hour, host)}); err != nil {
			return err
		}
		zone += fmt.Sprintf("_mta-sts.%s. 60 TXT \"v=STSv1; id=0;\"\nmta-sts.%[1]s. A %[2]s\n", name, l.web.Addr().Addr())
	}
	server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", addr, l.port), Behaviour: behaviour, Discard: true, MaxMessages: 100_000})
	if err != nil {
		return err
	}
	t.Cleanup(func() { server.Stop() })
	l.good = append(l.good, server)
	return l.dns.Add(zone)
}

// address gives an address that nobody else has.
func (l *lab) address() string {
	n := l.next.Add(1)
	return fmt.Sprintf("127.31.%d.%d", n/250, n%250+1)
}

// host starts a mail server whose connections are given to serve, each in a
// goroutine of its own, and gives it a name. stop ends it, and waits for that.
func (l *lab) host(name string, serve func(net.Conn)) (stop func(), err error) {
	addr := l.address()
	if err := l.dns.Add(fmt.Sprintf("%s. 300 A %s", name, addr)); err != nil {
		return nil, err
	}
	return l.listen(fmt.Sprintf("%s:%d", addr, l.port), serve)
}

// listen serves an address.
func (l *lab) listen(address string, serve func(net.Conn)) (stop func(), err error) {
	listener, err := forks.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	var done sync.WaitGroup
	var mu sync.Mutex
	open, stopped := map[net.Conn]bool{}, false
	done.Go(func() {
		for {
			conn, err := listener.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				time.Sleep(10 * time.Millisecond)
				continue
			}
			mu.Lock()
			open[conn] = true
			if stopped {
				conn.Close()
			}
			mu.Unlock()
			done.Go(func() {
				serve(conn)
				conn.Close()
				mu.Lock()
				defer mu.Unlock()
				delete(open, conn)
			})
		}
	})
	return func() {
		listener.Close()
		mu.Lock()
		stopped = true
		for conn := range open {
			conn.Close()
		}
		mu.Unlock()
		done.Wait()
	}, nil
}

// mailTo has a domain's mail go to hosts, in this order.
func (l *lab) mailTo(domain string, hosts ...string) error {
	zone := ""
	for i, host := range hosts {
		zone += fmt.Sprintf("%s. 300 MX %d %s.\n", domain, i+1, host)
	}
	return l.dns.Add(zone)
}
