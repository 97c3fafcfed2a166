package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// frontEnd is how a mail server hands messages to the daemon.
type frontEnd struct {
	name      string
	server    mailServer
	transport string // serves the domains below it
}

// frontEnds are those that the outcomes are compared over.
func (w *world) frontEnds() []frontEnd {
	return []frontEnd{
		{"Postfix, pipe", w.out, "mxpipe"},
		{"Postfix, LMTP", w.out, "lmtp"},
		{"Exim, pipe", w.exim, "mxpipe"},
		{"Exim, LMTP", w.exim, "lmtp"},
	}
}

// Of whatever comes of a delivery, all mail servers make the same, over each
// way in: the table is what an administrator can rely on.
func TestOutcomes(t *testing.T) {
	t.Parallel()
	at := func(stage mx.Stage, action mx.Action) func(*mx.Behaviour) {
		return func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{stage: action} }
	}
	says := func(stage mx.Stage, reply string) func(*mx.Behaviour) { return at(stage, mx.Action{Reply: reply}) }
	leaves := func(stage mx.Stage) func(*mx.Behaviour) { return at(stage, mx.Action{Drop: mx.Close}) }
	rcpt := func(reply string) func(*mx.Behaviour) {
		return func(h *mx.Behaviour) { h.Recipients = []mx.Rule{{Local: "*", Reply: reply}} }
	}
	zone := func(records string) func(t *testing.T, domain string) {
		return func(t *testing.T, domain string) {
			if err := lab(t).dns.Add(strings.ReplaceAll(records, "DOMAIN", domain)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, c := range []struct {
		name      string
		behaviour func(h *mx.Behaviour)
		zone      func(t *testing.T, domain string) // instead of a mail server
		mail      func(m *mail)
		status    string
		code      string
		// what the log has of the reason, as a regular expression
		text string
	}{
		{name: "taken", status: "sent", code: "2.0.0", text: "queued as LAB"},
		{name: "taken, then gone", behaviour: leaves(mx.StageDone), status: "sent", code: "2.0.0"},
		{name: "no PIPELINING, no CHUNKING", behaviour: func(h *mx.Behaviour) { h.Keywords = 0 }, status: "sent", code: "2.0.0"},
		{name: "HELO only", behaviour: says(mx.StageEHLO, "502 5.5.1 what?"), status: "sent", code: "2.0.0"},
		{name: "STARTTLS refused", behaviour: func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSRefused }, status: "sent", code: "2.0.0", text: "plain"},
		{name: "TLS broken", behaviour: func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSBroken }, status: "sent", code: "2.0.0", text: "plain"},

		{name: "greeting 421", behaviour: says(mx.StageGreeting, "421 4.3.2 down for a while"), status: "deferred", code: "4.3.2", text: "down for a while"},
		{name: "greeting 554", behaviour: says(mx.StageGreeting, "554 5.3.2 no mail here"), status: "bounced", code: "5.3.2", text: "no mail here"},
		{name: "no greeting", behaviour: leaves(mx.StageGreeting), status: "deferred", code: "4.4.2"},
		{name: "greeting is not SMTP", behaviour: says(mx.StageGreeting, "HTTP/1.1 400 Bad Request"), status: "deferred", code: "4.5.0"},
		{name: "lost at EHLO", behaviour: leaves(mx.StageEHLO), status: "deferred", code: "4.4.2"},
		{name: "MAIL 450", behaviour: says(mx.StageMAIL, "450 4.7.1 greylisted"), status: "deferred", code: "4.7.1", text: "greylisted"},
		{name: "MAIL 550", behaviour: says(mx.StageMAIL, "550 5.7.1 not from you"), status: "bounced", code: "5.7.1", text: "not from you"},
		{name: "MAIL 421", behaviour: says(mx.StageMAIL, "421 4.7.0 too many"), status: "deferred", code: "4.7.0"},
		{name: "lost at MAIL", behaviour: leaves(mx.StageMAIL), status: "deferred", code: "4.4.2"},
		{name: "RCPT 450", behaviour: rcpt("450 4.2.1 busy"), status: "deferred", code: "4.2.1", text: "busy"},
		{name: "RCPT 451 without a code", behaviour: rcpt("451 later"), status: "deferred", code: "4.0.0", text: "later"},
		{name: "RCPT 452", behaviour: rcpt("452 4.2.2 mailbox full"), status: "deferred", code: "4.2.2"},
		{name: "RCPT 550 5.1.1", behaviour: rcpt("550 5.1.1 no such user"), status: "bounced", code: "5.1.1", text: "no such user"},
		{name: "RCPT 550 without a code", behaviour: rcpt("550 unknown"), status: "bounced", code: "5.0.0", text: "550 unknown"},
		{name: "RCPT 552", behaviour: rcpt("552 5.2.2 mailbox full"), status: "bounced", code: "5.2.2"},
		{name: "RCPT 550 4.7.1", behaviour: rcpt("550 4.7.1 a muddle"), status: "bounced", code: "5.7.1"},
		{name: "RCPT 421", behaviour: rcpt("421 4.3.2 closing"), status: "deferred", code: "4.3.2"},
		{name: "DATA 554", behaviour: func(h *mx.Behaviour) { says(mx.StageDATA, "554 5.7.1 no")(h); h.Keywords &^= mx.Chunking }, status: "bounced", code: "5.7.1"},
		{name: "DATA 451", behaviour: func(h *mx.Behaviour) { says(mx.StageDATA, "451 4.3.0 no")(h); h.Keywords &^= mx.Chunking }, status: "deferred", code: "4.3.0"},
		{name: "lost in the body", behaviour: leaves(mx.StageBody), status: "deferred", code: "4.4.2"},
		{name: "lost before the last reply", behaviour: leaves(mx.StageFinal), status: "deferred", code: "4.4.2"},
		{name: "content refused", behaviour: says(mx.StageFinal, "550 5.7.1 spam"), status: "bounced", code: "5.7.1", text: "spam"},
		{name: "content deferred", behaviour: says(mx.StageFinal, "451 4.7.1 try later"), status: "deferred", code: "4.7.1", text: "try later"},
		{name: "too large for SIZE", behaviour: func(h *mx.Behaviour) { h.Size = 100 }, status: "bounced", code: "5.3.4"},
		{name: "no SMTPUTF8", behaviour: func(h *mx.Behaviour) { h.Keywords &^= mx.SMTPUTF8 },
			mail: func(m *mail) { m.params, m.to[0] = "SMTPUTF8", "jos\u00e9"+m.to[0] }, status: "bounced", code: "5.6.7"},

		{name: "no such domain", zone: func(*testing.T, string) {}, status: "bounced", code: "5.4.4", text: "does not exist"},
		{name: "null MX", zone: zone("DOMAIN. MX 0 ."), status: "bounced", code: "5.1.10"},
		{name: "SERVFAIL", zone: func(t *testing.T, domain string) { lab(t).dns.SetFault(domain, dns.TypeMX, labdns.ServFail) }, status: "deferred", code: "4.4.3"},
		{name: "nothing listens", zone: zone("DOMAIN. MX 10 mx.DOMAIN.\nmx.DOMAIN. A 127.25.255.254"), status: "deferred", code: "4.4.1", text: "refused"},
		{name: "no address", zone: zone("DOMAIN. MX 10 mx.DOMAIN.\nmx.DOMAIN. TXT x"), status: "bounced", code: "5.4.4"},
		{name: "ourselves", zone: zone("DOMAIN. MX 10 out.e2e.example."), status: "bounced", code: "5.4.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := lab(t)
			for _, front := range w.frontEnds() {
				t.Run(front.name, func(t *testing.T) {
					var s *mx.Server
					domain := w.newDomain(front.transport)
					if c.zone != nil {
						c.zone(t, domain)
					} else {
						behaviour := modern(t)
						if c.behaviour != nil {
							c.behaviour(&behaviour)
						}
						s, domain = remote(t, front.transport, behaviour)
					}
					m := note("a@"+keepDomain, "b@"+domain)
					if c.mail != nil {
						c.mail(&m)
					}
					f := front.server.tries(t, front.server.submit(t, m), 1)[0]
					if f.status != c.status || f.dsn != c.code || !regexp.MustCompile(c.text).MatchString(f.text) {
						t.Errorf("%+v\nwant %s %s with %q", f, c.status, c.code, c.text)
					}
					taken := map[string]int{"sent": 1}[c.status]
					if s != nil && s.Counters().Messages != taken {
						t.Errorf("%d messages were delivered", s.Counters().Messages)
					}
				})
			}
		})
	}
}
