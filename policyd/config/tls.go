package config

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/pin"
)

// tlsClient reads a tls_client block.
func (d *decoder) tlsClient(v value, c *transport.TLSClient) {
	before := d.count
	var versions []uint16
	seen := v.block(d.tlsKeys(c, &versions)...)
	if at, given := seen["protocols"]; given && len(versions) > 0 {
		c.MinVersion, c.MaxVersion, c.FixedVersions = versions[0], versions[len(versions)-1], true
		if c.MinVersion > c.MaxVersion {
			at.wrong("the lowest version is above the highest; expected %q", protocolName(c.MaxVersion)+" "+protocolName(c.MinVersion))
		}
	} else if given && d.count == before {
		at.wrong("has no version; expected \"tls1.2 tls1.3\"")
	}
	cert, hasCert := seen["cert"]
	key, hasKey := seen["key"]
	if d.count > before || !hasCert && !hasKey {
		return
	}
	if !hasCert {
		cert = key
	}
	if !hasKey {
		key = cert
	}
	d.keyPair(cert, key, c)
}

// tlsKeys is the schema of tls_client.
func (d *decoder) tlsKeys(c *transport.TLSClient, versions *[]uint16) []key {
	return []key{
		{"protocols", setWords(versions, 2, protocol())},
		{"legacy", set(&c.Legacy, boolean())},
		{"ciphers", setWords(&c.Ciphers, 50, cipher())},
		{"curves", setWords(&c.Curves, 20, curve())},
		{"root_ca", setList(&c.RootCA, 20, d.rootCA())},
		{"cert", set(&c.Cert, optional(absolute()))},
		{"key", set(&c.Key, optional(absolute()))},
	}
}

// protocol is the form of a TLS version.
func protocol() format[uint16] {
	return oneOf(choice[uint16]{"tls1.0", tls.VersionTLS10}, choice[uint16]{"tls1.1", tls.VersionTLS11},
		choice[uint16]{"tls1.2", tls.VersionTLS12}, choice[uint16]{"tls1.3", tls.VersionTLS13})
}

// protocolName writes a TLS version as the configuration does.
func protocolName(v uint16) string { return "tls1." + strconv.Itoa(int(v)-tls.VersionTLS10) }

// pinned is the form of a pin.
func pinned() format[pin.Pin] {
	const want = "sha256: and the base64 of the key's digest"
	return format[pin.Pin]{want, func(s string) (pin.Pin, error) {
		p, err := pin.Parse(s)
		switch {
		case err == nil:
			return p, nil
		case !strings.HasPrefix(s, "sha256:"):
			return p, hintError{quote(s) + " does not begin with sha256:", want}
		}
		return p, fmt.Errorf("%s is not the base64 of 32 bytes, 44 characters", quote(strings.TrimPrefix(s, "sha256:")))
	}}
}

// pins reads the keys that an override pins.
func pins(into *[]pin.Pin) func(value) {
	return func(v value) {
		form := pinned()
		if v.node.Kind == yaml.SequenceNode && len(v.node.Content) == 0 {
			v.wrong("names no key; expected %s, or no pin", form.want)
			return
		}
		setList(into, 20, form)(v)
	}
}

// curve is the form of a key exchange.
func curve() format[uint16] {
	return oneOf(choice[uint16]{"p256", uint16(tls.CurveP256)}, choice[uint16]{"p384", uint16(tls.CurveP384)},
		choice[uint16]{"p521", uint16(tls.CurveP521)}, choice[uint16]{"X25519", uint16(tls.X25519)},
		choice[uint16]{"X25519MLKEM768", uint16(tls.X25519MLKEM768)},
		choice[uint16]{"SecP256r1MLKEM768", uint16(tls.SecP256r1MLKEM768)},
		choice[uint16]{"SecP384r1MLKEM1024", uint16(tls.SecP384r1MLKEM1024)})
}

// cipher is the form of a cipher suite: its IANA name, or maddy's spelling of
// it without the prefix and with hyphens ("ECDHE-RSA-WITH-AES128-GCM-SHA256").
func cipher() format[uint16] {
	const want = "a TLS 1.2 cipher suite such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"
	return format[uint16]{want, func(s string) (uint16, error) {
		var all []string
		for _, suite := range append(tls.CipherSuites(), tls.InsecureCipherSuites()...) {
			forTLS13 := len(suite.SupportedVersions) == 1 && suite.SupportedVersions[0] == tls.VersionTLS13
			same := bareCipher(suite.Name) == bareCipher(s) || bareCipher(suite.Name) == bareCipher(s)+"SHA256" && strings.HasSuffix(s, "POLY1305")
			switch {
			case same && forTLS13:
				return 0, hintError{quote(s) + " belongs to TLS 1.3, whose suites cannot be chosen", "nothing (leave it out)"}
			case same:
				return suite.ID, nil
			case !forTLS13:
				all = append(all, suite.Name)
			}
		}
		wrong := "unknown cipher suite " + quote(s)
		if near := nearest(s, all); near != "" {
			return 0, hintError{wrong, near}
		}
		return 0, errors.New(wrong)
	}}
}

func bareCipher(s string) string {
	s = strings.TrimPrefix(folded(s), "tls_")
	return strings.ToUpper(strings.ReplaceAll(s, "_", ""))
}

// fileContent is what ReadFile said about a file.
type fileContent struct {
	data []byte
	err  error
}

// readFile reads a file that the configuration names, once. There is nothing
// to read when the Environment leaves files unchecked.
func (d *decoder) readFile(name string) (data []byte, checked bool, err error) {
	return d.readBy(d.env.ReadFile, name)
}

// readBy is readFile by one of the Environment's ways to read.
func (d *decoder) readBy(read func(name string) ([]byte, error), name string) (data []byte, checked bool, err error) {
	if read == nil {
		return nil, false, nil
	}
	got, done := d.files[name]
	if !done {
		got.data, got.err = read(name)
		if d.files == nil {
			d.files = make(map[string]fileContent)
		}
		d.files[name] = got
	}
	if got.err != nil {
		cause := got.err
		if p, ok := errors.AsType[*fs.PathError](cause); ok {
			cause = p.Err
		}
		return nil, true, fmt.Errorf("%s cannot be read: %s", quote(name), printable(cause.Error()))
	}
	return got.data, true, nil
}

// contents gives the files that were read.
func (d *decoder) contents() map[string][]byte {
	if d.env.ReadFile == nil {
		return nil
	}
	all := map[string][]byte{}
	for name, f := range d.files {
		all[name] = f.data
	}
	return all
}

// rootCA is the form of a file of trusted roots.
func (d *decoder) rootCA() format[string] {
	path := absolute()
	return format[string]{"the absolute path of a PEM file of certificates", func(s string) (string, error) {
		name, err := path.read(s)
		if err != nil {
			return "", err
		}
		data, checked, err := d.readFile(name)
		if err != nil || !checked {
			return name, err
		}
		count := 0
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if block.Type != "CERTIFICATE" {
				continue
			}
			if _, err := x509.ParseCertificate(block.Bytes); err != nil {
				return "", fmt.Errorf("%s holds a malformed certificate, its number %d", quote(s), count+1)
			}
			count++
		}
		if count == 0 {
			return "", fmt.Errorf("%s holds no certificate", quote(s))
		}
		return name, nil
	}}
}

// keyPair checks the client certificate and its key, which come together. An
// override may give one of them and inherit the other.
func (d *decoder) keyPair(cert, key value, c *transport.TLSClient) {
	switch {
	case c.Cert == "" && c.Key == "":
		return
	case c.Cert == "":
		key.wrong("is given without cert; give both or neither")
		return
	case c.Key == "":
		cert.wrong("is given without key; give both or neither")
		return
	}
	certPEM, checked, err := d.readFile(c.Cert)
	if err != nil {
		cert.wrong("%s; expected a PEM file with a certificate", err)
	}
	keyPEM, _, errKey := d.readFile(c.Key)
	if errKey != nil {
		key.wrong("%s; expected a PEM file with a private key", errKey)
	}
	if !checked || err != nil || errKey != nil {
		return
	}
	if _, err := tls.X509KeyPair(certPEM, keyPEM); err != nil {
		cert.wrong("%s and the key %s do not match: %s; expected PEM files of one certificate and its key",
			quote(c.Cert), quote(c.Key), printable(err.Error()))
	}
}
