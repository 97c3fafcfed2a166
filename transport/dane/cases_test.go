package dane_test

import (
	"crypto"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"testing"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// serverCase is what a server presents, what its records say, and what must
// come of it. The same cases go through Verify and through OpenSSL.
type serverCase struct {
	name    string
	rfc     string
	server  []party // the server's own certificate first
	records []dane.Record
	names   []string
	want    error // nil: authenticated
	by      string
	depth   int
	match   string // the reference identifier that matched
	// openssl says why OpenSSL decides otherwise; empty where it agrees.
	openssl string
}

func (c serverCase) chain() []*x509.Certificate { return chain(c.server...) }

type records = []dane.Record
type servers = []party

func serverCases(t testing.TB) []serverCase {
	a := newCA(t)
	cases := eeCases(t, a)
	cases = append(cases, taCases(a)...)
	cases = append(cases, nameCases(a)...)
	cases = append(cases, pathCases(t, a)...)
	cases = append(cases, setCases(a)...)
	for i := range cases {
		if cases[i].names == nil {
			cases[i].names = []string{host}
		}
	}
	return cases
}

// eeCases are about DANE-EE(3).
func eeCases(t testing.TB, a *ca) []serverCase {
	const u = dane.DANEEE
	none := party{}
	self := a.leaf(none, a.ec())
	rsaSelf, edSelf := a.leaf(none, a.rsaKey(0)), a.leaf(none, a.ed())
	p384, p521 := a.leaf(none, a.ec(elliptic.P384())), a.leaf(none, a.ec(elliptic.P521()))
	root := a.root(a.ec(), "root")
	inter := a.issued(root, a.ec(), "inter")
	leaf := a.leaf(inter, a.ec())
	renewed := a.leaf(inter, leaf.key)
	old, next := a.leaf(none, a.ec(), expired), a.leaf(none, a.ec(), future)
	weakKey, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	weak := a.leaf(none, weakKey)
	other := a.leaf(none, a.ec(), cn("other.test"), dnsID("other.test"))
	bare := a.leaf(none, a.ec(), dnsID())
	client := a.leaf(none, a.ec(), eku(x509.ExtKeyUsageClientAuth))
	odd := a.leaf(none, a.ec(), critical)
	caLeaf := a.root(a.ec(), "ca as server", dnsID(host))

	var cases []serverCase
	for _, c := range []struct {
		kind string
		p    party
	}{{"ECDSA", self}, {"RSA", rsaSelf}, {"Ed25519", edSelf}} {
		for _, s := range []dane.Selector{dane.Cert, dane.SPKI} {
			for _, m := range []dane.Matching{dane.Full, dane.SHA256, dane.SHA512} {
				name := fmt.Sprintf("3 %d %d %s", s, m, c.kind)
				r := rec(u, s, m, c.p)
				cases = append(cases,
					serverCase{name: name + " self-signed", rfc: "RFC 7672 §3.1.1", server: servers{c.p}, records: records{r}, by: r.String()},
				)
			}
		}
	}
	r311 := func(p party) records { return records{rec(u, dane.SPKI, dane.SHA256, p)} }
	return append(cases, []serverCase{
		{name: "3 1 1 P-384", rfc: "RFC 7671 §5.1", server: servers{p384}, records: r311(p384)},
		{name: "3 1 1 P-521", rfc: "RFC 7671 §5.1", server: servers{p521}, records: r311(p521)},
		{name: "3 1 1 RSA of 1024 bits", rfc: "RFC 7672 §3.1.1", server: servers{weak}, records: r311(weak)},
		{name: "3 1 1 issued", rfc: "RFC 7672 §3.1.1", server: servers{leaf, inter, root}, records: r311(leaf)},
		{name: "3 0 1 issued, issuer missing", rfc: "RFC 7672 §3.1.1", server: servers{leaf}, records: records{rec(u, dane.Cert, dane.SHA256, leaf)}},
		{name: "3 1 1 strangers above", rfc: "RFC 7672 §3.1.1", server: servers{leaf, other, edSelf, root}, records: r311(leaf)},
		{name: "3 1 1 expired", rfc: "RFC 7672 §3.1.1", server: servers{old}, records: r311(old)},
		{name: "3 0 0 expired", rfc: "RFC 7672 §3.1.1", server: servers{old}, records: records{rec(u, dane.Cert, dane.Full, old)}},
		{name: "3 1 1 not yet valid", rfc: "RFC 7671 §5.1", server: servers{next}, records: r311(next)},
		{name: "3 1 1 wrong name", rfc: "RFC 7672 §3.2.1", server: servers{other}, records: r311(other)},
		{name: "3 0 2 wrong name", rfc: "RFC 7672 §3.2.1", server: servers{other}, records: records{rec(u, dane.Cert, dane.SHA512, other)}},
		{name: "3 1 1 no name at all", rfc: "RFC 7672 §3.2.1", server: servers{bare}, records: r311(bare)},
		{name: "3 1 1 without reference names", rfc: "RFC 7672 §3.2.1", server: servers{other}, records: r311(other), names: []string{}},
		{name: "3 1 1 for clients only", rfc: "RFC 7672 §3.1.1", server: servers{client}, records: r311(client)},
		{name: "3 1 1 unknown critical extension", rfc: "RFC 7672 §3.1.1", server: servers{odd}, records: r311(odd)},
		{name: "3 1 1 a CA's certificate", rfc: "RFC 7672 §3.1.1", server: servers{caLeaf}, records: r311(caLeaf)},
		{name: "3 1 1 renewed with the same key", rfc: "RFC 7671 §5.1", server: servers{renewed, inter}, records: r311(leaf)},
		{name: "3 0 1 renewed with the same key", rfc: "RFC 7671 §5.1", server: servers{renewed, inter}, records: records{rec(u, dane.Cert, dane.SHA256, leaf)}, want: dane.ErrNoMatch},
		{name: "3 0 0 renewed with the same key", rfc: "RFC 7671 §5.1", server: servers{renewed, inter}, records: records{rec(u, dane.Cert, dane.Full, leaf)}, want: dane.ErrNoMatch},
		{name: "3 1 0 renewed with the same key", rfc: "RFC 7671 §5.1", server: servers{renewed, inter}, records: records{rec(u, dane.SPKI, dane.Full, leaf)}},
		{name: "3 1 1 of the issuer", rfc: "RFC 7672 §3.1.1", server: servers{leaf, inter, root}, records: r311(inter), want: dane.ErrNoMatch},
		{name: "3 0 0 of the issuer", rfc: "RFC 7672 §3.1.1", server: servers{leaf, inter, root}, records: records{rec(u, dane.Cert, dane.Full, inter)}, want: dane.ErrNoMatch},
		{name: "3 1 1 matches the second certificate", rfc: "RFC 7672 §3.1.1", server: servers{leaf, self}, records: r311(self), want: dane.ErrNoMatch},
		{name: "3 1 1 one byte off", rfc: "RFC 6698 §2.1.3", server: servers{self}, records: records{off(r311(self)[0])}, want: dane.ErrNoMatch},
		{name: "3 0 1 with the key's digest", rfc: "RFC 6698 §2.1.2", server: servers{self}, records: records{{Usage: u, Selector: dane.Cert, Matching: dane.SHA256, Data: r311(self)[0].Data}}, want: dane.ErrNoMatch},
		{name: "3 1 1 rollover, second record", rfc: "RFC 7671 §8.1", server: servers{self}, records: records{r311(other)[0], r311(self)[0]}},
		{name: "3 1 1 rollover, both retired", rfc: "RFC 7671 §8.1", server: servers{self}, records: records{r311(other)[0], r311(bare)[0]}, want: dane.ErrNoMatch},
	}...)
}

// taCases are about DANE-TA(2): where the anchor is found.
func taCases(a *ca) []serverCase {
	const u = dane.DANETA
	root := a.root(a.ec(), "root")
	inter := a.issued(root, a.ec(), "inter")
	leaf := a.leaf(inter, a.ec())
	direct := a.leaf(root, a.ec())
	stranger := a.root(a.ec(), "stranger")
	self := a.leaf(party{}, a.ec())
	oldSelf, otherSelf := a.leaf(party{}, a.ec(), expired), a.leaf(party{}, a.ec(), dnsID("other.test"))
	rsaRoot := a.root(a.rsaKey(0), "rsa root")
	rsaInter := a.issued(rsaRoot, a.rsaKey(1), "rsa inter")
	rsaLeaf := a.leaf(rsaInter, a.ec())
	edRoot := a.root(a.ed(), "ed root")
	edLeaf := a.leaf(edRoot, a.ed())
	bigRoot := a.root(a.ec(elliptic.P521()), "p521 root")
	bigInter := a.issued(bigRoot, a.ec(elliptic.P384()), "p384 inter")
	bigLeaf := a.leaf(bigInter, a.rsaKey(2))
	oldRoot := a.root(a.ec(), "old root", expired)
	oldRootInter := a.issued(oldRoot, a.ec(), "inter of old")
	oldRootLeaf := a.leaf(oldRootInter, a.ec())
	nextRoot := a.root(a.ec(), "next root", future)
	nextRootLeaf := a.leaf(nextRoot, a.ec())
	oldCross := a.issued(root, a.ec(), "old cross-signed", expired)
	oldCrossLeaf, oldCrossOld := a.leaf(oldCross, a.ec()), a.leaf(oldCross, a.ec(), expired)
	const dated = "RFC 5280 §6.1 has no dates of an anchor; OpenSSL looks at those of self-signed ones"
	renamed := a.root(root.key, "same key, other name")

	full := servers{leaf, inter, root}
	one := func(s dane.Selector, m dane.Matching, p party) records { return records{rec(u, s, m, p)} }
	crowd := servers{leaf}
	for range 32 {
		crowd = append(crowd, stranger)
	}
	crowd = append(crowd, inter, root)

	var cases []serverCase
	for _, s := range []dane.Selector{dane.Cert, dane.SPKI} {
		for _, m := range []dane.Matching{dane.Full, dane.SHA256, dane.SHA512} {
			name := fmt.Sprintf("2 %d %d", s, m)
			cases = append(cases,
				serverCase{name: name + " root presented", rfc: "RFC 7672 §3.1.2", server: full, records: one(s, m, root), depth: 2, match: host},
				serverCase{name: name + " intermediate, root presented as well", rfc: "RFC 7672 §3.1.2", server: full, records: one(s, m, inter), depth: 1, match: host},
				serverCase{name: name + " intermediate, root missing", rfc: "RFC 7672 §3.1.2", server: servers{leaf, inter}, records: one(s, m, inter), depth: 1, match: host},
				serverCase{name: name + " shuffled", rfc: "RFC 7671 §5.2.2", server: servers{leaf, root, inter}, records: one(s, m, root), depth: 2, match: host},
				serverCase{name: name + " stranger between", rfc: "RFC 7671 §5.2.2", server: servers{leaf, stranger, inter, self, root}, records: one(s, m, root), depth: 2, match: host},
			)
		}
	}
	return append(cases, []serverCase{
		{name: "2 0 1 root missing", rfc: "RFC 7671 §5.2.2", server: servers{leaf, inter}, records: one(dane.Cert, dane.SHA256, root), want: dane.ErrNoMatch},
		{name: "2 1 1 root missing", rfc: "RFC 7671 §5.2.2", server: servers{leaf, inter}, records: one(dane.SPKI, dane.SHA256, root), want: dane.ErrNoMatch},
		{name: "2 1 2 issuer missing", rfc: "RFC 7671 §5.2.2", server: servers{leaf}, records: one(dane.SPKI, dane.SHA512, inter), want: dane.ErrNoMatch},
		{name: "2 0 1 intermediate missing", rfc: "RFC 7671 §5.2", server: servers{leaf, root}, records: one(dane.Cert, dane.SHA256, root), want: dane.ErrPath},
		{name: "2 0 0 root in DNS only", rfc: "RFC 7671 §5.2.2", server: servers{leaf, inter}, records: one(dane.Cert, dane.Full, root), depth: 2, match: host},
		{name: "2 0 0 intermediate in DNS only", rfc: "RFC 7671 §5.2.2", server: servers{leaf}, records: one(dane.Cert, dane.Full, inter), depth: 1, match: host},
		{name: "2 0 0 root in DNS only, shuffled", rfc: "RFC 7671 §5.2.2", server: servers{leaf, stranger, inter}, records: one(dane.Cert, dane.Full, root), depth: 2, match: host},
		{name: "2 0 0 root in DNS only, intermediate missing", rfc: "RFC 7671 §5.2", server: servers{leaf}, records: one(dane.Cert, dane.Full, root), want: dane.ErrPath},
		{name: "2 0 0 of a stranger", rfc: "RFC 7671 §5.2", server: full, records: one(dane.Cert, dane.Full, stranger), want: dane.ErrPath},
		{name: "2 0 0 intermediate and root both in DNS", rfc: "RFC 7671 §5.2.2", server: servers{leaf}, records: records{rec(u, dane.Cert, dane.Full, inter), rec(u, dane.Cert, dane.Full, root)}, depth: 1, match: host},
		{name: "2 1 0 key of the missing root", rfc: "RFC 7671 §5.2.3", server: servers{leaf, inter}, records: one(dane.SPKI, dane.Full, root), depth: 1, match: host},
		{name: "2 1 0 key of the missing issuer", rfc: "RFC 7671 §5.2.3", server: servers{leaf}, records: one(dane.SPKI, dane.Full, inter), depth: 0, match: host},
		{name: "2 1 0 key signed the only certificate", rfc: "RFC 7671 §5.2.3", server: servers{direct}, records: one(dane.SPKI, dane.Full, root), depth: 0, match: host},
		{name: "2 1 0 key of the missing root, intermediate missing", rfc: "RFC 7671 §5.2.3", server: servers{leaf}, records: one(dane.SPKI, dane.Full, root), want: dane.ErrNoMatch},
		{name: "2 1 0 key of a stranger", rfc: "RFC 7671 §5.2.3", server: full, records: one(dane.SPKI, dane.Full, stranger), want: dane.ErrNoMatch},
		{name: "2 1 0 key presented under a name that issued nothing", rfc: "RFC 7671 §5.2.3", server: servers{direct, renamed}, records: one(dane.SPKI, dane.Full, root), depth: 0, match: host},
		{name: "2 1 0 RSA key of the missing root", rfc: "RFC 7671 §5.2.3", server: servers{rsaLeaf, rsaInter}, records: one(dane.SPKI, dane.Full, rsaRoot), depth: 1, match: host},
		{name: "2 1 0 Ed25519 key of the missing root", rfc: "RFC 7671 §5.2.3", server: servers{edLeaf}, records: one(dane.SPKI, dane.Full, edRoot), depth: 0, match: host},
		{name: "2 1 0 several keys, the last signed", rfc: "RFC 7671 §5.2.3", server: servers{direct}, records: records{rec(u, dane.SPKI, dane.Full, rsaRoot), rec(u, dane.SPKI, dane.Full, edRoot), rec(u, dane.SPKI, dane.Full, root)}, depth: 0, match: host},
		{name: "2 0 1 RSA", rfc: "RFC 7672 §3.1.2", server: servers{rsaLeaf, rsaInter, rsaRoot}, records: one(dane.Cert, dane.SHA256, rsaRoot), depth: 2, match: host},
		{name: "2 1 1 Ed25519", rfc: "RFC 7672 §3.1.2", server: servers{edLeaf, edRoot}, records: one(dane.SPKI, dane.SHA256, edRoot), depth: 1, match: host},
		{name: "2 0 2 P-521, P-384 and RSA mixed", rfc: "RFC 7672 §3.1.2", server: servers{bigLeaf, bigInter, bigRoot}, records: one(dane.Cert, dane.SHA512, bigRoot), depth: 2, match: host},
		{name: "2 0 1 of the self-signed server", rfc: "RFC 7671 §5.2", server: servers{self}, records: one(dane.Cert, dane.SHA256, self), want: dane.ErrNoMatch},
		{name: "2 1 1 of the self-signed server", rfc: "RFC 7671 §5.2", server: servers{self}, records: one(dane.SPKI, dane.SHA256, self), want: dane.ErrNoMatch},
		{name: "2 0 0 of the self-signed server", rfc: "RFC 7671 §5.2", server: servers{self}, records: one(dane.Cert, dane.Full, self), want: dane.ErrNoMatch},
		{name: "2 0 1 of the self-signed server, sent twice", rfc: "RFC 7671 §5.2", server: servers{self, self}, records: one(dane.Cert, dane.SHA256, self), want: dane.ErrNoMatch},
		{name: "2 0 1 of the issued server", rfc: "RFC 7671 §5.2", server: full, records: one(dane.Cert, dane.SHA256, leaf), want: dane.ErrNoMatch},
		{name: "2 1 0 of the self-signed server", rfc: "RFC 7671 §5.2.3", server: servers{self}, records: one(dane.SPKI, dane.Full, self), depth: 0, match: host},
		{name: "2 1 0 of the self-signed server, expired", rfc: "RFC 7671 §5.2.3", server: servers{oldSelf}, records: one(dane.SPKI, dane.Full, oldSelf), want: dane.ErrPath},
		{name: "2 1 0 of the self-signed server, wrong name", rfc: "RFC 7671 §5.2.3", server: servers{otherSelf}, records: one(dane.SPKI, dane.Full, otherSelf), want: dane.ErrName},
		{name: "2 0 1 anchor expired", rfc: "RFC 6698 §2.1.1", server: servers{oldRootLeaf, oldRootInter, oldRoot}, records: one(dane.Cert, dane.SHA256, oldRoot), depth: 2, match: host, openssl: dated},
		{name: "2 0 0 anchor expired, in DNS only", rfc: "RFC 6698 §2.1.1", server: servers{oldRootLeaf, oldRootInter}, records: one(dane.Cert, dane.Full, oldRoot), depth: 2, match: host, openssl: dated},
		{name: "2 1 0 anchor expired and presented", rfc: "RFC 7671 §5.2.3", server: servers{oldRootLeaf, oldRootInter, oldRoot}, records: one(dane.SPKI, dane.Full, oldRoot), depth: 2, match: host, openssl: dated},
		{name: "2 1 0 anchor expired and missing", rfc: "RFC 7671 §5.2.3", server: servers{oldRootLeaf, oldRootInter}, records: one(dane.SPKI, dane.Full, oldRoot), depth: 1, match: host},
		{name: "2 0 1 anchor not valid yet", rfc: "RFC 5280 §6.1", server: servers{nextRootLeaf, nextRoot}, records: one(dane.Cert, dane.SHA256, nextRoot), depth: 1, match: host, openssl: dated},
		{name: "2 0 1 anchor expired, cross-signed", rfc: "RFC 5280 §6.1", server: servers{oldCrossLeaf, oldCross}, records: one(dane.Cert, dane.SHA256, oldCross), depth: 1, match: host},
		{name: "2 1 1 anchor expired, cross-signed, and its issuer presented", rfc: "RFC 5280 §6.1", server: servers{oldCrossLeaf, oldCross, root}, records: one(dane.SPKI, dane.SHA256, oldCross), depth: 1, match: host},
		{name: "2 0 0 anchor expired, cross-signed, in DNS only", rfc: "RFC 5280 §6.1", server: servers{oldCrossLeaf}, records: one(dane.Cert, dane.Full, oldCross), depth: 1, match: host},
		{name: "2 0 1 expired below the anchor", rfc: "RFC 5280 §6.1.3", server: servers{oldCrossLeaf, oldCross, root}, records: one(dane.Cert, dane.SHA256, root), want: dane.ErrPath},
		{name: "2 0 1 expired server below an expired anchor", rfc: "RFC 7672 §3.1.2", server: servers{oldCrossOld, oldCross}, records: one(dane.Cert, dane.SHA256, oldCross), want: dane.ErrPath},
		{name: "2 0 1 expired root above the anchor", rfc: "RFC 7671 §5.2", server: servers{oldRootLeaf, oldRootInter, oldRoot}, records: one(dane.Cert, dane.SHA256, oldRootInter), depth: 1, match: host},
		{name: "2 0 1 certificates repeated", rfc: "RFC 7671 §5.2", server: servers{leaf, leaf, inter, inter, root, root}, records: one(dane.Cert, dane.SHA256, root), depth: 2, match: host},
		{name: "2 0 1 anchor behind 32 strangers", rfc: "RFC 7672 §3.1.2", server: crowd, records: one(dane.Cert, dane.SHA256, root), want: dane.ErrNoMatch,
			openssl: "RFC 7672 §3.1.2 wants the anchor in the chain; only its first 32 certificates are considered here, to bound the work"},
		{name: "2 0 1 below a rollover", rfc: "RFC 7672 §4", server: full, records: records{rec(u, dane.Cert, dane.SHA256, stranger), rec(u, dane.Cert, dane.SHA256, root)}, depth: 2, match: host},
	}...)
}

// nameCases are about reference identifiers, which count for DANE-TA(2).
func nameCases(a *ca) []serverCase {
	root := a.root(a.ec(), "root")
	anchor := records{rec(dane.DANETA, dane.Cert, dane.SHA256, root)}
	with := func(specs ...spec) servers { return servers{a.leaf(root, a.ec(), specs...), root} }
	under := func(specs ...spec) (servers, records) {
		r := a.root(a.ec(), "constrained", specs...)
		return servers{a.leaf(r, a.ec(), cn(host), dnsID()), r}, records{rec(dane.DANETA, dane.Cert, dane.SHA256, r)}
	}
	inside, insideRecords := under(only("example.test"))
	outside, outsideRecords := under(only("partner.test"))
	equal, equalRecords := under(only("partner.test", host))
	above, aboveRecords := under(only("." + host))
	banned, bannedRecords := under(never("example.test"))
	dotted, dottedRecords := under(never("other.test"))
	const rfc = "RFC 7672 §3.2.3"
	twoCN := a.leaf(root, a.ec(), dnsID(), func(c *x509.Certificate) {
		c.Subject.CommonName = ""
		c.Subject.ExtraNames = append(c.Subject.ExtraNames, name("a person"), name(host))
	})
	return []serverCase{
		{name: "wrong DNS-ID", rfc: "RFC 7672 §3.2.2", server: with(dnsID("other.test")), records: anchor, want: dane.ErrName},
		{name: "second DNS-ID", rfc: rfc, server: with(dnsID("other.test", host)), records: anchor, depth: 1, match: host},
		{name: "next-hop domain", rfc: "RFC 7672 §3.2.2", server: with(dnsID("example.test")), records: anchor, names: []string{host, "example.test"}, depth: 1, match: "example.test"},
		{name: "next-hop domain not asked for", rfc: "RFC 7672 §3.2.2", server: with(dnsID("example.test")), records: anchor, want: dane.ErrName},
		{name: "expanded next-hop domain", rfc: "RFC 7672 §3.2.2", server: with(dnsID("hosted.test")), records: anchor, names: []string{host, "example.test", "hosted.test"}, depth: 1, match: "hosted.test"},
		{name: "none of three", rfc: "RFC 7672 §3.2.2", server: with(dnsID("evil.test")), records: anchor, names: []string{host, "example.test", "hosted.test"}, want: dane.ErrName},
		{name: "the base domain first", rfc: "RFC 7671 §10.2", server: with(dnsID("example.test", host)), records: anchor, names: []string{host, "example.test"}, depth: 1, match: host},
		{name: "no reference names", rfc: "RFC 7672 §3.2.2", server: with(), records: anchor, names: []string{}, want: dane.ErrName},
		{name: "empty reference name", rfc: "RFC 7672 §3.2.2", server: with(dnsID(".")), records: anchor, names: []string{""}, want: dane.ErrName},
		{name: "upper case in the certificate", rfc: "RFC 6125 §6.4.1", server: with(dnsID("MX.Example.TEST")), records: anchor, depth: 1, match: host},
		{name: "upper case and root dot in the reference", rfc: "RFC 6125 §6.4.1", server: with(), records: anchor, names: []string{"MX.example.TEST."}, depth: 1, match: host,
			openssl: "RFC 7672 §3.2.2: the TLSA base domain is a DNS name, whose root dot OpenSSL leaves for the caller to remove"},
		{name: "wildcard", rfc: rfc, server: with(dnsID("*.example.test")), records: anchor, depth: 1, match: host},
		{name: "wildcard for two labels", rfc: rfc, server: with(dnsID("*.test.invalid", "*.test")), records: anchor, want: dane.ErrName},
		{name: "wildcard for no label", rfc: rfc, server: with(dnsID("*.mx.example.test")), records: anchor, want: dane.ErrName},
		{name: "wildcard with one label after it", rfc: rfc, server: with(dnsID("*.test")), records: anchor, names: []string{"example.test"}, want: dane.ErrName},
		{name: "wildcard after letters", rfc: rfc, server: with(dnsID("m*.example.test")), records: anchor, want: dane.ErrName,
			openssl: "RFC 7672 §3.2.3: \"smtp*.example.com\" is not valid"},
		{name: "wildcard before letters", rfc: rfc, server: with(dnsID("*x.example.test")), records: anchor, want: dane.ErrName,
			openssl: "RFC 7672 §3.2.3: \"*smtp.example.com\" is not valid"},
		{name: "wildcard in the second label", rfc: rfc, server: with(dnsID("mx.*.test")), records: anchor, want: dane.ErrName},
		{name: "wildcard for an A-label", rfc: rfc, server: with(dnsID("*.example.test")), records: anchor, names: []string{"xn--mnchen-3ya.example.test"}, depth: 1, match: "xn--mnchen-3ya.example.test"},
		{name: "CN-ID alone", rfc: rfc, server: with(cn(host), dnsID()), records: anchor, depth: 1, match: host},
		{name: "CN-ID wildcard", rfc: rfc, server: with(cn("*.example.test"), dnsID()), records: anchor, depth: 1, match: host},
		{name: "CN-ID beside another DNS-ID", rfc: rfc, server: with(cn(host), dnsID("other.test")), records: anchor, want: dane.ErrName},
		{name: "CN-ID beside an address", rfc: rfc, server: with(cn(host), dnsID(), mail("postmaster@example.test")), records: anchor, depth: 1, match: host},
		{name: "CN-ID as the second CN", rfc: rfc, server: servers{twoCN, root}, records: anchor, depth: 1, match: host},
		{name: "CN-ID of another", rfc: rfc, server: with(cn("other.test"), dnsID()), records: anchor, want: dane.ErrName},
		{name: "no name at all", rfc: rfc, server: with(cn("a person"), dnsID()), records: anchor, want: dane.ErrName},
		{name: "CN-ID within the permitted subtree", rfc: "RFC 5280 §4.2.1.10", server: inside, records: insideRecords, depth: 1, match: host},
		{name: "CN-ID outside the permitted subtree", rfc: "RFC 5280 §4.2.1.10", server: outside, records: outsideRecords, want: dane.ErrName},
		{name: "CN-ID is the permitted subtree's top", rfc: "RFC 5280 §4.2.1.10", server: equal, records: equalRecords, depth: 1, match: host},
		{name: "CN-ID just above the permitted subtree", rfc: "RFC 5280 §4.2.1.10", server: above, records: aboveRecords, want: dane.ErrName},
		{name: "CN-ID in the excluded subtree", rfc: "RFC 5280 §4.2.1.10", server: banned, records: bannedRecords, want: dane.ErrName},
		{name: "CN-ID outside the excluded subtree", rfc: "RFC 5280 §4.2.1.10", server: dotted, records: dottedRecords, depth: 1, match: host},
	}
}

// pathCases are about the validity of the path to an anchor (RFC 5280 §6).
func pathCases(t testing.TB, a *ca) []serverCase {
	const u = dane.DANETA
	r201 := func(p party) records { return records{rec(u, dane.Cert, dane.SHA256, p)} }
	// line makes a chain of three, one of them special.
	line := func(atRoot, atInter, atLeaf []spec) servers {
		root := a.root(a.ec(), "root", atRoot...)
		inter := a.issued(root, a.ec(), "inter", atInter...)
		return servers{a.leaf(inter, a.ec(), atLeaf...), inter, root}
	}
	type one struct {
		name, rfc              string
		atRoot, atInter, atEnd []spec
		want                   error
		openssl                string
	}
	var cases []serverCase
	for _, c := range []one{
		{name: "server's certificate expired", rfc: "RFC 5280 §6.1.3", atEnd: []spec{expired}, want: dane.ErrPath},
		{name: "server's certificate not yet valid", rfc: "RFC 5280 §6.1.3", atEnd: []spec{future}, want: dane.ErrPath},
		{name: "intermediate expired", rfc: "RFC 5280 §6.1.3", atInter: []spec{expired}, want: dane.ErrPath},
		{name: "intermediate says CA:FALSE", rfc: "RFC 5280 §4.2.1.9", atInter: []spec{notCA, func(c *x509.Certificate) { c.MaxPathLen = 0 }}, want: dane.ErrPath},
		{name: "intermediate without basic constraints", rfc: "RFC 5280 §4.2.1.9", atInter: []spec{noConstraints, noCertSign}, want: dane.ErrPath},
		{name: "intermediate may not sign", rfc: "RFC 5280 §4.2.1.3", atInter: []spec{noCertSign}, want: dane.ErrPath},
		{name: "anchor says CA:FALSE", rfc: "RFC 5280 §4.2.1.9", atRoot: []spec{notCA, func(c *x509.Certificate) { c.MaxPathLen = 0 }}, want: dane.ErrPath},
		{name: "anchor may not sign", rfc: "RFC 5280 §4.2.1.3", atRoot: []spec{noCertSign}, want: dane.ErrPath},
		{name: "anchor allows no intermediate", rfc: "RFC 7671 §5.2.1", atRoot: []spec{pathLen(0)}, want: dane.ErrPath},
		{name: "anchor allows one intermediate", rfc: "RFC 7671 §5.2.1", atRoot: []spec{pathLen(1)}},
		{name: "intermediate allows no other", rfc: "RFC 5280 §4.2.1.9", atInter: []spec{pathLen(0)}},
		{name: "name permitted", rfc: "RFC 7671 §5.2.1", atRoot: []spec{only("example.test")}},
		{name: "name not permitted by the anchor", rfc: "RFC 7671 §5.2.1", atRoot: []spec{only("partner.test")}, want: dane.ErrPath},
		{name: "name excluded by the intermediate", rfc: "RFC 5280 §4.2.1.10", atInter: []spec{never("example.test")}, want: dane.ErrPath},
		{name: "server's certificate for clients only", rfc: "RFC 5280 §4.2.1.12", atEnd: []spec{eku(x509.ExtKeyUsageClientAuth)}, want: dane.ErrPath},
		{name: "intermediate for clients only", rfc: "RFC 5280 §4.2.1.12", atInter: []spec{eku(x509.ExtKeyUsageClientAuth)}, want: dane.ErrPath},
		{name: "server's certificate for anything", rfc: "RFC 5280 §4.2.1.12", atEnd: []spec{eku()}},
		{name: "unknown critical extension in the server's certificate", rfc: "RFC 5280 §4.2", atEnd: []spec{critical}, want: dane.ErrPath},
		{name: "unknown critical extension in the intermediate", rfc: "RFC 5280 §4.2", atInter: []spec{critical}, want: dane.ErrPath},
	} {
		server := line(c.atRoot, c.atInter, c.atEnd)
		sc := serverCase{name: c.name, rfc: c.rfc, server: server, records: r201(server[2]), want: c.want, openssl: c.openssl}
		if c.want == nil {
			sc.depth, sc.match = 2, host
		}
		cases = append(cases, sc)
	}

	root := a.root(a.ec(), "root")
	twin := a.root(a.ec(), "root")
	leaf := a.leaf(root, a.ec())
	forged := a.leaf(twin, a.ec())
	interKey := a.ec()
	interA, interB := a.issued(root, interKey, "inter"), a.issued(twin, interKey, "inter")
	crossed := a.leaf(interA, a.ec())
	strict := a.root(a.ec(), "strict", pathLen(0))
	strictInter := a.issued(strict, a.ec(), "below strict")
	strictLeaf := a.leaf(strictInter, a.ec())
	rsaRoot := a.root(a.rsaKey(0), "rsa root")
	sha1Leaf := a.withSHA1(a.leaf(rsaRoot, a.rsaKey(1)), rsaRoot)
	sha1Root := a.withSHA1(rsaRoot, rsaRoot)
	notIssuer := a.leaf(root, a.ec(), cn("not a CA"))
	byLeaf := a.leaf(party{notIssuer.cert, notIssuer.key}, a.ec())
	huge := a.root(newHugeRSA(t), "huge root")
	hugeInter := a.issued(root, huge.key, "huge inter")
	hugeLeaf := a.leaf(huge, a.ec())
	loopKey1, loopKey2 := a.ec(), a.ec()
	loop1 := a.issued(party{a.root(loopKey2, "loop 2").cert, loopKey2}, loopKey1, "loop 1")
	loop2 := a.issued(loop1, loopKey2, "loop 2")
	loopLeaf := a.leaf(loop1, a.ec())
	const weak = "RFC 6698 §4.1, which RFC 7672 §2.2 builds on, leaves out what is too weak for the client's policy; OpenSSL was run without a policy (security level 0)"
	const long = "RFC 7672 §3.1.2 sets no length; crypto/tls and this package check no signature with such a key, to bound the work"
	return append(cases, []serverCase{
		{name: "2 0 1 forged with the anchor's name", rfc: "RFC 5280 §6.1.3", server: servers{forged, root}, records: r201(root), want: dane.ErrPath},
		{name: "2 0 1 forged, both of the name presented", rfc: "RFC 5280 §6.1.3", server: servers{forged, twin, root}, records: r201(root), want: dane.ErrPath},
		{name: "2 0 1 a twin of the anchor before it", rfc: "RFC 5280 §6.1.3", server: servers{leaf, twin, root}, records: r201(root), depth: 1, match: host},
		{name: "2 0 1 cross-signed, the other root", rfc: "RFC 5280 §6.1", server: servers{crossed, interB, twin}, records: r201(twin), depth: 2, match: host},
		{name: "2 0 1 cross-signed, both ways presented", rfc: "RFC 5280 §6.1", server: servers{crossed, interA, interB, root, twin}, records: r201(twin), depth: 2, match: host,
			openssl: "RFC 7672 §3.2 takes any valid path; OpenSSL builds one and does not come back to the other"},
		{name: "2 1 1 constraint of the anchor", rfc: "RFC 7671 §5.2.1", server: servers{strictLeaf, strictInter, strict}, records: records{rec(u, dane.SPKI, dane.SHA256, strict)}, want: dane.ErrPath},
		{name: "2 0 0 constraint of the anchor in DNS", rfc: "RFC 7671 §5.2.1", server: servers{strictLeaf, strictInter}, records: records{rec(u, dane.Cert, dane.Full, strict)}, want: dane.ErrPath},
		{name: "2 1 0 constraint unseen", rfc: "RFC 7672 §3.1.2", server: servers{strictLeaf, strictInter}, records: records{rec(u, dane.SPKI, dane.Full, strict)}, depth: 1, match: host},
		{name: "2 0 1 SHA-1 signature", rfc: "RFC 6698 §4.1", server: servers{sha1Leaf, rsaRoot}, records: r201(rsaRoot), want: dane.ErrPath, openssl: weak},
		{name: "2 1 0 SHA-1 signature", rfc: "RFC 6698 §4.1", server: servers{sha1Leaf}, records: records{rec(u, dane.SPKI, dane.Full, rsaRoot)}, want: dane.ErrNoMatch, openssl: weak},
		{name: "2 0 1 the anchor's own signature is SHA-1", rfc: "RFC 6698 §4.1", server: servers{a.leaf(rsaRoot, a.ec()), sha1Root}, records: r201(sha1Root), depth: 1, match: host},
		{name: "2 0 1 RSA key longer than 8,192 bits", rfc: "RFC 6698 §4.1", server: servers{hugeLeaf, huge}, records: r201(huge), want: dane.ErrPath, openssl: long},
		{name: "2 0 0 RSA key longer than 8,192 bits, in DNS", rfc: "RFC 6698 §4.1", server: servers{hugeLeaf}, records: records{rec(u, dane.Cert, dane.Full, huge)}, want: dane.ErrPath, openssl: long},
		{name: "2 1 0 RSA key longer than 8,192 bits", rfc: "RFC 6698 §4.1", server: servers{hugeLeaf}, records: records{rec(u, dane.SPKI, dane.Full, huge)}, want: dane.ErrNoMatch, openssl: long},
		{name: "2 0 1 RSA key longer than 8,192 bits between", rfc: "RFC 6698 §4.1", server: servers{a.leaf(hugeInter, a.ec()), hugeInter, root}, records: r201(root), want: dane.ErrPath, openssl: long},
		{name: "2 0 1 the anchor is no CA", rfc: "RFC 5280 §4.2.1.9", server: servers{byLeaf, notIssuer}, records: r201(notIssuer), want: dane.ErrPath},
		{name: "2 1 0 signed a server that plays CA", rfc: "RFC 5280 §4.2.1.9", server: servers{byLeaf, notIssuer}, records: records{rec(u, dane.SPKI, dane.Full, root)}, want: dane.ErrNoMatch},
		{name: "2 0 1 issuers in a circle", rfc: "RFC 5280 §6.1", server: servers{loopLeaf, loop1, loop2, root}, records: r201(root), want: dane.ErrPath},
		{name: "2 0 1 anchor in a circle", rfc: "RFC 5280 §6.1", server: servers{loopLeaf, loop1, loop2}, records: r201(loop2), depth: 2, match: host},
	}...)
}

// setCases are about several records at once and about unusable ones.
func setCases(a *ca) []serverCase {
	root := a.root(a.ec(), "root")
	leaf := a.leaf(root, a.ec())
	old := a.leaf(root, a.ec(), expired)
	server := servers{leaf, root}
	ee := func(s dane.Selector, m dane.Matching) dane.Record { return rec(dane.DANEEE, s, m, leaf) }
	ta := func(s dane.Selector, m dane.Matching) dane.Record { return rec(dane.DANETA, s, m, root) }
	as := func(r dane.Record, u dane.Usage) dane.Record { r.Usage = u; return r }
	raw := func(u dane.Usage, s dane.Selector, m dane.Matching, data []byte) dane.Record {
		return dane.Record{Usage: u, Selector: s, Matching: m, Data: data}
	}
	r311, r312, r310 := ee(dane.SPKI, dane.SHA256), ee(dane.SPKI, dane.SHA512), ee(dane.SPKI, dane.Full)
	r201, r202 := ta(dane.Cert, dane.SHA256), ta(dane.Cert, dane.SHA512)
	wrong310 := rec(dane.DANEEE, dane.SPKI, dane.Full, root)
	const agility = "RFC 7671 §9"
	return []serverCase{
		{name: "3 1 2 wrong, 3 1 1 right", rfc: agility, server: server, records: records{r311, off(r312)}, want: dane.ErrNoMatch},
		{name: "3 1 2 right, 3 1 1 wrong", rfc: agility, server: server, records: records{off(r311), r312}, by: r312.String()},
		{name: "3 1 2 malformed, 3 1 1 right", rfc: agility, server: server, records: records{cut(r312), r311}},
		{name: "3 0 2 wrong, 3 1 1 right", rfc: agility, server: server, records: records{off(ee(dane.Cert, dane.SHA512)), r311}},
		{name: "2 1 2 wrong, 3 1 1 right", rfc: agility, server: server, records: records{off(ta(dane.SPKI, dane.SHA512)), r311}},
		{name: "3 1 0 right, 3 1 2 wrong", rfc: agility, server: server, records: records{off(r312), r310}, by: r310.String()},
		{name: "3 1 0 wrong, 3 1 1 right", rfc: agility, server: server, records: records{wrong310, r311}, by: r311.String()},
		{name: "3 1 0 wrong, 3 1 2 wrong, 3 1 1 right", rfc: agility, server: server, records: records{r311, off(r312), wrong310}, want: dane.ErrNoMatch},
		{name: "2 0 2 wrong, 2 0 1 right", rfc: agility, server: server, records: records{off(r202), r201}, want: dane.ErrNoMatch},
		{name: "2 0 2 right, 2 0 1 wrong", rfc: agility, server: server, records: records{r202, off(r201)}, by: r202.String(), depth: 1, match: host},
		{name: "2 0 0 right, 2 0 2 wrong", rfc: agility, server: server, records: records{ta(dane.Cert, dane.Full), off(r202)}, depth: 1, match: host},
		{name: "unknown matching type is no stronger digest", rfc: agility, server: server, records: records{raw(dane.DANEEE, dane.SPKI, 3, r312.Data), r311}},
		{name: "retired 3 1 1, current 2 0 1", rfc: "RFC 7671 §8.4", server: server, records: records{off(r311), r201}, by: r201.String(), depth: 1, match: host},
		{name: "retired 2 0 1, current 3 1 1", rfc: "RFC 7671 §8.4", server: server, records: records{off(r201), r311}, by: r311.String()},
		{name: "3 1 1 saves what is expired for 2 0 1", rfc: "RFC 7672 §3.1.1", server: servers{old, root}, records: records{r201, rec(dane.DANEEE, dane.SPKI, dane.SHA256, old)}},
		{name: "3 1 1 wrong, 2 0 1 expired", rfc: "RFC 7672 §3.2", server: servers{old, root}, records: records{r201, r311}, want: dane.ErrPath},
		{name: "the same record twice", rfc: "RFC 6698 §4.1", server: server, records: records{r311, r311}},
		{name: "0 0 1 alone", rfc: "RFC 7672 §3.1.3", server: server, records: records{as(r201, dane.PKIXTA)}, want: dane.ErrUnusable},
		{name: "1 1 1 alone", rfc: "RFC 7672 §3.1.3", server: server, records: records{as(r311, dane.PKIXEE)}, want: dane.ErrUnusable},
		{name: "1 1 1 beside a right 3 1 1", rfc: "RFC 7672 §3.1.3", server: server, records: records{as(r311, dane.PKIXEE), r311}},
		{name: "1 1 1 right beside a wrong 3 1 1", rfc: "RFC 7672 §3.1.3", server: server, records: records{as(r311, dane.PKIXEE), off(r311)}, want: dane.ErrNoMatch},
		{name: "1 1 2 is no stronger 3 1 1", rfc: agility, server: server, records: records{as(r312, dane.PKIXEE), r311}},
		{name: "usage 4", rfc: "RFC 6698 §4.1", server: server, records: records{as(r311, 4)}, want: dane.ErrUnusable},
		{name: "usage 255 beside a right 3 1 1", rfc: "RFC 6698 §4.1", server: server, records: records{as(r311, 255), r311}},
		{name: "selector 2", rfc: "RFC 6698 §4.1", server: server, records: records{raw(dane.DANEEE, 2, dane.SHA256, r311.Data)}, want: dane.ErrUnusable},
		{name: "matching type 3", rfc: "RFC 6698 §4.1", server: server, records: records{raw(dane.DANEEE, dane.SPKI, 3, r311.Data)}, want: dane.ErrUnusable},
		{name: "3 1 1 cut short", rfc: "RFC 6698 §4.1", server: server, records: records{cut(r311)}, want: dane.ErrUnusable},
		{name: "3 1 1 with the longer digest", rfc: "RFC 6698 §4.1", server: server, records: records{raw(dane.DANEEE, dane.SPKI, dane.SHA256, r312.Data)}, want: dane.ErrUnusable},
		{name: "3 1 2 with the shorter digest", rfc: "RFC 6698 §4.1", server: server, records: records{raw(dane.DANEEE, dane.SPKI, dane.SHA512, r311.Data)}, want: dane.ErrUnusable},
		{name: "2 0 0 cut short", rfc: "RFC 6698 §4.1", server: server, records: records{cut(ta(dane.Cert, dane.Full))}, want: dane.ErrUnusable},
		{name: "2 1 0 cut short", rfc: "RFC 6698 §4.1", server: server, records: records{cut(ta(dane.SPKI, dane.Full))}, want: dane.ErrUnusable},
		{name: "3 0 0 with a key", rfc: "RFC 6698 §4.1", server: server, records: records{raw(dane.DANEEE, dane.Cert, dane.Full, r310.Data)}, want: dane.ErrUnusable},
		{name: "malformed beside a right 3 1 1", rfc: "RFC 6698 §4.1", server: server, records: records{cut(r311), r311}},
		{name: "malformed beside a wrong 3 1 1", rfc: "RFC 6698 §4.1", server: server, records: records{cut(r311), off(r311)}, want: dane.ErrNoMatch},
	}
}

// signer returns the key a server uses for its own certificate.
func (c serverCase) signer() crypto.Signer { return c.server[0].key }
