package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"path/filepath"
	"testing"
)

func authority(t *testing.T, opts Options) *Authority {
	t.Helper()
	a, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, spec Spec) tls.Certificate {
	t.Helper()
	cert, err := a.Issue(spec)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// shake lets a client that trusts a's root check the certificate for a name.
func shake(t *testing.T, a *Authority, cert tls.Certificate, name string) error {
	t.Helper()
	// Not net.Pipe: there both sides write at once and wait for each other.
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		server, err := listener.Accept()
		if err != nil {
			return
		}
		conn := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}})
		conn.Handshake()
		conn.Close()
	}()
	client, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(client, &tls.Config{RootCAs: a.Pool(), ServerName: name})
	err = conn.Handshake()
	client.Close()
	<-done
	return err
}

func TestWhatAWebPKIClientMakesOfIt(t *testing.T) {
	plain, deep := authority(t, Options{}), authority(t, Options{Intermediates: 2})
	other := authority(t, Options{Name: "other"})
	lapsed := authority(t, Options{Intermediates: 1, NotAfter: ExpiredFor().NotAfter})
	invalid := func(reason x509.InvalidReason) func(error) bool {
		return func(err error) bool {
			var e x509.CertificateInvalidError
			return errors.As(err, &e) && e.Reason == reason
		}
	}
	fine := func(err error) bool { return err == nil }
	unknown := func(err error) bool { var e x509.UnknownAuthorityError; return errors.As(err, &e) }
	wrongName := func(err error) bool { var e x509.HostnameError; return errors.As(err, &e) }
	const mx = "mx.lab.example"
	tests := []struct {
		name string
		by   *Authority
		spec Spec
		want func(error) bool
	}{
		{"sound", plain, For("a.example", mx), fine},
		{"wildcard", plain, For("*.lab.example"), fine},
		{"RSA", plain, Spec{Names: []string{mx}, Key: RSA}, fine},
		{"Ed25519", plain, Spec{Names: []string{mx}, Key: Ed25519}, fine},
		{"expired", plain, ExpiredFor(mx), invalid(x509.Expired)},
		{"not yet valid", plain, NotYetFor(mx), invalid(x509.Expired)},
		{"wrong name", plain, For("other.example"), wrongName},
		{"a name in the subject alone is none (RFC 6125 §6.4.4)", plain, Spec{CommonName: mx}, wrongName},
		{"wrong purpose", plain, Spec{Names: []string{mx}, Usages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}, invalid(x509.IncompatibleUsage)},
		{"self-signed", plain, Spec{Names: []string{mx}, SelfSigned: true}, unknown},
		{"intermediates sent", deep, For(mx), fine},
		{"intermediates missing", deep, Spec{Names: []string{mx}, Chain: LeafOnly}, unknown},
		{"root sent as well", deep, Spec{Names: []string{mx}, Chain: WithRoot}, fine},
		{"chain in disorder", deep, Spec{Names: []string{mx}, Chain: Shuffled}, fine},
		{"strangers in the chain", deep, Spec{Names: []string{mx}, Extra: []*x509.Certificate{other.Root()}}, fine},
		{"the intermediate expired", lapsed, For(mx), invalid(x509.Expired)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := shake(t, tt.by, issue(t, tt.by, tt.spec), mx); !tt.want(err) {
				t.Errorf("the client says: %v", err)
			}
		})
	}
	if err := shake(t, other, issue(t, plain, For(mx)), mx); !unknown(err) {
		t.Errorf("a client of another authority says: %v", err)
	}
}

func TestALeafIsNoIssuer(t *testing.T) {
	a := authority(t, Options{})
	cert, err := IssueUnder(issue(t, a, For("leaf.example")), For("mx.example"))
	if err != nil {
		t.Fatal(err)
	}
	var e x509.UnknownAuthorityError
	if err := shake(t, a, cert, "mx.example"); len(cert.Certificate) != 2 || !errors.As(err, &e) {
		t.Errorf("the client says: %v", err)
	}
	if _, err := IssueUnder(tls.Certificate{}, For("mx.example")); err == nil {
		t.Error("a certificate was signed without a key")
	}
}

func TestChains(t *testing.T) {
	a := authority(t, Options{Intermediates: 2})
	extra := authority(t, Options{}).Root()
	for chain, want := range map[Chain]int{LeafOnly: 2, WithIntermediates: 4, WithRoot: 5, Shuffled: 5} {
		cert := issue(t, a, Spec{Chain: chain, Extra: []*x509.Certificate{extra}})
		if len(cert.Certificate) != want || !bytes.Equal(cert.Certificate[1], extra.Raw) {
			t.Errorf("chain %d: %d certificates", chain, len(cert.Certificate))
		}
		last := cert.Certificate[len(cert.Certificate)-1]
		if chain == WithRoot && !bytes.Equal(last, a.Root().Raw) {
			t.Error("the root is not the last")
		}
		if chain == Shuffled && !bytes.Equal(last, a.Issuer().Raw) {
			t.Error("the issuer should be last in a shuffled chain")
		}
	}
}

func TestKeyTypes(t *testing.T) {
	a := authority(t, Options{})
	if _, ok := issue(t, a, Spec{}).PrivateKey.(*ecdsa.PrivateKey); !ok {
		t.Error("the default is not ECDSA")
	}
	if _, ok := issue(t, a, Spec{Key: RSA}).PrivateKey.(*rsa.PrivateKey); !ok {
		t.Error("not RSA")
	}
	if _, ok := issue(t, a, Spec{Key: Ed25519}).PrivateKey.(ed25519.PrivateKey); !ok {
		t.Error("not Ed25519")
	}
	if _, err := a.Issue(Spec{Key: 7}); err == nil {
		t.Error("a key of an unknown type was made")
	}
}

func TestTLSA(t *testing.T) {
	cert := issue(t, authority(t, Options{}), For("mx.example")).Leaf
	sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
	if got, want := TLSA(DANEEE, SPKI, SHA256, cert).String(), "3 1 1 "+hex.EncodeToString(sum[:]); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if r := TLSA(DANETA, Cert, Full, cert); r.Usage != 2 || !bytes.Equal(r.Data, cert.Raw) {
		t.Errorf("2 0 0 is %v", r)
	}
	if r := TLSA(PKIXEE, Cert, SHA512, cert); len(r.Data) != 64 || r.Matching != 2 {
		t.Errorf("1 0 2 is %v", r)
	}
	r := TLSA(DANEEE, Cert, Full, cert)
	if bytes.Equal(r.Spoiled().Data, r.Data) || !bytes.Equal(r.Data, cert.Raw) {
		t.Error("Spoiled must change its copy and nothing else")
	}
}

func TestFiles(t *testing.T) {
	a := authority(t, Options{Intermediates: 1})
	cert := issue(t, a, For("mx.example"))
	dir := t.TempDir()
	certPath, keyPath, rootPath := filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem"), filepath.Join(dir, "r.pem")
	if err := WritePair(cert, certPath, keyPath); err != nil {
		t.Fatal(err)
	}
	loaded, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		t.Fatal(err)
	}
	if err := shake(t, a, loaded, "mx.example"); err != nil {
		t.Errorf("with files: %v", err)
	}
	if err := a.WriteRoots(rootPath); err != nil {
		t.Fatal(err)
	}
	if !x509.NewCertPool().AppendCertsFromPEM(a.RootsPEM()) {
		t.Error("RootsPEM holds no certificate")
	}
}
