package transport

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/pool"
)

// A server that ends the connection before it said a word about the message.
const speechless = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nBDAT\nC: NOOP\nDROP"

// A message goes on to the next host when the connection ended before any
// reply, but only twice in a delivery.
func TestTwoResends(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	for i := range 3 {
		l.play(fmt.Sprintf("mx%d.a.example", i+1), speechless)
		l.zone("a.example. MX %d mx%d.a.example.", i+1, i+1)
	}
	last := l.mx("mx4.a.example", nil)
	l.zone("a.example. MX 40 mx4.a.example.")
	l.start(nil)
	expect(t, l.send("b@a.example"), "4.4.2 mx3.a.example: end of message: the server closed the connection")
	counts(t, last, 0, 0)
	line := l.lines("deferred")[0]
	if line["resent"] != 2.0 {
		t.Errorf("sent again %v times, says the log", line["resent"])
	}
	tried := line["tried"].(string)
	if !strings.Contains(tried, "mx1.a.example") || !strings.Contains(tried, "mx2.a.example") {
		t.Errorf("tried %q", tried)
	}
}

// Two do reach a host that is well.
func TestResendArrives(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.play("mx1.a.example", speechless)
	l.play("mx2.a.example", speechless)
	last := l.mx("mx3.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.\na.example. MX 30 mx3.a.example.")
	l.start(nil)
	expect(t, l.send("b@a.example"), "2.0.0 mx3.a.example")
	counts(t, last, 1, 1)
	if line := l.lines("delivered")[0]; line["resent"] != 2.0 {
		t.Errorf("sent again %v times, says the log", line["resent"])
	}
}

// What was never sent again is not said to be: the only host's connection
// ended, and there is nobody else.
func TestNoResendWhereNobodyIsLeft(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.play("mx1.a.example", speechless)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	expect(t, l.send("b@a.example"), "4.4.2 mx1.a.example: end of message: the server closed the connection")
	if line := l.lines("deferred")[0]; line["resent"] != nil {
		t.Errorf("sent again %v times, says the log", line["resent"])
	}
}

// Nothing is sent again for a client that has gone.
func TestNoResendForNobody(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.play("mx1.a.example", strings.Replace(speechless, "DROP", "MARK came\nWAIT gone\nDROP", 1))
	next := l.mx("mx2.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
	l.start(nil)
	ctx, leave := context.WithCancelCause(t.Context())
	done := make(chan []Result)
	go func() { done <- l.sendText(ctx, text, "b@a.example") }()
	if err := server.WaitMark(t.Context(), "came"); err != nil {
		t.Fatal(err)
	}
	leave(ErrGone)
	server.Open("gone")
	expect(t, <-done, "4.4.2 mx1.a.example")
	counts(t, next, 0, 0)
}

// Each of a host's addresses counts, two in all: a temporary refusal before
// anybody was accepted, and a connection that ends before the message, send it
// to the next address, and then to the next host.
func TestEachAddressCounts(t *testing.T) {
	t.Parallel()
	var (
		deferred = mx.Action{Reply: "451 4.3.0 later"}
		leaving  = mx.Action{Reply: "421 4.3.2 going down"}
		dropped  = mx.Action{Drop: mx.Close}
	)
	for name, bad := range map[string]func(i int) (mx.Stage, mx.Action){
		"greeting 421":     func(int) (mx.Stage, mx.Action) { return mx.StageGreeting, leaving },
		"greeting dropped": func(int) (mx.Stage, mx.Action) { return mx.StageGreeting, dropped },
		"EHLO deferred":    func(int) (mx.Stage, mx.Action) { return mx.StageEHLO, deferred },
		"EHLO dropped":     func(int) (mx.Stage, mx.Action) { return mx.StageEHLO, dropped },
		"MAIL deferred":    func(int) (mx.Stage, mx.Action) { return mx.StageMAIL, deferred },
		"MAIL 421":         func(int) (mx.Stage, mx.Action) { return mx.StageMAIL, leaving },
		"MAIL dropped":     func(int) (mx.Stage, mx.Action) { return mx.StageMAIL, dropped },
		"RCPT deferred":    func(int) (mx.Stage, mx.Action) { return mx.StageRCPT, deferred },
		"each its own way": func(i int) (mx.Stage, mx.Action) {
			return []mx.Stage{mx.StageGreeting, mx.StageMAIL, mx.StageEHLO}[i], []mx.Action{leaving, deferred, dropped}[i]
		},
	} {
		l := newLab(t)
		var servers []*mx.Server
		for i := range 3 {
			host := fmt.Sprintf("mx%d.a.example", i)
			servers = append(servers, l.mx(host, func(h *mx.Behaviour) {
				h.Keywords = mx.AllKeywords &^ mx.Chunking
				stage, act := bad(i)
				h.At = map[mx.Stage]mx.Action{stage: act}
			}))
			addr, _, _ := strings.Cut(servers[i].Addr(), ":")
			l.zone("mx.a.example. A %s", addr)
		}
		next := l.mx("next.a.example", nil)
		l.zone("a.example. MX 10 mx.a.example.\na.example. MX 20 next.a.example.")
		l.start(nil)
		expect(t, l.send("b@a.example"), "2.0.0 next.a.example")
		tried, connections := 0, 0
		for _, server := range servers {
			n := server.Counters().Connections
			tried += min(1, n)
			connections += n
		}
		if tried != 2 || connections != 2 {
			t.Errorf("%s: %d addresses were tried, by %d connections, want 2", name, tried, connections)
		}
		counts(t, next, 1, 1)
	}
}

// A permanent refusal, and one after a recipient was accepted, is the host's
// word: no other address is asked.
func TestOneAddressSpeaksForTheHost(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		stage mx.Stage
		reply string
		want  string
	}{
		"MAIL refused":     {mx.StageMAIL, "550 5.7.1 no", "5.7.1 mx.a.example"},
		"message deferred": {mx.StageFinal, "451 4.3.0 later", "4.3.0 mx.a.example"},
	} {
		l := newLab(t)
		var servers []*mx.Server
		for i := range 2 {
			servers = append(servers, l.mx(fmt.Sprintf("mx%d.a.example", i), func(h *mx.Behaviour) {
				h.At = map[mx.Stage]mx.Action{tt.stage: {Reply: tt.reply}}
			}))
			addr, _, _ := strings.Cut(servers[i].Addr(), ":")
			l.zone("mx.a.example. A %s", addr)
		}
		l.zone("a.example. MX 10 mx.a.example.")
		l.start(nil)
		expect(t, l.send("b@a.example"), tt.want)
		if n := servers[0].Counters().Connections + servers[1].Counters().Connections; n != 1 {
			t.Errorf("%s: %d connections", name, n)
		}
	}
}

// 421 to one of several recipients, and the server goes on: the others have
// what the server said to them, and no second copy.
func Test421ToOneRecipient(t *testing.T) {
	t.Parallel()
	const greeting = "S: 220 mx\nC: EHLO *\nS: 250-mx\n"
	for name, dialogue := range map[string]string{
		"CHUNKING in one flight": greeting + "S: 250-CHUNKING\nS: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: RCPT *\nC: RCPT *\nBDAT\nC: NOOP\n" +
			"S: 250 ok\nS: 250 ok\nS: 421 4.7.0 not you\nS: 250 ok\nS: 250 2.0.0 queued\nS: 250 ok\nREST",
		"PIPELINING": greeting + "S: 250 PIPELINING\nC: MAIL *\nC: RCPT *\nC: RCPT *\nC: RCPT *\nC: DATA\n" +
			"S: 250 ok\nS: 250 ok\nS: 421 4.7.0 not you\nS: 250 ok\nS: 354 go\nBODY\nS: 250 2.0.0 queued\nREST",
		"one by one": greeting + "S: 250 HELP\nC: MAIL *\nS: 250 ok\nC: RCPT *\nS: 250 ok\nC: RCPT *\nS: 421 4.7.0 not you\nC: RCPT *\nS: 250 ok\n" +
			"C: DATA\nS: 354 go\nBODY\nS: 250 2.0.0 queued\nREST",
	} {
		l := newLab(t)
		l.play("mx1.a.example", dialogue)
		next := l.mx("mx2.a.example", func(h *mx.Behaviour) { h.Recipients = []mx.Rule{{Local: "bad", Reply: "550 5.1.1 no such user"}} })
		l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
		l.start(nil)
		results := l.send("good@a.example", "bad@a.example", "fine@a.example")
		t.Log(name)
		expect(t, results, "2.0.0 mx1.a.example", "5.1.1 mx2.a.example", "2.0.0 mx1.a.example")
		if n := next.Counters().Messages; n != 0 {
			t.Errorf("%s: %d second copies", name, n)
		}
	}
}

// An idle connection to an address that DNS no longer lists is retired.
func TestPoolKnowsTheAddressesOfTheDay(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	former, now := l.mx("former.example", nil), l.mx("now.example", nil)
	point := func(server *mx.Server) {
		addr, _, _ := strings.Cut(server.Addr(), ":")
		l.dns.Remove("mx1.a.example", 1)
		l.zone("mx1.a.example. A %s", addr)
		l.resolver.Flush("mx1.a.example")
	}
	l.zone("a.example. MX 10 mx1.a.example.")
	point(former)
	l.startPooled(nil)
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	counts(t, former, 1, 2)
	point(now)
	expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
	counts(t, former, 1, 2)
	counts(t, now, 1, 1)
	if n := l.idle.Stats().Retired[pool.Address]; n != 1 {
		t.Errorf("%d connections were retired for their address", n)
	}
}

// The first message by BDAT to a host ends in NOOP, and the host is trusted
// then, over other connections too. What is not confirmed leaves the reply to
// the message as it is, and the host gets DATA.
func TestChunkingIsConfirmedOnce(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		noop        mx.Action
		want        string
		bdat, noops uint64
	}{
		"confirmed":    {mx.Action{}, "2.0.0 mx1.a.example", 6, 1},
		"not known":    {mx.Action{Reply: "502 5.5.1 what?"}, "2.0.0 mx1.a.example", 1, 1},
		"the end":      {mx.Action{Drop: mx.Close}, "2.0.0 mx1.a.example", 1, 1},
		"one too many": {mx.Action{Reply: "550 5.7.1 refused"}, "4.5.0 mx1.a.example", 1, 1},
	} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{mx.StageNOOP: tt.noop} })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.startPooled(func(c *Config) { c.ConnReuseLimit = 2 })
		expect(t, l.send("b@a.example"), tt.want)
		for range 5 {
			expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		}
		c := server.Counters()
		if uint64(c.Verbs["BDAT"]) != tt.bdat || uint64(c.Verbs["NOOP"]) != tt.noops {
			t.Errorf("%s: %v", name, c.Verbs)
		}
	}
}
