package metrics

import (
	"crypto/tls"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// result is what became of a delivery, or of a recipient.
type result uint8

const (
	delivered result = iota
	refused
	deferred // outranks the others when recipients differ
	results
)

// String gives the label's value, the word of the log line too.
func (r result) String() string {
	return [results]string{"delivered", "refused", "deferred"}[r]
}

func resultOf(c status.Code) result {
	switch c.Class {
	case status.Success:
		return delivered
	case status.Permanent:
		return refused
	}
	return deferred
}

// proof is what proved a server.
type proof uint8

const (
	byNothing proof = iota
	byPin
	byWebPKI
	byDANE
	proofs
)

// String gives the label's value.
func (p proof) String() string {
	return [proofs]string{"none", "pin", "webpki", "dane"}[p]
}

// proofOf gives what proved the server. A connection that counts as none proves
// nothing, whatever its certificate.
func proofOf(p *verdict.Proof) proof {
	switch {
	case p.Level() != verdict.TLSAuthenticated:
		return byNothing
	case p.DANE != nil:
		return byDANE
	case p.WebPKI != "":
		return byWebPKI
	}
	return byPin
}

// series are the counters of one transport, found once: a delivery then costs
// some additions.
type series struct {
	deliveries, recipients [results]prometheus.Counter
	// by what failed; none for delivered
	causes          [results][len(outcome.Causes) + 1]prometheus.Counter
	took            prometheus.Observer
	phases          [transport.Phases]prometheus.Observer
	folded, strayCR prometheus.Counter
	resent          prometheus.Counter
	relayed         [2][results]prometheus.Counter // fallback_relay second
	security        [verdict.TLSAuthenticated + 1][verdict.MXDNSSEC + 1][proofs]prometheus.Counter
}

// of gives the series of a transport, all of them at zero when it is new.
func (m *Metrics) of(name string) *series {
	if s, ok := m.byTransport.Load(name); ok {
		return s.(*series)
	}
	s := &series{
		took:   m.deliveryDuration.WithLabelValues(name),
		folded: m.changed.WithLabelValues(name, "folded"), strayCR: m.changed.WithLabelValues(name, "stray_cr"),
		resent: m.resent.WithLabelValues(name),
	}
	for r := range results {
		s.deliveries[r] = m.deliveries.WithLabelValues(name, r.String())
		s.recipients[r] = m.recipients.WithLabelValues(name, r.String())
		s.relayed[0][r] = m.relayed.WithLabelValues(name, "relay", r.String())
		s.relayed[1][r] = m.relayed.WithLabelValues(name, "fallback_relay", r.String())
		for _, cause := range outcome.Causes {
			if r != delivered {
				s.causes[r][cause] = m.causes.WithLabelValues(name, r.String(), cause.String())
			}
		}
	}
	for p := range transport.Phases {
		s.phases[p] = m.phaseDuration.WithLabelValues(name, p.String())
	}
	for tls := range s.security {
		for mx := range s.security[tls] {
			for p := range proofs {
				level := verdict.TLSLevel(tls)
				if (level == verdict.TLSAuthenticated) != (p != byNothing) {
					continue // what is proven is authenticated
				}
				s.security[tls][mx][p] = m.security.WithLabelValues(name, level.String(), verdict.MXLevel(mx).String(), p.String())
			}
		}
	}
	// The others come with the first handshake of their kind.
	m.handshakes.WithLabelValues(name, versionOf(tls.VersionTLS13), tls.X25519MLKEM768.String(), handshake.Full.String())
	stored, _ := m.byTransport.LoadOrStore(name, s)
	return stored.(*series)
}

// Transport has the metrics of a transport's deliveries be there, at zero,
// before its first message: Prometheus cannot see a rise from nothing.
func (m *Metrics) Transport(name string) { m.of(name) }

// Observe counts a delivery. It is what transport.Deps.Observe asks for.
func (m *Metrics) Observe(e *transport.Event) {
	s := m.of(e.Transport)
	worst := delivered
	for _, code := range e.Results {
		r := resultOf(code)
		s.recipients[r].Inc()
		switch {
		case e.Fallback:
			s.relayed[1][r].Inc()
		case e.Relay != "":
			s.relayed[0][r].Inc()
		}
		worst = max(worst, r)
	}
	for i := range e.Outcomes {
		o := e.Outcomes[i].Status
		if r := resultOf(o.Code); r != delivered {
			s.causes[r][outcome.CauseOf(o)].Inc()
		}
	}
	s.deliveries[worst].Inc()
	if e.Folds > 0 {
		s.folded.Inc()
	}
	if e.StrayCRs > 0 {
		s.strayCR.Inc()
	}
	s.resent.Add(float64(e.Resent))
	if e.Took > 0 {
		s.took.Observe(e.Took.Seconds())
	}
	for p, took := range e.Phases {
		if took > 0 {
			s.phases[p].Observe(took.Seconds())
		}
	}
	for i := range e.Attempts {
		a := &e.Attempts[i]
		if a.Delivered {
			s.security[a.Proof.Level()][a.Verdict.MX][proofOf(&a.Proof)].Inc()
		}
		if a.Proof.TLS != 0 && !a.Reused {
			m.handshakes.WithLabelValues(e.Transport, versionOf(a.Proof.TLS), groupOf(&a.Proof), a.Proof.Hello.String()).Inc()
		}
		m.failed(a.Failure, modeEnforced)
		m.failed(a.TestingFailure, modeTesting)
	}
}

// versionOf names a version as the log does: "TLS1.3".
func versionOf(v uint16) string {
	switch v {
	case tls.VersionTLS10:
		return "TLS1.0"
	case tls.VersionTLS11:
		return "TLS1.1"
	case tls.VersionTLS12:
		return "TLS1.2"
	}
	return "TLS1.3"
}

// groupOf names the key exchange of a handshake.
func groupOf(p *verdict.Proof) string {
	if p.Group == 0 {
		return "RSA"
	}
	return p.Group.String()
}

// The modes in which a policy is failed.
const (
	modeEnforced = "enforced"
	modeTesting  = "testing"
)

func (m *Metrics) failed(f *verdict.Failure, mode string) {
	if f != nil {
		m.policyFailures.WithLabelValues(f.Rule.String(), f.Cause.String(), mode).Inc()
	}
}

// failures lists what can be failed, so that each is there from the start.
func (m *Metrics) failures() {
	tls := []verdict.Cause{verdict.NoSTARTTLS, verdict.HandshakeFailed}
	certificate := []verdict.Cause{verdict.CertificateName, verdict.CertificateExpired, verdict.CertificateUntrusted}
	for _, group := range []struct {
		rule   verdict.Rule
		mode   string
		causes [][]verdict.Cause
	}{
		{verdict.DANE, modeEnforced, [][]verdict.Cause{tls, certificate, {verdict.TLSALookup}}},
		{verdict.MTASTS, modeEnforced, [][]verdict.Cause{tls, certificate, {verdict.TLSTooOld, verdict.NotListed}}},
		{verdict.MTASTS, modeTesting, [][]verdict.Cause{{verdict.NoSTARTTLS}, certificate, {verdict.TLSTooOld, verdict.NotListed}}},
		{verdict.RequireTLS, modeEnforced, [][]verdict.Cause{tls, certificate, {verdict.MXLevelTooLow, verdict.NoExtension}}},
		{verdict.LocalPolicy, modeEnforced, [][]verdict.Cause{tls, certificate, {verdict.MXLevelTooLow}}},
		{verdict.Pinned, modeEnforced, [][]verdict.Cause{tls, certificate}},
		{verdict.Relayed, modeEnforced, [][]verdict.Cause{tls, certificate}},
	} {
		for _, causes := range group.causes {
			for _, c := range causes {
				m.policyFailures.WithLabelValues(group.rule.String(), c.String(), group.mode)
			}
		}
	}
}
