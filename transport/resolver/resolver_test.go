package resolver_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

func lab(t *testing.T, zone string) *labdns.Server {
	t.Helper()
	s, err := labdns.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	if err := s.Add(zone); err != nil {
		t.Fatal(err)
	}
	return s
}

func open(t *testing.T, cfg resolver.Config, servers ...*labdns.Server) *resolver.Resolver {
	t.Helper()
	for _, s := range servers {
		cfg.Servers = append(cfg.Servers, s.Addr())
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 100 * labdns.Timeout
	}
	r, err := resolver.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// clock is a clock that only the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func newClock() *clock { return &clock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)} }

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) Pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func lookup(t *testing.T, r *resolver.Resolver, name string, qtype uint16) resolver.Answer {
	t.Helper()
	a, err := r.Lookup(t.Context(), name, resolver.Type(qtype))
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func fails(t *testing.T, r *resolver.Resolver, name string, qtype uint16) *resolver.Error {
	t.Helper()
	a, err := r.Lookup(t.Context(), name, resolver.Type(qtype))
	var e *resolver.Error
	if !errors.As(err, &e) {
		t.Fatalf("Lookup(%s) = %+v, %v; want an *Error", name, a, err)
	}
	return e
}

const zone = `
$ORIGIN example.org.
@       3600 IN SOA ns hostmaster 1 3600 600 86400 60
@        600 IN MX  10 mx
mx       300 IN A   192.0.2.1
mx       300 IN A   192.0.2.2
alias    200 IN CNAME mx
alias2   100 IN CNAME alias
loop     300 IN CNAME loop2
loop2    300 IN CNAME loop
out      300 IN CNAME mx.unsigned.example.
dangling 300 IN CNAME nowhere.example.org.
instant    0 IN A   192.0.2.3
long  999999 IN A   192.0.2.4
mx.unsigned.example. 50 IN A 192.0.2.5
in.unsigned.example. 50 IN CNAME mx.example.org.
`

func TestAnswers(t *testing.T) {
	s := lab(t, zone)
	s.Secure("example.org", true)
	c := newClock()
	r := open(t, resolver.Config{Now: c.Now}, s)
	for _, tc := range []struct {
		name      string
		qtype     uint16
		canonical string
		existence resolver.Existence
		secure    bool
		n         int
		ttl       time.Duration
	}{
		{"example.org", dns.TypeMX, "example.org.", resolver.Exists, true, 1, 600 * time.Second},
		{"EXAMPLE.Org.", dns.TypeMX, "example.org.", resolver.Exists, true, 1, 600 * time.Second},
		{"mx.example.org", dns.TypeA, "mx.example.org.", resolver.Exists, true, 2, 300 * time.Second},
		{"alias2.example.org", dns.TypeA, "mx.example.org.", resolver.Exists, true, 2, 100 * time.Second},
		{"alias2.example.org", dns.TypeCNAME, "alias2.example.org.", resolver.Exists, true, 1, 100 * time.Second},
		// One insecure step makes the whole insecure (RFC 7672 §2.1.3).
		{"out.example.org", dns.TypeA, "mx.unsigned.example.", resolver.Exists, false, 1, 50 * time.Second},
		// RFC 2308 §5: the lesser of the SOA record's TTL and its MINIMUM.
		{"mx.example.org", dns.TypeAAAA, "mx.example.org.", resolver.NoData, true, 0, 60 * time.Second},
		{"none.example.org", dns.TypeA, "none.example.org.", resolver.NXDomain, true, 0, 60 * time.Second},
		// RFC 6604 §3: the code is about the end of the chain.
		{"dangling.example.org", dns.TypeA, "nowhere.example.org.", resolver.NXDomain, true, 0, 60 * time.Second},
		{"none.unsigned.example", dns.TypeA, "none.unsigned.example.", resolver.NXDomain, false, 0, 300 * time.Second},
		{"instant.example.org", dns.TypeA, "instant.example.org.", resolver.Exists, true, 1, time.Second},
		{"long.example.org", dns.TypeA, "long.example.org.", resolver.Exists, true, 1, 24 * time.Hour},
	} {
		a := lookup(t, r, tc.name, tc.qtype)
		if a.Canonical != tc.canonical || a.Existence != tc.existence || a.Secure != tc.secure || a.Len() != tc.n {
			t.Errorf("%s %s: %+v", tc.name, dns.TypeToString[tc.qtype], a)
		}
		if ttl := a.Expires.Sub(c.Now()); ttl != tc.ttl {
			t.Errorf("%s %s: kept for %v, want %v", tc.name, dns.TypeToString[tc.qtype], ttl, tc.ttl)
		}
	}
	if e := fails(t, r, "loop.example.org", dns.TypeA); e.Kind != resolver.Malformed {
		t.Errorf("a loop of aliases: %v", e)
	}
}

func TestQuerySaysWhatWeWant(t *testing.T) {
	s := lab(t, zone)
	lookup(t, open(t, resolver.Config{}, s), "example.org", dns.TypeMX)
	q := s.Last("example.org", dns.TypeMX)
	if !q.RecursionDesired || !q.AuthenticatedData || q.CheckingDisabled {
		t.Errorf("flags: %v", q.MsgHdr.String())
	}
	if opt := q.IsEdns0(); opt == nil || !opt.Do() || opt.UDPSize() != 1232 {
		t.Errorf("EDNS: %v", opt)
	}
}

func TestChainsThatTheServerDoesNotFollow(t *testing.T) {
	s := lab(t, zone)
	s.Secure("example.org", true)
	s.SetFault("", dns.TypeANY, labdns.NoFollow)
	r := open(t, resolver.Config{}, s)
	a := lookup(t, r, "alias2.example.org", dns.TypeA)
	if a.Canonical != "mx.example.org." || a.Len() != 2 || !a.Secure {
		t.Errorf("all steps signed: %+v", a)
	}
	a = lookup(t, r, "out.example.org", dns.TypeA)
	if a.Canonical != "mx.unsigned.example." || a.Len() != 1 || a.Secure {
		t.Errorf("the last step unsigned: %+v", a)
	}
	a = lookup(t, r, "in.unsigned.example", dns.TypeA)
	if a.Canonical != "mx.example.org." || a.Len() != 2 || a.Secure {
		t.Errorf("the first step unsigned: %+v", a)
	}
	if e := fails(t, r, "loop.example.org", dns.TypeA); e.Kind != resolver.Malformed {
		t.Errorf("loop: %v", e)
	}
	// The target's failure is the whole's failure, never "no such record".
	s.SetFault("mx.unsigned.example", dns.TypeAAAA, labdns.ServFail)
	if e := fails(t, r, "out.example.org", dns.TypeAAAA); e.Kind != resolver.ServFail || e.Name != "out.example.org." {
		t.Errorf("failing target: %v", e)
	}
	if n := s.Queries("loop.example.org", dns.TypeA).UDP + s.Queries("loop2.example.org", dns.TypeA).UDP; n > 20 {
		t.Errorf("%d questions for a loop", n)
	}
}

func TestFailuresAreNeverAnAnswer(t *testing.T) {
	for habit, kind := range map[labdns.Fault]resolver.Kind{
		labdns.ServFail: resolver.ServFail, labdns.Bogus: resolver.ServFail, labdns.Refused: resolver.Refused,
		labdns.BareRefused: resolver.Refused, labdns.NotImp: resolver.NotImp, labdns.FormErr: resolver.FormErr,
		labdns.Silent: resolver.Timeout, labdns.WrongID: resolver.Malformed, labdns.WrongQuestion: resolver.Malformed,
		labdns.NoQuestion: resolver.Malformed, labdns.NotResponse: resolver.Malformed, labdns.Garbage: resolver.Malformed,
		labdns.LyingCount: resolver.Malformed, labdns.Referral: resolver.Malformed, labdns.TruncateMute: resolver.Unreachable,
	} {
		t.Run(fmt.Sprint(habit), func(t *testing.T) {
			t.Parallel()
			bad, good := lab(t, zone), lab(t, zone)
			bad.SetFault("", dns.TypeANY, habit)
			timeout := 100 * labdns.Timeout
			if kind == resolver.Timeout || kind == resolver.Malformed {
				// what answers another question is waited out
				timeout = labdns.Timeout
			}
			for _, name := range []string{"mx.example.org", "none.example.org"} {
				alone := open(t, resolver.Config{Timeout: timeout, Attempts: 2}, bad)
				if e := fails(t, alone, name, dns.TypeA); e.Kind != kind || e.Server != bad.Addr() {
					t.Errorf("%s: %v (kind %d), want kind %d", name, e, e.Kind, kind)
				}
			}
			want := 2
			if kind == resolver.FormErr || kind == resolver.NotImp {
				want = 4 // each without EDNS too
			}
			if n := bad.Queries("mx.example.org", dns.TypeA).UDP; n != want {
				t.Errorf("%d questions in 2 attempts, want %d", n, want)
			}
			// The next server is asked.
			both := open(t, resolver.Config{Timeout: timeout, Attempts: 10}, bad, good)
			if a := lookup(t, both, "mx.example.org", dns.TypeA); a.Len() != 2 {
				t.Errorf("with a good second server: %+v", a)
			}
		})
	}
}

func TestServerThatIsDown(t *testing.T) {
	gone, good := lab(t, ""), lab(t, zone)
	gone.Stop()
	if e := fails(t, open(t, resolver.Config{}, gone), "example.org", dns.TypeMX); e.Kind != resolver.Unreachable {
		t.Errorf("resolver down: %v", e)
	}
	if a := lookup(t, open(t, resolver.Config{}, gone, good), "example.org", dns.TypeMX); a.Len() != 1 {
		t.Errorf("second server: %+v", a)
	}
}

func TestSilentServerIsAskedLastForAWhile(t *testing.T) {
	mute, good := lab(t, zone), lab(t, zone)
	mute.SetFault("", dns.TypeANY, labdns.Silent)
	c := newClock()
	r := open(t, resolver.Config{Timeout: labdns.Timeout, Now: c.Now}, mute, good)
	lookup(t, r, "example.org", dns.TypeMX)
	lookup(t, r, "mx.example.org", dns.TypeA)
	if n := mute.Queries("", dns.TypeANY).UDP; n != 1 {
		t.Errorf("the silent server was asked %d times", n)
	}
	mute.SetFault("", dns.TypeANY)
	c.Pass(time.Minute)
	lookup(t, r, "alias.example.org", dns.TypeA)
	if n := mute.Queries("", dns.TypeANY).UDP; n != 2 {
		t.Errorf("the first server was not asked first again")
	}
}

func TestSecondRoundHelps(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("example.org", dns.TypeMX, labdns.Silent, labdns.ServFail, labdns.Normal)
	r := open(t, resolver.Config{Timeout: labdns.Timeout, Attempts: 10}, s)
	lookup(t, r, "example.org", dns.TypeMX)
}

func TestFailureNamesTheReason(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("example.org", dns.TypeMX, labdns.Bogus)
	e := fails(t, open(t, resolver.Config{}, s), "example.org", dns.TypeMX)
	if want := "example.org. MX: SERVFAIL from " + s.Addr() + ": DNSSEC Bogus"; e.Error() != want {
		t.Errorf("%q, want %q", e.Error(), want)
	}
}

func TestTruncationGoesToTCP(t *testing.T) {
	for _, habit := range []labdns.Fault{labdns.Normal, labdns.Truncate, labdns.CutRecord} {
		s := lab(t, "")
		for i := range 40 {
			s.Add(fmt.Sprintf("big.example. 300 IN MX %d mail-exchanger-%d.with-a-long-name.example.", i, i))
		}
		s.SetFault("big.example", dns.TypeMX, habit)
		if a := lookup(t, open(t, resolver.Config{}, s), "big.example", dns.TypeMX); a.Len() != 40 {
			t.Errorf("habit %d: %d of 40 records", habit, a.Len())
		}
		if n := s.Queries("big.example", dns.TypeMX); n != (labdns.Count{UDP: 1, TCP: 1}) {
			t.Errorf("habit %d: %+v", habit, n)
		}
	}
}

func TestCacheKeepsForTheTTL(t *testing.T) {
	for _, tc := range []struct {
		name  string
		qtype uint16
		habit labdns.Fault
		ttl   time.Duration
	}{
		{"mx.example.org", dns.TypeA, labdns.Normal, 300 * time.Second},
		{"alias2.example.org", dns.TypeA, labdns.Normal, 100 * time.Second},
		{"none.example.org", dns.TypeA, labdns.Normal, 60 * time.Second},
		{"mx.example.org", dns.TypeAAAA, labdns.Normal, 60 * time.Second},
		{"mx.example.org", dns.TypeAAAA, labdns.NoSOA, 30 * time.Second},
		{"none.example.org", dns.TypeA, labdns.NoSOA, 30 * time.Second},
		// for what is under way (RFC 1035 §3.2.1)
		{"instant.example.org", dns.TypeA, labdns.Normal, time.Second},
	} {
		s, c := lab(t, zone), newClock()
		s.SetFault("", dns.TypeANY, tc.habit)
		r := open(t, resolver.Config{Now: c.Now}, s)
		asked := func(n int) {
			t.Helper()
			lookup(t, r, tc.name, tc.qtype)
			if got := s.Queries(tc.name, tc.qtype).UDP; got != n {
				t.Errorf("%s %s: %d questions, want %d", tc.name, dns.TypeToString[tc.qtype], got, n)
			}
		}
		asked(1)
		asked(1)
		c.Pass(tc.ttl * 8 / 10)
		asked(1)
		c.Pass(tc.ttl * 2 / 10)
		asked(2)
	}
}

func TestRefreshAhead(t *testing.T) {
	s, c := lab(t, zone), newClock()
	r := open(t, resolver.Config{Now: c.Now}, s)
	lookup(t, r, "mx.example.org", dns.TypeA)
	s.Remove("mx.example.org", dns.TypeA)
	s.Add("mx.example.org. 300 IN A 192.0.2.99")
	c.Pass(300*time.Second - 1)
	if a := lookup(t, r, "mx.example.org", dns.TypeA); a.Len() != 2 {
		t.Errorf("not served from the cache: %+v", a)
	}
	for s.Queries("mx.example.org", dns.TypeA).UDP != 2 || len(r.Cached()[0].Addrs()) != 1 {
		runtime.Gosched() // until the refresh has landed
	}
	if a := lookup(t, r, "mx.example.org", dns.TypeA); a.Len() != 1 {
		t.Errorf("the refresh is not used: %+v", a)
	}
}

func TestOneFlightForAQuestion(t *testing.T) {
	s := lab(t, zone)
	release := s.Hold("mx.example.org", dns.TypeA)
	r := open(t, resolver.Config{}, s)
	var all sync.WaitGroup
	for range 30 {
		all.Go(func() {
			if _, err := r.Lookup(t.Context(), "mx.example.org", resolver.TypeA); err != nil {
				t.Error(err)
			}
		})
	}
	for r.Stats().Misses < 30 {
		runtime.Gosched()
	}
	release()
	all.Wait()
	if n := s.Queries("", dns.TypeANY).UDP; n != 1 {
		t.Errorf("%d questions for 30 callers", n)
	}
}

func TestCallerMayLeave(t *testing.T) {
	s := lab(t, zone)
	release := s.Hold("mx.example.org", dns.TypeA)
	r := open(t, resolver.Config{}, s)
	gone := errors.New("delivery cancelled: the local mail server disconnected")
	ctx, leave := context.WithCancelCause(t.Context())
	leave(gone)
	_, err := r.Lookup(ctx, "mx.example.org", resolver.TypeA)
	var e *resolver.Error
	if !errors.Is(err, gone) || !errors.As(err, &e) || e.Kind != resolver.Cancelled {
		t.Errorf("who left got %v", err)
	}
	release()
	lookup(t, r, "mx.example.org", dns.TypeA)
	if n := s.Queries("mx.example.org", dns.TypeA).UDP; n != 1 {
		t.Errorf("%d questions: the flight did not go on", n)
	}
}

func TestCloseEndsWhatIsUnderWay(t *testing.T) {
	s := lab(t, zone)
	s.Hold("mx.example.org", dns.TypeA)
	r := open(t, resolver.Config{}, s)
	failed := make(chan error)
	go func() {
		_, err := r.Lookup(t.Context(), "mx.example.org", resolver.TypeA)
		failed <- err
	}()
	for s.Queries("", dns.TypeANY).UDP == 0 {
		runtime.Gosched()
	}
	r.Close()
	var e *resolver.Error
	if err := <-failed; !errors.As(err, &e) || e.Kind != resolver.Cancelled {
		t.Errorf("got %v", err)
	}
}

func TestTrust(t *testing.T) {
	s := lab(t, zone)
	s.Secure("example.org", true)
	for trust, secure := range map[resolver.TrustAD]bool{
		resolver.TrustLoopback: true, resolver.TrustAll: true, resolver.TrustNone: false,
	} {
		if a := lookup(t, open(t, resolver.Config{TrustAD: trust}, s), "example.org", dns.TypeMX); a.Secure != secure {
			t.Errorf("trust %d: secure %v", trust, a.Secure)
		}
	}
}

func TestNames(t *testing.T) {
	s := lab(t, zone)
	r := open(t, resolver.Config{}, s)
	label := strings.Repeat("a", 63)
	// 253 bytes
	long := strings.Join([]string{label, label, label, strings.Repeat("b", 61)}, ".")
	for _, name := range []string{"_25._tcp.mx.example.org", label + ".example", long, "a/b.example"} {
		if _, err := r.Lookup(t.Context(), name, resolver.TypeA); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, name := range []string{"", ".", "a..b", ".a", label + "x.example", long + "x", "bücher.example", "a b.example", "a\nb.example", "a\x00b"} {
		_, err := r.Lookup(t.Context(), name, resolver.TypeA)
		var e *resolver.Error
		if !errors.As(err, &e) || e.Kind != resolver.BadName {
			t.Errorf("%q: %v", name, err)
		} else if strings.ContainsAny(e.Error(), "\n\x00") {
			t.Errorf("%q: control characters in %q", name, e.Error())
		}
	}
	if n := s.Queries("a.b", dns.TypeA).UDP; n != 0 {
		t.Error("a bad name was asked for")
	}
}

func TestFlushIsByDomain(t *testing.T) {
	s := lab(t, zone)
	r := open(t, resolver.Config{}, s)
	for _, name := range []string{"example.org", "mx.example.org", "mx.unsigned.example", "notexample.org"} {
		lookup(t, r, name, dns.TypeA)
	}
	if n := r.Flush("Example.ORG"); n != 2 {
		t.Errorf("%d flushed, want 2", n)
	}
	if left := r.Cached(); len(left) != 2 || left[0].Name != "notexample.org." || left[0].Type != resolver.TypeA {
		t.Errorf("left %+v", left)
	}
}

// That there are no records is not kept for a caller that keeps it itself;
// records and failures are, and what is in the cache already is the answer.
func TestLookupOnce(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("long.example.org", dns.TypeA, labdns.ServFail)
	r := open(t, resolver.Config{Attempts: 1}, s)
	for range 2 {
		none, err := r.LookupOnce(t.Context(), "mx.example.org", resolver.TypeTXT)
		if err != nil || none.Existence != resolver.NoData || !none.Expires.After(time.Now()) {
			t.Errorf("%+v, %v", none, err)
		}
		some, err := r.LookupOnce(t.Context(), "mx.example.org", resolver.TypeA)
		if err != nil || some.Len() == 0 || some.Name != "mx.example.org." {
			t.Errorf("%+v, %v", some, err)
		}
		if _, err := r.LookupOnce(t.Context(), "long.example.org", resolver.TypeA); err == nil {
			t.Error("no failure")
		}
	}
	if left := r.Cached(); len(left) != 1 || left[0].Type != resolver.TypeA {
		t.Errorf("kept: %+v", left)
	}
	if n := s.Queries("mx.example.org", dns.TypeTXT).UDP; n != 2 {
		t.Errorf("asked %d times", n)
	}
	for _, name := range []string{"mx.example.org", "long.example.org"} {
		if n := s.Queries(name, dns.TypeA).UDP; n != 1 {
			t.Errorf("%s was asked for %d times", name, n)
		}
	}
	first := lookup(t, r, "example.org", dns.TypeMX)
	if again, err := r.LookupOnce(t.Context(), "example.org", resolver.TypeMX); err != nil || !again.Expires.Equal(first.Expires) {
		t.Errorf("%+v, %v, and not what the cache has", again, err)
	}
}

// What somebody made something of, and keeps, is dropped; a failure is not.
func TestDrop(t *testing.T) {
	s := lab(t, zone)
	s.SetFault("long.example.org", dns.TypeA, labdns.ServFail)
	r := open(t, resolver.Config{Attempts: 1}, s)
	for range 2 {
		lookup(t, r, "example.org", dns.TypeMX)
		lookup(t, r, "mx.example.org", dns.TypeA)
		fails(t, r, "long.example.org", dns.TypeA)
		for _, name := range []string{"example.org", "nobody.example", "a..b"} {
			r.Drop(name, resolver.TypeMX)
		}
		r.Drop("long.example.org", resolver.TypeA)
	}
	if left := r.Cached(); len(left) != 1 || left[0].Type != resolver.TypeA {
		t.Errorf("kept: %+v", left)
	}
	for name, want := range map[string]int{"example.org": 2, "mx.example.org": 1, "long.example.org": 1} {
		if n := s.Queries(name, dns.TypeANY).UDP; n != want {
			t.Errorf("%s was asked for %d times, want %d", name, n, want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for _, servers := range [][]string{nil, {""}, {"127.0.0.1:"}, {"127.0.0.1:0"}, {"127.0.0.1:x"}, {"[::1"}, {"a b"}, {"::1:53:x"}} {
		if r, err := resolver.New(resolver.Config{Servers: servers}); err == nil {
			r.Close()
			t.Errorf("%q: no error", servers)
		}
	}
}

// A real socket that answers with rubbish before the good answer: rubbish with
// the wrong id does not stop the good answer from being found.
func TestStrayDatagramsAreIgnored(t *testing.T) {
	conn, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serve sync.WaitGroup
	defer serve.Wait()
	defer conn.Close()
	serve.Go(func() {
		in := make([]byte, 4096)
		n, from, err := conn.ReadFrom(in)
		if err != nil {
			return
		}
		query := new(dns.Msg)
		if query.Unpack(in[:n]) != nil {
			return
		}
		forged := new(dns.Msg).SetReply(query)
		forged.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "x.example.", Rrtype: dns.TypeA, Class: 1, Ttl: 60}, A: net.IPv4(6, 6, 6, 6)}}
		good := forged.Copy()
		good.Answer[0].(*dns.A).A = net.IPv4(192, 0, 2, 1)
		forged.Id++
		for _, m := range [][]byte{{1, 2, 3}, pack(forged), pack(good)} {
			conn.WriteTo(m, from)
		}
	})
	r := open(t, resolver.Config{Servers: []string{conn.LocalAddr().String()}})
	a := lookup(t, r, "x.example", dns.TypeA)
	if a.Len() != 1 || a.Addrs()[0].String() != "192.0.2.1" {
		t.Errorf("got %+v", a)
	}
}

func pack(m *dns.Msg) []byte {
	out, err := m.Pack()
	if err != nil {
		panic(err)
	}
	return out
}

// What servers do is counted, each by itself.
func TestServersHealth(t *testing.T) {
	mute, good := lab(t, zone), lab(t, zone)
	mute.SetFault("", dns.TypeANY, labdns.Silent)
	good.Secure("example.org", true)
	good.SetFault("long.example.org", dns.TypeA, labdns.ServFail)
	c := newClock()
	r := open(t, resolver.Config{Timeout: labdns.Timeout, Attempts: 1, Now: c.Now}, mute, good)
	lookup(t, r, "example.org", dns.TypeMX)
	lookup(t, r, "example.org", dns.TypeMX) // from the cache
	lookup(t, r, "in.unsigned.example", dns.TypeA)
	fails(t, r, "long.example.org", dns.TypeA)
	all := r.Servers()
	if len(all) != 2 || all[0].Server != mute.Addr() || all[1].Server != good.Addr() {
		t.Fatalf("%+v", all)
	}
	if s := all[0]; !s.Down || s.Queries == 0 || s.Failures[resolver.Timeout] != s.Queries || s.Took <= 0 {
		t.Errorf("the silent one: %+v", s)
	}
	if s := all[1]; s.Down || s.Secure == 0 || s.Insecure == 0 || s.Failures[resolver.ServFail] != 1 || s.Secure+s.Insecure+1 != s.Queries {
		t.Errorf("the good one: %+v", s)
	}
	sum := all[0]
	sum.Add(&all[1])
	if sum.Queries != all[0].Queries+all[1].Queries || sum.Failures[resolver.ServFail] != 1 {
		t.Errorf("added up: %+v", sum)
	}
	c.Pass(time.Minute)
	if r.Servers()[0].Down {
		t.Error("a server is taken for down long after its failure")
	}
}
