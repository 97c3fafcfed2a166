package transport

import (
	"crypto/tls"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// mitm is a man in the middle, and one of its attacks on one message:
// a.example's server is mx1.hosts.example, behind a man in the middle.
type mitm struct {
	*lab
	tamper tamper
	forge  []func() // what it does to the DNS, once the world is there
	server *mx.Server
	evil   *mx.Server
	signed bool // the domain and its hosts
}

const attacker = "mx.attacker.example"

// attacks are the rows of the table in docs/security.md, by their name there.
// What an attacker forges in a signed zone, a validating resolver takes for
// bogus.
func attacks() map[string]func(*mitm) {
	return map[string]func(*mitm){
		"listens":              func(*mitm) {},
		"strips STARTTLS":      func(s *mitm) { s.tamper.hide = "STARTTLS" },
		"refuses STARTTLS":     func(s *mitm) { s.tamper.starttls = "454 4.7.0 not now" },
		"breaks the handshake": func(s *mitm) { s.tamper.cut = true },
		"breaks every hello with a post-quantum share": func(s *mitm) { s.tamper.breaks = postQuantum },
		"breaks every hello without RSA key exchange, at a server that prefers it": func(s *mitm) {
			s.tamper.breaks = withoutRSA
			s.server.SetBehaviour(prefersRSA(s.server.Behaviour()))
		},
		"swaps the certificate for a self-made one": func(s *mitm) {
			cert := s.cert(ca.Spec{Names: []string{theHost}, SelfSigned: true})
			s.tamper.cert = &cert
		},
		"swaps the certificate for a valid one of another name": func(s *mitm) {
			cert := s.cert(ca.For(attacker))
			s.tamper.cert = &cert
		},
		"swaps the certificate for one that a public CA wrongly issued in the host's name": func(s *mitm) {
			cert := s.cert(ca.For(theHost))
			s.tamper.cert = &cert
		},
		"answers MX with another host": func(s *mitm) {
			s.forged(theDomain, dns.TypeMX, theDomain+". MX 10 "+attacker+".")
		},
		"answers the host's address with another": func(s *mitm) {
			address, _, _ := strings.Cut(s.evil.Addr(), ":")
			s.forged(theHost, dns.TypeA, theHost+". A "+address)
		},
		"denies that the domain exists": func(s *mitm) {
			s.forged(theDomain, dns.TypeMX, "")
		},
		"suppresses TLSA records": func(s *mitm) {
			s.forge = append(s.forge, func() { s.dns.SetFault("", dns.TypeTLSA, labdns.ServFail) })
		},
		"suppresses all DNS": func(s *mitm) {
			s.forge = append(s.forge, func() { s.dns.SetFault("", dns.TypeANY, labdns.ServFail) })
		},
		"hides an MTA-STS policy never seen before, and strips STARTTLS": func(s *mitm) {
			s.tamper.hide = "STARTTLS"
			s.forge = append(s.forge, func() {
				if _, ok := s.policies[theDomain]; ok {
					s.policies[theDomain] = policycache.Entry{Domain: theDomain, State: policycache.Failed}
				}
			})
		},
		"injects replies after that to STARTTLS": func(s *mitm) { s.tamper.behind = "250 mx1.hosts.example\r\n" },
		"greets in the server's place with 554":  func(s *mitm) { s.tamper.greeting = "554 5.7.1 no mail from you" },
		"cuts the line":                          func(s *mitm) { s.tamper.cutAll = true },
	}
}

// forged puts a record in the place of the true ones.
func (s *mitm) forged(name string, qtype uint16, record string) {
	s.forge = append(s.forge, func() {
		if s.signed {
			s.dns.SetFault(name, qtype, labdns.Bogus)
			return
		}
		s.dns.Remove(name, qtype)
		if record != "" {
			s.zone("%s", record)
		}
	})
}

// protections are the columns of the table, by their name there.
func protections() map[string]func(*mitm) (change func(*Config), require bool) {
	publishes := func(things ...func(*mitm)) func(*mitm) (func(*Config), bool) {
		return func(s *mitm) (func(*Config), bool) {
			for _, t := range things {
				t(s)
			}
			return everything, false
		}
	}
	sign := func(s *mitm) {
		s.signed = true
		s.lab.signed(theDomain, "hosts.example")
	}
	enforce := func(s *mitm) { s.policy(theDomain, mtasts.ModeEnforce, theHost) }
	nothing := publishes()
	return map[string]func(*mitm) (func(*Config), bool){
		"nothing":         nothing,
		"DNSSEC and DANE": publishes(sign, func(s *mitm) { s.tlsa(theHost, ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, s.genuine().Leaf)) }),
		"MTA-STS enforce": publishes(enforce),
		"MTA-STS testing": publishes(func(s *mitm) { s.policy(theDomain, mtasts.ModeTesting, theHost) }),
		"min_tls_level encrypted": func(*mitm) (func(*Config), bool) {
			return local(verdict.TLSEncrypted, verdict.MXNone), false
		},
		"min_tls_level authenticated": func(*mitm) (func(*Config), bool) {
			return local(verdict.TLSAuthenticated, verdict.MXNone), false
		},
		"a pin": func(s *mitm) (func(*Config), bool) {
			return func(c *Config) { everything(c); pinTo(c, pin.Of(s.genuine().Leaf)) }, false
		},
		"REQUIRETLS, MTA-STS": func(s *mitm) (func(*Config), bool) { enforce(s); return everything, true },
		"REQUIRETLS, DNSSEC":  func(s *mitm) (func(*Config), bool) { sign(s); return everything, true },
	}
}

// genuine is the server's own certificate.
func (s *mitm) genuine() tls.Certificate { return s.certificates[theHost] }

// lay plays one attack on one kind of protection, and says in the words of the
// table what came of it.
func lay(t *testing.T, attack func(*mitm), protect func(*mitm) (func(*Config), bool)) string {
	const secret = "0xC0FFEE"
	s := &mitm{lab: newLab(t)}
	server := s.mx(theHost, func(h *mx.Behaviour) {
		offering(h)
		h.TLS.Certificate = s.cert(ca.Spec{Names: []string{theHost}, Key: ca.RSA})
		s.certificates[theHost] = h.TLS.Certificate
	})
	s.server = server
	s.evil = s.mx(attacker, nil)
	s.zone("%s. MX 10 %s.", theDomain, theHost)
	// The address of the host is its own, as everything on the way to it is.
	address := s.address()
	s.dns.Remove(theHost, dns.TypeA)
	s.zone("%s. A %s", theHost, address)
	change, require := protect(s)
	attack(s)
	for _, forge := range s.forge {
		forge()
	}
	man := between(t, fmt.Sprintf("%s:%d", address, s.port), server.Addr(), s.tamper)
	s.start(change)
	env := envelope("b@" + theDomain)
	env.RequireTLS = require
	result := s.transport.Deliver(t.Context(), env, msg(t, text+secret+"\n"))[0]
	read := man.heard(secret) || len(s.evil.Messages()) > 0
	there := len(server.Messages())+len(s.evil.Messages()) > 0
	switch class := result.Code.Class; {
	case there != (class == 2), read && !there:
		t.Errorf("%v %s, and the message is there: %v", result.Code, result.Text, there)
		return "?"
	case read:
		return "**read**"
	case class == 2:
		return "delivered" + secrecy(server, s.evil)
	case class == 4:
		return "kept, " + result.Code.String()
	}
	return "bounced, " + result.Code.String()
}

// prefersRSA has a server take RSA key exchange where it is offered, as old
// ones do.
func prefersRSA(h mx.Behaviour) mx.Behaviour {
	h.TLS.MaxVersion = tls.VersionTLS12
	h.TLS.Answer = func(hello *tls.ClientHelloInfo, config *tls.Config) error {
		if slices.Contains(hello.CipherSuites, tls.TLS_RSA_WITH_AES_128_GCM_SHA256) {
			config.CipherSuites = []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}
		}
		return nil
	}
	return h
}

// secrecy tells what a connection lacks that the two hosts could have had.
func secrecy(servers ...*mx.Server) string {
	for _, server := range servers {
		for _, m := range server.Messages() {
			switch state := m.TLS; {
			case state == nil:
			case state.CurveID == 0:
				return ", no forward secrecy"
			case state.CurveID < tls.X25519MLKEM768 && state.CurveID != tls.SecP256r1MLKEM768:
				return ", classical"
			}
		}
	}
	return ""
}

// TestManInTheMiddle holds the table of docs/security.md to the truth: what a
// man in the middle gets of a message, for each attack and each protection.
func TestManInTheMiddle(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	columns, rows := readTable(t, string(page))
	attacks, protections := attacks(), protections()
	if len(columns) != len(protections) || len(rows) != len(attacks) {
		t.Errorf("the table has %d by %d cells, want %d attacks by %d protections", len(rows), len(columns), len(attacks), len(protections))
	}
	for _, row := range rows {
		attack, ok := attacks[row[0]]
		if !ok {
			t.Errorf("the table has an attack %q that is not played", row[0])
			continue
		}
		for i, column := range columns {
			protect, ok := protections[column]
			if !ok {
				t.Errorf("the table has a protection %q that is not played", column)
				continue
			}
			t.Run(row[0]+"/"+column, func(t *testing.T) {
				t.Parallel()
				if got := lay(t, attack, protect); got != row[i+1] {
					t.Errorf("%s; the page says %s", got, row[i+1])
				}
			})
		}
	}
}

// readTable reads the one table of the page whose first column is the
// attacker's deeds.
func readTable(t *testing.T, page string) (columns []string, rows [][]string) {
	t.Helper()
	cells := func(line string) []string {
		parts := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		for i := range parts {
			parts[i] = strings.TrimSpace(parts[i])
		}
		return parts
	}
	var table []string
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| The attacker") || len(table) > 0 && strings.HasPrefix(line, "|") {
			table = append(table, line)
		} else if len(table) > 0 {
			break
		}
	}
	if len(table) < 3 {
		t.Fatal("there is no table")
	}
	columns = cells(table[0])[1:]
	for _, line := range table[2:] {
		row := cells(line)
		if len(row) != len(columns)+1 {
			t.Fatalf("the row %q has %d cells", row[0], len(row))
		}
		if slices.ContainsFunc(rows, func(r []string) bool { return r[0] == row[0] }) {
			t.Errorf("the row %q is there twice", row[0])
		}
		rows = append(rows, row)
	}
	return columns, rows
}
