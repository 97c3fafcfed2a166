package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

var (
	selfSigned = hostSpec{cert: ca.Spec{SelfSigned: true}}
	withDANE   = hostSpec{cert: ca.Spec{SelfSigned: true}, tlsa: goodTLSA}
	mismatched = hostSpec{cert: ca.Spec{SelfSigned: true}, tlsa: wrongTLSA}
	valid      = hostSpec{} // by WebPKI, and without TLSA records
)

// A real Unbound validates, mxpolicyd believes its AD, and mxpipe says what
// came of it.
func TestPoliciesBehindUnbound(t *testing.T) {
	t.Parallel()
	n := newInternet(t)

	type expectation struct {
		name  string
		spec  domainSpec
		fault func(d *domain)
		flags []string
		exit  int
		line  string // what mxpipe prints, as a regular expression
		// the host that gets the message, counted from 1; 0: none
		deliverTo int
		log       string // what the log tells beside, as a regular expression
	}
	cases := []expectation{
		// RFC 7672 §3.1.1: with DANE-EE the names in the certificate and who
		// signed it do not count.
		{name: "secure", spec: domainSpec{name: "secure", hosts: []hostSpec{withDANE}},
			line: `^2\.0\.0 mx1\.secure\.example: 250 .*, dane, TLS1\.3`, deliverTo: 1,
			log: `host=mx1\.secure\.example.* tls_level=authenticated mx_level=dnssec`},
		// RFC 7672 §2.1.1: TLSA records of an insecure zone are not used, not
		// even against a certificate they do not fit.
		{name: "insecure", spec: domainSpec{name: "insecure", signing: dnssec.Unsigned, hosts: []hostSpec{mismatched}},
			line: `^2\.0\.0 mx1\.insecure\.example: 250 .*, encrypted, TLS1\.3`, deliverTo: 1,
			log: `host=mx1\.insecure\.example.* tls_level=encrypted mx_level=none`},
		{name: "signed, but no DS", spec: domainSpec{name: "no-ds", signing: dnssec.NoDS, hosts: []hostSpec{mismatched}},
			line: `^2\.0\.0 .*, encrypted, `, deliverTo: 1},
		// DESIGN §7: SERVFAIL is temporary and never a bounce, whatever stands
		// behind it.
		{name: "bogus", spec: domainSpec{name: "bogus", signing: dnssec.BadSignatures, hosts: []hostSpec{withDANE}},
			exit: 75, line: `^4\.4\.3 .*bogus\.example\. MX: SERVFAIL`},
		{name: "expired signatures", spec: domainSpec{name: "expired", signing: dnssec.Expired, hosts: []hostSpec{withDANE}},
			exit: 75, line: `^4\.4\.3 .*expired\.example\. MX: SERVFAIL`},
		{name: "signatures stripped", spec: domainSpec{name: "stripped", signing: dnssec.Stripped, hosts: []hostSpec{withDANE}},
			exit: 75, line: `^4\.4\.3 .*stripped\.example\. MX: SERVFAIL`},
		{name: "no signature on the addresses", spec: domainSpec{name: "no-a", hosts: []hostSpec{withDANE}},
			fault: func(d *domain) { n.zones.Fault(d.hosts[0].name, dns.TypeA, dnssec.NoSignature) },
			exit:  75, line: `^4\.4\.3 mx1\.no-a\.example: `},
		// RFC 7672 §2.1.2: a TLSA look-up that fails counts as a host that can
		// not be used.
		{name: "a broken TLSA RRset", spec: domainSpec{name: "tlsa", hosts: []hostSpec{withDANE}},
			fault: func(d *domain) { n.zones.Fault(d.hosts[0].owner(), dns.TypeTLSA, dnssec.BadSignature) },
			exit:  75, line: `^4\.7\.5 mx1\.tlsa\.example: the TLSA records cannot be looked up: `},
		// RFC 7672 §2.2, DESIGN §7: one host's bad DNS spoils only that host.
		{name: "a broken TLSA RRset at the first of two hosts", spec: domainSpec{name: "tlsa2", hosts: []hostSpec{withDANE, withDANE}},
			fault: func(d *domain) { n.zones.Fault(d.hosts[0].owner(), dns.TypeTLSA, dnssec.ExpiredSignature) },
			line:  `^2\.0\.0 mx2\.tlsa2\.example: 250 .*, dane, `, deliverTo: 2,
			log: `host=mx2\.tlsa2\.example.* tried="4\.7\.5 mx1\.tlsa2\.example: the TLSA records cannot be looked up`},
		// RFC 7672 §2.2: a mismatch is no reason to fall back to less.
		{name: "DANE mismatch", spec: domainSpec{name: "mismatch", hosts: []hostSpec{mismatched}},
			exit: 75, line: `^4\.7\.5 mx1\.mismatch\.example: DANE: no TLSA record matches: 3 1 1 [0-9a-f]+.*; the server has 3 1 1 `},
		{name: "DANE mismatch at the first of two hosts", spec: domainSpec{name: "mismatch2", hosts: []hostSpec{mismatched, withDANE}},
			line: `^2\.0\.0 mx2\.mismatch2\.example: `, deliverTo: 2},
		// RFC 7672 §2.2: with usable TLSA records STARTTLS that is not offered
		// is an attack, not a reason for plaintext.
		{name: "DANE without STARTTLS", spec: domainSpec{name: "stripping", hosts: []hostSpec{{tlsa: goodTLSA, behaviour: plaintext}}},
			exit: 75, line: `^4\.7\.5 mx1\.stripping\.example: DANE: the server does not offer STARTTLS`},

		// RFC 8461 §5: enforce, with a certificate that is valid for the host's
		// name, and with others.
		{name: "MTA-STS", spec: domainSpec{name: "sts", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{valid}},
			line: `^2\.0\.0 mx1\.sts\.example: 250 .*, mtasts, TLS1\.3`, deliverTo: 1,
			log: `host=mx1\.sts\.example.* tls_level=authenticated mx_level=mtasts`},
		{name: "MTA-STS, expired certificate", spec: domainSpec{name: "sts-expired", signing: dnssec.Unsigned, policy: "enforce",
			hosts: []hostSpec{{cert: ca.ExpiredFor("mx1.sts-expired.example")}}},
			exit: 75, line: `^4\.7\.5 mx1\.sts-expired\.example: MTA-STS: .*expired`},
		{name: "MTA-STS, certificate for another name", spec: domainSpec{name: "sts-name", signing: dnssec.Unsigned, policy: "enforce",
			hosts: []hostSpec{{cert: ca.For("elsewhere.example")}}},
			exit: 75, line: `^4\.7\.5 mx1\.sts-name\.example: MTA-STS: .*mx1\.sts-name\.example`},
		{name: "MTA-STS without STARTTLS", spec: domainSpec{name: "sts-plain", signing: dnssec.Unsigned, policy: "enforce",
			hosts: []hostSpec{{behaviour: plaintext}}},
			exit: 75, line: `^4\.7\.5 mx1\.sts-plain\.example: MTA-STS: the server does not offer STARTTLS`},
		// RFC 8461 §4.1: a host that the policy does not list is skipped, good
		// certificate or not.
		{name: "MTA-STS, the first host not listed", spec: domainSpec{name: "sts-mx", signing: dnssec.Unsigned, policy: "enforce",
			listed: []string{"mx2.sts-mx.example"}, hosts: []hostSpec{valid, valid}},
			line: `^2\.0\.0 mx2\.sts-mx\.example: 250 .*, mtasts, `, deliverTo: 2,
			log: `tried="4\.7\.5 mx1\.sts-mx\.example: the domain's MTA-STS policy does not list this host"`},
		{name: "MTA-STS, no host listed", spec: domainSpec{name: "sts-none", signing: dnssec.Unsigned, policy: "enforce",
			listed: []string{"mx.elsewhere.example"}, hosts: []hostSpec{valid}},
			exit: 75, line: `^4\.7\.5 mx1\.sts-none\.example: the domain's MTA-STS policy does not list this host`},
		// RFC 8461 §5: in testing mode mail is delivered, and what would have
		// stopped it is told.
		{name: "MTA-STS testing", spec: domainSpec{name: "sts-testing", signing: dnssec.Unsigned, policy: "testing", hosts: []hostSpec{selfSigned}},
			line: `^2\.0\.0 mx1\.sts-testing\.example: 250 `, deliverTo: 1,
			log: `delivered.*host=mx1\.sts-testing\.example.*testing="MTA-STS testing: x509`},
		// RFC 8461 §2: MTA-STS never overrides a failing DANE.
		{name: "MTA-STS fulfilled, DANE not", spec: domainSpec{name: "both", policy: "enforce", hosts: []hostSpec{{tlsa: wrongTLSA}}},
			exit: 75, line: `^4\.7\.5 mx1\.both\.example: DANE: `},

		// RFC 8689 §4.2.1: REQUIRETLS needs somebody to vouch for the host's
		// name, and a certificate that proves it.
		{name: "REQUIRETLS, nothing vouches", spec: domainSpec{name: "rt-none", signing: dnssec.Unsigned, hosts: []hostSpec{valid}},
			flags: []string{"--requiretls"}, exit: 69,
			line: `^5\.7\.30 mx1\.rt-none\.example: REQUIRETLS: neither DNSSEC nor MTA-STS verifies this host`},
		{name: "REQUIRETLS, certificate not valid", spec: domainSpec{name: "rt-cert", hosts: []hostSpec{selfSigned}},
			flags: []string{"--requiretls"}, exit: 69, line: `^5\.7\.30 mx1\.rt-cert\.example: REQUIRETLS: `},
		{name: "REQUIRETLS by DANE", spec: domainSpec{name: "rt-dane", hosts: []hostSpec{{cert: selfSigned.cert, tlsa: goodTLSA, behaviour: requireTLS}}},
			flags: []string{"--requiretls"}, line: `^2\.0\.0 mx1\.rt-dane\.example: `, deliverTo: 1},
		{name: "REQUIRETLS by MTA-STS", spec: domainSpec{name: "rt-sts", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{{behaviour: requireTLS}}},
			flags: []string{"--requiretls"}, line: `^2\.0\.0 mx1\.rt-sts\.example: `, deliverTo: 1},
	}
	made := make([]*domain, len(cases))
	for i, c := range cases {
		made[i] = n.add(t, c.spec)
		if c.fault != nil {
			c.fault(made[i])
		}
	}
	n.serve(t, n.unbound(t).Addr())
	t.Run("all", func(t *testing.T) {
		for i, c := range cases {
			d := made[i]
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				got := n.send(t, d, c.flags...)
				if got.exit != c.exit || !regexp.MustCompile(c.line).MatchString(got.line) {
					t.Errorf("%s; want exit %d: %s", got, c.exit, c.line)
				}
				for i, h := range d.hosts {
					if i+1 != c.deliverTo {
						h.untouched(t)
						continue
					}
					if h.bodies() != 1 {
						t.Fatalf("%s got %d messages, want 1", h.name, h.bodies())
					}
					_, asked := h.Messages()[0].Param("REQUIRETLS")
					if want := len(c.flags) > 0; asked != want {
						t.Errorf("MAIL with REQUIRETLS: %v, want %v (RFC 8689 §4.2.1)", asked, want)
					}
				}
				if c.log != "" {
					n.d.logged(t, c.log)
				}
			})
		}
	})
}

func plaintext(h *mx.Behaviour) { h.TLS = mx.TLS{} }

func requireTLS(h *mx.Behaviour) { h.Keywords |= mx.RequireTLS }

// What the policies refuse stays in a real Postfix's queue, with a reason in
// its log that says what to mend, and goes at the next try after that: nothing
// is restarted.
func TestPoliciesThroughPostfix(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	dane := n.add(t, domainSpec{name: "dane", hosts: []hostSpec{mismatched}})
	broken := n.add(t, domainSpec{name: "broken", hosts: []hostSpec{withDANE}})
	expired := n.add(t, domainSpec{name: "expired", hosts: []hostSpec{withDANE}})
	good := n.add(t, domainSpec{name: "sts-good", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{valid}})
	bad := n.add(t, domainSpec{name: "sts-bad", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{selfSigned}})
	nobodyVouches := n.add(t, domainSpec{name: "header-none", signing: dnssec.Unsigned, hosts: []hostSpec{{behaviour: requireTLS}}})
	verified := n.add(t, domainSpec{name: "header-dane", hosts: []hostSpec{{cert: selfSigned.cert, tlsa: goodTLSA, behaviour: requireTLS}}})
	late := n.add(t, domainSpec{name: "late", hosts: []hostSpec{withDANE}})
	n.zones.Fault(broken.hosts[0].owner(), dns.TypeTLSA, dnssec.BadSignature)
	n.zones.Fault(expired.name, dns.TypeMX, dnssec.ExpiredSignature)
	resolver := n.unbound(t)
	n.serve(t, resolver.Addr())
	p := n.postfix(t)

	// refused submits a message and asserts that it stays for the reason given;
	// then mend mends, and it goes.
	refused := func(t *testing.T, d *domain, dsn, reason string, mend func() error) attempt {
		t.Helper()
		h := d.hosts[0]
		id := p.submit(t, note("a@"+keepDomain, "b@"+d.name))
		p.deferred(t, id, 1, dsn, reason)
		// Trying again changes nothing as long as nothing was mended.
		p.retry(t, id)
		p.deferred(t, id, 2, dsn, reason)
		h.untouched(t)
		if err := mend(); err != nil {
			t.Fatal(err)
		}
		f := p.flushed(t, id)
		if h.bodies() != 1 {
			t.Errorf("%s got %d messages, want 1", h.name, h.bodies())
		}
		return f
	}

	t.Run("at once", func(t *testing.T) {
		// Issue 3: "a DANE mismatch is deferred with a text that names host,
		// record and reason"; RFC 7672 §2.2.
		t.Run("DANE mismatch", func(t *testing.T) {
			t.Parallel()
			h := dane.hosts[0]
			f := refused(t, dane, `4\.7\.5`, `mx1\.dane\.example: DANE: no TLSA record matches: 3 1 1 [0-9a-f]{8,}.*the server has 3 1 1 [0-9a-f]{8,}`,
				func() error { return n.zones.Set(h.record(goodTLSA)) })
			if !strings.Contains(f.text, ", dane, ") {
				t.Errorf("sent, but not by DANE: %s", f.text)
			}
		})
		// RFC 7672 §2.1.2: records that cannot be validated.
		t.Run("broken TLSA signature", func(t *testing.T) {
			t.Parallel()
			refused(t, broken, `4\.7\.5`, `mx1\.broken\.example: the TLSA records cannot be looked up: `, func() error {
				n.zones.Fault(broken.hosts[0].owner(), dns.TypeTLSA, dnssec.Sound)
				return nil
			})
		})
		// RFC 4035 §5.5: bogus MX records are SERVFAIL, which is temporary
		// whatever the message asks for.
		t.Run("expired signature", func(t *testing.T) {
			t.Parallel()
			refused(t, expired, `4\.4\.3`, `expired\.example\. MX: SERVFAIL`, func() error {
				n.zones.Fault(expired.name, dns.TypeMX, dnssec.Sound)
				return nil
			})
		})
		// RFC 8461 §5: delivered with a valid certificate, kept without.
		t.Run("MTA-STS", func(t *testing.T) {
			t.Parallel()
			id := p.submit(t, note("a@"+keepDomain, "b@"+good.name))
			if f := p.sent(t, id, 1); !strings.Contains(f.text, ", mtasts, ") {
				t.Errorf("sent, but not by MTA-STS: %s", f.text)
			}
			h := bad.hosts[0]
			f := refused(t, bad, `4\.7\.5`, `mx1\.sts-bad\.example: MTA-STS: x509`, func() error {
				cert, err := n.ca.Issue(ca.For(h.name))
				h.show(cert)
				return err
			})
			if !strings.Contains(f.text, ", mtasts, ") {
				t.Errorf("sent, but not by MTA-STS: %s", f.text)
			}
		})
		// DESIGN §7: Postfix carries REQUIRETLS by a header field; RFC 8689 §5:
		// it is refused for good with 5.7.30.
		t.Run("Require-TLS-ESMTP", func(t *testing.T) {
			t.Parallel()
			m := note("sender@"+keepDomain, "b@"+nobodyVouches.name)
			m.text = append([]byte("Require-TLS-ESMTP: yes\n"), m.text...)
			f := p.tries(t, p.submit(t, m), 1)[0]
			if f.status != "bounced" || f.dsn != "5.7.30" || !strings.Contains(f.text, "mx1.header-none.example: REQUIRETLS: ") {
				t.Errorf("where nothing vouches: %+v", f)
			}
			nobodyVouches.hosts[0].untouched(t)
			if bounce := p.arrived(t, "sender@"+keepDomain); !strings.Contains(string(bounce.text), "5.7.30") {
				t.Errorf("the bounce does not tell the code:\n%s", bounce.text)
			}
			m.to = []string{"b@" + verified.name}
			p.sent(t, p.submit(t, m), 1)
			messages := verified.hosts[0].Messages()
			if len(messages) != 1 {
				t.Fatalf("%d messages where DANE vouches", len(messages))
			}
			if _, ok := messages[0].Param("REQUIRETLS"); !ok {
				t.Errorf("it went on without REQUIRETLS: %q", messages[0].Params)
			}
			// Without the field the same domain takes mail.
			m = note("a@"+keepDomain, "b@"+nobodyVouches.name)
			p.sent(t, p.submit(t, m), 1)
		})
	})

	// DESIGN §7: "resolver down: temporary 4.4.3, never a bounce"; the mail
	// goes when it is back.
	t.Run("Unbound stopped", func(t *testing.T) {
		resolver.Stop()
		id := p.submit(t, note("a@"+keepDomain, "b@"+late.name))
		p.deferred(t, id, 1, `4\.4\.3`, `late\.example\. MX: resolver unreachable`)
		late.hosts[0].untouched(t)
		if err := resolver.Restart(t.Context()); err != nil {
			t.Fatal(err)
		}
		if f := p.flushed(t, id); !strings.Contains(f.text, ", dane, ") {
			t.Errorf("sent, but not by DANE: %s", f.text)
		}
		if got := late.hosts[0].bodies(); got != 1 {
			t.Errorf("%d messages arrived, want 1", got)
		}
	})
}
