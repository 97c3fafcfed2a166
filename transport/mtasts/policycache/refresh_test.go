package policycache

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

// "Refresh ahead of expiry in the background, spread out."
func TestRefreshIsSpreadOut(t *testing.T) {
	for _, tt := range []struct {
		jitter float64
		at     float64 // of the policy's life
	}{{0, 0.7}, {0.5, 0.8}, {1, 0.9}} {
		t.Run(fmt.Sprint(tt.jitter), func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				w.jitter = tt.jitter
				first := w.look(c)
				due := first.Fetched.Add(time.Duration(tt.at * float64(week)))
				time.Sleep(time.Until(due.Add(-time.Minute)))
				synctest.Wait()
				w.wantCalls(1, 1)
				time.Sleep(3 * time.Minute) // no look-up: the sweeper does it
				synctest.Wait()
				w.wantCalls(0, 1)
				e := w.look(c)
				w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
				if !e.Expires.After(first.Expires) || c.Stats().Refreshes != 1 {
					t.Errorf("expires %v, before %v; %+v", e.Expires, first.Expires, c.Stats())
				}
			})
		})
	}
}

// No look-up waits for a refresh, and look-ups begin it as well as the sweeper.
func TestRefreshDelaysNobody(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		// of which the 80th begins the refresh
		w.policy.MaxAge = 100 * time.Second
		w.look(c)
		w.set(func() { w.policy, w.webWait = enforce("mx2.example.org"), 15*time.Second })
		time.Sleep(81 * time.Second)
		for range 3 {
			e, took := w.timed(c)
			w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
			if took != 0 {
				t.Errorf("waited %v", took)
			}
		}
		time.Sleep(16 * time.Second)
		w.wantPolicy(w.look(c), "1", "mx2.example.org", SourceCache)
		w.wantCalls(1, 2)
	})
}

// Nor does it delay a look-up that finds the TXT record's TTL over meanwhile.
func TestRefreshDelaysNobodyWhoWouldCheck(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		w.set(func() { w.webWait = 90 * time.Minute })
		for c.Stats().Flights == 0 {
			time.Sleep(sweepEvery)
			synctest.Wait()
		}
		e, took := w.timed(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
		if took != 0 {
			t.Errorf("waited %v", took)
		}
	})
}

// RFC 8461 §10.2: the refresh does not ask what became of the record.
func TestRefreshWithoutRecord(t *testing.T) {
	for name, trouble := range map[string]func(w *world){
		"missing": func(w *world) { w.texts = nil },
		"unknown": func(w *world) { w.txtErr = errServfail },
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(t *testing.T, w *world, c *Cache) {
				start := time.Now()
				w.look(c)
				w.set(func() { trouble(w) })
				for time.Since(start) < 3*week {
					time.Sleep(week / 20)
					w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
				}
			})
		})
	}
}

// A policy that is not asked for is refreshed for thirty days and then left to
// end.
func TestRefreshEndsWhenNobodyAsks(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		time.Sleep(keepWarm + 2*week)
		synctest.Wait()
		refreshes := c.Stats().Refreshes
		if refreshes < 4 || refreshes > 6 { // every 0.8 weeks for 30 days
			t.Errorf("%d refreshes", refreshes)
		}
		time.Sleep(2 * week)
		synctest.Wait()
		if more := c.Stats().Refreshes; more != refreshes {
			t.Errorf("%d more refreshes of a policy that is not wanted", more-refreshes)
		}
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
	})
}

// RFC 8461 §3.3: failing refreshes are warned of, again and again, but not for
// ever more often than makes sense.
func TestFailingRefreshIsWarnedOf(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.look(c)
		w.set(func() { w.webErr = errDown })
		time.Sleep(week)
		synctest.Wait()
		warned := w.logs.count("the cached one remains in effect")
		// 33 hours are left: every 3.4 hours at first, every five minutes at
		// last.
		if warned < 20 || warned > 80 || w.logs.count("until=") != warned {
			t.Errorf("%d warnings", warned)
		}
		if s := c.Stats(); s.Failures[mtasts.FailureFetch] != uint64(warned) || s.Refreshes != uint64(warned) {
			t.Errorf("%+v", s)
		}
	})
}

func TestManyRefreshesAtOnceAreBounded(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		const many = 100
		for i := range many {
			if _, err := c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i)); err != nil {
				t.Fatal(err)
			}
		}
		w.set(func() { w.webWait, w.most = 3*time.Second, 0 })
		time.Sleep(week*8/10 + 5*time.Minute)
		synctest.Wait()
		w.set(func() {
			if w.most != maxRefreshes || c.Stats().Refreshes != many {
				t.Errorf("%d at once, %d in all", w.most, c.Stats().Refreshes)
			}
		})
	})
}

// One owner of many domains, whose web hosts say nothing any more, keeps
// nobody else's policy from being refreshed before it ends.
func TestHostileRefreshesKeepNobodyElseOut(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		for i := range 1000 {
			if _, err := c.Lookup(t.Context(), fmt.Sprintf("d%d.hostile.example", i)); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Hour)
		if _, err := c.Lookup(t.Context(), "other.example"); err != nil {
			t.Fatal(err)
		}
		w.set(func() { w.mute = ".hostile.example" })
		time.Sleep(week*8/10 + 30*time.Minute)
		if e, err := c.Cached("other.example"); err != nil || time.Until(e.Expires) < week-time.Hour {
			t.Errorf("%s, %v: it ends in %v", describe(e), err, time.Until(e.Expires))
		}
	})
}

// "The fs cache … survives restarts"
func TestRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fs, err := store.NewFS(store.FSConfig{Dir: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		w.store = fs
		c := w.open()
		first := w.look(c)
		c.Close()
		w.wantCalls(1, 1)

		time.Sleep(time.Hour)
		w.set(func() { w.webErr = errDown })
		c = w.open()
		e := w.look(c)
		w.wantPolicy(e, "1", "mx1.example.org", SourceCache)
		if !e.Expires.Equal(first.Expires) || !e.Fetched.Equal(first.Fetched) {
			t.Errorf("fetched %v, expires %v; before the restart %v, %v", e.Fetched, e.Expires, first.Fetched, first.Expires)
		}
		c.Close()
		w.wantCalls(1, 0)

		// The DNS is down as well: the policy holds until its end, and no
		// longer.
		w.set(func() { w.txtErr = errServfail })
		time.Sleep(time.Until(first.Expires) - time.Second)
		c = w.open()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
		c.Close()
		time.Sleep(time.Second)
		c = w.open()
		w.wantNone(w.look(c), Failed, mtasts.FailureDNS)
		c.Close()
	})
}

func TestDamagedFileIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		dir := t.TempDir()
		w.store, _ = store.NewFS(store.FSConfig{Dir: dir})
		path := dir + "/" + domain + ".mta-sts"
		if err := os.WriteFile(path, []byte("mxpipe mta-sts pol"), 0o600); err != nil {
			t.Fatal(err)
		}
		c := w.open()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		c.Close()
		if w.logs.count("ignored") != 1 || c.Stats().StoreFailures != 0 {
			t.Errorf("a damaged file: %d log lines, %+v", w.logs.count("ignored"), c.Stats())
		}
		if got, ok, err := w.store.Load(domain); !ok || err != nil || got.ID != "1" {
			t.Errorf("%+v, %t, %v", got, ok, err)
		}
	})
}

// broken is a store whose disk is full, or slow.
type broken struct {
	store.Store
	saveErr, loadErr error
	hang             chan struct{}
}

func (b *broken) Save(p store.Policy) error {
	if b.hang != nil {
		<-b.hang
	}
	if b.saveErr != nil {
		return b.saveErr
	}
	return b.Store.Save(p)
}

func (b *broken) Remove(domain string) error {
	if b.saveErr != nil {
		return b.saveErr
	}
	return b.Store.Remove(domain)
}

func (b *broken) Load(domain string) (store.Policy, bool, error) {
	if b.loadErr != nil {
		return store.Policy{}, false, b.loadErr
	}
	return b.Store.Load(domain)
}

// A full disk: logged once, and memory goes on.
func TestFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &broken{Store: w.store, saveErr: errors.New("no space left on device"), loadErr: errors.New("input/output error")}
		w.store = b
		c := w.open()
		defer c.Close()
		for i := range 20 {
			e, err := c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i))
			if err != nil || e.State != HasPolicy {
				t.Errorf("%s, %v", describe(e), err)
			}
		}
		synctest.Wait()
		if w.logs.count("cannot store") != 1 || c.Stats().StoreFailures != 40 {
			t.Errorf("%d log lines, %+v", w.logs.count("cannot store"), c.Stats())
		}
		w.wantCalls(20, 20)
		for i := range 20 {
			if e, _ := c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i)); e.Source != SourceCache {
				t.Errorf("%s", describe(e))
			}
		}
		w.wantCalls(0, 0)

		b.saveErr, b.loadErr = nil, nil
		w.look(c)
		synctest.Wait()
		if w.logs.count("storing MTA-STS policies again") != 1 {
			t.Error("the end of it is not logged")
		}
		b.saveErr = errors.New("no space left on device")
		if _, err := c.Lookup(t.Context(), "next.example"); err != nil {
			t.Error(err)
		}
		synctest.Wait()
		if w.logs.count("cannot store") != 2 {
			t.Error("the next time is not logged")
		}
	})
}

// The answer does not wait for a slow disk.
func TestSlowDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &broken{Store: w.store, hang: make(chan struct{})}
		w.store = b
		c := w.open()
		defer c.Close()
		for range 3 {
			if e, took := w.timed(c); took != 0 || e.State != HasPolicy {
				t.Errorf("waited %v: %s", took, describe(e))
			}
		}
		close(b.hang)
	})
}

// A fetch time in the future, as of a clock that was wrong: believed for
// max_age from now at most, and refreshed at once.
func TestFileFromTheFuture(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		future := time.Now().UTC().Truncate(time.Second).Add(10 * 365 * 24 * time.Hour)
		w.store.Save(store.Policy{Domain: domain, ID: "1", Fetched: future, Policy: enforce("mx0.example.org")})
		e := w.look(c)
		w.wantPolicy(e, "1", "mx0.example.org", SourceCache)
		if !e.Expires.Equal(time.Now().Add(week)) {
			t.Errorf("expires %v", e.Expires)
		}
		w.look(c)
		synctest.Wait()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
		if got, _, _ := w.store.Load(domain); got.Fetched.After(time.Now()) {
			t.Error("the file was not replaced")
		}
	})
}

// A machine that starts with its clock far behind does not lose its policies
// when the clock is set.
func TestClockThatWasBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		fetched := time.Now().UTC().Truncate(time.Second).Add(-time.Hour)
		w.store.Save(store.Policy{Domain: domain, ID: "1", Fetched: fetched, Policy: enforce("mx0.example.org")})
		w.webErr = errDown
		behind := -50 * 365 * 24 * time.Hour
		c := New(Config{Resolver: w, Fetcher: w, Store: w.store, Now: func() time.Time { return time.Now().Add(behind) }})
		defer c.Close()
		w.wantPolicy(w.look(c), "1", "mx0.example.org", SourceCache)
		synctest.Wait()
		behind = 0
		e := w.look(c)
		w.wantPolicy(e, "1", "mx0.example.org", SourceCache)
		if !e.Expires.Equal(fetched.Add(week)) {
			t.Errorf("expires %v", e.Expires)
		}
	})
}

// What memory forgets is read from the store, not fetched.
func TestMemoryIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := New(Config{Resolver: w, Fetcher: w, Store: w.store, Memory: 10_000})
		defer c.Close()
		for i := range 100 {
			c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i))
		}
		if s := c.Stats(); s.Memory > 10_000 || s.Domains >= 100 || s.Domains < 5 {
			t.Errorf("%+v", s)
		}
		w.wantCalls(100, 100)
		if e, _ := c.Lookup(t.Context(), "d0.example"); e.State != HasPolicy || e.Source != SourceCache {
			t.Errorf("%s", describe(e))
		}
		w.wantCalls(1, 0)
	})
}

// One flight a domain even when memory forgot the domain meanwhile.
func TestFlightOutlivesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.webWait = 8 * time.Second
		c := New(Config{Resolver: w, Fetcher: w, Store: w.store, Memory: 1000})
		defer c.Close()
		go c.Lookup(t.Context(), domain)
		synctest.Wait()
		for i := range 5 {
			go c.Lookup(t.Context(), fmt.Sprintf("d%d.example", i))
		}
		synctest.Wait()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		w.wantCalls(6, 6)
	})
}

// And its failure holds the next fetch off all the same.
func TestBackOffOutlivesMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.webWait, w.webErr = 8*time.Second, errDown
		c := New(Config{Resolver: w, Fetcher: w, Store: w.store, Memory: 1000})
		defer c.Close()
		go c.Lookup(t.Context(), domain)
		synctest.Wait()
		go c.Lookup(t.Context(), "other.example")
		synctest.Wait()
		w.wantNone(w.look(c), Failed, mtasts.FailureFetch)
		w.wantNone(w.look(c), Failed, mtasts.FailureFetch)
		w.wantCalls(2, 2)
	})
}

// A policy of mode none is never stored; one that lies there is none.
func TestStoredModeNone(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		w.texts = nil
		w.store.Save(store.Policy{Domain: domain, ID: "1", Fetched: time.Now().UTC(), Policy: mtasts.Policy{MaxAge: week}})
		if e, err := c.Cached(domain); err != nil || e.State == HasPolicy {
			t.Errorf("Cached: %s, %v", describe(e), err)
		}
		w.wantNone(w.look(c), NoPolicy, mtasts.FailureNone)
	})
}

func TestAdministration(t *testing.T) {
	inWorld(t, func(t *testing.T, w *world, c *Cache) {
		if e, err := c.Cached(domain); err != nil || e.State != Failed {
			t.Errorf("unknown: %s, %v", describe(e), err)
		}
		w.look(c)
		w.store.Save(store.Policy{Domain: "stored.example", ID: "7", Fetched: time.Now().UTC(), Policy: enforce("mx.stored.example")})
		synctest.Wait()
		if got, err := c.Domains(); err != nil || !slices.Equal(got, []string{domain, "stored.example"}) {
			t.Errorf("Domains() = %v, %v", got, err)
		}
		for name, id := range map[string]string{"Example.ORG": "1", "stored.example": "7"} {
			if e, err := c.Cached(name); err != nil || e.State != HasPolicy || e.ID != id || e.Source != SourceCache {
				t.Errorf("Cached(%s) = %s, %v", name, describe(e), err)
			}
		}
		w.wantCalls(1, 1)

		w.set(func() { w.webErr = errDown; w.texts = txt("2") })
		time.Sleep(ttl)
		w.look(c) // begins a back-off
		w.set(func() { w.webErr, w.policy = nil, enforce("mx2.example.org") })
		w.wantCalls(1, 1)
		for _, name := range []string{"EXAMPLE.org", "stored.example", "never.example"} {
			if err := c.Flush(name); err != nil {
				t.Errorf("Flush(%s): %v", name, err)
			}
		}
		if got, err := c.Domains(); err != nil || len(got) != 0 {
			t.Errorf("after Flush: %v, %v", got, err)
		}
		w.wantPolicy(w.look(c), "2", "mx2.example.org", SourceFetched)
		w.wantCalls(1, 1)
		for _, name := range []string{"[192.0.2.1]", "../x"} {
			if _, err := c.Cached(name); !errors.Is(err, mtasts.ErrDomain) {
				t.Errorf("Cached(%s): %v", name, err)
			}
			if err := c.Flush(name); !errors.Is(err, mtasts.ErrDomain) {
				t.Errorf("Flush(%s): %v", name, err)
			}
		}
	})
}

// Flush means flushed, even when the disk is read-only.
func TestFlushOnAReadOnlyDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &broken{Store: w.store}
		w.store = b
		c := w.open()
		defer c.Close()
		w.look(c)
		synctest.Wait()
		b.saveErr = errors.New("read-only file system")
		if err := c.Flush(domain); !errors.Is(err, b.saveErr) {
			t.Errorf("Flush: %v", err)
		}
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		w.wantCalls(2, 2)
	})
}

// A store that could not be read once, as when no descriptor is free, has not
// answered: the policy that it holds is in force at the next look-up, whatever
// the record says, and no record proves nothing until then.
func TestStoreThatCouldNotBeReadIsAskedAgain(t *testing.T) {
	for name, record := range map[string]func(w *world){
		"record fails":  func(w *world) { w.txtErr = errors.New("SERVFAIL") },
		"record absent": func(w *world) { w.texts = nil },
		"fetch fails":   func(w *world) { w.texts, w.webErr = txt("2"), errDown },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				w.store.Save(store.Policy{Domain: domain, ID: "1", Fetched: time.Now().UTC(), Policy: enforce("mx0.example.org")})
				b := &broken{Store: w.store, loadErr: syscall.EMFILE}
				w.store = b
				record(w)
				c := w.open()
				defer c.Close()
				e := w.look(c)
				if e.State != Failed || e.Err == nil {
					t.Errorf("while the store cannot be read: %s", describe(e))
				}
				if name == "record absent" && (e.Failure() != mtasts.FailureStore || !errors.Is(e.Err, syscall.EMFILE)) {
					t.Errorf("while the store cannot be read: %s", describe(e))
				}
				if again := w.look(c); again.Err != e.Err {
					t.Error("the same failure is another error, so that what was made of it is made again and again")
				}
				b.loadErr = nil
				w.wantPolicy(w.look(c), "1", "mx0.example.org", SourceCache)
				// it answered, and is not asked again
				b.loadErr = syscall.EMFILE
				w.wantPolicy(w.look(c), "1", "mx0.example.org", SourceCache)
			})
		})
	}
}

// A look-up that comes at the moment at which another has its answer does not
// get that answer: what it needs is asked for again.
func TestAnsweredFlightIsNotJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &broken{Store: w.store, loadErr: syscall.EMFILE}
		w.store, w.texts = b, nil
		c := w.open()
		defer c.Close()
		const lookups = 2000
		for range lookups {
			w.look(c)
		}
		if n := c.Stats().StoreFailures; n != lookups {
			t.Errorf("%d look-ups asked the store %d times", lookups, n)
		}
	})
}

// A fetched policy supersedes what the store may hold: with it, a store that
// fails costs a warm look-up nothing.
func TestFetchedPolicyNeedsNoStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		b := &broken{Store: w.store, loadErr: syscall.EIO}
		w.store = b
		c := w.open()
		defer c.Close()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		hits := c.Stats().Hits
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceCache)
		if got := c.Stats().Hits; got != hits+1 {
			t.Errorf("%d hits, want %d", got, hits+1)
		}
	})
}

// slowStore is a store whose writes wait.
type slowStore struct {
	store.Store
	write chan struct{}
}

// Save implements store.Store.
func (s *slowStore) Save(p store.Policy) error {
	err := s.Store.Save(p)
	<-s.write
	return err
}

// A flush between a policy's answer and the end of its writing leaves no
// look-up with nothing: the next look-up has it fetched again.
func TestFlushWhileTheStoreWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		s := &slowStore{w.store, make(chan struct{})}
		w.store = s
		c := w.open()
		defer c.Close()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		if err := c.Flush(domain); err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Second)
			close(s.write)
		}()
		w.wantPolicy(w.look(c), "1", "mx1.example.org", SourceFetched)
		w.wantCalls(2, 2)
	})
}
