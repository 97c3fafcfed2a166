package suspension

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/status"
)

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func open(t *testing.T, dir string, c *clock) *List {
	t.Helper()
	l, err := Open(dir, c.now)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSuspend(t *testing.T) {
	dir, c := t.TempDir(), &clock{time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)}
	l := open(t, dir, c)
	if s := l.Find("default", "example.org", "google"); s != nil {
		t.Fatal(s)
	}
	for target, until := range map[Target]time.Time{
		{Domain, "example.org"}:  {},
		{Provider, "google"}:     c.at.Add(time.Hour),
		{Transport, "bulk"}:      c.at.Add(2 * time.Hour),
		{Provider, "default"}:    {}, // a name of another kind
		{Domain, "transport:x"}:  {},
		{Transport, "resumable"}: {},
	} {
		if err := l.Suspend(target, until, "the reason"); err != nil {
			t.Fatal(err)
		}
	}
	for _, list := range []*List{l, open(t, dir, c)} { // also after a restart
		for _, q := range []struct{ transport, domain, provider, want string }{
			{"default", "example.org", "", "example.org is suspended: the reason"},
			{"default", "sub.example.org", "", ""},
			{"default", "example.net", "google", "provider:google is suspended: the reason, until 2026-11-30 13:00 UTC"},
			{"bulk", "example.net", "", "transport:bulk is suspended: the reason, until 2026-11-30 14:00 UTC"},
			{"default", "example.net", "microsoft", ""},
			{"", "", "", ""},
		} {
			got := ""
			if s := list.Find(q.transport, q.domain, q.provider); s != nil {
				err := s.Err()
				if err.Code != status.New(status.Temporary, 3, 2) {
					t.Error(err.Code)
				}
				if got = err.Text; err.Moment != "" {
					got += ", " + err.Moment
				}
			}
			if got != q.want {
				t.Errorf("%+v: %q", q, got)
			}
		}
	}
	if was, err := l.Resume(Target{Transport, "resumable"}); !was || err != nil {
		t.Error(was, err)
	}
	if was, err := l.Resume(Target{Transport, "resumable"}); was || err != nil {
		t.Error(was, err)
	}
	c.at = c.at.Add(90 * time.Minute)
	if l.Find("default", "example.net", "google") != nil {
		t.Error("it does not end")
	}
	if got := fmt.Sprint(len(l.All()), l.All()[0].Target); got != "4 example.org" {
		t.Error(got)
	}
}

// TestDisk: a change that cannot be written is none; a damaged file is set
// aside.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, &clock{time.Now()})
	l.dir = filepath.Join(dir, "none")
	if err := l.Suspend(Target{Domain, "example.org"}, time.Time{}, ""); err == nil {
		t.Error("no error")
	}
	if l.Find("", "example.org", "") != nil {
		t.Error("suspended without being written")
	}
	path := filepath.Join(dir, fileName)
	if err := os.WriteFile(path, []byte(`[{"kind":`), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := Open(dir, time.Now)
	if err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Error(err)
	}
	if err := l.Suspend(Target{Domain, "example.org"}, time.Time{}, strings.Repeat("ä", 200)); err != nil {
		t.Error(err)
	}
	if s := l.Find("", "example.org", ""); s == nil || len(s.Reason) != MaxReason {
		t.Error(s)
	}
	if _, err := os.Stat(path + ".damaged"); err != nil {
		t.Error(err)
	}
}

func TestMany(t *testing.T) {
	l := open(t, "", &clock{time.Now()})
	for i := range 10_000 {
		l.targets[Target{Domain, fmt.Sprint(i)}] = Suspension{}
	}
	if err := l.Suspend(Target{Domain, "one.more"}, time.Time{}, ""); err != ErrMany {
		t.Error(err)
	}
	if u := l.Usage(); u.Entries != 10_000 || u.Bytes < 256*10_000 || u.MaxBytes != 10_000*(256+253+200) {
		t.Errorf("%+v", u)
	}
	if err := l.Suspend(Target{Domain, "1"}, time.Time{}, "again"); err != nil {
		t.Error(err)
	}
}
