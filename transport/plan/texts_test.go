package plan

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

// text gives a text that must come at once.
func text(t *testing.T, p *Planner, domain string, w *Writer) string {
	t.Helper()
	begin := time.Now()
	got, err := p.Text(t.Context(), domain, 0, w)
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took != 0 {
		t.Errorf("the text took %v", took)
	}
	return got
}

// A text is made once for each Writer, domain and port, asks nobody when it is
// known, and leaves no plan behind.
func TestText(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(3)...)
		w.texts["a.example"] = "1"
		made := 0
		count := func(what string) *Writer {
			return &Writer{func(p *Plan) string {
				made++
				return fmt.Sprint(what, len(p.Hosts), p.Target.Port)
			}}
		}
		first, second := count("first"), count("second")
		for range 3 {
			if got := text(t, p, "a.example", first); got != "first3 0" {
				t.Errorf("%q", got)
			}
			if got := text(t, p, "a.example", second); got != "second3 0" {
				t.Errorf("%q", got)
			}
			if got, err := p.Text(t.Context(), "a.example", 587, first); err != nil || got != "first3 587" {
				t.Errorf("%q, %v", got, err)
			}
		}
		if made != 3 {
			t.Errorf("made %d times", made)
		}
		asked := w.questions("")
		text(t, p, "a.example", first)
		if n := w.questions("") - asked; n != 0 {
			t.Errorf("%d questions", n)
		}
		if s := p.cfg.Cache.Stats(); s.Entries != 0 {
			t.Errorf("plans were kept: %+v", s)
		}
		if s := p.cfg.Cache.TextStats(); s.Entries != 3 || s.Bytes <= 0 || s.MaxBytes != defaultBytes/2 {
			t.Errorf("%+v", s)
		}
	})
}

// A text that is asked for often is made anew before it ends, and nobody waits.
func TestTextIsRefreshedAhead(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		w.domain("a.example", names(2)...)
		writer := &Writer{describe}
		text(t, p, "a.example", writer)
		for range 600 {
			time.Sleep(time.Second)
			synctest.Wait()
			text(t, p, "a.example", writer)
			synctest.Wait()
		}
		if s := p.cfg.Cache.TextStats(); s.Refreshes == 0 || s.Misses+s.Refreshes > 60 {
			t.Errorf("%d misses and %d refreshes in ten lives", s.Misses, s.Refreshes)
		}
	})
}

// Who asks may leave, and nobody hears half an answer.
func TestTextErrors(t *testing.T) {
	in(t, defaultBytes, func(t *testing.T, w *world, p *Planner) {
		gone := errors.New("gone")
		ctx, cancel := context.WithCancelCause(t.Context())
		w.texts["a.example"], w.webWait = "1", never
		go func() {
			synctest.Wait()
			cancel(gone)
		}()
		if got, err := p.Text(ctx, "a.example", 0, &Writer{describe}); !errors.Is(err, gone) || got != "" {
			t.Errorf("%q, %v", got, err)
		}
	})
}

// describe writes all that may differ between two plans for a domain.
func describe(p *Plan) string {
	var b strings.Builder
	if p.Err != nil {
		fmt.Fprintf(&b, "%v", p.Err.Code)
	}
	for _, h := range p.Hosts {
		addrs := slices.Clone(h.Addresses.Addrs)
		slices.SortFunc(addrs, netip.Addr.Compare)
		fmt.Fprintf(&b, "%s %v", h.Host.Name, addrs)
		switch h.Facts.TLSA.State {
		case verdict.TLSAPresent:
			fmt.Fprintf(&b, " tlsa %d", len(h.Facts.TLSA.Set.Records()))
		case verdict.TLSAFailed:
			b.WriteString(" tlsa failed")
		}
		b.WriteString("; ")
	}
	if p.Policy != nil {
		fmt.Fprintf(&b, "%v %s", p.Policy.State, p.Policy.ID)
	}
	return b.String()
}

// fact is what the DNS says to one question: the same until it expires.
type fact struct {
	records resolver.Records
	failed  bool
	expires time.Time
	// it is told with an expiry that has passed, and nobody may keep it
	loose bool
}

// facts is a resolver that has answers of all kinds and lives, drawn by chance
// when the ones before expire, or are flushed.
type facts struct {
	*world
	mu     sync.Mutex
	random *rand.Rand
	known  map[string]fact
}

// fact gives what is said now.
func (f *facts) fact(name string, qtype resolver.Type) fact {
	f.mu.Lock()
	defer f.mu.Unlock()
	key := f.key(name, qtype)
	is, ok := f.known[key]
	if ok && (is.loose || time.Now().Before(is.expires)) {
		return is
	}
	is = fact{
		failed: f.random.IntN(8) == 0, loose: f.random.IntN(12) == 0,
		expires: time.Now().Add(time.Duration(1+f.random.IntN(600)) * time.Second),
	}
	if !is.failed {
		is.records = f.draw(qtype)
	}
	f.known[key] = is
	return is
}

// draw makes up records.
func (f *facts) draw(qtype resolver.Type) resolver.Records {
	n := f.random.IntN(3)
	switch qtype {
	case resolver.TypeMX:
		var mx resolver.MXs
		for i := range 1 + n {
			mx = append(mx, resolver.MX{Preference: uint16(i), Host: fmt.Sprintf("mx%d.%d.example.", f.random.IntN(3), i)})
		}
		return mx
	case resolver.TypeA:
		return resolver.Addrs{netip.AddrFrom4([4]byte{192, 0, 2, byte(f.random.IntN(200))})}
	case resolver.TypeTLSA:
		var list resolver.TLSAs
		for i := range n {
			list = append(list, resolver.TLSA{Usage: 3, Selector: 1, Matching: 1, Data: slices.Repeat([]byte{byte(i)}, 32)})
		}
		if n > 0 {
			return list
		}
	}
	return nil
}

// Lookup implements route.Resolver.
func (f *facts) Lookup(_ context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	is := f.fact(name, qtype)
	a := resolver.Answer{Name: name, Type: qtype, Canonical: name + ".", Secure: true, Existence: resolver.NoData, Expires: is.expires}
	if is.loose {
		a.Expires = time.Now()
	}
	if is.failed {
		err := &resolver.Error{Name: name, Type: qtype, Kind: resolver.ServFail, Expires: a.Expires}
		if is.loose {
			err.Expires = time.Time{}
		}
		return resolver.Answer{}, err
	}
	if is.records != nil {
		a.Existence, a.Records = resolver.Exists, is.records
	}
	f.set(func() { f.asked[f.key(name, qtype)]++ })
	return a, nil
}

// forget has facts drawn again: the loose ones, or all by a flush.
func (f *facts) forget(all bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, is := range f.known {
		if all || is.loose {
			delete(f.known, key)
		}
	}
	if all {
		f.generation.Add(1)
	}
}

// oracle says, without any cache of plans and by rules of its own, what
// describe must write of a domain now.
func (f *facts) oracle(ctx context.Context, domain string, dane bool, policies *policycache.Cache) string {
	var b strings.Builder
	if mx := f.fact(domain, resolver.TypeMX); mx.failed {
		b.WriteString("4.4.3")
	} else {
		for _, r := range mx.records.(resolver.MXs) {
			host := strings.TrimSuffix(r.Host, ".")
			var addrs []netip.Addr
			a, aaaa := f.fact(host, resolver.TypeA), f.fact(host, resolver.TypeAAAA)
			if a.records != nil {
				addrs = a.records.(resolver.Addrs)
			}
			fmt.Fprintf(&b, "%s %v", host, addrs)
			if tlsa := f.fact("_25._tcp."+host, resolver.TypeTLSA); dane && (len(addrs) > 0) {
				switch {
				case tlsa.failed:
					b.WriteString(" tlsa failed")
				case tlsa.records != nil:
					fmt.Fprintf(&b, " tlsa %d", tlsa.records.Len())
				}
			}
			_ = aaaa // there is never an address
			b.WriteString("; ")
		}
	}
	if policies != nil {
		e, err := policies.Lookup(ctx, domain)
		if err != nil {
			return err.Error()
		}
		fmt.Fprintf(&b, "%v %s", e.State, e.ID)
	}
	return b.String()
}

// Whatever expires, changes, fails or is flushed, and while others have plans
// made: a text that was kept is what it would be, were it made now.
func TestTextIsNeverOutdated(t *testing.T) {
	spared := 0
	for seed := range uint64(16) {
		synctest.Test(t, func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 18))
			f := &facts{world: newWorld(), random: random, known: map[string]fact{}}
			policies := policycache.New(policycache.Config{Resolver: f, Fetcher: f, Store: store.NewRAM(1 << 20)})
			defer policies.Close()
			kept := newCache(defaultBytes)
			defer kept.Close()
			writer := &Writer{describe}
			// Two configurations of one transport, or an override of it.
			all := New(Config{Resolver: f, Port: 25, Policies: policies, Cache: kept, Rules: verdict.Rules{DNSSEC: true, DANE: true, MTASTS: true}})
			none := New(Config{Resolver: f, Port: 25, Cache: kept})
			domains := []string{"a.example", "b.example", "c.example"}
			for step := range 300 {
				domain := domains[random.IntN(len(domains))]
				switch random.IntN(14) {
				case 0:
					f.forget(true)
				case 1, 2:
					f.forget(false)
				case 3:
					f.set(func() { f.texts[domain] = fmt.Sprint(random.IntN(3)) })
				case 4:
					f.set(func() { delete(f.texts, domain) })
				case 5:
					if err := policies.Flush(domain); err != nil {
						t.Fatal(err)
					}
				case 6:
					// it comes at once, while who asks waits, or too late
					f.set(func() { f.webWait = []time.Duration{0, 3 * time.Second, 33 * time.Second}[random.IntN(3)] })
				case 7: // a delivery
					way := all.Route(t.Context(), target(domain), anyMessage)
					for i := range way.Route.Hosts {
						all.Host(t.Context(), way, i, anyMessage)
					}
				case 8:
					if _, err := all.Plan(t.Context(), target(domain)); err != nil {
						t.Fatal(err)
					}
				case 9: // many at once, and a flush among them
					var asking sync.WaitGroup
					for range 4 {
						asking.Go(func() {
							if _, err := all.Text(t.Context(), domain, 0, writer); err != nil {
								t.Error(err)
							}
						})
					}
					f.forget(true)
					asking.Wait()
				}
				time.Sleep([]time.Duration{0, time.Second, 10 * time.Second, time.Minute, 10 * time.Minute}[random.IntN(5)])
				synctest.Wait()
				p, caches := all, policies
				if random.IntN(4) == 0 {
					p, caches = none, nil
				}
				asked, began := f.questions(""), time.Now()
				got, err := p.Text(t.Context(), domain, 0, writer)
				if err != nil {
					t.Fatal(err)
				}
				if time.Since(began) > 0 {
					continue // it waited for a policy, while facts went on
				}
				if f.questions("") == asked {
					spared++
				}
				synctest.Wait()
				if want := f.oracle(t.Context(), domain, p == all, caches); got != want {
					t.Fatalf("seed %d, step %d, %s:\n%s\nwant\n%s", seed, step, domain, got, want)
				}
			}
		})
	}
	if spared < 1000 {
		t.Errorf("only %d texts were not made anew", spared)
	}
}

// What is kept of a domain is small, and counted by what it takes.
func TestTextsAreBoundedInBytes(t *testing.T) {
	const bound = 1 << 20
	in(t, bound, func(t *testing.T, w *world, p *Planner) {
		writer := &Writer{func(p *Plan) string { return strings.Repeat("x", len(p.Target.Domain)%3*100) }}
		for i := range 6000 {
			domain := fmt.Sprintf("d%d.example", i)
			w.domain(domain, "mx.a.example")
			text(t, p, domain, writer)
			if s := p.cfg.Cache.TextStats(); s.Bytes > bound/2 || s.MaxBytes != bound/2 {
				t.Fatalf("%+v", s)
			}
		}
		s := p.cfg.Cache.TextStats()
		if s.Evictions == 0 || s.Entries < 1000 {
			t.Errorf("%+v", s)
		}
	})
}
