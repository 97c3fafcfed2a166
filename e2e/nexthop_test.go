package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// What ${nexthop} is, and that --nexthop ${nexthop} is right in each of the
// ways that contrib/postfix/README.md shows.
func TestNexthop(t *testing.T) {
	t.Parallel()
	w := lab(t)
	relay, relayDomain := remote(t, "mxpipe", modern(t))

	t.Run("default_transport = mxpipe", func(t *testing.T) {
		t.Parallel()
		// The domain's own address leads elsewhere: only a look-up of its MX
		// finds the server.
		s, domain := remote(t, "mxpipe", modern(t))
		if err := w.dns.Add(domain + ". A 127.25.255.255"); err != nil {
			t.Fatal(err)
		}
		for _, to := range []string{"a@" + domain, "a@" + strings.ToUpper(domain)} {
			id := w.out.submit(t, note("a@"+keepDomain, to))
			w.out.sent(t, id, 1)
			received1(t, s, id)
		}
	})

	delivers := func(name, mainCF string, deliver func(t *testing.T, p *postfix)) {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			deliver(t, anotherOut(t, mainCF))
		})
	}
	delivers("default_transport with a next hop", "default_transport = mxpipe:"+relayDomain, func(t *testing.T, p *postfix) {
		id := p.submit(t, note("a@"+keepDomain, "smart@nowhere.e2e.example"))
		p.sent(t, id, 1)
		await(t, "the message at the relay", func() (int, bool) { return countFor(relay, "smart@nowhere.e2e.example") })
	})
	delivers("relay_domains and relay_transport", `default_transport = error:not by this way
relay_transport = mxpipe
relay_domains = `+relayDomain, func(t *testing.T, p *postfix) {
		id := p.submit(t, note("a@"+keepDomain, "relayed@"+relayDomain))
		p.sent(t, id, 1)
		await(t, "the message at the relay", func() (int, bool) { return countFor(relay, "relayed@"+relayDomain) })
	})

	// The same mail server, at a port that only a next hop can name.
	other, err := mx.Start(mx.Options{Addr: fmt.Sprintf("127.25.255.1:%d", ports.For(t)), Behaviour: modern(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Stop() })
	host, port, _ := strings.Cut(other.Addr(), ":")
	mapped := fmt.Sprintf("inline:{{bracket.e2e.example=mxpipe:[%s]:%s}, {mx.e2e.example=mxpipe:%s}, {.sub.e2e.example=mxpipe:[mx.%s]}}",
		host, port, relayDomain, relayDomain)
	delivers("transport_maps", "default_transport = error:not by this way\ntransport_maps = "+mapped+"\nparent_domain_matches_subdomains =", func(t *testing.T, p *postfix) {
		for to, at := range map[string]*mx.Server{
			"a@bracket.e2e.example": other, "a@mx.e2e.example": relay, "a@x.sub.e2e.example": relay,
		} {
			id := p.submit(t, note("a@"+keepDomain, to))
			p.sent(t, id, 1)
			await(t, to, func() (int, bool) { return countFor(at, to) })
		}
	})
}

// countFor counts the messages for a recipient.
func countFor(s *mx.Server, to string) (n int, some bool) {
	for _, m := range s.Messages() {
		if m.Recipients[0].Address == to {
			n++
		}
	}
	return n, n > 0
}

// anotherOut starts one more Postfix with contrib's entry and the lines that a
// way needs.
func anotherOut(t *testing.T, mainCF string) *postfix {
	t.Helper()
	entry, err := lab(t).masterEntry()
	if err != nil {
		t.Fatal(err)
	}
	return anotherOutOf(t, entry, mainCF)
}

// anotherOutOf is anotherOut with an entry for master.cf of the test's own.
func anotherOutOf(t *testing.T, entry, mainCF string) *postfix {
	t.Helper()
	w := lab(t)
	limits, err := os.ReadFile("../contrib/postfix/main.cf.mxpipe")
	if err != nil {
		t.Fatal(err)
	}
	ip, err := w.host(w.newDomain("another"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPostfix(filepath.Join(folder(t), "out"), "another", ip, string(limits)+mainCF+"\n", entry)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// An original recipient that the administrator passes on becomes ORCPT (RFC
// 3461 §4.2).
func TestOriginalRecipient(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "orcpt", modern(t))
	for to, want := range map[string]string{
		"plain@" + domain:        "ORCPT=rfc822;plain@" + domain,
		"plus+tag@" + domain:     "ORCPT=rfc822;plus+2Btag@" + domain,
		`"with blank"@` + domain: `ORCPT=rfc822;"with+20blank"@` + domain,
		// RFC 6533 §3
		"jos\u00e9@" + domain:     "ORCPT=utf-8;jos\\x{E9}@" + domain,
		"a+equals=sign@" + domain: "ORCPT=rfc822;a+2Bequals+3Dsign@" + domain,
	} {
		m := note("a@"+keepDomain, to)
		if strings.Contains(to, "\u00e9") {
			m.params = "SMTPUTF8"
		}
		id := w.out.submit(t, m)
		w.out.sent(t, id, 1)
		if got := received1(t, s, id).Recipients[0].Params; len(got) != 1 || got[0] != want {
			t.Errorf("%s went out with %q, want %q", to, got, want)
		}
	}
}

// Mail that leads back to this host, or to addresses that are nobody's, ends
// with a bounce at once: what Exim's own router has self and
// ignore_target_hosts for.
func TestRoutesThatLeadNowhere(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		loop := w.newDomain("mxpipe")
		address, err := w.host(loop)
		if err != nil {
			t.Fatal(err)
		}
		behaviour := modern(t)
		behaviour.Hostname = "out.e2e.example" // the daemon's
		s, err := mx.Start(mx.Options{Addr: address, Behaviour: behaviour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Stop() })
		nobody := w.newDomain("mxpipe")
		if err := w.dns.Add(fmt.Sprintf("%[1]s. MX 10 mx.%[1]s.\nmx.%[1]s. A 255.255.255.255\nmx.%[1]s. A 169.254.169.254\n", nobody)); err != nil {
			t.Fatal(err)
		}
		for domain, want := range map[string]string{
			loop:   "mx." + loop + ": loops back to this host: the server calls itself out.e2e.example, as we do",
			nobody: "none of the mail servers of " + nobody + " has an address",
		} {
			letter := note(unique(t, "author")+"@"+keepDomain, "b@"+domain)
			m.bounceOf(t, m.submit(t, letter))
			bounce := m.arrived(t, letter.from)
			if text := strings.Join(strings.Fields(string(bounce.text)), " "); !strings.Contains(text, want) {
				t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
			}
		}
		if c := s.Counters(); c.Verbs["MAIL"] > 0 {
			t.Errorf("the server that is this host was offered the message: %v", c.Verbs)
		}
	})
}
