package transport

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// at has a server answer, or do, something at one stage.
func at(stage mx.Stage, act mx.Action) func(*mx.Behaviour) {
	return func(h *mx.Behaviour) { h.At = map[mx.Stage]mx.Action{stage: act} }
}

// byData has a server offer neither CHUNKING nor TLS.
func byData(h *mx.Behaviour) {
	h.Keywords &^= mx.Chunking
	h.TLS = mx.TLS{}
}

// counts compares how many connections and messages servers had.
func counts(t *testing.T, server *mx.Server, connections, messages int) {
	t.Helper()
	if c := server.Counters(); c.Connections != connections || c.Messages != messages {
		t.Errorf("%s: %d connections and %d messages, want %d and %d", server.Behaviour().Hostname, c.Connections, c.Messages, connections, messages)
	}
	if v := server.Violations(); len(v) > 0 {
		t.Errorf("%s: rules broken: %v", server.Behaviour().Hostname, v)
	}
}

func TestMessageAsItIs(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	expect(t, l.send("B.C@A.Example"), "2.0.0 mx1.a.example")
	m := server.Messages()[0]
	if m.Sender != "a@client.example" || m.Recipients[0].Address != "B.C@a.example" || m.Hello != "client.example" {
		t.Errorf("from %q, to %v, by %q", m.Sender, m.Recipients, m.Hello)
	}
	if want := []string{fmt.Sprintf("SIZE=%d", m.Length)}; !slices.Equal(m.Params, want) || m.Recipients[0].Params != nil {
		t.Errorf("parameters %q and %q, want %q alone: nothing else was asked for", m.Params, m.Recipients[0].Params, want)
	}
	if m.Flights != 1 {
		t.Errorf("%d flights", m.Flights)
	}
	counts(t, server, 1, 1)
}

func TestNullSender(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(nil)
	for _, sender := range []string{"", "<>"} {
		expect(t, l.sendAs(func(e *Envelope) { e.Sender = sender }, "b@a.example"), "2.0.0")
	}
	for _, m := range server.Messages() {
		if m.Sender != "" {
			t.Errorf("from %q", m.Sender)
		}
	}
	counts(t, server, 2, 2)
}

func TestImpossibleAddresses(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.start(nil)
	expect(t, l.send("b@", "@a.example", "", "b@a..example", "b@[300.0.0.1]", "b\r\nRSET@a.example", "postmaster"),
		"5.1.3", "5.1.3", "5.1.3", "5.1.3", "5.1.3", "5.1.3", "5.1.3 has no domain")
	expect(t, l.sendAs(func(e *Envelope) { e.Sender = "a\n@client.example" }, "b@a.example"), "5.1.7")
	if n := l.dns.Queries("", dns.TypeANY); n.UDP+n.TCP > 0 {
		t.Errorf("asked the DNS %+v", n)
	}
}

// TestRoutes says where mail goes by what the DNS says, and what is answered
// when it can go nowhere. mx1 is preferred, mx2 comes after, and host is the
// domain's own address.
func TestRoutes(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		zone string
		want string
		at   string // what got it; empty: no server saw a connection
	}{
		{"by MX (RFC 5321 §5.1)", "a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.\na.example. A HOST", "2.0.0", "mx1"},
		{"no MX, so its address", "a.example. A HOST", "2.0.0", "host"},
		{"neither MX nor address", "a.example. TXT nothing", "5.4.4", ""},
		{"no such domain", "b.example. TXT nothing", "5.4.4 does not exist", ""},
		{"null MX (RFC 7505)", "a.example. MX 0 .\na.example. A HOST", "5.1.10", ""},
		{"null MX beside another", "a.example. MX 0 .\na.example. MX 10 mx1.a.example.\na.example. A HOST", "2.0.0", "mx1"},
		{"MX without an address", "a.example. MX 10 nowhere.a.example.\na.example. A HOST", "5.4.4", ""},
		{"first MX without an address", "a.example. MX 10 nowhere.a.example.\na.example. MX 20 mx2.a.example.", "2.0.0", "mx2"},
		{"first MX down", "a.example. MX 10 down.a.example.\na.example. MX 20 mx2.a.example.", "2.0.0", "mx2"},
		{"all down", "a.example. MX 10 down.a.example.", "4.4.1 down.a.example", ""},
		{"only ourselves", "a.example. MX 10 client.example.\na.example. MX 20 mx2.a.example.", "5.4.6 loops back", ""},
		{"ourselves behind another", "a.example. MX 10 mx1.a.example.\na.example. MX 20 client.example.", "2.0.0", "mx1"},
		{"a better one down before ourselves", "a.example. MX 10 down.a.example.\na.example. MX 20 client.example.\na.example. MX 30 mx2.a.example.", "4.4.1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			servers := map[string]*mx.Server{"mx1": l.mx("mx1.a.example", nil), "mx2": l.mx("mx2.a.example", nil), "host": l.mx("host.example", nil)}
			host, _, _ := strings.Cut(servers["host"].Addr(), ":")
			l.dead("down.a.example")
			l.dead("client.example")
			if strings.Contains(tt.name, "no such domain") {
				// Names below it would make it exist.
				l.dns.Remove("mx1.a.example", dns.TypeANY)
				l.dns.Remove("mx2.a.example", dns.TypeANY)
				l.dns.Remove("down.a.example", dns.TypeANY)
			}
			l.zone("%s", strings.ReplaceAll(tt.zone, "HOST", host))
			l.start(everything)
			expect(t, l.send("b@a.example"), tt.want)
			for name, server := range servers {
				n := 0
				if name == tt.at {
					n = 1
				}
				counts(t, server, n, n)
			}
		})
	}
}

// TestDNSTrouble: no failure of the resolver is ever more than temporary, and
// none is taken for the absence of a record.
func TestDNSTrouble(t *testing.T) {
	t.Parallel()
	for _, habit := range []labdns.Fault{labdns.ServFail, labdns.Bogus, labdns.Refused, labdns.BareRefused, labdns.NotImp, labdns.FormErr,
		labdns.Silent, labdns.TruncateMute, labdns.WrongID, labdns.Garbage, labdns.Referral} {
		for _, at := range []uint16{dns.TypeMX, dns.TypeANY} {
			t.Run(fmt.Sprintf("habit %d at %s", habit, dns.TypeToString[at]), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				l.impatient()
				server := l.mx("a.example", nil)
				l.start(everything)
				l.dns.SetFault("", at, habit)
				expect(t, l.send("b@a.example"), "4.4.3 mail servers of a.example cannot be looked up")
				counts(t, server, 0, 0)
			})
		}
	}
}

// TestResolverDownIsTemporary: nothing listens at the resolver's port, and then
// somebody does again.
func TestResolverDownIsTemporary(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("a.example", nil)
	l.start(everything)
	up := l.dns.Down()
	expect(t, l.send("b@a.example"), "4.4.3 resolver unreachable")
	if err := up(); err != nil {
		t.Fatal(err)
	}
	// Its first answer is enough: nothing waits for the failure to expire.
	if _, err := l.resolver.Lookup(t.Context(), "elsewhere.example", resolver.TypeMX); err != nil {
		t.Fatal(err)
	}
	expect(t, l.send("b@a.example"), "2.0.0")
}

func TestTruncatedAnswerIsAskedAgainOverTCP(t *testing.T) {
	t.Parallel()
	for _, habit := range []labdns.Fault{labdns.Truncate, labdns.CutRecord} {
		l := newLab(t)
		own, right := l.mx("a.example", nil), l.mx("mx1.a.example", nil)
		l.zone("a.example. MX 10 mx1.a.example.")
		l.dns.SetFault("a.example", dns.TypeMX, habit)
		l.start(everything)
		expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		counts(t, own, 0, 0)
		counts(t, right, 1, 1)
	}
}

// TestAddressLookups goes through what A and AAAA may say, each alone spoiling
// nothing that the other says (maddy's eleven cases).
func TestAddressLookups(t *testing.T) {
	t.Parallel()
	const (
		ok = iota
		empty
		fails
		silent
	)
	for _, tt := range []struct {
		a, aaaa int
		signed  bool
		want    string
		asked   bool // for TLSA
	}{
		{ok, empty, false, "2.0.0", false},
		{ok, empty, true, "2.0.0", true},
		{ok, fails, false, "2.0.0", false},
		{ok, fails, true, "2.0.0", true},
		{ok, silent, false, "2.0.0", false},
		{ok, silent, true, "2.0.0", true},
		{empty, fails, false, "4.4.3", false},
		{empty, fails, true, "4.4.3", false},
		{fails, fails, true, "4.4.3", false},
		{silent, silent, true, "4.4.3", false},
		{silent, empty, true, "4.4.3", false},
		{empty, empty, false, "5.4.4", false},
		{empty, empty, true, "5.4.4", false},
	} {
		t.Run(fmt.Sprintf("A %d, AAAA %d, signed %v", tt.a, tt.aaaa, tt.signed), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.impatient()
			l.mx("mx1.a.example", nil)
			l.zone("a.example. MX 10 mx1.a.example.\nmx1.a.example. TXT here")
			if tt.signed {
				l.signed("a.example")
			}
			for qtype, is := range map[uint16]int{dns.TypeA: tt.a, dns.TypeAAAA: tt.aaaa} {
				switch is {
				case empty:
					l.dns.Remove("mx1.a.example", qtype)
				case fails:
					l.dns.SetFault("mx1.a.example", qtype, labdns.ServFail)
				case silent:
					l.dns.SetFault("mx1.a.example", qtype, labdns.Silent)
				}
			}
			l.start(everything)
			expect(t, l.send("b@a.example"), tt.want)
			if asked := l.dns.Queries("", dns.TypeTLSA).UDP > 0; asked != tt.asked {
				t.Errorf("asked for TLSA records: %v", asked)
			}
		})
	}
}

func TestEqualPreferencesAreShuffled(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	one, two := l.mx("mx1.a.example", byData), l.mx("mx2.a.example", byData)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 10 mx2.a.example.")
	l.start(nil)
	for range 60 {
		expect(t, l.send("b@a.example"), "2.0.0")
	}
	if one.Counters().Messages == 0 || two.Counters().Messages == 0 {
		t.Error("sixty messages went to one of two equal hosts")
	}
}

func TestOneHostsBadDNSSpoilsOnlyThatHost(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx1.a.example", nil)
	second := l.mx("mx2.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
	l.dns.SetFault("mx1.a.example", dns.TypeANY, labdns.ServFail)
	l.start(everything)
	expect(t, l.send("b@a.example"), "2.0.0 mx2.a.example")
	counts(t, second, 1, 1)
	if tried := fmt.Sprint(l.lines("delivered")[0]["tried"]); !strings.Contains(tried, "4.4.3 mx1.a.example") {
		t.Errorf("the log says %q of the first host", tried)
	}
}

// TestNextHost says at which replies of the first host the second is tried.
func TestNextHost(t *testing.T) {
	t.Parallel()
	tests := []struct {
		stage  mx.Stage
		act    mx.Action
		second bool
		want   string
	}{
		{mx.StageGreeting, mx.Action{Drop: mx.Close}, true, "2.0.0 mx2"},
		{mx.StageGreeting, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageGreeting, mx.Action{Reply: "554 5.7.1 not you"}, true, "2.0.0 mx2"},
		{mx.StageGreeting, mx.Action{Reply: "SSH-2.0-OpenSSH"}, true, "2.0.0 mx2"},
		{mx.StageEHLO, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageEHLO, mx.Action{Reply: "451 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageEHLO, mx.Action{Drop: mx.Reset}, true, "2.0.0 mx2"},
		{mx.StageMAIL, mx.Action{Reply: "451 4.3.0 not now"}, true, "2.0.0 mx2"},
		{mx.StageMAIL, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageMAIL, mx.Action{Reply: "550 5.7.1 not from you"}, false, "5.7.1 mx1.a.example: 550 5.7.1 not from you"},
		{mx.StageRCPT, mx.Action{Reply: "450 4.2.0 greylisted"}, true, "2.0.0 mx2"},
		{mx.StageRCPT, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageRCPT, mx.Action{Reply: "550 5.1.1 nobody"}, false, "5.1.1 mx1"},
		{mx.StageRCPT, mx.Action{Reply: "552 too many recipients"}, true, "2.0.0 mx2"},
		{mx.StageRCPT, mx.Action{Reply: "552 5.2.2 full"}, false, "5.2.2 mx1"},
		{mx.StageDATA, mx.Action{Reply: "451 4.3.0 not now"}, false, "4.3.0 mx1"},
		{mx.StageDATA, mx.Action{Reply: "552 5.3.4 too big"}, false, "5.3.4 mx1"},
		{mx.StageDATA, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageFinal, mx.Action{Reply: "421 4.3.2 not now"}, true, "2.0.0 mx2"},
		{mx.StageFinal, mx.Action{Reply: "451 4.7.1 later"}, false, "4.7.1 mx1"},
		{mx.StageFinal, mx.Action{Reply: "552 5.3.4 too big"}, false, "5.3.4 mx1.a.example: 552 5.3.4 too big"},
		{mx.StageFinal, mx.Action{Reply: "552 too big"}, false, "5.3.4 mx1.a.example: 552 too big"},
		{mx.StageFinal, mx.Action{Reply: "554 5.7.1 spam"}, false, "5.7.1 mx1"},
		{mx.StageFinal, mx.Action{Drop: mx.Close}, false, "4.4.2 mx1"},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%v %s%d", tt.stage, tt.act.Reply, tt.act.Drop), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			first := l.mx("mx1.a.example", func(h *mx.Behaviour) { byData(h); at(tt.stage, tt.act)(h) })
			second := l.mx("mx2.a.example", nil)
			l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
			l.start(func(c *Config) {
				everything(c)
				// a greeting may still come
				if strings.HasPrefix(tt.act.Reply, "SSH") {
					c.CommandTimeout = 3 * time.Second
				}
			})
			expect(t, l.send("b@a.example"), tt.want)
			counts(t, first, 1, 0)
			n := 0
			if tt.second {
				n = 1
			}
			counts(t, second, n, n)
		})
	}
}

// TestEHLORefused: a server that refuses EHLO, by whatever code, is greeted
// with HELO (RFC 5321 §3.2).
func TestEHLORefused(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{"500 what?", "501 what?", "502 what?", "504 what?", "550 what?", "554 what?"} {
		l := newLab(t)
		server := l.mx("mx1.a.example", at(mx.StageEHLO, mx.Action{Reply: reply}))
		l.zone("a.example. MX 10 mx1.a.example.")
		l.start(nil)
		expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		if m := server.Messages(); len(m) != 1 || m[0].Params != nil {
			t.Errorf("%s: %+v", reply, m)
		}
		counts(t, server, 1, 1)
	}
}

func TestAnotherAddressAfterABadBanner(t *testing.T) {
	t.Parallel()
	for _, act := range []mx.Action{{Drop: mx.Close}, {Reply: "421 4.3.2 not now"}, {Reply: "554 5.7.1 go away"}} {
		l := newLab(t)
		bad, good := l.mx("mx1.a.example", at(mx.StageGreeting, act)), l.mx("mx1.a.example", byData)
		l.zone("a.example. MX 10 mx1.a.example.")
		l.start(everything)
		// Addresses come in random order; sooner or later the bad one is first.
		for n := 0; bad.Counters().Connections == 0; n++ {
			if n == 100 {
				t.Fatal("the bad address never came first")
			}
			expect(t, l.send("b@a.example"), "2.0.0 mx1.a.example")
		}
		if c := good.Counters(); c.Messages != c.Connections {
			t.Errorf("%+v", c)
		}
	}
}

func TestBannerEOFIsTemporary(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx1.a.example", at(mx.StageGreeting, mx.Action{Drop: mx.Close}))
	l.zone("a.example. MX 10 mx1.a.example.")
	l.start(everything)
	expect(t, l.send("b@a.example"), "4.4.2 mx1.a.example: greeting: the server closed the connection")
	counts(t, server, 1, 0)
}

// Of several hosts' reasons the most temporary is the answer, not the last.
func TestMostTemporaryReasonWins(t *testing.T) {
	t.Parallel()
	t.Run("refused connection, then MTA-STS mismatch", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.dead("mx1.a.example")
		second := l.mx("mx2.a.example", nil)
		l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
		l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
		l.start(everything)
		expect(t, l.send("b@a.example"), "4.7.5 mx2.a.example")
		counts(t, second, 0, 0)
	})
	t.Run("refused connection, then a permanent greeting", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.dead("mx1.a.example")
		l.mx("mx2.a.example", at(mx.StageGreeting, mx.Action{Reply: "554 5.7.1 go away"}))
		l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
		l.start(everything)
		expect(t, l.send("b@a.example"), "4.4.1 mx1.a.example")
	})
	t.Run("two addresses of one host, in any order", func(t *testing.T) {
		t.Parallel()
		for range 8 {
			l := newLab(t)
			l.mx("mx1.a.example", at(mx.StageGreeting, mx.Action{Reply: "554 5.7.1 go away"}))
			l.mx("mx1.a.example", at(mx.StageGreeting, mx.Action{Reply: "421 4.3.2 not now"}))
			l.zone("a.example. MX 10 mx1.a.example.")
			l.start(everything)
			expect(t, l.send("b@a.example"), "4.3.2 mx1.a.example: 421")
		}
	})
	t.Run("greylisted, then down", func(t *testing.T) {
		t.Parallel()
		l := newLab(t)
		l.mx("mx1.a.example", nil)
		l.dead("mx2.a.example")
		l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
		l.start(everything)
		expect(t, l.send("later@a.example"), "4.2.0 mx1.a.example: 450 4.2.0")
	})
}

// The end of the line at QUIT, or before it, does not hide why a host was
// skipped.
func TestPolicyFailureIsNotHiddenByQuit(t *testing.T) {
	t.Parallel()
	for _, dialogue := range []string{
		"S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 SIZE\nDROP",
		"S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 SIZE\nC? QUIT\nDROP",
		"S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 SIZE\nC? QUIT\nRESET",
		"S: 220 mx\nC: EHLO *\nRAW \"250-mx\\r\\n250 SIZE\\r\\n421 closed connection\\r\\n\"\nDROP",
	} {
		l := newLab(t)
		l.play("mx1.a.example", dialogue)
		l.zone("a.example. MX 10 mx1.a.example.")
		l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
		l.start(everything)
		expect(t, l.send("b@a.example"), "4.7.5 mx1.a.example: MTA-STS: the server does not offer STARTTLS")
	}
}

func TestEveryRecipientHasItsOwnResult(t *testing.T) {
	t.Parallel()
	for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking, 0} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.Keywords = keywords })
		l.zone("a.example. MX 10 mx1.a.example.")
		l.start(nil)
		expect(t, l.send("b@a.example", "nosuch@a.example", "c@a.example", "later@a.example", "full@a.example"),
			"2.0.0", "5.1.1", "2.0.0", "4.2.0", "4.2.2")
		if m := server.Messages(); len(m) != 1 || len(m[0].Recipients) != 2 {
			t.Errorf("%+v", m)
		}
		counts(t, server, 1, 1)
	}
}

func TestRefusedMessageIsRefusedForAllAccepted(t *testing.T) {
	t.Parallel()
	for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking, 0} {
		l := newLab(t)
		server := l.mx("mx1.a.example", func(h *mx.Behaviour) {
			h.Keywords = keywords
			at(mx.StageFinal, mx.Action{Reply: "554 5.6.0 no"})(h)
		})
		l.zone("a.example. MX 10 mx1.a.example.")
		l.start(nil)
		expect(t, l.send("b@a.example", "nosuch@a.example", "c@a.example"), "5.6.0", "5.1.1", "5.6.0")
		counts(t, server, 1, 0)
	}
}

// Destinations of one message are delivered to at once, and fail each by
// itself.
func TestSeveralDestinations(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	// Each server holds its reply until both have the message.
	gate := make(chan struct{})
	held := at(mx.StageFinal, mx.Action{Hold: gate})
	one, two := l.mx("mx.a.example", held), l.mx("mx.b.example", held)
	refusing := l.mx("mx.c.example", at(mx.StageDATA, mx.Action{Reply: "451 4.3.0 not now"}))
	refusing.SetBehaviour(func() mx.Behaviour { h := refusing.Behaviour(); h.Keywords &^= mx.Chunking; return h }())
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.\nc.example. MX 10 mx.c.example.\nd.example. TXT nothing")
	l.start(nil)
	var results []Result
	done := make(chan struct{})
	go func() {
		defer close(done)
		results = l.transport.Deliver(t.Context(), envelope("x@a.example", "x@b.example", "nosuch@a.example", "y@a.example", "x@c.example", "x@d.example"), msg(t, text))
	}()
	for _, server := range []*mx.Server{one, two} {
		l.must(server.WaitUntil(t.Context(), func(c mx.Counters) bool { return c.Verbs["BDAT"] == 1 }))
	}
	close(gate)
	<-done
	expect(t, results, "2.0.0 mx.a.example", "2.0.0 mx.b.example", "5.1.1 mx.a.example", "2.0.0 mx.a.example", "4.3.0 mx.c.example", "5.4.4")
	counts(t, one, 1, 1)
	counts(t, two, 1, 1)
	counts(t, refusing, 1, 0)
}

// endless is a text of more than socket buffers hold, so that it is never sent
// whole to a server that does not read.
func endless() string { return text + strings.Repeat(strings.Repeat("x", 900)+"\n", 14_000) }

// A delivery that nothing waits for any more ends at once, temporarily, and
// delivers nothing, whatever the server is at.
func TestDeliveryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageEHLO, mx.StageSTARTTLS, mx.StageHandshake, mx.StageMAIL, mx.StageRCPT, mx.StageDATA, mx.StageBody} {
		t.Run(stage.String(), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("mx1.a.example", func(h *mx.Behaviour) {
				h.Keywords &^= mx.Chunking
				h.At = map[mx.Stage]mx.Action{stage: {Hold: make(chan struct{})}}
			})
			l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
			second := l.mx("mx2.a.example", nil)
			l.start(nil)
			ctx, cancel := context.WithCancelCause(t.Context())
			m := msg(t, text)
			if stage == mx.StageBody {
				m = msg(t, endless())
			}
			var results []Result
			done := make(chan struct{})
			go func() {
				defer close(done)
				results = l.transport.Deliver(ctx, envelope("b@a.example"), m)
			}()
			l.must(server.WaitUntil(t.Context(), func(c mx.Counters) bool {
				switch stage {
				case mx.StageGreeting:
					return c.Connections == 1
				case mx.StageHandshake:
					return c.Verbs["STARTTLS"] == 1
				case mx.StageBody:
					return c.Verbs["DATA"] == 1
				}
				return c.Verbs[stage.String()] > 0
			}))
			cancel(ErrGone)
			<-done
			expect(t, results, "4.3.2 delivery cancelled: the local mail server disconnected")
			counts(t, second, 0, 0)
			if n := server.Counters().Messages; n != 0 {
				t.Errorf("%d messages", n)
			}
		})
	}
}

// A permanent refusal by one host says nothing for the domain as long as
// others were not asked.
func TestTimeOverIsTemporaryWhateverHostsSaidBefore(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx1.a.example", at(mx.StageGreeting, mx.Action{Reply: "554 5.7.1 go away"}))
	second := l.mx("mx2.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
	l.start(func(c *Config) { c.Debug = true })
	// Time is over the moment at which the refusal was read.
	ctx, cancel := context.WithCancelCause(t.Context())
	l.journal.hook = func(line string) {
		if strings.Contains(line, "go away") {
			cancel(ErrTimeout)
		}
	}
	expect(t, l.sendText(ctx, text, "b@a.example"), "4.4.7 the delivery timed out")
	counts(t, second, 0, 0)
}

// A server that takes nothing of the body, or says nothing, is given up after
// command_timeout, temporarily.
func TestStalledServer(t *testing.T) {
	t.Parallel()
	for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageHandshake, mx.StageRCPT, mx.StageBody} {
		for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking} {
			t.Run(fmt.Sprintf("%v %d", stage, keywords), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				server := l.mx("mx1.a.example", func(h *mx.Behaviour) {
					h.Keywords = keywords
					h.At = map[mx.Stage]mx.Action{stage: {Hold: make(chan struct{})}}
				})
				l.zone("a.example. MX 10 mx1.a.example.")
				l.policy("a.example", mtasts.ModeEnforce, "mx1.a.example")
				l.start(func(c *Config) { everything(c); c.CommandTimeout = 300 * time.Millisecond })
				m := msg(t, text)
				if stage == mx.StageBody {
					m = msg(t, endless())
				}
				r := l.transport.Deliver(t.Context(), envelope("b@a.example"), m)[0]
				if r.Code.Class != 4 || len(server.Messages()) > 0 {
					t.Errorf("%v %s", r.Code, r.Text)
				}
			})
		}
	}
}
