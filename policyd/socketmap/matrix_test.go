package socketmap

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/transport"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/pin"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// world is everything between a question and its answer: a resolver before a
// DNS with faults, web hosts with policies, and transports of several kinds.
type world struct {
	*Server
	t        *testing.T
	dns      *labdns.Server
	resolver *resolver.Resolver
	policies map[string]mtasts.Policy // by domain; changed while nothing asks
}

// Fetch implements policycache.Fetcher.
func (w *world) Fetch(_ context.Context, domain string) (mtasts.Policy, error) {
	p, ok := w.policies[domain]
	if !ok {
		return p, &mtasts.Error{Failure: mtasts.FailureFetch, Err: fmt.Errorf("no policy host for %s", domain)}
	}
	return p, nil
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, policies: map[string]mtasts.Policy{}}
	var err error
	if w.dns, err = labdns.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.dns.Stop)
	r, err := resolver.New(resolver.Config{Servers: []string{w.dns.Addr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	w.resolver = r
	known := policycache.New(policycache.Config{Resolver: texts{r}, Fetcher: w, Store: store.NewRAM(1 << 20)})
	t.Cleanup(known.Close)
	everything := transport.PolicySet{DNSSEC: true, DANE: true, MTASTS: &transport.MTASTS{}}
	local := func(tls verdict.TLSLevel, mx verdict.MXLevel) transport.PolicySet {
		set := everything
		set.Local = &transport.LocalPolicy{MinTLS: tls, MinMX: mx}
		return set
	}
	transports := map[string]*transport.Transport{}
	for name, set := range map[string]transport.PolicySet{
		"default": everything, "ipv4": everything, "none": {}, "sts": {MTASTS: &transport.MTASTS{}}, "nodane": {DNSSEC: true, MTASTS: &transport.MTASTS{}},
		"encrypted": local(verdict.TLSEncrypted, verdict.MXNone), "authenticated": local(verdict.TLSAuthenticated, verdict.MXNone),
		"mtasts": local(verdict.TLSEncrypted, verdict.MXMTASTS), "dnssec": local(verdict.TLSNone, verdict.MXDNSSEC),
	} {
		cfg := &transport.Config{Name: name, Hostname: "client.example", Port: 25, ConnectTimeout: time.Minute, MXAuth: set, ForceIPv4: name == "ipv4"}
		for match, own := range map[string]transport.PolicySet{"exempt.example": {}, "strict.example": local(verdict.TLSAuthenticated, verdict.MXNone)} {
			c := *cfg
			c.MXAuth = own
			cfg.Overrides = append(cfg.Overrides, transport.Override{Match: match, Config: &c})
		}
		for _, match := range []string{"pinned.example", "pinned-dane.example", "pinned-sts.example", "pinned-unknown.example"} {
			c := *cfg
			c.Overrides = nil
			cfg.Overrides = append(cfg.Overrides, transport.Override{Match: match, Pins: []pin.Pin{{0xab}}, Config: &c})
		}
		hop := *cfg
		hop.Overrides = nil
		cfg.Overrides = append(cfg.Overrides, transport.Override{Match: "hop.example", Nexthop: "[192.0.2.25]:2525", Config: &hop})
		made, err := transport.New(cfg, transport.Deps{
			Resolver: r, Logger: slog.New(slog.DiscardHandler),
			Policies: func(*transport.MTASTS, *x509.CertPool) (plan.Policies, error) { return known, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(made.Close)
		transports[name] = made
	}
	log := slog.New(slog.DiscardHandler)
	w.Server = New(Config{Default: "default", Logger: log, Transport: func(name string) (Transport, bool) {
		found := transports[name]
		return Transport{found, func() {}}, found != nil
	}}, accept.New(10, log))
	w.add(`
mx.signed.test. A 192.0.2.1
_25._tcp.mx.signed.test. TLSA 3 1 1 ` + digest + `
mx.unsigned.test. A 192.0.2.1
_25._tcp.mx.unsigned.test. TLSA 3 1 1 ` + digest)
	w.dns.Secure("signed.test", true)
	return w
}

// digest is that of some key.
var digest = strings.Repeat("ab", 32)

func (w *world) add(text string) {
	w.t.Helper()
	if err := w.dns.Add(text); err != nil {
		w.t.Fatal(err)
	}
}

// ask gives the answer to a question, "MAP KEY".
func (w *world) ask(question string) string { return w.answer(w.t.Context(), question) }

// situation is what is published about a domain, which every text has as $.
type situation struct {
	what   string
	zone   string // in the form of a zone file
	signed bool
	faults []fault
	policy *mtasts.Policy // on the policy host; nil: that is not there
	asked  string         // empty: "policy $"
	want   string         // ends with ... where the rest does not matter
	why    string
}

type fault struct {
	name  string
	qtype uint16
	fault labdns.Fault
}

// The zones of most situations.
const (
	one    = "$. MX 10 mx1.$.\nmx1.$. A 192.0.2.1\n"
	pair   = one + "$. MX 20 mx2.$.\nmx2.$. A 192.0.2.2\n"
	record = "_mta-sts.$. TXT \"v=STSv1; id=1;\"\n"
)

// tlsa is a record that a certificate can match, at a host and port.
func tlsa(host string, port int) string {
	return fmt.Sprintf("_%d._tcp.%s. TLSA 3 1 1 %s\n", port, host, digest)
}

// old is one that SMTP does not use (RFC 7672 §3.1.3).
func old(host string) string { return fmt.Sprintf("_25._tcp.%s. TLSA 1 1 1 %s\n", host, digest) }

// policyOf is a policy; its hosts have $ too.
func policyOf(mode mtasts.Mode, mx ...string) *mtasts.Policy {
	return &mtasts.Policy{Mode: mode, MaxAge: 24 * time.Hour, MX: mx}
}

// matrix is what Postfix is told in each situation, and why.
func matrix() []situation {
	const (
		modern  = " protocols=!SSLv2:!SSLv3:!TLSv1:!TLSv1.1"
		secure1 = "OK secure match=mx1.$ servername=hostname"
		secure2 = "OK secure match=mx2.$ servername=hostname"
		both    = "OK secure match=mx1.$:mx2.$ servername=hostname"
		none    = "NOTFOUND "
	)
	const servfail, bogus, refused = labdns.ServFail, labdns.Bogus, labdns.Refused
	dane1, dane2 := tlsa("mx1.$", 25), tlsa("mx2.$", 25)
	at := func(name string, qtype uint16, f labdns.Fault) []fault { return []fault{{name, qtype, f}} }
	enforce := policyOf(mtasts.ModeEnforce, "*.$")
	testing := policyOf(mtasts.ModeTesting, "*.$")
	listing := policyOf(mtasts.ModeEnforce, "mx2.$")
	const tlsa1, sts = "_25._tcp.mx1.$.", "_mta-sts.$."
	return []situation{
		// Nothing is published.
		{what: "no policy", zone: one, want: none, why: "nothing is asked of any host"},
		{what: "no policy, signed", zone: pair, signed: true, want: none, why: "it is proven that there are no TLSA records"},
		{what: "no MX record", zone: "$. A 192.0.2.1\n", want: none, why: "the domain is its own host (RFC 5321 §5.1), and nothing is asked of it"},
		{what: "null MX", zone: "$. MX 0 .\n", want: none, why: "Postfix sees for itself that the domain takes no mail (RFC 7505)"},
		{what: "no such domain", want: none, why: "Postfix sees for itself, and bounces"},
		{what: "a host that is not there", zone: "$. MX 10 mx1.$.\n", want: none, why: "Postfix sees for itself that there is no server to ask anything of"},
		{what: "one of two hosts is not there", zone: one + "$. MX 20 mx2.$.\n", want: none, why: "it is proven that there is nothing to dial; nothing is asked of the other"},
		// The DNS fails.
		{what: "MX fails", zone: one, faults: at("$.", dns.TypeMX, servfail), want: "TEMP 4.4.3 ...", why: "the hosts are not known"},
		{what: "MX is bogus", zone: one, faults: at("$.", dns.TypeMX, bogus), want: "TEMP 4.4.3 ...", why: "it may be forged"},
		{what: "MX is refused", zone: one, faults: at("$.", dns.TypeMX, refused), want: "TEMP 4.4.3 ...", why: "the hosts are not known"},
		{what: "the only host's addresses fail", zone: one, faults: at("mx1.$.", dns.TypeANY, servfail), want: "TEMP 4.4.3 ...", why: "it is not known whether it has TLSA records"},
		{what: "one of two hosts' addresses fail", zone: pair, faults: at("mx1.$.", dns.TypeANY, servfail), want: "OK dane", why: "Postfix skips that host until its DNS is right"},
		{what: "AAAA fails", zone: one, faults: at("mx1.$.", dns.TypeAAAA, servfail), want: none, why: "the host has an address, and that is not signed"},
		{what: "AAAA fails, signed", zone: one + dane1, signed: true, faults: at("mx1.$.", dns.TypeAAAA, servfail), want: "OK dane-only", why: "the address that is there is signed"},
		// DANE.
		{what: "DANE", zone: one + dane1, signed: true, want: "OK dane-only", why: "all hosts have usable TLSA records"},
		{what: "DANE at both hosts", zone: pair + dane1 + dane2, signed: true, want: "OK dane-only", why: "all hosts have usable TLSA records"},
		{what: "DANE at one of two hosts", zone: pair + dane1, signed: true, want: "OK dane", why: "the other host asks for nothing"},
		{what: "DANE without an MX record", zone: "$. A 192.0.2.1\n" + tlsa("$", 25), signed: true, want: "OK dane-only", why: "the domain is its own host (RFC 7672 §2.2.1)"},
		{what: "TLSA records that are not signed", zone: one + dane1, want: none, why: "anybody could have written them"},
		{what: "an unsigned domain at a signed host", zone: "$. MX 10 mx.signed.test.\n", want: "OK dane", why: "the host's records count for the host alone (RFC 7672 §2.2.1)"},
		{what: "a signed domain at an unsigned host", zone: "$. MX 10 mx.unsigned.test.\n", signed: true, want: none, why: "the host's records are not signed"},
		{what: "an unsigned domain at a signed and an unsigned host", zone: "$. MX 10 mx.signed.test.\n$. MX 20 mx.unsigned.test.\n", want: "OK dane", why: "each host as it deserves"},
		{what: "unusable TLSA records", zone: one + old("mx1.$"), signed: true, want: "OK dane", why: "TLS without a proof (RFC 7672 §2.2)"},
		{what: "unusable TLSA records at one of two hosts", zone: pair + dane1 + old("mx2.$"), signed: true, want: "OK dane", why: "each host as it deserves"},
		{what: "TLSA fails", zone: one + dane1, signed: true, faults: at(tlsa1, dns.TypeTLSA, servfail), want: "TEMP 4.7.5 ...", why: "it is not known what to ask of the only host"},
		{what: "TLSA is bogus", zone: one + dane1, signed: true, faults: at(tlsa1, dns.TypeTLSA, bogus), want: "TEMP 4.7.5 ...", why: "it may be forged"},
		{what: "TLSA fails at one of two hosts", zone: pair + dane1 + dane2, signed: true, faults: at(tlsa1, dns.TypeTLSA, servfail), want: "OK dane", why: "Postfix skips that host; the other has its records"},
		{what: "TLSA behind an alias", zone: one + "_25._tcp.mx1.$. CNAME tlsa.$.\ntlsa.$. TLSA 3 1 1 " + digest + "\n", signed: true, want: "OK dane-only", why: "an alias leads to records as good as any (RFC 7672 §2.1.3)"},
		{what: "a host that is an alias", zone: "$. MX 10 mx1.$.\nmx1.$. CNAME real.$.\nreal.$. A 192.0.2.1\n" + tlsa("real.$", 25), signed: true, want: "OK dane-only", why: "the records of the name that it leads to (RFC 7672 §2.2.3)"},
		{what: "a host that is an alias into a zone that is not signed", zone: "$. MX 10 mx1.$.\nmx1.$. CNAME mx.unsigned.test.\n" + dane1, signed: true, want: "OK dane-only", why: "the alias is signed and has records of its own (RFC 7672 §2.2.2)"},
		{what: "a domain that is an alias", zone: "$. CNAME real.$.\nreal.$. MX 10 mx1.$.\nmx1.$. A 192.0.2.1\n" + dane1, signed: true, want: "OK dane-only", why: "the alias is signed too"},
		// MTA-STS.
		{what: "MTA-STS", zone: one + record, policy: enforce, want: secure1 + modern, why: "RFC 8461 §4: a certificate for the host's name, by TLS 1.2"},
		{what: "MTA-STS, two hosts", zone: pair + record, policy: enforce, want: both + modern, why: "either, each by its own name and no pattern"},
		{what: "MTA-STS, signed", zone: one + record, signed: true, policy: enforce, want: secure1 + modern, why: "there are no TLSA records, so the policy decides"},
		{what: "MTA-STS without an MX record", zone: "$. A 192.0.2.1\n" + record, policy: policyOf(mtasts.ModeEnforce, "$"), want: "OK secure match=$ servername=hostname" + modern, why: "the domain is its own host, and listed"},
		{what: "MTA-STS lists one of two hosts", zone: pair + record, policy: listing, want: secure2 + modern, why: "the other may not have the mail"},
		{what: "MTA-STS lists no host", zone: one + record, policy: listing, want: "TEMP 4.7.5 mx1.$: the domain's MTA-STS policy does not list this host", why: "no host may have the mail until the policy or the MX set is put right"},
		{what: "MTA-STS in testing mode", zone: one + record, policy: testing, want: none, why: "it stops nothing"},
		{what: "MTA-STS of mode none", zone: one + record, policy: policyOf(mtasts.ModeNone), want: none, why: "the domain says that it has none"},
		{what: "MTA-STS record behind an alias", zone: one + "_mta-sts.$. CNAME hosted.$.\nhosted.$. TXT \"v=STSv1; id=1;\"\n", policy: enforce, want: secure1 + modern, why: "RFC 8461 §3.1: aliases are followed"},
		{what: "two MTA-STS records", zone: one + record + "_mta-sts.$. TXT \"v=STSv1; id=2;\"\n", policy: enforce, want: none, why: "RFC 8461 §3.1: as if there were none"},
		{what: "a malformed MTA-STS record", zone: one + "_mta-sts.$. TXT \"v=STSv1; id=;\"\n", policy: enforce, want: none, why: "RFC 8461 §3.1: as if there were none"},
		{what: "a policy host that fails", zone: one + record, want: none, why: "RFC 8461 §3.3: one that was never seen is gone without"},
		{what: "MTA-STS and a host that is not there", zone: pair[:len(one)] + "$. MX 20 mx2.$.\n" + record, policy: enforce, want: secure1 + modern, why: "the other is not among the names until it is there"},
		{what: "MTA-STS and a domain whose MX records fail", zone: one + record, policy: enforce, faults: at("$.", dns.TypeMX, servfail), want: "TEMP 4.4.3 ...", why: "the hosts are not known"},
		{what: "MTA-STS and a null MX", zone: "$. MX 0 .\n" + record, policy: enforce, want: "TEMP 4.1.10 ...", why: "a forger could say so, to rid the domain of its policy"},
		// It is not known whether there is an MTA-STS policy.
		{what: "the MTA-STS record fails", zone: one + record, policy: enforce, faults: at(sts, dns.TypeTXT, servfail), want: "TEMP 4.4.3 $: the MTA-STS record cannot be looked up: ...", why: "NOTFOUND is a proof, and anyone who makes look-ups fail must not have it"},
		{what: "the MTA-STS record is bogus", zone: one + record, policy: enforce, faults: at(sts, dns.TypeTXT, bogus), want: "TEMP 4.4.3 $: the MTA-STS record cannot be looked up: ...", why: "it may be forged"},
		{what: "the MTA-STS record is refused", zone: one, faults: at(sts, dns.TypeTXT, refused), want: "TEMP 4.4.3 ...", why: "it is not known whether there is one"},
		{what: "the MTA-STS record fails, with DANE", zone: one + dane1, signed: true, faults: at(sts, dns.TypeTXT, servfail), want: "OK dane-only", why: "no policy asks for more (RFC 8461 §2)"},
		{what: "the MTA-STS record fails, with DANE at one of two hosts", zone: pair + dane1, signed: true, faults: at(sts, dns.TypeTXT, servfail), want: "OK dane-only", why: "what a policy would ask of the other host is not known"},
		{what: "the MTA-STS record fails, with DANE at an unsigned domain's host", zone: "$. MX 10 mx.signed.test.\n", faults: at(sts, dns.TypeTXT, servfail), want: "TEMP 4.4.3 ...", why: "dane would let a forger's host have the mail in the clear"},
		{what: "the MTA-STS record fails, and MTA-STS is off", zone: one, faults: at(sts, dns.TypeTXT, servfail), asked: "policy@none $", want: none, why: "it is not asked for"},
		// Both (RFC 8461 §2: DANE outranks MTA-STS).
		{what: "DANE and MTA-STS", zone: one + dane1 + record, signed: true, policy: enforce, want: "OK dane-only", why: "the TLSA record decides"},
		{what: "DANE, and a policy that does not list the host", zone: one + dane1 + record, signed: true, policy: listing, want: "OK dane-only", why: "the signed MX set names the host"},
		{what: "DANE at one host, MTA-STS for both", zone: pair + dane2 + record, signed: true, policy: enforce, want: "OK dane-only", why: "Postfix cannot be told \"DANE where there is DANE, else MTA-STS\""},
		{what: "DANE in testing mode", zone: one + dane1 + record, signed: true, policy: testing, want: "OK dane-only", why: "the TLSA record decides"},
		{what: "MTA-STS at an unsigned domain's signed host", zone: "$. MX 10 mx.signed.test.\n" + record, policy: policyOf(mtasts.ModeEnforce, "mx.signed.test"), want: "OK secure match=mx.signed.test servername=hostname" + modern, why: "dane would let a forger's host have the mail in the clear"},
		{what: "MTA-STS and unusable TLSA records", zone: one + old("mx1.$") + record, signed: true, policy: enforce, want: secure1 + modern, why: "records that cannot be used prove nothing, so the policy decides"},
		{what: "MTA-STS, TLSA fails at one of two hosts", zone: pair + dane1 + record, signed: true, policy: enforce, faults: at(tlsa1, dns.TypeTLSA, servfail), want: secure2 + modern, why: "that host is not among the names"},
		{what: "MTA-STS, TLSA fails at the only host", zone: one + dane1 + record, signed: true, policy: enforce, faults: at(tlsa1, dns.TypeTLSA, servfail), want: "TEMP 4.7.5 ...", why: "MTA-STS never makes up for DANE that fails"},
		{what: "MTA-STS, one host's addresses fail", zone: pair + record, policy: enforce, faults: at("mx1.$.", dns.TypeANY, servfail), want: secure2 + modern, why: "it is not known whether that host has TLSA records"},
		// What is asked for.
		{what: "a domain with a port", zone: one + record, policy: enforce, asked: "policy $:587", want: secure1 + modern, why: "MX records lead there, so the domain's policy holds (RFC 8461 §3.4)"},
		{what: "a domain with the port of a service", zone: one + record, policy: enforce, asked: "policy $:submission", want: secure1 + modern, why: "Postfix takes names too"},
		{what: "DANE at another port", zone: one + dane1, signed: true, asked: "policy $:587", want: none, why: "the records are those of port 25"},
		{what: "DANE at that port", zone: one + tlsa("mx1.$", 587), signed: true, asked: "policy $:587", want: "OK dane-only", why: "Postfix looks records up at the port that it dials"},
		{what: "a host in brackets", zone: one + dane1 + record, signed: true, policy: enforce, asked: "policy [mx1.$]", want: none, why: "the administrator chose it, no MX record of the domain's"},
		{what: "a host in brackets with a port", zone: one + record, policy: enforce, asked: "policy [mx1.$]:587", want: none, why: "the same"},
		{what: "the parent", zone: one + record, policy: enforce, asked: "policy .$", want: none, why: "a policy is the domain's, not its subdomains' (RFC 8461 §3.1)"},
		{what: "an address", asked: "policy [192.0.2.1]:25", want: none, why: "it is no domain"},
		{what: "capitals and a final dot", zone: one + dane1, signed: true, asked: "policy $.", want: "OK dane-only", why: "it is the same domain"},
		{what: "an international domain", zone: "xn--bcher-kva.$. MX 10 mx1.$.\nmx1.$. A 192.0.2.1\n" + dane1, signed: true, asked: "policy bücher.$", want: "OK dane-only", why: "the DNS has it in A-labels"},
		{what: "a neighbour's name of the map", zone: one + record, policy: enforce, asked: "QUERY $", want: secure1 + modern, why: "postfix-tlspol's, so that main.cf need not change"},
		{what: "another neighbour's", zone: one + record, policy: enforce, asked: "postfix@default $", want: secure1 + modern, why: "postfix-mta-sts-resolver's"},
		{what: "another name", zone: one, asked: "tlspol $", want: "TEMP there is no such map; there are policy ...", why: "a guess could leave mail without a policy"},
		{what: "a transport that is not there", zone: one, asked: "policy@elsewhere $", want: "TEMP there is no transport elsewhere", why: "its policies are not known"},
		// Reports (RFC 8460).
		{what: "MTA-STS, for reports", zone: one + record, policy: enforce, asked: "policy-tlsrpt $", want: secure1 + modern + " policy_type=sts policy_domain=$ mx_host_pattern=*.$ { policy_string = version: STSv1 } ...", why: "Postfix passes the policy on"},
		{what: "testing mode, for reports", zone: one + record, policy: testing, asked: "QUERYwithTLSRPT $", want: "OK may policy_type=sts policy_domain=$ ...", why: "the attributes need a level to stand behind; the mail passes"},
		{what: "a policy host that fails, for reports", zone: one + record, asked: "policy-tlsrpt $", want: "OK may policy_type=no-policy-found policy_domain=$ policy_failure=sts-policy-fetch-error", why: "that is what the domain wants to know"},
		{what: "DANE, for reports", zone: one + dane1, signed: true, asked: "policy-tlsrpt $", want: "OK dane-only", why: "Postfix knows by itself what DANE found"},
		{what: "no policy, for reports", zone: one, asked: "policy-tlsrpt $", want: none, why: "there is nothing to tell"},
		// The administrator's own rules.
		{what: "min_tls_level encrypted", zone: one, asked: "policy@encrypted $", want: "OK encrypt", why: "TLS with any certificate is asked for"},
		{what: "min_tls_level encrypted, DANE at one of two hosts", zone: pair + dane1, signed: true, asked: "policy@encrypted $", want: "OK dane-only", why: "dane would let the other host have mail in the clear"},
		{what: "min_tls_level encrypted, an unsigned domain at a signed host", zone: "$. MX 10 mx.signed.test.\n", asked: "policy@encrypted $", want: "OK secure match=mx.signed.test servername=hostname", why: "dane would let a forger's host have the mail in the clear"},
		{what: "min_tls_level encrypted, MTA-STS", zone: one + record, policy: enforce, asked: "policy@encrypted $", want: secure1 + modern, why: "the policy asks for more"},
		{what: "min_tls_level authenticated", zone: pair, asked: "policy@authenticated $", want: both, why: "a certificate for the host's name is the only proof there is"},
		{what: "min_mx_level mtasts", zone: one, asked: "policy@mtasts $", want: "TEMP 4.7.5 mx1.$: MX level none, local_policy requires mtasts", why: "nothing vouches for the host"},
		{what: "min_mx_level mtasts, testing mode", zone: one + record, policy: testing, asked: "policy@mtasts $", want: secure1, why: "a policy vouches for the host, whatever its mode, and only a certificate tells it from a forger's"},
		{what: "min_mx_level dnssec, signed", zone: one, signed: true, asked: "policy@dnssec $", want: none, why: "the MX set is signed, which Postfix sees as well"},
		{what: "min_mx_level dnssec, unsigned", zone: one, asked: "policy@dnssec $", want: "TEMP 4.7.5 ...", why: "anybody could have written the MX set"},
		{what: "no mechanism", zone: one + dane1 + record, signed: true, policy: enforce, asked: "policy@none $", want: none, why: "mx_auth has none"},
		{what: "without DANE", zone: one + dane1 + record, signed: true, policy: enforce, asked: "policy@nodane $", want: secure1 + modern, why: "the policy decides alone"},
		{what: "MTA-STS alone, addresses fail", zone: one + record, policy: enforce, faults: at("mx1.$.", dns.TypeANY, servfail), asked: "policy@sts $", want: secure1 + modern, why: "nothing about the host depends on its addresses"},
		{what: "force_ipv4 and a host with IPv6 alone", zone: one + dane1 + "$. MX 20 mx2.$.\nmx2.$. AAAA 2001:db8::2\n", signed: true, asked: "policy@ipv4 $", want: "OK dane", why: "Postfix may dial what we would not"},
		{what: "exempt.example", zone: one + dane1, signed: true, want: "OK may", why: "the override says so, whatever main.cf has for domains without a policy"},
		{what: "strict.example", zone: one, want: secure1, why: "the override asks for a proof"},
		{what: "pinned.example", zone: pair, want: "OK fingerprint match=AB" + strings.Repeat(":00", 31) + modern, why: "the key that the override pins, and nothing else is asked for"},
		{what: "pinned-dane.example", zone: one + dane1, signed: true, want: "TEMP 4.7.5 Postfix has no word for a pin on top of DANE or MTA-STS, ...", why: "dane-only would take another key, and fingerprint one that the TLSA record does not name"},
		{what: "pinned-sts.example", zone: one + record, policy: enforce, want: "TEMP 4.7.5 Postfix has no word ...", why: "secure would take another key"},
		{what: "pinned-unknown.example", zone: one + dane1, signed: true, faults: at(sts, dns.TypeTXT, servfail), want: "TEMP 4.4.3 ...", why: "it is not known what the pin is on top of"},
		{what: "hop.example", zone: one + dane1, signed: true, want: "OK dane-only", why: "the override's next hop is none of Postfix's"},
	}
}

// Every situation has the answer that is right for it.
func TestMatrix(t *testing.T) {
	w := newWorld(t)
	all := matrix()
	if len(all) < 60 {
		t.Fatalf("%d situations", len(all))
	}
	for i, s := range all {
		t.Run(s.what, func(t *testing.T) {
			domain := fmt.Sprintf("s%d.test", i)
			if strings.HasSuffix(s.what, ".example") {
				domain = s.what
			}
			in := func(text string) string { return strings.ReplaceAll(text, "$", domain) }
			if s.zone != "" {
				w.add(in(s.zone))
			}
			w.dns.Secure(domain, s.signed)
			for _, f := range s.faults {
				w.dns.SetFault(in(f.name), f.qtype, f.fault)
			}
			if p := s.policy; p != nil {
				own := *p
				own.MX = nil
				for _, mx := range p.MX {
					own.MX = append(own.MX, in(mx))
				}
				w.policies[domain] = own
			}
			question, want := s.asked, in(s.want)
			if question == "" {
				question = "policy $"
			}
			if s.what == "capitals and a final dot" {
				domain = strings.ToUpper(domain)
			}
			got := w.ask(in(question))
			begin, cut := strings.CutSuffix(want, "...")
			if got != want && !(cut && strings.HasPrefix(got, begin)) {
				t.Errorf("%q, want %q: %s", got, want, s.why)
			}
			if again := w.ask(in(question)); again != got {
				t.Errorf("and then %q", again)
			}
		})
	}
}

// A resolver that was silent has each domain answered rightly with the first
// word that it says, to whatever question.
func TestSilenceIsForgotten(t *testing.T) {
	w := newWorld(t)
	for _, domain := range []string{"a.test", "b.test"} {
		w.add(strings.ReplaceAll(one+record, "$", domain))
		w.policies[domain] = *policyOf(mtasts.ModeEnforce, "*."+domain)
	}
	up := w.dns.Down()
	for range 2 {
		if got := w.ask("policy a.test"); !strings.HasPrefix(got, "TEMP 4.4.3 ") {
			t.Errorf("without a resolver: %q", got)
		}
	}
	if err := up(); err != nil {
		t.Fatal(err)
	}
	for _, domain := range []string{"b.test", "a.test"} {
		if got := w.ask("policy " + domain); !strings.HasPrefix(got, "OK secure match=mx1."+domain+" ") {
			t.Errorf("with the resolver back: %q", got)
		}
	}
}

// The same for a domain of which nothing failed but the MTA-STS record.
func TestRecordIsAskedForAgain(t *testing.T) {
	w := newWorld(t)
	w.add(strings.ReplaceAll(one+record, "$", "a.test"))
	w.policies["a.test"] = *policyOf(mtasts.ModeEnforce, "*.a.test")
	w.dns.SetFault("_mta-sts.a.test.", dns.TypeTXT, labdns.ServFail)
	if got := w.ask("policy a.test"); !strings.HasPrefix(got, "TEMP 4.4.3 ") {
		t.Errorf("%q", got)
	}
	asked := w.dns.Queries("", dns.TypeANY)
	if got := w.ask("policy a.test"); !strings.HasPrefix(got, "TEMP 4.4.3 ") {
		t.Errorf("%q", got)
	}
	if again := w.dns.Queries("", dns.TypeANY); again != asked {
		t.Errorf("a failure was not remembered: %v questions, then %v", asked, again)
	}
	w.dns.SetFault("_mta-sts.a.test.", dns.TypeTXT, labdns.Normal)
	w.resolver.Flush("_mta-sts.a.test") // as time would
	if got := w.ask("policy a.test"); !strings.HasPrefix(got, "OK secure ") {
		t.Errorf("with the record there: %q", got)
	}
}
