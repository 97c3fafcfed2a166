package sts_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func start(t *testing.T) (*sts.Server, *ca.Authority) {
	t.Helper()
	authority, err := ca.New(ca.Options{Intermediates: 1})
	if err != nil {
		t.Fatal(err)
	}
	s, err := sts.Start(authority, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	return s, authority
}

func publish(t *testing.T, s *sts.Server, domain string, site sts.Site) {
	t.Helper()
	if err := s.Publish(domain, site); err != nil {
		t.Fatal(err)
	}
}

// answer is what a client sees. The error is that of the request or of the
// body, of which 100,000 bytes are read.
type answer struct {
	status int
	kind   string
	body   string
	err    error
}

// get asks for a policy as a sender does, without following redirects.
func get(ctx context.Context, s *sts.Server, roots *x509.CertPool, domain string) answer {
	return visit(ctx, s, roots, "https://mta-sts."+domain+sts.Path)
}

func visit(ctx context.Context, s *sts.Server, roots *x509.CertPool, url string) answer {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Addr().String())
		},
		TLSClientConfig:        &tls.Config{RootCAs: roots},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return answer{err: err}
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer{err: err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 100_000))
	return answer{response.StatusCode, response.Header.Get("Content-Type"), string(body), err}
}

var policy = sts.Policy("enforce", 7*24*time.Hour, "mx.example.test", "*.backup.test")

func TestPolicyText(t *testing.T) {
	const want = "version: STSv1\r\nmode: enforce\r\nmx: mx.example.test\r\nmx: *.backup.test\r\nmax_age: 604800\r\n"
	if policy != want {
		t.Errorf("%q", policy)
	}
}

func TestPoliciesByDomain(t *testing.T) {
	s, authority := start(t)
	publish(t, s, "Example.Test.", sts.Site{Policy: policy})
	publish(t, s, "other.test", sts.Site{Policy: "other"})
	for domain, want := range map[string]string{"example.test": policy, "EXAMPLE.test": policy, "other.test": "other"} {
		if got := get(t.Context(), s, authority.Pool(), domain); got != (answer{200, "text/plain", want, nil}) {
			t.Errorf("%s: %+v", domain, got)
		}
	}
	if got := get(t.Context(), s, authority.Pool(), "nobody.test"); got.err == nil {
		t.Errorf("a domain without a site: %+v", got)
	}
	if got := visit(t.Context(), s, authority.Pool(), "https://mta-sts.example.test/"); got.status != http.StatusNotFound {
		t.Errorf("another path: %+v", got)
	}
	for domain, want := range map[string][2]int{
		"example.test": {3, 3}, "other.test.": {1, 1}, "nobody.test": {0, 1}, "": {4, 5},
	} {
		if got := [2]int{s.Requests(domain), s.Handshakes(domain)}; got != want {
			t.Errorf("%q: %d requests and handshakes, want %d", domain, got, want)
		}
	}
	s.Reset()
	if s.Requests("")+s.Handshakes("") != 0 {
		t.Error("something is counted after a reset")
	}

	publish(t, s, "example.test", sts.Site{Policy: "changed", Status: 203, ContentType: "text/plain; charset=utf-8"})
	if got := get(t.Context(), s, authority.Pool(), "example.test"); got != (answer{203, "text/plain; charset=utf-8", "changed", nil}) {
		t.Errorf("changed: %+v", got)
	}
	s.Withdraw("example.test")
	if got := get(t.Context(), s, authority.Pool(), "example.test"); got.err == nil {
		t.Errorf("withdrawn: %+v", got)
	}
}

// RFC 8461 §3.3: a certificate that is not valid for the policy host means that
// there is no policy.
func TestCertificates(t *testing.T) {
	s, authority := start(t)
	stranger, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for name, site := range map[string]sts.Site{
		"sound.test":    {},
		"wildcard.test": {Cert: ca.For("*.wildcard.test")},
		"wrong.test":    {Cert: ca.For("mta-sts.other.test")},
		"bare.test":     {Cert: ca.For("bare.test")},
		"expired.test":  {Cert: ca.ExpiredFor()},
		"future.test":   {Cert: ca.NotYetFor()},
		"self.test":     {Cert: ca.Spec{SelfSigned: true}},
		"leaf.test":     {Cert: ca.Spec{Chain: ca.LeafOnly}},
		"stranger.test": {Authority: stranger},
	} {
		publish(t, s, name, site)
		got := get(t.Context(), s, authority.Pool(), name)
		var refused *tls.CertificateVerificationError
		sound := name == "sound.test" || name == "wildcard.test"
		if sound != (got.err == nil) || !sound && !errors.As(got.err, &refused) {
			t.Errorf("%s: %v", name, got.err)
		}
		if want := map[bool]int{true: 1}[sound]; s.Requests(name) != want || s.Handshakes(name) != 1 {
			t.Errorf("%s: %d requests, %d handshakes", name, s.Requests(name), s.Handshakes(name))
		}
	}
}

func TestFaults(t *testing.T) {
	s, authority := start(t)
	for fault, check := range map[sts.Fault]func(answer) bool{
		sts.Normal:      func(a answer) bool { return a.status == 200 && a.body == policy },
		sts.NoHandshake: func(a answer) bool { return a.err != nil },
		sts.Redirect:    func(a answer) bool { return a.status == 302 },
		sts.NotFound:    func(a answer) bool { return a.status == 404 && a.body == policy },
		sts.ServerError: func(a answer) bool { return a.status == 500 },
		sts.CutBody:     func(a answer) bool { return errors.Is(a.err, io.ErrUnexpectedEOF) && strings.HasPrefix(policy, a.body) },
		sts.CutHeader:   func(a answer) bool { return a.err != nil },
		sts.Oversize:    func(a answer) bool { return a.err == nil && len(a.body) > 64<<10 && strings.HasPrefix(a.body, policy) },
		sts.Endless:     func(a answer) bool { return a.err == nil && len(a.body) == 100_000 },
		sts.HugeHeader:  func(a answer) bool { return a.err != nil },
		sts.HTML:        func(a answer) bool { return a.kind == "text/html" && a.body == policy },
		sts.Gzip:        func(a answer) bool { return a.status == 200 && strings.HasPrefix(a.body, "\x1f\x8b") },
		sts.NotHTTP:     func(a answer) bool { return a.err != nil },
	} {
		publish(t, s, "example.test", sts.Site{Policy: policy, Fault: fault})
		if got := get(t.Context(), s, authority.Pool(), "example.test"); !check(got) {
			t.Errorf("fault %d: %.300v", fault, got)
		}
	}
	publish(t, s, "example.test", sts.Site{Policy: policy, Fault: sts.Redirect})
	if got := visit(t.Context(), s, authority.Pool(), "https://mta-sts.example.test/elsewhere/mta-sts.txt"); got.body != policy {
		t.Errorf("behind the redirect: %+v", got)
	}
}

// A slow server ends when its client gives up, or with the test.
func TestFaultsThatWait(t *testing.T) {
	for _, fault := range []sts.Fault{sts.Silent, sts.HalfBody} {
		s, authority := start(t)
		publish(t, s, "example.test", sts.Site{Policy: policy, Fault: fault})
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan answer), make(chan answer)
		go func() { first <- get(ctx, s, authority.Pool(), "example.test") }()
		for s.Requests("example.test") < 1 {
			time.Sleep(time.Millisecond)
		}
		cancel()
		if got := <-first; got.err == nil {
			t.Errorf("fault %d, the client left: %+v", fault, got)
		}
		go func() { second <- get(t.Context(), s, authority.Pool(), "example.test") }()
		for s.Requests("example.test") < 2 {
			time.Sleep(time.Millisecond)
		}
		s.Stop()
		if got := <-second; got.err == nil {
			t.Errorf("fault %d, the server stopped: %+v", fault, got)
		}
	}
}

func TestHold(t *testing.T) {
	s, authority := start(t)
	publish(t, s, "example.test", sts.Site{Policy: policy})
	publish(t, s, "other.test", sts.Site{Policy: policy})
	release := s.Hold("example.test")
	held := make(chan answer)
	go func() { held <- get(t.Context(), s, authority.Pool(), "example.test") }()
	for s.Requests("example.test") == 0 {
		time.Sleep(time.Millisecond)
	}
	if got := get(t.Context(), s, authority.Pool(), "other.test"); got.body != policy {
		t.Errorf("another domain is held too: %+v", got)
	}
	select {
	case got := <-held:
		t.Errorf("not held: %+v", got)
	default:
	}
	release()
	release()
	if got := <-held; got.body != policy {
		t.Errorf("released: %+v", got)
	}
	if got := get(t.Context(), s, authority.Pool(), "example.test"); got.body != policy {
		t.Errorf("after the release: %+v", got)
	}
}

func TestStartFails(t *testing.T) {
	s, authority := start(t)
	if _, err := sts.Start(authority, s.Addr().String()); err == nil {
		t.Error("two servers at one address")
	}
	if _, err := sts.Start(nil, ""); err == nil {
		t.Error("a server without an authority")
	}
	s.Stop()
	s.Stop()
	if got := get(t.Context(), s, authority.Pool(), "example.test"); got.err == nil {
		t.Error("a stopped server answers")
	}
}
