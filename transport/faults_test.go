package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/script"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// cell is one cell of the fault matrix; faultTable explains its fields.
type cell struct {
	number                    int
	stage, fault              string
	outcome, bound, next, end string

	server   *script.Server // nil: the fault is not SMTP's
	received []Result
}

func (c *cell) String() string   { return c.stage + "/" + c.fault }
func (c *cell) domain() string   { return fmt.Sprintf("d%d.example", c.number) }
func (c *cell) host() string     { return "mx." + c.domain() }
func (c *cell) rcpt() string     { return "b@" + c.domain() }
func (c *cell) otherHost() bool  { return c.next == "next" }
func (c *cell) connections() int { return len(c.dialogues()) }

// parseFaults reads the table. No cell may be there twice.
func parseFaults(t *testing.T) (cells []*cell) {
	t.Helper()
	seen := map[string]bool{}
	for line := range strings.Lines(faultTable) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 6 {
			t.Fatalf("not six columns: %s", line)
		}
		for _, s := range strings.Split(words[0], ",") {
			for _, f := range strings.Split(words[1], ",") {
				c := &cell{number: len(cells), stage: s, fault: f, outcome: words[2], bound: words[3], next: words[4], end: words[5]}
				if _, ok := stages[s]; !ok || seen[c.String()] {
					t.Fatalf("%v is no stage, or there twice", c)
				}
				seen[c.String()] = true
				cells = append(cells, c)
			}
		}
	}
	return cells
}

// tooLong is for what must not be waited for, soon for what must.
const (
	tooLong = time.Hour
	soon    = 4 * time.Second
)

// matrix is the internet of all cells.
type matrix struct {
	*lab
	impatient  *resolver.Resolver // gives up soon
	good       *mx.Server         // the next host of every domain
	idle       *Idle
	tls        map[string]*tls.Config
	transports map[cellWay]*Transport
	small      *Message
	large      *Message
}

// cellWay is what distinguishes the transports of cells.
type cellWay struct {
	bound    string
	chunking Chunking
	pooled   bool
}

// TestFaults plays every fault at every stage of a delivery. Which time-out
// ended a delivery is told by there being only that one: all others are far
// beyond the patience of the test.
func TestFaults(t *testing.T) {
	t.Parallel()
	cells := parseFaults(t)
	if len(cells) < 250 {
		t.Fatalf("%d cells, at least 250 are wanted", len(cells))
	}
	m := newMatrix(t)
	for _, c := range cells {
		m.prepare(c)
	}
	m.deliver(cells)
	// Goodbyes that wait for a server end with their transports; the others
	// are over by themselves.
	m.conversations(cells, func(c *cell) bool { return c.bound != "farewell" && c.end != "again" && c.end != "rset" })
	m.idle.Stop()
	for _, tr := range m.transports {
		tr.Close()
	}
	m.conversations(cells, func(c *cell) bool { return c.bound == "farewell" || c.end == "again" || c.end == "rset" })
	tried := m.tried()
	got := map[string]int{}
	for _, message := range m.good.Messages() {
		got[message.Recipients[0].Address]++
	}
	for _, c := range cells {
		t.Run(c.String(), func(t *testing.T) { c.check(t, tried[c.String()], got[c.rcpt()]) })
	}
	t.Logf("%d cells: %d stages", len(cells), len(stages))
}

func newMatrix(t *testing.T) *matrix {
	m := &matrix{lab: newLab(t), transports: map[cellWay]*Transport{}, idle: NewIdle(1000)}
	var err error
	m.impatient, err = resolver.New(resolver.Config{Servers: []string{m.dns.Addr()}, Timeout: soon, Attempts: 1})
	m.must(err)
	t.Cleanup(m.impatient.Close)
	m.good = m.mx("good.example", nil)
	names := make([]string, 10_000)
	for i := range names {
		names[i] = fmt.Sprintf("n%d.example", i)
	}
	bomb := m.cert(ca.For("bomb.example"))
	// more than crypto/tls takes
	for len(bomb.Certificate)*len(bomb.Certificate[0]) < 300<<10 {
		bomb.Certificate = append(bomb.Certificate, bomb.Certificate[0])
	}
	m.tls = map[string]*tls.Config{
		"bomb": {Certificates: []tls.Certificate{bomb}},
		"old":  {Certificates: []tls.Certificate{bomb}, MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11},
		"good": {GetCertificate: m.byName()},
		"names": {GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := m.ca.Issue(ca.For(append(names, hello.ServerName)...))
			return &cert, err
		}},
	}
	m.small = msg(t, text)
	var body bytes.Buffer
	body.WriteString("Subject: large\r\n\r\n")
	for body.Len() < 8<<20 {
		body.WriteString(strings.Repeat("x", 76) + "\r\n")
	}
	m.large = &Message{Content: bytes.NewReader(body.Bytes()), Facts: message.Facts{Size: int64(body.Len())}}
	return m
}

// byName issues a certificate for whichever host is asked for.
func (m *matrix) byName() func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		cert, err := m.ca.Issue(ca.For(hello.ServerName))
		return &cert, err
	}
}

// prepare sets up a cell's domain: the host that fails, and the next one.
func (m *matrix) prepare(c *cell) {
	m.t.Helper()
	m.zone("%s. MX 10 %s.\n%s. MX 20 good.example.", c.domain(), c.host(), c.domain())
	if stages[c.stage].enforced {
		m.policy(c.domain(), mtasts.ModeEnforce, c.host(), "good.example")
	}
	switch c.stage {
	case "tcp":
		addr := m.address()
		if c.fault == "silence" {
			m.full(addr)
		}
		m.zone("%s. A %s", c.host(), addr)
	case "mx":
		m.dns.SetFault(c.domain(), dns.TypeMX, dnsFaults[c.fault])
	case "address":
		m.zone("%s. A %s", c.host(), m.address())
		m.dns.SetFault(c.host(), dns.TypeA, dnsFaults[c.fault])
		m.dns.SetFault(c.host(), dns.TypeAAAA, dnsFaults[c.fault])
	case "tlsa":
		m.zone("%s. A %s", c.host(), m.address())
		m.signed(c.host())
		m.dns.SetFault(fmt.Sprintf("_%d._tcp.%s", m.port, c.host()), dns.TypeTLSA, dnsFaults[c.fault])
	default:
		addr := m.address()
		opts := script.Options{Addr: fmt.Sprintf("%s:%d", addr, m.port), TLS: m.tls, Timeout: time.Minute}
		for _, text := range c.dialogues() {
			s, err := script.Parse(text)
			m.must(err)
			opts.Scripts = append(opts.Scripts, s)
		}
		var err error
		c.server, err = script.Start(opts)
		m.must(err)
		m.t.Cleanup(func() { c.server.Close() })
		m.zone("%s. A %s", c.host(), addr)
	}
	m.transport(c)
}

// full gives an address a listener that takes no more connections: further
// ones get no answer.
func (m *matrix) full(addr string) {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	m.must(err)
	m.t.Cleanup(func() { syscall.Close(fd) })
	// What remains of connections of a test before is not in the way.
	m.must(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	m.must(syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(m.port), Addr: [4]byte(net.ParseIP(addr).To4())}))
	m.must(syscall.Listen(fd, 0))
	for range 4 {
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, m.port), 100*time.Millisecond)
		if err != nil {
			return
		}
		m.t.Cleanup(func() { conn.Close() })
	}
	m.t.Fatal("the kernel's queue for connections never fills")
}

// transport gives the transport in whose way a cell's message goes.
func (m *matrix) transport(c *cell) *Transport {
	m.t.Helper()
	w := cellWay{c.bound, stages[c.stage].chunking, stages[c.stage].pooled}
	if t, ok := m.transports[w]; ok {
		return t
	}
	cfg := m.config()
	everything(cfg)
	cfg.ConnectTimeout, cfg.CommandTimeout, cfg.SubmissionTimeout, cfg.ConnMaxIdleTime = tooLong, tooLong, tooLong, tooLong
	cfg.Chunking = w.chunking
	deps := Deps{
		Resolver: m.lab.resolver,
		Policies: func(*MTASTS, *x509.CertPool) (plan.Policies, error) { return m.policies, nil },
		Logger:   slog.New(slog.NewJSONHandler(&m.journal, nil)),
	}
	switch w.bound {
	case "command":
		cfg.CommandTimeout = soon
	case "submission":
		cfg.SubmissionTimeout = soon
	case "connect":
		cfg.ConnectTimeout = soon
	case "dns":
		deps.Resolver = m.impatient
	}
	if w.pooled {
		deps.Idle = m.idle
	}
	t, err := New(cfg, deps)
	m.must(err)
	m.t.Cleanup(t.Close)
	m.transports[w] = t
	return t
}

// deliver runs all cells: those that end by themselves a few at a time, and
// then those that wait all at once.
func (m *matrix) deliver(cells []*cell) {
	for _, waits := range []bool{false, true} {
		var all errgroup.Group
		all.SetLimit(100)
		if !waits {
			all.SetLimit(16)
		}
		for _, c := range cells {
			if waits != (c.bound != "none" && c.bound != "farewell") {
				continue
			}
			all.Go(func() error {
				ctx, cancel := context.WithTimeoutCause(m.t.Context(), 2*time.Minute, ErrTimeout)
				defer cancel()
				m.run(ctx, c)
				return nil
			})
		}
		all.Wait()
	}
}

func (m *matrix) run(ctx context.Context, c *cell) {
	message := m.small
	if stages[c.stage].large {
		message = m.large
	}
	if c.fault == "abandoned" {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		reached := make(chan struct{})
		go func() {
			defer close(reached)
			if c.server.WaitMark(ctx, "reached") == nil {
				cancel(ErrTimeout)
			}
		}()
		defer func() {
			cancel(nil)
			<-reached
		}()
	}
	deliver := func() []Result {
		env := envelope(c.rcpt())
		env.ID = c.String()
		return m.transports[cellWay{c.bound, stages[c.stage].chunking, stages[c.stage].pooled}].Deliver(ctx, env, message)
	}
	if stages[c.stage].second {
		if r := deliver(); r[0].Code.Class != 2 {
			c.received = r
			return
		}
	}
	if c.idle() {
		c.server.Open("idle")
		if strings.Contains(c.dialogues()[0], "MARK said") {
			c.server.WaitMark(ctx, "said")
		} else {
			c.server.Wait(ctx, 1)
		}
	}
	c.received = deliver()
	if c.server != nil {
		c.server.Open("over")
	}
}

// conversations waits until the cells' servers have played their dialogues.
func (m *matrix) conversations(cells []*cell, which func(*cell) bool) {
	for _, c := range cells {
		if c.server == nil || !which(c) {
			continue
		}
		for n := 1; n <= c.connections(); n++ {
			ctx, cancel := context.WithTimeout(m.t.Context(), time.Minute)
			talk, err := c.server.Wait(ctx, n)
			cancel()
			if err == nil {
				err = talk.Err
			}
			if err != nil {
				m.t.Errorf("%v: %v", c, err)
			}
		}
	}
}

// tried gives, by the deliveries' ids, the reasons of hosts that failed.
func (m *matrix) tried() map[string]string {
	found := map[string]string{}
	for _, kind := range []string{"delivered", "deferred", "refused"} {
		for _, line := range m.lines(kind) {
			if why, ok := line["tried"].(string); ok {
				found[line["id"].(string)] = why
			}
		}
	}
	return found
}

func (c *cell) check(t *testing.T, tried string, copies int) {
	r := c.received[0]
	story := r.Code.String() + " " + r.Text
	want, host := c.outcome, c.host()
	if c.otherHost() {
		if !strings.HasPrefix(tried, c.outcome+" "+c.host()) {
			t.Errorf("the host failed with %q, want %s", tried, c.outcome)
		}
		want, host = "2.0.0", "good.example"
	}
	if c.stage == "mx" {
		host = "the mail servers of " + c.domain()
	}
	if !strings.HasPrefix(story, want+" "+host) {
		t.Errorf("%s\nwant %s %s\ntried: %s", story, want, host, tried)
	}
	if copies > 0 != c.otherHost() || copies > 1 {
		t.Errorf("the next host has %d copies; %s", copies, story)
	}
	if strings.ContainsFunc(story+tried, func(r rune) bool { return !unicode.IsPrint(r) }) {
		t.Errorf("not printable: %q, %q", story, tried)
	}
	if c.server == nil {
		return
	}
	if n := c.server.Connections(); n != c.connections() {
		t.Errorf("%d connections, want %d", n, c.connections())
	}
}
