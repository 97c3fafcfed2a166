package config

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A transport that says nothing about mx_auth is warned of, with its line; one
// that says none, or has policies, is not.
func TestWarnings(t *testing.T) {
	for text, want := range map[string]string{
		"":                                       "",
		"transports: {}":                         "",
		"transports: {default: {}}":              "f:1:23: transports.default has no mx_auth, so it uses neither DANE nor MTA-STS and requires no TLS; expected mx_auth: with outbound or a block of its own, or mx_auth: none if that is intended",
		"transports:\n  other:\n    port: 26":    "f:3:5: transports.other has no mx_auth",
		"transports: {default: {mx_auth: none}}": "",
		"transports: {default: {mx_auth: {}}}":   "",
		"transports: {default: {mx_auth: outbound, overrides: [{match: a.example}]}}": "",
		"mx_auth: {a: {}, b: {}}\ntransports: {default: {port: 26}}":                  "with a, b or a block of its own",
	} {
		c, err := Parse("f", []byte(text), someHost())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := Mistakes(c.Warnings).Error()
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: warned of %q, want %q", text, got, want)
		}
	}
}

// Two relays at one host and port, which a next hop cannot tell apart, are
// warned of where they differ.
func TestRelaysAtOnePlace(t *testing.T) {
	for text, want := range map[string]string{
		`relay: {host: "r.example:587"}, overrides: [{match: a.example, relay: {host: "r.example", tls: implicit}}]`:                                       "",
		`relay: {host: "r.example:587"}, overrides: [{match: a.example, relay: {host: r.example}}]`:                                                        "",
		`relay: {host: "r.example:587"}, overrides: [{match: a.example, relay: {host: "r.example:587", tls: implicit}}]`:                                   "f:1:109: transports.default.overrides[0].relay is at r.example:587 as one before it, with another login or TLS; --nexthop r.example:587 goes to the one of the recipient's override",
		`overrides: [{match: a.example, relay: {host: r.example}}, {match: b.example, relay: {host: "r.example:587", tls: implicit}}, {match: c.example}]`: "transports.default.overrides[1].relay is at r.example:587",
	} {
		c, err := Parse("f", []byte("transports: {default: {mx_auth: none, "+text+"}}"), someHost())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		got := Mistakes(c.Warnings).Error()
		if (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%q: warned of %q, want %q", text, got, want)
		}
	}
}

// Keys that Postfix cannot be told are warned of where it may ask, with the
// map.
func TestUntold(t *testing.T) {
	const pin = `pin: "sha256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="`
	for text, want := range map[string][]string{
		// nothing asks
		"transports: {default: {mx_auth: none, overrides: [{match: a.example, " + pin + "}]}}": nil,
		"listen: {socketmap: {}}\ntransports: {default: {mx_auth: none}}":                      nil,
		"listen: {socketmap: {}}\ntransports: {default: {mx_auth: none, overrides: [{match: a.example, " + pin + "}]}}": {
			"f:2:75: transports.default.overrides[0].pin: the map policy answers fingerprint, which Postfix compares with the server's own key only",
		},
		"listen: {socketmap: {}}\ntransports: {strict: {mx_auth: none, tls_client: {legacy: false}, overrides: [{match: a.example, tls_client: {legacy: true}}]}}": {
			"transports.strict.tls_client.legacy: the map policy@strict does not tell Postfix of it: smtp_tls_protocols",
			"transports.strict.overrides[0].tls_client.legacy: the map policy@strict does not tell Postfix of it: smtp_tls_protocols",
		},
	} {
		c, err := Parse("f", []byte(text), someHost())
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if len(c.Warnings) != len(want) {
			t.Errorf("%q: warned of %q", text, Mistakes(c.Warnings).Error())
			continue
		}
		for i := range want {
			if got := c.Warnings[i].String(); !strings.Contains(got, want[i]) {
				t.Errorf("%q: warned of %q, want %q", text, got, want[i])
			}
		}
	}
}

// What serve would refuse, a look at the machine finds before: a group that is
// not there, and a name that others can reach.
func TestMachine(t *testing.T) {
	env := someHost()
	env.Group = func(name string) error {
		if name != "mxpipe" && name != "12" {
			return user.UnknownGroupError(name)
		}
		return nil
	}
	env.Addresses = func(name string) ([]netip.Addr, error) {
		switch name {
		case "localhost":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::1")}, nil
		case "half.example":
			return []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.1")}, nil
		}
		return nil, errors.New("no such host")
	}
	for text, want := range map[string]string{
		"listen: {pipe: {group: mxpipe}, admin: {group: '12'}}":     "",
		"listen: {pipe: {group: nosuch}}":                           `f:1:24: listen.pipe.group: there is not a group "nosuch"; expected an existing group, such as one made by groupadd --system nosuch`,
		"listen: {lmtp: [{}, {group: nosuch, path: /a}]}":           `listen.lmtp[1].group: there is not a group`,
		"listen: {socketmap: {group: nosuch}}":                      `listen.socketmap.group: there is not a group`,
		"listen: {admin: {group: nosuch}}":                          `listen.admin.group: there is not a group`,
		"listen: {socketmap: {address: 'localhost:8461'}}":          "",
		"listen: {socketmap: {address: 'half.example:8461'}}":       `"192.0.2.1" is not a loopback address`,
		"listen: {socketmap: {address: 'nosuch.example:8461'}}":     `"nosuch.example" does not resolve to an address: no such host`,
		"listen: {metrics: {address: 'nosuch.example:8461'}}":       "",
		"listen: {socketmap: {address: '[::ffff:127.0.0.1]:8461'}}": "",
	} {
		_, err := Parse("f", []byte(text), env)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	if err := findGroup("no-such-group"); err == nil {
		t.Error("an unknown group is known")
	}
	if err := findGroup("65534"); err != nil {
		t.Errorf("a number: %v", err)
	}
	if all, err := addresses("localhost"); err != nil || len(all) == 0 {
		t.Errorf("localhost: %v, %v", all, err)
	}
}

// A FIFO is never waited for, neither as the configuration nor as a file that
// it names; a link to a file is as good as the file.
func TestRegularFilesOnly(t *testing.T) {
	dir := t.TempDir()
	fifo, file, link := filepath.Join(dir, "fifo"), filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("hostname: a.example\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Fatal(err)
	}
	if c, err := Load(link, System()); err != nil || c.Hostname != "a.example" {
		t.Errorf("a link: %v", err)
	}
	for name, load := range map[string]func(string, Environment) (*Config, error){"load": Load, "reload": Reload} {
		for _, path := range []string{fifo, dir, "/dev/null", "/dev/zero"} {
			if _, err := load(path, System()); !errors.Is(err, errNotRegular) {
				t.Errorf("%s %s: %v", name, path, err)
			}
		}
	}
	text := "hostname: a.example\ntransports: {default: {mx_auth: none, tls_client: {root_ca: " + fifo + "}}}"
	if _, err := Parse("f", []byte(text), System()); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a FIFO of certificates: %v", err)
	}
}

// What the files held that were checked is in the configuration: nothing needs
// to read them again.
func TestFilesAreKept(t *testing.T) {
	certPEM, keyPEM := certificate(t)
	env := someHost()
	env.ReadFile = func(name string) ([]byte, error) {
		return map[string][]byte{"/cert": certPEM, "/key": keyPEM}[name], nil
	}
	c, err := Parse("f", []byte("transports: {default: {tls_client: {root_ca: /cert, cert: /cert, key: /key}}}"), env)
	if err != nil || len(c.Files) != 2 || string(c.Files["/cert"]) != string(certPEM) || string(c.Files["/key"]) != string(keyPEM) {
		t.Errorf("%v, %v", c.Files, err)
	}
}

// Root sees what the service's user may read.
func TestAsService(t *testing.T) {
	dir := t.TempDir()
	secret, open := filepath.Join(dir, "secret"), filepath.Join(dir, "open")
	for name, mode := range map[string]fs.FileMode{secret: 0o600, open: 0o644} {
		if err := os.WriteFile(name, []byte("x"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if os.Geteuid() != 0 {
		// There is nothing that we may read and should not.
		if text, err := AsService().ReadFile(secret); err != nil || string(text) != "x" {
			t.Errorf("%q, %v", text, err)
		}
		return
	}
	for path := dir; path != "/"; path = filepath.Dir(path) {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm()&0o001 == 0 {
			if err := os.Chmod(path, info.Mode().Perm()|0o011); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { os.Chmod(path, info.Mode().Perm()) })
		}
	}
	nobody, err := user.LookupId("65534")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := readAs(nobody, open, ReadFile); err != nil || string(text) != "x" {
		t.Errorf("what all may read: %q, %v", text, err)
	}
	if text, err := readAs(nobody, secret, ReadFile); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "permission denied to the service's user "+nobody.Username) {
		t.Errorf("what root alone may read: %q, %v", text, err)
	}
	if _, err := readAs(nobody, dir+"/nosuch", ReadFile); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what is not there: %v", err)
	}
	// The rights are given back.
	if text, err := os.ReadFile(secret); err != nil || string(text) != "x" {
		t.Errorf("%q, %v", text, err)
	}
}
