package main

import (
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/internal/wire"
)

var updateCauses = flag.Bool("update-causes", false, "write the table of docs/causes.md anew")

const causesPage = "../../docs/causes.md"

// setUp is something that is broken.
type setUp struct {
	what   string // for the table
	domain string
	// of the domain; without a name it is one of world.Domains, or none
	made     world.Domain
	override string // for the domain
	// what is done before anybody asks
	before func(t *testing.T, c *causes)
	daemon string // whose resolver is broken: "no AD", "down" or "slow"
	args   string // of explain, after the domain
	change func(*wire.Envelope)
	status int  // of explain
	waits  bool // for the time that somebody hangs

	// the first line names it, and where nothing is delivered so does the
	// answer to a message
	cause string
	code  string // that answer's
}

// host is a mail server of a domain.
func host(b mx.Behaviour) world.Host { return world.Host{Label: "mx", Preference: 10, Behaviour: b} }

// domain is one with a mail server and no policies.
func domain(name string, b mx.Behaviour) world.Domain {
	return world.Domain{Name: name, Signing: dnssec.Unsigned, Hosts: []world.Host{host(b)}}
}

var ee = world.TLSA{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256}

// dane is a signed domain whose server has TLSA records.
func dane(name string, b mx.Behaviour, records ...world.TLSA) world.Domain {
	h := host(b)
	h.TLSA = records
	return world.Domain{Name: name, Hosts: []world.Host{h}}
}

// enforced is a domain with an MTA-STS policy.
func enforced(name string, cert ca.Spec, change func(*sts.Site)) world.Domain {
	d := domain(name, server(nil))
	d.Hosts[0].Cert = cert
	d.STS = &sts.Site{Policy: sts.Policy("enforce", 24*time.Hour, "*."+name)}
	if change != nil {
		change(d.STS)
	}
	return d
}

// to is what --to asks.
const to = "--to b@"

// setUps gives all of them. c is the internet that they are set up in.
func setUps(t *testing.T, c *causes) []setUp {
	t.Helper()
	none := ca.Spec{}
	refused := func(stage mx.Stage, reply string) mx.Behaviour { return says(stage, reply) }
	tls10 := server(func(b *mx.Behaviour) { b.TLS.MinVersion, b.TLS.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 })
	intolerant := server(func(b *mx.Behaviour) {
		b.TLS.Answer = func(hello *tls.ClientHelloInfo, _ *tls.Config) error {
			if slices.Contains(hello.SupportedCurves, tls.X25519MLKEM768) {
				return errors.New("a group that is not known")
			}
			return nil
		}
	})
	wantsLogin := server(func(b *mx.Behaviour) {
		b.Auth = &mx.Auth{Mechanisms: []string{"PLAIN"}, Users: map[string]string{"u": "right"}, Needed: true}
	})
	relay := fmt.Sprintf("mx.relay.example:%d", c.Port())
	c.add(t, domain("relay.example", wantsLogin), "")
	gate := make(chan struct{})
	full := server(func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Times: 1}} })
	shortly := "connect_timeout: 3s, command_timeout: 3s"
	four := c.listen(t, c.certified(t, "mx.dead6.example"))
	six, err := mx.Start(mx.Options{Addr: "[::1]:0", Behaviour: c.certified(t, "mx.dead4.example")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { six.Stop() })
	_, sixPort, _ := strings.Cut(six.Addr(), "]:")

	return []setUp{
		{what: "the certificate was renewed, its TLSA record was not", made: dane("renewed.example", server(nil), world.TLSA{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256, Other: true}),
			args: "--connect", status: 1, code: "4.7.5", cause: "DANE: no TLSA record matches"},
		{what: "MTA-STS: the certificate has expired", made: enforced("expired.example", ca.ExpiredFor("mx.expired.example"), nil),
			args: "--connect", status: 1, code: "4.7.5", cause: "MTA-STS: x509: certificate has expired"},
		{what: "MTA-STS: the certificate is for another name", made: enforced("othername.example", ca.For("mx.elsewhere.example"), nil),
			args: "--connect", status: 1, code: "4.7.5", cause: "certificate is valid for mx.elsewhere.example, not mx.othername.example"},
		{what: "MTA-STS: the certificate is self-signed", made: enforced("selfsigned.example", ca.Spec{SelfSigned: true}, nil),
			args: "--connect", status: 1, code: "4.7.5", cause: "it is self-signed"},
		{what: "MTA-STS: the policy is not there (404)", made: enforced("gone.example", none, func(s *sts.Site) { s.Fault = sts.NotFound }),
			args: to, cause: "404"},
		{what: "MTA-STS: the policy is HTML", made: enforced("html.example", none, func(s *sts.Site) { s.Fault = sts.HTML }),
			args: to, cause: "text/html"},
		{what: "MTA-STS: two records", made: func() world.Domain {
			d := enforced("tworecords.example", none, nil)
			d.Zone = "_mta-sts TXT \"v=STSv1; id=2\"\n"
			return d
		}(), args: to, cause: "there are several"},
		{what: "MTA-STS: the policy host's certificate is for another name", made: enforced("policyhost.example", none, func(s *sts.Site) { s.Cert = ca.For("www.policyhost.example") }),
			args: to, cause: "certificate is valid for www.policyhost.example"},
		{what: "MTA-STS: the policy does not list the mail server", made: enforced("notlisted.example", none, func(s *sts.Site) { s.Policy = sts.Policy("enforce", 24*time.Hour, "mx.elsewhere.example") }),
			status: 1, code: "4.7.5", cause: "the domain's MTA-STS policy does not list this host"},
		{what: "MTA-STS: the policy host is silent", waits: true, made: enforced("silent.example", none, func(s *sts.Site) { s.Fault = sts.Silent }),
			args: to, cause: "MTA-STS: "},

		{what: "the resolver does not validate", domain: "renewed.example", daemon: "no AD", args: to, cause: "answers without AD, so DNSSEC and DANE, which mx_auth enables, are not in effect"},
		{what: "SERVFAIL for the TLSA records", made: func() world.Domain {
			d := dane("tlsafail.example", server(nil), ee)
			d.Hosts[0].TLSAFault = dnssec.BadSignature
			return d
		}(), status: 1, code: "4.7.5", cause: "TLSA"},
		{what: "bogus MX records", made: world.Domain{Name: "bogusmx.example", Signing: dnssec.BadSignatures, Hosts: []world.Host{host(server(nil))}},
			status: 2, code: "4.4.3", cause: "SERVFAIL"},
		{what: "no resolver answers", domain: "renewed.example", daemon: "down", status: 2, code: "4.4.3", cause: "connection refused"},
		{what: "the resolver is slow", domain: "none.example", daemon: "slow", args: to, cause: "for a cached answer"},

		{what: "null MX", domain: "null-mx.example", status: 1, code: "5.1.10", cause: "takes no mail (null MX)"},
		{what: "no such domain", domain: "nowhere.example", status: 1, code: "5.4.4", cause: "does not exist"},
		{what: "the MX has no address", made: world.Domain{Name: "noaddress.example", Zone: "@ MX 10 mx\nmx TXT x\n"}, status: 1, code: "5.4.4", cause: "none of the mail servers of noaddress.example has an address"},
		{what: "the MX is an address", made: world.Domain{Name: "literal.example", Zone: "@ MX 10 192.0.2.1.\n"}, status: 1, code: "5.4.4", cause: "192.0.2.1 is not a host name"},
		{what: "neither MX nor address", made: world.Domain{Name: "empty.example", Zone: "@ TXT x\n"}, status: 1, code: "5.4.4", cause: "has neither mail servers nor an address of one"},
		{what: "a signed MX that is an alias into an unsigned zone", made: world.Domain{Name: "alias.example", Zone: "@ MX 10 mx\nmx CNAME mx.none.example.\n"},
			args: to, cause: "an alias of mx.none.example, which is not DNSSEC-signed"},
		{what: "the MX is our own address", made: world.Domain{Name: "loopaddress.example", Zone: "@ MX 10 mx\nmx A 0.0.0.0\n"}, status: 1, code: "5.4.6", cause: "loop"},
		{what: "the MX is our own name", made: world.Domain{Name: "loopname.example", Zone: "@ MX 10 client.example.\n"}, status: 1, code: "5.4.6", cause: "loop"},
		{what: "the MX greets with our own name", made: domain("loopgreeting.example", refused(mx.StageGreeting, "220 client.example ESMTP")),
			args: "--connect", status: 1, code: "5.4.6", cause: "calls itself client.example, as we do"},

		{what: "IPv6 is dead, IPv4 is not", made: world.Domain{Name: "dead6.example", Signing: dnssec.Unsigned, Zone: "@ MX 10 mx\nmx A " + four + "\nmx AAAA ::1\n"},
			args: to, cause: "no IPv6 address takes mail"},
		{what: "IPv4 is dead, IPv6 is not", made: world.Domain{Name: "dead4.example", Signing: dnssec.Unsigned, Zone: "@ MX 10 mx\nmx A " + c.address() + "\nmx AAAA ::1\n"},
			override: "port: " + sixPort, args: to, cause: "no IPv4 address takes mail"},
		{what: "the host is dead", made: func() world.Domain {
			d := domain("dead.example", server(nil))
			d.Hosts[0].Down = true
			return d
		}(), args: "--connect", status: 1, code: "4.4.1", cause: "connection refused"},
		{what: "the host closes each connection", made: domain("closes.example", server(func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Drop: mx.Close}} })),
			args: "--connect", status: 1, code: "4.4.2", cause: "greeting: the server closed the connection"},
		{what: "the host resets each connection", made: domain("resets.example", server(func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{mx.StageEHLO: {Drop: mx.Reset}} })),
			args: "--connect", status: 1, code: "4.4.2", cause: "connection reset by peer"},
		{what: "the host is no mail server", made: domain("web.example", refused(mx.StageGreeting, "HTTP/1.1 400 Bad Request")), override: shortly, waits: true,
			args: "--connect", status: 1, code: "4.5.0", cause: "HTTP/1.1 400 Bad Request"},
		{what: "our address is refused in the greeting", made: domain("listed.example", refused(mx.StageGreeting, "554 5.7.1 your address is on a list")),
			args: "--connect", status: 1, code: "5.7.1", cause: "554 5.7.1 your address is on a list"},
		{what: "the first MX fails DANE, the second is down", made: world.Domain{Name: "both.org.example", Hosts: []world.Host{
			{Label: "mx1", Preference: 10, Behaviour: server(nil), TLSA: []world.TLSA{{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256, Other: true}}},
			{Label: "mx2", Preference: 20, Behaviour: server(nil), Down: true},
		}}, args: "--connect", status: 1, code: "4.7.5", cause: "mx1.both.org.example: DANE: no TLSA record matches"},
		{what: "the host hangs at the connection", made: world.Domain{Name: "hangs.example", Signing: dnssec.Unsigned, Zone: "@ MX 10 mx\nmx A " + c.swallow(t) + "\n"},
			override: shortly, waits: true, args: "--connect", status: 1, code: "4.4.1", cause: ": timed out"},
		{what: "the host hangs before its greeting", made: domain("mute.example", hangs(mx.StageGreeting)), override: shortly, waits: true, args: "--connect", status: 1, code: "4.4.2", cause: "greeting: timed out"},
		{what: "the host hangs at STARTTLS", made: domain("hangstls.example", hangs(mx.StageSTARTTLS)), override: shortly, waits: true, args: to, cause: "in plaintext, as STARTTLS failed: "},
		{what: "the host hangs at STARTTLS, which DANE requires", made: dane("hangsdane.example", hangs(mx.StageSTARTTLS), ee), override: shortly, waits: true, args: "--connect", status: 1, code: "4.7.5", cause: "DANE: TLS failed: STARTTLS: timed out"},

		{what: "too many connections (421)", made: domain("toomany.example", refused(mx.StageGreeting, "421 4.7.0 too many connections from your host")),
			args: "--connect", status: 1, code: "4.7.0", cause: "421 4.7.0 too many connections"},
		{what: "our own rate is used up", waits: true, made: domain("rate.example", server(nil)), override: "limits: {destination: {rate: 1/1h}}",
			before: func(t *testing.T, c *causes) { c.send("rate.example", nil) }, status: 1, code: "4.4.5", cause: "local limit for destination rate.example"},
		{what: "our own concurrency is used up", waits: true, made: domain("concurrency.example", full), override: "limits: {destination: {concurrency: 1}}",
			before: func(t *testing.T, c *causes) {
				var first sync.WaitGroup
				first.Go(func() { c.send("concurrency.example", func(e *wire.Envelope) { e.QueueID = "the first" }) })
				t.Cleanup(func() { close(gate); first.Wait() })
				s := c.Server("mx.concurrency.example")
				if err := s.WaitUntil(t.Context(), func(n mx.Counters) bool { return n.Connections > 0 }); err != nil {
					t.Error(err)
				}
			}, status: 1, code: "4.4.5", cause: "local limit for destination concurrency.example"},
		{what: "paused, as the receiver asked for it", made: domain("paused.example", refused(mx.StageMAIL, "450 4.7.0 slow down, please")),
			before: func(t *testing.T, c *causes) { c.send("paused.example", nil) }, status: 1, code: "4.4.5", cause: "is paused, because of: 450 4.7.0 slow down, please"},
		{what: "suspended", made: domain("suspended.example", server(nil)), before: func(t *testing.T, c *causes) {
			if got := shell("suspend", "suspended.example", "--for", "2h", "--reason", "their maintenance", "-c", c.config); got.status != 0 {
				t.Errorf("%+v", got)
			}
		}, status: 1, code: "4.3.2", cause: "suspended.example is suspended: their maintenance"},

		{what: "REQUIRETLS is not offered", made: dane("requiretls.org.example", server(nil), ee), override: "relaxed_requiretls: false", args: to + " --from s@sender.example --requiretls",
			change: func(e *wire.Envelope) { e.RequireTLS = true }, status: 1, code: "5.7.30", cause: "REQUIRETLS"},
		{what: "larger than the server's SIZE", made: domain("small.example", server(func(b *mx.Behaviour) { b.Size = 20 })), args: to + " --size 27",
			status: 1, code: "5.3.4", cause: "27 bytes"},
		{what: "552", made: domain("quota.example", refused(mx.StageRCPT, "552 5.2.2 mailbox is full")), args: to, status: 1, code: "5.2.2", cause: "552 5.2.2 mailbox is full"},
		{what: "our address has no name (PTR)", made: domain("noptr.example", refused(mx.StageMAIL, "450 4.7.25 cannot find your reverse hostname")), args: to, status: 1, code: "4.7.25", cause: "cannot find your reverse hostname"},
		{what: "blocklisted", made: domain("blocklist.example", refused(mx.StageRCPT, "554 5.7.1 client host blocked using bl.example")), args: to, status: 1, code: "5.7.1", cause: "blocked using bl.example"},
		{what: "greylisted at MAIL", made: domain("greymail.example", refused(mx.StageMAIL, "451 4.7.1 greylisted")), args: to, status: 1, code: "4.7.1", cause: "451 4.7.1 greylisted"},
		{what: "greylisted at RCPT", made: domain("greyrcpt.example", refused(mx.StageRCPT, "450 4.2.0 greylisted")), args: to, status: 1, code: "4.2.0", cause: "450 4.2.0 greylisted"},

		{what: "DANE, but no STARTTLS", made: dane("stripped.example", server(func(b *mx.Behaviour) { b.TLS = mx.TLS{} }), ee), args: "--connect", status: 1, code: "4.7.5", cause: "STARTTLS"},
		{what: "DANE, but TLS 1.0 only", made: dane("old.example", tls10, ee), args: "--connect", status: 1, code: "4.7.5", cause: "TLS"},
		{what: "TLS 1.0 only", made: domain("oldopen.example", tls10), args: to, cause: "a plainer TLS hello is needed: compatible, TLS 1.0"},
		{what: "post-quantum hellos are not understood", made: dane("intolerant.example", intolerant, ee), args: to, cause: "a plainer TLS hello is needed: classical, TLS 1.3"},

		{what: "STARTTLS is refused, which MTA-STS requires", made: func() world.Domain {
			d := enforced("refuses.example", none, nil)
			d.Hosts[0].Behaviour.TLS.Mode = mx.TLSRefused
			return d
		}(), args: "--connect", status: 1, code: "4.7.5", cause: "MTA-STS: TLS failed: STARTTLS refused: 454"},
		{what: "the server wants TLS, and does not offer it", made: domain("wantstls.example", server(func(b *mx.Behaviour) { b.NeedTLS, b.TLS.Mode = true, mx.TLSHidden })),
			args: to, status: 1, code: "4.7.8", cause: "530 5.7.0 issue STARTTLS first"},
		{what: "MTA-STS testing: the certificate is for another name", made: enforced("testing.example", ca.For("mx.elsewhere.example"), func(s *sts.Site) { s.Policy = sts.Policy("testing", 24*time.Hour, "*.testing.example") }),
			args: to, cause: "MTA-STS testing: x509: certificate is valid for mx.elsewhere.example"},
		{what: "a relay that wants a login", made: domain("unknown.example", server(nil)), override: "relay: {host: \"" + relay + "\", tls: starttls}",
			args: to, status: 1, code: "4.7.8", cause: "530"},
		{what: "a relay that does not take the password", made: domain("password.example", server(nil)), override: "relay: {host: \"" + relay + "\", tls: starttls, user: u, password_file: " + secret(t, "wrong") + "}",
			args: "--connect", status: 1, code: "4.7.8", cause: "login of u by PLAIN failed: 535"},
	}
}

// Whatever is broken, the first line of explain names it, its exit status tells
// what would become of a message, and the next message has that answer.
// docs/causes.md is the table.
func TestCauses(t *testing.T) {
	c := newCauses(t)
	all := setUps(t, c)
	for i := range all {
		s := &all[i]
		if s.made.Name != "" {
			s.domain = s.made.Name
			c.add(t, s.made, s.override)
		}
		s.args = strings.Replace(s.args, to, to+s.domain, 1)
	}
	c.daemon = c.start(t, c.Resolver(), false)
	daemons := map[string]*daemon{
		"":      c.daemon,
		"no AD": c.start(t, c.forward(t, func(reply *dns.Msg) { reply.AuthenticatedData = false }), true),
		"slow":  c.start(t, c.forward(t, func(*dns.Msg) { time.Sleep(slow) }), true),
		"down":  c.start(t, "127.1.255.254:9", true),
	}
	rows := make([]string, len(all))
	// Those that wait do so together; the others have work to do.
	var waiting, busy errgroup.Group
	busy.SetLimit(3)
	for i := range all {
		group := &busy
		if all[i].waits {
			group = &waiting
		}
		group.Go(func() error {
			rows[i] = all[i].try(t, c, daemons[all[i].daemon])
			return nil
		})
	}
	_, _ = busy.Wait(), waiting.Wait() // none returns an error
	if t.Failed() {
		return
	}
	page, err := os.ReadFile(causesPage)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| set-up | `mxpolicyd explain` | exit status | first line |\n|---|---|---|---|\n"
	before, _, found := strings.Cut(string(page), head)
	want := before + head + strings.Join(rows, "")
	if *updateCauses {
		if err := os.WriteFile(causesPage, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	} else if !found || string(page) != want {
		t.Errorf("%s should have\n%s", causesPage, strings.Join(rows, ""))
	}
}

// moments are what follows a cause and is true only now.
var moments = regexp.MustCompile(` \((until|not tried|for \d)[^()]*\)$`)

// try explains, delivers, and gives the row of the table. It runs beside those
// of other set-ups.
func (s *setUp) try(t *testing.T, c *causes, d *daemon) string {
	t.Helper()
	if s.before != nil {
		s.before(t, c)
	}
	args := append([]string{"explain", "-c", d.config, s.domain}, strings.Fields(s.args)...)
	got := shell(args...)
	line, _, _ := strings.Cut(got.out, "\n")
	if got.status != s.status || !strings.Contains(line, s.cause) || got.err != "" {
		t.Errorf("explain %s %s ends with %d, says\n%s%s", s.domain, s.args, got.status, got.out, got.err)
	}
	answer := d.send(s.domain, s.change)
	_, reason, _ := strings.Cut(moments.ReplaceAllString(line, ""), ": ")
	_, reason, failed := strings.Cut(reason, ": ")
	code, said, _ := strings.Cut(reason, " ")
	switch {
	case s.status == 0:
		if !strings.HasPrefix(answer, "2.0.0 ") {
			t.Errorf("explain says that it is delivered, and then: %s", answer)
		}
	case !failed || code != s.code || !strings.HasPrefix(answer, code+" ") || !strings.Contains(answer, said):
		t.Errorf("explain says\n%s\nand then a message is told\n%s", line, answer)
	}
	if s.status != 0 && !strings.Contains(answer, s.cause) {
		t.Errorf("%q is not in the answer\n%s", s.cause, answer)
	}
	return fmt.Sprintf("| %s | `%s` | %d | %s |\n", s.what, strings.TrimSpace(s.domain+" "+s.args), got.status, timeless(line))
}

// timeless leaves out what differs from one run to the next.
func timeless(line string) string {
	for _, c := range [][2]string{
		{`\b127\.\d+\.\d+\.\d+:\d+`, "192.0.2.1:25"}, {`\[::1\]:\d+`, "[2001:db8::1]:25"}, {`\b127\.\d+\.\d+\.\d+\b`, "192.0.2.1"}, {`\b[0-9a-f]{16}\.\.\.`, "..."},
		{`\b20\d\d-\d\d-\d\d\b`, "2026-11-30"}, {`\d\d:\d\d(:\d\d)? UTC`, "12:00$1 UTC"}, {`12:00:\d\d UTC`, "12:00:00 UTC"}, {`takes \d+ms`, "takes 200ms"}, {`\b_\d+\._tcp`, "_25._tcp"}, {`(from|at|resolver) 192\.0\.2\.1:25`, "$1 192.0.2.1:53"}, {`\|`, `\|`},
	} {
		line = regexp.MustCompile(c[0]).ReplaceAllString(line, c[1])
	}
	return line
}
