package world

import (
	"crypto/tls"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/sts"
)

// day is the max_age of the policies here.
const day = 24 * time.Hour

// The certificate of most mail servers that nothing vouches for, and the
// records that people publish.
var (
	selfSigned = ca.Spec{SelfSigned: true}
	ee         = TLSA{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256}
	ta         = TLSA{Usage: ca.DANETA, Selector: ca.Cert, Matching: ca.SHA256}
	pkixEE     = TLSA{Usage: ca.PKIXEE, Selector: ca.SPKI, Matching: ca.SHA256}
	wrongEE    = TLSA{Usage: ca.DANEEE, Selector: ca.SPKI, Matching: ca.SHA256, Other: true}
)

// Domains gives the well-known domains, in an order that reads well. Each
// server refuses recipients of bad luck, as mx.UsualRecipients says. That
// nowhere.example is not among them is part of it: it does not exist.
func Domains() []Domain {
	var all []Domain
	for _, group := range [][]Domain{daneDomains(), stsDomains(), bothDomains(), openDomains(), requireTLSDomains(), routeDomains()} {
		all = append(all, group...)
	}
	return all
}

func daneDomains() []Domain {
	expired := ca.Spec{SelfSigned: true, NotAfter: time.Now().Add(-time.Hour)}
	return []Domain{
		signed("dane-ee.example", "TLSA 3 1 1; certificate self-signed and expired", Host{Cert: expired, TLSA: []TLSA{ee}}),
		signed("dane-ta.example", "TLSA 2 0 1 of its own authority", Host{Cert: ca.Spec{Chain: ca.WithRoot}, TLSA: []TLSA{ta}}),
		signed("dane-ta-name.example", "TLSA 2 0 1; certificate for another name",
			Host{Cert: ca.Spec{Chain: ca.WithRoot, Names: []string{"mx.elsewhere.example"}}, TLSA: []TLSA{ta}}),
		signed("dane-wrong.example", "TLSA 3 1 1 of another key", Host{TLSA: []TLSA{wrongEE}}),
		signed("dane-no-tls.example", "TLSA 3 1 1, but no STARTTLS: stripped?", Host{Behaviour: plain(), TLSA: []TLSA{ee}}),
		signed("dane-unusable.example", "TLSA 1 1 1 only, not usable for mail", Host{Cert: selfSigned, TLSA: []TLSA{pkixEE}}),
		signed("dane-unusable-no-tls.example", "TLSA 1 1 1 only, and no STARTTLS", Host{Behaviour: plain(), TLSA: []TLSA{pkixEE}}),
		signed("dane-bogus.example", "TLSA with a bad signature", Host{TLSA: []TLSA{ee}, TLSAFault: dnssec.BadSignature}),
		signed("dane-second.example", "first MX has a wrong TLSA, second a right one",
			Host{Label: "mx1", Preference: 10, TLSA: []TLSA{wrongEE}}, Host{Label: "mx2", Preference: 20, Cert: selfSigned, TLSA: []TLSA{ee}}),
		{Name: "dane-hosted.example", About: "unsigned, its MX is that of dane-ta.example", Signing: dnssec.Unsigned,
			Zone: "@ MX 10 mx.dane-ta.example.\n"},
	}
}

func stsDomains() []Domain {
	wrongName := ca.Spec{Names: []string{"mx.elsewhere.example"}}
	return []Domain{
		policy("enforce", unsigned("sts.example", "MTA-STS enforce; certificate valid", Host{})),
		policy("enforce", unsigned("sts-wrong-name.example", "MTA-STS enforce; certificate for another name", Host{Cert: wrongName})),
		policy("enforce", unsigned("sts-expired.example", "MTA-STS enforce; certificate expired",
			Host{Cert: ca.Spec{NotAfter: time.Now().Add(-time.Hour)}})),
		publish(sts.Site{Policy: sts.Policy("enforce", day, "mx.elsewhere.example")},
			unsigned("sts-not-listed.example", "MTA-STS enforce; MX not in the policy", Host{})),
		policy("testing", unsigned("sts-testing.example", "MTA-STS testing; certificate for another name", Host{Cert: wrongName})),
		publish(sts.Site{Fault: sts.NotFound, Policy: sts.Policy("enforce", day, "mx.sts-missing.example")},
			unsigned("sts-missing.example", "MTA-STS announced, but the policy is 404", Host{Cert: selfSigned})),
	}
}

func bothDomains() []Domain {
	return []Domain{
		policy("enforce", signed("both.example", "DANE and MTA-STS, both satisfied", Host{TLSA: []TLSA{ee}})),
		policy("enforce", signed("both-dane-yes.example", "DANE says yes, MTA-STS no (self-signed)", Host{Cert: selfSigned, TLSA: []TLSA{ee}})),
		policy("enforce", signed("both-dane-no.example", "DANE says no (another key), MTA-STS yes", Host{TLSA: []TLSA{wrongEE}})),
	}
}

func openDomains() []Domain {
	broken := modern()
	broken.TLS.Mode = mx.TLSBroken
	return []Domain{
		unsigned("none.example", "no policy; certificate self-signed", Host{Cert: selfSigned}),
		unsigned("plain.example", "no policy, no STARTTLS", Host{Behaviour: plain()}),
		unsigned("broken-tls.example", "no policy; STARTTLS offered, handshake fails", Host{Behaviour: broken}),
	}
}

func requireTLSDomains() []Domain {
	offers := modern()
	offers.Keywords |= mx.RequireTLS
	return []Domain{
		signed("requiretls.example", "TLSA 3 1 1, REQUIRETLS offered", Host{Behaviour: offers, TLSA: []TLSA{ee}}),
		signed("requiretls-no.example", "TLSA 3 1 1, REQUIRETLS not offered", Host{TLSA: []TLSA{ee}}),
		unsigned("requiretls-open.example", "REQUIRETLS offered, but nothing vouches for the MX", Host{Behaviour: offers}),
	}
}

func routeDomains() []Domain {
	bad := unsigned("bogus.example", "signatures of the whole zone are bad", Host{})
	bad.Signing = dnssec.BadSignatures
	return []Domain{
		unsigned("down.example", "preferred MX down, the next one up",
			Host{Label: "mx1", Preference: 10, Down: true}, Host{Label: "mx2", Preference: 20}),
		unsigned("all-down.example", "its only MX is down", Host{Down: true}),
		{Name: "no-mx.example", About: "no MX record, the domain's own address", Signing: dnssec.Unsigned, Hosts: []Host{{Behaviour: modern()}}},
		{Name: "null-mx.example", About: "null MX: takes no mail", Signing: dnssec.Unsigned, Zone: "@ MX 0 .\n"},
		bad,
		unsigned("users.example", "a server with some users of bad luck", Host{}),
	}
}

// signed and unsigned make a domain with its hosts. A host that says nothing
// else is a modern one at mx.
func signed(name, about string, hosts ...Host) Domain {
	for i := range hosts {
		h := &hosts[i]
		if h.Label == "" {
			h.Label = "mx"
		}
		if h.Preference == 0 {
			h.Preference = 10
		}
		if h.Behaviour.Keywords == 0 {
			h.Behaviour = modern()
		}
	}
	return Domain{Name: name, About: about, Hosts: hosts}
}

func unsigned(name, about string, hosts ...Host) Domain {
	d := signed(name, about, hosts...)
	d.Signing = dnssec.Unsigned
	return d
}

// policy publishes a sound policy that lists every host of the domain.
func policy(mode string, d Domain) Domain {
	return publish(sts.Site{Policy: sts.Policy(mode, day, "*."+d.Name)}, d)
}

func publish(site sts.Site, d Domain) Domain {
	d.STS = &site
	return d
}

func modern() mx.Behaviour { return mx.Modern(tls.Certificate{}) }

// plain is the behaviour of a server that is modern but for TLS.
func plain() mx.Behaviour {
	h := modern()
	h.TLS = mx.TLS{}
	return h
}
