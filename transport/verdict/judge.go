package verdict

import (
	"crypto/tls"
	"fmt"
	"slices"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Failure is why a host may not have the message: a code and a line for
// people. The next host is tried; with none left, it is the answer.
type Failure struct {
	Code status.Code
	Text string
}

// Error gives the line.
func (f *Failure) Error() string { return f.Text }

// failure is a temporary failure of a policy: whoever published it, or a
// passing trouble, may mend it.
func failure(subject, detail uint16, format string, args ...any) *Failure {
	return &Failure{Code: status.New(status.Temporary, subject, detail), Text: fmt.Sprintf(format, args...)}
}

// final is the permanent failure of REQUIRETLS (RFC 8689 §5, 5.7.30).
func final(format string, args ...any) *Failure {
	return &Failure{Code: status.New(status.Permanent, 7, 30), Text: fmt.Sprintf(format, args...)}
}

// Proof is what a connection showed. The zero Proof is a connection in the
// clear. It stays with the connection: whoever uses it again has it judged
// again, by the verdict of the day.
type Proof struct {
	TLS     uint16      // version of crypto/tls; 0: plaintext
	DANE    *dane.Match // the TLSA record that matched; nil: none did, or none was asked
	DANEErr error       // why no record of the verdict's set matched
	TLSA    string      // fingerprint of the set that DANE was found in
	WebPKI  string      // the host name that the certificate is valid for; empty: not valid
	PKIErr  error       // why not
}

// Level gives the TLS level that the connection reached.
func (p *Proof) Level() TLSLevel {
	switch {
	case p.TLS == 0:
		return TLSNone
	case p.DANE != nil || p.WebPKI != "":
		return TLSAuthenticated
	}
	return TLSEncrypted
}

// Judge says whether a connection that showed proof may carry the message;
// nil: it may. Whether the host offers REQUIRETLS is known only later, for
// which there is JudgeExtension.
func (v *Verdict) Judge(p *Proof) *Failure {
	if v.Refusal != nil {
		return v.Refusal
	}
	if p.TLS == 0 && v.Need != NeedNothing {
		return v.noTLS("the server does not offer STARTTLS")
	}
	switch v.Need {
	case NeedDANE:
		// A record matched for another set, or a name for another domain,
		// proves nothing here.
		if p.DANE == nil || p.TLSA != v.TLSA.Fingerprint() || p.DANE.Name != "" && !slices.Contains(v.Names, p.DANE.Name) {
			return failure(7, 5, "DANE: %v", orElse(p.DANEErr, "the certificate was not matched against these TLSA records"))
		}
	case NeedWebPKI:
		if p.TLS < tls.VersionTLS12 {
			return failure(7, 5, "MTA-STS: %s, where TLS 1.2 is the least", tls.VersionName(p.TLS))
		}
		if p.WebPKI != v.Host {
			return failure(7, 5, "MTA-STS: %v", orElse(p.PKIErr, "the certificate is for another name"))
		}
	case NeedProof:
		if p.DANE == nil && p.WebPKI != v.Host {
			err := orElse(p.PKIErr, "the certificate is for another name")
			if v.rule == byRequireTLS {
				return final("REQUIRETLS: the certificate is not valid: %v", err)
			}
			return failure(7, 5, "local_policy asks for an authenticated server: %v", err)
		}
	}
	return nil
}

// Note says what enforcing a policy in testing mode would have had against the
// connection (RFC 8461 §5); empty: nothing.
func (v *Verdict) Note(p *Proof) string {
	switch {
	case !v.testing:
	case p.TLS == 0:
		return "MTA-STS testing: no TLS"
	case p.WebPKI != v.Host:
		return "MTA-STS testing: " + orElse(p.PKIErr, "the certificate is for another name")
	}
	return ""
}

// NoTLS says what becomes of the message at a host with which TLS did not
// come about, and why it did not; nil: it may travel in the clear.
func (v *Verdict) NoTLS(why error) *Failure {
	if v.Plaintext() {
		return nil
	}
	f := v.noTLS("TLS failed: " + why.Error())
	// A handshake can fail for a passing reason, so it refuses nothing for good.
	f.Code.Class = status.Temporary
	if f.Code.Detail == 30 {
		f.Code.Detail = 5
	}
	return f
}

func (v *Verdict) noTLS(what string) *Failure {
	switch v.rule {
	case byDANE:
		return failure(7, 5, "DANE: %s", what)
	case byUnusable:
		return failure(7, 4, "the host has TLSA records, which ask for TLS: %s", what)
	case bySTS:
		return failure(7, 5, "MTA-STS: %s", what)
	case byRequireTLS:
		return final("REQUIRETLS: %s", what)
	}
	return failure(7, 4, "local_policy asks for TLS: %s", what)
}

// JudgeExtension says whether a host that offers REQUIRETLS, or does not, may
// have the message; nil: it may.
func (v *Verdict) JudgeExtension(offered bool) *Failure {
	if v.Extension && !offered {
		return final("REQUIRETLS: the server does not offer it")
	}
	return nil
}

func orElse(err error, text string) string {
	if err != nil {
		return err.Error()
	}
	return text
}
