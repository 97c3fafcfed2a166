package transport

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	labdns "github.com/mxpipe/mxpipe/internal/lab/dns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// lab is a small internet for one test: a DNS server, a certificate authority,
// and mail servers that all listen on one port, each at its own address.
type lab struct {
	t         *testing.T
	dns       *labdns.Server
	ca        *ca.Authority
	resolver  *resolver.Resolver
	port      uint16
	hosts     int
	log       bytes.Buffer
	logMu     sync.Mutex
	idle      *Idle // nil: none is kept
	transport *Transport
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t}
	var err error
	if l.dns, err = labdns.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.dns.Stop() })
	if l.ca, err = ca.New(ca.Options{}); err != nil {
		t.Fatal(err)
	}
	if l.resolver, err = resolver.New(resolver.Config{Servers: []string{l.dns.Addr()}, Timeout: time.Second, Attempts: 1}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.resolver.Close)
	// A port that is free at one address is taken as free at all of them.
	probe, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.port = netip.MustParseAddrPort(probe.Addr().String()).Port()
	probe.Close()
	return l
}

// mx starts a mail server named name at an address of its own.
func (l *lab) mx(name string, change func(*mx.Habits)) *mx.Server {
	l.t.Helper()
	cert, err := l.ca.Issue(ca.For(name))
	if err != nil {
		l.t.Fatal(err)
	}
	habits := mx.Modern(cert)
	habits.Hostname = name
	habits.Recipients = mx.UsualRecipients()
	if change != nil {
		change(&habits)
	}
	addr := l.address()
	server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", addr, l.port), Habits: habits})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { server.Stop() })
	l.zone("%s. A %s", name, addr)
	return server
}

// address gives the next free loopback address.
func (l *lab) address() string {
	l.hosts++
	return fmt.Sprintf("127.0.%d.%d", 1+l.hosts/200, 2+l.hosts%200)
}

func (l *lab) zone(format string, args ...any) {
	l.t.Helper()
	if err := l.dns.Add(fmt.Sprintf(format, args...)); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) Write(p []byte) (int, error) {
	l.logMu.Lock()
	defer l.logMu.Unlock()
	return l.log.Write(p)
}

// logged gives the log so far.
func (l *lab) logged() string {
	l.logMu.Lock()
	defer l.logMu.Unlock()
	return l.log.String()
}

func (l *lab) config() *Config {
	return &Config{
		Name: "default", Hostname: "client.example", Port: l.port,
		ConnectTimeout: 5 * time.Second, CommandTimeout: 5 * time.Second, SubmissionTimeout: 5 * time.Second,
		RequireTLSOverride: true, RelaxedRequireTLS: true,
		ConnReuseLimit: 10, ConnMaxIdleCount: 10, ConnMaxIdleTime: time.Minute,
	}
}

// start makes the transport.
func (l *lab) start(change func(*Config)) {
	l.t.Helper()
	cfg := l.config()
	if change != nil {
		change(cfg)
	}
	var err error
	l.transport, err = New(cfg, Deps{Resolver: l.resolver, Idle: l.idle, Logger: slog.New(slog.NewTextHandler(l, nil))})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(l.transport.Close)
}

// msg makes a message of a text with LF line ends.
func msg(t *testing.T, text string) *Message {
	t.Helper()
	var body bytes.Buffer
	var header message.HeaderReader
	c := message.NewCanonicalizer(&body)
	if _, err := c.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	header.Write(body.Bytes())
	return &Message{Content: bytes.NewReader(body.Bytes()), Facts: c.Facts(), Header: header.Header()}
}

const text = "From: a@client.example\nSubject: a test\n\nHello.\n"

// send delivers the usual message.
func (l *lab) send(to ...string) []Result { return l.sendText(l.t.Context(), text, to...) }

func (l *lab) sendText(ctx context.Context, text string, to ...string) []Result {
	l.t.Helper()
	env := &Envelope{ID: "test", QueueID: "4XyZ", Sender: "a@client.example"}
	for _, r := range to {
		env.Recipients = append(env.Recipients, Recipient{Address: r})
	}
	return l.transport.Deliver(ctx, env, msg(l.t, text))
}

// expect compares results with "code text" patterns: the code exactly, the
// rest as a part of the text.
func expect(t *testing.T, results []Result, want ...string) {
	t.Helper()
	if len(results) != len(want) {
		t.Fatalf("%d results, want %d", len(results), len(want))
	}
	for i, w := range want {
		code, part, _ := strings.Cut(w, " ")
		if got := results[i]; got.Code.String() != code || !strings.Contains(got.Text, part) {
			t.Errorf("%s: %v %s\nwant %s ...%s...", got.Recipient, got.Code, got.Text, code, part)
		}
	}
}

func TestDelivery(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	results := l.send("b@a.example", "nosuch@a.example", "later@a.example")
	expect(t, results,
		"2.0.0 mx1.a.example: 250 2.0.0",
		"5.1.1 mx1.a.example: 550 5.1.1",
		"4.2.0 mx1.a.example: 450 4.2.0")
	if want := "encrypted, TLS1.3, id=test)"; !strings.HasSuffix(results[0].Text, want) {
		t.Errorf("%q does not end with %q", results[0].Text, want)
	}
	messages, err := server.Wait(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(messages[0].Body), strings.ReplaceAll(text, "\n", "\r\n"); got != want {
		t.Errorf("body %q, want %q", got, want)
	}
}
