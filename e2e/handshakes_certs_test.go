package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shownKeys are the keys of the servers' certificates, as genpkey makes them.
// Go cannot make, or even read, all of them.
var shownKeys = map[string]string{
	"rsa":       "-algorithm RSA -pkeyopt rsa_keygen_bits:2048",
	"rsa1024":   "-algorithm RSA -pkeyopt rsa_keygen_bits:1024",
	"rsa512":    "-algorithm RSA -pkeyopt rsa_keygen_bits:512",
	"rsa-e":     "-algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:4294967297",
	"rsa-pss":   "-algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048",
	"p256":      "-algorithm EC -pkeyopt ec_paramgen_curve:P-256",
	"p384":      "-algorithm EC -pkeyopt ec_paramgen_curve:P-384",
	"p521":      "-algorithm EC -pkeyopt ec_paramgen_curve:P-521",
	"p224":      "-algorithm EC -pkeyopt ec_paramgen_curve:P-224",
	"brainpool": "-algorithm EC -pkeyopt ec_paramgen_curve:brainpoolP256r1",
	"secp256k1": "-algorithm EC -pkeyopt ec_paramgen_curve:secp256k1",
	"explicit":  "-algorithm EC -pkeyopt ec_paramgen_curve:P-256 -pkeyopt ec_param_enc:explicit",
	"ed25519":   "-algorithm ED25519",
	"ed448":     "-algorithm ED448",
}

// shown is a server's certificate.
type shown struct {
	key, cert string // files
	spki      [sha256.Size]byte
}

// tlsa is the record 3 1 1 for it.
func (s shown) tlsa() string { return fmt.Sprintf("3 1 1 %x", s.spki) }

// pin is what an override says of it.
func (s shown) pin() string { return "sha256:" + base64.StdEncoding.EncodeToString(s.spki[:]) }

// fingerprint is the same for Postfix.
func (s shown) fingerprint() string {
	return strings.ToUpper(strings.TrimPrefix(strings.ReplaceAll(fmt.Sprintf("% x", s.spki), " ", ":"), ":"))
}

// issuer makes certificates by OpenSSL.
type issuer struct {
	dir  string
	root string // file
}

func newIssuer(t *testing.T) *issuer {
	t.Helper()
	c := &issuer{dir: folder(t)}
	c.root = filepath.Join(c.dir, "root.pem")
	c.openssl(t, "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -subj /CN=handshakes -keyout root.key -out root.pem")
	return c
}

// openssl runs a command of words without blanks in the issuer's directory.
func (c *issuer) openssl(t *testing.T, command string) []byte {
	t.Helper()
	cmd := exec.Command("openssl", strings.Fields(command)...)
	cmd.Dir = c.dir
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", command, err, &errs)
	}
	return out
}

// issue makes a certificate for a kind of key and some names.
func (c *issuer) issue(t *testing.T, key string, names []string) shown {
	t.Helper()
	s := shown{key: filepath.Join(c.dir, key+".key"), cert: filepath.Join(c.dir, key+".pem")}
	if err := write(filepath.Join(c.dir, key+".ext"), "subjectAltName=DNS:"+strings.Join(names, ",DNS:")+"\n"); err != nil {
		t.Fatal(err)
	}
	digest := "-sha256"
	if strings.HasPrefix(key, "ed") {
		digest = ""
	}
	c.openssl(t, fmt.Sprintf("genpkey %s -out %s.key", shownKeys[key], key))
	c.openssl(t, fmt.Sprintf("req -new -key %s.key -subj /CN=mx %s -out %[1]s.csr", key, digest))
	c.openssl(t, fmt.Sprintf("x509 -req -in %s.csr -CA root.pem -CAkey root.key -set_serial 7 -days 29 -sha256 -extfile %[1]s.ext -out %[1]s.pem", key))
	if err := os.Chmod(s.key, 0o644); err != nil { // Exim reads it as its user
		t.Fatal(err)
	}
	s.spki = sha256.Sum256(c.openssl(t, fmt.Sprintf("pkey -in %s.key -pubout -outform DER", key)))
	return s
}
