package transport

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/script"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/fallback"
	"github.com/mxpipe/mxpipe/transport/message"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/source"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// lab is a small internet for one test: a DNS server, a certificate authority
// that clients trust, another that they do not, MTA-STS policies, and mail
// servers that all listen on one port, each at its own address.
type lab struct {
	t         *testing.T
	dns       *labdns.Server
	resolver  *resolver.Resolver
	ca        *ca.Authority
	strangers *ca.Authority
	// the file with the root of ca, for root_ca
	roots        string
	certificates map[string]tls.Certificate // that mail servers began with
	policies     stsTable
	port         uint16
	hosts        int
	journal      journal
	idle         *Idle // nil: none is kept
	traces       Traces
	observe      func(*Event)
	traffic      delivery.Traffic
	failing      *fallback.Memory // nil: there is no fallback relay
	daily        *source.Daily    // nil: in memory
	self         route.Self
	transport    *Transport
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := &lab{t: t, policies: stsTable{}, certificates: map[string]tls.Certificate{}, roots: filepath.Join(t.TempDir(), "roots.pem")}
	var err error
	l.dns, err = labdns.Start()
	l.must(err)
	t.Cleanup(func() { l.dns.Stop() })
	l.ca, err = ca.New(ca.Options{})
	l.must(err)
	l.must(l.ca.WriteRoots(l.roots))
	l.strangers, err = ca.New(ca.Options{Name: "nobody's friend"})
	l.must(err)
	l.resolve(10 * time.Second)
	l.port = uint16(ports.For(t))
	return l
}

// resolve makes the resolver, which waits so long for an answer.
func (l *lab) resolve(timeout time.Duration) {
	l.t.Helper()
	var err error
	l.resolver, err = resolver.New(resolver.Config{Servers: []string{l.dns.Addr()}, Timeout: timeout, Attempts: 1})
	l.must(err)
	l.t.Cleanup(l.resolver.Close)
}

// impatient is for tests whose DNS server is silent. Call it before start.
func (l *lab) impatient() { l.resolve(labdns.Timeout) }

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

// mx starts a mail server named name at an address of its own, with a
// certificate for that name.
func (l *lab) mx(name string, change func(*mx.Behaviour)) *mx.Server {
	l.t.Helper()
	l.certificates[name] = l.cert(ca.For(name))
	habits := mx.Modern(l.certificates[name])
	habits.Hostname = name
	if change != nil {
		change(&habits)
	}
	addr := l.address()
	server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", addr, l.port), Behaviour: habits})
	l.must(err)
	l.t.Cleanup(func() { server.Stop() })
	l.zone("%s. A %s", name, addr)
	return server
}

// play starts a server named name that plays a dialogue to each connection in
// turn; its certificate is called "good". The test fails when the client does
// not keep to what is written.
func (l *lab) play(name string, dialogues ...string) *script.Server {
	l.t.Helper()
	addr := l.address()
	cert := l.cert(ca.For(name))
	opts := script.Options{
		Addr: fmt.Sprintf("%s:%d", addr, l.port),
		TLS:  map[string]*tls.Config{"good": {Certificates: []tls.Certificate{cert}}},
	}
	for _, text := range dialogues {
		s, err := script.Parse(text)
		l.must(err)
		opts.Scripts = append(opts.Scripts, s)
	}
	server, err := script.Start(opts)
	l.must(err)
	l.t.Cleanup(func() {
		for n := 1; n <= server.Connections(); n++ {
			// Its error is in Close too.
			_, _ = server.Wait(context.Background(), n)
		}
		if err := server.Close(); err != nil {
			l.t.Errorf("%s: %v", name, err)
		}
	})
	l.zone("%s. A %s", name, addr)
	return server
}

// dead gives a host a name and an address at which nothing listens.
func (l *lab) dead(name string) {
	l.t.Helper()
	l.zone("%s. A %s", name, l.address())
}

// address gives the next free loopback address.
func (l *lab) address() string {
	l.hosts++
	return fmt.Sprintf("127.0.%d.%d", 1+l.hosts/200, 2+l.hosts%200)
}

func (l *lab) zone(format string, args ...any) {
	l.t.Helper()
	l.must(l.dns.Add(fmt.Sprintf(format, args...)))
}

// signed marks names, and all below them, as DNSSEC-validated.
func (l *lab) signed(names ...string) {
	for _, name := range names {
		l.dns.Secure(name, true)
	}
}

// tlsa publishes TLSA records for the mail server of a host.
func (l *lab) tlsa(host string, records ...ca.Record) {
	l.t.Helper()
	for _, r := range records {
		l.zone("_%d._tcp.%s. TLSA %s", l.port, host, r)
	}
}

// policy publishes an MTA-STS policy.
func (l *lab) policy(domain string, mode mtasts.Mode, hosts ...string) {
	l.policies[domain] = policycache.Entry{
		Domain: domain, State: policycache.HasPolicy, ID: "1",
		Policy: mtasts.Policy{Mode: mode, MaxAge: time.Hour, MX: hosts},
	}
}

// stsTable stands for what is known of domains' MTA-STS policies. It is not
// changed while something is delivered.
type stsTable map[string]policycache.Entry

// Lookup implements Policies.
func (s stsTable) Lookup(_ context.Context, domain string) (policycache.Entry, error) {
	if e, ok := s[domain]; ok {
		return e, nil
	}
	return policycache.Entry{Domain: domain, State: policycache.NoPolicy}, nil
}

// cert issues a certificate that clients trust.
func (l *lab) cert(spec ca.Spec) tls.Certificate {
	l.t.Helper()
	return issue(l.t, l.ca, spec)
}

func issue(t *testing.T, a *ca.Authority, spec ca.Spec) tls.Certificate {
	t.Helper()
	cert, err := a.Issue(spec)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// journal collects the log.
type journal struct {
	hook func(line string) // called with each line; may be nil
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (j *journal) Write(p []byte) (int, error) {
	if j.hook != nil {
		j.hook(string(p))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

// logged gives the log so far.
func (l *lab) logged() string {
	l.journal.mu.Lock()
	defer l.journal.mu.Unlock()
	return l.journal.text.String()
}

// lines gives the log's lines with this message.
func (l *lab) lines(message string) (found []map[string]any) {
	l.t.Helper()
	for line := range strings.Lines(l.logged()) {
		var entry map[string]any
		l.must(json.Unmarshal([]byte(line), &entry))
		if entry["msg"] == message {
			found = append(found, entry)
		}
	}
	return found
}

func (l *lab) config() *Config {
	return &Config{
		Name: "default", Hostname: "client.example", Port: l.port,
		ConnectTimeout: time.Minute, CommandTimeout: time.Minute, SubmissionTimeout: time.Minute,
		RequireTLSOverride: true, RelaxedRequireTLS: true,
		ConnReuseLimit: 10, ConnMaxIdleCount: 10, ConnMaxIdleTime: time.Minute,
		TLSClient: TLSClient{RootCA: []string{l.roots}, Legacy: true},
	}
}

// everything turns all mechanisms on, as the built-in transport does.
func everything(c *Config) {
	c.MXAuth = PolicySet{DNSSEC: true, DANE: true, MTASTS: &MTASTS{}}
}

// start makes the transport.
func (l *lab) start(change func(*Config)) {
	l.t.Helper()
	cfg := l.config()
	if change != nil {
		change(cfg)
	}
	var err error
	l.transport, err = New(cfg, Deps{
		Resolver: l.resolver,
		Self:     l.self,
		Policies: func(*MTASTS, *x509.CertPool) (plan.Policies, error) { return l.policies, nil },
		Idle:     l.idle,
		Traces:   &l.traces,
		Observe:  l.observe,
		Traffic:  l.traffic,
		Failing:  l.failing,
		Daily:    l.daily,
		Logger:   slog.New(slog.NewJSONHandler(&l.journal, nil)),
	})
	l.must(err)
	// A host's addresses are dialled one after the other, and never two at
	// once: tests ask what becomes of the first, not who wins a race.
	l.transport.conns.Delay = time.Hour
	l.t.Cleanup(l.transport.Close)
}

// msg makes a message of a text with LF line ends.
func msg(t *testing.T, text string) *Message {
	t.Helper()
	var body bytes.Buffer
	header := message.NewHeaderReader(message.Field{Name: "X-Quarantined", Value: "yes"})
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
	return l.transport.Deliver(ctx, envelope(to...), msg(l.t, text))
}

// sendAs delivers the usual message with something special about its envelope.
func (l *lab) sendAs(change func(*Envelope), to ...string) []Result {
	l.t.Helper()
	env := envelope(to...)
	change(env)
	return l.transport.Deliver(l.t.Context(), env, msg(l.t, text))
}

func envelope(to ...string) *Envelope {
	env := &Envelope{ID: "test", QueueID: "4XyZ", Sender: "a@client.example"}
	for _, r := range to {
		env.Recipients = append(env.Recipients, Recipient{Address: r})
	}
	return env
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
	if want := "webpki, TLS1.3, id=test)"; !strings.HasSuffix(results[0].Text, want) {
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

// reader gives a message's content from its start.
func reader(m *Message) io.Reader { return io.NewSectionReader(m.Content, 0, m.Facts.Size) }
