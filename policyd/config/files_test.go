package config

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes a self-signed certificate and its key.
func certificate(t *testing.T) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestFiles(t *testing.T) {
	certPEM, keyPEM := certificate(t)
	_, otherKey := certificate(t)
	files := map[string][]byte{
		"/cert": certPEM, "/key": keyPEM, "/other": otherKey, "/empty": nil, "/both": append(append([]byte{}, certPEM...), keyPEM...),
		"/bad": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
	}
	reads := make(map[string]int)
	env := someHost()
	env.ReadFile = func(name string) ([]byte, error) {
		reads[name]++
		data, ok := files[name]
		if !ok {
			return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
		}
		return data, nil
	}
	const at = "f:1:"
	tests := []struct{ tls, want string }{
		{"root_ca: /cert, cert: /cert, key: /key", ""},
		{"root_ca: [/cert, /both], cert: /both, key: /both", ""},
		{"root_ca: /missing", `46: transports.default.tls_client.root_ca: "/missing" cannot be read: file does not exist; expected the absolute path of a PEM file of certificates`},
		{"root_ca: [/cert, /key]", `54: transports.default.tls_client.root_ca[1]: "/key" holds no certificate; expected the absolute path of a PEM file of certificates`},
		{"root_ca: /bad", `46: transports.default.tls_client.root_ca: "/bad" holds a malformed certificate, its number 1; expected the absolute path of a PEM file of certificates`},
		{"cert: /missing, key: /key", `43: transports.default.tls_client.cert: "/missing" cannot be read: file does not exist; expected a PEM file with a certificate`},
		{"cert: /cert, key: /missing", `55: transports.default.tls_client.key: "/missing" cannot be read: file does not exist; expected a PEM file with a private key`},
		{"cert: /cert, key: /other", `43: transports.default.tls_client.cert: "/cert" and the key "/other" do not match: `},
		{"cert: /empty, key: /key", `43: transports.default.tls_client.cert: "/empty" and the key "/key" do not match: `},
	}
	for _, tt := range tests {
		_, err := Parse("f", []byte("transports: {default: {tls_client: {"+tt.tls+"}}}"), env)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if tt.want == "" && got != "" || !strings.HasPrefix(got, at+tt.want) && tt.want != "" || strings.Contains(got, "\n") {
			t.Errorf("%s:\ngot  %s\nwant %s%s", tt.tls, got, at, tt.want)
		}
	}
	// An override that gives only one of the two inherits the other, and a
	// file that many name is read once.
	clear(reads)
	text := `transports:
  default:
    tls_client: {cert: /cert, key: /key}
    overrides:
      - {match: a.example, tls_client: {key: /other}}
      - {match: b.example, tls_client: {cert: /both}}
      - {match: c.example, tls_client: {cert: "", key: ""}}
      - {match: d.example, tls_client: {cert: ""}}
`
	_, err := Parse("f", []byte(text), env)
	want := []string{
		`f:5:46: transports.default.overrides[0].tls_client.key: "/cert" and the key "/other" do not match`,
		`f:8:47: transports.default.overrides[3].tls_client.cert: is given without cert; give both or neither`,
	}
	if err == nil {
		t.Fatal("no mistake")
	}
	lines := strings.Split(err.Error(), "\n")
	if len(lines) != 2 || !strings.HasPrefix(lines[0], want[0]) || lines[1] != want[1] {
		t.Errorf("got  %s\nwant %s", err, strings.Join(want, "\n"))
	}
	for name, n := range reads {
		if n != 1 {
			t.Errorf("%s was read %d times", name, n)
		}
	}
}

// The files of the machine are read through the system's environment, within
// bounds.
func TestSystemReadFile(t *testing.T) {
	dir := t.TempDir()
	env := System()
	large, small := filepath.Join(dir, "large"), filepath.Join(dir, "small")
	if err := os.WriteFile(large, make([]byte, maxFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(small, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := env.ReadFile(large); err == nil {
		t.Error("a large file is read whole")
	}
	if data, err := env.ReadFile(small); err != nil || string(data) != "x" {
		t.Errorf("%q, %v", data, err)
	}
}

func TestSystemStateDirectory(t *testing.T) {
	t.Setenv("STATE_DIRECTORY", "/a:/b")
	if got := System().StateDirectory; got != "/a:/b" {
		t.Errorf("got %q", got)
	}
}

// A file that is just being written is no wish for all defaults.
func TestReloadOfAnEmptyFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mxpolicyd.yaml")
	for text, ok := range map[string]bool{"": false, "# all defaults\n": true, "max_deliveries: 7\n": true} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path, System()); err != nil {
			t.Errorf("%q at the start: %v", text, err)
		}
		_, err := Reload(path, System())
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), path+":1:1: the file is empty") {
			t.Errorf("%q reloaded: %v", text, err)
		}
	}
	if _, err := Reload(path+".absent", System()); err == nil {
		t.Error("a file that is not there was reloaded")
	}
}
