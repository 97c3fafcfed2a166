package doctor

import (
	"crypto/x509"
	"encoding/pem"
	"os"
	"slices"
	"time"

	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/transport"
)

// soon is how long before its end a certificate should be renewed.
const soon = 14 * 24 * time.Hour

// certificates looks at the certificates that are trusted, and at our own.
func (h Host) certificates(cfg *config.Config) (all []finding.Finding) {
	const mend = "apt install ca-certificates"
	switch roots, err := h.Roots(); {
	case err != nil:
		all = append(all, fail(mend, "CA bundle: %v; no MTA-STS policy can be fetched and no certificate can be verified", err))
	case roots.Equal(x509.NewCertPool()):
		all = append(all, fail(mend, "CA bundle: not found; no MTA-STS policy can be fetched and no certificate can be verified"))
	default:
		all = append(all, ok("CA bundle: found"))
	}
	for _, file := range namedFiles(cfg) {
		all = append(all, h.certificateFile(file)...)
	}
	return all
}

// namedFiles gives the certificate files that transports name, each once.
func namedFiles(cfg *config.Config) (files []string) {
	add := func(c *transport.Config) {
		for _, f := range append([]string{c.TLSClient.Cert}, c.TLSClient.RootCA...) {
			if f != "" && !slices.Contains(files, f) {
				files = append(files, f)
			}
		}
	}
	for _, t := range cfg.Transports {
		add(t)
		for _, o := range t.Overrides {
			add(o.Config)
		}
	}
	slices.Sort(files)
	return files
}

// certificateFile finds certificates that are over, or soon will be.
func (h Host) certificateFile(file string) (all []finding.Finding) {
	text, err := os.ReadFile(file)
	if err != nil {
		return []finding.Finding{fail("make the file readable for the daemon's user", "certificates: %v", err)}
	}
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		cert, err := x509.ParseCertificate(block.Bytes)
		switch {
		case err != nil:
		case h.Now.After(cert.NotAfter):
			all = append(all, fail("renew it, then systemctl reload mxpolicyd", "certificates: %s: %s expired on %s", file, cert.Subject, cert.NotAfter.Format(time.DateOnly)))
		case h.Now.Before(cert.NotBefore):
			all = append(all, fail("set the clock, or wait", "certificates: %s: %s is not valid before %s", file, cert.Subject, cert.NotBefore.Format(time.DateOnly)))
		case h.Now.Add(soon).After(cert.NotAfter):
			all = append(all, warn("renew it, then systemctl reload mxpolicyd", "certificates: %s: %s expires on %s", file, cert.Subject, cert.NotAfter.Format(time.DateOnly)))
		}
	}
	if len(all) == 0 {
		all = append(all, ok("certificates: %s", file))
	}
	return all
}
