package policyd

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/logging"
	"github.com/mxpipe/mxpipe/policyd/tlsrpt"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/message"
)

// collected is a datagram as a collector reads it.
type collected struct {
	DPV      string `json:"dpv"`
	D        string `json:"d"`
	PR       string `json:"pr"`
	Policies []struct {
		Type     int      `json:"policy-type"`
		Domain   string   `json:"policy-domain"`
		Text     []string `json:"policy-string"`
		MX       []string `json:"mx-host"`
		Failures []struct {
			C int    `json:"c"`
			S string `json:"s"`
			N string `json:"n"`
			R string `json:"r"`
			F string `json:"f"`
		} `json:"failure-details"`
		T int `json:"t"`
		F int `json:"f"`
	} `json:"policies"`
}

// The numbers of libtlsrpt, by the names of RFC 8460 §4.3 and §4.4.
var (
	policyTypes = map[int]string{1: "tlsa", 2: "sts", 9: "no-policy-found"}
	resultTypes = map[int]string{
		201: "starttls-not-supported", 202: "certificate-host-mismatch", 203: "certificate-not-trusted",
		204: "certificate-expired", 205: "validation-failure", 301: "sts-policy-fetch-error", 302: "sts-policy-invalid",
		303: "sts-webpki-invalid", 304: "tlsa-invalid", 305: "dnssec-invalid",
	}
)

// outline says in a line what a datagram reports: each policy with what failed
// under it, and how that ended.
func (c *collected) outline() string {
	var all []string
	for _, p := range c.Policies {
		words := []string{policyTypes[p.Type]}
		for _, f := range p.Failures {
			words = append(words, resultTypes[f.C])
		}
		all = append(all, strings.Join(append(words, [...]string{"passed", "failed"}[p.F]), " "))
	}
	return strings.Join(all, "; ")
}

// collector listens as tlsrpt-collectd does.
type collector struct {
	t    *testing.T
	path string
	conn *net.UnixConn
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{t: t, path: filepath.Join(t.TempDir(), "collector.sock")}
	var err error
	if c.conn, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.path, Net: "unixgram"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	return c
}

func (c *collector) next() *collected {
	c.t.Helper()
	buf := make([]byte, 1<<20)
	c.conn.SetReadDeadline(time.Now().Add(patience))
	n, err := c.conn.Read(buf)
	if err != nil {
		c.t.Fatal(err)
	}
	d := &collected{}
	read := json.NewDecoder(bytes.NewReader(buf[:n]))
	read.DisallowUnknownFields()
	if err := read.Decode(d); err != nil {
		c.t.Fatalf("%v in %s", err, buf[:n])
	}
	if d.DPV != "1" || len(d.Policies) == 0 {
		c.t.Errorf("%s", buf[:n])
	}
	for _, p := range d.Policies {
		if policyTypes[p.Type] == "" || p.T != len(p.Failures) || p.Domain == "" || p.F > 0 && p.T == 0 {
			c.t.Errorf("%s", buf[:n])
		}
		for _, f := range p.Failures {
			if resultTypes[f.C] == "" {
				c.t.Errorf("result type %d in %s", f.C, buf[:n])
			}
		}
	}
	return d
}

const wantsReports = "v=TLSRPTv1; rua=mailto:reports@example.com"

// reporting is a daemon in a world each of whose domains wants reports; its
// transports are asked directly.
type reporting struct {
	*testing.T
	*Daemon
	world  *world.World
	logged *testlog.Log
}

func newReporting(t *testing.T, c *collector, domains ...world.Domain) *reporting {
	t.Helper()
	for i := range domains {
		domains[i].Zone += `_smtp._tls TXT "` + wantsReports + "\"\n"
	}
	w, err := world.Start(domains...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	dir := t.TempDir()
	roots := filepath.Join(dir, "roots.pem")
	if err := w.Authority.WriteRoots(roots); err != nil {
		t.Fatal(err)
	}
	cfg, err := config.Parse("test.yaml", fmt.Appendf(nil, `hostname: client.example
state_dir: %[1]s
listen: {pipe: {path: %[1]s/pipe.sock}}
dns: {servers: ["%[2]s"]}
tlsrpt: {socket: %[3]s}
mx_auth: {all: {dnssec: {}, dane: {}, mtasts: {cache: ram, https_port: %[4]d}}}
transports:
  default:
    mx_auth: all
    port: %[5]d
    tls_client: {root_ca: %[6]s}
    conn_reuse_limit: 0
    overrides: [{match: named.example, nexthop: sts.example}]
  pooled: {mx_auth: all, port: %[5]d, tls_client: {root_ca: %[6]s}}
  strict: {mx_auth: {local_policy: {min_tls_level: encrypted}}, port: %[5]d}
`, dir, w.Resolver(), c.path, w.HTTPSPort(), w.Port(), roots), config.Environment{})
	if err != nil {
		t.Fatal(err)
	}
	r := &reporting{T: t, world: w, logged: testlog.New()}
	log := logging.New(cfg.Log, r.logged)
	if r.Daemon, err = New(t.Context(), Options{Config: cfg, Log: log}); err != nil {
		t.Fatal(err)
	}
	if err := r.reports.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.reports.Close()
		r.close()
	})
	return r
}

// send delivers a message and gives the code of the result.
func (r *reporting) send(way, header, to string) string {
	r.Helper()
	w, ok := r.forDelivery(way)
	if !ok {
		r.Fatalf("no transport %s", way)
	}
	defer w.Release()
	var body bytes.Buffer
	var head message.HeaderReader
	c := message.NewCanonicalizer(&body)
	if _, err := c.Write([]byte(header + "Subject: a test\n\nHello.\n")); err != nil {
		r.Fatal(err)
	}
	if err := c.Close(); err != nil {
		r.Fatal(err)
	}
	head.Write(body.Bytes())
	env := &transport.Envelope{ID: "test", Sender: "a@client.example", Recipients: []transport.Recipient{{Address: to}}}
	msg := &transport.Message{Content: bytes.NewReader(body.Bytes()), Facts: c.Facts(), Header: head.Header()}
	return w.Deliver(r.Context(), env, msg)[0].Code.String()
}

// outlines are what a delivery to each well-known domain of the lab tells, as
// outline has it.
func outlines() map[string]string {
	return map[string]string{
		"dane-ee.example":              "tlsa passed",
		"dane-ta.example":              "tlsa passed",
		"dane-ta-name.example":         "tlsa certificate-host-mismatch failed",
		"dane-wrong.example":           "tlsa certificate-not-trusted failed",
		"dane-no-tls.example":          "tlsa starttls-not-supported failed",
		"dane-unusable.example":        "tlsa tlsa-invalid failed",
		"dane-unusable-no-tls.example": "tlsa tlsa-invalid starttls-not-supported failed",
		"dane-bogus.example":           "tlsa dnssec-invalid failed",
		"dane-second.example":          "tlsa certificate-not-trusted failed; tlsa passed",
		"dane-hosted.example":          "tlsa passed",
		"sts.example":                  "sts passed",
		"sts-wrong-name.example":       "sts certificate-host-mismatch failed",
		"sts-expired.example":          "sts certificate-expired failed",
		"sts-not-listed.example":       "sts validation-failure failed",
		"sts-testing.example":          "sts certificate-host-mismatch failed",
		"sts-missing.example":          "no-policy-found passed; sts sts-policy-fetch-error failed",
		"both.example":                 "tlsa passed",
		"both-dane-yes.example":        "tlsa passed",
		"both-dane-no.example":         "tlsa certificate-not-trusted failed",
		"none.example":                 "no-policy-found passed",
		"plain.example":                "no-policy-found starttls-not-supported failed",
		"broken-tls.example":           "no-policy-found validation-failure failed",
		"down.example":                 "no-policy-found passed",
		"no-mx.example":                "no-policy-found passed",
		"sts-malformed.example":        "no-policy-found passed; sts sts-policy-invalid failed",
		"sts-web-expired.example":      "no-policy-found passed; sts sts-webpki-invalid failed",
		"sts-broken-tls.example":       "sts validation-failure failed",
		"sts-old-tls.example":          "sts validation-failure failed",
		"sts-testing-none.example":     "sts starttls-not-supported failed",
		"sts-unlisted-test.example":    "sts validation-failure failed",
		"dane-broken-tls.example":      "tlsa validation-failure failed",
		"dane-sts-unusable.example":    "tlsa tlsa-invalid failed; sts passed",
	}
}

// Each well-known domain of the lab, with what a collector is told of a
// delivery to it (RFC 8460 §4.3).
func TestTLSReports(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	r := newReporting(t, c, append(world.Domains(), moreDomains()...)...)
	for domain, want := range outlines() {
		r.send("default", "", "b@"+domain)
		d := c.next()
		if got := d.outline(); got != want || d.D != domain || d.PR != wantsReports {
			t.Errorf("%s: %q of %s, record %q; want %q", domain, got, d.D, d.PR, want)
		}
		r.details(domain, d)
	}
	// A session is a connection, not a message (RFC 8460 §4.4): a second
	// message over it is none.
	for _, domain := range []string{"sts.example", "sts.example", "plain.example", "plain.example", "sts.example", "none.example"} {
		r.send("pooled", "", "b@"+domain)
	}
	// Each waits for its own look-ups, so that they come in any order.
	var told []string
	for range 3 {
		told = append(told, c.next().D)
	}
	slices.Sort(told)
	if want := []string{"none.example", "plain.example", "sts.example"}; !slices.Equal(told, want) {
		t.Errorf("over connections for several messages: %v, want %v", told, want)
	}
	r.until(func(s tlsrpt.Stats) bool { return s == tlsrpt.Stats{Sent: 35} })
}

// moreDomains are what the well-known ones leave out.
func moreDomains() []world.Domain {
	const hour = time.Hour
	plain, broken, old := mx.Modern(tls.Certificate{}), mx.Modern(tls.Certificate{}), mx.Modern(tls.Certificate{})
	plain.TLS = mx.TLS{}
	broken.TLS.Mode = mx.TLSBroken
	old.TLS.MinVersion, old.TLS.MaxVersion = tls.VersionTLS11, tls.VersionTLS11
	domain := func(name string, habits mx.Behaviour, site sts.Site) world.Domain {
		return world.Domain{Name: name, Signing: dnssec.Unsigned, STS: &site, Hosts: []world.Host{{Label: "mx", Preference: 10, Behaviour: habits}}}
	}
	sound := func(mode, name string) sts.Site { return sts.Site{Policy: sts.Policy(mode, hour, "mx."+name)} }
	modern := mx.Modern(tls.Certificate{})
	tlsa := func(name string, habits mx.Behaviour, usage ca.Usage, site *sts.Site) world.Domain {
		return world.Domain{Name: name, STS: site, Hosts: []world.Host{{
			Label: "mx", Preference: 10, Behaviour: habits, TLSA: []world.TLSA{{Usage: usage, Selector: ca.SPKI, Matching: ca.SHA256}},
		}}}
	}
	unusable := sound("enforce", "dane-sts-unusable.example")
	return []world.Domain{
		domain("sts-malformed.example", modern, sts.Site{Policy: "version: STSv1\nmode: enforce\n"}),
		domain("sts-web-expired.example", modern, sts.Site{
			Policy: sts.Policy("enforce", hour, "mx.sts-web-expired.example"), Cert: ca.ExpiredFor("mta-sts.sts-web-expired.example"),
		}),
		domain("sts-broken-tls.example", broken, sound("enforce", "sts-broken-tls.example")),
		domain("sts-old-tls.example", old, sound("enforce", "sts-old-tls.example")),
		domain("sts-testing-none.example", plain, sound("testing", "sts-testing-none.example")),
		domain("sts-unlisted-test.example", modern, sound("testing", "elsewhere.example")),
		tlsa("dane-broken-tls.example", broken, ca.DANEEE, nil),
		tlsa("dane-sts-unusable.example", modern, ca.PKIXEE, &unusable),
	}
}

// details compares what a datagram says of a domain with what is known of it.
func (r *reporting) details(domain string, d *collected) {
	for _, p := range d.Policies {
		switch policyTypes[p.Type] {
		case "sts":
			if p.Domain != domain {
				r.Errorf("%s: policy-domain %q", domain, p.Domain)
			}
			if p.T == 1 && p.Failures[0].C > 300 {
				break // it could not be had
			}
			site, _ := r.world.Domain(domain)
			for line := range strings.Lines(site.STS.Policy) {
				if line = strings.TrimSpace(line); line != "" && !slices.Contains(p.Text, line) {
					r.Errorf("%s: %q is not in %q", domain, line, p.Text)
				}
			}
			if len(p.MX) != 1 {
				r.Errorf("%s: mx-host is %q", domain, p.MX)
			}
		case "tlsa":
			if domain != "dane-bogus.example" && (len(p.Text) == 0 || len(strings.Fields(p.Text[0])) != 4) {
				r.Errorf("%s: policy-string %q", domain, p.Text)
			}
			if !strings.HasPrefix(p.Domain, "mx") {
				r.Errorf("%s: policy-domain %q is no TLSA base domain", domain, p.Domain)
			}
		}
		for _, f := range p.Failures {
			// RFC 8460 §4.3.1: say more
			resolved := strings.Contains("205 203", fmt.Sprint(f.C))
			if resolved && f.F == "" {
				r.Errorf("%s: %s without a reason", domain, resultTypes[f.C])
			}
			ofTheHost := f.C < 301 || f.C > 303
			dialled := ofTheHost && f.C != 305 && domain != "sts-not-listed.example"
			if dialled != (f.R != "") || dialled != (f.S != "") || ofTheHost != (f.N != "") {
				r.Errorf("%s: from %q to %q %q", domain, f.S, f.N, f.R)
			}
		}
	}
}

// What a domain cannot be asked about, or does not want to know, is not
// reported; nor is anything that was lost before TLS.
func TestWhatIsNotReported(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	r := newReporting(t, c, world.Domains()...)
	for _, to := range []string{"b@all-down.example", "b@null-mx.example", "b@nowhere.example", "b@named.example", "nobody"} {
		r.send("default", "", to)
	}
	r.send("default", "TLS-Required: No\n", "b@dane-wrong.example")
	// A bystander: the one datagram that there is.
	r.send("strict", "", "b@plain.example")
	if d := c.next(); d.D != "plain.example" || d.outline() != "no-policy-found starttls-not-supported failed" {
		t.Errorf("%s of %s", d.outline(), d.D)
	}
	// No reports are wanted about a domain without a record.
	if err := r.world.Add(world.Domain{Name: "silent.example", Hosts: []world.Host{{Down: false}}}); err != nil {
		t.Fatal(err)
	}
	r.send("default", "", "b@silent.example")
	r.send("strict", "", "b@plain.example")
	if d := c.next(); d.D != "plain.example" {
		t.Errorf("%s of %s", d.outline(), d.D)
	}
}

// A collector that is gone, or does not keep up, costs datagrams and nothing
// else; one that comes back is found.
func TestCollectorIsGone(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	r := newReporting(t, c, world.Domains()...)
	r.send("default", "", "b@sts.example")
	c.next()
	r.until(func(s tlsrpt.Stats) bool { return s.Sent == 1 })
	c.conn.Close() // its file stays behind
	for range 3 {
		if code := r.send("default", "", "b@sts.example"); code != "2.0.0" {
			t.Errorf("a delivery without a collector: %s", code)
		}
	}
	r.until(func(s tlsrpt.Stats) bool { return s.Lost[tlsrpt.NoCollector] == 3 })
	if n := r.logged.Count("TLS reports lost"); n != 1 {
		t.Errorf("logged %d times", n)
	}
	// It listens again, and reads nothing.
	if err := os.Remove(c.path); err != nil {
		t.Fatal(err)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: c.path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	before := r.reports.Stats().Sent
	for r.reports.Stats().Lost[tlsrpt.Busy] == 0 && r.reports.Stats().Lost[tlsrpt.QueueFull] == 0 {
		if code := r.send("default", "", "b@sts.example"); code != "2.0.0" {
			t.Fatalf("a delivery with a busy collector: %s", code)
		}
	}
	if s := r.reports.Stats(); s.Sent == before {
		t.Errorf("%+v", s)
	}
	r.logged.Wait(t, "the TLSRPT collector is back")
	// Somewhere else, and nowhere.
	other := newCollector(t)
	r.reports.SetSocket(other.path)
	r.send("default", "", "b@none.example")
	for other.next().D != "none.example" {
	}
	r.reports.SetSocket("")
	r.send("default", "", "b@no-mx.example")
	r.reports.SetSocket(other.path)
	r.send("default", "", "b@plain.example")
	for d := other.next(); d.D != "plain.example"; d = other.next() {
		if d.D == "no-mx.example" {
			t.Error("reported while there was no socket")
		}
	}
}

// until waits for what the reporter counts.
func (r *reporting) until(is func(tlsrpt.Stats) bool) {
	r.Helper()
	for deadline := time.Now().Add(patience); !is(r.reports.Stats()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.Fatalf("%+v", r.reports.Stats())
		}
	}
}

// A warm delivery asks no one: the record, and that there is none, are cached.
func TestTLSReportsAskNobody(t *testing.T) {
	t.Parallel()
	c := newCollector(t)
	r := newReporting(t, c, world.Domains()...)
	asked := func() uint64 { return r.runtime.Totals().DNS.Misses }
	r.send("default", "", "b@sts.example")
	c.next()
	before := asked()
	for range 5 {
		r.send("default", "", "b@sts.example")
		c.next()
	}
	if n := asked(); n != before {
		t.Errorf("%d questions for warm deliveries", n-before)
	}
}
