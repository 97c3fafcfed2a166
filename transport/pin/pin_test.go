package pin_test

import (
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/pin"
)

func TestParse(t *testing.T) {
	const good = "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="
	p, err := pin.Parse(good)
	if err != nil || p.String() != good {
		t.Fatalf("%v, %v", p, err)
	}
	if got := p.Hex(); got != "E3:B0:C4:42:98:FC:1C:14:9A:FB:F4:C8:99:6F:B9:24:27:AE:41:E4:64:9B:93:4C:A4:95:99:1B:78:52:B8:55" {
		t.Errorf("for Postfix: %s", got)
	}
	for _, bad := range []string{
		"", "sha256:", "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU", "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"sha1:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
		"sha256:47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU=", "sha256:47DEQpj8HBSa", "sha256:" + strings.Repeat("A", 43) + "=",
		// bits after the end
		"sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFV=",
		"sha256: 47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=", good + "\n", good + good[7:],
	} {
		if p, err := pin.Parse(bad); !errors.Is(err, pin.ErrSyntax) || p != (pin.Pin{}) {
			t.Errorf("%q: %v, %v", bad, p, err)
		}
	}
}

func TestMatch(t *testing.T) {
	const host = "mx.example.org"
	authority, err := ca.New(ca.Options{Intermediates: 1})
	if err != nil {
		t.Fatal(err)
	}
	issue := func(spec ca.Spec) []*x509.Certificate {
		cert, err := authority.Issue(spec)
		if err != nil {
			t.Fatal(err)
		}
		var chain []*x509.Certificate
		for _, der := range cert.Certificate {
			c, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, c)
		}
		return chain
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.Root())
	now := time.Now()
	// verified does what session does with the system's roots.
	verified := func(chain []*x509.Certificate) [][]*x509.Certificate {
		between := x509.NewCertPool()
		for _, c := range chain[1:] {
			between.AddCert(c)
		}
		paths, _ := chain[0].Verify(x509.VerifyOptions{DNSName: host, Roots: roots, Intermediates: between, CurrentTime: now})
		return paths
	}
	good, other := issue(ca.For(host)), issue(ca.For("other.example"))
	expired := issue(ca.Spec{Names: []string{host}, NotBefore: now.Add(-48 * time.Hour), NotAfter: now.Add(-24 * time.Hour)})
	if len(good) < 2 {
		t.Fatalf("a chain of %d", len(good))
	}
	root, issuer := pin.Of(authority.Root()), pin.Of(good[1])
	for _, tt := range []struct {
		name  string
		chain []*x509.Certificate
		pins  []pin.Pin
		want  pin.Pin
		err   error
	}{
		{"the server's key", good, []pin.Pin{pin.Of(good[0])}, pin.Of(good[0]), nil},
		{"the server's key among others", good, []pin.Pin{root, {1}, pin.Of(good[0])}, pin.Of(good[0]), nil},
		{"the server's key, without its issuers", good[:1], []pin.Pin{pin.Of(good[0])}, pin.Of(good[0]), nil},
		{"the server's key, for another name", other, []pin.Pin{pin.Of(other[0])}, pin.Of(other[0]), nil},
		{"the server's key, expired", expired, []pin.Pin{pin.Of(expired[0])}, pin.Of(expired[0]), nil},
		{"a CA that the server presents", good, []pin.Pin{issuer}, issuer, nil},
		{"a CA of the system's, which it does not present", good, []pin.Pin{root}, root, nil},
		{"a CA of the system's, for another name", other, []pin.Pin{root}, pin.Pin{}, pin.ErrNoMatch},
		{"a presented CA, for another name", other, []pin.Pin{issuer}, pin.Pin{}, dane.ErrName},
		{"a presented CA, expired", expired, []pin.Pin{issuer}, pin.Pin{}, dane.ErrPath},
		{"another key", good, []pin.Pin{{1}, {2}}, pin.Pin{}, pin.ErrNoMatch},
		{"a CA beside the path", append(other[:1:1], good[1:]...), []pin.Pin{pin.Of(good[0])}, pin.Pin{}, pin.ErrNoMatch},
		{"no certificate", nil, []pin.Pin{issuer}, pin.Pin{}, dane.ErrNoCertificate},
	} {
		t.Run(tt.name, func(t *testing.T) {
			set := pin.NewSet(tt.pins...)
			var paths [][]*x509.Certificate
			if len(tt.chain) > 0 {
				paths = verified(tt.chain)
			}
			got, err := set.Match(tt.chain, paths, []string{host}, now)
			if got != tt.want || !errors.Is(err, tt.err) || (err == nil) != (tt.err == nil) {
				t.Fatalf("%v, %v; want %v, %v", got, err, tt.want, tt.err)
			}
			if set.Has(got) != (err == nil) {
				t.Errorf("the set has it: %t", set.Has(got))
			}
			if errors.Is(err, pin.ErrNoMatch) && !strings.Contains(err.Error(), pin.Of(tt.chain[0]).String()) {
				t.Errorf("the reason does not say which key there is: %v", err)
			}
		})
	}
	if (pin.Set{}).Has(pin.Pin{}) || pin.NewSet(pin.Pin{}).Has(pin.Pin{}) {
		t.Error("no pin is one of a set")
	}
	if s := pin.NewSet(root, issuer, root); s.Empty() || len(s.Pins()) != 2 || !(pin.Set{}).Empty() {
		t.Errorf("%v", s.Pins())
	}
}
