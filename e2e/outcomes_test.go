package e2e

import (
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	labdns "github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// way is how a mail server hands messages to the daemon.
type way struct {
	name      string
	server    mailServer
	transport string // serves the domains below it
}

// ways are those that the outcomes are compared over.
func (w *world) ways() []way {
	return []way{
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
	at := func(stage mx.Stage, act mx.Action) func(*mx.Behaviour) {
		return func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{stage: act} }
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
		name   string
		habits func(h *mx.Behaviour)
		zone   func(t *testing.T, domain string) // instead of a mail server
		mail   func(m *mail)
		status string
		code   string
		text   string // what the log has of the reason, as a regular expression
	}{
		{name: "taken", status: "sent", code: "2.0.0", text: "queued as LAB"},
		{name: "taken, then gone", habits: leaves(mx.StageDone), status: "sent", code: "2.0.0"},
		{name: "no PIPELINING, no CHUNKING", habits: func(h *mx.Behaviour) { h.Keywords = 0 }, status: "sent", code: "2.0.0"},
		{name: "HELO only", habits: says(mx.StageEHLO, "502 5.5.1 what?"), status: "sent", code: "2.0.0"},
		{name: "STARTTLS refused", habits: func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSRefused }, status: "sent", code: "2.0.0", text: "plain"},
		{name: "TLS broken", habits: func(h *mx.Behaviour) { h.TLS.Mode = mx.TLSBroken }, status: "sent", code: "2.0.0", text: "plain"},

		{name: "greeting 421", habits: says(mx.StageGreeting, "421 4.3.2 down for a while"), status: "deferred", code: "4.3.2", text: "down for a while"},
		{name: "greeting 554", habits: says(mx.StageGreeting, "554 5.3.2 no mail here"), status: "bounced", code: "5.3.2", text: "no mail here"},
		{name: "no greeting", habits: leaves(mx.StageGreeting), status: "deferred", code: "4.4.2"},
		{name: "greeting is not SMTP", habits: says(mx.StageGreeting, "HTTP/1.1 400 Bad Request"), status: "deferred", code: "4.5.0"},
		{name: "lost at EHLO", habits: leaves(mx.StageEHLO), status: "deferred", code: "4.4.2"},
		{name: "MAIL 450", habits: says(mx.StageMAIL, "450 4.7.1 greylisted"), status: "deferred", code: "4.7.1", text: "greylisted"},
		{name: "MAIL 550", habits: says(mx.StageMAIL, "550 5.7.1 not from you"), status: "bounced", code: "5.7.1", text: "not from you"},
		{name: "MAIL 421", habits: says(mx.StageMAIL, "421 4.7.0 too many"), status: "deferred", code: "4.7.0"},
		{name: "lost at MAIL", habits: leaves(mx.StageMAIL), status: "deferred", code: "4.4.2"},
		{name: "RCPT 450", habits: rcpt("450 4.2.1 busy"), status: "deferred", code: "4.2.1", text: "busy"},
		{name: "RCPT 451 without a code", habits: rcpt("451 later"), status: "deferred", code: "4.0.0", text: "later"},
		{name: "RCPT 452", habits: rcpt("452 4.2.2 mailbox full"), status: "deferred", code: "4.2.2"},
		{name: "RCPT 550 5.1.1", habits: rcpt("550 5.1.1 no such user"), status: "bounced", code: "5.1.1", text: "no such user"},
		{name: "RCPT 550 without a code", habits: rcpt("550 unknown"), status: "bounced", code: "5.0.0", text: "550 unknown"},
		{name: "RCPT 552", habits: rcpt("552 5.2.2 mailbox full"), status: "bounced", code: "5.2.2"},
		{name: "RCPT 550 4.7.1", habits: rcpt("550 4.7.1 a muddle"), status: "bounced", code: "5.7.1"},
		{name: "RCPT 421", habits: rcpt("421 4.3.2 closing"), status: "deferred", code: "4.3.2"},
		{name: "DATA 554", habits: func(h *mx.Behaviour) { says(mx.StageDATA, "554 5.7.1 no")(h); h.Keywords &^= mx.Chunking }, status: "bounced", code: "5.7.1"},
		{name: "DATA 451", habits: func(h *mx.Behaviour) { says(mx.StageDATA, "451 4.3.0 no")(h); h.Keywords &^= mx.Chunking }, status: "deferred", code: "4.3.0"},
		{name: "lost in the body", habits: leaves(mx.StageBody), status: "deferred", code: "4.4.2"},
		{name: "lost before the last reply", habits: leaves(mx.StageFinal), status: "deferred", code: "4.4.2"},
		{name: "content refused", habits: says(mx.StageFinal, "550 5.7.1 spam"), status: "bounced", code: "5.7.1", text: "spam"},
		{name: "content put off", habits: says(mx.StageFinal, "451 4.7.1 try later"), status: "deferred", code: "4.7.1", text: "try later"},
		{name: "too large for SIZE", habits: func(h *mx.Behaviour) { h.Size = 100 }, status: "bounced", code: "5.3.4"},
		{name: "no SMTPUTF8", habits: func(h *mx.Behaviour) { h.Keywords &^= mx.SMTPUTF8 },
			mail: func(m *mail) { m.params, m.to[0] = "SMTPUTF8", "jos\u00e9"+m.to[0] }, status: "bounced", code: "5.6.7"},

		{name: "no such domain", zone: func(*testing.T, string) {}, status: "bounced", code: "5.4.4", text: "does not exist"},
		{name: "null MX", zone: zone("DOMAIN. MX 0 ."), status: "bounced", code: "5.1.10"},
		{name: "SERVFAIL", zone: func(t *testing.T, domain string) { lab(t).dns.SetFault(domain, dns.TypeMX, labdns.ServFail) }, status: "deferred", code: "4.4.3"},
		{name: "nobody listens", zone: zone("DOMAIN. MX 10 mx.DOMAIN.\nmx.DOMAIN. A 127.25.255.254"), status: "deferred", code: "4.4.1", text: "refused"},
		{name: "no address", zone: zone("DOMAIN. MX 10 mx.DOMAIN.\nmx.DOMAIN. TXT x"), status: "bounced", code: "5.4.4"},
		{name: "ourselves", zone: zone("DOMAIN. MX 10 out.e2e.example."), status: "bounced", code: "5.4.6"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := lab(t)
			for _, way := range w.ways() {
				t.Run(way.name, func(t *testing.T) {
					var s *mx.Server
					domain := w.newDomain(way.transport)
					if c.zone != nil {
						c.zone(t, domain)
					} else {
						habits := modern(t)
						if c.habits != nil {
							c.habits(&habits)
						}
						s, domain = remote(t, way.transport, habits)
					}
					m := note("a@"+keepDomain, "b@"+domain)
					if c.mail != nil {
						c.mail(&m)
					}
					f := way.server.tries(t, way.server.submit(t, m), 1)[0]
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
