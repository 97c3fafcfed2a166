package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Every line of a mistake is what an administrator reads, so each is given
// here in full, after the file's name.
func TestMistakes(t *testing.T) {
	tests := []struct {
		text  string
		lines []string
	}{
		{"hostnam: mx.example.org", []string{`1:1: unknown key "hostnam"; expected "hostname"`}},
		{"max-deliveries: 5", []string{`1:1: unknown key "max-deliveries"; expected "max_deliveries"`}},
		{"foo: 1", []string{`1:1: unknown key "foo"; expected one of hostname, state_dir, shutdown_timeout, log, dns, listen, max_message_size, max_deliveries, mx_auth, transports, tlsrpt, providers, replies, history`}},
		{"port: 25", []string{`1:1: unknown key "port"; expected "port" in transports.NAME`}},
		{"mtasts: {}", []string{`1:1: unknown key "mtasts"; expected "mtasts" in mx_auth.NAME`}},
		{"tls-client: {}", []string{`1:1: unknown key "tls-client"; expected "tls_client" in transports.NAME`}},
		{"dns: {port: 53}", []string{`1:7: unknown key "port" in dns; expected "port" in transports.NAME`}},
		{"dns: {timout: 5s}", []string{`1:7: unknown key "timout" in dns; expected "timeout"`}},
		{"transports: {default: {curve: p256}}", []string{`1:24: unknown key "curve" in transports.default; expected one of mx_auth, hostname, local_ip, sources, force_ipv4, prefer, proxy, port, connect_timeout, command_timeout, submission_timeout, debug, requiretls_override, relaxed_requiretls, conn_reuse_limit, conn_max_idle_count, conn_max_idle_time, chunking, quarantine_header, tls_client, limits, relay, fallback_relay, overrides`}},
		{"transports: {default: {tls_client: {curve: p256}}}", []string{`1:37: unknown key "curve" in transports.default.tls_client; expected "curves"`}},
		{"transports: {default: {match: a.example}}", []string{`1:24: unknown key "match" in transports.default; expected "match" in transports.NAME.overrides`}},
		{"transports: {default: {qqqqqqqqqqqqq: 1}}", []string{`1:24: unknown key "qqqqqqqqqqqqq" in transports.default; expected one of mx_auth, hostname, local_ip, sources, force_ipv4, prefer, proxy, port, connect_timeout, command_timeout, submission_timeout, debug, requiretls_override, relaxed_requiretls, conn_reuse_limit, conn_max_idle_count, conn_max_idle_time, chunking, quarantine_header, tls_client, limits, relay, fallback_relay, overrides`}},
		{"hostname: a.example\nhostname: b.example", []string{`2:1: duplicate key "hostname", first given in line 1; give it once`}},
		{"dns:\n  timeout: 5s\n  attempts: 3\n  timeout: 6s", []string{`4:3: duplicate key "dns.timeout", first given in line 2; give it once`}},
		{"transports:\n  a: {}\n  a: {}", []string{`3:3: duplicate key "transports.a", first given in line 2; give it once`}},
		{`hostname: ""`, []string{"1:11: hostname: is empty; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]"}},
		{"hostname:", []string{"1:1: hostname: has no value; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]"}},
		{"hostname: [a.example]", []string{"1:11: hostname: is a list; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]"}},
		{"hostname: {a: b}", []string{"1:11: hostname: is a block of keys; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]"}},
		{"hostname: 192.0.2.1", []string{`1:11: hostname: "192.0.2.1" is an address; expected in brackets, [192.0.2.1]`}},
		{"hostname: 2001:db8::1", []string{`1:11: hostname: "2001:db8::1" is an address; expected in brackets, [IPv6:2001:db8::1]`}},
		{`hostname: "[192.0.2]"`, []string{`1:11: hostname: "[192.0.2]" is not a domain name; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"hostname: mx_1.example.org", []string{`1:11: hostname: "mx_1.example.org" is not a host name: labels have letters, digits and inner hyphens; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"hostname: -mx.example.org", []string{`1:11: hostname: "-mx.example.org" is not a host name: labels have letters, digits and inner hyphens; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"hostname: mx..example.org", []string{`1:11: hostname: "mx..example.org" is not a domain name; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"hostname: example.123", []string{`1:11: hostname: "example.123" is not a domain name: it ends with a number; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{`hostname: "mx example"`, []string{`1:11: hostname: "mx example" is not a domain name; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"hostname: \"mx\\x07.example\\n\"", []string{"1:11: hostname: \"mx\\a.example\\n\" is not a domain name; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]"}},
		{"state_dir: var/lib", []string{`1:12: state_dir: "var/lib" is a relative path; expected an absolute path`}},
		{`state_dir: ""`, []string{"1:12: state_dir: is empty; expected an absolute path"}},
		{"shutdown_timeout: 30", []string{`1:19: shutdown_timeout: "30" has no unit; expected "30s" if seconds are meant`}},
		{"shutdown_timeout: 2h", []string{`1:19: shutdown_timeout: "2h" is too long; expected a duration from 0s to 1h`}},
		{"shutdown_timeout: -1s", []string{`1:19: shutdown_timeout: "-1s" is not a duration; expected a duration from 0s to 1h`}},
		{"shutdown_timeout: soon", []string{`1:19: shutdown_timeout: "soon" is not a duration; expected a duration from 0s to 1h`}},
		{"shutdown_timeout: 5 minutes", []string{`1:19: shutdown_timeout: "5 minutes" is not a duration; expected a duration from 0s to 1h`}},
		{"log: debug", []string{`1:6: log: is the plain value "debug"; expected a block with the keys level, format`}},
		{"log: [debug]", []string{"1:6: log: is a list; expected a block with the keys level, format"}},
		{"log: {level: trace}", []string{`1:14: log.level: unknown value "trace"; expected debug, info, warn or error`}},
		{"log: {format: xml}", []string{`1:15: log.format: unknown value "xml"; expected text, json or journal`}},
		{"dns: {servers: 127.0.0.1:0}", []string{`1:16: dns.servers: "127.0.0.1:0" has no usable port; expected a number from 1 to 65535 after the colon`}},
		{"dns: {servers: [300.0.0.1]}", []string{`1:17: dns.servers[0]: "300.0.0.1" is not a domain name: it ends with a number; expected an address or a name, with a port or without, such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53`}},
		{"dns: {servers: {a: b}}", []string{"1:16: dns.servers: is a block of keys; expected a list; each item an address or a name, with a port or without, such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53"}},
		{"dns: {servers: [[127.0.0.1]]}", []string{"1:17: dns.servers[0]: is a list; expected an address or a name, with a port or without, such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53"}},
		{"dns: {servers: [a.example:99999]}", []string{`1:17: dns.servers[0]: "a.example:99999" has no usable port; expected a number from 1 to 65535 after the colon`}},
		{"dns: {servers: [1.1.1.1, 1.1.1.2, 1.1.1.3, 1.1.1.4, 1.1.1.5, 1.1.1.6, 1.1.1.7, 1.1.1.8, 1.1.1.9, 1.1.1.10, 1.1.1.11]}", []string{"1:16: dns.servers: has 11 items; expected at most 10"}},
		{"dns: {trust_ad: localhost}", []string{`1:17: dns.trust_ad: unknown value "localhost"; expected loopback, all or none`}},
		{"dns: {timeout: 5}", []string{`1:16: dns.timeout: "5" has no unit; expected "5s" if seconds are meant`}},
		{"dns: {timeout: 2m}", []string{`1:16: dns.timeout: "2m" is too long; expected a duration from 1ms to 1m`}},
		{"dns: {timeout: 0s}", []string{`1:16: dns.timeout: "0s" is too short; expected a duration from 1ms to 1m`}},
		{"dns: {attempts: 0}", []string{`1:17: dns.attempts: "0" is out of range; expected a number from 1 to 10`}},
		{"dns: {attempts: 3.5}", []string{`1:17: dns.attempts: "3.5" is not a whole number; expected a number from 1 to 10`}},
		{"max_message_size: 100M", []string{`1:19: max_message_size: "100M" does not say whether 1000 or 1024 is meant; expected 100MiB or 100MB`}},
		{"max_message_size: 100 apples", []string{`1:19: max_message_size: "100 apples" has an unknown unit; expected a size from 1KiB to 2GiB`}},
		{"max_message_size: 1B", []string{`1:19: max_message_size: "1B" is too small; expected a size from 1KiB to 2GiB`}},
		{"max_message_size: 3GiB", []string{`1:19: max_message_size: "3GiB" is too large; expected a size from 1KiB to 2GiB`}},
		{"max_message_size: 99999999999999999999", []string{`1:19: max_message_size: "99999999999999999999" is too large; expected a size from 1KiB to 2GiB`}},
		{"max_message_size: big", []string{`1:19: max_message_size: "big" is not a size; expected a size from 1KiB to 2GiB`}},
		{"max_message_size: 9223372036854775807GB", []string{`1:19: max_message_size: "9223372036854775807GB" is too large; expected a size from 1KiB to 2GiB`}},
		{"max_deliveries: 0", []string{`1:17: max_deliveries: "0" is out of range; expected a number from 1 to 100000`}},
		{"max_deliveries: many", []string{`1:17: max_deliveries: "many" is not a whole number; expected a number from 1 to 100000`}},
		{"max_deliveries: 99999999999999999999", []string{`1:17: max_deliveries: "99999999999999999999" is out of range; expected a number from 1 to 100000`}},
		{"tlsrpt: {socket: relative.sock}", []string{`1:18: tlsrpt.socket: "relative.sock" is a relative path; expected an absolute path`}},
		{"tlsrpt: /run/tlsrpt.sock", []string{`1:9: tlsrpt: is the plain value "/run/tlsrpt.sock"; expected a block with the keys socket, report`}},
		{"tlsrpt: {report: {organization: x}}", []string{`1:18: tlsrpt.report: from is missing; expected a mail address that takes bounces, such as from: tlsrpt@example.org`}},
		{"tlsrpt: {report: {from: 'a@b.example, c@d.example'}}", []string{`1:25: tlsrpt.report.from: "a@b.example, c@d.example" is not one address; expected a mail address such as tlsrpt@example.org`}},
		{"replies: [{match: '('}]", []string{`1:19: replies[0].match: "(" is none; expected a regular expression (RE2) that does not match every reply`}},
		{"replies: [{match: '.*', do: slow}]", []string{`1:19: replies[0].match: ".*" is none; expected a regular expression (RE2) that does not match every reply`}},
		{"providers: {big: {limits: {concurrency: 5}}}", []string{`1:18: providers.big: provider big has no mx; expected the names of its mail hosts, unless it is a built-in provider (mxpolicyd providers) or a registrable domain`}},
		{"providers: {big: {mx: [.big.example], limits: {rate: 5}}}", []string{`1:54: providers.big.limits.rate: "5" has no period; expected "5/1s" if a second is meant`}},
		{"providers: {big: {mx: [.com]}}", []string{`1:24: providers.big.mx[0]: ".com" is no name of mail hosts; expected a host's name such as mx.example.org, or .example.org for every name below it`}},
		{"listen: {pipe: }", []string{"1:10: listen.pipe: has no value; expected {} for the default, or leave the key out for none"}},
		{"listen: {pipe: /run/pipe.sock}", []string{`1:16: listen.pipe: is the plain value "/run/pipe.sock"; expected a block with the keys path, mode, group`}},
		{"listen: {pipe: {path: pipe.sock}}", []string{`1:23: listen.pipe.path: "pipe.sock" is a relative path; expected an absolute path`}},
		{"listen: {pipe: {path: /run/x/}}", []string{`1:23: listen.pipe.path: "/run/x/" is a directory; expected the path of the socket in it`}},
		{"listen: {pipe: {path: /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}}", []string{`1:23: listen.pipe.path: "/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…" has 108 bytes; expected a path of at most 107 bytes, as for every unix socket`}},
		{`listen: {pipe: {mode: "0888"}}`, []string{`1:23: listen.pipe.mode: "0888" is not an octal mode up to 0777; expected three octal digits such as "0660"`}},
		{`listen: {pipe: {mode: "01777"}}`, []string{`1:23: listen.pipe.mode: "01777" is not an octal mode up to 0777; expected three octal digits such as "0660"`}},
		{`listen: {pipe: {mode: "0444"}}`, []string{`1:23: listen.pipe.mode: "0444" lets no one connect; expected three octal digits such as "0660"`}},
		{"listen: {pipe: {mode: rw}}", []string{`1:23: listen.pipe.mode: "rw" is not an octal mode up to 0777; expected three octal digits such as "0660"`}},
		{`listen: {pipe: {group: "mx pipe"}}`, []string{`1:24: listen.pipe.group: "mx pipe" is not a group; expected the name or number of a group`}},
		{"listen: {pipe: {address: 127.0.0.1:1}}", []string{`1:17: unknown key "address" in listen.pipe; expected one of path, mode, group`}},
		{"listen: {lmtp: lmtp.sock}", []string{`1:16: listen.lmtp: is the plain value "lmtp.sock"; expected a list of blocks with the keys path, mode, group, transport`}},
		{"listen: {lmtp: [{transport: other}]}", []string{`1:29: listen.lmtp[0].transport: unknown transport "other"; expected one of default`}},
		{"listen: {lmtp: [{transport: defualt}]}", []string{`1:29: listen.lmtp[0].transport: unknown transport "defualt"; expected "default" (known: default)`}},
		{"listen:\n  lmtp:\n    -\n    - {path: /a}", []string{"3:6: listen.lmtp[0]: has no value; expected {} for the default, or leave the key out for none"}},
		{"listen: {lmtp: [{}, {}]}", []string{`1:21: listen.lmtp[1]: path "/run/mxpolicyd/lmtp.sock" is also used by listen.lmtp[0]; use another one`}},
		{"listen: {pipe: {path: /a}, admin: {path: /a}}", []string{`1:35: listen.admin: path "/a" is also used by listen.pipe; use another one`}},
		{`listen: {socketmap: {path: /a, address: "127.0.0.1:1"}}`, []string{"1:41: listen.socketmap.address: conflicts with path; expected an address or a unix socket, not both"}},
		{`listen: {socketmap: {mode: "0600", address: "127.0.0.1:1"}}`, []string{"1:45: listen.socketmap.address: conflicts with mode; expected an address or a unix socket, not both"}},
		{"listen: {socketmap: {address: 127.0.0.1}}", []string{`1:31: listen.socketmap.address: "127.0.0.1" is not host:port; expected host:port such as 127.0.0.1:8461, [::1]:8461 or :8461`}},
		{`listen: {socketmap: {address: "127.0.0.1:0"}}`, []string{`1:31: listen.socketmap.address: "127.0.0.1:0" has no usable port; expected a number from 1 to 65535 after the colon`}},
		{`listen: {socketmap: {address: "127.0.0.1:http"}}`, []string{`1:31: listen.socketmap.address: "127.0.0.1:http" has no usable port; expected a number from 1 to 65535 after the colon`}},
		{`listen: {socketmap: {address: "under_score:80"}}`, []string{`1:31: listen.socketmap.address: "under_score:80" names no host; expected host:port such as 127.0.0.1:8461, [::1]:8461 or :8461`}},
		{`listen: {socketmap: {address: "0.0.0.0:81"}}`, []string{`1:31: listen.socketmap.address: "0.0.0.0" is not a loopback address, so answers could be forged on the network; expected a loopback address such as 127.0.0.1:8461, or a unix socket`}},
		{`listen: {socketmap: {address: ":81"}}`, []string{`1:31: listen.socketmap.address: ":81" means every address of this host, so answers could be forged on the network; expected a loopback address such as 127.0.0.1:8461, or a unix socket`}},
		{`listen: {socketmap: {address: "[2001:db8::1]:81"}}`, []string{`1:31: listen.socketmap.address: "2001:db8::1" is not a loopback address, so answers could be forged on the network; expected a loopback address such as 127.0.0.1:8461, or a unix socket`}},
		{`listen: {socketmap: {address: "127.0.0.1:81"}, metrics: {address: "127.0.0.1:81"}}`, []string{`1:57: listen.metrics: address "127.0.0.1:81" is also used by listen.socketmap; use another one`}},
		{"listen: {metrics: 127.0.0.1:9461}", []string{`1:19: listen.metrics: is the plain value "127.0.0.1:9461"; expected a block with the keys address`}},
		{"listen: {metrics: {path: /m}}", []string{`1:20: unknown key "path" in listen.metrics; expected "address"`}},
		{"listen: {metric: {}}", []string{`1:10: unknown key "metric" in listen; expected "metrics"`}},
		{"mx_auth: outbound", []string{`1:10: mx_auth: is the plain value "outbound"; expected a block with a policy set by name`}},
		{"mx_auth: {none: {}}", []string{`1:17: mx_auth.none: "none" as a name means no mechanism at all; expected another name`}},
		{`mx_auth: {"a b": {}}`, []string{`1:11: mx_auth: "a b" is not a valid name for a policy set; expected 1 to 64 letters, digits, ".", "-" or "_"`}},
		{"mx_auth: {s: }", []string{"1:11: mx_auth.s: has no value; expected a block with dnssec, dane, mtasts or local_policy, or {} for none of them"}},
		{"mx_auth: {s: {dane: }}", []string{"1:15: mx_auth.s.dane: has no value; expected {} or off"}},
		{"mx_auth: {s: {dane: maybe}}", []string{`1:21: mx_auth.s.dane: unknown value "maybe"; expected {} or off`}},
		{"mx_auth: {s: {dane: {strict: true}}}", []string{`1:22: unknown key "strict" in mx_auth.s.dane; expected an empty block, {}`}},
		{"mx_auth: {s: {dnsec: {}}}", []string{`1:15: unknown key "dnsec" in mx_auth.s; expected "dnssec"`}},
		{"mx_auth: {s: {mtasts: {cache: disk}}}", []string{`1:31: mx_auth.s.mtasts.cache: unknown value "disk"; expected fs or ram`}},
		{"mx_auth: {s: {mtasts: fs}}", []string{`1:23: mx_auth.s.mtasts: unknown value "fs"; expected {}, a block with cache, fs_dir, https_port, or off`}},
		{"mx_auth: {s: {mtasts: {fs_dir: ../x}}}", []string{`1:32: mx_auth.s.mtasts.fs_dir: "../x" leaves state_dir; expected a path inside it or an absolute one`}},
		{`mx_auth: {s: {mtasts: {fs_dir: ""}}}`, []string{"1:32: mx_auth.s.mtasts.fs_dir: is empty; expected a directory"}},
		{"mx_auth: {s: {mtasts: {https_port: 65536}}}", []string{`1:36: mx_auth.s.mtasts.https_port: "65536" is out of range; expected a number from 1 to 65535`}},
		{"mx_auth: {s: {local_policy: encrypted}}", []string{`1:29: mx_auth.s.local_policy: unknown value "encrypted"; expected {}, a block with min_tls_level, min_mx_level, or off`}},
		{"mx_auth: {s: {local_policy: {min_tls_level: high}}}", []string{`1:45: mx_auth.s.local_policy.min_tls_level: unknown value "high"; expected none, encrypted or authenticated`}},
		{"mx_auth: {s: {local_policy: {min_mx_level: dane}}}", []string{`1:44: mx_auth.s.local_policy.min_mx_level: unknown value "dane"; expected none, mtasts or dnssec`}},
		{"mx_auth: {s: {mtasts: {}, local_policy: {min_mx_level: dnssec}}}", []string{"1:41: mx_auth.s.local_policy: min_mx_level dnssec can never be met here; add dnssec: {} to the same policy set"}},
		{"mx_auth: {s: {dane: {}, local_policy: {min_mx_level: mtasts}}}", []string{"1:39: mx_auth.s.local_policy: min_mx_level mtasts can never be met here; add mtasts: {} or dnssec: {} to the same policy set"}},
		{"transports: default", []string{`1:13: transports: is the plain value "default"; expected a block with a transport by name`}},
		{"transports: {default: }", []string{"1:14: transports.default: has no value; expected a block of keys such as mx_auth: NAME"}},
		{"transports: {-x: {}}", []string{`1:14: transports: "-x" is not a valid name for a transport; expected 1 to 64 letters, digits, ".", "-" or "_"`}},
		{"transports: {default: {mx_auth: outbuond}}", []string{`1:33: transports.default.mx_auth: unknown policy set "outbuond"; expected "outbound" (known: outbound, none)`}},
		{"mx_auth: {strict: {}, lax: {}}\ntransports: {default: {mx_auth: whatever}}", []string{`2:33: transports.default.mx_auth: unknown policy set "whatever"; expected one of lax, strict, none`}},
		{"transports: {default: {mx_auth: }}", []string{"1:24: transports.default.mx_auth: has no value; expected the name of a policy set, a block, or none"}},
		{"transports: {default: {mx_auth: [outbound]}}", []string{"1:33: transports.default.mx_auth: is a list; expected one of outbound, none"}},
		{"transports: {default: {local_ip: here}}", []string{`1:34: transports.default.local_ip: "here" is not an address; expected an address of this host such as 192.0.2.1 or 2001:db8::1`}},
		{"transports: {default: {local_ip: [192.0.2.1, 192.0.2.2]}}", []string{"1:34: transports.default.local_ip: 192.0.2.1 and 192.0.2.2 are of the same family; expected at most one address of each family"}},
		{"transports: {default: {local_ip: [192.0.2.1, 192.0.2.2, 192.0.2.3]}}", []string{"1:34: transports.default.local_ip: has 3 items; expected at most 2"}},
		{"transports: {default: {local_ip: 0.0.0.0}}", []string{`1:34: transports.default.local_ip: "0.0.0.0" is not an address to send from; expected nothing (leave the key out), so that the kernel chooses`}},
		{`transports: {default: {local_ip: "::ffff:192.0.2.1"}}`, []string{`1:34: transports.default.local_ip: "::ffff:192.0.2.1" is an IPv4 address in IPv6 form; expected 192.0.2.1`}},
		{`transports: {default: {local_ip: "fe80::1%eth0"}}`, []string{`1:34: transports.default.local_ip: "fe80::1%eth0" has a zone; expected an address that the internet can reach`}},
		{"transports: {default: {local_ip: 224.0.0.1}}", []string{`1:34: transports.default.local_ip: "224.0.0.1" is not an address to connect from; expected an address of this host such as 192.0.2.1 or 2001:db8::1`}},
		{"transports: {default: {local_ip: 2001:db8::1, force_ipv4: true}}", []string{"1:59: transports.default.force_ipv4: force_ipv4 cannot be used with local_ip 2001:db8::1; expected an IPv4 local_ip, or force_ipv4: false"}},
		{"transports:\n  default:\n    local_ip: 2001:db8::1\n    overrides:\n      - {match: a.example, force_ipv4: true}", []string{"5:40: transports.default.overrides[0].force_ipv4: force_ipv4 cannot be used with local_ip 2001:db8::1; expected an IPv4 local_ip, or force_ipv4: false"}},
		{"transports: {default: {local_ip: 192.0.2.1, sources: {pool: [{ip: 192.0.2.2}]}}}", []string{"1:54: transports.default.sources: cannot be used with local_ip; expected one of the two"}},
		{"transports: {default: {sources: {}}}", []string{"1:33: transports.default.sources: has no addresses; expected sources with pool: [{ip: 192.0.2.1}, {ip: 192.0.2.2}]"}},
		{"transports: {default: {sources: {pool: []}}}", []string{"1:40: transports.default.sources.pool: has no addresses; expected sources with pool: [{ip: 192.0.2.1}, {ip: 192.0.2.2}]"}},
		{"transports: {default: {sources: {pool: 192.0.2.1}}}", []string{`1:40: transports.default.sources.pool: is the plain value "192.0.2.1"; expected a list of blocks such as - {ip: 192.0.2.1, hostname: out1.example.org}`}},
		{"transports: {default: {sources: {pool: [192.0.2.1]}}}", []string{`1:41: transports.default.sources.pool[0]: is the plain value "192.0.2.1"; expected a block such as {ip: 192.0.2.1, hostname: out1.example.org}`}},
		{"transports: {default: {sources: {pool: [{weight: 2}]}}}", []string{"1:41: transports.default.sources.pool[0]: ip is missing; expected a key such as ip: 192.0.2.1"}},
		{"transports: {default: {sources: {pool: [{ip: 192.0.2.1}, {ip: 192.0.2.1}]}}}", []string{"1:63: transports.default.sources.pool[1].ip: 192.0.2.1 is in line 1 already; expected another address, or a higher weight there"}},
		{"transports: {default: {sources: {pool: [{ip: [192.0.2.1, 192.0.2.2]}]}}}", []string{"1:46: transports.default.sources.pool[0].ip: 192.0.2.1 and 192.0.2.2 are of the same family; expected at most one address of each family"}},
		{"transports: {default: {sources: {pool: [{ip: 192.0.2.1, weight: 0}]}}}", []string{`1:65: transports.default.sources.pool[0].weight: "0" is out of range; expected a number from 1 to 10000`}},
		{"transports: {default: {sources: {by: host, pool: [{ip: 192.0.2.1}]}}}", []string{`1:38: transports.default.sources.by: unknown value "host"; expected sender, destination or message`}},
		{"transports: {default: {force_ipv4: true, sources: {pool: [{ip: 2001:db8::1}]}}}", []string{"1:51: transports.default.sources: force_ipv4 cannot be used with the source 2001:db8::1; expected an IPv4 address as well, or force_ipv4: false"}},
		{"transports: {default: {daily: 5}}", []string{`1:24: unknown key "daily" in transports.default; expected "daily" in transports.NAME.sources.pool`}},
		{"transports: {default: {proxy: 'proxy.example:1080'}}", []string{`1:31: transports.default.proxy: "proxy.example:1080" does not say what kind of proxy it is; expected socks5:// before the host`}},
		{"transports: {default: {proxy: 'http://proxy.example:1080'}}", []string{`1:31: transports.default.proxy: "http://proxy.example:1080" is not a SOCKS5 proxy; expected the address of a SOCKS5 proxy such as socks5://proxy.example:1080`}},
		{"transports: {default: {proxy: 'socks5://u:secret@proxy.example'}}", []string{`1:31: transports.default.proxy: has a user in it; expected a block with address, user and password_file`}},
		{"transports: {default: {proxy: {user: u}}}", []string{`1:31: transports.default.proxy: address is missing; expected a key such as address: "socks5://proxy.example:1080"`}},
		{"transports: {default: {proxy: {address: 'socks5://p.example', user: u}}}", []string{`1:69: transports.default.proxy.user: there is no password; expected a key such as password_file: /etc/mxpolicyd/proxy.password`}},
		{"transports: {default: {proxy: {address: 'socks5://p.example', password_file: /password}}}", []string{`1:78: transports.default.proxy.password_file: there is no user whose password it is; expected a key such as user: NAME`}},
		{"transports: {default: {prefer: ipv6, force_ipv4: true}}", []string{"1:32: transports.default.prefer: force_ipv4 cannot be used with prefer: ipv6; expected prefer: any, or force_ipv4: false"}},
		{"transports:\n  default:\n    prefer: ipv6\n    overrides:\n      - {match: a.example, force_ipv4: true}", []string{"5:40: transports.default.overrides[0].force_ipv4: force_ipv4 cannot be used with prefer: ipv6; expected prefer: any, or force_ipv4: false"}},
		{"transports: {default: {prefer: inet6}}", []string{`1:32: transports.default.prefer: unknown value "inet6"; expected any, ipv4 or ipv6`}},
		{"transports: {default: {force_ipv4: maybe}}", []string{`1:36: transports.default.force_ipv4: unknown value "maybe"; expected true or false`}},
		{"transports: {default: {port: 0}}", []string{`1:30: transports.default.port: "0" is out of range; expected a number from 1 to 65535`}},
		{"transports: {default: {port: smtp}}", []string{`1:30: transports.default.port: "smtp" is not a whole number; expected a number from 1 to 65535`}},
		{"transports: {default: {connect_timeout: 0s}}", []string{`1:41: transports.default.connect_timeout: "0s" is too short; expected a duration from 1ms to 24h`}},
		{"transports: {default: {command_timeout: 2d}}", []string{`1:41: transports.default.command_timeout: "2d" is too long; expected a duration from 1ms to 24h`}},
		{"transports: {default: {submission_timeout: 720}}", []string{`1:44: transports.default.submission_timeout: "720" has no unit; expected "720s" if seconds are meant`}},
		{"transports: {default: {debug: 1}}", []string{`1:31: transports.default.debug: unknown value "1"; expected true or false`}},
		{"transports: {default: {conn_reuse_limit: -1}}", []string{`1:42: transports.default.conn_reuse_limit: "-1" is out of range; expected a number from 0 to 1000000`}},
		{"transports: {default: {conn_max_idle_time: 150}}", []string{`1:44: transports.default.conn_max_idle_time: "150" has no unit; expected "150s" if seconds are meant`}},
		{"transports: {default: {chunking: on}}", []string{`1:34: transports.default.chunking: unknown value "on"; expected pipelined, waiting or off`}},
		{"transports: {default: {quarantine_header: X-Spam}}", []string{`1:43: transports.default.quarantine_header: "X-Spam" is not a header field with a value; expected "Name: value" such as "X-Quarantined: yes"`}},
		{`transports: {default: {quarantine_header: "X Spam: yes"}}`, []string{`1:43: transports.default.quarantine_header: "X Spam: yes" has a blank or a character beyond ASCII in the field's name; expected "Name: value" such as "X-Quarantined: yes"`}},
		{"transports: {default: {quarantine_header: \"X-Spam: a\\r\\nb\"}}", []string{"1:43: transports.default.quarantine_header: \"X-Spam: a\\r\\nb\" is not a header field of one line; expected \"Name: value\" such as \"X-Quarantined: yes\""}},
		{"transports: {default: {tls_client: {protocols: tls1.4}}}", []string{`1:48: transports.default.tls_client.protocols: unknown value "tls1.4"; expected tls1.0, tls1.1, tls1.2 or tls1.3`}},
		{"transports: {default: {tls_client: {protocols: tls1.3 tls1.2}}}", []string{`1:48: transports.default.tls_client.protocols: the lowest version is above the highest; expected "tls1.2 tls1.3"`}},
		{"transports: {default: {tls_client: {protocols: tls1.1 tls1.2 tls1.3}}}", []string{"1:48: transports.default.tls_client.protocols: has 3 items; expected at most 2"}},
		{"transports: {default: {tls_client: {protocols: []}}}", []string{`1:48: transports.default.tls_client.protocols: has no version; expected "tls1.2 tls1.3"`}},
		{"transports: {default: {tls_client: {ciphers: [TLS_AES_128_GCM_SHA256]}}}", []string{`1:47: transports.default.tls_client.ciphers[0]: "TLS_AES_128_GCM_SHA256" belongs to TLS 1.3, whose suites cannot be chosen; expected nothing (leave it out)`}},
		{"transports: {default: {tls_client: {ciphers: TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA25}}}", []string{`1:46: transports.default.tls_client.ciphers: unknown cipher suite "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA25"; expected TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`}},
		{"transports: {default: {tls_client: {ciphers: HIGH}}}", []string{`1:46: transports.default.tls_client.ciphers: unknown cipher suite "HIGH"; expected a TLS 1.2 cipher suite such as TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256`}},
		{"transports: {default: {tls_client: {curves: p25519}}}", []string{`1:45: transports.default.tls_client.curves: unknown value "p25519"; expected p256, p384, p521, X25519, X25519MLKEM768, SecP256r1MLKEM768 or SecP384r1MLKEM1024`}},
		{"transports: {default: {tls_client: {root_ca: ca.pem}}}", []string{`1:46: transports.default.tls_client.root_ca: "ca.pem" is a relative path; expected the absolute path of a PEM file of certificates`}},
		{"transports: {default: {tls_client: {cert: /c.pem}}}", []string{"1:43: transports.default.tls_client.cert: is given without key; give both or neither"}},
		{"transports: {default: {tls_client: {key: /k.pem}}}", []string{"1:42: transports.default.tls_client.key: is given without cert; give both or neither"}},
		{"transports: {default: {limits: {all: 20}}}", []string{`1:38: transports.default.limits.all: is the plain value "20"; expected a block with the keys rate, concurrency`}},
		{"transports: {default: {limits: {all: {rate: 20}}}}", []string{`1:45: transports.default.limits.all.rate: "20" has no period; expected "20/1s" if a second is meant`}},
		{"transports: {default: {limits: {all: {rate: 0/1s}}}}", []string{`1:45: transports.default.limits.all.rate: "0/1s" has no number from 1 to 1000000 before the slash; expected a number and a period such as 20/1s`}},
		{"transports: {default: {limits: {all: {rate: 20/s}}}}", []string{`1:45: transports.default.limits.all.rate: "20/s" has no period from 1ms to 24h after the slash; expected a number and a period such as 20/1s`}},
		{"transports: {default: {limits: {all: {rate: fast}}}}", []string{`1:45: transports.default.limits.all.rate: "fast" is not a rate; expected a number and a period such as 20/1s`}},
		{"transports: {default: {limits: {ip: {concurrency: 0}}}}", []string{`1:51: transports.default.limits.ip.concurrency: "0" is out of range; expected a number from 1 to 100000`}},
		{"transports: {default: {limits: {host: {concurrency: 1}}}}", []string{`1:33: unknown key "host" in transports.default.limits; expected one of all, ip, source, destination, provider, source_ip`}},
		{"transports: {default: {overrides: {match: a.example}}}", []string{"1:35: transports.default.overrides: is a block of keys; expected a list of blocks such as - {match: example.org, mx_auth: none}"}},
		{"transports: {default: {overrides: [{port: 26}]}}", []string{"1:36: transports.default.overrides[0]: match is missing; expected a key such as match: example.org"}},
		{"transports: {default: {overrides: [a.example]}}", []string{`1:36: transports.default.overrides[0]: is the plain value "a.example"; expected a block with match and other keys`}},
		{"transports: {default: {overrides: [~]}}", []string{"1:36: transports.default.overrides[0]: has no value; expected a block with match and other keys"}},
		{`transports: {default: {overrides: [{match: "*.example.org"}]}}`, []string{`1:44: transports.default.overrides[0].match: "*.example.org" has a wildcard; expected ".example.org" for the subdomains`}},
		{"transports: {default: {overrides: [{match: user@example.org}]}}", []string{`1:44: transports.default.overrides[0].match: "user@example.org" is a mail address; expected its domain, "example.org"`}},
		{`transports: {default: {overrides: [{match: "."}]}}`, []string{`1:44: transports.default.overrides[0].match: "." is not a domain name; expected example.org for that domain alone, or .example.org for its subdomains`}},
		{"transports: {default: {overrides: [{match: a.example, overrides: []}]}}", []string{"1:66: transports.default.overrides[0].overrides: an override cannot have overrides; expected another item of the list"}},
		{"transports: {default: {overrides: [{match: a.example, mx_auth: strct}]}}", []string{`1:64: transports.default.overrides[0].mx_auth: unknown policy set "strct"; expected one of outbound, none`}},
		{"transports:\n  default:\n    overrides:\n      - {match: a.example}\n      - {match: A.example}", []string{`5:17: transports.default.overrides[1].match: "a.example" is never reached, as line 4 matches it first; move it above that line or remove it`}},
		{"transports:\n  default:\n    overrides:\n      - {match: .example}\n      - {match: .a.example}\n      - {match: b.a.example}", []string{
			`5:17: transports.default.overrides[1].match: ".a.example" is never reached, as line 4 matches it first; move it above that line or remove it`,
			`6:17: transports.default.overrides[2].match: "b.a.example" is never reached, as line 4 matches it first; move it above that line or remove it`}},
		{"transports: {default: {overrides: [{match: a.example, nexthop: 10.0.0.5}]}}", []string{`1:64: transports.default.overrides[0].nexthop: "10.0.0.5" is an address; expected in brackets, "[10.0.0.5]"`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "10.0.0.5:25"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "10.0.0.5:25" is an address; expected with brackets around it, "[10.0.0.5]:25"`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "2001:db8::5"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "2001:db8::5" is an address; expected in brackets, "[2001:db8::5]"`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "[10.0.0.5"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "[10.0.0.5" has no closing bracket; expected "domain", "[host]", "domain:port" or "[host]:port"`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "[10.0.0.5]25"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "[10.0.0.5]25" has text after the bracket; expected "domain", "[host]", "domain:port" or "[host]:port"`}},
		{`transports: {default: {relay: {host: "unix:/run/x.sock", tls: none}}}`, []string{`1:38: transports.default.relay.host: "unix:/run/x.sock" is a unix socket, which no relay is reached by; expected a port of this host, such as 127.0.0.1:10025`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "relay:0"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "relay:0" has no usable port; expected a number from 1 to 65535 after the colon`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: ":25"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: ":25" names no host; expected "domain", "[host]", "domain:port" or "[host]:port"`}},
		{`transports: {default: {overrides: [{match: a.example, nexthop: "a b"}]}}`, []string{`1:64: transports.default.overrides[0].nexthop: "a b" names no host; expected "domain", "[host]", "domain:port" or "[host]:port"`}},
		{"- hostname", []string{"1:1: the file: is a list; expected a block with the keys hostname, state_dir, shutdown_timeout, log, dns, listen, max_message_size, max_deliveries, mx_auth, transports, tlsrpt, providers, replies, history"}},
		{"hostname", []string{`1:1: the file: is the plain value "hostname"; expected a block with the keys hostname, state_dir, shutdown_timeout, log, dns, listen, max_message_size, max_deliveries, mx_auth, transports, tlsrpt, providers, replies, history`}},
		{"a: &x 1", []string{
			`1:1: unknown key "a"; expected one of hostname, state_dir, shutdown_timeout, log, dns, listen, max_message_size, max_deliveries, mx_auth, transports, tlsrpt, providers, replies, history`,
			`1:4: YAML anchors (&) are not supported; expected the value without "&x"`}},
		{"hostname: *x", []string{"1:1: YAML: unknown anchor 'x' referenced; expected the value itself: anchors and aliases are not supported"}},
		{"hostname: &h a.example\nstate_dir: *h", []string{
			`1:11: YAML anchors (&) are not supported; expected the value without "&h"`,
			"2:12: YAML aliases (*) are not supported; expected the value itself, or a policy set by its name"}},
		{"log: {<<: {level: info}}", []string{"1:7: YAML merge keys (<<) are not supported; expected the keys themselves"}},
		{"hostname: !!str a.example", []string{`1:11: YAML tags (!) are not supported; expected the value without "!!str"`}},
		{"hostname: a.example\n---\nhostname: b.example", []string{"2:1: a second YAML document starts; expected one document in the file"}},
		{"hostname: a.example\n\tstate_dir: /x", []string{"2:1: a tab in the indentation; use spaces"}},
		{"dns:\n  timeout: 5s\n attempts: 3", []string{"3:2: YAML: did not find expected key; expected the keys of one block, or the dashes of one list, in one column"}},
		{"hostname: a: b", []string{`1:1: YAML: mapping values are not allowed in this context; expected one "key: value" a line, keys of one block in one column, and values with ": " in quotes`}},
		{`hostname: "a.example`, []string{"1:1: YAML: found unexpected end of stream; expected a closing quote"}},
		{"dns: {timeout: 5s\nhostname: a.example", []string{"1:1: YAML: did not find expected ',' or '}'; expected a closing bracket, and a comma between the items"}},
		{"dns:\n  servers: [a, b\n  timeout: 5s", []string{"2:3: YAML: did not find expected ',' or ']'; expected a closing bracket, and a comma between the items"}},
		{"hostname: @x", []string{"1:1: YAML: found character that cannot start any token; expected spaces for indentation, and values that start with one of %@` in quotes"}},
		{"hostname: \"\\q\"", []string{"1:1: YAML: found unknown escape character; expected single quotes around a value with a backslash"}},
		{"log:\n  level: info\n  : x\n ? y", []string{"3:3: YAML: did not find expected key; expected the keys of one block, or the dashes of one list, in one column"}},
		{"{[a, b]: c}", []string{"1:2: a key is a list or a block; expected a plain word"}},
		{"hostname: \xff", []string{"1:11: the byte 0xff is not UTF-8; expected UTF-8 text"}},
		{"hostname: a\ab", []string{"1:12: control character U+0007; remove it"}},
		{"hostname: a.example\nstate_dir /x\nmax_deliveries: 4", []string{`2:1: YAML: could not find expected ':'; expected "key: value"`}},
		{"dns:\n\ttimeout: 5s", []string{"2:1: a tab in the indentation; use spaces"}},
		{"connect-timeout: 5s", []string{`1:1: unknown key "connect-timeout"; expected "connect_timeout" in transports.NAME`}},
		{"dns: {trust-ad: all}", []string{`1:7: unknown key "trust-ad" in dns; expected "trust_ad"`}},
		{"transports: {default: {mx_auth: Outbound}}", []string{`1:33: transports.default.mx_auth: unknown policy set "Outbound"; expected "outbound" (known: outbound, none)`}},
		{`transports: {default: {hostname: "a b"}}`, []string{`1:34: transports.default.hostname: "a b" is not a domain name; expected a domain name such as mx.example.org, or an address literal such as [192.0.2.1]`}},
		{"transports: {default: {tls_client: {legacy: maybe}}}", []string{`1:45: transports.default.tls_client.legacy: unknown value "maybe"; expected true or false`}},
		{"transports: {default: {mx_auth: none, pin: x}}", []string{`1:39: unknown key "pin" in transports.default; expected "pin" in transports.NAME.overrides`}},
		{"transports: {default: {mx_auth: none, overrides: [{match: a.example, pin: x}]}}", []string{`1:75: transports.default.overrides[0].pin: "x" does not begin with sha256:; expected sha256: and the base64 of the key's digest`}},
		{"transports: {default: {mx_auth: none, overrides: [{match: a.example, pin: ['sha256:abc', 'sha256:4/==']}]}}", []string{
			`1:76: transports.default.overrides[0].pin[0]: "abc" is not the base64 of 32 bytes, 44 characters; expected sha256: and the base64 of the key's digest`,
			`1:90: transports.default.overrides[0].pin[1]: "4/==" is not the base64 of 32 bytes, 44 characters; expected sha256: and the base64 of the key's digest`}},
		{"transports: {default: {mx_auth: none, overrides: [{match: a.example, pin: []}]}}", []string{`1:75: transports.default.overrides[0].pin: names no key; expected sha256: and the base64 of the key's digest, or no pin`}},
		{"transports: {default: {tls_client: []}}", []string{"1:36: transports.default.tls_client: is a list; expected a block with the keys protocols, legacy, ciphers, curves, root_ca, cert, key"}},
		{"transports: {default: {limits: 5}}", []string{`1:32: transports.default.limits: is the plain value "5"; expected a block with the keys all, ip, source, destination, provider, source_ip`}},
		{"hostnam: a\nlog: {level: loud, format: 5}\ndns:\n  attempts: x\ntransports:\n  default:\n    port: 99999\n    mx_auth: none\n    limit: {}", []string{
			`1:1: unknown key "hostnam"; expected "hostname"`,
			`2:14: log.level: unknown value "loud"; expected debug, info, warn or error`,
			`2:28: log.format: unknown value "5"; expected text, json or journal`,
			`4:13: dns.attempts: "x" is not a whole number; expected a number from 1 to 10`,
			`7:11: transports.default.port: "99999" is out of range; expected a number from 1 to 65535`,
			`9:5: unknown key "limit" in transports.default; expected "limits"`}},
		{"? [hostname]\n: x", []string{"1:3: a key is a list or a block; expected a plain word"}},
		{"dns:\n  servers:\n    -\n    - 127.0.0.1", []string{"3:6: dns.servers[0]: has no value; expected an address or a name, with a port or without, such as 127.0.0.1, 127.0.0.1:5353 or [::1]:53"}},
		{"transports: {default: {overrides: [{match: .example.org, port: 26}, {match: .example.org, port: 27}]}}", []string{`1:77: transports.default.overrides[1].match: ".example.org" is never reached, as line 1 matches it first; move it above that line or remove it`}},
	}
	for _, tt := range tests {
		c, err := Parse("f", []byte(tt.text), someHost())
		if c != nil || err == nil {
			t.Errorf("%q is taken", tt.text)
			continue
		}
		if want := "f:" + strings.Join(tt.lines, "\nf:"); err.Error() != want {
			t.Errorf("%q:\ngot  %v\nwant %s", tt.text, err, want)
		}
	}
}

// A file of another kind must not fill the screen, and the first mistakes are
// the ones that are kept.
func TestManyMistakes(t *testing.T) {
	var b strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&b, "key%d: x\n", i)
	}
	_, err := Parse("f", []byte(b.String()), someHost())
	m, ok := errors.AsType[Mistakes](err)
	if !ok || len(m) != maxMistakes+1 {
		t.Fatalf("%d mistakes: %v", len(m), err)
	}
	if m[0].Line != 1 || m[maxMistakes-1].Line != maxMistakes {
		t.Errorf("lines %d to %d are listed", m[0].Line, m[maxMistakes-1].Line)
	}
	if want := "f:100:1: 4900 more mistakes, only 100 are listed; expected a configuration of mxpolicyd"; m[maxMistakes].String() != want {
		t.Errorf("got %s\nwant %s", m[maxMistakes], want)
	}
}

// Aliases that stand for aliases are refused without being followed.
func TestAliasBomb(t *testing.T) {
	var b strings.Builder
	b.WriteString("a0: &a0 [x, x]\n")
	for i := 1; i < 40; i++ {
		fmt.Fprintf(&b, "a%d: &a%d [*a%d, *a%d, *a%d, *a%d]\n", i, i, i-1, i-1, i-1, i-1)
	}
	_, err := Parse("f", []byte(b.String()), someHost())
	if err == nil || !strings.Contains(err.Error(), "YAML aliases (*) are not supported") {
		t.Errorf("got %v", err)
	}
}

// Deep nesting costs a mistake and nothing else.
func TestDepth(t *testing.T) {
	for _, text := range []string{strings.Repeat("[", 9000) + strings.Repeat("]", 9000), strings.Repeat("[", maxFile), strings.Repeat("- ", 9000), "dns: " + strings.Repeat("{a: ", 5000)} {
		if _, err := Parse("f", []byte(text), someHost()); !errors.As(err, new(Mistakes)) {
			t.Errorf("%.20q: got %v", text, err)
		}
	}
}

// What a terminal or a log would act on is shown escaped.
func TestMistakesArePrintable(t *testing.T) {
	_, err := Parse("f\x1b[31m\n.yaml", []byte(`hostname: "\e[31m\u202e\n"`+"\n"+`"\e\r": 1`), someHost())
	if err == nil {
		t.Fatal("no mistake")
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		if line != printable(line) || !strings.HasPrefix(line, "f?[31m?.yaml:") {
			t.Errorf("%q", line)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"hostname", "state_dir", "mx_auth", "dns", "max_deliveries", "max_message_size"}
	for in, want := range map[string]string{
		"hostanme": "hostname", "HOSTNAME": "hostname", "host": "", "statedir": "state_dir", "mxauth": "mx_auth",
		"mx-auth": "mx_auth", "max_delivery": "max_deliveries", "max_mesage_size": "max_message_size", "dsn": "dns",
		"": "", "zzz": "", strings.Repeat("hostname", 20): "",
	} {
		if got := nearest(in, known); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
