package socketmap

import (
	"errors"
	"strings"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/reply"
)

const (
	// maxReply is what Postfix reads at most (socketmap_table(5)).
	maxReply = 100_000
	// maxReason bounds a reason; Postfix logs 200 bytes of it.
	maxReason = 300
)

// notFound is the reply to what has no policy. The blank belongs to it.
const notFound = "NOTFOUND "

// temporary is the reply that has Postfix keep the mail, with a reason for its
// log.
func temporary(reason string) string {
	reason = reply.Clean(reason)
	if len(reason) > maxReason {
		reason = strings.ToValidUTF8(reason[:maxReason-3], "") + "..."
	}
	return "TEMP " + reason
}

// Reply gives the reply to a request about a domain; with reports it has the
// attributes that Postfix 3.10 and later pass on to TLS reports (RFC 8460).
func Reply(plan *plan.Plan, reports bool) string {
	p := Decide(plan)
	var attributes string
	if reports {
		if attributes = p.attributes(plan); attributes != "" && p.NothingRequired {
			// They need a level to stand behind; and TLSA records, which
			// another level would ask for, are proven not to be there.
			p.Level = May
		}
	}
	switch p.Level {
	case Default:
		return notFound
	case May:
		return "OK may" + attributes
	case Encrypt:
		return "OK encrypt" + attributes
	case DANE:
		return "OK dane"
	case DANEOnly:
		return "OK dane-only"
	case Fingerprint:
		return "OK fingerprint match=" + strings.Join(p.Names, "|") + p.protocols()
	case Secure:
		return "OK secure match=" + strings.Join(p.Names, ":") + " servername=hostname" + p.protocols() + attributes
	}
	return temporary(p.Reason)
}

// protocols keeps Postfix to TLS 1.2 or better, in a form that Postfix knows
// since long before it knew comparisons.
func (p *Policy) protocols() string {
	if p.TLS12 {
		return " protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"
	}
	return ""
}

// attributes gives what TLS reports shall say of the domain's MTA-STS policy.
// Where DANE decides, Postfix knows by itself.
func (p *Policy) attributes(plan *plan.Plan) string {
	if p.Level == Refused || p.Level == Fingerprint || (p.Level == DANE || p.Level == DANEOnly) && !p.NothingRequired || !presentable(plan.Target.Domain) {
		return ""
	}
	if plan.Policy == nil {
		return "" // it was not asked for
	}
	if plan.Policy.State != policycache.HasPolicy {
		// It would fail every connection that must be authenticated.
		if failure := failureOf(plan.Policy); failure != "" && p.Level != Secure {
			return " policy_type=no-policy-found policy_domain=" + plan.Target.Domain + " policy_failure=" + failure
		}
		return ""
	}
	policy := &plan.Policy.Policy
	short := " policy_type=sts policy_domain=" + plan.Target.Domain + p.patterns(policy)
	var b strings.Builder
	b.WriteString(short)
	for line := range strings.Lines(policy.String()) {
		b.WriteString(" { policy_string = " + strings.TrimSuffix(line, "\n") + " }")
	}
	switch {
	case b.Len() < maxReply/2:
		return b.String()
	case len(short) < maxReply/2:
		return short
	}
	return ""
}

// patterns gives the hosts that the policy lists. From 3.10.5 on Postfix
// delivers to no others, and matches a certificate against the host's own name
// instead of all the names; so a host that may not have the mail must not be
// among them, nor may they stop what a policy in testing mode lets pass.
func (p *Policy) patterns(policy *mtasts.Policy) string {
	list := policy.MX
	switch {
	case p.Level == Secure && policy.Mode == mtasts.ModeTesting:
		return ""
	case p.MissingHosts, p.Level == Secure && len(strings.Join(list, "")) > maxReply/8:
		list = p.Names
	}
	var b strings.Builder
	for _, pattern := range list {
		b.WriteString(" mx_host_pattern=" + pattern)
	}
	return b.String()
}

// presentable reports whether Postfix takes a name for a domain; if it does
// not, it rejects the whole policy.
func presentable(domain string) bool {
	for label := range strings.SplitSeq(domain, ".") {
		if label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
	}
	return true
}

// failureOf names what keeps a domain from having a policy, in the words that
// Postfix knows; "" when there is none to be had.
func failureOf(e *policycache.Entry) string {
	if e.Err == nil || errors.Is(e.Err, policycache.ErrPending) {
		return ""
	}
	switch e.Err.Failure {
	case mtasts.FailureFetch, mtasts.FailureInvalid, mtasts.FailureWebPKI:
		return e.Err.Failure.String() // one of RFC 8460's
	case mtasts.FailureRecord:
		return "validation-failure"
	}
	// the record could not be looked up: it is not known whether there is one
	return ""
}
