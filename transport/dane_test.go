package transport

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// TestDANEAliases has the MX host mx1.a.example be an alias of real.b.example
// (RFC 7672 §2.2.2, §2.2.3). The records at either name match ("good"), do not
// ("bad"), or are not there.
func TestDANEAliases(t *testing.T) {
	t.Parallel()
	const good, bad, none = "good", "bad", "none"
	tests := []struct {
		name            string
		signed          []string
		original, final string
		spoil           func(*labdns.Server, string) // with the port
		want            string
		sni             string // what the server was asked for
		mxAsked         bool   // for TLSA at the original name
	}{
		{"both signed, records at the target", []string{"a.example", "b.example"}, none, good, nil, "2.0.0 , dane", "real.b.example", false},
		{"both signed, the target's records count", []string{"a.example", "b.example"}, good, bad, nil, "4.7.5", "", false},
		{"both signed, records at the original name", []string{"a.example", "b.example"}, good, none, nil, "2.0.0 , dane", "mx1.a.example", true},
		{"both signed, wrong records at the original name", []string{"a.example", "b.example"}, bad, none, nil, "4.7.5", "", true},
		{"both signed, no records", []string{"a.example", "b.example"}, none, none, nil, "2.0.0 , encrypted", "mx1.a.example", true},
		{"unsigned target, records at the original name", []string{"a.example"}, good, none, nil, "2.0.0 , dane", "mx1.a.example", true},
		{"unsigned target, wrong records at the original name", []string{"a.example"}, bad, good, nil, "4.7.5", "", true},
		{"unsigned target, its records do not count", []string{"a.example"}, none, bad, nil, "2.0.0 , encrypted", "mx1.a.example", true},
		{"unsigned alias, nothing counts", []string{"b.example"}, bad, bad, nil, "2.0.0 , encrypted", "mx1.a.example", false},
		{"look-up fails at the target", []string{"a.example", "b.example"}, good, good, func(d *labdns.Server, port string) {
			d.SetFault("_"+port+"._tcp.real.b.example", dns.TypeTLSA, labdns.ServFail)
		}, "4.7.5 TLSA", "", false},
		{"look-up fails at the original name", []string{"a.example", "b.example"}, none, none, func(d *labdns.Server, port string) {
			d.SetFault("_"+port+"._tcp.mx1.a.example", dns.TypeTLSA, labdns.ServFail)
		}, "4.7.5 TLSA", "", true},
		{"look-up of the alias fails", []string{"a.example"}, good, none, func(d *labdns.Server, _ string) {
			d.SetFault("mx1.a.example", dns.TypeCNAME, labdns.ServFail)
		}, "4.7.5 TLSA", "", false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			cert := issue(t, l.strangers, ca.For("whatever.example"))
			server := l.mx("real.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
			l.zone("a.example. MX 10 mx1.a.example.\nmx1.a.example. CNAME real.b.example.")
			l.signed(tt.signed...)
			record := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
			for host, is := range map[string]string{"mx1.a.example": tt.original, "real.b.example": tt.final} {
				switch is {
				case good:
					l.tlsa(host, record)
				case bad:
					l.tlsa(host, record.Spoiled())
				}
			}
			if tt.spoil != nil {
				tt.spoil(l.dns, fmt.Sprint(l.port))
			}
			l.start(everything)
			expect(t, l.send("b@a.example"), tt.want)
			if m := server.Messages(); tt.sni != "" && (len(m) != 1 || m[0].TLS == nil || m[0].TLS.ServerName != tt.sni) {
				t.Errorf("the server got %+v, want one message and the name %s", m, tt.sni)
			} else if tt.sni == "" && len(m) > 0 {
				t.Error("the server got the message")
			}
			if asked := l.dns.Queries(fmt.Sprintf("_%d._tcp.mx1.a.example", l.port), dns.TypeTLSA).UDP > 0; asked != tt.mxAsked {
				t.Errorf("asked for records at the original name: %v", asked)
			}
		})
	}
}

func TestAliasedTLSARecord(t *testing.T) {
	t.Parallel()
	for _, signed := range []bool{true, false} {
		l := newLab(t)
		l.mx("mx1.a.example", func(h *mx.Behaviour) { h.TLS = mx.TLS{} })
		l.zone("a.example. MX 10 mx1.a.example.\n_%d._tcp.mx1.a.example. CNAME tlsa.b.example.", l.port)
		l.zone("tlsa.b.example. TLSA %s", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.ca.Root()))
		l.signed("a.example")
		l.dns.Secure("b.example", signed)
		l.start(everything)
		// Unsigned records are none (RFC 7672 §2.1.1).
		want := "2.0.0 , plaintext"
		if signed {
			want = "4.7.5 STARTTLS"
		}
		expect(t, l.send("b@a.example"), want)
	}
}

// TestDANEMatching has every kind of record checked through a real handshake.
func TestDANEMatching(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.signed("example")
	deep, err := ca.New(ca.Options{Name: "deep", Intermediates: 2})
	l.must(err)
	l.start(everything)
	n := 0
	check := func(name, want string, spec ca.Spec, from *ca.Authority, records func(tls.Certificate) []ca.Record) {
		t.Helper()
		n++
		domain := fmt.Sprintf("d%d.example", n)
		if spec.Names == nil && spec.CommonName == "" {
			spec.Names = []string{"mx." + domain}
		}
		for i := range spec.Names {
			spec.Names[i] = strings.ReplaceAll(spec.Names[i], "DOMAIN", domain)
		}
		cert := issue(t, from, spec)
		server := l.mx("mx."+domain, func(h *mx.Behaviour) { h.TLS.Certificate = cert })
		l.zone("%s. MX 10 mx.%s.", domain, domain)
		l.tlsa("mx."+domain, records(cert)...)
		result := l.send("b@" + domain)[0]
		if code, part, _ := strings.Cut(want, " "); result.Code.String() != code || !strings.Contains(result.Text, part) {
			t.Errorf("%s: %v %s, want %s", name, result.Code, result.Text, want)
		}
		if got := len(server.Messages()); (got == 1) != strings.HasPrefix(want, "2") {
			t.Errorf("%s: the server got %d messages", name, got)
		}
	}
	one := func(r ca.Record) func(tls.Certificate) []ca.Record {
		return func(tls.Certificate) []ca.Record { return []ca.Record{r} }
	}
	const dane, refused = "2.0.0 , dane", "4.7.5 DANE"

	// Each usage, selector and matching type, both ways.
	for _, selector := range []ca.Selector{ca.Cert, ca.SPKI} {
		for _, matching := range []ca.Matching{ca.Full, ca.SHA256, ca.SHA512} {
			of := fmt.Sprintf("%d %d", selector, matching)
			ee := func(cert tls.Certificate) []ca.Record {
				return []ca.Record{ca.TLSA(ca.DANEEE, selector, matching, cert.Leaf)}
			}
			check("3 "+of, dane, ca.Spec{}, l.strangers, ee)
			check("3 "+of+" of another", refused, ca.Spec{}, l.strangers, one(ca.TLSA(ca.DANEEE, selector, matching, l.ca.Root())))
			check("2 "+of, dane, ca.Spec{Chain: ca.WithRoot}, l.strangers, one(ca.TLSA(ca.DANETA, selector, matching, l.strangers.Root())))
			check("2 "+of+" of another", refused, ca.Spec{Chain: ca.WithRoot}, l.strangers, one(ca.TLSA(ca.DANETA, selector, matching, l.ca.Root())))
		}
	}
	// An anchor that only the DNS gives (RFC 7671 §5.2.2, §5.2.3).
	check("whole root in DNS, not sent", dane, ca.Spec{Chain: ca.LeafOnly}, l.strangers, one(ca.TLSA(ca.DANETA, ca.Cert, ca.Full, l.strangers.Root())))
	check("root's key in DNS, not sent", dane, ca.Spec{Chain: ca.LeafOnly}, l.strangers, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.Full, l.strangers.Root())))
	check("root's digest in DNS, not sent", refused, ca.Spec{Chain: ca.LeafOnly}, l.strangers, one(ca.TLSA(ca.DANETA, ca.Cert, ca.SHA256, l.strangers.Root())))
	// Chains.
	check("intermediate", dane, ca.Spec{}, deep, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Issuer())))
	check("root over intermediates", dane, ca.Spec{Chain: ca.WithRoot}, deep, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Root())))
	check("shuffled chain", dane, ca.Spec{Chain: ca.Shuffled}, deep, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Root())))
	check("missing intermediates", refused, ca.Spec{Chain: ca.LeafOnly}, deep, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Issuer())))
	check("a stranger's root sent along", refused, ca.Spec{Extra: []*x509.Certificate{deep.Root()}}, l.strangers, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Root())))
	check("expired under DANE-TA", refused, ca.ExpiredFor("mx.DOMAIN"), deep, one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Issuer())))
	// Several records.
	check("several, the last matches", dane, ca.Spec{}, deep, func(cert tls.Certificate) []ca.Record {
		good := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
		return []ca.Record{good.Spoiled(), ca.TLSA(ca.DANETA, ca.Cert, ca.SHA256, l.ca.Root()), good}
	})
	check("several, none matches", refused, ca.Spec{}, deep, func(cert tls.Certificate) []ca.Record {
		good := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
		return []ca.Record{good.Spoiled(), ca.TLSA(ca.DANETA, ca.Cert, ca.SHA256, l.ca.Root())}
	})
	check("malformed digest beside a good one", dane, ca.Spec{}, deep, func(cert tls.Certificate) []ca.Record {
		good := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
		short := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA512, cert.Leaf)
		short.Data = short.Data[:20]
		return []ca.Record{short, good}
	})
	check("malformed digest alone obliges to TLS only", "2.0.0 , encrypted", ca.Spec{}, deep, func(cert tls.Certificate) []ca.Record {
		short := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
		short.Data = short.Data[:31]
		return []ca.Record{short}
	})
	check("usages for the web do not count (RFC 7672 §3.1.3)", "2.0.0 , encrypted", ca.Spec{}, deep, func(cert tls.Certificate) []ca.Record {
		return []ca.Record{ca.TLSA(ca.PKIXEE, ca.SPKI, ca.SHA256, l.ca.Root()), ca.TLSA(ca.PKIXTA, ca.SPKI, ca.SHA256, l.ca.Root())}
	})
	// Names under DANE-TA (RFC 7672 §3.2.2).
	ta := one(ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, deep.Issuer()))
	check("name of the next-hop domain", dane, ca.For("DOMAIN"), deep, ta)
	check("another name", refused, ca.For("mx.elsewhere.example"), deep, ta)
	check("wildcard", dane, ca.For("*.DOMAIN"), deep, ta)
	check("common name alone", refused, ca.Spec{CommonName: "mx.elsewhere.example"}, deep, ta)
}

// The next-hop domain is a name to look for only where the MX set is signed:
// otherwise it was not this domain that named the host.
func TestDANENamesOfAnUnsignedMXSet(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		certificate string
		want        string
	}{
		{"mx1.b.example", "2.0.0 dane for an unsigned MX"},
		{"a.example", "4.7.5 DANE"},
	} {
		l := newLab(t)
		cert := issue(t, l.strangers, ca.Spec{Names: []string{tt.certificate}, Chain: ca.WithRoot})
		l.mx("mx1.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
		l.zone("a.example. MX 10 mx1.b.example.")
		l.signed("b.example")
		l.tlsa("mx1.b.example", ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, l.strangers.Root()))
		l.start(everything)
		expect(t, l.send("b@a.example"), tt.want)
	}
}

// Behind a signed alias every name on the signed way is good: the TLSA base
// domain, the MX host's own, and the next-hop domain (RFC 7672 §3.2.2).
func TestDANENamesBehindAnAlias(t *testing.T) {
	t.Parallel()
	for certificate, want := range map[string]string{
		"real.b.example": "2.0.0 , dane", "mx1.a.example": "2.0.0 , dane", "a.example": "2.0.0 , dane",
		"b.example": "4.7.5 DANE", "elsewhere.example": "4.7.5 DANE",
	} {
		l := newLab(t)
		cert := issue(t, l.strangers, ca.Spec{Names: []string{certificate}, Chain: ca.WithRoot})
		l.mx("real.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
		l.zone("a.example. MX 10 mx1.a.example.\nmx1.a.example. CNAME real.b.example.")
		l.signed("a.example", "b.example")
		l.tlsa("real.b.example", ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, l.strangers.Root()))
		l.start(everything)
		expect(t, l.send("b@a.example"), want)
	}
}

// A domain that is an alias itself is known by both its names (RFC 7672
// §3.2.2).
func TestDANENamesOfAnAliasedDomain(t *testing.T) {
	t.Parallel()
	for certificate, want := range map[string]string{"a.example": "2.0.0 , dane", "c.example": "2.0.0 , dane", "d.example": "4.7.5 DANE"} {
		l := newLab(t)
		cert := issue(t, l.strangers, ca.Spec{Names: []string{certificate}, Chain: ca.WithRoot})
		l.mx("mx1.b.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
		l.zone("a.example. CNAME c.example.\nc.example. MX 10 mx1.b.example.")
		l.signed("example")
		l.tlsa("mx1.b.example", ca.TLSA(ca.DANETA, ca.SPKI, ca.SHA256, l.strangers.Root()))
		l.start(everything)
		expect(t, l.send("b@a.example"), want)
	}
}

// A DANE-EE handshake is made once: the certificate is judged inside of it.
func TestDANENeedsOneConnection(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cert := l.cert(ca.Spec{SelfSigned: true, CommonName: "x"})
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
	l.zone("a.example. MX 10 mx1.a.example.")
	l.signed("a.example")
	l.tlsa("mx1.a.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf))
	l.start(everything)
	for range 3 {
		expect(t, l.send("b@a.example"), "2.0.0 , dane")
	}
	c := server.Counters()
	if c.Connections != 3 || c.Handshakes != 3 || c.FailedHandshakes != 0 || c.Resumed != 2 {
		t.Errorf("%+v; want 3 connections, the last two with resumed sessions", c)
	}
}

// A session that was set up under one set of records is not resumed under
// another: what it proved then does not count now.
func TestResumedSessionIsJudgedByTheRecordsOfTheDay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	cert := l.cert(ca.For("mx1.a.example"))
	server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.TLS.Certificate = cert })
	l.zone("a.example. MX 10 mx1.a.example.")
	l.signed("a.example")
	// The records are not cached: each delivery sees those of the moment.
	name := fmt.Sprintf("_%d._tcp.mx1.a.example", l.port)
	record := ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, cert.Leaf)
	l.zone("%s. 0 TLSA %s", name, record)
	l.start(everything)
	expect(t, l.send("b@a.example"), "2.0.0 , dane")
	l.dns.Remove(name, dns.TypeTLSA)
	l.zone("%s. 0 TLSA %s", name, record.Spoiled())
	expect(t, l.send("b@a.example"), "4.7.5 DANE")
	if n := len(server.Messages()); n != 1 {
		t.Errorf("%d messages", n)
	}
}

// More TLSA records than are kept: as long as one of those kept is usable they
// decide. When none is, one that was left out may be, and the host gets nothing
// rather than a connection that nothing proved.
func TestMoreTLSARecordsThanAreKept(t *testing.T) {
	t.Parallel()
	for usage, want := range map[int]string{3: "4.7.5 TLSA", 1: "2.0.0 , dane"} {
		l := newLab(t)
		server := l.mx("mx1.a.example", nil)
		l.zone("a.example. MX 10 mx1.a.example.")
		l.signed("a.example")
		for i := range 70 { // all of them unusable
			l.zone("%s TLSA %d 1 1 %04x", l.tlsaName("mx1.a.example"), usage, i)
		}
		if usage == 1 {
			l.tlsa("mx1.a.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates["mx1.a.example"].Leaf))
		}
		l.start(everything)
		expect(t, l.send("b@a.example"), want)
		if messages := server.Counters().Messages; (messages == 1) != (usage == 1) {
			t.Errorf("usage %d: %d messages", usage, messages)
		}
	}
}
