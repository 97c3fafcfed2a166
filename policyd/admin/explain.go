package admin

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/deadhost"
	"github.com/mxpipe/mxpipe/transport/handshake"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/outcome"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/status"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// Bounds on what strangers can put into an explanation.
const (
	maxChain = 10
	maxNames = 100
	maxText  = 700
)

// NewExplanation writes an explanation as JSON has it.
func NewExplanation(from *transport.Explanation, q *transport.Question) *Explanation {
	e := &Explanation{
		Domain: clean(from.Domain), Transport: from.Transport, Override: from.Override, Nexthop: from.Nexthop,
		Relay: from.Relay, Proxy: from.Proxy, FallbackRelay: from.FallbackRelay, FailingSince: moment(from.FailingSince),
		Outcome:   from.Forecast().String(),
		Connected: q.Depth == transport.Connect,
		To:        clean(q.To),
		Mechanisms: Mechanisms{
			DNSSEC: from.Rules.DNSSEC, DANE: from.Rules.DANE, MTASTS: from.Rules.MTASTS,
			MinTLS: from.Rules.MinTLS.String(), MinMX: from.Rules.MinMX.String(),
		},
		Error: problem(from.Answer()),
		Held:  problem(from.Held),
		Limit: limitOf(from.Limit),
		Hosts: []Host{},
	}
	if from.Err == nil {
		e.Route = routeOf(&from.Route)
	}
	for _, d := range from.Route.Dropped {
		e.Route.Dropped = append(e.Route.Dropped, Dropped{clean(d.Host.Name), d.Host.Preference, d.Reason.String()})
	}
	if from.STS != nil {
		e.MTASTS = newMTASTS(from.STS)
	}
	for i := range from.Hosts {
		e.Hosts = append(e.Hosts, hostOf(&from.Hosts[i], from))
	}
	return e
}

func routeOf(from *route.Route) Route {
	r := Route{Destination: from.Destination.String(), Signed: from.Secure}
	r.Kind = [...]string{route.ByMX: "mx", route.Implicit: "implicit", route.Explicit: "explicit", route.Literal: "literal"}[from.Kind]
	if from.Canonical != from.Destination.Domain {
		r.Canonical = clean(from.Canonical)
	}
	return r
}

// newMTASTS writes an entry of an MTA-STS cache.
func newMTASTS(e *policycache.Entry) *MTASTS {
	m := &MTASTS{RecordID: clean(e.RecordID)}
	if e.Err != nil {
		m.Failure, m.Error = e.Failure().String(), clean(e.Err.Error())
	}
	switch e.State {
	case policycache.NoPolicy:
		m.State = "none"
	case policycache.Failed:
		m.State = "failed"
	case policycache.HasPolicy:
		m.State, m.Mode, m.ID, m.MX, m.Source = "policy", e.Policy.Mode.String(), clean(e.ID), e.Policy.MX, e.Source.String()
		m.MaxAge, m.Fetched, m.Expires = e.Policy.MaxAge.Seconds(), moment(e.Fetched), moment(e.Expires)
	}
	return m
}

func limitOf(p *limit.KeyState) *Limit {
	if p == nil {
		return nil
	}
	return &Limit{
		Rate: p.Limit.Rate, Period: p.Limit.Period.Seconds(), Tokens: p.Tokens,
		Concurrency: p.Limit.Concurrency, Open: p.Open, Waiting: p.Waiting,
	}
}

func hostOf(from *transport.HostExplanation, all *transport.Explanation) Host {
	h := Host{
		Name: clean(from.Host.Name), Preference: from.Host.Preference, Outcome: from.Forecast().String(),
		Addresses: []string{}, Signed: from.Addresses.Secure, Idle: from.Idle,
		Error: problem(from.Err),
	}
	if from.Err != nil {
		return h
	}
	for _, a := range from.Addresses.Addrs {
		h.Addresses = append(h.Addresses, a.String())
	}
	if c := from.Addresses.Canonical; c != from.Host.Name && !from.Host.Literal() {
		h.Canonical = clean(c)
	}
	if from.Addresses.Partial != nil {
		h.Partial = clean(from.Addresses.Partial.Error())
	}
	if all.Rules.DANE && !from.Host.Literal() {
		h.TLSA = tlsaOf(&from.Facts.TLSA, from.Addresses.Secure)
	}
	if sts := &from.Facts.STS; sts.State == verdict.STSFound && sts.Policy.Mode != mtasts.ModeNone {
		listed := sts.Policy.Match(from.Host.Name)
		h.Listed = &listed
	}
	h.Verdict = verdictOf(&from.Verdict)
	h.Held, h.Provider, h.Source = problem(from.Held), clean(from.Provider), from.Source
	h.Dead = deadOf(from.Dead, from.Host.Name)
	if from.Hello != handshake.Full {
		h.Hello = from.Hello.String()
	}
	if from.Probe != nil {
		h.Connection = connectionOf(from.Probe)
	}
	return h
}

func tlsaOf(from *verdict.TLSA, signed bool) *TLSA {
	t := &TLSA{State: "none", Base: clean(from.Base)}
	switch {
	case from.State == verdict.TLSAFailed:
		t.State, t.Error = "failed", clean(from.Err.Error())
	case from.State == verdict.TLSAPresent:
		t.State, t.Names = "present", cleanAll(from.Names)
		for _, r := range from.Set.Records() {
			t.Records = append(t.Records, TLSARecord{Record: r.String(), Usable: true})
		}
		for _, u := range from.Set.Unusable() {
			t.Records = append(t.Records, TLSARecord{Record: u.Record.String(), Reason: u.Reason.String()})
		}
	case !signed:
		t.State = "unsigned"
	}
	return t
}

func verdictOf(from *verdict.Verdict) *Verdict {
	v := &Verdict{MXLevel: from.MX.String(), Need: from.Need.String(), Rule: from.Rule.String(), Reason: clean(from.Reason)}
	if from.Refusal != nil {
		v.Rule, v.Refusal = from.Refusal.Rule.String(), &Problem{Status: from.Refusal.Code.String(), Text: clean(from.Refusal.Text), Cause: outcome.CausePolicy.String()}
	}
	if from.TestingRefusal != nil {
		v.Noted = clean(from.TestingRefusal.Text)
	}
	for _, p := range from.Pins.Pins() {
		v.Pins = append(v.Pins, p.String())
	}
	return v
}

func deadOf(from *deadhost.Dead, name string) *Dead {
	if from == nil {
		return nil
	}
	said := *from
	said.Host = name
	return &Dead{
		Host: clean(name), Since: from.Since.UTC(), Until: moment(from.Until), Cause: from.Cause,
		Failures: from.Failures, Trying: from.Trying, Text: clean(said.Error()),
	}
}

func connectionOf(from *transport.Probe) *Connection {
	c := &Connection{
		Via: from.Via, TLSLevel: from.Proof.Level().String(), WebPKI: from.Proof.WebPKI != "",
		Extensions: cleanAll(from.Extensions.Keywords), TestingError: clean(from.Note), Error: problem(from.Err),
	}
	if from.Addr.IsValid() {
		c.Address = from.Addr.String()
	}
	c.Accepted = clean(from.Accepted)
	for _, a := range from.Addrs {
		c.Addresses = append(c.Addresses, Tried{a.Addr.String(), problem(a.Err)})
	}
	if from.TLSErr != nil {
		c.TLSError = clean(from.TLSErr.Error())
	}
	if m := from.Proof.DANE; m != nil {
		c.DANEMatch, c.DANEName = m.Record.String(), clean(m.Name)
	}
	if from.Proof.DANEErr != nil {
		c.DANEError = clean(from.Proof.DANEErr.Error())
	}
	if from.Proof.PKIErr != nil {
		c.WebPKIError = clean(from.Proof.PKIErr.Error())
	}
	if from.Proof.Pin != (pin.Pin{}) {
		c.Pin = from.Proof.Pin.String()
	}
	if from.Proof.PinErr != nil {
		c.PinError = clean(from.Proof.PinErr.Error())
	}
	if from.Proof.TLS != 0 {
		c.Hello = from.Proof.Hello.String()
	}
	if state := from.TLS; state != nil {
		c.TLSVersion, c.Cipher = tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
		if state.CurveID != 0 {
			c.Group = state.CurveID.String()
		}
		for _, cert := range state.PeerCertificates[:min(len(state.PeerCertificates), maxChain)] {
			c.Chain = append(c.Chain, certificateOf(cert))
		}
	}
	return c
}

func certificateOf(from *x509.Certificate) Certificate {
	sum := sha256.Sum256(from.Raw)
	names := slices.Clone(from.DNSNames)
	for _, ip := range from.IPAddresses {
		names = append(names, ip.String())
	}
	return Certificate{
		Subject: clean(from.Subject.String()), Issuer: clean(from.Issuer.String()), Names: cleanAll(names),
		NotBefore: from.NotBefore.UTC(), NotAfter: from.NotAfter.UTC(), Key: keyOf(from), SHA256: hex.EncodeToString(sum[:]),
	}
}

// keyOf describes a certificate's public key.
func keyOf(cert *x509.Certificate) string {
	switch key := cert.PublicKey.(type) {
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", key.N.BitLen())
	case *ecdsa.PublicKey:
		return "ECDSA " + key.Curve.Params().Name
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return cert.PublicKeyAlgorithm.String()
}

func problem(err *status.Error) *Problem {
	if err == nil {
		return nil
	}
	return &Problem{err.Code.String(), clean(err.Error()), outcome.CauseOf(err).String(), clean(err.Moment)}
}

// moment is a time for JSON; nil for none.
func moment(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// clean makes one printable line of what may be a stranger's.
func clean(text string) string { return reply.Cut(reply.Clean(text), maxText) }

func cleanAll(texts []string) []string {
	var all []string
	for _, t := range texts[:min(len(texts), maxNames)] {
		all = append(all, clean(strings.TrimSpace(t)))
	}
	return all
}
