package transport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/route"
)

// TestExplainRoutes: what is explained of the way to a domain is what a
// message to it meets. (Verdicts are compared in TestVerdict.)
func TestExplainRoutes(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for _, name := range []string{"mx1.a.example", "mx2.a.example", "implicit.example", "relay.example"} {
		l.mx(name, byData)
	}
	for _, record := range []string{
		"a.example. MX 20 mx2.a.example.",
		"a.example. MX 10 mx1.a.example.",
		"null.example. MX 0 .",
		"empty.example. TXT nothing",
		"fails.example. MX 10 mx1.a.example.",
		"loop.example. MX 10 client.example.",
		"client.example. A 127.0.99.99",
		"halfway.example. MX 10 broken.example.",
		"halfway.example. MX 20 mx1.a.example.",
		"gone.example. MX 10 mx1.a.example.",
	} {
		l.zone("%s", record)
	}
	l.dns.SetFault("fails.example", dns.TypeMX, labdns.ServFail)
	l.dns.SetFault("broken.example", dns.TypeANY, labdns.ServFail)
	l.start(func(c *Config) {
		everything(c)
		addOverride(c, "far.example", "relay.example", func(c *Config) { c.MXAuth = PolicySet{} })
		addOverride(c, "gone.example", "nosuch.example", nil)
		addOverride(c, "wrong.example", "[nosuch.example]", nil)
	})
	for _, tt := range []struct {
		domain string
		kind   route.Kind
		hosts  string
	}{
		{"a.example", route.ByMX, "mx1.a.example mx2.a.example"},
		{"A.EXAMPLE.", route.ByMX, "mx1.a.example mx2.a.example"},
		{"implicit.example", route.Implicit, "implicit.example"},
		{"halfway.example", route.ByMX, "broken.example mx1.a.example"},
		{"far.example", route.Implicit, "relay.example"},
		{"wrong.example", route.Explicit, "nosuch.example"},
		{"[127.0.77.77]", route.Literal, "[127.0.77.77]"},
		{"null.example", 0, ""}, {"empty.example", 0, ""}, {"nosuch.example", 0, ""}, {"fails.example", 0, ""},
		{"loop.example", 0, ""}, {"gone.example", 0, ""},
	} {
		t.Run(tt.domain, func(t *testing.T) {
			e := l.transport.Explain(t.Context(), &Question{Domain: tt.domain})
			result := l.send("x@" + strings.TrimSuffix(tt.domain, "."))[0]
			var hosts []string
			failing := 0
			for _, h := range e.Hosts {
				hosts = append(hosts, h.Host.Name)
				if h.Err != nil {
					failing++
					if h.Err.Code.Class != 4 || h.Err.Host != h.Host.Name {
						t.Errorf("%s: %v", h.Host.Name, h.Err)
					}
				}
			}
			if got := strings.Join(hosts, " "); got != tt.hosts {
				t.Errorf("hosts %s, want %s", got, tt.hosts)
			}
			switch {
			case tt.hosts == "" && (e.Err == nil || e.Err.Code != result.Code || !strings.HasPrefix(result.Text, e.Err.Error())):
				t.Errorf("explained by %v, delivered by %v %s", e.Err, result.Code, result.Text)
			case tt.hosts != "" && (e.Err != nil || e.Route.Kind != tt.kind):
				t.Errorf("%v, %v", e.Err, e.Route.Kind)
			case result.Code.Class == 2 && failing == len(e.Hosts):
				t.Error("delivered, though every host was explained away")
			case result.Code.Class == 2 && !strings.HasPrefix(result.Text, hosts[failing]+": "):
				t.Errorf("%s; explained as %v", result.Text, hosts)
			}
		})
	}
	for _, bad := range []string{"", "a..example", "x y", "a.example\r\n", "[1.2.3]", "@", strings.Repeat("a", 3000)} {
		if e := l.transport.Explain(t.Context(), &Question{Domain: bad}); e.Err == nil || e.Err.Code.Class != 5 || strings.ContainsFunc(e.Err.Error(), unprintable) {
			t.Errorf("%.20q: %v", bad, e.Err)
		}
	}
}

// Explaining a domain dials no host.
func TestExplainDialsNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.policy("a.example", mtasts.ModeEnforce, "mx.a.example")
	l.start(everything)
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"})
	if e.STS == nil || e.STS.State != policycache.HasPolicy || len(e.Hosts) != 1 || len(e.Hosts[0].Addresses.Addrs) != 1 {
		t.Errorf("%+v", e)
	}
	counts(t, server, 0, 0)
	// A domain without the mechanism has no policy to show.
	l.start(nil)
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"}); e.STS != nil {
		t.Errorf("%+v", e.STS)
	}
}

// TestEveryOddSTARTTLS: the keyword counts in any letter case (RFC 5321 §2.4);
// missed, a message would go in the clear.
func TestEveryOddSTARTTLS(t *testing.T) {
	t.Parallel()
	for _, keyword := range []string{"starttls", "StartTLS", "STARTTLS ", "starttls REQUIRED"} {
		l := newLab(t)
		server := l.mx("mx.b.example", func(h *mx.Behaviour) { h.TLS.Keyword = keyword })
		l.zone("b.example. MX 10 mx.b.example.")
		l.policy("b.example", mtasts.ModeEnforce, "mx.b.example")
		l.start(everything)
		expect(t, l.send("x@b.example"), "2.0.0 , mtasts")
		if m := server.Messages(); len(m) != 1 || m[0].TLS == nil {
			t.Errorf("%q: %+v", keyword, m)
		}
	}
}

// A host that may not have the message is skipped, and the next one gets
// it; the first is dialled only if that is what it takes to know.
func TestHostsAreJudgedOneByOne(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	unlisted, plain, good := l.mx("mx1.a.example", nil), l.mx("mx2.a.example", byData), l.mx("mx3.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.\na.example. MX 30 mx3.a.example.")
	l.policy("a.example", mtasts.ModeEnforce, "mx2.a.example", "mx3.a.example")
	l.start(everything)
	expect(t, l.send("x@a.example"), "2.0.0 mx3.a.example")
	counts(t, unlisted, 0, 0)
	counts(t, plain, 1, 0)
	counts(t, good, 1, 1)
	tried := fmt.Sprint(l.lines("delivered")[0]["tried"])
	for _, want := range []string{"4.7.5 mx1.a.example: the domain's MTA-STS policy does not list this host", "4.7.5 mx2.a.example: MTA-STS: the server does not offer STARTTLS"} {
		if !strings.Contains(tried, want) {
			t.Errorf("the log says %q, not %q", tried, want)
		}
	}
}
