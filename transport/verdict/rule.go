package verdict

import (
	"crypto/x509"
	"errors"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// Rule is a policy that asks something of a host, and that the host can fail.
type Rule uint8

// The rules.
const (
	NoRule       Rule = iota // opportunistic TLS asks nothing
	UnusableTLSA             // TLSA records, none of them usable
	// usable TLSA records, or ones that cannot be looked up
	DANE
	MTASTS      // the domain's MTA-STS policy
	RequireTLS  // the message's own demand
	LocalPolicy // the administrator's minima
	Pinned      // the keys that the administrator pinned
	Relayed     // the host is a relay
)

// String gives the configuration's word for the rule.
func (r Rule) String() string {
	switch r {
	case UnusableTLSA, DANE:
		return "dane"
	case MTASTS:
		return "mtasts"
	case RequireTLS:
		return "requiretls"
	case LocalPolicy:
		return "local_policy"
	case Pinned:
		return "pin"
	case Relayed:
		return "relay"
	}
	return "none"
}

// Name gives the rule's name for people; empty for NoRule.
func (r Rule) Name() string {
	switch r {
	case NoRule:
		return ""
	case UnusableTLSA, DANE:
		return "DANE"
	case MTASTS:
		return "MTA-STS"
	case RequireTLS:
		return "REQUIRETLS"
	}
	return r.String()
}

// Cause is what a host lacked, or did wrong.
type Cause uint8

// The causes. String gives the words of RFC 8460 §4.3 where it has one.
const (
	NoCause              Cause = iota
	NoSTARTTLS                 // the server does not offer it
	HandshakeFailed            // it was offered, and failed
	TLSTooOld                  // it speaks no version of TLS that will do
	CertificateName            // the certificate is for other names
	CertificateExpired         // or not valid yet
	CertificateUntrusted       // nothing that counts vouches for it
	TLSALookup                 // the TLSA records cannot be looked up
	TLSAUnusable               // none of the TLSA records is usable
	NotListed                  // the MTA-STS policy does not list the host
	MXLevelTooLow              // too little vouches for the host's name
	NoExtension                // the server does not offer REQUIRETLS
)

// String gives a word for metrics and logs.
func (c Cause) String() string {
	words := [...]string{
		"none", "starttls-not-supported", "handshake-failed", "tls-version", "certificate-host-mismatch",
		"certificate-expired", "certificate-not-trusted", "dnssec-invalid", "tlsa-invalid", "mx-not-listed",
		"mx-level", "requiretls-not-offered",
	}
	if int(c) < len(words) {
		return words[c]
	}
	return "unknown"
}

// certificateCause sorts the errors of a certificate's verification, by DANE
// or by WebPKI.
func certificateCause(err error) Cause {
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.Is(err, errOtherName), errors.As(err, &name), errors.Is(err, dane.ErrName):
		return CertificateName
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return CertificateExpired
	}
	return CertificateUntrusted
}
