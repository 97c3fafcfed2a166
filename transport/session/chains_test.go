package session

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// What was verified once holds for that name, that chain, and while all of
// its certificates are valid.
func TestVouched(t *testing.T) {
	now := time.Now().Truncate(time.Second)
	authority, err := ca.New(ca.Options{Intermediates: 1, NotBefore: now.Add(-2 * time.Hour), NotAfter: now.Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	show := func(spec ca.Spec) []*x509.Certificate {
		t.Helper()
		cert, err := authority.Issue(spec)
		if err != nil {
			t.Fatal(err)
		}
		chain := []*x509.Certificate{cert.Leaf}
		for _, raw := range cert.Certificate[1:] {
			parsed, err := x509.ParseCertificate(raw)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, parsed)
		}
		return chain
	}
	client, err := NewTLS(TLSConfig{}, os.ReadFile)
	if err != nil {
		t.Fatal(err)
	}
	client.roots = authority.Pool()
	prove := func(host string, chain []*x509.Certificate, now time.Time) string {
		v := verdict.Verdict{Host: host}
		return client.proofOf(tls.ConnectionState{PeerCertificates: chain}, &v, now).WebPKI
	}
	chain := show(ca.Spec{Names: []string{"mx.example", "mx2.example"}, NotBefore: now.Add(-3 * time.Hour)})
	if got := prove("mx.example", chain, now.Add(2*time.Hour)); got != "" {
		t.Error("verified by an intermediate that is not valid any more")
	}
	if got := prove("mx.example", chain, now); got != "mx.example" {
		t.Fatal("a sound chain is not verified")
	}
	remembered := func(host string, chain []*x509.Certificate, at time.Time) bool {
		return client.chains.has(chainKeyOf(host, chain), at)
	}
	for name, tt := range map[string]struct {
		host  string
		chain []*x509.Certificate
		at    time.Time
		want  bool
	}{
		"again":                       {"mx.example", chain, now, true},
		"the intermediate's last":     {"mx.example", chain, now.Add(time.Hour), true},
		"the intermediate is over":    {"mx.example", chain, now.Add(time.Hour + time.Second), false},
		"the intermediate's first":    {"mx.example", chain, now.Add(-2 * time.Hour), true},
		"before the intermediate":     {"mx.example", chain, now.Add(-2*time.Hour - time.Second), false},
		"another name":                {"mx2.example", chain, now, false},
		"without the intermediate":    {"mx.example", chain[:1], now, false},
		"another chain for that name": {"mx.example", show(ca.For("mx.example")), now, false},
	} {
		if got := remembered(tt.host, tt.chain, tt.at); got != tt.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	// What is remembered and what is found out anew must agree.
	for _, at := range []time.Time{now, now.Add(2 * time.Hour), now.Add(-4 * time.Hour)} {
		fresh, _ := NewTLS(TLSConfig{}, os.ReadFile)
		fresh.roots = client.roots
		v := verdict.Verdict{Host: "mx.example"}
		if got, want := prove("mx.example", chain, at), fresh.proofOf(tls.ConnectionState{PeerCertificates: chain}, &v, at).WebPKI; got != want {
			t.Errorf("%v: remembered %q, anew %q", at.Sub(now), got, want)
		}
	}
	// A chain that failed is looked at again.
	strange := show(ca.For("other.example"))
	if prove("mx.example", strange, now) != "" || remembered("mx.example", strange, now) {
		t.Error("a certificate for another name is remembered")
	}
	for range maxChains + 10 {
		client.chains.add(chainKey{byte(len(client.chains.chains)), byte(len(client.chains.chains) >> 8)}, chain)
	}
	if n := len(client.chains.chains); n > maxChains {
		t.Errorf("%d chains are remembered", n)
	}
}
