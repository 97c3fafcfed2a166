package config

import (
	"errors"
	"io/fs"
	"os"
	"reflect"
	"strings"
	"testing"
)

// Whatever the text, there is a configuration or there are mistakes, the same
// ones each time, and each mistake can be printed and found.
func FuzzParse(f *testing.F) {
	for _, file := range []string{"testdata/complete.yaml", "testdata/everything.yaml"} {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	for _, text := range []string{
		Reference(), uncommented(false), uncommented(true), "", "a: &a [*a]", "? {a: b}\n: c", "- - - x", "%YAML 1.2\n---\n", "--- !!binary x",
		"dns: {servers: [::1, a:1, '[']}", "max_message_size: 9223372036854775807GiB", "shutdown_timeout: 65535d1h", "log: |\n  x\n y",
		"mx_auth: {s: {local_policy: {min_mx_level: dnssec}}}", "\xef\xbb\xbfhostname: \"\\u202e\"", "hostname: 'a\n\n\tb'", "\r\r\n", "a: b: c", "{",
		"transports: {default: {overrides: [{match: .}, {match: ..}, {match: ü.example, nexthop: '[:]:1'}]}}",
		"transports: {default: {tls_client: {protocols: tls1.3 tls1.0, root_ca: /x, cert: /x, key: /x}}}",
	} {
		f.Add([]byte(text))
	}
	env := someHost()
	env.ReadFile = func(name string) ([]byte, error) {
		if len(name)%2 == 0 {
			return []byte("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"), nil
		}
		return nil, fs.ErrNotExist
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := Parse("f", text, env)
		again, errAgain := Parse("f", text, env)
		if !reflect.DeepEqual(c, again) || !reflect.DeepEqual(err, errAgain) {
			t.Fatalf("twice the same text, two answers:\n%v\n%v", err, errAgain)
		}
		if err == nil {
			usable(t, c)
			return
		}
		m, ok := errors.AsType[Mistakes](err)
		if !ok || c != nil || len(m) == 0 || len(m) > maxMistakes+1 {
			t.Fatalf("%T with %d mistakes and %v", err, len(m), c)
		}
		for _, mistake := range m {
			if mistake.Line < 1 || mistake.Column < 1 || mistake.Line > strings.Count(string(text), "\n")+strings.Count(string(text), "\r")+1+strings.Count(string(text), "\u0085") {
				t.Errorf("no such place: %s", mistake)
			}
			if s := mistake.String(); s != printable(s) || len(s) > 1000 {
				t.Errorf("not fit to print: %q", s)
			}
		}
	})
}

// usable asserts what the daemon relies on without looking.
func usable(t *testing.T, c *Config) {
	if c.Hostname == "" || c.StateDir == "" || c.StateDir[0] != '/' || c.Transports[DefaultTransport] == nil || c.DNS.Timeout <= 0 || c.DNS.Attempts < 1 {
		t.Fatalf("%+v", c)
	}
	for name, tr := range c.Transports {
		if tr.Name != name || tr.Hostname == "" || tr.Port == 0 || tr.ConnectTimeout <= 0 || tr.CommandTimeout <= 0 || tr.SubmissionTimeout <= 0 {
			t.Fatalf("%+v", tr)
		}
		for _, o := range tr.Overrides {
			if o.Match == "" || o.Config == nil || o.Config.Overrides != nil || o.Config.Name != name {
				t.Fatalf("%+v", o)
			}
		}
	}
	if changes := Changes(c, c); changes != nil {
		t.Fatalf("%v", changes)
	}
}
