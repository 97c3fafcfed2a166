package handshake

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

func TestMemory(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := NewMemory(func() time.Time { return now })
	want := func(what string, floor Floor, step Step) {
		t.Helper()
		if got := m.First("mx.example.org", floor); got != step {
			t.Errorf("%s: %v, want %v", what, got, step)
		}
	}
	want("nothing is known", Opportunistic, Full)
	m.Worked("mx.example.org", Opportunistic, Compatible)
	m.Worked("mx.example.org", Required, Classical)
	want("each floor by itself", Opportunistic, Compatible)
	want("each floor by itself", Required, Classical)

	now = now.Add(time.Hour - time.Second)
	m.Worked("mx.example.org", Required, Classical) // again
	want("for an hour where TLS is required", Required, Classical)
	now = now.Add(time.Second)
	want("an hour is over, however often it worked", Required, Full)
	now = now.Add(23*time.Hour - time.Second)
	want("for a day", Opportunistic, Compatible)
	now = now.Add(time.Second)
	want("a day is over", Opportunistic, Full)

	m.Worked("mx.example.org", Opportunistic, Compatible)
	m.Worked("mx.example.org", Opportunistic, NoSNI)
	want("it needs another", Opportunistic, NoSNI)
	m.Worked("mx.example.org", Opportunistic, Full)
	want("it needs none any more", Opportunistic, Full)
	if list := m.List(); len(list) != 0 {
		t.Errorf("kept: %v", list)
	}

	for _, host := range []string{"mx1.example.org", "mx2.example.org", "mx.example.net"} {
		m.Worked(host, Required, Classical)
		m.Worked(host, Opportunistic, Compatible)
	}
	var lines []string
	for _, r := range m.List() {
		lines = append(lines, fmt.Sprint(r.Host, " ", r.Floor, " ", r.Step, " ", r.Until.Sub(now)))
	}
	if got := strings.Join(lines, "\n"); got != `mx.example.net opportunistic compatible 24h0m0s
mx.example.net required classical 1h0m0s
mx1.example.org opportunistic compatible 24h0m0s
mx1.example.org required classical 1h0m0s
mx2.example.org opportunistic compatible 24h0m0s
mx2.example.org required classical 1h0m0s` {
		t.Errorf("list:\n%s", got)
	}
	if n := m.Forget(func(host string) bool { return strings.HasSuffix(host, ".example.org") }); n != 4 || len(m.List()) != 2 {
		t.Errorf("%d forgotten, %d left", n, len(m.List()))
	}
}

// However many hosts a stranger makes up, 10,000 are remembered.
func TestMemoryIsBounded(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	m := NewMemory(func() time.Time { return now })
	for i := range 25_000 {
		m.Worked(fmt.Sprintf("mx%d.example.org", i), Opportunistic, Compatible)
		if n := len(m.hosts); n > 10_000 {
			t.Fatalf("%d hosts are remembered", n)
		}
	}
	if u := m.Usage(); u.Entries != len(m.hosts) || u.Bytes < 160*9000 || u.Bytes > u.MaxBytes || u.MaxBytes != 10_000*(160+253) {
		t.Errorf("%+v", u)
	}
	if m.First("mx24999.example.org", Opportunistic) != Compatible {
		t.Error("the last one is not among them")
	}
	now = now.Add(24 * time.Hour)
	m.Worked("mx.example.org", Opportunistic, Compatible)
	for i := range 10_000 {
		m.Worked(fmt.Sprintf("new%d.example.org", i), Opportunistic, Compatible)
	}
	if n := len(m.List()); n < 9000 {
		t.Errorf("%d hosts are listed", n)
	}
}
