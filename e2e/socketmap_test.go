package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/transport/pin"
)

// smtp starts a Postfix whose own smtp(8) delivers, with the very lines of
// contrib/postfix and what this lab must have otherwise: ports, places, and the
// authority. It asks the DNS at port 53 of resolver, as resolv.conf(5) can say
// no other; it alone sees that file, in a mount namespace of its own.
func (n *internet) smtp(t *testing.T, resolver string) *postfix {
	t.Helper()
	text, err := os.ReadFile("../contrib/postfix/main.cf.socketmap")
	if err != nil {
		t.Fatal(err)
	}
	var mainCF string
	for _, command := range regexp.MustCompile(`(?m)^postconf -e '(.*)'$`).FindAllStringSubmatch(string(text), -1) {
		mainCF += command[1] + "\n"
	}
	for old, own := range map[string]string{
		"inet:127.0.0.1:8463:":               "unix:" + n.d.socketmap() + ":",
		"/etc/ssl/certs/ca-certificates.crt": n.roots,
	} {
		if strings.Count(mainCF, old) != 1 {
			t.Fatalf("contrib/postfix/main.cf.socketmap does not have %q once", old)
		}
		mainCF = strings.Replace(mainCF, old, own, 1)
	}
	ip, err := n.host(n.newDomain("smtp"))
	if err != nil {
		t.Fatal(err)
	}
	dir := folder(t)
	conf := filepath.Join(dir, "resolv.conf")
	if err := write(conf, "nameserver "+resolver+"\noptions trust-ad\n"); err != nil {
		t.Fatal(err)
	}
	p, err := preparePostfix(filepath.Join(dir, "smtp"), "smtp", ip, mainCF+fmt.Sprintf(`
smtp_tcp_port = %d
default_transport = smtp
transport_maps = inline:{{%[2]s=keep:}, {ported.example=smtp:ported.example:%[1]d}, {ported-bad.example=smtp:ported-bad.example:%[1]d}}
`, n.port, keepDomain), "smtp unix - - n - - smtp\n")
	if err == nil {
		err = p.run("unshare", "--mount", "--propagation", "private",
			"sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, conf)
	}
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

// resolver gives an address for a resolver at port 53.
func (n *internet) resolver() string {
	i := n.number.Add(1)
	return fmt.Sprintf("127.25.%d.%d", i/250, i%250+1)
}

// postmap asks a socketmap as an administrator would, and gives the answer, or
// what is said in its place.
func (n *internet) postmap(key, table string) string {
	cmd := exec.Command("postmap", "-q", key, table)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MAIL_CONFIG=" + n.world.out.conf()}
	out, err := cmd.CombinedOutput()
	if err != nil && len(out) == 0 {
		return "exit status 1" // not found
	}
	return strings.TrimSuffix(string(out), "\n")
}

// Postfix's own smtp(8) asks mxpolicyd, and each domain gets its mail just as
// safely as it asks for.
func TestSocketmap(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	unsigned := func(name, mode string, hosts ...hostSpec) domainSpec {
		return domainSpec{name: name, signing: dnssec.Unsigned, policy: mode, hosts: hosts}
	}
	otherName := hostSpec{cert: ca.For("elsewhere.example")}
	type expectation struct {
		spec   domainSpec
		fault  func(d *domain)
		answer string // what postmap says, as a regular expression
		// of Postfix, as a regular expression; $ stands for the host that gets
		// the mail
		log string
		to  int    // the host that gets it, counted from 1; 0: none
		tls bool   // over TLS
		dsn string // when none gets it
	}
	const modern = ` protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1\.1`
	cases := []expectation{
		{spec: domainSpec{name: "dane", hosts: []hostSpec{withDANE}}, answer: `dane-only`, to: 1, tls: true,
			log: `Verified TLS connection established to $`},
		{spec: unsigned("sts", "enforce", valid), answer: `secure match=mx1\.sts\.example servername=hostname` + modern, to: 1, tls: true,
			log: `Verified TLS connection established to $`},
		{spec: unsigned("plain", "", selfSigned), answer: `exit status 1`, to: 1, tls: true,
			log: `Untrusted TLS connection established to $`},
		{spec: unsigned("testing", "testing", selfSigned), answer: `exit status 1`, to: 1, tls: true,
			log: `Untrusted TLS connection established to $`},
		// Mail waits rather than go to whom the certificate does not prove.
		{spec: domainSpec{name: "mismatch", hosts: []hostSpec{mismatched}}, answer: `dane-only`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.mismatch\.example.*no matching DANE TLSA records`},
		{spec: unsigned("sts-name", "enforce", otherName), answer: `secure match=mx1\.sts-name\.example .*`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.sts-name\.example.*hostname mismatch`},
		{spec: unsigned("sts-expired", "enforce", hostSpec{cert: ca.ExpiredFor("mx1.sts-expired.example")}), answer: `secure .*`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.sts-expired\.example.*certificate has expired`},
		{spec: unsigned("sts-plain", "enforce", hostSpec{behaviour: plaintext}), answer: `secure .*`, dsn: `4\.7\.4`,
			log: `TLS is required, but was not offered by host mx1\.sts-plain\.example`},
		{spec: domainSpec{name: "dane-plain", hosts: []hostSpec{{tlsa: goodTLSA, behaviour: plaintext}}}, answer: `dane-only`, dsn: `4\.7\.4`,
			log: `TLS is required, but was not offered by host mx1\.dane-plain\.example`},
		// A next hop with a port, for which Postfix asks as it is written.
		{spec: unsigned("ported", "enforce", valid), answer: `secure match=mx1\.ported\.example servername=hostname` + modern, to: 1, tls: true,
			log: `Verified TLS connection established to $`},
		{spec: unsigned("ported-bad", "enforce", otherName), answer: `secure match=mx1\.ported-bad\.example .*`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.ported-bad\.example.*hostname mismatch`},
		// Each of two hosts as it deserves.
		{spec: domainSpec{name: "sts-mx", signing: dnssec.Unsigned, policy: "enforce", listed: []string{"mx2.sts-mx.example"}, hosts: []hostSpec{valid, valid}},
			answer: `secure match=mx2\.sts-mx\.example .*`, to: 2, tls: true, log: `Verified TLS connection established to $`},
		{spec: domainSpec{name: "half-dane", hosts: []hostSpec{mismatched, selfSigned}}, answer: `dane`, to: 2, tls: true,
			log: `Untrusted TLS connection established to $`},
		{spec: domainSpec{name: "dane-sts", policy: "enforce", hosts: []hostSpec{valid, withDANE}}, answer: `dane-only`, to: 2, tls: true,
			log: `Verified TLS connection established to $`},
		// RFC 8461 §2: a policy that is met makes up for no TLSA record that is
		// not.
		{spec: domainSpec{name: "dane-first", policy: "enforce", hosts: []hostSpec{{tlsa: wrongTLSA}}}, answer: `dane-only`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.dane-first\.example.*no matching DANE TLSA records`},
		// One host's bad DNS is that host's trouble.
		{spec: domainSpec{name: "half-broken", hosts: []hostSpec{withDANE, withDANE}}, fault: func(d *domain) { n.zones.Fault(d.hosts[0].owner(), dns.TypeTLSA, dnssec.BadSignature) },
			answer: `dane`, to: 2, tls: true, log: `Verified TLS connection established to $`},
		{spec: domainSpec{name: "half-broken-sts", policy: "enforce", hosts: []hostSpec{withDANE, valid}}, fault: func(d *domain) { n.zones.Fault(d.hosts[0].owner(), dns.TypeTLSA, dnssec.BadSignature) },
			answer: `secure match=mx2\.half-broken-sts\.example .*`, to: 2, tls: true, log: `Verified TLS connection established to $`},
		{spec: domainSpec{name: "broken", hosts: []hostSpec{withDANE}}, fault: func(d *domain) { n.zones.Fault(d.hosts[0].owner(), dns.TypeTLSA, dnssec.BadSignature) },
			answer: `postmap: warning: socketmap:unix:.*:policy socketmap server temporary error: 4\.7\.5 mx1\.broken\.example: the TLSA records cannot be looked up: (.|\n)*`, dsn: `4\.7\.5`,
			log: `socketmap server temporary error: 4\.7\.5 mx1\.broken\.example: the TLSA records cannot be looked up`},
		{spec: domainSpec{name: "sts-none", signing: dnssec.Unsigned, policy: "enforce", listed: []string{"mx.elsewhere.example"}, hosts: []hostSpec{valid}},
			answer: `(.|\n)*temporary error: 4\.7\.5 mx1\.sts-none\.example: the domain's MTA-STS policy does not list this host(.|\n)*`, dsn: `4\.7\.5`,
			log: `socketmap server temporary error: 4\.7\.5 mx1\.sts-none\.example: the domain's MTA-STS policy`},
		// The administrator's own rules.
		{spec: domainSpec{name: "exempt", hosts: []hostSpec{mismatched}}, answer: `may`, to: 1, tls: true,
			log: `Untrusted TLS connection established to $`},
		{spec: unsigned("strict", "", selfSigned), answer: `secure match=mx1\.strict\.example servername=hostname`, dsn: `4\.7\.5`,
			log: `certificate verification failed for mx1\.strict\.example.*self-signed`},
	}
	pinned := unsigned("pinned", "", selfSigned)
	// its key is another than that of the override
	repinned := unsigned("repinned", "", selfSigned)
	cases = append(cases,
		expectation{spec: pinned, answer: `fingerprint match=([0-9A-F]{2}:){31}[0-9A-F]{2}` + modern, to: 1, tls: true, log: `Verified TLS connection established to $`},
		expectation{spec: repinned, answer: `fingerprint match=.*`, dsn: `4\.7\.5`, log: `certificate verification failed for mx1\.repinned\.example`},
	)
	made := map[string]*domain{}
	for _, c := range cases {
		d := n.add(t, c.spec)
		made[c.spec.name] = d
		if c.fault != nil {
			c.fault(d)
		}
	}
	// Domains that are not signed, at providers that are.
	providers := map[string]*domain{
		"hosted.example":     n.add(t, domainSpec{name: "provider", hosts: []hostSpec{withDANE}}),
		"hosted-bad.example": n.add(t, domainSpec{name: "provider-bad", hosts: []hostSpec{mismatched}}),
	}
	for name, d := range providers {
		if err := n.zones.AddZone(dnssec.Zone{Name: name, Signing: dnssec.Unsigned, TTL: 1, NegativeTTL: 1, Text: "@ MX 10 " + d.hosts[0].name + ".\n"}); err != nil {
			t.Fatal(err)
		}
	}
	resolver := n.resolver()
	key := pin.Of(made["pinned"].hosts[0].cert.Leaf)
	n.serve(t, n.unbound(t, resolver).Addr(), fmt.Sprintf(`    overrides:
      - {match: exempt.example, mx_auth: none}
      - {match: strict.example, mx_auth: {local_policy: {min_tls_level: authenticated}}}
      - {match: pinned.example, pin: %[1]q}
      - {match: repinned.example, pin: %[1]q}`, key.String()))
	p := n.smtp(t, resolver)
	t.Run("READMEs", n.asInREADME)
	table := "socketmap:unix:" + n.d.socketmap() + ":policy"
	for name, d := range providers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := n.postmap(name, table); got != "dane" {
				t.Errorf("postmap says %q", got)
			}
			id := p.submit(t, note("a@"+keepDomain, "b@"+name))
			if name == "hosted-bad.example" {
				p.deferred(t, id, 1, `4\.7\.5`, `Server certificate not`)
				d.hosts[0].untouched(t)
				return
			}
			// RFC 7672 §2.2.1: what an unsigned MX set led to is matched, but
			// never called verified.
			p.sent(t, id, 1)
			p.find(t, `(Trusted) TLS connection established to `+regexp.QuoteMeta(d.hosts[0].name))
		})
	}
	for _, c := range cases {
		t.Run(c.spec.name, func(t *testing.T) {
			t.Parallel()
			d := made[c.spec.name]
			if got := n.postmap(d.name, table); !regexp.MustCompile("^(" + c.answer + ")$").MatchString(got) {
				t.Errorf("postmap says %q, want %s", got, c.answer)
			}
			id := p.submit(t, note("a@"+keepDomain, "b@"+d.name))
			relay := ""
			if c.to > 0 {
				relay = regexp.QuoteMeta(d.hosts[c.to-1].name + "[")
				if f := p.sent(t, id, 1); !strings.HasPrefix(f.relay, d.hosts[c.to-1].name+"[") {
					t.Errorf("sent to %s", f.relay)
				}
			} else {
				p.deferred(t, id, 1, c.dsn, "")
			}
			p.find(t, strings.ReplaceAll("("+c.log+")", "$", relay))
			for i, h := range d.hosts {
				messages := h.Messages()
				switch {
				case i != c.to-1:
					h.untouched(t)
				case len(messages) != 1 || (messages[0].TLS != nil) != c.tls:
					t.Errorf("%s has %d messages", h.name, len(messages))
				}
			}
		})
	}
}

// A forger of an unsigned MX set gets nothing of a domain with MTA-STS, neither
// while mxpolicyd still knows the hosts of before, and Postfix alone believes
// the forger, nor afterwards.
func TestSocketmapAndAForger(t *testing.T) {
	t.Parallel()
	n := newInternet(t)
	d := n.add(t, domainSpec{name: "forged", signing: dnssec.Unsigned, ttl: 300, policy: "enforce", hosts: []hostSpec{valid}})
	forger := n.add(t, domainSpec{name: "forger", signing: dnssec.Unsigned, hosts: []hostSpec{valid}})
	resolver := n.resolver()
	u := n.unbound(t, resolver)
	n.serve(t, u.Addr())
	p := n.smtp(t, resolver)
	table := "socketmap:unix:" + n.d.socketmap() + ":policy"
	p.sent(t, p.submit(t, note("a@"+keepDomain, "b@"+d.name)), 1)

	if err := n.zones.Set(fmt.Sprintf("%s. MX 5 %s.", d.name, forger.hosts[0].name)); err != nil {
		t.Fatal(err)
	}
	// It forgets what it knew.
	if err := u.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := n.postmap(d.name, table); !strings.HasPrefix(got, "secure match=mx1.forged.example ") {
		t.Errorf("mxpolicyd says %s", got)
	}
	id := p.submit(t, note("a@"+keepDomain, "b@"+d.name))
	p.deferred(t, id, 1, `4\.7\.5`, `Server certificate not`)
	p.find(t, `certificate verification failed for (mx1\.forger)\.example.*hostname mismatch`)
	forger.hosts[0].untouched(t)

	// Now mxpolicyd forgets as well, all but the policy.
	n.restart(t, func() {})
	if got := n.postmap(d.name, table); !strings.Contains(got, "mx1.forger.example: the domain's MTA-STS policy does not list this host") {
		t.Errorf("mxpolicyd says %s", got)
	}
	p.retry(t, id)
	p.deferred(t, id, 2, `4\.7\.5`, "")
	forger.hosts[0].untouched(t)
}

// asInREADME asks all that the READMEs ask of a socketmap: the answers that
// they show are those that come.
func (n *internet) asInREADME(t *testing.T) {
	t.Parallel()
	const place = "/run/mxpolicyd/socketmap.sock"
	question := regexp.MustCompile(`(?m)^    \$ postmap -q (\S+) (socketmap:unix:` + place + `:\S+)\n((?:    [^$\n].*\n)*)`)
	for file, least := range map[string]int{"../README.md": 2, "../contrib/postfix/README.md": 12} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		shown := question.FindAllStringSubmatch(string(text), -1)
		if len(shown) < least {
			t.Errorf("%s shows %d answers", file, len(shown))
		}
		for _, s := range shown {
			want := strings.TrimSpace(strings.ReplaceAll(s[3], "\n    ", "\n"))
			got := strings.ReplaceAll(n.postmap(s[1], strings.Replace(s[2], place, n.d.socketmap(), 1)), n.d.socketmap(), place)
			if want == "" {
				want = "exit status 1"
			}
			// A long answer is shown as far as it matters.
			if begin, cut := strings.CutSuffix(want, "..."); got != want && !(cut && strings.HasPrefix(got, begin)) {
				t.Errorf("postmap -q %s %s says\n%s\nand %s\n%s", s[1], s[2], got, file, want)
			}
		}
	}
}
