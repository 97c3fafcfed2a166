package policycache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/mtasts/store"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

const (
	domain = "example.org"
	ttl    = 5 * time.Minute
	week   = 7 * 24 * time.Hour
)

var (
	errServfail = errors.New("SERVFAIL")
	errDown     = &mtasts.Error{Failure: mtasts.FailureFetch, Err: errors.New("connection refused")}
)

// world is a DNS, a web and a store on the clock of testing/synctest. What a
// domain answers can change at any time.
type world struct {
	t      *testing.T
	store  store.Store
	jitter float64
	logs   logBuffer

	mu     sync.Mutex
	texts  []string // TXT records; nil: proven to be none
	txtErr error    // instead
	// remembers says that the resolver does so with failures, and may be asked
	// again at any time.
	remembers bool
	txtWait   time.Duration // before the answer
	policy    mtasts.Policy
	webErr    error
	webWait   time.Duration
	mute      string // domains that end in it have web hosts that say nothing

	asked, fetched int // how often
	running, most  int // fetches at once, now and at most
}

func newWorld(t *testing.T) *world {
	return &world{t: t, store: store.NewRAM(1 << 20), jitter: 0.5, texts: txt("1"), policy: enforce("mx1.example.org")}
}

func txt(id string) []string { return []string{"v=spf1 -all", "v=STSv1; id=" + id + ";"} }

func enforce(mx ...string) mtasts.Policy {
	return mtasts.Policy{Mode: mtasts.ModeEnforce, MaxAge: week, MX: mx}
}

func aged(p mtasts.Policy, age time.Duration) mtasts.Policy {
	p.MaxAge = age
	return p
}

func (w *world) TXT(ctx context.Context, name string) (Answer, error) {
	w.mu.Lock()
	w.asked++
	texts, err, wait, remembers := w.texts, w.txtErr, w.txtWait, w.remembers
	w.mu.Unlock()
	if !strings.HasPrefix(name, "_mta-sts.") {
		w.t.Errorf("TXT asked at %s", name)
	}
	if err := sleep(ctx, wait); err != nil {
		return Answer{}, err
	}
	switch {
	case err != nil && remembers:
		return Answer{Expires: time.Now()}, err
	case err != nil:
		return Answer{}, err
	}
	return Answer{Texts: texts, Found: texts != nil, Expires: time.Now().Add(ttl)}, nil
}

func (w *world) Fetch(ctx context.Context, domain string) (mtasts.Policy, error) {
	w.mu.Lock()
	w.fetched++
	w.running++
	w.most = max(w.most, w.running)
	policy, err, wait := w.policy, w.webErr, w.webWait
	if w.mute != "" && strings.HasSuffix(domain, w.mute) {
		wait = time.Hour
	}
	w.mu.Unlock()
	waitErr := sleep(ctx, wait)
	w.mu.Lock()
	w.running--
	w.mu.Unlock()
	if waitErr != nil {
		return mtasts.Policy{}, &mtasts.Error{Failure: mtasts.FailureFetch, Err: waitErr}
	}
	return policy, err
}

func sleep(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (w *world) open() *Cache {
	return New(Config{
		Resolver: w, Fetcher: w, Store: w.store, Jitter: func() float64 { return w.jitter },
		Log: slog.New(slog.NewTextHandler(&w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
}

// set changes the world at once.
func (w *world) set(change func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	change()
}

// wantCalls checks and forgets how often the DNS and the web were asked.
func (w *world) wantCalls(asked, fetched int) {
	w.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.asked != asked || w.fetched != fetched {
		w.t.Errorf("TXT asked %d times and %d fetches, want %d and %d", w.asked, w.fetched, asked, fetched)
	}
	w.asked, w.fetched = 0, 0
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

// inWorld runs a test with a world and its Cache on a clock of its own.
func inWorld(t *testing.T, test func(t *testing.T, w *world, c *Cache)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		c := w.open()
		defer c.Close()
		test(t, w, c)
	})
}

// look looks the domain up and says what came of it, and how long it took.
func (w *world) look(c *Cache) Entry {
	w.t.Helper()
	e, _ := w.timed(c)
	return e
}

func (w *world) timed(c *Cache) (Entry, time.Duration) {
	w.t.Helper()
	start := time.Now()
	e, err := c.Lookup(w.t.Context(), domain)
	if err != nil {
		w.t.Errorf("Lookup: %v", err)
	}
	if e.Domain != domain {
		w.t.Errorf("an Entry about %q", e.Domain)
	}
	if (e.State == HasPolicy) != (e.Source != SourceNone) || (e.State == HasPolicy) != (e.Policy.Mode != mtasts.ModeNone) {
		w.t.Errorf("state %v with source %v and mode %v", e.State, e.Source, e.Policy.Mode)
	}
	if e.State == Failed && e.Err == nil {
		w.t.Error("failed without an error")
	}
	return e, time.Since(start)
}

func (w *world) wantPolicy(e Entry, id, mx string, source Source) {
	w.t.Helper()
	if e.State != HasPolicy || e.ID != id || !e.Policy.Match(mx) || e.Source != source {
		w.t.Errorf("%s", describe(e))
		w.t.Errorf("want policy %s for %s (%v)", id, mx, source)
	}
}

func (w *world) wantNone(e Entry, state State, failure mtasts.Failure) {
	w.t.Helper()
	if e.State != state || e.Failure() != failure {
		w.t.Errorf("%s", describe(e))
		w.t.Errorf("want %v, %v", state, failure)
	}
}

func describe(e Entry) string {
	return fmt.Sprintf("got %v, policy %s %v (%v), record %q, %v: %v", e.State, e.ID, e.Policy.MX, e.Source, e.RecordID, e.Failure(), e.Err)
}
