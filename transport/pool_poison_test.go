package transport

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/dane"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/session"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// mail is a message under some policy, to a domain whose one mail server is
// theHost. Each kind goes through a transport of its own, of the same name and
// with the same pool, as transports before and after a reload have.
type mail struct {
	name     string
	domain   string
	policies PolicySet
	header   string
	require  bool
	strict   bool // not relaxed_requiretls
	// which of the server's TLSA records are published: 0 none, 1 A, 2 B
	records int
}

var poison = []mail{
	{name: "no policy", domain: "plain.example"},
	{name: "TLS-Required: No", domain: "sts.example", header: "TLS-Required: No\n", policies: PolicySet{DNSSEC: true, DANE: true, MTASTS: &MTASTS{}}},
	{name: "min_tls encrypted", domain: "plain.example", policies: PolicySet{Local: &LocalPolicy{MinTLS: verdict.TLSEncrypted}}},
	{name: "DANE A", domain: "signed.example", policies: PolicySet{DNSSEC: true, DANE: true}, records: 1},
	{name: "DANE B", domain: "signed.example", policies: PolicySet{DNSSEC: true, DANE: true}, records: 2},
	{name: "STS enforce", domain: "sts.example", policies: PolicySet{DNSSEC: true, DANE: true, MTASTS: &MTASTS{}}},
	{name: "REQUIRETLS", domain: "signed.example", policies: PolicySet{DNSSEC: true, DANE: true}, require: true},
	{name: "REQUIRETLS, strict", domain: "signed.example", policies: PolicySet{DNSSEC: true, DANE: true}, require: true, strict: true},
}

// demands is what the message asks for, and tlsRequiredNo whether it has no
// policies.
func (m *mail) demands() verdict.Demands {
	return verdict.Demands{RequireTLS: m.require, Relaxed: !m.strict, TLSRequiredNo: m.tlsRequiredNo()}
}

func (m *mail) tlsRequiredNo() bool { return m.header != "" }

// victim is a mail server that the messages share.
type victim struct {
	name   string
	habits func(*mx.Behaviour)
	cert   func(l *lab) tls.Certificate
	a, b   func(tls.Certificate) ca.Record // its TLSA records, by turns
	proof  verdict.Proof                   // what it shows, DANE aside
	offers bool                            // REQUIRETLS
}

var (
	matching  = func(c tls.Certificate) ca.Record { return ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, c.Leaf) }
	matching2 = func(c tls.Certificate) ca.Record { return ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA512, c.Leaf) }
	another   = func(c tls.Certificate) ca.Record { return matching(c).Spoiled() }
	another2  = func(c tls.Certificate) ca.Record { return matching2(c).Spoiled() }

	trusted     = func(l *lab) tls.Certificate { return l.cert(ca.For(theHost)) }
	distrusted  = func(l *lab) tls.Certificate { return issue(l.t, l.strangers, ca.For(theHost)) }
	proofOfAll  = verdict.Proof{TLS: tls.VersionTLS13, WebPKI: theHost}
	proofOfTLS  = verdict.Proof{TLS: tls.VersionTLS13}
	withRequire = func(h *mx.Behaviour) { h.Keywords |= mx.RequireTLS }
)

var victims = []victim{
	{name: "trusted, matches A", cert: trusted, a: matching, b: another, proof: proofOfAll, habits: withRequire, offers: true},
	{name: "trusted, matches A and B", cert: trusted, a: matching, b: matching2, proof: proofOfAll},
	{name: "trusted, matches neither", cert: trusted, a: another, b: another2, proof: proofOfAll},
	{name: "self-signed, matches A", cert: distrusted, a: matching, b: another, proof: proofOfTLS, habits: withRequire, offers: true},
	{name: "self-signed, matches neither", cert: distrusted, a: another, b: another2, proof: proofOfTLS},
	{name: "plaintext", cert: trusted, a: matching, b: matching2, habits: func(h *mx.Behaviour) { h.TLS = mx.TLS{} }},
}

// records gives the set that is published for a message, and whether the
// server's certificate matches it.
func (v *victim) records(m *mail, cert tls.Certificate) (set dane.Set, record ca.Record, matches bool) {
	switch m.records {
	case 0:
		return dane.Set{}, record, false
	case 1:
		record = v.a(cert)
	case 2:
		record = v.b(cert)
	}
	set = dane.NewSet([]dane.Record{{Usage: dane.Usage(record.Usage), Selector: dane.Selector(record.Selector),
		Matching: dane.Matching(record.Matching), Data: record.Data}})
	for _, good := range []ca.Record{matching(cert), matching2(cert)} {
		matches = matches || good.String() == record.String()
	}
	return set, record, matches
}

// expected gives what the rules say of a message, and what a new connection
// for it proves.
func (v *victim) expected(m *mail, cert tls.Certificate) (verdict.Verdict, verdict.Proof) {
	set, _, matches := v.records(m, cert)
	facts := verdict.Facts{Host: theHost, Signed: m.domain == "signed.example"}
	if m.records != 0 {
		facts.TLSA = verdict.TLSA{State: verdict.TLSAPresent, Set: set, Base: theHost, Names: []string{theHost}}
	}
	if m.domain == "sts.example" {
		facts.STS = verdict.STS{State: verdict.STSFound, Policy: mtasts.Policy{Mode: mtasts.ModeEnforce, MX: []string{theHost}}}
	}
	rules := verdict.Rules{DNSSEC: m.policies.DNSSEC, DANE: m.policies.DANE, MTASTS: m.policies.MTASTS != nil}
	if m.policies.Local != nil {
		rules.MinTLS, rules.MinMX = m.policies.Local.MinTLS, m.policies.Local.MinMX
	}
	proof := v.proof
	if matches && proof.TLS != 0 {
		proof.DANE, proof.TLSA = &dane.Match{}, set.Fingerprint()
	}
	return verdict.Decide(facts, rules, m.demands()), proof
}

// TestPoisoning has every kind of message open a connection and every other
// find it idle. Whether it may be used is for the verdict on what the
// connection proved, with two rules on top: a connection that was opened
// without policies is for messages without, and TLSA records that have changed
// since retire it.
func TestPoisoning(t *testing.T) {
	t.Parallel()
	for i := range victims {
		t.Run(victims[i].name, func(t *testing.T) {
			t.Parallel()
			v := &victims[i]
			l := newLab(t)
			cert := v.cert(l)
			server := l.mx(theHost, func(h *mx.Behaviour) {
				h.TLS.Certificate = cert
				if v.habits != nil {
					v.habits(h)
				}
			})
			for _, domain := range []string{"plain.example", "signed.example", "sts.example"} {
				l.zone("%s. MX 10 %s.", domain, theHost)
			}
			l.signed("signed.example", "hosts.example")
			l.policy("sts.example", mtasts.ModeEnforce, theHost)
			l.idle = NewIdle(100)
			transports := make([]*Transport, len(poison))
			for i := range poison {
				l.start(func(c *Config) {
					c.MXAuth, c.RelaxedRequireTLS, c.ConnReuseLimit = poison[i].policies, !poison[i].strict, 1000
				})
				transports[i] = l.transport
			}
			t.Cleanup(l.idle.Stop)
			pass := func(i int) Result {
				m := &poison[i]
				l.dns.Remove(l.tlsaName(theHost), dns.TypeTLSA)
				if _, record, _ := v.records(m, cert); m.records != 0 {
					l.tlsa(theHost, record)
				}
				l.resolver.Flush(theHost)
				env := envelope("b@" + m.domain)
				env.RequireTLS = m.require
				return transports[i].Deliver(t.Context(), env, msg(t, m.header+text))[0]
			}
			for i := range poison {
				for j := range poison {
					first, second := &poison[i], &poison[j]
					l.idle.Retire(func(session.IdleConn) bool { return true })
					asked1, proof1 := v.expected(first, cert)
					asked2, proof2 := v.expected(second, cert)
					if got, want := pass(i).Code.Class == 2, v.passes(&asked1, &proof1); got != want {
						t.Errorf("%s, alone: delivered %v, want %v", first.name, got, want)
					} else if !want {
						continue // there is nothing to offer
					}
					enough := v.passes(&asked2, &proof1)
					current := first.tlsRequiredNo() || second.tlsRequiredNo() || proof1.TLSA == asked2.TLSA.Fingerprint()
					use := enough && current && (second.tlsRequiredNo() || !first.tlsRequiredNo())
					want := use || v.passes(&asked2, &proof2)

					before := server.Counters()
					r := pass(j)
					after := server.Counters()
					what := first.name + ", then " + second.name
					if got := r.Code.Class == 2; got != want {
						t.Errorf("%s: delivered %v, want %v: %v %s", what, got, want, r.Code, r.Text)
					}
					if got := strings.Contains(r.Text, "reused"); got != use {
						t.Errorf("%s: reused %v, want %v: %s", what, got, use, r.Text)
					}
					if dialled := after.Connections > before.Connections; dialled == use {
						t.Errorf("%s: a new connection %v, want %v", what, dialled, !use)
					}
					if delivered := after.Messages > before.Messages; delivered != want {
						t.Errorf("%s: the server got it: %v, want %v", what, delivered, want)
					}
					if !current && l.holds(proof1.TLSA) {
						t.Errorf("%s: the connection outlived the records that verified it", what)
					}
				}
			}
			// every message to it asks for TLS
			needs := map[string]bool{"signed.example": true}
			for _, m := range server.Messages() {
				_, domain, _ := strings.Cut(m.Recipients[0].Address, "@")
				if m.TLS == nil && needs[domain] {
					t.Errorf("a message to %s came in the clear", domain)
				}
			}
		})
	}
}

// passes says whether a connection that proved this may carry the message.
func (v *victim) passes(asked *verdict.Verdict, proof *verdict.Proof) bool {
	return asked.Judge(proof) == nil && asked.JudgeExtension(v.offers) == nil
}

// holds reports whether the pool has a connection that was proven by a set of
// TLSA records.
func (l *lab) holds(fingerprint string) (found bool) {
	l.idle.Retire(func(c session.IdleConn) bool {
		found = found || c.Proof.DANE != nil && c.Proof.TLSA == fingerprint
		return false
	})
	return found
}

// With all mechanisms on, a domain's policy changes under an idle connection.
func TestPolicyChangeRetires(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		world   []thing
		change  func(l *lab, cert tls.Certificate)
		require bool
		want    string
	}{
		{"nothing changes", []thing{signedMX, signedHost, selfMade, tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)},
			func(*lab, tls.Certificate) {}, true, "2.0.0 , reused"},
		{"other records, which match too", []thing{signedMX, signedHost, selfMade, tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)},
			func(l *lab, c tls.Certificate) { l.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.Cert, ca.SHA256, c.Leaf)) }, false, "2.0.0 , dane, TLS1.3, id"},
		{"other records, which do not", []thing{signedMX, signedHost, selfMade, tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)},
			func(l *lab, c tls.Certificate) {
				l.dns.Remove(l.tlsaName(theHost), dns.TypeTLSA)
				l.tlsa(theHost, matching(c).Spoiled())
			}, false, "4.7.5 DANE"},
		{"no records any more, of an unknown certificate", []thing{signedMX, signedHost, selfMade, tlsaOf(ca.DANEEE, ca.SPKI, ca.SHA256)},
			func(l *lab, _ tls.Certificate) { l.dns.Remove(l.tlsaName(theHost), dns.TypeTLSA) }, true, "5.7.30 REQUIRETLS"},
		{"first records", []thing{signedMX, signedHost},
			func(l *lab, c tls.Certificate) { l.tlsa(theHost, matching(c)) }, false, "2.0.0 , dane, TLS1.3, id"},
		{"first policy, of an unknown certificate", []thing{selfMade},
			func(l *lab, _ tls.Certificate) { l.policy(theDomain, mtasts.ModeEnforce, theHost) }, false, "4.7.5 MTA-STS"},
		{"first policy, which the certificate meets", nil,
			func(l *lab, _ tls.Certificate) { l.policy(theDomain, mtasts.ModeEnforce, theHost) }, false, "2.0.0 , mtasts, TLS1.3, reused"},
		{"another policy, which does not list the host", []thing{stsEnforce},
			func(l *lab, _ tls.Certificate) { l.policy(theDomain, mtasts.ModeEnforce, "elsewhere.example") }, false, "4.7.5 MTA-STS policy does not list"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.idle = NewIdle(10)
			server := (&scene{world: tt.world}).set(l)
			t.Cleanup(l.idle.Stop)
			expect(t, l.send("b@"+theDomain), "2.0.0 ")
			tt.change(l, server.Behaviour().TLS.Certificate)
			l.resolver.Flush(theHost) // the records' TTL is over
			code, part, _ := strings.Cut(tt.want, " ")
			r := l.sendAs(func(e *Envelope) { e.RequireTLS = tt.require }, "b@"+theDomain)[0]
			if r.Code.String() != code || !strings.Contains(r.Text, part) {
				t.Errorf("%v %s\nwant %s", r.Code, r.Text, tt.want)
			}
		})
	}
}

// What one transport, or one of its overrides, set up is never another's: they
// differ in what they are, by address, certificate or hostname.
func TestTransportsDoNotShare(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx(theHost, nil)
	l.zone("a.example. MX 10 %s.\nb.example. MX 10 %[1]s.", theHost)
	l.idle = NewIdle(10)
	var transports []*Transport
	for _, name := range []string{"default", "other"} {
		l.start(func(c *Config) {
			over := *c
			c.Name, over.Name = name, name
			over.MXAuth.Local = &LocalPolicy{MinTLS: verdict.TLSEncrypted}
			c.Overrides = []Override{{Match: "b.example", Config: &over}}
		})
		transports = append(transports, l.transport)
	}
	t.Cleanup(l.idle.Stop)
	for round := range 2 {
		for _, tr := range transports {
			for _, to := range []string{"x@a.example", "x@b.example"} {
				r := tr.Deliver(t.Context(), envelope(to), msg(t, text))[0]
				if r.Code.Class != 2 || strings.Contains(r.Text, "reused") != (round == 1) {
					t.Errorf("%s, round %d: %v %s", to, round, r.Code, r.Text)
				}
			}
		}
	}
	if c := server.Counters(); c.Connections != 4 {
		t.Errorf("%d connections, want one for each transport and override", c.Connections)
	}
}

// tlsaName is where the TLSA records of a host are.
func (l *lab) tlsaName(host string) string { return fmt.Sprintf("_%d._tcp.%s.", l.port, host) }
