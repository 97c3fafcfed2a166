package source

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/testlog"
)

// machine is a host with some addresses, and a clock.
type machine struct {
	has  map[string]bool
	at   time.Time
	asks int
}

func (m *machine) bind(addr netip.Addr) error {
	m.asks++
	if m.has[addr.String()] {
		return nil
	}
	return &netErr{syscall.EADDRNOTAVAIL}
}

func (m *machine) now() time.Time { return m.at }

// netErr is an error as package net makes them.
type netErr struct{ err error }

func (e *netErr) Error() string { return "listen udp 192.0.2.1:0: bind: " + e.err.Error() }
func (e *netErr) Unwrap() error { return e.err }

func addrs(texts ...string) (all []netip.Addr) {
	for _, text := range texts {
		all = append(all, netip.MustParseAddr(text))
	}
	return all
}

// A source that the host lacks is left out, and warned of once; it comes back
// by itself.
func TestAddressGoesAndComes(t *testing.T) {
	m := &machine{has: map[string]bool{"192.0.2.1": true, "192.0.2.2": true}, at: time.Unix(1000, 0)}
	log := testlog.New()
	p := New(weighted(1, 1), Options{Bind: m.bind, Now: m.now, Logger: slog.New(slog.NewTextHandler(log, nil))})
	own := chosen(t, p, "a.example")
	other := chosen(t, p, "a.example", own)
	m.has[own] = false
	if got := chosen(t, p, "a.example"); got != own {
		t.Error("it was looked more often than once a second")
	}
	for range 3 {
		m.at = m.at.Add(time.Second)
		if got := chosen(t, p, "a.example"); got != other {
			t.Errorf("from %s, which the host lacks", got)
		}
	}
	m.has[own] = true
	m.at = m.at.Add(time.Second)
	if got := chosen(t, p, "a.example"); got != own {
		t.Error("the key does not return to its source")
	}
	if text := log.String(); strings.Count(text, "is left out until it can") != 1 || strings.Count(text, "can be used again") != 1 {
		t.Error(text)
	}
}

// A connection that could not be made from a source leaves it out for ten
// seconds, though it looks as if it were there. A clock that goes back makes
// that no longer.
func TestFailed(t *testing.T) {
	m := &machine{has: map[string]bool{"192.0.2.1": true, "192.0.2.2": true}, at: time.Unix(1000, 0)}
	p := New(weighted(1, 1), Options{Bind: m.bind, Now: m.now})
	c, err := p.Take(&Want{Key: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	for _, back := range []time.Duration{0, time.Hour} {
		c.Failed(errors.New("no port left"))
		m.at = m.at.Add(9 * time.Second)
		if got := chosen(t, p, "a.example"); got == c.Name {
			t.Error("it is in use")
		}
		m.at = m.at.Add(time.Second - back)
		if got := chosen(t, p, "a.example"); got != c.Name {
			t.Error("it is not tried again")
		}
	}
}

// What is not usable is left out: each reason, and what is said when no source
// is left.
func TestLeftOut(t *testing.T) {
	m := &machine{has: map[string]bool{"192.0.2.1": true, "192.0.2.2": true, "2001:db8::2": true, "2001:db8::3": true}, at: time.Unix(1000, 0)}
	both := Source{IPs: addrs("192.0.2.2", "2001:db8::2")}
	// the host has the second alone
	half := Source{IPs: addrs("192.0.2.9", "2001:db8::3")}
	v4, v6 := Source{IPs: addrs("192.0.2.1")}, Source{IPs: addrs("2001:db8::2")}
	gone := Source{IPs: addrs("192.0.2.8")}
	spent := Source{IPs: addrs("192.0.2.1"), Daily: 1}
	paused := func(name string) error { return errors.New(name + " is paused") }
	none := func(string) error { return nil }
	for _, tt := range []struct {
		name   string
		pool   []Source
		host   []netip.Addr
		paused func(string) error
		want   string // names of the addresses, or the error
		waits  bool
	}{
		{"both families", []Source{both}, addrs("198.51.100.1", "2001:db8:1::1"), none, "[192.0.2.2 2001:db8::2]", false},
		{"an IPv4-only host", []Source{both}, addrs("198.51.100.1"), nil, "[192.0.2.2 2001:db8::2]", false},
		{"an IPv6-only host", []Source{v4, v6}, addrs("2001:db8:1::1"), nil, "[2001:db8::2]", false},
		{"an IPv4-only host, an IPv6 source", []Source{v6}, addrs("198.51.100.1"), nil, "no source address is left: 2001:db8::2 has no address of the host's family", false},
		{"a host of no known family", []Source{v6}, nil, nil, "[2001:db8::2]", false},
		{"half of it is there", []Source{half}, addrs("2001:db8:1::1"), nil, "[2001:db8::3]", false},
		{"the other half is wanted", []Source{half}, addrs("198.51.100.1"), nil, "no source address is left: 192.0.2.9 has no address of the host's family", false},
		{"it is not there", []Source{gone}, nil, nil, "no source address is left: 192.0.2.8: 192.0.2.8 cannot be sent from: cannot assign requested address", false},
		{"paused", []Source{v4}, nil, paused, "no source address is left: 192.0.2.1 is paused", true},
		{"spent", []Source{spent}, nil, nil, "[192.0.2.1]", false},
		{"spent, again", []Source{spent}, nil, nil, "no source address is left: 192.0.2.1 has sent its 1 messages of this UTC day", true},
		{"what is over goes to the other", []Source{spent, both}, nil, nil, "[192.0.2.2 2001:db8::2]", false},
	} {
		daily, err := OpenDaily("", m.now)
		if err != nil {
			t.Fatal(err)
		}
		p := New(&Config{Pool: tt.pool}, Options{Bind: m.bind, Now: m.now, Daily: daily})
		want := &Want{Key: "a.example", Addrs: tt.host, Paused: tt.paused}
		if strings.HasSuffix(tt.name, "again") || len(tt.pool) > 1 && tt.pool[0].Daily > 0 {
			daily.take("192.0.2.1", 1)
		}
		looked, lookErr := p.Look(want)
		c, err := p.Take(want)
		if fmt.Sprint(lookErr) != fmt.Sprint(err) || err == nil && looked.Name != c.Name {
			t.Errorf("%s: Look gives %v, %v", tt.name, looked, lookErr)
		}
		if err != nil {
			var none *None
			if err.Error() != tt.want || !errors.As(err, &none) || none.Waits() != tt.waits {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		if got := fmt.Sprint(c.IPs); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// The text is bounded, however many sources there are.
func TestNoneIsShort(t *testing.T) {
	m := &machine{at: time.Unix(1000, 0)}
	c := &Config{}
	for i := range MaxPool {
		c.Pool = append(c.Pool, Source{IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})}})
	}
	p := New(c, Options{Bind: m.bind, Now: m.now})
	_, err := p.Take(&Want{Key: "a.example"})
	if err == nil || len(err.Error()) > 500 || !strings.HasSuffix(err.Error(), "; and 997 more") {
		t.Error(err)
	}
	if n := len(p.States()); n != MaxPool {
		t.Error(n)
	}
	if m.asks != MaxPool {
		t.Errorf("%d looks", m.asks)
	}
}

// Only what a server took counts; giving back twice counts once.
func TestUnsentDoesNotCount(t *testing.T) {
	p := everywhere(&Config{Pool: []Source{{IPs: addrs("192.0.2.1"), Daily: 2}}})
	for _, tt := range []struct {
		end  func(*Choice)
		sent int
	}{
		{func(c *Choice) { c.Unsent(); c.Unsent() }, 0},
		{func(c *Choice) { c.Sent(); c.Unsent() }, 1},
		{func(c *Choice) { c.Unsent() }, 1},
		{func(c *Choice) { c.Sent() }, 2},
	} {
		c, err := p.Take(&Want{})
		if err != nil {
			t.Fatal(err)
		}
		tt.end(c)
		if s := p.States()[0]; s.Sent != tt.sent || s.Spent() != (s.Sent == 2) {
			t.Errorf("%+v, want %d sent", s, tt.sent)
		}
	}
	var none *Choice
	none.Sent()
	none.Unsent()
	if none.From() != "" || len(none.Reaches(addrs("192.0.2.1"))) != 1 {
		t.Error("no choice")
	}
}

func TestReaches(t *testing.T) {
	c := &Choice{IPs: addrs("2001:db8::1")}
	if got := c.Reaches(addrs("192.0.2.1", "2001:db8::2", "192.0.2.3")); fmt.Sprint(got) != "[2001:db8::2]" {
		t.Error(got)
	}
}

// The real one knows loopback, and no address of a documentation network.
func TestBind(t *testing.T) {
	if err := Bind(netip.MustParseAddr("127.9.8.7")); err != nil {
		t.Error(err)
	}
	if err := Bind(netip.MustParseAddr("192.0.2.1")); !errors.Is(err, syscall.EADDRNOTAVAIL) {
		t.Error(err)
	}
}
