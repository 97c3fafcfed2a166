package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// title names a server on the page.
func (s tlsServer) title() string { return string(s.by) + ", " + s.name }

// serveOpenSSL starts the servers whose TLS is OpenSSL's.
func (h *handshakes) serveOpenSSL(t *testing.T) {
	t.Helper()
	for i, row := range h.rows {
		var command []string
		switch row.by {
		case openSSL:
			command = []string{"openssl"}
		case openSSL35, openSSL11:
			command = []string{filepath.Join(filepath.Dir(eximCache()), strings.ToLower(strings.ReplaceAll(string(row.by), " ", "")), "openssl")}
			if _, err := os.Stat(command[0]); err != nil {
				t.Fatalf("%v: run \"sh e2e/needs.sh handshakes\", which unpacks it there", err)
			}
		default:
			continue
		}
		cert := h.certs[row.key]
		config := strings.NewReplacer("CERT", cert.cert, "KEY", cert.key).Replace(row.config)
		command = append(command, "-cert", cert.cert, "-key", cert.key)
		if strings.Contains(config, "-nocert") {
			command = command[:1]
		}
		terminate(t, h.address[i], append(command, strings.Fields(config)...))
	}
}

// servePostfix starts one Postfix with a smtpd for each row.
func (h *handshakes) servePostfix(t *testing.T) {
	t.Helper()
	var first string
	var master strings.Builder
	for i, row := range h.rows {
		if row.by != postfixes {
			continue
		}
		cert := h.certs[row.key]
		fmt.Fprintf(&master, "%s inet n - n - - smtpd\n -o smtpd_tls_security_level=may -o smtpd_tls_cert_file=%s -o smtpd_tls_key_file=%s\n", h.address[i], cert.cert, cert.key)
		for option := range strings.FieldsSeq(row.config) {
			fmt.Fprintf(&master, " -o %s\n", option)
		}
		first = h.address[i]
	}
	if first == "" {
		return
	}
	address, err := h.host(h.newDomain("handshakes"))
	h.must(t, err)
	p, err := newPostfix(filepath.Join(folder(t), "receiver"), "receiver", address, "\ndefault_transport = discard\n", master.String())
	h.must(t, err)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Postfix:\n%s", tail(p.log))
		}
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
}

// serveExim starts one Exim, which looks up by its own address what GnuTLS is
// to do.
func (h *handshakes) serveExim(t *testing.T) {
	t.Helper()
	var addresses, priorities []string
	for i, row := range h.rows {
		if row.by == gnuTLS {
			ip, _, _ := strings.Cut(h.address[i], ":")
			addresses = append(addresses, ip)
			priorities = append(priorities, ip+": "+row.config)
		}
	}
	if addresses == nil {
		return
	}
	x, err := unpackExim(filepath.Join(folder(t), "receiver"), addresses[0])
	h.must(t, err)
	list := filepath.Join(x.dir, "priorities")
	h.must(t, write(list, strings.Join(priorities, "\n")+"\n"))
	cert := h.certs["rsa"]
	text := fmt.Sprintf(eximBasics, x.dir, "receiver", "<; "+strings.Join(addresses, " ; "), fmt.Sprint(h.port), fmt.Sprintf(`
tls_certificate = %s
tls_privatekey = %s
tls_require_ciphers = ${lookup{$received_ip_address}lsearch{%s}}
`, cert.cert, cert.key, list), "\nall:\n  driver = accept\n  transport = nowhere\n", "\nnowhere:\n  driver = appendfile\n  file = /dev/null\n  user = nobody\n")
	text = strings.Replace(text, "tls_advertise_hosts =\n", "tls_advertise_hosts = *\n", 1)
	h.must(t, write(x.conf(), text))
	h.must(t, x.start("receiver"))
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Exim:\n%s", tail(x.log))
		}
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
}
