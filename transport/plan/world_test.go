package plan

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/policycache"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
	"github.com/mxpipe/mxpipe/transport/verdict"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// world is a DNS, all of it signed, and a web of policies, on the clock of
// testing/synctest.
type world struct {
	generation atomic.Uint64

	mu      sync.Mutex
	records map[string]resolver.Records // by "name TYPE"
	failing map[string]time.Duration    // how long the failure is remembered
	ttl     map[string]time.Duration    // a minute where there is none
	asked   map[string]int
	texts   map[string]string // MTA-STS ids by domain
	webWait time.Duration     // for ever: the web host accepts and never speaks
	fetched int
}

func newWorld() *world {
	return &world{
		records: map[string]resolver.Records{}, failing: map[string]time.Duration{}, ttl: map[string]time.Duration{},
		asked: map[string]int{}, texts: map[string]string{},
	}
}

const never = 1000 * time.Hour

func (w *world) key(name string, qtype resolver.Type) string {
	return strings.TrimSuffix(name, ".") + " " + qtype.String()
}

// Lookup implements route.Resolver.
func (w *world) Lookup(_ context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	key := w.key(name, qtype)
	w.asked[key]++
	if pause, ok := w.failing[key]; ok {
		err := &resolver.Error{Name: name, Type: qtype, Kind: resolver.ServFail}
		if pause > 0 {
			err.Expires = time.Now().Add(pause)
		}
		return resolver.Answer{}, err
	}
	ttl, ok := w.ttl[key]
	if !ok {
		ttl = time.Minute
	}
	a := resolver.Answer{Name: name, Type: qtype, Canonical: name + ".", Secure: true, Existence: resolver.NoData, Expires: time.Now().Add(ttl)}
	if records := w.records[key]; records != nil {
		a.Existence, a.Records = resolver.Exists, records
	}
	return a, nil
}

// Generation is as that of *resolver.Resolver.
func (w *world) Generation() uint64 { return w.generation.Load() }

// questions counts what was asked; with a part of a name and type, of that.
func (w *world) questions(part string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for key, times := range w.asked {
		if strings.Contains(key, part) {
			n += times
		}
	}
	return n
}

func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// domain makes a domain with hosts of rising preference, each with a TLSA
// record.
func (w *world) domain(name string, hosts ...string) {
	var mx resolver.MXs
	for i, host := range hosts {
		mx = append(mx, resolver.MX{Preference: uint16(10 * i), Host: host + "."})
		w.records[host+" A"] = resolver.Addrs{netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})}
		w.records["_25._tcp."+host+" TLSA"] = resolver.TLSAs{{Usage: 3, Selector: 1, Matching: 1, Data: make([]byte, 32)}}
	}
	w.records[name+" MX"] = mx
}

// TXT implements policycache.Resolver.
func (w *world) TXT(_ context.Context, name string) (policycache.Answer, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := policycache.Answer{Expires: time.Now().Add(5 * time.Minute)}
	if id := w.texts[strings.TrimPrefix(name, "_mta-sts.")]; id != "" {
		a.Found, a.Texts = true, []string{"v=STSv1; id=" + id + ";"}
	}
	return a, nil
}

// Fetch implements policycache.Fetcher.
func (w *world) Fetch(ctx context.Context, domain string) (mtasts.Policy, error) {
	w.mu.Lock()
	w.fetched++
	wait := w.webWait
	w.mu.Unlock()
	select {
	case <-time.After(wait):
		return mtasts.Policy{Mode: mtasts.ModeEnforce, MaxAge: 24 * time.Hour, MX: []string{"*." + domain}}, nil
	case <-ctx.Done():
		return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: ctx.Err()}
	}
}

// in runs a test in a bubble of fake time, with a planner of everything.
func in(t *testing.T, bytes int64, f func(t *testing.T, w *world, p *Planner)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld()
		policies := policycache.New(policycache.Config{Resolver: w, Fetcher: w, Store: store.NewRAM(1 << 20)})
		defer policies.Close()
		cache := newCache(bytes)
		defer cache.Close()
		f(t, w, New(Config{
			Resolver: w, Port: 25, Policies: policies, Cache: cache,
			Rules: verdict.Rules{DNSSEC: true, DANE: true, MTASTS: true},
		}))
	})
}

func target(domain string) Target { return Target{Destination: route.Destination{Domain: domain}} }

// whole gives a plan that must come at once.
func whole(t *testing.T, p *Planner, domain string) *Plan {
	t.Helper()
	begin := time.Now()
	plan, err := p.Plan(t.Context(), target(domain))
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begin); took != 0 {
		t.Errorf("the plan took %v", took)
	}
	return plan
}

func names(n int) (hosts []string) {
	for i := range n {
		hosts = append(hosts, fmt.Sprintf("mx%d.a.example", i))
	}
	return hosts
}
