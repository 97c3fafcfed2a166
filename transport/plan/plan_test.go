package plan

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// A policy host that accepts connections and never speaks costs the first who
// asks ten seconds, the others nothing, and none any work.
func TestPolicyHostThatNeverSpeaks(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", "mx0.a.example")
		w.texts["a.example"] = "1"
		w.webWait = never
		w.ttl["a.example MX"], w.ttl["mx0.a.example A"] = time.Hour, time.Hour
		w.ttl["mx0.a.example AAAA"], w.ttl["_25._tcp.mx0.a.example TLSA"] = time.Hour, time.Hour
		begin := time.Now()
		first, err := p.Plan(t.Context(), target("a.example"))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took != 10*time.Second {
			t.Errorf("the first waited %v", took)
		}
		if !errors.Is(first.Policy.Err, policycache.ErrPending) || first.STS.State != verdict.STSFailed {
			t.Errorf("%+v", first.Policy)
		}
		asked := w.questions("")
		// For as long as the fetch goes on, and while it is backed off from.
		for time.Since(begin) < 5*time.Minute {
			for range 20 {
				whole(t, p, "a.example")
			}
			time.Sleep(time.Second)
		}
		if n := w.questions("") - asked; n > 20 {
			t.Errorf("%d more questions: the plan is made again and again", n)
		}
		if s := p.cfg.Cache.Stats(); s.Misses > 5 {
			t.Errorf("%d plans were made", s.Misses)
		}
		// When it speaks at last, that counts.
		w.set(func() { w.webWait = 0 })
		time.Sleep(6 * time.Minute)
		if plan := whole(t, p, "a.example"); plan.STS.State != verdict.STSFound {
			t.Errorf("%+v", plan.STS)
		}
	})
}

// A warm plan asks no resolver at all, and is one for all.
func TestWarmPlanAsksNobody(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(10)...)
		first := whole(t, p, "a.example")
		if len(first.Hosts) != 10 || first.Hosts[9].Verdict.Need != verdict.NeedDANE {
			t.Fatalf("%+v", first)
		}
		asked := w.questions("")
		for range 100 {
			if whole(t, p, "a.example") != first {
				t.Fatal("another plan")
			}
			way := p.Route(t.Context(), target("a.example"), anyMessage)
			for i := range way.Hosts {
				if h := p.Host(t.Context(), way, i, anyMessage); h != first.Hosts[i] {
					t.Fatalf("%+v", h)
				}
			}
		}
		if n := w.questions("") - asked; n != 0 {
			t.Errorf("%d questions", n)
		}
	})
}

// A delivery asks for the hosts that it comes to, and no others; what it found
// out is there for the next one, and for a caller that wants the whole.
func TestHostsAreAskedForOneByOne(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(10)...)
		way := p.Route(t.Context(), target("a.example"), anyMessage)
		if n := w.questions("TLSA"); n != 0 || len(way.Route.Hosts) != 10 || way.Hosts[0] != nil {
			t.Fatalf("%d TLSA questions, %+v", n, way)
		}
		first := p.Host(t.Context(), way, 0, anyMessage)
		if n := w.questions("TLSA"); n != 1 || first.Verdict.Need != verdict.NeedDANE {
			t.Errorf("%d TLSA questions, %+v", n, first)
		}
		again := p.Route(t.Context(), target("a.example"), anyMessage)
		if p.Host(t.Context(), again, 0, anyMessage) != first || w.questions("TLSA") != 1 {
			t.Error("what a delivery found out is forgotten")
		}
		plan := whole(t, p, "a.example")
		if plan.Hosts[0] != first || slices.Contains(plan.Hosts, nil) {
			t.Errorf("%+v", plan.Hosts)
		}
		if n := w.questions("TLSA"); n != 10 {
			t.Errorf("%d TLSA questions for 10 hosts", n)
		}
	})
}

// What many find out at once is not lost.
func TestHostsFoundAtOnce(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(20)...)
		way := p.Route(t.Context(), target("a.example"), anyMessage)
		var all sync.WaitGroup
		for i := range 20 {
			all.Go(func() { p.Host(t.Context(), way, i, anyMessage) })
		}
		all.Wait()
		if plan := p.Route(t.Context(), target("a.example"), anyMessage); slices.Contains(plan.Hosts, nil) {
			t.Error("a host is missing")
		}
	})
}

// A plan ends with the first of its answers, with a flush, with another policy,
// and not before.
func TestPlanEnds(t *testing.T) {
	for what, tt := range map[string]struct {
		change func(w *world)
		after  time.Duration
		kept   bool
	}{
		"nothing":         {func(*world) {}, time.Minute, true},
		"a flush":         {func(w *world) { w.generation.Add(1) }, 0, false},
		"an answer's end": {func(w *world) { w.ttl["mx1.a.example A"] = 0 }, 10 * time.Minute, false},
		"another policy":  {func(w *world) { w.texts["a.example"] = "2" }, 6 * time.Minute, false},
		// it is in force, but RecordID is none
		"a policy is gone": {func(w *world) { w.texts["a.example"] = "" }, 6 * time.Minute, false},
	} {
		in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
			w.domain("a.example", names(2)...)
			w.texts["a.example"] = "1"
			for _, name := range []string{"a.example MX", "mx0.a.example A", "mx0.a.example AAAA", "mx1.a.example A", "mx1.a.example AAAA", "_25._tcp.mx0.a.example TLSA"} {
				w.ttl[name] = 20 * time.Minute
			}
			w.ttl["_25._tcp.mx1.a.example TLSA"] = 10 * time.Minute
			before := whole(t, p, "a.example")
			w.set(func() { tt.change(w) })
			time.Sleep(tt.after)
			if after := whole(t, p, "a.example"); (after == before) != tt.kept {
				t.Errorf("%s: kept %v", what, !tt.kept)
			}
		})
	}
}

// What is asked for often is made anew before it ends, with the hosts that
// were known, and nothing waits.
func TestPlanIsRefreshedAhead(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(2)...)
		whole(t, p, "a.example")
		for range 600 {
			time.Sleep(time.Second)
			synctest.Wait()
			whole(t, p, "a.example")
			synctest.Wait()
		}
		s := p.cfg.Cache.Stats()
		if s.Refreshes == 0 || s.Misses+s.Refreshes > 60 {
			t.Errorf("%d misses and %d refreshes in ten lives", s.Misses, s.Refreshes)
		}
	})
}

// A failure is kept as long as the resolver remembers it, and one that no one
// remembers not at all.
func TestFailuresAreKeptAsLongAsRemembered(t *testing.T) {
	for _, name := range []string{"a.example MX", "mx0.a.example A", "_25._tcp.mx0.a.example TLSA"} {
		in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
			w.domain("a.example", "mx0.a.example")
			w.records["mx0.a.example AAAA"] = resolver.Addrs{netip.MustParseAddr("2001:db8::1")}
			w.failing[name] = 5 * time.Second
			first := whole(t, p, "a.example")
			time.Sleep(4 * time.Second)
			if whole(t, p, "a.example") != first {
				t.Errorf("%s: not kept", name)
			}
			w.set(func() { delete(w.failing, name) })
			time.Sleep(2 * time.Second)
			if plan := whole(t, p, "a.example"); plan == first || plan.Err != nil || plan.Hosts[0].Verdict.Refusal != nil || len(plan.Hosts[0].Addresses.Addrs) != 2 {
				t.Errorf("%s: %+v", name, plan)
			}
			w.set(func() { w.failing[name] = 0 })
			w.generation.Add(1)
			first = whole(t, p, "a.example")
			if whole(t, p, "a.example") == first {
				t.Errorf("%s: kept although it is not remembered", name)
			}
		})
	}
}

// "TLS-Required: No" asks for no policy and no record, and what was found out
// for it is its own.
func TestTLSRequiredNo(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", "mx0.a.example")
		w.texts["a.example"] = "1"
		demands := verdict.Demands{Relaxed: true, TLSRequiredNo: true}
		way := p.Route(t.Context(), target("a.example"), demands)
		h := p.Host(t.Context(), way, 0, demands)
		if w.questions("TLSA") != 0 || w.fetched != 0 || h.Verdict.Need != verdict.NeedNothing || h.Facts.TLSA.State != verdict.TLSANone || way.STS.State != verdict.STSNone {
			t.Errorf("%+v", h)
		}
		if plan := whole(t, p, "a.example"); plan.Hosts[0].Verdict.Need != verdict.NeedDANE || plan.STS.State != verdict.STSFound {
			t.Errorf("another message: %+v", plan.Hosts[0])
		}
	})
}

// REQUIRETLS judges the same facts by itself.
func TestRequireTLS(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", "mx0.a.example")
		way := p.Route(t.Context(), target("a.example"), anyMessage)
		asked := p.Host(t.Context(), way, 0, verdict.Demands{RequireTLS: true})
		if !asked.Verdict.NeedRequireTLS {
			t.Errorf("%+v", asked.Verdict)
		}
		if h := whole(t, p, "a.example").Hosts[0]; h.Verdict.NeedRequireTLS {
			t.Errorf("another message: %+v", h.Verdict)
		}
	})
}

// Plans are bounded in bytes, whatever the domains are like.
func TestPlansAreBoundedInBytes(t *testing.T) {
	if defaultBytes != 64<<20 {
		t.Errorf("%d bytes", defaultBytes)
	}
	const bound = 1 << 20
	in(t, bound, func(t *testing.T, w *world, p *Planner) {
		for i := range 600 {
			domain := fmt.Sprintf("d%d.example", i)
			host := fmt.Sprintf("mx.%s", domain)
			w.domain(domain, host)
			if i%10 == 0 {
				w.records["_25._tcp."+host+" TLSA"] = resolver.TLSAs{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}, {Usage: 7, Data: make([]byte, 40<<10)}}
			}
			whole(t, p, domain)
			if s := p.cfg.Cache.Stats(); s.Bytes > bound || s.MaxBytes != bound {
				t.Fatalf("%+v", s)
			}
		}
		s := p.cfg.Cache.Stats()
		if s.Evictions == 0 || s.Entries < 20 {
			t.Errorf("%+v", s)
		}
		if perPlan := s.Bytes / int64(s.Entries); perPlan < 2000 {
			t.Errorf("%d bytes a plan, some of which hold 40 KiB", perPlan)
		}
	})
}

// Hosts of equal preference are drawn anew each time, others never change
// places; and so are addresses of one family.
func TestOrder(t *testing.T) {
	plan := &Plan{Route: route.Route{Hosts: []route.Host{{Preference: 1}, {Preference: 5}, {Preference: 5}, {Preference: 5}, {Preference: 9}}}}
	host := &Host{Addresses: route.Addresses{Addrs: []netip.Addr{
		netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"),
		netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3"),
	}}}
	kept := slices.Clone(host.Addresses.Addrs)
	orders, addrs := map[string]bool{}, map[string]bool{}
	for range 1000 {
		order := plan.Order()
		if order[0] != 0 || order[4] != 4 {
			t.Fatalf("%v", order)
		}
		orders[fmt.Sprint(order)] = true
		list := host.Addrs()
		if !list[1].Is6() || !list[2].Is4() {
			t.Fatalf("%v", list)
		}
		addrs[fmt.Sprint(list)] = true
	}
	if len(orders) != 6 || len(addrs) != 12 {
		t.Errorf("%d orders of hosts, want 6; %d of addresses, want 12", len(orders), len(addrs))
	}
	if !slices.Equal(kept, host.Addresses.Addrs) {
		t.Error("the plan itself was changed")
	}
}

// Who asks may leave; a next hop that leads nowhere bounces nothing.
func TestErrors(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(gone)
		if _, err := p.Plan(ctx, target("a.example")); !errors.Is(err, gone) {
			t.Error(err)
		}
		if plan := p.Route(ctx, target("a.example"), anyMessage); plan.Err == nil || !errors.Is(plan.Err, gone) || plan.Err.Code.String() != "4.4.3" {
			t.Errorf("%+v", plan.Err)
		}
		if plan := whole(t, p, "nowhere.example"); plan.Err.Code.String() != "5.4.4" || len(plan.Hosts) != 0 {
			t.Errorf("%+v", plan.Err)
		}
		named := target("nowhere.example")
		named.Named = true
		if plan := p.Route(t.Context(), named, anyMessage); plan.Err.Code.String() != "4.4.4" || !strings.Contains(plan.Err.Error(), "nowhere.example") {
			t.Errorf("%+v", plan.Err)
		}
	})
}

func BenchmarkWarmPlan(b *testing.B) {
	for _, n := range []int{1, 10} {
		b.Run(fmt.Sprint(n, " hosts"), func(b *testing.B) {
			w := newWorld()
			hosts := names(n)
			w.domain("a.example", hosts...)
			for key := range w.records {
				w.ttl[key] = time.Hour
			}
			for _, host := range hosts {
				w.ttl[host+" AAAA"] = time.Hour
			}
			cache := NewCache()
			defer cache.Close()
			p := New(Config{Resolver: w, Port: 25, Cache: cache, Rules: verdict.Rules{DNSSEC: true, DANE: true}})
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := p.Plan(b.Context(), target("a.example")); err != nil {
						b.Error(err)
					}
				}
			})
		})
	}
}
