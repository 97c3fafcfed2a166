package transport

import (
	"fmt"
	"strings"
	"testing"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// TestSMTPUTF8 has addresses of either kind meet servers of either kind
// (RFC 6531 §3): a domain alone has another form, a local part has not.
func TestSMTPUTF8(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		from, to  string
		offered   bool
		want      string
		gotFrom   string
		gotTo     string
		parameter bool
	}{
		{"a@bücher.example", "b@a.example", true, "2.0.0", "a@xn--bcher-kva.example", "b@a.example", false},
		{"a@bücher.example", "b@a.example", false, "2.0.0", "a@xn--bcher-kva.example", "b@a.example", false},
		{"jürgen@client.example", "b@a.example", true, "2.0.0", "jürgen@client.example", "b@a.example", true},
		{"jürgen@client.example", "b@a.example", false, "5.6.7 SMTPUTF8", "", "", false},
		{"a@client.example", "b@bücher.example", true, "2.0.0", "a@client.example", "b@xn--bcher-kva.example", false},
		{"a@client.example", "b@bücher.example", false, "2.0.0", "a@client.example", "b@xn--bcher-kva.example", false},
		{"a@client.example", "jürgen@bücher.example", true, "2.0.0", "a@client.example", "jürgen@bücher.example", true},
		{"a@client.example", "jürgen@bücher.example", false, "5.6.7 SMTPUTF8", "", "", false},
		{"jürgen@bücher.example", "jürgen@bücher.example", true, "2.0.0", "jürgen@bücher.example", "jürgen@bücher.example", true},
	} {
		t.Run(fmt.Sprintf("%s to %s, offered %v", tt.from, tt.to, tt.offered), func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.mx("mx.a.example", func(h *mx.Behaviour) {
				if !tt.offered {
					h.Keywords &^= mx.SMTPUTF8
				}
			})
			l.zone("a.example. MX 10 mx.a.example.\nxn--bcher-kva.example. MX 10 mx.a.example.")
			l.start(nil)
			expect(t, l.sendAs(func(e *Envelope) { e.Sender = tt.from }, tt.to), tt.want)
			messages := server.Messages()
			if tt.gotTo == "" {
				counts(t, server, 1, 0)
				if server.Counters().Verbs["MAIL"] > 0 {
					t.Error("the server heard of it")
				}
				return
			}
			counts(t, server, 1, 1)
			m := messages[0]
			_, parameter := m.Param("SMTPUTF8")
			if m.Sender != tt.gotFrom || m.Recipients[0].Address != tt.gotTo || parameter != tt.parameter {
				t.Errorf("from %q to %q, SMTPUTF8 %v", m.Sender, m.Recipients[0].Address, parameter)
			}
		})
	}
}

// A header in UTF-8 needs the extension when the mail server said so
// (RFC 6531 §3.6); eight-bit headers of other mail have always gone as they
// are.
func TestSMTPUTF8Header(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	with, without := l.mx("mx.a.example", nil), l.mx("mx.b.example", func(h *mx.Behaviour) { h.Keywords &^= mx.SMTPUTF8 })
	l.zone("a.example. MX 10 mx.a.example.\nb.example. MX 10 mx.b.example.")
	l.start(nil)
	deliver := func(declared bool, header string) []Result {
		env := envelope("x@a.example", "x@b.example")
		env.SMTPUTF8 = declared
		return l.transport.Deliver(t.Context(), env, msg(t, header+text))
	}
	expect(t, deliver(true, "Subject: Grüße\n"), "2.0.0", "5.6.7 SMTPUTF8")
	expect(t, deliver(false, "Subject: Grüße\n"), "2.0.0", "2.0.0")
	expect(t, deliver(true, ""), "2.0.0", "2.0.0") // declared, and not needed
	for i, want := range []bool{true, false, true} {
		if _, got := with.Messages()[i].Param("SMTPUTF8"); got != want {
			t.Errorf("message %d: SMTPUTF8 %v", i, got)
		}
	}
	counts(t, without, 3, 2)
}

// One recipient who cannot be served there does not keep others from it.
func TestSMTPUTF8ForSomeRecipients(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	first := l.mx("mx1.a.example", func(h *mx.Behaviour) { h.Keywords &^= mx.SMTPUTF8 })
	second := l.mx("mx2.a.example", nil)
	l.zone("a.example. MX 10 mx1.a.example.\na.example. MX 20 mx2.a.example.")
	l.start(nil)
	expect(t, l.send("x@a.example", "jürgen@a.example", "y@a.example"), "2.0.0 mx1", "2.0.0 mx2", "2.0.0 mx1")
	counts(t, first, 1, 1)
	counts(t, second, 1, 1)
}

// A domain is asked for as A-labels, and results stay with the address as it
// was given, whatever is refused when.
func TestInternationalDomain(t *testing.T) {
	t.Parallel()
	for _, keywords := range []mx.Keyword{mx.AllKeywords, mx.AllKeywords &^ mx.Chunking} {
		for _, stage := range []mx.Stage{mx.StageMAIL, mx.StageRCPT, mx.StageDATA, mx.StageFinal} {
			l := newLab(t)
			l.mx("mx.a.example", func(h *mx.Behaviour) {
				h.Keywords = keywords
				at(stage, mx.Action{Reply: "550 5.7.1 refused"})(h)
			})
			l.zone("xn--bcher-kva.example. MX 10 mx.a.example.")
			l.start(nil)
			want := "5.7.1 refused"
			if stage == mx.StageDATA && keywords&mx.Chunking != 0 {
				want = "2.0.0"
			}
			results := l.send("B@Bücher.example", "b@xn--bcher-kva.example", "b@BÜCHER.example")
			expect(t, results, want, want, want)
			if results[0].Recipient != "B@Bücher.example" || results[2].Recipient != "b@BÜCHER.example" {
				t.Errorf("%+v", results)
			}
			for _, name := range []string{"bücher.example", "b\\195\\188cher.example"} {
				if n := l.dns.Queries(name, dns.TypeANY); n.UDP > 0 {
					t.Errorf("the DNS was asked for %s", name)
				}
			}
			if n := l.dns.Queries("xn--bcher-kva.example", dns.TypeMX); n.UDP != 1 {
				t.Errorf("the DNS was asked %+v times for the A-label", n)
			}
			if to := l.logged(); !strings.Contains(to, "B@Bücher.example") {
				t.Errorf("not in the log: %s", to)
			}
		}
	}
}
