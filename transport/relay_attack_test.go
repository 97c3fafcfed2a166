package transport

import (
	"encoding/base64"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

// Servers that do with a login what none should. No message is returned for it,
// nothing waits for ever, and the password comes back to nobody.
func TestRelayHostileLogins(t *testing.T) {
	t.Parallel()
	const begin = "S: 220 mx\nC: EHLO *\nS: 250-mx\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\nTLS good\nC: EHLO *\nS: 250-mx\nS: 250-PIPELINING\nS: 250 AUTH PLAIN LOGIN OAUTHBEARER SCRAM-SHA-256\n"
	const envelope = "C: MAIL *\nC: RCPT *\nC: DATA\n"
	plain := base64.StdEncoding.EncodeToString([]byte("\x00bob\x00" + password))
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for name, tt := range map[string]struct {
		auth           sasl.Mechanism
		dialogue, want string
	}{
		"AUTH in the clear alone":       {sasl.Plain, strings.Replace(strings.Replace(begin, "S: 250-mx\nS: 250 STARTTLS", "S: 250-mx\nS: 250-AUTH PLAIN\nS: 250 STARTTLS", 1), "S: 250 AUTH PLAIN LOGIN OAUTHBEARER SCRAM-SHA-256", "S: 250 SIZE", 1) + "REST", "4.7.8 does not offer AUTH"},
		"challenges for ever, LOGIN":    {sasl.Login, begin + "C: AUTH LOGIN *\nS: 334 " + b64("User:") + "\nC: *\nS: 334 " + b64("Pass:") + "\nC: *\nS: 334 " + b64("Pass:") + "\nC: \\*\nS: 501 no\nREST", "4.7.8 login of bob by LOGIN failed"},
		"challenges for ever, PLAIN":    {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 334 \nC: \\*\nS: 334 \nREST", "4.7.8 login of bob by PLAIN failed"},
		"junk for a challenge":          {sasl.Login, begin + "C: AUTH LOGIN *\nS: 334 !\"§$%&\nC: \\*\nS: 501 no\nREST", "4.7.8 challenge is not base64"},
		"334 in two lines":              {sasl.Login, begin + "C: AUTH LOGIN *\nS: 334-" + b64("Pass") + "\nS: 334 " + b64("word") + "\nC: \\*\nS: 501 no\nREST", "4.7.8 not base64"},
		"a challenge without end":       {sasl.Login, begin + "C: AUTH LOGIN *\nS: 334 " + strings.Repeat("A", 3000) + "\nREST", "4.7.8 reply too long"},
		"no reply, but the end":         {sasl.Plain, begin + "C: AUTH PLAIN *\nDROP", "4.7.8 login of bob by PLAIN failed"},
		"yes, then the end":             {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 235 ok\nDROP", "4.4.2 smtp.relay.example"},
		"yes, and one reply more":       {sasl.Plain, begin + "C: AUTH PLAIN *\nRAW \"235 ok\\r\\n250 ok\\r\\n\"\nREST", "4.5.0 smtp.relay.example"},
		"yes to what was cancelled":     {sasl.Login, begin + "C: AUTH LOGIN *\nS: 334 x\nC: \\*\nS: 235 welcome\nREST", "4.7.8 cancelled"},
		"too many iterations":           {sasl.SCRAMSHA256, begin + "C: AUTH SCRAM-SHA-256 *\nS: 334 " + b64("r=x,s=QUJD,i=2000000000") + "\nC: \\*\nS: 501 no\nREST", "4.7.8 more than 1000000 iterations"},
		"too few iterations":            {sasl.SCRAMSHA256, begin + "C: AUTH SCRAM-SHA-256 *\nS: 334 " + b64("r=x,s=QUJD,i=1") + "\nC: \\*\nS: 501 no\nREST", "4.7.8 login of bob by SCRAM-SHA-256 failed"},
		"another's nonce":               {sasl.SCRAMSHA256, begin + "C: AUTH SCRAM-SHA-256 *\nS: 334 " + b64("r=x,s=QUJD,i=4096") + "\nC: \\*\nS: 501 no\nREST", "4.7.8 nonce"},
		"the token comes back":          {sasl.OAuthBearer, begin + "C: AUTH OAUTHBEARER *\nS: 334 " + b64(`{"status":"no: `+password+`"}`) + "\nC: \\*\nS: 501 no\nREST", "4.7.8 (hidden)"},
		"the password comes back":       {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 535-5.7.8 no: " + password + "\nS: 535 5.7.8 " + plain + "\nREST", "4.7.8 535 5.7.8 no: (hidden)"},
		"a part of it comes back":       {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 502 5.5.2 unknown: AUTH PLAIN " + plain[:24] + "...\nREST", "4.7.8 502 5.5.2 unknown"},
		"it comes back as no reply":     {sasl.Plain, begin + "C: AUTH PLAIN *\nS: " + password + "\nREST", "4.7.8 malformed reply"},
		"it comes back in the middle":   {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 535-5.7.8 no\nS: " + password + "\nREST", "4.7.8 malformed reply"},
		"it comes back cut by a length": {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 535 5.7.8 " + strings.Repeat("x", 575) + " " + password + "\nREST", "4.7.8 535 5.7.8 xxx"},
		"it comes back later":           {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 235 ok\n" + envelope + "S: 250 ok\nS: 550 5.1.1 no " + password + "\nS: 554 5.5.1 " + plain + "\nREST", "5.1.1 550 5.1.1 no (hidden)"},
		"it comes back in a success": {sasl.Plain, begin + "C: AUTH PLAIN *\nS: 235 ok\n" + envelope + "S: 250 ok\nS: 250 ok\nS: 354 go\nBODY\nS: 250 2.0.0 ok " + password + "\nREST",
			"2.0.0 250 2.0.0 ok (hidden)"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			l.play("smtp.relay.example", tt.dialogue)
			l.start(func(c *Config) { c.Relay, c.Debug = l.relayed(tt.auth), true })
			results := l.send("b@a.example")
			expect(t, results, tt.want)
			l.transport.Close() // so that all is written
			l.passwordIsNowhere(results...)
		})
	}
}

// A wrong password is tried once, however many messages come at once; and again
// when the administrator has reloaded.
func TestRelayWrongPasswordIsTriedOnce(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.submission(func(h *mx.Behaviour) { h.Auth.Users = map[string]string{"bob": "other"} })
	l.start(func(c *Config) {
		c.Relay = l.relayed(sasl.Plain)
		// An override has the same login.
		addOverride(c, "b.example", "", func(c *Config) { c.Chunking = ChunkingOff })
	})
	var all sync.WaitGroup
	for i := range 20 {
		all.Go(func() {
			to := [2]string{"x@a.example", "x@b.example"}[i%2]
			expect(t, l.send(to), "4.7.8 login of bob by PLAIN failed: 535")
		})
	}
	all.Wait()
	if n := server.Counters().BadLogins; n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example"}); e.Relay == "" || e.Answer() == nil || e.Answer().Code.String() != "4.7.8" {
		t.Errorf("explained: %q, %v", e.Relay, e.Answer())
	}
	h := server.Behaviour()
	h.Auth = &mx.Auth{Mechanisms: []string{"PLAIN"}, Users: map[string]string{"bob": password}, Needed: true}
	server.SetBehaviour(h)
	expect(t, l.send("x@a.example"), "4.7.8 not tried again before")
	l.transport.RetryLogins()
	expect(t, l.send("x@a.example", "x@b.example"), "2.0.0 smtp.relay.example", "2.0.0 smtp.relay.example")
	l.passwordIsNowhere()
}

// Connections of one user never carry what another's should, nor what goes to
// the same host as to any.
func TestRelayUsersAreKeptApart(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.submission(func(h *mx.Behaviour) {
		h.Auth.Users["eve"], h.Auth.Needed = "hers-1234", false
	})
	l.zone("d.example. MX 10 smtp.relay.example.")
	l.startPooled(func(c *Config) {
		file := filepath.Join(t.TempDir(), "eve")
		l.must(os.WriteFile(file, []byte("hers-1234\n"), 0o600))
		bob, eve, nobody := l.relayed(), l.relayed(), l.relayed()
		eve.User, eve.PasswordFile = "eve", file
		nobody.User, nobody.PasswordFile, nobody.Auth = "", "", nil
		addOverride(c, "b.example", "", func(c *Config) { c.Relay = eve })
		addOverride(c, "c.example", "", func(c *Config) { c.Relay = nobody })
		addOverride(c, "d.example", "", nil)
		c.Relay = bob
	})
	for range 3 {
		for _, domain := range []string{"a.example", "b.example", "c.example", "d.example"} {
			expect(t, l.send("x@"+domain), "2.0.0 smtp.relay.example")
		}
	}
	want := map[string]string{"x@a.example": "bob", "x@b.example": "eve", "x@c.example": "", "x@d.example": ""}
	for _, m := range server.Messages() {
		if to := m.Recipients[0].Address; m.User != want[to] {
			t.Errorf("mail for %s went as %q, want %q", to, m.User, want[to])
		}
	}
	if c := server.Counters(); c.Connections != 4 || c.Logins != 2 {
		t.Errorf("%d connections, %d logins", c.Connections, c.Logins)
	}
}

// A relay that goes away and comes back is logged in at again; nothing is lost
// of what came meanwhile, and nothing returned.
func TestRelayComesBack(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.submission(nil)
	l.startPooled(func(c *Config) { c.Relay = l.relayed() })
	expect(t, l.send("x@a.example"), "2.0.0 smtp.relay.example")
	addr, behaviour := server.Addr(), server.Behaviour()
	l.must(server.Stop())
	for range 3 {
		r := l.send("x@a.example")
		if r[0].Code.Class != 4 {
			t.Errorf("while it is down: %v %s", r[0].Code, r[0].Text)
		}
	}
	again, err := mx.Start(mx.Options{Addr: addr, Behaviour: behaviour})
	l.must(err)
	t.Cleanup(func() { again.Stop() })
	// A probe, as of "explain --connect", finds that it is not dead any more.
	if e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect}); e.Forecast() != Deliverable {
		t.Errorf("explained: %v", e.Answer())
	}
	expect(t, l.send("x@a.example"), "2.0.0 smtp.relay.example")
	if n := again.Counters().Logins; n != 2 { // the probe's, and the message's
		t.Errorf("%d logins", n)
	}
}

// The mail server names a configured relay: it has its login, whatever the
// brackets say, and only at that port; the recipient's own domain never has.
func TestRelayByNexthop(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.submission(func(h *mx.Behaviour) { h.Auth.Needed = false })
	l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	l.start(func(c *Config) {
		r := l.relayed()
		addOverride(c, "smtp.relay.example", "", func(c *Config) { c.Relay = r })
	})
	for _, tt := range []struct{ nexthop, to, want, user string }{
		{"", "x@a.example", "2.0.0 mx.a.example", "-"},
		{"[smtp.relay.example]:" + portOf(l), "x@a.example", "2.0.0 smtp.relay.example", "bob"},
		{"smtp.relay.example:" + portOf(l), "x@a.example", "2.0.0 smtp.relay.example", "bob"},
		{"SMTP.Relay.Example", "x@a.example", "2.0.0 smtp.relay.example", "bob"},
		// the override's relay
		{"[smtp.relay.example]:1", "x@a.example", "2.0.0 smtp.relay.example", "bob"},
	} {
		before := len(server.Messages())
		expect(t, l.sendAs(func(e *Envelope) { e.Nexthop = tt.nexthop }, tt.to), tt.want)
		m := server.Messages()
		switch {
		case tt.user == "-" && len(m) != before:
			t.Errorf("%q went to the relay", tt.nexthop)
		case tt.user != "-" && (len(m) != before+1 || m[before].User != tt.user):
			t.Errorf("%q went as another", tt.nexthop)
		}
	}
}

func portOf(l *lab) string {
	return strings.TrimPrefix((&relay.Relay{Host: "x", Port: l.port}).String(), "x:")
}

// Of several relays at the host and port that a next hop names, the one of the
// recipient's override counts, else the first that is configured.
func TestRelaysAtOnePlace(t *testing.T) {
	t.Parallel()
	for _, ofTransport := range []bool{false, true} {
		l := newLab(t)
		server := l.submission(func(h *mx.Behaviour) {
			for _, user := range []string{"carol", "dave"} {
				h.Auth.Users[user] = password
			}
		})
		as := func(user string) *relay.Relay {
			r := *l.relayed()
			r.User = user
			return &r
		}
		l.start(func(c *Config) {
			if ofTransport {
				c.Relay = as("dave")
			}
			bob, carol := as("bob"), as("carol")
			addOverride(c, "b.example", "", func(c *Config) { c.Relay = bob })
			addOverride(c, "c.example", "", func(c *Config) { c.Relay = carol })
			addOverride(c, "d.example", "", func(c *Config) { c.Relay = nil })
		})
		first := "bob"
		if ofTransport {
			first = "dave"
		}
		for to, user := range map[string]string{"x@b.example": "bob", "x@c.example": "carol", "x@d.example": first, "x@else.example": first} {
			for range 2 {
				before := len(server.Messages())
				expect(t, l.sendAs(func(e *Envelope) { e.Nexthop = "[smtp.relay.example]:" + portOf(l) }, to), "2.0.0 smtp.relay.example")
				if m := server.Messages(); len(m) != before+1 || m[before].User != user {
					t.Errorf("%s went as another than %s", to, user)
				}
			}
		}
	}
}
