package e2e

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/script"
)

// routeCase is a domain, with what its mail servers say and its DNS does, and
// what becomes of a message to it.
type routeCase struct {
	name string
	// the dialogues of its mail servers, each with an address and a name: mx1,
	// mx2 and so on
	servers []string
	zone    string // besides their addresses; MX1 is the address of the first
	fault   func(dns *labdns.Server, domain string)
	domain  string // another form of its name, after which ours follows
	// the servers listen at port 25 too, where Postfix looks for loops
	port25 bool
	text   string // of the message; empty: a short one
	// how Postfix and mxpipe end: sent, deferred, bounced
	postfix, mxpipe string
}

// Parts of dialogues.
const (
	hello    = "S: 220 mx ready\nC: EHLO *\nS: 250-mx\nS: 250 SIZE\n"
	takes    = "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 taken\nC? QUIT\nS: 221 bye"
	healthy  = hello + takes
	quits    = "\nC? RSET\nS: 250 ok\nC? QUIT\nS: 221 bye"
	callsOut = "S: 220 out.e2e.example ready\nC? EHLO *\nS: 250-out.e2e.example\nS: 250 SIZE\nC? QUIT\nS: 221 bye"
	oneMX    = "@ MX 10 mx1\n"
	twoMX    = "@ MX 10 mx1\n@ MX 20 mx2\n"
	oneName  = "@ MX 10 mx\nmx A MX1\nmx A MX2\n"
)

// atMAIL and atRCPT are dialogues with a server that answers so.
func atMAIL(reply string) string { return hello + "C: MAIL *\nS: " + reply + quits }
func atRCPT(reply string) string {
	return hello + "C: MAIL *\nS: 250 ok\nC: RCPT *\nS: " + reply + quits
}

// What Postfix delivers mxpipe delivers too, from the same DNS and to the same
// servers; where it does otherwise, it is the better for it.
func TestRoutesBesidePostfix(t *testing.T) {
	t.Parallel()
	fails := func(qtype uint16, fault labdns.Fault) func(*labdns.Server, string) {
		return func(s *labdns.Server, domain string) { s.SetFault("mx1."+domain, qtype, fault) }
	}
	cases := []routeCase{
		{name: "a healthy server", servers: []string{healthy}, zone: oneMX, postfix: "sent", mxpipe: "sent"},

		// 1: the second address.
		{name: "450 to MAIL at one address", servers: []string{atMAIL("450 4.7.25 who are you"), healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "421 to MAIL at one address", servers: []string{atMAIL("421 4.3.2 not now"), healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "450 to RCPT at one address", servers: []string{atRCPT("450 4.2.0 later"), healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "421 to RCPT at one address", servers: []string{atRCPT("421 4.3.2 not now"), healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "421 for greeting at one address", servers: []string{"S: 421 4.3.2 not now" + quits, healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "nothing listens at one address", servers: []string{"", healthy}, zone: oneName, postfix: "sent", mxpipe: "sent"},
		{name: "450 to RCPT at the first host", servers: []string{atRCPT("450 4.2.0 later"), healthy}, zone: twoMX, postfix: "sent", mxpipe: "sent"},
		{name: "450 to RCPT everywhere", servers: []string{atRCPT("450 4.2.0 later")}, zone: oneMX, postfix: "deferred", mxpipe: "deferred"},
		{name: "550 to RCPT at one address", servers: []string{atRCPT("550 5.1.1 nobody"), atRCPT("550 5.1.1 nobody")}, zone: oneName, postfix: "bounced", mxpipe: "bounced"},

		// 2: look-ups that fail.
		{name: "SERVFAIL for AAAA", servers: []string{healthy}, zone: oneMX, fault: fails(dns.TypeAAAA, labdns.ServFail), postfix: "sent", mxpipe: "sent"},
		{name: "silence for AAAA", servers: []string{healthy}, zone: oneMX, fault: fails(dns.TypeAAAA, labdns.Silent), postfix: "sent", mxpipe: "sent"},
		{name: "NOTIMP for AAAA", servers: []string{healthy}, zone: oneMX, fault: fails(dns.TypeAAAA, labdns.NotImp), postfix: "sent", mxpipe: "sent"},
		{name: "SERVFAIL for both", servers: []string{healthy}, zone: oneMX, fault: fails(dns.TypeANY, labdns.ServFail), postfix: "deferred", mxpipe: "deferred"},
		{name: "SERVFAIL for the first host", servers: []string{healthy, healthy}, zone: twoMX, fault: fails(dns.TypeANY, labdns.ServFail), postfix: "sent", mxpipe: "sent"},
		{name: "SERVFAIL for MX", servers: []string{healthy}, zone: oneMX, postfix: "deferred", mxpipe: "deferred",
			fault: func(s *labdns.Server, domain string) { s.SetFault(domain, dns.TypeMX, labdns.ServFail) }},
		{name: "no MX, and an address", servers: []string{healthy}, zone: "@ A MX1\n", postfix: "sent", mxpipe: "sent"},
		{name: "null MX", servers: []string{healthy}, zone: "@ MX 0 .\n@ A MX1\n", postfix: "bounced", mxpipe: "bounced"},
		{name: "an MX that does not exist", servers: []string{healthy}, zone: "@ MX 10 nowhere\n@ MX 20 mx1\n", postfix: "sent", mxpipe: "sent"},
		{name: "an MX behind an alias", servers: []string{healthy}, zone: "@ MX 10 alias\nalias CNAME mx1\n", postfix: "sent", mxpipe: "sent"},

		// 3: loops by name.
		{name: "our name in greeting and EHLO", servers: []string{callsOut}, zone: oneMX, port25: true, postfix: "bounced", mxpipe: "bounced"},
		{name: "our name in the reply to EHLO", servers: []string{"S: 220 mx ready\nC: EHLO *\nS: 250-out.e2e.example\nS: 250 SIZE\nC? QUIT\nS: 221 bye"},
			zone: oneMX, port25: true, postfix: "bounced", mxpipe: "bounced"},
		// Postfix warns, and sends: the loop goes on until it is one of EHLO.
		{name: "our name in the greeting alone", servers: []string{"S: 220 out.e2e.example ready\nC? EHLO *\nS: 250-mx\nS: 250 SIZE\nC? MAIL *\nS: 250 ok\nC? RCPT *\nS: 250 ok\nC? DATA\nS: 451 4.3.0 no\nC? QUIT\nS: 221 bye"},
			zone: oneMX, port25: true, postfix: "deferred", mxpipe: "bounced"},
		// Postfix does not ask the second host, which may have the mailbox.
		{name: "our name at the first host", servers: []string{callsOut, healthy}, zone: twoMX, port25: true, postfix: "bounced", mxpipe: "sent"},

		// 7: labels with an underscore.
		{name: "an underscore in the domain", servers: []string{healthy}, zone: oneMX, domain: "a_b", postfix: "sent", mxpipe: "sent"},
		{name: "an underscore beside an international label", servers: []string{"S: 220 mx ready\nC: EHLO *\nS: 250-mx\nS: 250-8BITMIME\nS: 250 SMTPUTF8\n" + takes},
			zone: oneMX, domain: "a_b.bücher", postfix: "sent", mxpipe: "sent"},

		// 8 and 9: what a server without 8BITMIME gets, and long lines.
		{name: "8-bit text without 8BITMIME", servers: []string{healthy}, zone: oneMX, text: "Subject: a note\n\nGrüße.\n", postfix: "sent", mxpipe: "sent"},
		{name: "a long line", servers: []string{healthy}, zone: oneMX, text: "Subject: a note\n\n" + strings.Repeat("0123456789", 250) + "\n", postfix: "sent", mxpipe: "sent"},
	}
	r := newRoutes(t)
	for i := range cases {
		r.add(t, &cases[i])
	}
	r.play(t, cases)

	// 5: a resolver that knows no EDNS at all.
	last := []routeCase{{name: "a resolver without EDNS", servers: []string{healthy}, zone: oneMX, postfix: "sent", mxpipe: "sent"}}
	r.add(t, &last[0])
	r.dns.SetFault("", dns.TypeANY, labdns.NoEDNS)
	r.play(t, last)
}

// routes is a Postfix and an mxpolicyd that ask one DNS.
type routes struct {
	*world
	dns     *labdns.Server
	postfix *postfix
	d       *daemon
	domains map[string]string // by the names of cases
	servers map[string][]*script.Server
}

func newRoutes(t *testing.T) *routes {
	t.Helper()
	r := &routes{world: lab(t), domains: map[string]string{}, servers: map[string][]*script.Server{}}
	dir := folder(t)
	resolver, err := r.ip(), error(nil)
	if r.dns, err = labdns.StartAt(resolver + ":53"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.dns.Stop)
	if r.d, err = r.newDaemon(folder(t), settings{}); err != nil {
		t.Fatal(err)
	}
	err = write(r.d.config, fmt.Sprintf(`hostname: out.e2e.example
state_dir: %s
dns: {servers: ["%s"], timeout: 2s}
listen: {pipe: {path: %s, mode: "0660", group: "%d"}}
transports: {default: {port: %d, mx_auth: {dnssec: {}, dane: {}}}}
`, r.d.state, resolver, r.d.socket, nobody, r.port))
	if err == nil {
		err = r.d.start(r.world, settings{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("mxpolicyd:\n%s", tail(r.d.log))
		}
	})
	conf := filepath.Join(dir, "resolv.conf")
	if err := write(conf, "nameserver "+resolver+"\noptions timeout:2 attempts:3 edns0\n"); err != nil {
		t.Fatal(err)
	}
	r.postfix, err = preparePostfix(filepath.Join(dir, "out"), "out", r.ip()+":"+fmt.Sprint(r.port), fmt.Sprintf(`
inet_protocols = all
smtp_tcp_port = %d
default_transport = smtp
transport_maps = inline:{{%s=keep:}, {.loop.example=loop:}}
`, r.port, keepDomain), `smtp unix - - n - - smtp
loop unix - - n - - smtp
  -o smtp_tcp_port=25
`)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.postfix.run("unshare", "--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.postfix.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Postfix:\n%s", tail(r.postfix.log))
		}
	})
	return r
}

// ip gives an address of its own.
func (w *world) ip() string {
	n := w.number.Add(1)
	return fmt.Sprintf("127.25.%d.%d", n/250, n%250+1)
}

// add makes a case's domain and its servers.
func (r *routes) add(t *testing.T, c *routeCase) {
	t.Helper()
	kind := "route"
	if c.port25 {
		kind = "loop"
	}
	domain := r.newDomain(kind)
	if c.domain != "" {
		domain = c.domain + "." + domain
	}
	r.domains[c.name] = domain
	ascii := strings.ReplaceAll(domain, "bücher", "xn--bcher-kva")
	zone := "$ORIGIN " + ascii + ".\n" + c.zone
	for i, text := range c.servers {
		ip := r.ip()
		zone += fmt.Sprintf("mx%d A %s\n", i+1, ip)
		zone = strings.ReplaceAll(zone, fmt.Sprintf("MX%d", i+1), ip)
		if text == "" {
			continue
		}
		dialogue, err := script.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		ports := []int{r.port}
		if c.port25 {
			ports = append(ports, 25)
		}
		for _, port := range ports {
			s, err := script.Start(script.Options{Addr: net.JoinHostPort(ip, fmt.Sprint(port)), Scripts: []script.Script{dialogue}, Repeat: true})
			if err != nil {
				t.Fatal(err)
			}
			r.servers[c.name] = append(r.servers[c.name], s)
			// its error would be of a script that was left early
			t.Cleanup(func() { _ = s.Close() })
		}
	}
	if err := r.dns.Add(zone); err != nil {
		t.Fatal(err)
	}
	if c.fault != nil {
		c.fault(r.dns, ascii)
	}
}

// play has Postfix and mxpipe deliver a message to each of the cases.
func (r *routes) play(t *testing.T, cases []routeCase) {
	ids := map[string]string{}
	text := func(c *routeCase) string {
		if c.text == "" {
			return "Subject: a note\n\nThis is all.\n"
		}
		return c.text
	}
	for i := range cases {
		c := &cases[i]
		ids[c.name] = r.postfix.submit(t, mail{from: "a@" + keepDomain, to: []string{"b@" + r.domains[c.name]}, params: params(r.domains[c.name]), text: []byte(text(c))})
	}
	t.Run("all", func(t *testing.T) { // ends when all have ended
		for i := range cases {
			c := &cases[i]
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				got := mxpipe(t, r.d, strings.NewReader(text(c)), "-f", "a@"+keepDomain, "b@"+r.domains[c.name]).result(t)
				ended := map[int]string{0: "sent", 75: "deferred"}[got.exit]
				if ended == "" {
					ended = "bounced"
				}
				postfix := r.postfix.tries(t, ids[c.name], 1)[0]
				t.Logf("%-45s %-9s %-9s %s", c.name, postfix.status, ended, got)
				if postfix.status != c.postfix || ended != c.mxpipe {
					t.Errorf("Postfix: %s (%s %s), want %s; mxpipe: %s, want %s", postfix.status, postfix.dsn, postfix.text, c.postfix, got, c.mxpipe)
				}
				if c.name == "a long line" {
					r.same(t, c)
				}
			})
		}
	})
}

// params says in MAIL what a domain needs.
func params(domain string) string {
	if strings.Contains(domain, "ü") {
		return " SMTPUTF8"
	}
	return ""
}

// same asserts that both have sent the same body.
func (r *routes) same(t *testing.T, c *routeCase) {
	t.Helper()
	var bodies [][]byte
	for _, s := range r.servers[c.name] {
		for _, conversation := range s.Conversations() {
			for _, m := range conversation.Messages {
				_, body, _ := bytes.Cut(m.Text, []byte("\r\n\r\n"))
				bodies = append(bodies, body)
			}
		}
	}
	if len(bodies) != 2 || !bytes.Equal(bodies[0], bodies[1]) {
		t.Errorf("%d bodies, which differ: %.2200q", len(bodies), bodies)
	}
}
