package transport

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/delivery"
	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/pause"
	"github.com/mxpipe/mxpipe/transport/provider"
	"github.com/mxpipe/mxpipe/transport/replyrule"
	"github.com/mxpipe/mxpipe/transport/source"
)

// from makes a source with a name of its own in EHLO.
func from(ip, hostname string) source.Source {
	return source.Source{IPs: []netip.Addr{netip.MustParseAddr(ip)}, Hostname: hostname}
}

// loopbackSources are two that this host has, as all loopback addresses.
func loopbackSources() []source.Source {
	return []source.Source{from("127.9.0.1", "out1.client.example"), from("127.9.0.2", "out2.client.example")}
}

// leavesFrom has the lab's transport leave from a pool.
func (l *lab) leavesFrom(by source.By, pool ...source.Source) func(*Config) {
	return func(c *Config) { c.Sources = &source.Config{By: by, Pool: pool} }
}

// sendFrom delivers the usual message of a sender.
func (l *lab) sendFrom(sender string, to ...string) []Result {
	l.t.Helper()
	return l.sendAs(func(e *Envelope) { e.Sender = sender }, to...)
}

// helloAt gives the name in EHLO that the server's last message came with.
func helloAt(t *testing.T, server *mx.Server) string {
	t.Helper()
	n := server.Counters().Messages
	all, err := server.Wait(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return all[n-1].Hello
}

// Mail of a sender's domain keeps its source: address and name agree with each
// other, in the log, in what is told of the delivery and in the explanation,
// and no idle connection of one source carries the mail of another.
func TestSources(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	locals := map[string]string{} // by sender
	l.observe = func(e *Event) {
		locals[e.Envelope.Sender] = e.Attempts[len(e.Attempts)-1].Local.String()
	}
	l.startPooled(func(c *Config) {
		l.leavesFrom(source.BySender, loopbackSources()...)(c)
		c.ConnReuseLimit = 100
	})
	used := map[string]string{}
	for round := range 2 {
		for i := range 12 {
			sender := fmt.Sprintf("a@s%d.example", i)
			expect(t, l.sendFrom(sender, "b@a.example"), "2.0.0")
			ip, name := locals[sender], helloAt(t, server)
			if want := map[string]string{"127.9.0.1": "out1.client.example", "127.9.0.2": "out2.client.example"}[ip]; want != name {
				t.Errorf("%s: from %s as %s", sender, ip, name)
			}
			if round == 1 && used[sender] != ip {
				t.Errorf("%s: from %s, before from %s", sender, ip, used[sender])
			}
			used[sender] = ip
			lines := l.lines("delivered")
			if got := lines[len(lines)-1]["source"]; got != ip {
				t.Errorf("%s: the log says %v", sender, got)
			}
			e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", From: sender})
			if h := e.Hosts[0]; h.Source != ip || h.Idle != 1 {
				t.Errorf("%s: explained as from %s over %d connections, is from %s", sender, h.Source, h.Idle, ip)
			}
		}
	}
	count := map[string]int{}
	for _, ip := range used {
		count[ip]++
	}
	if len(count) != 2 {
		t.Errorf("all from one source: %v", count)
	}
	counts(t, server, 2, 24) // one connection from each
	if s := l.transport.Snapshot().Sources; len(s) != 2 || s[0].Name != "127.9.0.1" || s[0].Out != "" || s[1].Hostname != "out2.client.example" {
		t.Errorf("%+v", s)
	}
}

// A message that is tried again has its source again, and so has a destination.
func TestSourceByDestinationAndMessage(t *testing.T) {
	for _, by := range []source.By{source.ByDestination, source.ByMessage} {
		l := newLab(t)
		server := l.mx("mx.a.example", nil)
		used := map[string]string{}
		l.start(l.leavesFrom(by, loopbackSources()...))
		for range 2 {
			for i := range 12 {
				domain, id := fmt.Sprintf("d%d.example", i), fmt.Sprintf("4XyZ%d", i)
				l.zone("%s. MX 10 mx.a.example.", domain)
				if by == source.ByMessage {
					domain = "d0.example"
				}
				expect(t, l.sendAs(func(e *Envelope) { e.QueueID, e.Sender = id, fmt.Sprintf("a@s%d.example", len(used)) }, "b@"+domain), "2.0.0")
				if got := helloAt(t, server); used[id] != "" && used[id] != got {
					t.Errorf("%v: %s from %s, before from %s", by, id, got, used[id])
				} else {
					used[id] = got
				}
			}
		}
		names := map[string]bool{}
		for _, name := range used {
			names[name] = true
		}
		if len(names) != 2 {
			t.Errorf("%v: all from one source", by)
		}
	}
}

// Each source's name is ours: a server that says it, and an MX that has it, is
// this host.
func TestSourceNamesAreOurs(t *testing.T) {
	l := newLab(t)
	l.play("mx.a.example", "S: 220 out2.client.example ESMTP\nEND")
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 out1.client.example.")
	l.start(l.leavesFrom(source.BySender, loopbackSources()...))
	expect(t, l.send("b@a.example"), "5.4.6 loops back to this host: the server calls itself out2.client.example")
	expect(t, l.send("b@b.example"), "5.4.6")
}

// A source sends no more on a day than it may, also over a restart; what is
// over goes to the others, and waits when none is left. What no server took
// does not count.
func TestSourceDaily(t *testing.T) {
	l := newLab(t)
	dir := t.TempDir()
	at := time.Date(2026, 12, 1, 12, 0, 0, 0, time.UTC)
	open := func() {
		t.Helper()
		var err error
		l.daily, err = source.OpenDaily(dir, func() time.Time { return at })
		l.must(err)
	}
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	pool := loopbackSources()
	pool[0].Daily, pool[1].Daily = 3, 2
	open()
	l.startPooled(l.leavesFrom(source.BySender, pool...))
	expect(t, l.send("nosuch@a.example", "later@a.example"), "5.1.1", "4.2.0")
	sent := map[string]int{}
	deliver := func(n int) {
		t.Helper()
		for range n {
			expect(t, l.send("b@a.example", "nosuch@a.example"), "2.0.0", "5.1.1")
			sent[helloAt(t, server)]++
		}
	}
	deliver(4)
	l.must(l.daily.Save())
	l.transport.Close()
	open()
	l.startPooled(l.leavesFrom(source.BySender, pool...))
	deliver(1)
	if sent["out1.client.example"] != 3 || sent["out2.client.example"] != 2 {
		t.Errorf("sent %v", sent)
	}
	expect(t, l.send("b@a.example"), "4.4.5 has sent its 3 messages of this UTC day")
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", From: "a@client.example"})
	if e.Forecast() != Undeliverable || e.Answer().Code.String() != "4.4.5" || e.Hosts[0].Source != "" {
		t.Errorf("%v %v", e.Forecast(), e.Answer())
	}
	for _, s := range l.transport.Snapshot().Sources {
		if !s.Spent() {
			t.Errorf("%+v", s)
		}
	}
	if n := l.transport.Stats().Sources; n != (SourceCount{Spent: 2}) {
		t.Errorf("%+v", n)
	}
	at = at.Add(12 * time.Hour)
	if n := l.transport.Stats().Sources; n != (SourceCount{Usable: 2}) {
		t.Errorf("%+v", n)
	}
	deliver(1)
	at = at.Add(-time.Hour) // the clock goes back over midnight
	deliver(4)
	expect(t, l.send("b@a.example"), "4.4.5")
	if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
		t.Errorf("dead: %+v", dead)
	}
}

// An address that this host lacks is left out, and warned of; the mail goes
// from another. When none is left that is our own trouble, and no fault of the
// host's.
func TestSourceNotHere(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	gone := from("192.0.2.222", "gone.client.example")
	gone.Weight = source.MaxWeight
	l.start(l.leavesFrom(source.BySender, gone, loopbackSources()[0]))
	for i := range 5 {
		expect(t, l.sendFrom(fmt.Sprintf("a@s%d.example", i), "b@a.example"), "2.0.0")
		if got := helloAt(t, server); got != "out1.client.example" {
			t.Errorf("from %s", got)
		}
	}
	lines := l.lines("a source address cannot be used, and is left out until it can")
	if len(lines) != 1 || lines[0]["level"] != "WARN" || lines[0]["source"] != "192.0.2.222" {
		t.Errorf("%v", lines)
	}
	l.transport.Close()
	l.start(l.leavesFrom(source.BySender, gone))
	for range 3 {
		expect(t, l.send("b@a.example"), "4.3.0 no source address is left: 192.0.2.222: 192.0.2.222 cannot be sent from: cannot assign requested address")
	}
	s := l.transport.Snapshot()
	if len(s.Dead) != 0 || s.Sources[0].Out == "" {
		t.Errorf("%+v", s)
	}
	if n := l.transport.Stats().Sources; n != (SourceCount{Out: 1}) {
		t.Errorf("%+v", n)
	}
}

// An address that goes when it was just found to be there: the delivery goes on
// from another, and the host is not dead.
func TestSourceGoesAtTheWrongTime(t *testing.T) {
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(nil)
	gone := from("192.0.2.222", "")
	gone.Weight, gone.Daily = source.MaxWeight, 5
	sources := source.New(&source.Config{Pool: []source.Source{gone, loopbackSources()[0]}}, source.Options{Bind: func(netip.Addr) error { return nil }})
	l.transport.base.delivery.Sources = sources
	for range 3 {
		expect(t, l.send("b@a.example"), "2.0.0")
	}
	if got := helloAt(t, server); got != "out1.client.example" {
		t.Errorf("from %s", got)
	}
	if s := sources.States()[0]; s.Sent != 0 || !strings.Contains(s.Out, "the source address 192.0.2.222 is not this host's") {
		t.Errorf("%+v", s)
	}
	if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
		t.Errorf("dead: %+v", dead)
	}
	l.transport.base.delivery.Sources = source.New(&source.Config{Pool: []source.Source{gone}}, source.Options{Bind: func(netip.Addr) error { return nil }})
	expect(t, l.send("b@a.example"), "4.3.0 the source address 192.0.2.222 is not this host's")
	expect(t, l.send("b@a.example"), "4.3.0 no source address is left")
	if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
		t.Errorf("dead: %+v", dead)
	}
}

// A source of one family is no way to a host of the other, whatever the kernel
// would choose.
func TestSourceFamilies(t *testing.T) {
	l := newLab(t)
	four := l.mx("mx4.a.example", nil)
	l.zone("a.example. MX 10 mx4.a.example.")
	v6 := from("::1", "six.client.example")
	v6.Weight = source.MaxWeight
	l.start(l.leavesFrom(source.BySender, v6, loopbackSources()[0]))
	expect(t, l.send("b@a.example"), "2.0.0")
	if got := helloAt(t, four); got != "out1.client.example" {
		t.Errorf("from %s", got)
	}
	l.transport.Close()
	l.start(l.leavesFrom(source.BySender, v6))
	expect(t, l.send("b@a.example"), "4.3.0 no source address is left: ::1 has no address of the host's family")
	if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
		t.Errorf("dead: %+v", dead)
	}
}

// A reply that blames the source address pauses that source alone, towards that
// provider alone; when all are paused the mail waits, with the reply quoted.
func TestSourcePaused(t *testing.T) {
	l := newLab(t)
	providers, err := provider.New([]provider.Provider{{Name: "big", MX: []string{".big.example"}}})
	l.must(err)
	rules, err := replyrule.New([]replyrule.Rule{{Match: "listed at", Do: replyrule.Pause, Pause: time.Hour, Scope: replyrule.SourceIP}})
	l.must(err)
	at := time.Now()
	l.traffic = delivery.Traffic{Providers: providers, Rules: rules, Pauses: pause.New(func() time.Time { return at })}
	listed := mx.Action{Reply: "450 4.7.1 127.9.0.1 is listed at bl.example", Times: 2}
	big := l.mx("mx.big.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageMAIL: listed} })
	other := l.mx("mx.other.example", nil)
	l.zone("a.example. MX 10 mx.big.example.\nb.example. MX 10 mx.other.example.")
	l.start(l.leavesFrom(source.BySender, loopbackSources()...))

	expect(t, l.send("b@b.example"), "2.0.0")
	own := helloAt(t, other)
	expect(t, l.send("b@a.example"), "4.7.1 mx.big.example: 450 4.7.1")
	// the second is from the other source
	expect(t, l.send("b@a.example"), "4.7.1 mx.big.example: 450 4.7.1")
	connections := big.Counters().Connections
	r := l.send("b@a.example")
	expect(t, r, "4.4.5 source_ip 127.9.0.")
	if !strings.Contains(r[0].Text, " at big is paused, because of: 450 4.7.1 … is listed at bl.example") {
		t.Error(r[0].Text)
	}
	if n := big.Counters().Connections; n != connections {
		t.Error("somebody was dialled during the pause")
	}
	expect(t, l.send("b@b.example"), "2.0.0")
	if got := helloAt(t, other); got != own {
		t.Errorf("paused elsewhere too: from %s, before from %s", got, own)
	}
	if list := l.traffic.Pauses.List(); len(list) != 2 || list[0].Key.Source == list[1].Key.Source || list[0].Key.Source == "" {
		t.Errorf("%+v", list)
	}
	at = at.Add(time.Hour)
	expect(t, l.send("b@a.example"), "2.0.0 mx.big.example")
	if got := helloAt(t, big); got != own {
		t.Errorf("from %s, before from %s", got, own)
	}
}

// While one source is blocked by a receiver, all mail goes on from the others.
func TestOneSourceBlocked(t *testing.T) {
	l := newLab(t)
	rules, err := replyrule.New([]replyrule.Rule{{Match: "listed at", Do: replyrule.Pause, Pause: time.Hour, Scope: replyrule.SourceIP}})
	l.must(err)
	l.traffic = delivery.Traffic{Rules: rules, Pauses: pause.New(time.Now)}
	server := l.mx("mx.a.example", func(h *mx.Behaviour) {
		h.At = map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "550 5.7.1 your address is listed at bl.example", Times: 1}}
	})
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(l.leavesFrom(source.ByMessage, loopbackSources()...))
	// the rule changes no result
	expect(t, l.send("b@a.example"), "5.7.1 listed at bl.example")
	blocked := l.traffic.Pauses.List()[0].Key.Source
	for i := range 20 {
		expect(t, l.sendAs(func(e *Envelope) { e.QueueID = fmt.Sprint(i) }, "b@a.example"), "2.0.0")
	}
	all, err := server.Wait(context.Background(), 20)
	l.must(err)
	for _, m := range all {
		if (m.Hello == "out1.client.example") == (blocked == "127.9.0.1") {
			t.Errorf("from %s, though %s is blocked", m.Hello, blocked)
		}
	}
}

// limits.source_ip counts by our own address, over new and kept connections:
// that of a source, of local_ip, or the one that the kernel chooses.
func TestSourceIPLimit(t *testing.T) {
	for name, change := range map[string]func(l *lab, c *Config){
		"sources":  func(l *lab, c *Config) { l.leavesFrom(source.ByDestination, loopbackSources()[0])(c) },
		"local_ip": func(_ *lab, c *Config) { c.LocalIP = []netip.Addr{netip.MustParseAddr("127.9.0.1")} },
		"kernel":   func(*lab, *Config) {},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("mx.a.example", nil)
			l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.a.example.")
			l.startPooled(func(c *Config) {
				change(l, c)
				c.Limits[limit.SourceIP] = limit.Limit{Rate: 2, Period: 24 * time.Hour}
			})
			expect(t, l.send("b@a.example"), "2.0.0")
			expect(t, l.send("b@b.example"), "2.0.0")
			counts(t, server, 1, 2)
			key := "127.9.0.1"
			if name == "kernel" {
				key = "127.0.0.1"
			}
			if s, _ := l.transport.base.limits.KeyState(limit.SourceIP, key); s.Tokens >= 1 || s.Open != 0 {
				t.Errorf("%+v", s)
			}
			expect(t, l.send("b@a.example"), "4.4.5 local limit for source address "+key+": no slot within 5s")
			counts(t, server, 1, 2)
		})
	}
}

// A source's limit keeps nothing from the other source.
func TestSourceIPLimitIsByAddress(t *testing.T) {
	l := newLab(t)
	l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) {
		l.leavesFrom(source.BySender, loopbackSources()...)(c)
		c.Limits[limit.SourceIP] = limit.Limit{Rate: 6, Period: 24 * time.Hour}
	})
	used := map[string]int{}
	for i := range 100 {
		sender := fmt.Sprintf("a@s%d.example", i)
		e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", From: sender})
		ip := e.Hosts[0].Source
		if used[ip] == 6 {
			if e.Answer() == nil || e.Answer().Code.String() != "4.4.5" {
				t.Errorf("%s: explained as %v", ip, e.Answer())
			}
			continue
		}
		expect(t, l.sendFrom(sender, "b@a.example"), "2.0.0")
		used[ip]++
	}
	if used["127.9.0.1"] != 6 || used["127.9.0.2"] != 6 {
		t.Errorf("%v", used)
	}
}
