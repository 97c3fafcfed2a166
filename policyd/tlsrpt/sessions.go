package tlsrpt

import (
	"cmp"
	"errors"
	"time"

	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Sessions gives the sessions of a delivery for the daily reports, each under
// the policy that decided about it. A session is a connection (RFC 8460 §4.4):
// one that carried an earlier message was counted then. Where a domain has an
// MTA-STS policy beside the TLSA records that decide, it is told how the
// connection fared by both.
func Sessions(e *transport.Event, at time.Time) []tlsreport.Session {
	if !reportable(e) {
		return nil
	}
	domain := e.Destination.Domain
	var list []tlsreport.Session
	for i := range e.Attempts {
		a := &e.Attempts[i]
		if a.Reused {
			continue
		}
		r := &reporter{domain: domain}
		r.attempt(a)
		r.beside(a)
		for _, p := range r.policies {
			s := tlsreport.Session{At: at, Domain: domain, Policy: policyOf(&p), Failure: failureOf(&p)}
			if s.Failure != nil {
				s.Failure.HELO = a.HELO
			}
			list = append(list, s)
		}
	}
	var failed *mtasts.Error
	if e.STS.State == verdict.STSFailed && errors.As(e.STS.Err, &failed) && len(list) > 0 {
		if result, ok := fetchResult(failed.Failure); ok {
			list = append(list, tlsreport.Session{
				At: at, Domain: domain, Policy: tlsreport.Policy{Type: tlsreport.TypeSTS, Domain: domain},
				Failure: &tlsreport.Failure{Result: tlsreport.Result(result.String()), Reason: reason(fetchReason(failed))},
			})
		}
	}
	return list
}

// beside reports the domain's MTA-STS policy where the host's TLSA records
// decided about a connection.
func (r *reporter) beside(a *transport.Attempt) {
	sts := &a.Facts.STS
	if len(r.policies) != 1 || r.policies[0].Type != typeTLSA || !a.Addr.IsValid() ||
		sts.State != verdict.STSFound || sts.Policy.Mode == mtasts.ModeNone {
		return
	}
	f := verdict.AgainstSTS(&sts.Policy, a.Verdict.Host, &a.Proof)
	tls := a.Failure
	switch {
	case tls != nil && (tls.Cause == verdict.HandshakeFailed || tls.Cause == verdict.NoSTARTTLS):
		// By what the policies have in common it failed for the same reason.
		r.add(r.sts(sts), r.failure(a, tls.Cause, cmp.Or(tls.Reason, tls.Text)))
	case a.TLSErr != nil:
		r.add(r.sts(sts), r.failure(a, verdict.HandshakeFailed, handshake.Reason(a.TLSErr)))
	case f == nil:
		r.add(r.sts(sts), nil)
	default:
		r.add(r.sts(sts), r.failure(a, f.Cause, f.Text))
	}
}

func policyOf(p *policy) tlsreport.Policy {
	kind := tlsreport.TypeNone
	switch p.Type {
	case typeTLSA:
		kind = tlsreport.TypeTLSA
	case typeSTS:
		kind = tlsreport.TypeSTS
	}
	return tlsreport.Policy{Type: kind, Text: p.Text, Domain: p.Domain, MXHosts: p.MXHosts}
}

// failureOf gives the first failure; nil: the session succeeded.
func failureOf(p *policy) *tlsreport.Failure {
	if len(p.Failures) == 0 {
		return nil
	}
	f := &p.Failures[0]
	return &tlsreport.Failure{
		Result: tlsreport.Result(f.Result.String()), Sending: f.Local, Host: f.Host, Receiver: f.Remote, Reason: f.Reason,
	}
}
