package e2e

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
)

// What the policies refuse stays in a real Exim's queue, with a reason in its
// log that says what to mend, and goes at the next try after that: nothing is
// restarted. MTA-STS is what Exim does not have by itself.
func TestPoliciesThroughExim(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	good := n.add(t, domainSpec{name: "sts-good", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{valid}})
	bad := n.add(t, domainSpec{name: "sts-bad", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{selfSigned}})
	dane := n.add(t, domainSpec{name: "dane", hosts: []hostSpec{mismatched}})
	header := n.add(t, domainSpec{name: "header", signing: dnssec.Unsigned, hosts: []hostSpec{{behaviour: requireTLS}}})
	n.serve(t, n.front(t).Addr())
	parts, err := n.eximParts(n.d)
	if err != nil {
		t.Fatal(err)
	}
	x := anotherExim(t, parts)

	id := x.submit(t, note("a@"+keepDomain, "b@"+good.name))
	if h := x.sent(t, id, 1); !regexp.MustCompile(`^2\.0\.0 mx1\.sts-good\.example: .*, mtasts, TLS1\.3`).MatchString(h.text) {
		t.Errorf("sent, but not by MTA-STS: %+v", h)
	}

	for _, c := range []struct {
		d           *domain
		reason, how string
		mend        func(h *host) error
	}{
		// RFC 8461 §5: delivered with a valid certificate, kept without.
		{bad, `mx1\.sts-bad\.example: MTA-STS: x509`, ", mtasts, ", func(h *host) error {
			cert, err := n.ca.Issue(ca.For(h.name))
			h.show(cert)
			return err
		}},
		// RFC 7672 §2.2: a mismatch is no reason to fall back to less.
		{dane, `mx1\.dane\.example: DANE: no TLSA record matches: 3 1 1 [0-9a-f]{8,}.*the server has 3 1 1 [0-9a-f]{8,}`, ", dane, ",
			func(h *host) error { return n.zones.Set(h.record(goodTLSA)) }},
	} {
		t.Run(c.d.name, func(t *testing.T) {
			h := c.d.hosts[0]
			id := x.submit(t, note("a@"+keepDomain, "b@"+c.d.name))
			x.deferred(t, id, 1, `4\.7\.5`, c.reason)
			// Trying again changes nothing as long as nothing was mended.
			x.retry(t, id)
			x.deferred(t, id, 2, `4\.7\.5`, c.reason)
			h.untouched(t)
			if err := c.mend(h); err != nil {
				t.Fatal(err)
			}
			if last := x.retried(t, id); !strings.Contains(last.text, c.how) {
				t.Errorf("sent, but without %q: %+v", c.how, last)
			}
			if h.bodies() != 1 {
				t.Errorf("%s got %d messages, want 1", h.name, h.bodies())
			}
		})
	}

	// RFC 8689 §5: what must not go without TLS is refused for good, and the
	// sender is told why.
	t.Run("Require-TLS-ESMTP", func(t *testing.T) {
		m := note("sender@"+keepDomain, "b@"+header.name)
		m.text = append([]byte("Require-TLS-ESMTP: yes\n"), m.text...)
		id := x.submit(t, m)
		if h := x.tries(t, id, 1)[0]; h.status != "bounced" || !strings.HasPrefix(h.text, "5.7.30 mx1.header.example: REQUIRETLS: ") {
			t.Errorf("where nothing vouches: %+v", h)
		}
		header.hosts[0].untouched(t)
		if bounce := x.arrived(t, m.from); !strings.Contains(string(bounce.text), "5.7.30 mx1.header.example: ") {
			t.Errorf("the bounce does not tell the reason:\n%s", bounce.text)
		}
	})
}

// retried has Exim try a message again and again, until it is sent: caches
// between here and what was mended need a moment. It gives the try that went
// well.
func (x *exim) retried(t *testing.T, id string) attempt {
	t.Helper()
	late, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		x.retry(t, id)
		list := x.attempts(id)
		last := list[len(list)-1]
		switch {
		case last.status == "sent":
			x.done(t, id)
			return last
		case last.status != "deferred":
			t.Fatalf("the message did not stay: %+v", last)
		case late.Err() != nil:
			t.Fatalf("not sent within %s: %+v", patience, last)
		}
	}
}
