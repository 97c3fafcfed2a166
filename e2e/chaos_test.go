package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// chaosMessages and chaosTime are small for "make test"; "make chaos" asks for
// more.
var (
	chaosMessages = flag.Int("chaos", 120, "messages of the chaos run by each front end")
	chaosTime     = flag.Duration("chaos-time", 15*time.Second, "how long the events of the chaos run go on at least")
)

// chaos is a run in which everything fails that can: the remote servers at each
// stage of a delivery, the resolver, the disk, mxpipe, and above all mxpolicyd
// itself. Postfix tries until all is done; then every message must be accounted
// for.
type chaos struct {
	t       *testing.T
	world   *world
	dns     *labdns.Server
	web     *sts.Server
	hosts   []*chaosHost
	domains []string
	daemon  *daemon
	options settings
	clock   *os.File // nil: nothing moves it
	lmtp    string   // where the daemon takes mail by LMTP
	disk    string
	out     *postfix
	letters []*letter
	began   time.Time

	mu       sync.Mutex
	happened map[string]int // which events, and how often
	peak     usage          // of mxpolicyd, over all of its lives
}

// chaosHost is a mail server of the run.
type chaosHost struct {
	*mx.Server
	policy bool // nothing may arrive without TLS
}

// letter is one message of the run.
type letter struct {
	from, to string
	text     []byte
	refused  bool   // the remote servers do not know the recipient
	queueID  string // Postfix's
}

const (
	chaosDomains = 12
	// The time-outs of the run. Nothing may take longer than one of each, and
	// what a busy machine adds.
	chaosConnect, chaosCommand, chaosSubmission = 4 * time.Second, 3 * time.Second, 5 * time.Second
)

// TestChaos loses nothing whatever happens, and delivers twice only what was in
// the remote server's hands when mxpolicyd was killed.
func TestChaos(t *testing.T) {
	t.Parallel()
	c := newChaos(t)
	c.greet()
	c.began = time.Now() // building the daemon can take its time
	all := make(chan struct{})
	go func() {
		defer close(all)
		c.submit()
	}()
	c.runEvents(all)
	<-all
	c.recover()
	c.finish()
	c.checkAllDelivered()
}

func newChaos(t *testing.T) *chaos {
	t.Helper()
	w := lab(t)
	c := &chaos{t: t, world: w, happened: map[string]int{}, disk: smallDisk(t, 8<<20), began: time.Now()}
	var err error
	if c.dns, err = labdns.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.dns.Stop)
	if c.web, err = sts.Start(w.ca, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.web.Stop)
	for i := range chaosDomains {
		c.addDomain(i%2 == 0)
	}
	c.setClock()
	c.startDaemon()
	c.startPostfix()
	return c
}

// startDaemon writes the configuration: both front ends, all policies, short
// time-outs, a small disk.
func (c *chaos) startDaemon() {
	c.t.Helper()
	dir := folder(c.t)
	roots := filepath.Join(dir, "roots.pem")
	err := c.world.ca.WriteRoots(roots)
	if err == nil {
		c.daemon, err = c.world.newDaemon(dir, settings{state: c.disk})
	}
	c.lmtp = filepath.Join(filepath.Dir(c.daemon.socket), "lmtp.sock")
	if err == nil {
		err = write(c.daemon.config, fmt.Sprintf(`hostname: out.e2e.example
state_dir: %s
shutdown_timeout: 2s
dns: {servers: ["%s"], timeout: 1s}
listen:
  pipe: {path: %s, mode: "0660", group: "%d"}
  lmtp: [{path: %s, mode: "0666", transport: default}]
  admin: {path: %s}
transports:
  default:
    port: %d
    mx_auth: {dnssec: {}, dane: {}, mtasts: {cache: fs, https_port: %d}}
    tls_client: {root_ca: [%s]}
    connect_timeout: %s
    command_timeout: %s
    submission_timeout: %s
    conn_reuse_limit: 7
`, c.disk, c.dns.Addr(), c.daemon.socket, nobody, c.lmtp, filepath.Join(dir, "run", "admin.sock"), c.world.port, c.web.Addr().Port(), roots,
			chaosConnect, chaosCommand, chaosSubmission))
	}
	if err == nil {
		err = c.daemon.start(c.world, c.options)
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() {
		if err := c.daemon.close(); err != nil {
			c.t.Error(err)
		}
		if c.t.Failed() {
			c.t.Logf("mxpolicyd:\n%s", tail(c.daemon.log))
		}
	})
}

// startPostfix brings letters to mxpolicyd by mxpipe, and by LMTP those whose
// recipients begin with an l.
func (c *chaos) startPostfix() {
	c.t.Helper()
	entry, err := c.world.masterEntry()
	table := filepath.Join(folder(c.t), "transports")
	if err == nil {
		err = write(table, fmt.Sprintf("/@%s$/ keep:\n/^(nosuch\\.)?l/ lmtp:unix:%s\n", regexp.QuoteMeta(keepDomain), c.lmtp))
	}
	if err != nil {
		c.t.Fatal(err)
	}
	c.out = anotherOutOf(c.t, strings.Replace(entry, c.world.daemon.socket, c.daemon.socket, 1)+"\nlmtp unix - - n - - lmtp\n", fmt.Sprintf(`
default_transport = mxpipe
transport_maps = regexp:%s
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 5s
transport_retry_time = 2s
mxpipe_destination_concurrency_limit = 6
lmtp_destination_concurrency_limit = 6
default_process_limit = 40
smtpd_client_connection_rate_limit = 0
`, table))
}

// addDomain makes a domain with two mail servers, and perhaps a policy that
// asks for TLS.
func (c *chaos) addDomain(policy bool) {
	c.t.Helper()
	domain := c.world.newDomain("chaos")
	c.domains = append(c.domains, domain)
	zone := ""
	for i := range 2 {
		n := c.world.number.Add(1)
		name := fmt.Sprintf("mx%d.%s", i+1, domain)
		ip := fmt.Sprintf("127.25.%d.%d", n/250, n%250+1)
		cert, err := c.world.ca.Issue(ca.For(name))
		if err != nil {
			c.t.Fatal(err)
		}
		behaviour := mx.Modern(cert)
		behaviour.Hostname = name
		s, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", ip, c.world.port), Behaviour: behaviour, MaxMessages: 1 << 20, MaxBytes: 1 << 30})
		if err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { s.Stop() })
		c.hosts = append(c.hosts, &chaosHost{s, policy})
		zone += fmt.Sprintf("%s. MX %d %s.\n%s. A %s\n", domain, 10*(i+1), name, name, ip)
	}
	if policy {
		if err := c.web.Publish(domain, sts.Site{Policy: sts.Policy("enforce", 30*24*time.Hour, "*."+domain)}); err != nil {
			c.t.Fatal(err)
		}
		zone += fmt.Sprintf("_mta-sts.%s. TXT \"v=STSv1; id=1;\"\nmta-sts.%s. A %s\n", domain, domain, c.web.Addr().Addr())
	}
	if err := c.dns.Add(zone); err != nil {
		c.t.Fatal(err)
	}
}

// compose writes letter n. Two of 25 are for a recipient whom no one knows.
func (c *chaos) compose(n int) *letter {
	l := &letter{from: fmt.Sprintf("c%d.%d@%s", n, os.Getpid(), keepDomain), refused: n%25 == 7 || n%25 == 14}
	who := []string{"r", "l"}[n%2]
	domain := n / 2 % len(c.domains)
	l.to = fmt.Sprintf("%s%d@%s", who, n, c.domains[domain])
	if l.refused {
		l.to = fmt.Sprintf("nosuch.%s%d@%s", who, n, c.domains[domain])
	}
	size := 200 + n*7919%20_000
	if n%40 == 3 {
		size = 400_000 // more than goes in one flight, and into memory
	}
	line := fmt.Sprintf("letter %d, and again letter %d\n", n, n)
	// With all fields that a mail server would add.
	l.text = []byte(fmt.Sprintf("From: %s\nDate: Sun, 23 Nov 2025 12:00:00 +0000\nMessage-ID: <%d@e2e.example>\nSubject: chaos\n\n", l.from, n) + strings.Repeat(line, size/len(line)+1))
	return l
}

// greet delivers one letter to each domain before anything goes wrong, so that
// mxpolicyd knows the policies.
func (c *chaos) greet() {
	c.t.Helper()
	for n := range c.domains {
		l := c.compose(1_000_000 + n)
		l.refused, l.to = false, fmt.Sprintf("first%d@%s", n, c.domains[n])
		l.queueID = c.out.submit(c.t, mail{from: l.from, to: []string{l.to}, text: l.text})
		c.letters = append(c.letters, l)
	}
	for _, l := range c.letters {
		c.out.sent(c.t, l.queueID, 1)
	}
}

// submit hands all letters to Postfix, as fast as it takes them while
// the events go on.
func (c *chaos) submit() {
	var next atomic.Int64
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := int(next.Add(1)) - 1; n < 2**chaosMessages; n = int(next.Add(1)) - 1 {
				l := c.compose(n)
				l.queueID = c.out.submit(c.t, mail{from: l.from, to: []string{l.to}, text: l.text})
				c.mu.Lock()
				c.letters = append(c.letters, l)
				c.mu.Unlock()
			}
		})
	}
	all.Wait()
}

// arrivals counts the messages that mail servers took.
func (c *chaos) arrivals() (n int) {
	for _, s := range c.hosts {
		n += s.Counters().Messages
	}
	return n
}

// queued counts the messages that Postfix still has.
func (c *chaos) queued() (n int) {
	for _, queue := range []string{"incoming", "active", "deferred", "maildrop"} {
		filepath.WalkDir(filepath.Join(c.out.dir, "queue", queue), func(_ string, e os.DirEntry, err error) error {
			if err == nil && e.Type().IsRegular() {
				n++
			}
			return nil
		})
	}
	return n
}

// progress tells, on standard error, how far the run is.
func (c *chaos) progress(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(os.Stderr, "chaos %4ds: %s, %d of %d submitted, %d arrived, %d queued, %d events, peak %s\n",
		int(time.Since(c.began).Seconds()), what, len(c.letters), 2**chaosMessages+len(c.domains), c.arrivals(), c.queued(), sum(c.happened), c.peak)
}

func sum(counts map[string]int) (n int) {
	for _, v := range counts {
		n += v
	}
	return n
}

// finish waits, when everything works again, until Postfix has nothing left.
func (c *chaos) finish() {
	c.t.Helper()
	deadline := time.Now().Add(patience + time.Duration(*chaosMessages)*100*time.Millisecond)
	told := time.Now()
	for left := c.queued(); left > 0; left = c.queued() {
		if time.Now().After(deadline) {
			c.t.Fatalf("Postfix still has %d messages although everything works again:\n%s\n%s", left, c.out.postqueue(c.t, "-p"), tail(c.daemon.log))
		}
		if time.Since(told) > 10*time.Second {
			c.progress("recovery")
			c.out.postqueue(c.t, "-f")
			told = time.Now()
		}
		c.measure()
		time.Sleep(200 * time.Millisecond)
	}
	c.progress("done")
}
