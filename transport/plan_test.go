package transport

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/cache"
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/plan"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// two makes a.example with two hosts: the first has DANE, the second does not.
func two(t *testing.T) *lab {
	l := newLab(t)
	for _, host := range []string{"mx1.a.example", "mx2.a.example"} {
		l.mx(host, nil)
	}
	l.zone("a.example. 300 MX 10 mx1.a.example.\na.example. 300 MX 20 mx2.a.example.")
	l.tlsa("mx1.a.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates["mx1.a.example"].Leaf))
	l.signed("a.example")
	l.policy("a.example", mtasts.ModeEnforce, "*.a.example")
	return l
}

func (l *lab) plan(domain string) *plan.Plan {
	l.t.Helper()
	o, err := l.transport.Plan(l.t.Context(), domain, 0)
	l.must(err)
	return o
}

func (l *lab) questions() int {
	n := l.dns.Queries("", dns.TypeANY)
	return n.UDP + n.TCP
}

func TestPlan(t *testing.T) {
	t.Parallel()
	l := two(t)
	l.start(everything)
	o := l.plan("A.Example.")
	if o.Target.Domain != "a.example" || o.Err != nil || !o.Route.Secure || o.Override != "" || o.OwnPolicies || o.STS.State != verdict.STSFound || o.Policy.State != policycache.HasPolicy || len(o.Hosts) != 2 {
		t.Fatalf("%+v", o)
	}
	for i, want := range []struct {
		host string
		need verdict.Need
	}{{"mx1.a.example", verdict.NeedDANE}, {"mx2.a.example", verdict.NeedWebPKI}} {
		if h := o.Hosts[i]; h.Host.Name != want.host || h.Err != nil || h.Verdict.Need != want.need || h.Facts.Host != want.host || !h.Facts.Signed {
			t.Errorf("%+v", h)
		}
	}
	for _, bad := range []string{"", "[192.0.2.1]", "a..example", ".example", "x y", "a.example\n"} {
		if _, err := l.transport.Plan(t.Context(), bad, 0); !errors.Is(err, route.ErrDomain) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A next hop "domain:port" has the domain's policy, and the TLSA records of
// that port; the transport's own port is no other plan.
func TestPlanAtAPort(t *testing.T) {
	t.Parallel()
	l := two(t)
	l.start(everything)
	o, err := l.transport.Plan(t.Context(), "a.example", 2525)
	l.must(err)
	if o.Target.Port != 2525 || o.STS.State != verdict.STSFound || len(o.Hosts) != 2 || !o.Route.Secure {
		t.Fatalf("%+v", o)
	}
	for _, h := range o.Hosts {
		if h.Port != 2525 || h.Verdict.Need != verdict.NeedWebPKI || h.Facts.TLSA.State != verdict.TLSANone {
			t.Errorf("%+v", h)
		}
	}
	usual := l.plan("a.example")
	if o, err := l.transport.Plan(t.Context(), "a.example", l.config().Port); err != nil || o != usual {
		t.Errorf("another plan for the usual port: %v", err)
	}
}

// A warm plan asks no server, and is one for all.
func TestPlanIsKept(t *testing.T) {
	t.Parallel()
	l := two(t)
	l.start(everything)
	first := l.plan("a.example")
	asked := l.questions()
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if o := l.plan("a.example"); o != first {
				t.Error("made anew")
			}
		})
	}
	all.Wait()
	if n := l.questions() - asked; n != 0 {
		t.Errorf("%d questions", n)
	}
}

// A plan is made anew when anything of it was forgotten or is another now,
// and not before.
func TestPlanIsNeverStale(t *testing.T) {
	t.Parallel()
	for what, change := range map[string]func(l *lab){
		"MX records flushed": func(l *lab) { l.resolver.Flush("a.example") },
		"a host's TLSA record changed": func(l *lab) {
			l.tlsa("mx2.a.example", ca.TLSA(ca.DANEEE, ca.SPKI, ca.SHA256, l.certificates["mx2.a.example"].Leaf))
			l.resolver.Flush("_tcp.mx2.a.example")
		},
		"a host's addresses flushed": func(l *lab) { l.resolver.Flush("mx2.a.example") },
		"another policy id": func(l *lab) {
			e := l.policies["a.example"]
			e.ID = "2"
			l.policies["a.example"] = e
		},
		"a policy that ended": func(l *lab) {
			l.policies["a.example"] = policycache.Entry{Domain: "a.example", State: policycache.NoPolicy}
		},
		"a policy that failed": func(l *lab) {
			l.policies["a.example"] = policycache.Entry{Domain: "a.example", State: policycache.Failed}
		},
		"a refresh that failed": func(l *lab) {
			e := l.policies["a.example"]
			e.Err = &mtasts.Error{Failure: mtasts.FailureFetch, Err: errors.New("why")}
			l.policies["a.example"] = e
		},
	} {
		l := two(t)
		l.start(everything)
		before := l.plan("a.example")
		change(l)
		after := l.plan("a.example")
		if after == before {
			t.Errorf("%s: the old plan", what)
		}
		if again := l.plan("a.example"); again != after {
			t.Errorf("%s: made anew twice", what)
		}
		if what == "a host's TLSA record changed" && after.Hosts[1].Verdict.Need != verdict.NeedDANE {
			t.Errorf("%s: %+v", what, after.Hosts[1].Verdict)
		}
		if what == "a policy that ended" && after.Hosts[1].Verdict.Need != verdict.NeedNothing {
			t.Errorf("%s: %+v", what, after.Hosts[1].Verdict)
		}
	}
}

// What could not be looked up is looked up again.
func TestPlanOfFailures(t *testing.T) {
	t.Parallel()
	l := two(t)
	tlsa := l.tlsaName("mx1.a.example")
	l.dns.SetFault(tlsa, dns.TypeTLSA, labdns.Bogus)
	l.dns.SetFault("mx2.a.example", dns.TypeANY, labdns.ServFail)
	l.dns.SetFault("b.example", dns.TypeMX, labdns.ServFail)
	l.start(everything)
	o := l.plan("a.example")
	if o.Hosts[0].Verdict.Refusal == nil || o.Hosts[0].Facts.TLSA.State != verdict.TLSAFailed {
		t.Errorf("%+v", o.Hosts[0])
	}
	if h := o.Hosts[1]; h.Err == nil || h.Facts.Host != "mx2.a.example" || !h.Facts.Signed || h.Facts.STS.State != verdict.STSFound {
		t.Errorf("%+v", h)
	}
	if o := l.plan("b.example"); o.Err == nil || o.Err.Code.String() != "4.4.3" || len(o.Hosts) != 0 {
		t.Errorf("%+v", o)
	}
	l.dns.SetFault(tlsa, dns.TypeTLSA)
	l.dns.SetFault("mx2.a.example", dns.TypeANY)
	l.resolver.Flush("") // the failures have expired
	if o := l.plan("a.example"); o.Hosts[0].Verdict.Need != verdict.NeedDANE || o.Hosts[1].Verdict.Need != verdict.NeedWebPKI {
		t.Errorf("after they were mended: %+v", o.Hosts)
	}
	if o := l.plan("nowhere.example"); o.Err == nil || o.Err.Code.String() != "5.4.4" {
		t.Errorf("%+v", o)
	}
}

// A host that only a setting of ours leaves out is one that the other mail
// server may use.
func TestPlanOfHostsLeftOut(t *testing.T) {
	t.Parallel()
	l := two(t)
	l.zone("a.example. 300 MX 5 six.a.example.\nsix.a.example. AAAA 2001:db8::1")
	l.start(func(c *Config) {
		everything(c)
		c.ForceIPv4 = true
	})
	o := l.plan("a.example")
	if len(o.Hosts) != 3 || o.Hosts[0].Err != nil || o.Hosts[1].Err != nil {
		t.Fatalf("%+v", o.Hosts)
	}
	if h := o.Hosts[2]; h.Host.Name != "six.a.example" || h.Err == nil || !h.Facts.Signed || h.Facts.STS.State != verdict.STSFound {
		t.Errorf("%+v", h)
	}
}

// An override's policies hold, and its next hop is left out of account.
func TestPlanOfOverrides(t *testing.T) {
	t.Parallel()
	l := two(t)
	l.start(func(c *Config) {
		everything(c)
		addOverride(c, "a.example", "[relay.example]:2525", func(c *Config) { c.MXAuth = PolicySet{} })
		addOverride(c, ".a.example", "", nil)
	})
	o := l.plan("a.example")
	if o.Override != "a.example" || !o.OwnPolicies || o.Rules != (verdict.Rules{}) || len(o.Hosts) != 2 || o.Hosts[0].Verdict.Need != verdict.NeedNothing || o.STS.State != verdict.STSNone {
		t.Errorf("%+v", o)
	}
	if o := l.plan("mx1.a.example"); o.Override != ".a.example" || o.OwnPolicies || !o.Rules.DANE {
		t.Errorf("%+v", o)
	}
}

// Who asks may leave, and nothing is asked of a transport that is closed.
func TestPlanEnds(t *testing.T) {
	t.Parallel()
	l := two(t)
	answer := l.dns.Hold("a.example", dns.TypeMX)
	l.start(everything)
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(ErrStopping)
	if _, err := l.transport.Plan(ctx, "a.example", 0); !errors.Is(err, ErrStopping) {
		t.Error(err)
	}
	answer()
	l.plan("a.example")
	l.transport.Close()
	if _, err := l.transport.Plan(t.Context(), "a.example", 0); !errors.Is(err, cache.ErrClosed) {
		t.Error(err)
	}
}
