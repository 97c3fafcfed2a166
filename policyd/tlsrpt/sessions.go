package tlsrpt

import (
	"errors"
	"time"

	"github.com/mxpipe/mxpipe/policyd/tlsreport"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Sessions gives the sessions of a delivery for the daily reports, each under
// the policy that decided about it. A session is a connection (RFC 8460 §4.4):
// one that carried an earlier message was counted then.
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
		for _, p := range r.policies {
			list = append(list, tlsreport.Session{At: at, Domain: domain, Policy: policyOf(&p), Failure: failureOf(&p)})
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
