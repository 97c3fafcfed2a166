package config

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestChanges(t *testing.T) {
	parse := func(text string) *Config {
		t.Helper()
		c, err := Parse("f", []byte(text), someHost())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	tests := []struct {
		from, to string
		want     []string
	}{
		{"", "", nil},
		{"log: {level: info}", "log: {level: warn}", []string{`log.level: "info" -> "warn"`}},
		{"max_message_size: 1MiB", "max_message_size: 1048577", []string{`max_message_size: "1MiB" -> "1048577"`}},
		{"shutdown_timeout: 1h", "shutdown_timeout: 90s", []string{`shutdown_timeout: "1h" -> "1m30s"`}},
		{"listen: {}", "listen: {metrics: {}}", []string{`listen.metrics.address: "" -> "127.0.0.1:9461"`}},
		{"listen: {socketmap: {address: '127.0.0.1:81'}}", "listen: {socketmap: {path: /a, mode: 0600}}", []string{
			`listen.socketmap.address: "127.0.0.1:81" -> ""`, `listen.socketmap.mode: "" -> "0600"`, `listen.socketmap.path: "" -> "/a"`}},
		{"mx_auth: {a: {dane: {}}}\ntransports: {default: {mx_auth: a}}", "mx_auth: {a: {dane: off}}\ntransports: {default: {mx_auth: a}}", []string{
			`mx_auth.a.dane: "on" -> "off"`, `transports.default.mx_auth.dane: "on" -> "off"`}},
		{"transports: {default: {tls_client: {protocols: tls1.3}, limits: {ip: {rate: 5/1m}}}}",
			"transports: {default: {tls_client: {curves: p256}, limits: {ip: {rate: 5/90s}}}}", []string{
				`transports.default.limits.ip.rate: "5/1m" -> "5/1m30s"`,
				`transports.default.tls_client.curves: "" -> "CurveP256"`,
				`transports.default.tls_client.protocols: "tls1.3 tls1.3" -> "tls1.2 tls1.3"`}},
		{"transports: {default: {overrides: [{match: a.example, port: 26}, {match: b.example}]}}",
			"transports: {default: {overrides: [{match: b.example}, {match: a.example, port: 27}]}}", []string{
				`transports.default.overrides: "a.example b.example" -> "b.example a.example"`,
				`transports.default.overrides[a.example].port: "26" -> "27"`}},
		{"transports: {default: {sources: {pool: [{ip: 192.0.2.1}, {ip: 192.0.2.2, daily: 5}]}}}",
			"transports: {default: {sources: {by: message, pool: [{ip: 192.0.2.2, hostname: a.example}, {ip: [2001:db8::1, 192.0.2.1], weight: 2}]}}}", []string{
				`transports.default.sources.by: "sender" -> "message"`,
				`transports.default.sources.pool[192.0.2.1].ip: "192.0.2.1" -> "2001:db8::1 192.0.2.1"`,
				`transports.default.sources.pool[192.0.2.1].weight: "1" -> "2"`,
				`transports.default.sources.pool[192.0.2.2].daily: "5" -> ""`,
				`transports.default.sources.pool[192.0.2.2].hostname: "" -> "a.example"`}},
	}
	for _, tt := range tests {
		var got []string
		for _, c := range Changes(parse(tt.from), parse(tt.to)) {
			got = append(got, c.String())
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s -> %s:\ngot  %s\nwant %s", tt.from, tt.to, strings.Join(got, "\n     "), strings.Join(tt.want, "\n     "))
		}
	}
}

// A setting that Changes does not know would change unnoticed, so every key
// of the schema must be known to it.
func TestChangesKnowEveryKey(t *testing.T) {
	text, err := os.ReadFile("testdata/everything.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var declared []string
	d := &decoder{file: "everything.yaml", env: someHost(), declared: func(path string) { declared = append(declared, path) }}
	c, err := parse(d, text)
	if err != nil {
		t.Fatal(err)
	}
	known := settings(c)
	for _, path := range declared {
		if strings.Contains(path, "overrides[") || path == "listen.socketmap.address" {
			continue // named by their match; an alternative to what is there
		}
		below := func(p string) bool {
			return p == path || strings.HasPrefix(p, path+".") || strings.HasPrefix(p, path+"[")
		}
		found := false
		for p := range known {
			found = found || below(p)
		}
		if !found {
			t.Errorf("%s is not compared", path)
		}
	}
	if known["transports.default.overrides[.sub.example].nexthop"] != "[192.0.2.9]:26" || known["transports.default.overrides[.sub.example].port"] != "26" {
		t.Error("the override is not compared")
	}
}
