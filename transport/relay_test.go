package transport

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/transport/mtasts"
	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

// password is one that is easy to find again, whatever was written.
const password = "Kq7-geheim+Wort/93zU"

// submission starts a server named smtp.relay.example that bob can log in at.
func (l *lab) submission(change func(*mx.Behaviour)) *mx.Server {
	l.t.Helper()
	return l.mx("smtp.relay.example", func(h *mx.Behaviour) {
		h.Auth = &mx.Auth{Mechanisms: []string{"PLAIN", "LOGIN", "SCRAM-SHA-256"}, Users: map[string]string{"bob": password}, Needed: true}
		if change != nil {
			change(h)
		}
	})
}

// relayed gives a relay with bob's login, by these mechanisms.
func (l *lab) relayed(auth ...sasl.Mechanism) *relay.Relay {
	l.t.Helper()
	file := filepath.Join(l.t.TempDir(), "password")
	l.must(os.WriteFile(file, []byte(password+"\n"), 0o600))
	if auth == nil {
		auth = sasl.Default()
	}
	return &relay.Relay{Host: "smtp.relay.example", Port: l.port, User: "bob", PasswordFile: file, Auth: auth}
}

// passwordIsNowhere looks for the password in all that was logged and said.
func (l *lab) passwordIsNowhere(results ...Result) {
	l.t.Helper()
	all := l.logged()
	for _, r := range results {
		all += r.Text
	}
	if i := strings.Index(all, password); i >= 0 {
		l.t.Errorf("the password was written: %s", all[max(0, i-200):i+len(password)])
	}
	for _, part := range []string{"geheim", "Wort/93", "AGJvYg", "S3E3LWdlaGVp"} {
		if strings.Contains(all, part) {
			l.t.Errorf("a part of the password was written: %q", part)
		}
	}
}

func TestRelay(t *testing.T) {
	t.Parallel()
	for _, m := range []sasl.Mechanism{sasl.SCRAMSHA256, sasl.Plain, sasl.Login, sasl.OAuthBearer, sasl.External} {
		for _, first := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, implicit %v", m, first), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				server := l.submission(func(h *mx.Behaviour) {
					h.Auth.Mechanisms = []string{m.String()}
					if first {
						h.TLS.Mode = mx.TLSFirst
					}
				})
				// The domain's own policies and hosts count for nothing.
				l.zone("null.example. MX 0 .")
				l.policy("a.example", mtasts.ModeEnforce, "mx.elsewhere.example")
				l.startPooled(func(c *Config) {
					everything(c)
					c.Relay, c.Debug = l.relayed(m), true
					if first {
						c.Relay.TLS = relay.Implicit
					}
				})
				var all []Result
				for range 3 {
					results := l.send("b@a.example", "c@null.example", "d@nosuch.example")
					expect(t, results, "2.0.0 smtp.relay.example: 250", "2.0.0 smtp.relay.example: 250", "2.0.0 smtp.relay.example: 250")
					all = append(all, results...)
				}
				messages := server.Messages()
				want := map[bool]string{false: "bob", true: "external:bob"}[m == sasl.External]
				if len(messages) != 3 || messages[0].User != want || len(messages[0].Recipients) != 3 || messages[2].OnConn != 3 {
					t.Errorf("%d messages, %+v", len(messages), messages)
				}
				for i, one := range messages {
					if one.Flights != 1 {
						t.Errorf("message %d took %d flights", i, one.Flights)
					}
				}
				if c := server.Counters(); c.Logins != 1 || c.Violations != 0 {
					t.Errorf("%d logins, violations %v", c.Logins, server.Violations())
				}
				l.passwordIsNowhere(all...)
			})
		}
	}
}

// Where the connection is not authenticated no login leaves.
func TestRelayMustProveItself(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		change func(*lab, *mx.Behaviour)
		want   string
	}{
		"no STARTTLS":      {func(_ *lab, h *mx.Behaviour) { h.TLS.Mode = mx.TLSNone; h.Auth.Clear = true }, "4.7.5 relay: the server does not offer STARTTLS"},
		"STARTTLS refused": {func(_ *lab, h *mx.Behaviour) { h.TLS.Mode = mx.TLSRefused; h.Auth.Clear = true }, "4.7.5 relay: TLS failed"},
		"handshake fails":  {func(_ *lab, h *mx.Behaviour) { h.TLS.Mode = mx.TLSBroken; h.Auth.Clear = true }, "4.7.5 "},
		"another name":     {func(l *lab, h *mx.Behaviour) { h.TLS.Certificate = l.cert(ca.For("other.example")) }, "4.7.5 relay: "},
		"expired":          {func(l *lab, h *mx.Behaviour) { h.TLS.Certificate = l.cert(ca.ExpiredFor("smtp.relay.example")) }, "4.7.5 relay: "},
		"unknown authority": {func(l *lab, h *mx.Behaviour) {
			h.TLS.Certificate = issue(l.t, l.strangers, ca.For("smtp.relay.example"))
		}, "4.7.5 relay: "},
		"injection": {func(_ *lab, h *mx.Behaviour) { h.TLS.Inject = "235 welcome\r\n" }, "4.7.5 "},
		"wants a certificate": {func(_ *lab, h *mx.Behaviour) {
			h.TLS.Answer = func(_ *tls.ClientHelloInfo, config *tls.Config) error {
				config.ClientAuth = tls.RequireAnyClientCert
				return nil
			}
		}, "4.7.5 the server asks for a client certificate"},
		"no AUTH":                {func(_ *lab, h *mx.Behaviour) { h.Auth.Mechanisms = nil }, "4.7.8 login of bob failed: the server does not offer AUTH"},
		"other mechanisms":       {func(_ *lab, h *mx.Behaviour) { h.Auth.Mechanisms = []string{"CRAM-MD5"} }, "4.7.8 login of bob failed: the server offers CRAM-MD5"},
		"wrong password":         {func(_ *lab, h *mx.Behaviour) { h.Auth.Users = nil }, "4.7.8 login of bob by SCRAM-SHA-256 failed: 535 5.7.8"},
		"temporary failure":      {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageAUTH, "454 4.7.0 try later") }, "4.7.8 454 4.7.0 try later"},
		"goes away":              {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageAUTH, "421 4.3.2 going") }, "4.7.8 421 4.3.2"},
		"another success":        {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageAUTH, "250 ok") }, "4.7.8 250 ok"},
		"permanent at the login": {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageAUTH, "550 5.1.1 no") }, "4.7.8 550 5.1.1 no"},
		"scram without proof":    {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageAUTH, "235 2.7.0 welcome, whoever you are") }, "4.7.8 without having proven"},
		"530 at MAIL":            {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageMAIL, "530 5.7.0 Authentication required") }, "4.7.8 530 5.7.0"},
		"invalid credentials":    {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageMAIL, "550 5.7.8 bad credentials") }, "4.7.8 550 5.7.8"},
		"too weak a login":       {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageRCPT, "554 5.7.9 log in better") }, "4.7.8 554 5.7.9"},
		"a login first":          {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageMAIL, "503 need AUTH first") }, "4.7.8 503 need AUTH first"},
		"no login's fault":       {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageRCPT, "550 5.7.1 not for you") }, "5.7.1 550 5.7.1"},
		"535 at RCPT":            {func(_ *lab, h *mx.Behaviour) { says(h, mx.StageRCPT, "535 5.7.8 who are you") }, "4.7.8 535 5.7.8"},
	} {
		for _, first := range []bool{false, true} {
			if first && (strings.Contains(name, "STARTTLS") || name == "injection" || name == "handshake fails") {
				continue
			}
			t.Run(fmt.Sprintf("%s, implicit %v", name, first), func(t *testing.T) {
				t.Parallel()
				l := newLab(t)
				server := l.submission(func(h *mx.Behaviour) {
					if first {
						h.TLS.Mode = mx.TLSFirst
					}
					tt.change(l, h)
				})
				l.start(func(c *Config) {
					everything(c)
					c.Relay, c.Debug = l.relayed(), true
					if first {
						c.Relay.TLS = relay.Implicit
					}
				})
				results := l.send("b@a.example")
				expect(t, results, tt.want)
				if strings.HasPrefix(tt.want, "4.7.5") && server.Counters().Verbs["AUTH"] > 0 {
					t.Error("AUTH was said")
				}
				l.passwordIsNowhere(results...)
			})
		}
	}
}

func says(h *mx.Behaviour, stage mx.Stage, reply string) {
	h.At = map[mx.Stage]mx.Action{stage: {Reply: reply}}
}
