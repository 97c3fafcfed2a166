package tlsreport

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// courier does as its function says, which gets the place and what says that
// the last byte comes.
type courier func(ctx context.Context, place string, last func() error) error

func (c courier) Mail(ctx context.Context, to string, _ []byte, last func() error) error {
	return c(ctx, to, last)
}

func (c courier) Post(ctx context.Context, uri string, _ []byte, last func() error) error {
	return c(ctx, uri, last)
}

// snapshot copies a state directory: what kill -9 leaves.
func snapshot(t *testing.T, dir string) string {
	t.Helper()
	to := t.TempDir()
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestKilled ends the daemon by kill -9 at each step of a report: what cannot
// have arrived is sent by the next one, what may have is not sent again.
func TestKilled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var snapshots []string
		dir := t.TempDir()
		take := func() {
			mu.Lock()
			defer mu.Unlock()
			snapshots = append(snapshots, snapshot(t, dir))
		}
		r := open(t, config(dir, records{}, courier(func(_ context.Context, _ string, last func() error) error {
			// nothing is written
			take()
			err := last()
			// all is written, and not answered
			take()
			return err
		})))
		observe(r, "example.org", none, nil, 7)
		synctest.Wait()
		// before the day is over
		take()
		time.Sleep(29 * time.Hour)
		synctest.Wait()
		take()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		// in this order: the day, nothing written, all of it, answered
		for i, want := range []int{1, 1, 0, 0} {
			p := &post{}
			r := open(t, config(snapshots[i], records{}, p))
			time.Sleep(10 * time.Hour)
			if n := p.count(); n != want {
				t.Errorf("step %d: sent %d times by the next daemon, want %d", i, n, want)
			}
			if l := r.List(); len(l) != 1 || l[0].Success != 7 {
				t.Errorf("step %d: %+v", i, l)
			}
			if err := r.Close(); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestTorn cuts the file of what was sent, and that of the day, at each byte,
// as a crash of the machine may.
func TestTorn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		// the size of the file when a place had its report
		sentAt := map[string]int64{}
		size := func(name string) int64 {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil {
				t.Fatal(err)
			}
			return info.Size()
		}
		r := open(t, config(dir, records{}, courier(func(_ context.Context, place string, last func() error) error {
			if err := last(); err != nil {
				return err
			}
			sentAt[place] = size(sentFile)
			return nil
		})))
		for i := range 3 {
			observe(r, fmt.Sprintf("d%d.example", i), none, failed(StartTLSNotSupported, "mx"), 2)
		}
		time.Sleep(29 * time.Hour)
		synctest.Wait()
		if len(sentAt) != 3 {
			t.Fatal(sentAt)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		sentText, err := os.ReadFile(filepath.Join(dir, sentFile))
		if err != nil {
			t.Fatal(err)
		}
		for n := range size(sentFile) + 1 {
			// Each byte near a line's end; some of the others, which are
			// alike.
			if near := sentText[max(n-3, 0):min(n+3, size(sentFile))]; n%16 != 0 && !bytes.Contains(near, []byte("\n")) {
				continue
			}
			to := snapshot(t, dir)
			if err := os.Truncate(filepath.Join(to, sentFile), n); err != nil {
				t.Fatal(err)
			}
			p := &post{}
			r := open(t, config(to, records{}, p))
			_ = r.SendNow(t.Context(), "")
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			for place, at := range sentAt {
				had := 0
				if at <= n {
					had = 1
				}
				if got := had + len(p.got[place]); got != 1 {
					t.Errorf("cut at %d: %s got %d reports", n, place, got)
				}
			}
		}
		day := "2000-01-01" + journalSuffix
		text, err := os.ReadFile(filepath.Join(dir, day))
		if err != nil {
			t.Fatal(err)
		}
		whole := uint64(0)
		for n := range text {
			if n > 0 && text[n-1] == '\n' {
				whole++
			}
			to := snapshot(t, dir)
			if err := os.Truncate(filepath.Join(to, day), int64(n)); err != nil {
				t.Fatal(err)
			}
			j, err := OpenJournal(to, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			var sum uint64
			for i := range 3 {
				_, failed := j.Counts(time.Now().Add(-29 * time.Hour)).Sessions(fmt.Sprintf("d%d.example", i))
				sum += failed
			}
			// A line without its end is read where it is whole otherwise.
			if sum != whole && !(sum == whole+1 && text[n] == '\n') {
				t.Fatalf("cut at %d: %d sessions, want %d", n, sum, whole)
			}
		}
	})
}

// TestEnd stops the daemon in the middle of a report: the answer to one that
// is written is waited for a little, any other is left to the next daemon.
func TestEnd(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer time.Duration // from the last byte
		write  bool          // it came to the last byte
		state  State
		next   int
	}{
		{"unwritten", 0, false, Waiting, 1},
		{"answered at once", time.Second, true, Sent, 0},
		{"answered too late", time.Minute, true, Refused, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir, reached := t.TempDir(), make(chan bool)
				r := open(t, config(dir, records{}, courier(func(ctx context.Context, _ string, last func() error) error {
					if c.write {
						if err := last(); err != nil {
							return err
						}
					}
					close(reached)
					wait := time.After(c.answer)
					if !c.write {
						wait = nil
					}
					select {
					case <-wait:
						return nil
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				})))
				observe(r, "example.org", none, nil, 1)
				<-reached
				if err := r.Close(); err != nil {
					t.Fatal(err)
				}
				if l := r.List(); len(l[0].Places) != 1 || l[0].Places[0].State != c.state {
					t.Errorf("%+v, want %s", l[0].Places, c.state)
				}
				p := &post{}
				r = open(t, config(dir, records{}, p))
				time.Sleep(10 * time.Hour)
				if n := p.count(); n != c.next {
					t.Errorf("sent %d times by the next daemon, want %d", n, c.next)
				}
				if err := r.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// changing is a record with other places at each look.
type changing struct{ looks int }

func (c *changing) TXT(context.Context, string) ([]string, error) {
	c.looks++
	return []string{fmt.Sprintf("v=TLSRPTv1; rua=mailto:a%d@example.org,mailto:down%d@example.org", c.looks, c.looks)}, nil
}

// TestChangingRecord: a record that names others at each look gets no more
// reports than any other.
func TestChangingRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &post{fails: func(place string) error {
			if place[0] == 'd' {
				return errors.New("busy")
			}
			return nil
		}}
		r := open(t, config(t.TempDir(), &changing{}, p))
		observe(r, "example.org", none, nil, 1)
		time.Sleep(60 * time.Hour)
		if n := p.count(); n != MaxTargets {
			t.Errorf("%d reports", n)
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}

// TestHangingPlaces: places that hang hold up no domain's first try, however
// many there are.
func TestHangingPlaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const hanging = 400
		sent := map[string]time.Time{}
		mu := make(chan struct{}, 1)
		r := open(t, config("", records{}, courier(func(ctx context.Context, place string, last func() error) error {
			if place[:len("reports@good")] != "reports@good" {
				time.Sleep(time.Minute)
				return context.DeadlineExceeded
			}
			mu <- struct{}{}
			sent[place] = time.Now()
			<-mu
			return last()
		})))
		for i := range hanging {
			observe(r, fmt.Sprintf("hangs%d.example", i), none, nil, 1)
			if i%10 == 0 {
				observe(r, fmt.Sprintf("good%d.example", i), none, nil, 1)
			}
			if i%1000 == 0 {
				synctest.Wait()
			}
		}
		time.Sleep(29*time.Hour + 30*time.Minute)
		synctest.Wait()
		for i := 0; i < hanging; i += 10 {
			domain := fmt.Sprintf("good%d.example", i)
			at, ok := sent["reports@"+domain]
			turn := due(domain, time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
			if !ok || at.Sub(turn) > time.Hour {
				t.Errorf("%s: sent %v, %v after its turn", domain, ok, at.Sub(turn))
			}
		}
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
}
