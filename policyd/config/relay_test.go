package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/transport/relay"
	"github.com/mxpipe/mxpipe/transport/sasl"
)

func TestRelay(t *testing.T) {
	named := relay.Relay{Host: "smtp.relay.example", Port: 587}
	with := func(change func(*relay.Relay)) *relay.Relay {
		r := named
		change(&r)
		return &r
	}
	bob := func(r *relay.Relay) { r.User, r.PasswordFile, r.Auth = "bob", "/p", sasl.Default() }
	for text, want := range map[string]*relay.Relay{
		"{host: smtp.relay.example}":                                                        &named,
		"{host: SMTP.Relay.Example}":                                                        &named,
		"{host: '[smtp.relay.example]'}":                                                    &named,
		"{host: '[smtp.relay.example]:25'}":                                                 with(func(r *relay.Relay) { r.Port = 25 }),
		"{host: 'smtp.relay.example:2525', tls: starttls}":                                  with(func(r *relay.Relay) { r.Port = 2525 }),
		"{host: smtp.relay.example, tls: implicit}":                                         with(func(r *relay.Relay) { r.Port, r.TLS = 465, relay.Implicit }),
		"{host: smtp.relay.example, user: bob, password_file: /p}":                          with(bob),
		"{host: smtp.relay.example, user: bob, password_file: /p, auth: [login, plain]}":    with(func(r *relay.Relay) { bob(r); r.Auth = []sasl.Mechanism{sasl.Login, sasl.Plain} }),
		"{host: smtp.relay.example, user: bob, password_file: /p, auth: LOGIN oauthbearer}": with(func(r *relay.Relay) { bob(r); r.Auth = []sasl.Mechanism{sasl.Login, sasl.OAuthBearer} }),
		"{host: smtp.relay.example, user: bob, password_file: relay.password}":              with(func(r *relay.Relay) { bob(r); r.PasswordFile = "/run/credentials/x/relay.password" }),
		"{host: 192.0.2.1}":                                                                 {Addr: netip.MustParseAddr("192.0.2.1"), Port: 587},
		"{host: '[192.0.2.1]:26'}":                                                          {Addr: netip.MustParseAddr("192.0.2.1"), Port: 26},
		"{host: '2001:db8::1'}":                                                             {Addr: netip.MustParseAddr("2001:db8::1"), Port: 587},
		"{host: '[IPv6:2001:db8::1]:465'}":                                                  {Addr: netip.MustParseAddr("2001:db8::1"), Port: 465},
		"{host: '[2001:db8::1]:465'}":                                                       {Addr: netip.MustParseAddr("2001:db8::1"), Port: 465},
		"{host: '127.0.0.1:10025', tls: none}":                                              {Addr: netip.MustParseAddr("127.0.0.1"), Port: 10025, TLS: relay.NoTLS},
		"{host: '[::1]:10025', tls: none}":                                                  {Addr: netip.MustParseAddr("::1"), Port: 10025, TLS: relay.NoTLS},
		"{host: 'localhost:10025', tls: none}":                                              {Host: "localhost", Port: 10025, TLS: relay.NoTLS},
		"off":                                                                               nil,
		"none":                                                                              nil,
		"{host: a.example, tls: no}":                                                        nil,
		"{}":                                                                                nil,
		"{host: ''}":                                                                        nil,
		"{host: a.example, tls: none}":                                                      nil,
		"{host: 192.0.2.1, tls: none}":                                                      nil,
		"{host: 127.0.0.1, tls: none, user: bob, password_file: /p}":                        nil,
		"{host: a.example, user: bob}":                                                      nil,
		"{host: a.example, password_file: /p}":                                              nil,
		"{host: a.example, auth: plain}":                                                    nil,
		"{host: a.example, auth: external}":                                                 nil,
		"{host: a.example, user: bob, password_file: /p, auth: []}":                         nil,
		"{host: a.example, user: bob, password_file: p/q}":                                  nil,
		"{host: a.example, user: bob, password_file: ../q}":                                 nil,
		"{host: a.example, user: bob, password: secret}":                                    nil,
		"{host: 'a.example:0'}":                                                             nil,
		"{host: 'a.example:smtp'}":                                                          nil,
		"{host: '[a.example'}":                                                              nil,
		"{host: '[a.example]x'}":                                                            nil,
		"{host: 'bob@a.example'}":                                                           nil,
		"{host: \"a.example\\u0000\"}":                                                      nil,
	} {
		env := someHost()
		env.Credentials = "/run/credentials/x"
		c, err := Parse("f", []byte("transports: {default: {mx_auth: none, relay: "+text+"}}"), env)
		if want == nil {
			if err == nil && text != "off" && text != "none" {
				t.Errorf("%s is taken", text)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", text, err)
		} else if got := c.Transports["default"].Relay; !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, want %+v", text, got, want)
		}
	}
	if _, err := Parse("f", []byte("transports: {default: {relay: {host: a.example, user: bob, password_file: p}}}"), someHost()); err == nil || !strings.Contains(err.Error(), "$CREDENTIALS_DIRECTORY is not set") {
		t.Errorf("a credential outside of the service: %v", err)
	}
}

// An override has the transport's relay, unless it says something else about
// where its mail goes.
func TestRelayOfOverrides(t *testing.T) {
	c, err := Parse("f", []byte(`transports:
  default:
    mx_auth: none
    relay: {host: a.example}
    overrides:
      - {match: same.example, port: 26}
      - {match: off.example, relay: off}
      - {match: other.example, relay: {host: b.example, tls: implicit}}
      - {match: next.example, nexthop: c.example}
      - {match: both.example, nexthop: c.example, relay: off}
`), someHost())
	if err != nil {
		t.Fatal(err)
	}
	d := c.Transports["default"]
	var got []string
	for _, o := range d.Overrides {
		if o.Config.Relay == nil {
			got = append(got, "none")
		} else {
			got = append(got, o.Config.Relay.String())
		}
	}
	if want := "a.example:587 none b.example:465 none none"; strings.Join(got, " ") != want {
		t.Errorf("%s, want %s", got, want)
	}
	if d.Overrides[0].Config.Relay != d.Relay {
		t.Error("an override has a relay of its own, which is the transport's")
	}
	if _, err := Parse("f", []byte("transports: {default: {mx_auth: none, overrides: [{match: x.example, nexthop: c.example, relay: {host: a.example}}]}}"), someHost()); err == nil {
		t.Error("relay and nexthop of one override are taken")
	}
}

// What is no password is told, by what is wrong and not by what it says.
func TestPasswordFile(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		text string
		mode os.FileMode
		want string // of the mistake; empty: none
	}{
		"newline":    {"secret\n", 0o600, ""},
		"crlf":       {"secret\r\n", 0o600, ""},
		"no newline": {"secret", 0o400, ""},
		"blanks":     {" secret word \n", 0o640, ""},
		"utf-8":      {"gehörnt\n", 0o600, ""},
		"empty":      {"", 0o600, "is empty"},
		"nothing":    {"\n", 0o600, "is empty"},
		"two lines":  {"secret\n\n", 0o600, "has more than one line"},
		"two words":  {"secret\nother\n", 0o600, "has more than one line"},
		"return":     {"secret\rother\n", 0o600, "has more than one line"},
		"nul":        {"secret\x00\n", 0o600, "has a control character"},
		"tab":        {"secret\tx\n", 0o600, "has a control character"},
		"latin-1":    {"secret\xe4\n", 0o600, "is not UTF-8"},
		"long":       {strings.Repeat("secret", 2000) + "\n", 0o600, "is longer than"},
		"huge":       {strings.Repeat("secret", 200_000), 0o600, "larger than 1 MiB"},
		"for all":    {"secret\n", 0o644, "everybody can read it (mode 0644)"},
		"writable":   {"secret\n", 0o620, "others can change it (mode 0620)"},
		"fifo":       {"", 0, "not a regular file"},
		"missing":    {"", 0, "no such file"},
	} {
		file := filepath.Join(dir, name)
		if tt.mode != 0 {
			if err := os.WriteFile(file, []byte(tt.text), tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
		}
		env := System()
		env.FQDN = someHost().FQDN
		c, err := Parse("f", []byte("transports: {default: {mx_auth: none, relay: {host: a.example, user: bob, password_file: '"+file+"'}}}"), env)
		switch {
		case tt.want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case tt.want == "" && string(c.Files[file]) != tt.text:
			t.Errorf("%s: %q is kept", name, c.Files[file])
		case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)):
			t.Errorf("%s: %v, want %s", name, err, tt.want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%s: the mistake tells the password: %v", name, err)
		}
	}
	if os.Geteuid() == 0 {
		file := filepath.Join(dir, "newline")
		if err := os.Chown(file, 4711, -1); err != nil {
			t.Fatal(err)
		}
		if _, err := readSecret(file, 0); err == nil || !strings.Contains(err.Error(), "belongs to the user 4711") {
			t.Errorf("a stranger's file: %v", err)
		}
		if _, err := readSecret(file, 4711); err != nil {
			t.Errorf("the user's own file: %v", err)
		}
	}
}
