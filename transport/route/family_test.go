package route_test

import (
	"context"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/transport/resolver"
	"github.com/mxpipe/mxpipe/transport/route"
)

// waiting counts the look-ups that may have to be waited for.
type waiting struct {
	*resolver.Resolver
	n atomic.Int64
}

func (w *waiting) Lookup(ctx context.Context, name string, qtype resolver.Type) (resolver.Answer, error) {
	w.n.Add(1)
	return w.Resolver.Lookup(ctx, name, qtype)
}

// A family that is late does not spoil the host once the other one has given an
// address: it is waited for briefly, by the first who asks only, and its answer
// is used when it is there.
func TestLateFamily(t *testing.T) {
	for _, tc := range []struct {
		late         uint16
		early, whole string
	}{
		{dns.TypeAAAA, "[192.0.2.1]", "[2001:db8::1 192.0.2.1]"},
		{dns.TypeA, "[2001:db8::1]", "[2001:db8::1 192.0.2.1]"},
	} {
		w := internet(t, "mx.example. IN A 192.0.2.1\nmx.example. IN AAAA 2001:db8::1")
		w.Secure("mx.example", true)
		release := w.Hold("mx.example", tc.late)
		w.cfg.Patience = 50 * time.Millisecond
		waits := &waiting{Resolver: w.resolver}
		w.cfg.Resolver = waits
		f := w.finder()
		for range 10 {
			found, err := f.Addresses(t.Context(), route.Host{Name: "mx.example"})
			if err != nil || fmt.Sprint(found.Addrs) != tc.early || !found.Secure || found.Partial == nil {
				t.Fatalf("%+v, %v; want %s", found, err, tc.early)
			}
		}
		if n := w.Queries("mx.example", dns.TypeANY).UDP; n != 2 || waits.n.Load() != 2 {
			t.Errorf("%d questions, waited for %d times", n, waits.n.Load())
		}
		release()
		for _, pending := w.resolver.Pending("mx.example", resolver.Type(tc.late)); pending; _, pending = w.resolver.Pending("mx.example", resolver.Type(tc.late)) {
			runtime.Gosched()
		}
		found, err := f.Addresses(t.Context(), route.Host{Name: "mx.example"})
		if err != nil || fmt.Sprint(found.Addrs) != tc.whole || !found.Secure || found.Partial != nil {
			t.Errorf("%+v, %v; want %s", found, err, tc.whole)
		}
	}
}

// Half of the caller's time is left for what it wants the address for.
func TestLateFamilyLeavesTime(t *testing.T) {
	w := internet(t, "mx.example. IN A 192.0.2.1")
	defer w.Hold("mx.example", dns.TypeAAAA)()
	w.cfg.Patience = time.Hour
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	found, err := w.finder().Addresses(ctx, route.Host{Name: "mx.example"})
	if err != nil || len(found.Addrs) != 1 || ctx.Err() != nil {
		t.Errorf("%+v, %v, and the time is over: %v", found, err, ctx.Err())
	}
}

// Only an address lets a delivery go on without the other family; that there is
// none in this family is no reason for haste.
func TestNoDataIsNoAddress(t *testing.T) {
	w := internet(t, "mx.example. IN AAAA 2001:db8::1")
	release := w.Hold("mx.example", dns.TypeAAAA)
	w.cfg.Patience = 1
	f := w.finder()
	type result struct {
		found route.Addresses
		err   error
	}
	done := make(chan result)
	go func() {
		found, err := f.Addresses(t.Context(), route.Host{Name: "mx.example"})
		done <- result{found, err}
	}()
	for {
		if _, ok, _ := w.resolver.Known("mx.example", resolver.TypeA); ok {
			break
		}
		runtime.Gosched()
	}
	select {
	case got := <-done:
		t.Fatalf("%+v, %v without waiting", got.found, got.err)
	default:
	}
	release()
	if got := <-done; got.err != nil || fmt.Sprint(got.found.Addrs) != "[2001:db8::1]" || got.found.Partial != nil {
		t.Errorf("%+v, %v", got.found, got.err)
	}
}

// A warm delivery asks no DNS, whatever is broken about one of the families.
func TestWarmRouteAsksNothingWhereAFamilyIsBroken(t *testing.T) {
	for _, fault := range []labdns.Fault{labdns.ServFail, labdns.Silent, labdns.Refused, labdns.Garbage, labdns.NotImp} {
		t.Run(fmt.Sprint(fault), func(t *testing.T) {
			t.Parallel()
			w := patience(t, "example. IN MX 10 mx.example.\nmx.example. IN A 192.0.2.1", labdns.Timeout)
			w.SetFault("mx.example", dns.TypeAAAA, fault)
			f := w.finder()
			deliver := func() {
				t.Helper()
				r, err := f.Route(t.Context(), domain(t, "example"))
				if err != nil {
					t.Fatal(err)
				}
				found, err := f.Addresses(t.Context(), r.Hosts[0])
				if err != nil || fmt.Sprint(found.Addrs) != "[192.0.2.1]" || found.Partial == nil {
					t.Fatalf("%+v, %v", found, err)
				}
			}
			deliver()
			before := w.Queries("", dns.TypeANY)
			for range 10 {
				deliver()
			}
			if after := w.Queries("", dns.TypeANY); after != before {
				t.Errorf("%+v questions became %+v", before, after)
			}
		})
	}
}

// The caller's end is an end, whatever has been found by then.
func TestFamiliesEndWithTheContext(t *testing.T) {
	w := internet(t, "mx.example. IN A 192.0.2.1")
	release := w.Hold("mx.example", dns.TypeANY)
	defer release()
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	f := w.finder()
	go func() {
		_, err := f.Addresses(ctx, route.Host{Name: "mx.example"})
		failed <- err
	}()
	for w.Queries("mx.example", dns.TypeANY).UDP < 2 {
		runtime.Gosched()
	}
	cancel()
	wantCode(t, "a cancelled look-up", <-failed, "4.4.3")
}
