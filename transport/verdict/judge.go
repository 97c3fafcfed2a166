package verdict

import (
	"crypto/tls"
	"errors"
	"slices"

	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/status"
)

// Failure is why a host may not have the message: a code and a line for
// people, and the same for metrics and reports. The next host is tried; with
// none left, it is the answer.
type Failure struct {
	Code  status.Code
	Text  string
	Rule  Rule
	Cause Cause
	// Reason is the text for a report where it must be another: the same for
	// all that failed alike. Empty: Text will do.
	Reason string
}

// Error gives the line.
func (f *Failure) Error() string { return f.Text }

// failure is a temporary failure of a policy: its publisher, or a
// passing trouble, may change it.
func failure(detail uint16, rule Rule, cause Cause, text string) *Failure {
	return &Failure{Code: status.New(status.Temporary, 7, detail), Text: text, Rule: rule, Cause: cause}
}

// final is the permanent failure of REQUIRETLS (RFC 8689 §5, 5.7.30).
func final(cause Cause, text string) *Failure {
	return &Failure{Code: status.New(status.Permanent, 7, 30), Text: "REQUIRETLS: " + text, Rule: RequireTLS, Cause: cause}
}

// Proof is what a connection showed. The zero Proof is a connection in the
// clear. It stays with the connection: each delivery that uses it again judges
// it again, by the verdict of the day.
type Proof struct {
	TLS    uint16         // version of crypto/tls; 0: plaintext
	Cipher uint16         // suite of crypto/tls
	Group  tls.CurveID    // of the key exchange; 0: RSA
	Hello  handshake.Step // by which it came about
	// the TLSA record that matched; nil: none did, or none was asked
	DANE    *dane.Match
	DANEErr error  // why no record of the verdict's set matched
	TLSA    string // fingerprint of the set that DANE was found in
	// the host name that the certificate is valid for; empty: not valid
	WebPKI string
	PKIErr error // why not
	// of the verdict's pins, by which the server is known; zero: none, or none
	// was asked
	Pin    pin.Pin
	PinErr error // why by none
}

// Level gives the TLS level that the connection reached.
func (p *Proof) Level() TLSLevel {
	switch {
	case p.Weak():
		return TLSNone
	case p.DANE != nil || p.WebPKI != "" || p.Pin != pin.Pin{}:
		return TLSAuthenticated
	}
	return TLSEncrypted
}

// Weak reports whether the connection counts as one without TLS: it is in the
// clear, below TLS 1.2, or enciphered by 3DES.
func (p *Proof) Weak() bool { return handshake.Weak(p.TLS, p.Cipher) }

// weakness says why the connection is weak.
func (p *Proof) weakness() string {
	if p.TLS < tls.VersionTLS12 {
		return tls.VersionName(p.TLS) + ", but TLS 1.2 is the minimum"
	}
	return tls.VersionName(p.TLS) + " with 3DES, which counts as none"
}

// Judge says whether a connection that showed proof may carry the message;
// nil: it may. Whether the host offers REQUIRETLS is known only later, for
// which there is JudgeExtension.
func (v *Verdict) Judge(p *Proof) *Failure {
	if v.Refusal != nil {
		return v.Refusal
	}
	switch {
	case v.Need == NeedNothing:
		return nil
	case p.TLS == 0:
		return v.noTLS(NoSTARTTLS, "the server does not offer STARTTLS")
	case p.Weak():
		return v.noTLS(TLSTooOld, p.weakness())
	}
	if failed := v.certificate(p); failed != nil {
		return failed
	}
	if !v.Pins.Empty() && !v.Pins.Has(p.Pin) {
		err := orElse(p.PinErr, errOtherPins)
		return failure(5, Pinned, certificateCause(err), "pin: "+err.Error())
	}
	return nil
}

// certificate judges what the server's certificate proved.
func (v *Verdict) certificate(p *Proof) *Failure {
	switch v.Need {
	case NeedDANE:
		// A record matched for another set, or a name for another domain,
		// proves nothing here.
		if p.DANE == nil || p.TLSA != v.TLSA.Fingerprint() || p.DANE.Name != "" && !slices.Contains(v.Names, p.DANE.Name) {
			err := orElse(p.DANEErr, errOtherSet)
			return failure(5, DANE, certificateCause(err), "DANE: "+err.Error())
		}
	case NeedWebPKI:
		return v.webPKI(p, "MTA-STS: ")
	case NeedProof:
		if p.DANE == nil && p.WebPKI != v.Host && !v.Pins.Has(p.Pin) {
			err := orElse(p.PKIErr, errOtherName)
			switch v.Rule {
			case RequireTLS:
				return final(certificateCause(err), "the certificate is not valid: "+err.Error())
			case Relayed:
				return failure(5, Relayed, certificateCause(err), "relay: "+err.Error())
			}
			return failure(5, LocalPolicy, certificateCause(err), "local_policy requires an authenticated server: "+err.Error())
		}
	}
	return nil
}

// webPKI asks of a connection what an MTA-STS policy does (RFC 8461 §4).
func (v *Verdict) webPKI(p *Proof, who string) *Failure {
	if p.Weak() {
		return failure(5, MTASTS, TLSTooOld, who+p.weakness())
	}
	if p.WebPKI != v.Host {
		err := orElse(p.PKIErr, errOtherName)
		return failure(5, MTASTS, certificateCause(err), who+err.Error())
	}
	return nil
}

// TestingFailure says what enforcing a policy in testing mode would have had
// against the host or the connection (RFC 8461 §5); nil: nothing.
func (v *Verdict) TestingFailure(p *Proof) *Failure {
	const who = "MTA-STS testing: "
	switch {
	case v.TestingRefusal != nil:
		return v.TestingRefusal
	case !v.testedWebPKI:
		return nil
	case p.TLS == 0:
		return failure(5, MTASTS, NoSTARTTLS, who+"no TLS")
	}
	return v.webPKI(p, who)
}

// AgainstSTS says what an MTA-STS policy has against a host and what its
// connection proved, whatever else decided about them (RFC 8461 §4); nil:
// nothing. It is for reports: where DANE decides, the policy has no say.
func AgainstSTS(p *mtasts.Policy, host string, proof *Proof) *Failure {
	const who = "MTA-STS: "
	switch {
	case !p.Match(host):
		return failure(5, MTASTS, NotListed, who+"the policy does not list this host")
	case proof.TLS == 0:
		return failure(5, MTASTS, NoSTARTTLS, who+"no TLS")
	}
	return (&Verdict{Host: host}).webPKI(proof, who)
}

// NoTLS says what becomes of the message at a host with which TLS did not
// come about, and why it did not; nil: it may travel in the clear.
func (v *Verdict) NoTLS(why error) *Failure {
	if v.Plaintext() {
		return nil
	}
	f := v.noTLS(HandshakeFailed, "TLS failed: "+why.Error())
	f.Reason = handshake.Reason(why)
	var hellos handshake.Error
	if errors.As(why, &hellos) {
		f.Text = hellos.Error() // which names the rule itself
	}
	// A handshake can fail for a passing reason, so it refuses nothing for
	// good.
	f.Code.Class = status.Temporary
	if f.Code.Detail == 30 {
		f.Code.Detail = 5
	}
	return f
}

func (v *Verdict) noTLS(cause Cause, what string) *Failure {
	switch v.Rule {
	case DANE:
		return failure(5, DANE, cause, "DANE: "+what)
	case UnusableTLSA:
		return failure(4, UnusableTLSA, cause, "the host has TLSA records, so TLS is required: "+what)
	case MTASTS:
		return failure(5, MTASTS, cause, "MTA-STS: "+what)
	case RequireTLS:
		return final(cause, what)
	case Pinned:
		return failure(5, Pinned, cause, "pin: "+what)
	case Relayed:
		return failure(5, Relayed, cause, "relay: "+what)
	}
	return failure(4, LocalPolicy, cause, "local_policy requires TLS: "+what)
}

// JudgeExtension says whether a host that offers REQUIRETLS, or does not, may
// have the message; nil: it may.
func (v *Verdict) JudgeExtension(offered bool) *Failure {
	if v.NeedRequireTLS && !offered {
		return final(NoExtension, "the server does not offer it")
	}
	return nil
}

// What is wrong with a connection that proved something else.
var (
	errOtherName = errors.New("the certificate is for another name")
	errOtherSet  = errors.New("the certificate was not matched against these TLSA records")
	errOtherPins = errors.New("the certificate was not matched against these pins")
)

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}
