package pool_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/pool"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// conn is a connection that notices what is done to it.
type conn struct {
	name   string
	proof  string
	served int
	users  atomic.Int32
	closed atomic.Int32
	onEnd  func()
}

func (c *conn) Served() int { return c.served }

func (c *conn) Close() {
	c.closed.Add(1)
	if c.onEnd != nil {
		c.onEnd()
	}
}

func (c *conn) isClosed() bool { return c.closed.Load() > 0 }

var (
	key    = pool.Key{Transport: "default", Host: "mx.example.org", Port: 25}
	usual  = pool.Limits{IdleCount: 10, IdleTime: 150 * time.Second, Uses: 10}
	anyone = func(*conn) pool.Fit { return pool.Use }
)

func fresh(name string) *conn { return &conn{name: name, served: 1} }

// drain takes what the pool has for a key, newest first.
func drain(p *pool.Pool[*conn], k pool.Key) (names []string) {
	for {
		c, ok := p.Get(k, anyone)
		if !ok {
			return names
		}
		names = append(names, c.name)
	}
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestNewestFirst(t *testing.T) {
	p := pool.New[*conn](100)
	defer p.Stop()
	for _, name := range []string{"a", "b", "c"} {
		want(t, "kept", p.Put(key, "example.org", fresh(name), usual), true)
	}
	want(t, "order", drain(p, key), []string{"c", "b", "a"})
	want(t, "stats", p.Stats(), pool.Stats{Reused: 3, Missed: 1})
}

func TestOneHostServesAnyDomainButNoOtherHost(t *testing.T) {
	others := []pool.Key{
		{Transport: "other", Host: key.Host, Port: key.Port},
		{Transport: key.Transport, Host: "mx2.example.org", Port: key.Port},
		{Transport: key.Transport, Host: key.Host, Port: 2525},
	}
	p := pool.New[*conn](100)
	defer p.Stop()
	p.Put(key, "example.org", fresh("a"), usual)
	p.Put(key, "example.net", fresh("b"), usual)
	for _, k := range others {
		want(t, fmt.Sprint(k), drain(p, k), []string(nil))
	}
	want(t, "its own", drain(p, key), []string{"b", "a"})
}

func TestFit(t *testing.T) {
	p := pool.New[*conn](100)
	defer p.Stop()
	plain, stale, moved, gone, good := fresh("plain"), fresh("stale"), fresh("moved"), fresh("gone"), fresh("good")
	good.proof, stale.proof, moved.proof, gone.proof = "dane", "old", "moved", "gone"
	p.Put(key, "example.org", good, usual)
	p.Put(key, "example.org", gone, usual)
	p.Put(key, "example.org", stale, usual)
	p.Put(key, "example.org", moved, usual)
	p.Put(key, "example.org", plain, usual)
	fits := func(c *conn) pool.Fit {
		return map[string]pool.Fit{"": pool.Skip, "old": pool.Retire, "moved": pool.Moved, "gone": pool.Gone, "dane": pool.Use}[c.proof]
	}
	c, ok := p.Get(key, fits)
	want(t, "taken", ok && c == good, true)
	want(t, "stale closed", stale.isClosed(), true)
	want(t, "moved closed", moved.isClosed(), true)
	want(t, "gone closed", gone.isClosed(), true)
	_, ok = p.Get(key, fits)
	want(t, "found another", ok, false)
	want(t, "what does not fit stays for others", drain(p, key), []string{"plain"})
	want(t, "policy", p.Stats().Retired[pool.Policy], 1)
	want(t, "address", p.Stats().Retired[pool.Address], 1)
	want(t, "closed", p.Stats().Retired[pool.Closed], 1)
}

// One Get looks at a bounded number of connections.
func TestGetLooksAtFew(t *testing.T) {
	p := pool.New[*conn](1000)
	defer p.Stop()
	for i := range 500 {
		p.Put(key, fmt.Sprintf("d%d.example", i), fresh("x"), usual)
	}
	looked := 0
	p.Get(key, func(*conn) pool.Fit { looked++; return pool.Skip })
	want(t, "looked at", looked, 100)
}

func TestIdleTimeCountsFromLastUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*conn](100)
		defer p.Stop()
		c := fresh("a")
		limits := usual
		limits.Uses = 1000
		// Used every 100 s, it lives on, long past its first idle time.
		for range 5 {
			p.Put(key, "example.org", c, limits)
			time.Sleep(100 * time.Second)
			got, ok := p.Get(key, anyone)
			want(t, "still there", ok && got == c, true)
		}
		p.Put(key, "example.org", c, limits)
		time.Sleep(150*time.Second - time.Nanosecond)
		synctest.Wait()
		want(t, "closed just before its time", c.isClosed(), false)
		time.Sleep(time.Nanosecond)
		synctest.Wait() // nothing calls: the pool's own timer does it
		want(t, "closed at its time", c.isClosed(), true)
		want(t, "stats", p.Stats().Retired[pool.IdleTime], 1)
	})
}

func TestIdleTimesOfDifferentTransports(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*conn](100)
		defer p.Stop()
		var conns []*conn
		for _, s := range []int{50, 10, 40, 20, 30} {
			c := fresh("x")
			conns = append(conns, c)
			p.Put(key, "example.org", c, pool.Limits{IdleCount: 10, IdleTime: time.Duration(s) * time.Second, Uses: 2})
		}
		for i, wantClosed := range []int{0, 1, 2, 3, 4, 5} {
			n := 0
			for _, c := range conns {
				n += int(c.closed.Load())
			}
			want(t, fmt.Sprintf("closed after %d s", 10*i), n, wantClosed)
			time.Sleep(10 * time.Second)
			synctest.Wait()
		}
	})
}

// When the timer is late, Get itself does not hand out what has expired.
func TestGetNeverGivesAnExpiredOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*conn](100)
		p.Put(key, "example.org", fresh("a"), usual)
		for range 1000 {
			// At one and the same instant the timer's goroutine and this one
			// are both runnable.
			time.Sleep(usual.IdleTime)
			if _, ok := p.Get(key, anyone); ok {
				t.Fatal("an expired connection was handed out")
			}
			p.Put(key, "example.org", fresh("a"), usual)
		}
		p.Stop()
		want(t, "closed for their idle time", p.Stats().Retired[pool.IdleTime], 1000)
	})
}

// conn_reuse_limit N: exactly N messages go over one connection.
func TestReuseLimit(t *testing.T) {
	for _, limit := range []int{0, 1, 2, 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			p := pool.New[*conn](100)
			defer p.Stop()
			limits := usual
			limits.Uses = limit
			made := 0
			var all []*conn
			for range 20 {
				c, ok := p.Get(key, anyone)
				if !ok {
					made++
					c = &conn{}
					all = append(all, c)
				}
				c.served++
				p.Put(key, "example.org", c, limits)
			}
			each := max(limit, 1)
			want(t, "connections for 20 messages", made, 20/each)
			for _, c := range all {
				want(t, "messages over one connection", c.served, each)
				want(t, "closed", c.closed.Load(), 1)
			}
			want(t, "stats", p.Stats().Retired[pool.ReuseLimit], made)
		})
	}
}

func TestIdleCountDropsTheOldestOfTheDomain(t *testing.T) {
	p := pool.New[*conn](100)
	defer p.Stop()
	limits := usual
	limits.IdleCount = 2
	other, elsewhere := fresh("other"), fresh("elsewhere")
	p.Put(key, "example.net", other, limits)
	p.Put(pool.Key{Transport: "second", Host: key.Host, Port: 25}, "example.org", elsewhere, limits)
	var conns []*conn
	for i := range 5 {
		c := fresh(fmt.Sprint(i))
		conns = append(conns, c)
		p.Put(key, "example.org", c, limits)
	}
	for i, c := range conns {
		want(t, "closed "+c.name, c.isClosed(), i < 3)
	}
	want(t, "another domain's", other.isClosed(), false)
	want(t, "another transport's", elsewhere.isClosed(), false)

	// A reload that allows fewer holds from the next Put on.
	limits.IdleCount = 1
	p.Put(key, "example.org", fresh("last"), limits)
	want(t, "left", drain(p, key), []string{"last", "other"})
	want(t, "stats", p.Stats().Retired[pool.Count], 5)
}

func TestTotalDropsTheOldestOfAll(t *testing.T) {
	p := pool.New[*conn](3)
	defer p.Stop()
	var conns []*conn
	for i := range 5 {
		c := fresh(fmt.Sprint(i))
		conns = append(conns, c)
		p.Put(pool.Key{Host: c.name}, c.name, c, usual)
		want(t, "held", p.Stats().Idle, min(i+1, 3))
	}
	for i, c := range conns {
		want(t, "closed "+c.name, c.isClosed(), i < 2)
	}
	want(t, "stats", p.Stats().Retired[pool.Total], 2)
}

func TestZeroLimitsKeepNothing(t *testing.T) {
	cases := []struct {
		total  int
		limits pool.Limits
		why    pool.Reason
	}{
		{9, pool.Limits{IdleCount: 1, IdleTime: time.Minute}, pool.ReuseLimit},
		{9, pool.Limits{IdleCount: 1, Uses: 9}, pool.IdleTime},
		{9, pool.Limits{IdleTime: time.Minute, Uses: 9}, pool.Count},
		{0, pool.Limits{IdleCount: 1, IdleTime: time.Minute, Uses: 9}, pool.Total},
	}
	for _, c := range cases {
		t.Run(c.why.String(), func(t *testing.T) {
			p := pool.New[*conn](c.total)
			defer p.Stop()
			x := fresh("x")
			want(t, "kept", p.Put(key, "example.org", x, c.limits), false)
			want(t, "closed", x.closed.Load(), 1)
			want(t, "stats", p.Stats().Retired[c.why], 1)
		})
	}
}

func TestRetire(t *testing.T) {
	p := pool.New[*conn](100)
	defer p.Stop()
	var conns []*conn
	for i := range 10 {
		c := fresh(fmt.Sprint(i))
		conns = append(conns, c)
		p.Put(pool.Key{Transport: []string{"a", "b"}[i%2]}, "example.org", c, usual)
	}
	want(t, "closed", p.Retire(func(k pool.Key, c *conn) bool { return k.Transport == "a" || c.name == "3" }), 6)
	for i, c := range conns {
		want(t, "closed "+c.name, c.isClosed(), i%2 == 0 || i == 3)
	}
	want(t, "held", p.Stats().Idle, 4)
}

func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*conn](100)
		idle, out, late := fresh("idle"), fresh("out"), fresh("late")
		p.Put(key, "example.org", out, usual)
		p.Get(key, anyone)
		p.Put(key, "example.org", idle, usual)
		p.Stop()
		want(t, "idle closed", idle.closed.Load(), 1)
		want(t, "one in use closed", out.isClosed(), false)
		_, ok := p.Get(key, anyone)
		want(t, "found after Stop", ok, false)
		want(t, "kept after Stop", p.Put(key, "example.org", late, usual), false)
		want(t, "late closed", late.closed.Load(), 1)
		p.Stop()
		time.Sleep(time.Hour)
		want(t, "closed again", idle.closed.Load(), 1)
		want(t, "stats", p.Stats().Retired[pool.Stopped], 2)
	})
}

// A connection's Close may use the pool: no lock is held meanwhile.
func TestCloseOutsideTheLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := pool.New[*conn](1)
		closed := 0
		nosy := func() *conn { // a deadlock here is seen by synctest
			c := fresh("x")
			c.onEnd = func() { closed++; p.Stats() }
			return c
		}
		p.Put(key, "example.org", nosy(), usual)
		p.Put(key, "example.org", nosy(), usual) // closes the first: total
		p.Get(key, func(*conn) pool.Fit { return pool.Retire })
		p.Put(key, "example.org", nosy(), pool.Limits{}) // refused
		p.Put(key, "example.org", nosy(), usual)
		p.Retire(func(pool.Key, *conn) bool { return true })
		p.Put(key, "example.org", nosy(), usual)
		time.Sleep(usual.IdleTime) // expired
		synctest.Wait()
		p.Put(key, "example.org", nosy(), usual)
		p.Stop()
		want(t, "closed", closed, 6)
	})
}

// A judge that panics leaves a pool that works.
func TestPanicInFits(t *testing.T) {
	p := pool.New[*conn](10)
	defer p.Stop()
	p.Put(key, "example.org", fresh("a"), usual)
	func() {
		defer func() { recover() }()
		p.Get(key, func(*conn) pool.Fit { panic("no") })
	}()
	want(t, "left", drain(p, key), []string{"a"})
}

// Many deliveries at once: none ever shares a connection, none gets a
// closed one, and in the end each was closed exactly once.
func TestNeverTwoUsersAndClosedOnce(t *testing.T) {
	const workers, rounds = 8, 3000
	p := pool.New[*conn](20)
	var mu sync.Mutex
	var all []*conn
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), 1))
			for range rounds {
				k := pool.Key{Host: fmt.Sprint(rnd.IntN(4))}
				c, ok := p.Get(k, func(*conn) pool.Fit {
					return []pool.Fit{pool.Skip, pool.Use, pool.Use, pool.Use, pool.Retire}[rnd.IntN(5)]
				})
				if !ok {
					c = &conn{}
					mu.Lock()
					all = append(all, c)
					mu.Unlock()
				}
				if c.users.Add(1) != 1 || c.isClosed() {
					t.Error("a connection was handed out that is in use or closed")
				}
				c.served++
				c.users.Add(-1)
				if rnd.IntN(50) == 0 {
					p.Retire(func(pool.Key, *conn) bool { return rnd.IntN(3) == 0 })
				}
				if rnd.IntN(20) == 0 {
					c.Close() // failed: not given back
					continue
				}
				p.Put(k, fmt.Sprint(rnd.IntN(6)), c, pool.Limits{
					IdleCount: rnd.IntN(6), IdleTime: time.Duration(rnd.IntN(300)) * time.Microsecond, Uses: 12,
				})
				if n := p.Stats().Idle; n > 20 {
					t.Errorf("%d idle connections", n)
				}
			}
		})
	}
	wg.Wait()
	p.Stop()
	for _, c := range all {
		if c.closed.Load() != 1 {
			t.Fatalf("a connection was closed %d times", c.closed.Load())
		}
		if c.served > 12 {
			t.Fatalf("%d messages over one connection", c.served)
		}
	}
}

// Random calls against a model that is a plain list.
func TestAgainstModel(t *testing.T) {
	type idle struct {
		c       *conn
		k       pool.Key
		domain  string
		expires time.Time
	}
	for seed := range uint64(10) {
		synctest.Test(t, func(t *testing.T) {
			rnd := rand.New(rand.NewPCG(seed, 2))
			const total = 12
			p := pool.New[*conn](total)
			var model []idle // oldest first
			drop := func(match func(i int) bool) {
				var left []idle
				for i, m := range model {
					if match(i) {
						want(t, "closed", m.c.closed.Load(), 1)
					} else {
						want(t, "closed", m.c.closed.Load(), 0)
						left = append(left, m)
					}
				}
				model = left
			}
			for range 2000 {
				k := pool.Key{Transport: "t", Host: fmt.Sprint(rnd.IntN(5))}
				switch rnd.IntN(10) {
				case 0, 1, 2: // Get
					i := -1
					for j, m := range model {
						if m.k == k {
							i = j
						}
					}
					c, ok := p.Get(k, anyone)
					if ok != (i >= 0) || ok && c != model[i].c {
						t.Fatalf("Get gave %v %v, the model has %d", c, ok, i)
					}
					if ok {
						model = slices.Delete(model, i, i+1)
					}
				case 3:
					time.Sleep(time.Duration(rnd.IntN(5)) * time.Second)
					synctest.Wait()
					drop(func(i int) bool { return !time.Now().Before(model[i].expires) })
				default: // Put
					c, d := fresh("x"), fmt.Sprint(rnd.IntN(4))
					l := pool.Limits{IdleCount: 1 + rnd.IntN(5), IdleTime: time.Duration(1+rnd.IntN(20)) * time.Second, Uses: 5}
					p.Put(k, d, c, l)
					same := 0
					for _, m := range model {
						if m.domain == d {
							same++
						}
					}
					excess := same - l.IdleCount + 1
					full := excess <= 0 && len(model) >= total
					drop(func(i int) bool {
						if model[i].domain == d {
							excess--
							return excess >= 0 || full && i == 0
						}
						return full && i == 0
					})
					model = append(model, idle{c, k, d, time.Now().Add(l.IdleTime)})
				}
				want(t, "held", p.Stats().Idle, len(model))
			}
			p.Stop()
			drop(func(int) bool { return true })
		})
	}
}

func TestHeld(t *testing.T) {
	p := pool.New[*conn](100)
	defer p.Stop()
	other := pool.Key{Transport: "default", Host: "mx2.example.org", Port: 25}
	p.Put(key, "a.example", fresh("a"), usual)
	p.Put(key, "b.example", fresh("b"), usual)
	p.Put(other, "b.example", fresh("c"), usual)
	want(t, "held", p.Held(), map[pool.Key]int{key: 2, other: 1})
	want(t, "count", p.Count(key), 2)
	drain(p, key)
	want(t, "held", p.Held(), map[pool.Key]int{other: 1})
	want(t, "count", p.Count(key), 0)
}
