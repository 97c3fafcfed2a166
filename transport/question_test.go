package transport

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// What a host answers to a recipient is found out without a message, and is
// what the next message meets.
func TestAskForRecipient(t *testing.T) {
	t.Parallel()
	reply := func(stage mx.Stage, text string) func(*mx.Behaviour) {
		return func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{stage: {Reply: text}} }
	}
	for _, tt := range []struct {
		name   string
		server func(*mx.Behaviour)
		change func(q *Question, env *Envelope)
		want   string // the code; empty: it goes
		said   string
	}{
		{"taken", nil, nil, "", ""},
		{"greylisted", reply(mx.StageRCPT, "450 4.7.1 later"), nil, "4.7.1", "450 4.7.1 later"},
		{"unknown", reply(mx.StageRCPT, "550 5.1.1 no such user"), nil, "5.1.1", "550 5.1.1"},
		{"no reverse name", reply(mx.StageMAIL, "450 4.7.25 no reverse DNS"), nil, "4.7.25", "450 4.7.25"},
		{"a login is wanted", reply(mx.StageMAIL, "530 5.7.0 Authentication required"), nil, "4.7.8", "530 5.7.0"},
		{"the server leaves", reply(mx.StageRCPT, "421 4.3.2 closing"), nil, "4.3.2", "421 4.3.2"},
		{"the connection ends", func(b *mx.Behaviour) {
			b.At = map[mx.Stage]mx.Action{mx.StageRCPT: {Drop: mx.Close}}
		}, nil, "4.4.2", "RCPT"},
		{"in sequence", func(b *mx.Behaviour) { b.Keywords &^= mx.Pipelining | mx.Chunking }, nil, "", ""},
		{"too large", func(b *mx.Behaviour) { b.Size = 10 }, func(q *Question, _ *Envelope) { q.Size = int64(len(text)) }, "5.3.4", "at most 10 bytes"},
		{"no REQUIRETLS", nil, func(q *Question, env *Envelope) { q.RequireTLS, env.RequireTLS = true, true }, "5.7.30", "REQUIRETLS"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("mx.a.example", tt.server)
			l.zone("a.example. MX 10 mx.a.example.")
			l.start(everything)
			q, env := Question{Domain: "a.example", Depth: Connect, To: "b@a.example", From: "a@client.example"}, envelope("b@a.example")
			if tt.change != nil {
				tt.change(&q, env)
			}
			l.must(q.Check())
			e := l.transport.Explain(t.Context(), &q)
			if n := server.Counters(); n.Messages != 0 || n.Stages[mx.StageDATA]+n.Stages[mx.StageBDAT] != 0 {
				t.Fatalf("a message was sent: %+v", n)
			}
			if tt.want == "" {
				if e.Forecast() != Deliverable || !strings.HasPrefix(e.Hosts[0].Probe.Accepted, "250 ") {
					t.Errorf("%v, %+v", e.Forecast(), e.Answer())
				}
				if n := server.Counters().Stages[mx.StageRSET]; n != 1 {
					t.Errorf("%d times RSET", n)
				}
			} else if a := e.Answer(); a == nil || a.Code.String() != tt.want || !strings.Contains(a.Error(), tt.said) || e.Forecast() != Undeliverable {
				t.Errorf("it says %v, want %s %s", a, tt.want, tt.said)
			}
			m := msg(t, text)
			code := l.transport.Deliver(t.Context(), env, m)[0].Code.String()
			if want := strings.TrimPrefix(tt.want+"/2.0.0", "/"); !strings.HasPrefix(want, code) {
				t.Errorf("and a message gets %s", code)
			}
		})
	}
}

// Each address of a host is tried, and one that will do is enough.
func TestEachAddressIsAsked(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	bad, err := mx.Start(mx.Options{Addr: fmt.Sprintf("[::1]:%d", l.port), Behaviour: mx.Behaviour{
		Hostname: "mx.a.example", Keywords: mx.Pipelining,
		At: map[mx.Stage]mx.Action{mx.StageMAIL: {Reply: "450 4.7.25 no reverse DNS"}},
	}})
	l.must(err)
	t.Cleanup(func() { bad.Stop() })
	good := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. AAAA ::1")
	l.start(func(c *Config) { everything(c); c.Prefer = IPv6 })
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect, To: "b@a.example"})
	p := e.Hosts[0].Probe
	if e.Forecast() != Deliverable || !p.Addr.Is4() || len(p.Addrs) != 2 ||
		p.Addrs[0].Addr.String() != "::1" || p.Addrs[0].Err == nil || p.Addrs[0].Err.Code.String() != "4.7.25" || p.Addrs[1].Err != nil {
		t.Errorf("%v: %+v", e.Forecast(), p)
	}
	counts(t, bad, 1, 0)
	counts(t, good, 1, 0)
}

// A question that makes no sense is refused before anything is asked.
func TestQuestionCheck(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		q    Question
		want error // nil: any
		ok   bool
	}{
		{Question{Domain: "a.example"}, nil, true},
		{Question{Domain: "A.example", To: "b@a.EXAMPLE", From: "<>"}, nil, true},
		{Question{Domain: "bücher.example", To: "b@xn--bcher-kva.example"}, nil, true},
		{Question{Domain: "a.example", To: "b@b.example"}, ErrOtherDomain, false},
		{Question{Domain: "a.example", To: "<>"}, ErrNullTo, false},
		{Question{Domain: "a.example", To: "b"}, nil, false},
		{Question{Domain: "a.example", To: "b@a.example\r\nRCPT TO:<c@a.example>"}, nil, false},
		{Question{Domain: "a.example", To: "b@a.example", From: "x\r\n@y.example"}, nil, false},
	} {
		if err := tt.q.Check(); (err == nil) != tt.ok || tt.want != nil && !errors.Is(err, tt.want) {
			t.Errorf("%+v: %v", tt.q, err)
		}
	}
}
