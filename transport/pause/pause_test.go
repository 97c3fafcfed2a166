package pause

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/status"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

var (
	google = Key{Scope: replyrule.Provider, Name: "google"}
	source = Key{Scope: replyrule.SourceIP, Name: "google", Source: "192.0.2.1"}
	domain = Key{Scope: replyrule.Domain, Name: "example.org"}
)

func newPauses(t *testing.T) (*Pauses, *clock) {
	t.Helper()
	c := &clock{time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	return New(c.now), c
}

// goes asks for leave, and gives the trial.
func goes(t *testing.T, p *Pauses, keys ...Key) *Trial {
	t.Helper()
	trial, err := p.Begin(keys...)
	if err != nil {
		t.Fatal(err)
	}
	return trial
}

func waits(t *testing.T, p *Pauses, want string, keys ...Key) {
	t.Helper()
	_, err := p.Begin(keys...)
	var paused *Paused
	if !errors.As(err, &paused) || !strings.Contains(err.Error(), want) {
		t.Fatalf("%v, want %q", err, want)
	}
	if code := paused.Status().Code; code != status.New(status.Temporary, 4, 5) {
		t.Error(code)
	}
}

func TestBreaker(t *testing.T) {
	p, c := newPauses(t)
	if trial := goes(t, p, google, domain); trial != nil {
		t.Fatal("a trial without a pause")
	}
	if !p.Pause(google, 30*time.Minute, "421 4.7.0 from 192.0.2.1 for a@b.example: slow [2001:db8::1]") {
		t.Error("it began")
	}
	if p.Pause(google, 10*time.Minute, "another") {
		t.Error("it had begun")
	}
	waits(t, p, "provider google is paused until 2026-11-30 12:30:00 UTC, because of: 421 4.7.0 from … for … slow […]", domain, google)
	if goes(t, p, domain) != nil || goes(t, p, source) != nil {
		t.Error("others are not paused")
	}
	c.at = c.at.Add(30 * time.Minute)
	if p.State(google) != nil {
		t.Error("the time is over")
	}
	trial := goes(t, p, google)
	if trial == nil {
		t.Fatal("no trial")
	}
	waits(t, p, "while one message tries", google)
	trial.Abandoned()
	trial.Over() // does nothing
	trial = goes(t, p, google)
	p.Pause(google, time.Hour, "again")
	trial.Over() // came too late: the answer was a pause
	waits(t, p, "until 2026-11-30 13:30:00 UTC, because of: again", google)
	c.at = c.at.Add(time.Hour)
	trial = goes(t, p, google)
	trial.Over()
	if goes(t, p, google) != nil || len(p.List()) != 0 {
		t.Error("closed after a trial that was answered")
	}
}

// TestSeveralKeys: a message is the trial of all its keys, or of none.
func TestSeveralKeys(t *testing.T) {
	p, c := newPauses(t)
	p.Pause(google, time.Minute, "a")
	p.Pause(source, time.Hour, "b")
	c.at = c.at.Add(time.Minute)
	waits(t, p, "source_ip 192.0.2.1 at google", google, source)
	trial := goes(t, p, google) // by another source: still to be tried
	if trial == nil {
		t.Fatal("the message that was refused took the trial with it")
	}
	trial.Over()
	if got := fmt.Sprint(len(p.List()), p.List()[0].Key); got != "1 source_ip 192.0.2.1 at google" {
		t.Error(got)
	}
	if !p.Resume(source) || p.Resume(source) {
		t.Error("resumed once")
	}
}

func TestBound(t *testing.T) {
	p, _ := newPauses(t)
	if p.max != 50_000 {
		t.Error(p.max)
	}
	p.max = 100
	for i := range 150 {
		p.Pause(Key{Name: fmt.Sprint(i)}, time.Hour, strings.Repeat("ü", 500))
	}
	all := p.List()
	if len(all) != 100 || len(all[0].Reply) != 300 {
		t.Error(len(all), len(all[0].Reply))
	}
	if u := p.Usage(); u.Entries != 100 || u.Bytes < 100*(384+300) || u.Bytes > u.MaxBytes || u.MaxBytes != 100*(384+253+39+300) {
		t.Errorf("%+v", u)
	}
	if p.State(Key{Name: "49"}) != nil || p.State(Key{Name: "50"}) == nil {
		t.Error("the longest unused goes first")
	}
}
