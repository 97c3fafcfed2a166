package tlsrpt

import "github.com/mxpipe/mxpipe/transport/verdict"

// datagram is one delivery, in the protocol that libtlsrpt 0.5 and Postfix
// 3.10 speak, version 1.
type datagram struct {
	Version  string   `json:"dpv"`
	Domain   string   `json:"d"`  // that the report goes to
	Record   string   `json:"pr"` // its TLSRPT record
	Policies []policy `json:"policies"`
}

const protocolVersion = "1"

// policy is a policy of the domain or of its host, and how the delivery fared
// under it.
type policy struct {
	Type   policyType `json:"policy-type"`
	Domain string     `json:"policy-domain,omitempty"`
	Text   []string   `json:"policy-string,omitempty"`
	// the patterns of an MTA-STS policy
	MXHosts  []string  `json:"mx-host,omitempty"`
	Failures []failure `json:"failure-details,omitempty"`
	Count    int       `json:"t"` // of Failures
	// Failed is 1 when no host that the policy is about passed in the end.
	Failed int `json:"f"`
}

// policyType is a number of the protocol for a policy-type of RFC 8460 §4.4.
type policyType int

const (
	typeTLSA policyType = 1
	typeSTS  policyType = 2
	typeNone policyType = 9 // no-policy-found
)

// failure is one host's failure.
type failure struct {
	Result result `json:"c"`
	Local  string `json:"s,omitempty"` // sending-mta-ip
	Host   string `json:"n,omitempty"` // receiving-mx-hostname
	Remote string `json:"r,omitempty"` // receiving-ip
	Reason string `json:"f,omitempty"` // failure-reason-code
}

// result is a number of the protocol for a result type of RFC 8460 §4.3. There
// is none for dane-required: we never require DANE of a domain that has none.
type result int

const (
	startTLSNotSupported    result = 201
	certificateHostMismatch result = 202
	certificateNotTrusted   result = 203
	certificateExpired      result = 204
	validationFailure       result = 205
	stsPolicyFetchError     result = 301
	stsPolicyInvalid        result = 302
	stsWebPKIInvalid        result = 303
	tlsaInvalid             result = 304
	dnssecInvalid           result = 305
)

// String gives the result type's name.
func (r result) String() string {
	switch r {
	case startTLSNotSupported:
		return "starttls-not-supported"
	case certificateHostMismatch:
		return "certificate-host-mismatch"
	case certificateNotTrusted:
		return "certificate-not-trusted"
	case certificateExpired:
		return "certificate-expired"
	case stsPolicyFetchError:
		return "sts-policy-fetch-error"
	case stsPolicyInvalid:
		return "sts-policy-invalid"
	case stsWebPKIInvalid:
		return "sts-webpki-invalid"
	case tlsaInvalid:
		return "tlsa-invalid"
	case dnssecInvalid:
		return "dnssec-invalid"
	}
	return "validation-failure"
}

// resultOf gives the result type of a cause. What RFC 8460 has no name for is
// a validation-failure (§4.3.3): a handshake that failed, too old a version of
// TLS, and a host that the MTA-STS policy does not list.
func resultOf(c verdict.Cause) result {
	switch c {
	case verdict.NoSTARTTLS:
		return startTLSNotSupported
	case verdict.CertificateName:
		return certificateHostMismatch
	case verdict.CertificateExpired:
		return certificateExpired
	case verdict.CertificateUntrusted:
		return certificateNotTrusted
	case verdict.TLSALookup:
		return dnssecInvalid
	case verdict.TLSAUnusable:
		return tlsaInvalid
	}
	return validationFailure
}
