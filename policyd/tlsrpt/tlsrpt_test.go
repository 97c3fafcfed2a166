package tlsrpt

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// Which TXT records ask for reports (RFC 8460 §3).
func TestFindRecord(t *testing.T) {
	const good = "v=TLSRPTv1; rua=mailto:r@example.org"
	for _, tt := range []struct {
		texts []string
		want  string
	}{
		{nil, ""},
		{[]string{good}, good},
		{[]string{"v=spf1 -all", good, ""}, good},
		{[]string{"v=TLSRPTv1;rua=https://example.org/,mailto:r@example.org"}, "v=TLSRPTv1;rua=https://example.org/,mailto:r@example.org"},
		{[]string{"v=TLSRPTv1 ; x=y ;rua = mailto:r@example.org ;"}, "v=TLSRPTv1 ; x=y ;rua = mailto:r@example.org ;"},
		{[]string{good, good}, ""}, // more than one is none
		{[]string{"v=TLSRPTv1"}, ""},
		{[]string{"v=TLSRPTv1;"}, ""},
		{[]string{"v=TLSRPTv1; rua="}, ""},
		{[]string{"v=TLSRPTv2; rua=mailto:r@example.org"}, ""},
		{[]string{"V=tlsrptv1; rua=mailto:r@example.org"}, ""},
		{[]string{" v=TLSRPTv1; rua=mailto:r@example.org"}, ""},
	} {
		if got, ok := findRecord(tt.texts); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%q: %q, %v; want %q", tt.texts, got, ok, tt.want)
		}
	}
}

func FuzzFindRecord(f *testing.F) {
	f.Add("v=TLSRPTv1; rua=mailto:r@example.org", "v=spf1")
	f.Add("v=TLSRPTv1;;rua=x", "")
	f.Fuzz(func(t *testing.T, a, b string) {
		record, ok := findRecord([]string{a, b})
		if ok != (record != "") || ok && (record != a && record != b || !strings.HasPrefix(record, "v=TLSRPTv1")) {
			t.Errorf("%q, %v", record, ok)
		}
	})
}

const host = "mx.example.org"

// attempt is one that reached the host.
func attempt(facts verdict.Facts, tls uint16, failed *verdict.Failure) transport.Attempt {
	return transport.Attempt{
		Facts: &facts, Verdict: &verdict.Verdict{Host: host}, Proof: verdict.Proof{TLS: tls}, Failure: failed,
		Addr: netip.MustParseAddr("192.0.2.1"), Local: netip.MustParseAddr("2001:db8::1"),
	}
}

func event(attempts ...transport.Attempt) *transport.Event {
	return &transport.Event{Destination: route.Destination{Domain: "example.org"}, Attempts: attempts}
}

func fails(rule verdict.Rule, cause verdict.Cause) *verdict.Failure {
	return &verdict.Failure{Rule: rule, Cause: cause, Text: "because\nof this"}
}

// outline writes policies as JSON, whose keys and numbers are the collector's.
func outline(t *testing.T, policies []policy) string {
	t.Helper()
	text, err := json.Marshal(policies)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestReport(t *testing.T) {
	digest := []byte(strings.Repeat("\xab", 32))
	tlsa := verdict.TLSA{State: verdict.TLSAPresent, Base: "tlsa." + host, Set: dane.NewSet([]dane.Record{
		{Usage: dane.DANEEE, Selector: dane.SPKI, Matching: dane.SHA256, Data: digest},
		{Usage: dane.PKIXEE, Selector: dane.SPKI, Matching: dane.SHA256, Data: digest[:2]},
	})}
	sts := verdict.STS{State: verdict.STSFound, Policy: mtasts.Policy{Mode: mtasts.ModeTesting, MaxAge: 1e9, MX: []string{host, "*.example.org"}}}
	hex := strings.Repeat("ab", 32)
	const (
		none     = `{"policy-type":9,"policy-domain":"example.org"`
		where    = `"s":"2001:db8::1","n":"mx.example.org","r":"192.0.2.1"`
		because  = `,"f":"because of this"`
		passed   = `,"t":0,"f":0}`
		stsIs    = `{"policy-type":2,"policy-domain":"example.org","policy-string":["version: STSv1","mode: testing","mx: mx.example.org","mx: *.example.org","max_age: 1"],"mx-host":["mx.example.org","*.example.org"]`
		details  = `,"failure-details":[`
		oneFails = `],"t":1,"f":1}`
	)
	tlsaIs := `{"policy-type":1,"policy-domain":"tlsa.mx.example.org","policy-string":["3 1 1 ` + hex + `","1 1 1 abab"]`
	lost := attempt(verdict.Facts{}, 0, nil)
	lost.TLSErr = errors.New("TLS handshake: EOF")
	hellos, reused := lost, lost
	hellos.TLSErr = fmt.Errorf("TLS handshake: %w", handshake.Error{
		{Err: io.EOF}, {Offer: handshake.Offer{Hello: handshake.Hello{Step: handshake.Classical}}, Err: io.EOF},
	})
	reused.Reused = true
	tested := attempt(verdict.Facts{STS: sts}, 0x304, nil)
	tested.TestingFailure = fails(verdict.MTASTS, verdict.CertificateUntrusted)
	testedPlain := attempt(verdict.Facts{STS: sts}, 0, nil)
	testedPlain.TestingFailure = fails(verdict.MTASTS, verdict.NoSTARTTLS)
	testedLost := testedPlain
	testedLost.TLSErr = lost.TLSErr
	notDialled := attempt(verdict.Facts{}, 0, fails(verdict.RequireTLS, verdict.MXLevelTooLow))
	ok := func(f verdict.Facts) transport.Attempt { return attempt(f, 0x304, nil) }
	for _, tt := range []struct {
		name  string
		event *transport.Event
		want  string
	}{
		{"no policy", event(ok(verdict.Facts{})), `[` + none + passed + `]`},
		{"no policy, no TLS", event(attempt(verdict.Facts{}, 0, nil)), `[` + none + details + `{"c":201,` + where + `}` + oneFails + `]`},
		{"over a connection that carried a message before", event(reused), `null`},
		{"no policy, no hello came to anything", event(hellos), `[` + none + details + `{"c":205,` + where + `,"f":"the server ended the connection in the TLS handshake; 2 hellos: full, classical"}` + oneFails + `]`},
		{"no policy, TLS breaks", event(lost), `[` + none + details + `{"c":205,` + where + `,"f":"TLS handshake: EOF"}` + oneFails + `]`},
		{"local_policy asks for TLS", event(attempt(verdict.Facts{}, 0, fails(verdict.LocalPolicy, verdict.HandshakeFailed))),
			`[` + none + details + `{"c":205,` + where + because + `}` + oneFails + `]`},
		{"local_policy asks for a certificate", event(attempt(verdict.Facts{}, 0x304, fails(verdict.LocalPolicy, verdict.CertificateUntrusted))), `[` + none + passed + `]`},
		{"REQUIRETLS, nothing vouches for the host", event(notDialled), `null`},
		{"REQUIRETLS not offered", event(attempt(verdict.Facts{TLSA: tlsa}, 0x304, fails(verdict.RequireTLS, verdict.NoExtension))), `[` + tlsaIs + passed + `]`},
		{"DANE", event(ok(verdict.Facts{TLSA: tlsa, STS: sts})), `[` + tlsaIs + passed + `]`},
		{"DANE, host not in the MTA-STS policy", event(attempt(verdict.Facts{TLSA: tlsa, STS: sts}, 0, fails(verdict.MTASTS, verdict.NotListed))),
			`[` + stsIs + details + `{"c":205,` + where + `,"f":"mx-not-listed"}` + oneFails + `]`},
		{"STS testing", event(tested), `[` + stsIs + details + `{"c":203,` + where + because + `}` + oneFails + `]`},
		{"STS testing, no TLS", event(testedPlain), `[` + stsIs + details + `{"c":201,` + where + `}` + oneFails + `]`},
		{"STS testing, TLS breaks", event(testedLost), `[` + stsIs + details + `{"c":205,` + where + `,"f":"TLS handshake: EOF"}` + oneFails + `]`},
		{"one fails, the next passes, one policy", event(testedPlain, ok(verdict.Facts{STS: sts})),
			`[` + stsIs + details + `{"c":201,` + where + `}],"t":1,"f":0}]`},
	} {
		if got := outline(t, report(tt.event)); got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
	}
	var many []transport.Attempt
	for range 100 {
		many = append(many, attempt(verdict.Facts{}, 0, nil))
	}
	if p := report(event(many...)); len(p) != 1 || len(p[0].Failures) != maxFailures || p[0].Count != maxFailures {
		t.Errorf("%d attempts: %d failures", len(many), len(p[0].Failures))
	}
}

// Every cause has a result type, and every result type a name.
func TestResults(t *testing.T) {
	for c := verdict.NoCause; c <= verdict.NoExtension; c++ {
		if name := resultOf(c).String(); name != c.String() && name != "validation-failure" {
			t.Errorf("%v is reported as %s", c, name)
		}
	}
	for f := mtasts.FailureNone; int(f) < mtasts.Failures; f++ {
		r, ok := fetchResult(f)
		if ok && r.String() != f.String() && f != mtasts.FailureRecord {
			t.Errorf("%v is reported as %v", f, r)
		}
	}
	for l := range DropReasons + 1 {
		if (l.String() == "unknown") != (l == DropReasons) {
			t.Errorf("loss %d: %s", l, l)
		}
	}
}

// A delivery never waits for its report.
func TestQueueIsBounded(t *testing.T) {
	r := New("/nowhere", slog.New(slog.DiscardHandler))
	observe := r.Observer(nil) // nothing works yet
	for range queued + 5 {
		observe(event(attempt(verdict.Facts{}, 0, notReported())))
	}
	if s := r.Stats(); s.Lost[QueueFull] != 5 {
		t.Errorf("%+v", s)
	}
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	r.Close()
	if s := r.Stats(); s.Sent != 0 || s.Lost != [DropReasons]uint64{QueueFull: 5} {
		t.Errorf("%+v", s)
	}
}

// notReported is a failure of which there is nothing to report.
func notReported() *verdict.Failure { return fails(verdict.RequireTLS, verdict.MXLevelTooLow) }

// Why a policy could not be had is said in the same words for all that went
// alike.
func TestFetchReasons(t *testing.T) {
	dial := func(port int) error {
		return &url.Error{Op: "Get", URL: "https://mta-sts.example.org", Err: &net.OpError{
			Op: "dial", Net: "tcp", Source: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port}, Addr: &net.TCPAddr{IP: net.IPv4(192, 0, 2, 2), Port: 443},
			Err: errors.New("connection refused"),
		}}
	}
	expired := x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired, Detail: "current time 2026-01-02T03:04:05Z is after 2026-01-01T00:00:00Z"}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{dial(30001), "dial: connection refused"}, {dial(30002), "dial: connection refused"},
		{expired, "the certificate has expired, or is not valid yet"},
		{&resolver.Error{Name: "mta-sts.example.org.", Kind: resolver.ServFail, Server: "127.0.0.1:53"}, "look-up failed: SERVFAIL"},
		{errors.New("status 404"), "status 404"},
	} {
		if got := fetchReason(&mtasts.Error{Failure: mtasts.FailureFetch, Err: tt.err}); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
