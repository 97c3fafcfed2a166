package tlsrpt

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

const (
	// maxFailures bounds the failures that one delivery reports of a policy.
	maxFailures = 20
	// maxReason bounds a failure-reason-code, in bytes.
	maxReason = 200
)

// reportable says whether a delivery is any business of the domain's reports:
// one to the hosts that its MX records name, under its own policies.
func reportable(e *transport.Event) bool {
	return e.Destination.Domain != "" && !e.Destination.Nexthop && !e.Named && !e.TLSRequiredNo && len(e.Attempts) > 0
}

// report gives what a delivery says about the domain's policies; nothing when
// no host was judged. A session is a connection (RFC 8460 §4.4): one that
// carried an earlier message was reported with that.
func report(e *transport.Event) []policy {
	r := &reporter{domain: e.Destination.Domain}
	for i := range e.Attempts {
		if a := &e.Attempts[i]; !a.Reused {
			r.attempt(a)
		}
	}
	var failed *mtasts.Error
	if e.STS.State == verdict.STSFailed && errors.As(e.STS.Err, &failed) && len(r.policies) > 0 {
		if result, ok := fetchResult(failed.Failure); ok {
			r.add(policy{Type: typeSTS, Domain: r.domain}, &failure{Result: result, Reason: reason(fetchReason(failed))})
		}
	}
	return r.policies
}

// reporter gathers policies; attempts under the same one come together.
type reporter struct {
	domain   string
	policies []policy
}

// add notes an attempt under a policy; nil is a success.
func (r *reporter) add(p policy, failed *failure) {
	i := slices.IndexFunc(r.policies, func(q policy) bool {
		return q.Type == p.Type && q.Domain == p.Domain && slices.Equal(q.Text, p.Text)
	})
	if i < 0 {
		i = len(r.policies)
		r.policies = append(r.policies, p)
	}
	q := &r.policies[i]
	if q.Failed = 0; failed == nil {
		return
	}
	q.Failed = 1
	if len(q.Failures) < maxFailures {
		q.Failures = append(q.Failures, *failed)
		q.Count = len(q.Failures)
	}
}

// attempt reports one host under the policy that decided about it: its usable
// TLSA records, or else the domain's MTA-STS policy, or else none. Unusable
// TLSA records are a failure of their own, and leave the certificate to
// MTA-STS.
func (r *reporter) attempt(a *transport.Attempt) {
	tlsa, sts := &a.Facts.TLSA, &a.Facts.STS
	hasSTS := sts.State == verdict.STSFound && sts.Policy.Mode != mtasts.ModeNone
	usable := tlsa.State == verdict.TLSAPresent && tlsa.Set.Usable()
	switch {
	case a.Failure != nil && a.Failure.Cause == verdict.TLSALookup:
		r.add(r.tlsa(a), r.failure(a, verdict.TLSALookup, lookupReason(a.Facts.TLSA.Err)))
		return
	case a.Failure != nil && a.Failure.Cause == verdict.MXLevelTooLow:
		return // our own demand, before there was a connection to report of
	case usable && (a.Failure == nil || a.Failure.Rule != verdict.MTASTS):
		r.add(r.tlsa(a), r.shortcoming(a, verdict.DANE))
		return
	}
	if tlsa.State == verdict.TLSAPresent && !usable {
		r.add(r.tlsa(a), r.failure(a, verdict.TLSAUnusable, unusable(tlsa.Set)))
		if !hasSTS {
			if failed := r.shortcoming(a, verdict.UnusableTLSA); failed != nil {
				r.add(r.tlsa(a), failed)
			}
			return
		}
	}
	if hasSTS {
		r.add(r.sts(sts), r.shortcoming(a, verdict.MTASTS))
		return
	}
	r.add(policy{Type: typeNone, Domain: r.domain}, r.shortcoming(a, verdict.NoRule))
}

// shortcoming says what the attempt failed of a policy; nil: nothing. What only
// the message or our administrator asks of a certificate is none of the
// domain's failures.
func (r *reporter) shortcoming(a *transport.Attempt, under verdict.Rule) *failure {
	f := a.Failure
	if f == nil && under == verdict.MTASTS {
		f = a.TestingFailure
	}
	switch {
	case f != nil && (f.Rule == under && f.Cause != verdict.NoSTARTTLS || f.Cause == verdict.HandshakeFailed):
		return r.failure(a, f.Cause, cmp.Or(f.Reason, f.Text))
	case a.TLSErr != nil:
		return r.failure(a, verdict.HandshakeFailed, handshake.Reason(a.TLSErr))
	case a.Proof.TLS == 0:
		return r.failure(a, verdict.NoSTARTTLS, "")
	}
	return nil
}

func (r *reporter) failure(a *transport.Attempt, cause verdict.Cause, text string) *failure {
	f := &failure{Result: resultOf(cause), Host: a.Verdict.Host, Local: address(a.Local), Remote: address(a.Addr)}
	switch cause {
	case verdict.NoSTARTTLS, verdict.CertificateExpired, verdict.CertificateName:
		// The result type says it all.
	case verdict.NotListed, verdict.TLSTooOld:
		f.Reason = cause.String()
	default:
		f.Reason = reason(text)
	}
	return f
}

func address(a netip.Addr) string {
	if !a.IsValid() {
		return ""
	}
	return a.WithZone("").String()
}

// reason makes a short printable line of a text that may hold what a stranger
// sent.
func reason(text string) string { return reply.Cut(reply.Clean(text), maxReason) }

// tlsa describes a host's TLSA records, all of them (RFC 8460 §4.5).
func (r *reporter) tlsa(a *transport.Attempt) policy {
	p := policy{Type: typeTLSA, Domain: a.Facts.TLSA.Base}
	if p.Domain == "" {
		p.Domain = a.Verdict.Host
	}
	for _, record := range a.Facts.TLSA.Set.Records() {
		p.Text = append(p.Text, presentation(record))
	}
	for _, u := range a.Facts.TLSA.Set.Unusable() {
		p.Text = append(p.Text, presentation(u.Record))
	}
	return p
}

// presentation gives a record as a zone file would (RFC 6698 §2.2).
func presentation(r dane.Record) string {
	return fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data))
}

// sts describes the domain's MTA-STS policy.
func (r *reporter) sts(s *verdict.STS) policy {
	return policy{
		Type: typeSTS, Domain: r.domain, MXHosts: s.Policy.MX,
		Text: strings.Split(strings.TrimSuffix(s.Policy.String(), "\n"), "\n"),
	}
}

// unusable says why the records of a set do not count.
func unusable(s dane.Set) string {
	var why []string
	for _, u := range s.Unusable() {
		if text := u.Reason.String(); !slices.Contains(why, text) {
			why = append(why, text)
		}
	}
	return strings.Join(why, ", ")
}

// lookupReason says why a look-up failed, without naming our resolver.
func lookupReason(err error) string {
	var e *resolver.Error
	if !errors.As(err, &e) {
		return ""
	}
	if e.Kind == resolver.ServFail && e.Err != nil {
		return e.Kind.String() + ": " + e.Err.Error() // such as "DNSSEC Bogus"
	}
	return e.Kind.String()
}

// fetchReason says why a policy could not be had, in the same words for all
// that went alike: without ports and addresses, our resolver, and the time of
// day.
func fetchReason(failed *mtasts.Error) string {
	var look *resolver.Error
	var op *net.OpError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(failed.Err, &look):
		return "look-up failed: " + lookupReason(failed.Err)
	case errors.As(failed.Err, &op):
		return op.Op + ": " + op.Err.Error()
	case errors.As(failed.Err, &invalid) && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	}
	return failed.Error()
}

// fetchResult gives the result type of a policy that could not be had. A
// failed look-up of the record proves nothing, and is not reported.
func fetchResult(f mtasts.Failure) (result, bool) {
	switch f {
	case mtasts.FailureFetch:
		return stsPolicyFetchError, true
	case mtasts.FailureInvalid, mtasts.FailureRecord:
		return stsPolicyInvalid, true
	case mtasts.FailureWebPKI:
		return stsWebPKIInvalid, true
	}
	return 0, false
}
