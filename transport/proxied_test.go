package transport

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/socks"
	"github.com/mxpipe/mxpipe/transport/proxy"
	"github.com/mxpipe/mxpipe/transport/source"
)

// socks starts a proxy.
func (l *lab) socks(o socks.Options) *socks.Server {
	l.t.Helper()
	s, err := socks.Start(o)
	l.must(err)
	l.t.Cleanup(s.Stop)
	return s
}

// through has the lab's transport connect through a proxy, which is called
// proxy.example.
func (l *lab) through(s *socks.Server, user, password string) func(*Config) {
	l.t.Helper()
	l.zone("proxy.example. A %s", s.Addr().Addr())
	p := &proxy.Config{Host: "proxy.example", Port: s.Addr().Port(), User: user}
	if user != "" {
		p.PasswordFile = filepath.Join(l.t.TempDir(), "password")
		l.must(os.WriteFile(p.PasswordFile, []byte(password+"\n"), 0o600))
	}
	return func(c *Config) { everything(c); c.Proxy = p }
}

// Mail goes through the proxy, over kept connections, by addresses that are
// looked up here; policies hold as ever.
func TestProxy(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	s := l.socks(socks.Options{User: "bob", Password: "secret"})
	l.startPooled(l.through(s, "bob", "secret"))
	for range 3 {
		expect(t, l.send("b@a.example"), "2.0.0 mx.a.example")
	}
	counts(t, server, 1, 3)
	if asked, names := s.Asked.Load(), s.Names.Load(); asked != 1 || names != 0 {
		t.Errorf("asked for %d connections, %d by a name", asked, names)
	}
	l.must(l.transport.CheckProxy(t.Context()))
	e := l.transport.Explain(t.Context(), &Question{Domain: "a.example", Depth: Connect})
	if e.Forecast() != Deliverable || e.Proxy != fmt.Sprintf("proxy.example:%d", s.Addr().Port()) {
		t.Errorf("%v %q %v", e.Forecast(), e.Proxy, e.Answer())
	}
	if strings.Contains(l.logged(), "secret") {
		t.Error("the log has the password")
	}
}

// The addresses of a host are tried as without a proxy: one that is down is
// followed by the next.
func TestProxyTriesEachAddress(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	l.mx("mx.a.example", nil)
	// nothing is at the second
	l.zone("a.example. MX 10 mx.a.example.\nmx.a.example. AAAA ::1")
	s := l.socks(socks.Options{})
	l.start(l.through(s, "", ""))
	expect(t, l.send("b@a.example"), "2.0.0 mx.a.example")
	if asked := s.Asked.Load(); asked != 2 {
		t.Errorf("asked for %d connections", asked)
	}
}

// What goes wrong at the proxy is our own trouble: it is named, it is
// temporary, no host is dead for it, and no password is told.
func TestProxyFails(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name     string
		options  socks.Options
		password string
		down     bool
		host     string // where there is one
		want     string
	}{
		{name: "it is down", down: true},
		{name: "the login is refused", options: socks.Options{User: "bob", Password: "other"}, password: "secret", want: "4.3.0 the SOCKS5 proxy proxy.example:PROXY: username/password authentication failed"},
		{name: "it wants a login", options: socks.Options{User: "bob", Password: "other"}, want: "4.3.0 the SOCKS5 proxy proxy.example:PROXY: it wants a login"},
		{name: "the host refuses", host: "dead.a.example", want: "4.3.0 the SOCKS5 proxy proxy.example:PROXY: connection refused"},
		{name: "it loses connections", options: socks.Options{Lose: true}, want: "4.4.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			host := "mx.a.example"
			l.mx(host, nil)
			if tt.host != "" {
				host = tt.host
				l.dead(host)
			}
			l.zone("a.example. MX 10 %s.", host)
			s := l.socks(tt.options)
			user := ""
			if tt.password != "" {
				user = "bob"
			}
			change := l.through(s, user, tt.password)
			want := strings.ReplaceAll(tt.want, "PROXY", fmt.Sprint(s.Addr().Port()))
			if tt.down {
				want = "4.3.0 the SOCKS5 proxy proxy.example:1: 127.0.0.1:1: connection refused"
			}
			l.start(func(c *Config) {
				change(c)
				if tt.down {
					c.Proxy.Port = 1 // where nobody listens
				}
			})
			for range 3 {
				expect(t, l.send("b@a.example"), want)
			}
			if dead := l.transport.Snapshot().Dead; len(dead) != 0 {
				t.Errorf("dead: %+v", dead)
			}
			if strings.Contains(l.logged(), "secret") {
				t.Error("the log has the password")
			}
			if err := l.transport.CheckProxy(t.Context()); (err == nil) != (tt.host != "" || tt.options.Lose) {
				t.Errorf("CheckProxy: %v", err)
			}
		})
	}
}

// Sources are our addresses towards the proxy: one of either family will do for
// any host, and one that is missing is left out.
func TestProxyAndSources(t *testing.T) {
	t.Parallel()
	l := newLab(t)
	server := l.mx("mx.a.example", nil)
	l.zone("a.example. MX 10 mx.a.example.")
	s := l.socks(socks.Options{})
	change := l.through(s, "", "")
	locals := []netip.Addr{}
	l.observe = func(e *Event) { locals = append(locals, e.Attempts[0].Local) }
	l.start(func(c *Config) {
		change(c)
		gone := from("192.0.2.222", "gone.client.example")
		gone.Weight = source.MaxWeight
		l.leavesFrom(source.BySender, gone, loopbackSources()[1])(c)
	})
	expect(t, l.send("b@a.example"), "2.0.0 mx.a.example")
	if got := helloAt(t, server); got != "out2.client.example" || locals[0].String() != "127.9.0.2" {
		t.Errorf("as %s from %v", got, locals)
	}
}
