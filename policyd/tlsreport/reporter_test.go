package tlsreport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// post is who takes reports in the tests: it keeps them, and refuses or fails
// as it is told.
type post struct {
	mu    sync.Mutex
	got   map[string][][]byte // by place
	fails func(place string) error
}

func (p *post) take(place string, text []byte) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fails != nil {
		if err := p.fails(place); err != nil {
			return err
		}
	}
	if p.got == nil {
		p.got = map[string][][]byte{}
	}
	p.got[place] = append(p.got[place], text)
	return nil
}

func (p *post) Mail(_ context.Context, to string, message []byte, last func() error) error {
	if err := last(); err != nil {
		return err
	}
	return p.take(to, message)
}

func (p *post) Post(_ context.Context, uri string, gz []byte, last func() error) error {
	if err := last(); err != nil {
		return err
	}
	return p.take(uri, gz)
}

func (p *post) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, list := range p.got {
		n += len(list)
	}
	return n
}

// records answers for every domain with one mail address there, but for what
// it was told.
type records map[string]string

func (r records) TXT(_ context.Context, name string) ([]string, error) {
	domain := strings.TrimPrefix(name, "_smtp._tls.")
	switch text, ok := r[domain]; {
	case !ok:
		return []string{"v=TLSRPTv1; rua=mailto:reports@" + domain}, nil
	case text == "fails":
		return nil, errors.New("SERVFAIL")
	case text == "":
		return nil, nil
	default:
		return []string{text}, nil
	}
}

func config(dir string, r Resolver, c Courier) Config {
	return Config{Sender: us, From: "tlsrpt@us.example", Dir: dir, Record: r, Courier: c, Now: time.Now, Log: slog.New(slog.DiscardHandler)}
}

func open(t *testing.T, cfg Config) *Reporter {
	t.Helper()
	r, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func observe(r *Reporter, domain string, p Policy, f *Failure, n int) {
	for range n {
		r.Observe(Session{At: time.Now(), Domain: domain, Policy: p, Failure: f})
	}
}

// TestQueueIsBounded: sessions that come faster than they are counted are left
// out, and nobody waits.
func TestQueueIsBounded(t *testing.T) {
	r := open(t, config("", records{}, &post{}))
	r.mu.Lock() // the one that counts them waits with the first
	observe(r, "example.org", sts, nil, 10_000)
	r.mu.Unlock()
	if n := r.Stats().Dropped; n != 10_000-8192 && n != 10_000-8193 {
		t.Errorf("%d of 10,000 were left out", n)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// abandon ends a Reporter as kill -9 does: nothing is written any more.
func abandon(r *Reporter) {
	r.cancel()
	r.done.Wait()
}

// TestDay plays two days: 40 domains with every result type, restarts and
// crashes in between, clock moves; each domain gets one report with what was
// counted.
func TestDay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := &post{}
		cfg := config(dir, records{"domain7.example": "", "domain8.example": "v=TLSRPTv1; rua=https://r.example/,mailto:a@domain8.example"}, p)
		cfg.Exclude = []string{"domain9.example", ".below.example"}
		r := open(t, cfg)
		time.Sleep(time.Hour) // 01:00 of 2000-01-01
		all := func(round int) {
			for i := range 40 {
				domain := fmt.Sprintf("domain%d.example", i)
				observe(r, domain, Policy{Type: TypeNone, Domain: domain}, nil, 1+i)
				observe(r, domain, Policy{Type: TypeNone, Domain: domain}, failed(results[i%len(results)], "mx."+domain), 2)
			}
			observe(r, "x.below.example", none, nil, round)
			synctest.Wait()
		}
		all(1)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		r = open(t, cfg)
		time.Sleep(5 * time.Hour)
		all(2)
		abandon(r)
		r = open(t, cfg)
		time.Sleep(5 * time.Hour)
		all(3)
		time.Sleep(12 * time.Hour) // 23:00
		if n := p.count(); n != 0 {
			t.Fatalf("%d reports before the day was over", n)
		}
		time.Sleep(3 * time.Hour) // 02:00, half of them are out
		half := p.count()
		if half < 5 || half > 35 {
			t.Errorf("%d reports after two of four hours", half)
		}
		abandon(r)
		r = open(t, cfg)
		time.Sleep(time.Hour)
		if err := r.SendNow(t.Context(), ""); err != nil {
			t.Error(err)
		}
		time.Sleep(30 * time.Hour)
		if err := r.SendNow(t.Context(), "domain1.example"); !errors.Is(err, ErrNothing) {
			t.Error("nothing was counted on the second day:", err)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
		places := slices.Sorted(maps.Keys(p.got))
		// 40, one wants none, one is excluded, one has two places
		if len(places) != 39 {
			t.Errorf("%d places: %v", len(places), places)
		}
		for place, list := range p.got {
			if len(list) != 1 {
				t.Errorf("%s got %d reports", place, len(list))
			}
		}
		for i := range 40 {
			list := p.got[fmt.Sprintf("reports@domain%d.example", i)]
			if i == 7 || i == 8 || i == 9 {
				continue
			}
			want := fmt.Sprintf("%d sessions succeeded, 6 failed.", 3*(1+i))
			if len(list) != 1 || !bytes.Contains(list[0], []byte(want)) {
				t.Errorf("domain %d: not %q", i, want)
			}
		}
		if back, err := Validate(bytes.NewReader(p.got["https://r.example/"][0])); err != nil || back.Policies[0].Summary != (Summary{27, 6}) {
			t.Error(back, err)
		}
	})
}

// TestRetry: what fails is tried again for a day, and then given up; what is
// refused is not tried again; one place does not hold up the other.
func TestRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := map[string]int{}
		p := &post{fails: func(place string) error {
			tries[place]++
			switch {
			case strings.Contains(place, "never"):
				return errors.New("connection refused")
			case strings.Contains(place, "refused"):
				return ErrRefused
			case strings.Contains(place, "third") && tries[place] < 3:
				return errors.New("busy")
			}
			return nil
		}}
		r := open(t, config(t.TempDir(), records{
			"never.example": "v=TLSRPTv1; rua=mailto:a@never.example,mailto:b@good.example",
			"dns.example":   "fails",
		}, p))
		for _, domain := range []string{"never.example", "refused.example", "third.example", "dns.example"} {
			observe(r, domain, none, nil, 1)
		}
		time.Sleep(60 * time.Hour)
		if tries["b@good.example"] != 1 || tries["reports@refused.example"] != 1 || tries["reports@third.example"] != 3 {
			t.Error(tries)
		}
		if n := tries["a@never.example"]; n < 8 || n > 15 {
			t.Errorf("%d tries", n)
		}
		state := map[string]State{}
		for _, l := range r.List() {
			for _, place := range l.Places {
				state[place.URI] = place.State
			}
		}
		want := map[string]State{
			"mailto:a@never.example": Late, "mailto:b@good.example": Sent,
			"mailto:reports@refused.example": Refused, "mailto:reports@third.example": Sent,
		}
		if !maps.Equal(state, want) {
			t.Errorf("got  %v\nwant %v", state, want)
		}
		if s := r.Stats(); s.Sent != 2 || s.Dropped != 0 {
			t.Errorf("%+v", s)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestCrashWhileSending: a report that may have arrived is not sent again.
func TestCrashWhileSending(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		p := &post{}
		cfg := config(dir, records{}, p)
		r := open(t, cfg)
		observe(r, "example.org", none, nil, 1)
		synctest.Wait()
		if err := r.ledger.put(attempt{Day: "2000-01-01", Domain: "example.org", URI: "mailto:reports@example.org", State: Trying, Tries: 1}); err != nil {
			t.Fatal(err)
		}
		abandon(r)
		r = open(t, cfg)
		time.Sleep(40 * time.Hour)
		if p.count() != 0 {
			t.Error("it was sent again")
		}
		if l := r.List(); l[0].Places[0].State != Refused || !strings.Contains(l[0].Places[0].Error, "may have arrived") {
			t.Errorf("%+v", l)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDaily: 1,000 reports a day, and no more.
func TestDaily(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		r := open(t, config("", records{}, p))
		for i := range 1100 {
			observe(r, fmt.Sprintf("d%d.example", i), none, nil, 1)
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(29 * time.Hour)
		if n := p.count(); n != 1000 {
			t.Errorf("%d reports", n)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestClock: a clock that is set back sends nothing twice; one that jumps
// ahead by a week sends nothing that is too old.
func TestClock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{}
		cfg := config(t.TempDir(), records{}, p)
		var shift time.Duration
		var mu sync.Mutex
		cfg.Now = func() time.Time { mu.Lock(); defer mu.Unlock(); return time.Now().Add(shift) }
		r := open(t, cfg)
		observe(r, "example.org", none, nil, 1)
		time.Sleep(29 * time.Hour)
		for _, s := range []time.Duration{-24 * time.Hour, 0, -3 * time.Hour, 0} {
			mu.Lock()
			shift = s
			mu.Unlock()
			time.Sleep(2 * time.Hour)
		}
		if n := p.count(); n != 1 {
			t.Errorf("%d reports", n)
		}
		mu.Lock()
		shift = 7 * 24 * time.Hour
		mu.Unlock()
		time.Sleep(2 * time.Hour)
		if n := p.count(); n != 1 || len(r.List()) != 0 {
			t.Errorf("%d reports, %v", n, r.List())
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestDisk: a disk that takes nothing costs no count; a torn line costs that
// line.
func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "reports")
	now := someDay.Add(time.Hour)
	j, err := OpenJournal(dir, now)
	if err != nil {
		t.Fatal(err)
	}
	add := func(n int) (err error) {
		for range n {
			err = j.Add(now, "example.org", none, nil)
		}
		return err
	}
	if err := add(3); err != nil {
		t.Fatal(err)
	}
	away := dir + ".away"
	// as when it is full, for new files
	if err := os.Rename(dir, away); err != nil {
		t.Fatal(err)
	}
	j.days["2026-11-29"].close()
	if err := add(4); err == nil {
		t.Error("no error")
	}
	if err := os.Rename(away, dir); err != nil {
		t.Fatal(err)
	}
	if err := j.Tidy(now); err != nil {
		t.Fatal(err)
	}
	if err := add(1); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "2026-11-29"+journalSuffix)
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"d":"example.org","p":{"policy-ty`); err != nil {
		t.Fatal(err)
	}
	f.Close()
	if j, err = OpenJournal(dir, now); err != nil {
		t.Fatal(err)
	}
	if success, _ := j.Counts(now).Sessions("example.org"); success != 8 {
		t.Errorf("%d sessions, want 8", success)
	}
	if err := add(1); err != nil { // after the torn line
		t.Fatal(err)
	}
	if j, err = OpenJournal(dir, now); err != nil {
		t.Fatal(err)
	}
	if success, _ := j.Counts(now).Sessions("example.org"); success != 9 {
		t.Errorf("%d sessions, want 9", success)
	}
	if err := j.Tidy(now.Add(5 * 24 * time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an old day's file stays")
	}
}

// TestCompact: the file of a day does not grow with its sessions.
func TestCompact(t *testing.T) {
	dir := t.TempDir()
	j, err := OpenJournal(dir, someDay)
	if err != nil {
		t.Fatal(err)
	}
	for range 60_000 {
		if err := j.Add(someDay, "example.org", sts, nil); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, "2026-11-29"+journalSuffix))
	if err != nil || info.Size() > 5<<20 {
		t.Error(info.Size(), err)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(dir, someDay); err != nil {
		t.Fatal(err)
	}
	if n, _ := j.Counts(someDay).Sessions("example.org"); n != 60_000 {
		t.Error(n)
	}
}

// TestPost: what a web server can answer.
func TestPost(t *testing.T) {
	var body []byte
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		var b bytes.Buffer
		_, _ = b.ReadFrom(req.Body)
		body = b.Bytes()
		switch req.URL.Path {
		case "/busy":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "/gone":
			w.WriteHeader(http.StatusGone)
		case "/redirect":
			http.Redirect(w, req, "http://127.0.0.1/", http.StatusTemporaryRedirect)
		case "/large":
			_, _ = w.Write(make([]byte, 1<<20))
		}
		if got := req.Header.Get("Content-Type"); got != "application/tlsrpt+gzip" {
			t.Error(got)
		}
	}))
	defer s.Close()
	client := s.Client()
	client.CheckRedirect = (&Carrier{}).client().CheckRedirect
	c := &Carrier{Client: client}
	for path, want := range map[string]string{"/": "", "/large": "", "/busy": "again", "/gone": "refused", "/redirect": "refused"} {
		err := c.Post(t.Context(), s.URL+path, []byte("report"), func() error { return nil })
		got := ""
		switch {
		case errors.Is(err, ErrRefused):
			got = "refused"
		case err != nil:
			got = "again"
		}
		if got != want || string(body) != "report" {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if err := (&Carrier{}).Post(t.Context(), s.URL, nil, nil); !errors.Is(err, ErrRefused) {
		t.Error("a report went to loopback:", err)
	}
}
