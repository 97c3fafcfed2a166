package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/internal/lab/socks"
	"github.com/mxpipe/mxpipe/internal/mdoc"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/finding"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
	"github.com/mxpipe/mxpipe/transport/resolver"
)

// examine gives what is found, be it in the configuration or on the host.
func (p *patient) examine() []finding.Finding {
	cfg, err := p.config()
	if err != nil {
		return Mistakes(err)
	}
	return p.Examine(p.t.Context(), cfg, p.options)
}

// replace changes the configuration.
func (p *patient) replace(old, new string) {
	p.t.Helper()
	if !strings.Contains(p.yaml, old) {
		p.t.Fatalf("%q is not in the configuration", old)
	}
	p.yaml = strings.Replace(p.yaml, old, new, 1)
}

// bad gives the findings that are not good, and checks the form of all.
func bad(t *testing.T, all []finding.Finding) (list []finding.Finding) {
	t.Helper()
	for _, f := range all {
		if entry, ok := strings.CutSuffix(f.What, ": correct"); ok && slices.ContainsFunc(all, func(o finding.Finding) bool { return o.Level != finding.OK && strings.HasPrefix(o.What, entry+": ") }) {
			t.Errorf("two verdicts on %s: %+v", entry, all)
		}
		if strings.Contains(f.What+f.Mend, "\n") || f.What == "" || (f.Level == finding.OK) != (f.Mend == "") {
			t.Errorf("not as a finding should be: %+v", f)
		}
		if !slices.ContainsFunc(subjects(t), func(s string) bool { return strings.HasPrefix(f.What, s) }) {
			t.Errorf("mxpolicyd(8) has nothing under CHECKS for %q", f.What)
		}
		if f.Level != finding.OK {
			list = append(list, f)
		}
	}
	return list
}

// subjects gives what the manual says that findings are about: the words that
// they begin with.
func subjects(t *testing.T) (all []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/mxpolicyd.8")
	if err != nil {
		t.Fatal(err)
	}
	for _, item := range mdoc.Items(string(page), "CHECKS") {
		all = append(all, item.Head)
	}
	return all
}

// A host that is fit has nothing but good findings, one for each thing.
func TestFit(t *testing.T) {
	t.Parallel()
	p := fit(t)
	p.collector("unixgram", 0o660)
	p.reports("")
	all := p.examine()
	if list := bad(t, all); len(list) > 0 {
		t.Errorf("%+v", list)
	}
	var said strings.Builder
	for _, f := range all {
		said.WriteString(f.What + "\n")
	}
	for _, what := range []string{"resolver 127.0.0.1:", "validates", "clock: ", "CA bundle: ", "hostname mx.example.org: resolves to 192.0.2.25 and back", "state directory ", "/pipe: open to root", "group mxpipe (postfix", "/admin: open to root", "/collector: listening", ": taken from tlsrpt@example.org", "mxpipe in master.cf: correct"} {
		if !strings.Contains(said.String(), what) {
			t.Errorf("%q is not in\n%s", what, said.String())
		}
	}
}

// Each set-up that is broken in one way is told so, once, with what mends it.
func TestBrokenSetUps(t *testing.T) {
	t.Parallel()
	const warn, fail = finding.Warn, finding.Fail
	for _, tt := range []struct {
		name       string
		ill        func(p *patient)
		level      finding.Level
		what, mend string
	}{
		// The resolver.
		{"resolver without AD", func(p *patient) { p.dns.AD = false }, fail, ": answers without AD", "turn validation on"},
		{"resolver that fails validation", func(p *patient) { p.dns.Rcode, p.dns.Unchecked = dns.RcodeServerFailure, true }, fail, "answers only with validation off", "clock"},
		{"resolver that refuses", func(p *patient) { p.dns.Rcode = dns.RcodeRefused }, fail, "REFUSED", "access-control"},
		{"resolver that is none", func(p *patient) { p.dns.RA = false }, fail, "does not offer recursion", "recursive"},
		{"resolver without EDNS", func(p *patient) { p.dns.EDNS = 0 }, warn, "does not support EDNS", "DNS proxy"},
		{"resolver that refuses EDNS", func(p *patient) { p.dns.RefusesEDNS = true }, fail, "refuses EDNS and is queried without it, so DNSSEC and DANE", "validating resolver"},
		{"resolver with small EDNS", func(p *patient) { p.dns.EDNS = 512 }, warn, "sends only 512 bytes", "edns-buffer-size"},
		{"resolver without TCP", func(p *patient) { p.dns.NoTCP = true }, fail, "no answer by TCP", "port 53"},
		{"slow resolver", func(p *patient) { p.Slow, p.dns.Slow = time.Millisecond, 5*time.Millisecond }, warn, "for a cached answer", "on this host"},
		{"trust_ad none", func(p *patient) { p.replace("timeout: 20s", "timeout: 20s, trust_ad: none") }, warn, "dns.trust_ad is none", "trust_ad: loopback"},
		{"resolver: none in resolv.conf", func(p *patient) { p.replace("dns: {servers: [DNS], timeout: 20s}\n", "") }, fail, "resolv.conf gives none", "servers: [127.0.0.1]"},
		// The clock and the certificates.
		{"clock off by a year", func(p *patient) { p.Now = p.Now.AddDate(-1, 0, 0) }, fail, "but DNSSEC signatures are valid from", "NTP"},
		{"clock before the program", func(p *patient) { p.dns.Signed, p.Built = time.Time{}, p.Now.AddDate(1, 0, 0) }, fail, "before this program was built", "NTP"},
		{"clock that nothing keeps", func(p *patient) { p.Synchronised = func() (bool, error) { return false, nil } }, warn, "not synchronised (no NTP)", "NTP"},
		{"missing CA bundle", func(p *patient) { p.Roots = func() (*x509.CertPool, error) { return x509.NewCertPool(), nil } }, fail, "CA bundle: not found", "apt install ca-certificates"},
		{"client certificate that is over", func(p *patient) {
			a, err := ca.New(ca.Options{})
			p.must(err)
			cert, err := a.Issue(ca.ExpiredFor("mx.example.org"))
			p.must(err, ca.WritePair(cert, p.dir+"/crt", p.dir+"/key"))
			p.yaml += "transports: {default: {mx_auth: {dane: {}, dnssec: {}}, tls_client: {cert: " + p.dir + "/crt, key: " + p.dir + "/key}}}\n"
		}, fail, "expired on", "renew it"},
		// The name.
		{"short hostname", func(p *patient) { p.replace("mx.example.org", "mail") }, fail, "not a fully qualified public name", "set hostname"},
		{"hostname that others have too", func(p *patient) { p.replace("mx.example.org", "localhost.localdomain") }, fail, "as other hosts use it too, mail that loops back to this host is not known by it", "set hostname"},
		{"hostname without an address", func(p *patient) { p.replace("mx.example.org", "gone.example.org") }, fail, "does not resolve to an address", "set hostname"},
		{"address without a name", func(p *patient) { p.dns.Records = p.dns.Records[:2] }, fail, "192.0.2.25 has no reverse DNS", "reverse DNS to mx.example.org"},
		{"address with another name", func(p *patient) {
			p.dns.Records = append(p.dns.Records[:2:2], "25.2.0.192.in-addr.arpa. 60 IN PTR pool-25.example.net.")
		}, warn, "the reverse DNS of 192.0.2.25 is pool-25.example.net", "reverse DNS to mx.example.org"},
		{"local_ip of another host", func(p *patient) {
			p.dns.Records = append(p.dns.Records, "mx.example.org. 60 IN A 192.0.2.99", "99.2.0.192.in-addr.arpa. 60 IN PTR mx.example.org.")
			p.yaml += "transports: {default: {mx_auth: {dane: {}, dnssec: {}}, local_ip: 192.0.2.99}}\n"
		}, fail, "not an address of this host", "local_ip"},
		{"a source of another host", func(p *patient) {
			p.dns.Records = append(p.dns.Records, "mx.example.org. 60 IN A 192.0.2.99", "99.2.0.192.in-addr.arpa. 60 IN PTR mx.example.org.")
			p.yaml += "transports: {default: {mx_auth: {dane: {}, dnssec: {}}, sources: {pool: [{ip: 192.0.2.25}, {ip: 192.0.2.99, hostname: mx.example.org}]}}}\n"
		}, warn, "source 192.0.2.99: not an address of this host, so it is left out, and its mail leaves from the other sources", "sources"},
		{"a source whose name is another's", func(p *patient) {
			p.dns.Records = append(p.dns.Records, "out.example.org. 60 IN A 192.0.2.26", "25.2.0.192.in-addr.arpa. 60 IN PTR out.example.org.")
			p.yaml += "transports: {default: {mx_auth: {dane: {}, dnssec: {}}, sources: {pool: [{ip: 192.0.2.25, hostname: out.example.org}]}}}\n"
		}, warn, "hostname out.example.org: does not resolve to 192.0.2.25, the address it is used with", "add the address"},
		// The proxy.
		{"a proxy that is down", func(p *patient) {
			p.yaml += "transports: {default: {mx_auth: {dane: {}, dnssec: {}}, proxy: 'socks5://127.0.0.1:1'}}\n"
		}, fail, "proxy 127.0.0.1:1: no mail can be sent through it: the SOCKS5 proxy 127.0.0.1:1: 127.0.0.1:1: connection refused", "check that it is up"},
		// The state directory.
		{"state directory read-only", func(p *patient) {
			p.Filesystem = func(string) (Filesystem, error) { return Filesystem{ReadOnly: true, Free: 1 << 40}, nil }
		}, fail, "read-only", "mount it writable"},
		{"state directory full", func(p *patient) {
			p.Filesystem = func(string) (Filesystem, error) { return Filesystem{Free: 1 << 20}, nil }
		}, warn, ": 1 MiB free", "make room"},
		{"state directory for everybody", func(p *patient) { p.must(os.Chmod(p.dir+"/state", 0o777)) }, fail, "lets other users write", "chmod 700"},
		{"state directory of another user", func(p *patient) { p.daemon = 4711 }, fail, "but mxpolicyd runs as me", "chown -R me "},
		{"state directory that is a file", func(p *patient) {
			p.must(os.Remove(p.dir+"/state"), os.WriteFile(p.dir+"/state", nil, 0o600))
		}, fail, "not a directory", "state_dir"},
		{"policies in a directory for everybody", func(p *patient) {
			p.must(os.Mkdir(p.dir+"/policies", 0o700), os.Chmod(p.dir+"/policies", 0o777))
			p.yaml += "mx_auth: {outbound: {dane: {}, dnssec: {}, mtasts: {fs_dir: " + p.dir + "/policies}}}\ntransports: {default: {mx_auth: outbound}}\n"
		}, fail, "/policies: mode 0777", "chmod 700"},
		// The sockets.
		{"socket for everybody", func(p *patient) { p.access("pipe", 0o666) }, fail, "lets every user of this host send mail", "0660"},
		{"socket for its owner alone", func(p *patient) { p.access("pipe", 0o600) }, fail, "the mail server's user cannot use it", "group: mxpipe"},
		{"admin socket for a group", func(p *patient) { p.access("admin", 0o660) }, warn, "lets users other than root control the daemon", "0600"},
		{"daemon that does not run", func(p *patient) {
			p.running = false
			p.must(os.Remove(p.dir + "/pipe"))
		}, fail, "/pipe: does not exist: daemon not running", "systemctl enable --now mxpolicyd.socket"},
		{"socket that nothing listens at", func(p *patient) {
			p.open["pipe"].SetUnlinkOnClose(false)
			p.open["pipe"].Close()
		}, fail, "nothing listens", "systemctl enable"},
		{"file in a socket's place", func(p *patient) {
			p.must(os.Remove(p.dir+"/pipe"), os.WriteFile(p.dir+"/pipe", nil, 0o600))
		}, fail, "a file that is not a socket", "rm "},
		{"directory that lets no one through", func(p *patient) { p.must(os.Chmod(p.dir, 0o700)) }, fail, "lets no one through", "chmod 755"},
		{"metrics for the world", func(p *patient) { p.replace("listen: {", "listen: {metrics: {address: ':9461'}, ") }, warn, "can read them", "127.0.0.1:9461"},
		// The TLSRPT collector.
		{"collector that is not there", func(p *patient) { p.yaml += "tlsrpt: {socket: " + p.dir + "/collector}\n" }, warn, "/collector: does not exist", "start the collector"},
		{"collector that does not run", func(p *patient) { p.collector("unixgram", 0o660).Close() }, warn, "nothing listens", "start the collector"},
		{"collector with a stream socket", func(p *patient) { p.collector("unix", 0o660) }, warn, "not a datagram socket", "tlsrpt.socket"},
		{"collector that lets no one in", func(p *patient) {
			p.collector("unixgram", 0o400)
			if os.Getuid() == 0 { // whom a mode keeps out of nothing
				p.daemon = 4711
				p.must(os.Chown(p.dir+"/collector", 4711, -1), os.Chown(p.dir+"/state", 4711, -1))
			}
		}, warn, "/collector: mode 0400, owner ", "0660"},
		{"collector's socket that is a file", func(p *patient) {
			p.must(os.WriteFile(p.dir+"/collector", nil, 0o600))
			p.yaml += "tlsrpt: {socket: " + p.dir + "/collector}\n"
		}, warn, "/collector: not a socket", "tlsrpt.socket"},
		// The mail server that sends TLS reports.
		{"TLS reports without a mail server", func(p *patient) { p.reports("").Close() }, warn, "not reached, so reports sent by mail wait", "start the mail server"},
		{"TLS reports that are not taken", func(p *patient) { p.reports("MAIL") }, warn, "takes no mail from tlsrpt@example.org", "from tlsrpt@example.org"},
		{"TLS reports whose bounces are not taken", func(p *patient) { p.reports("RCPT") }, warn, "bounces to tlsrpt@example.org are refused", "takes mail"},
		// The mail server. (Package mailserver has many more.)
		{"Postfix with recipient limit 50", func(p *patient) {
			p.main = strings.Replace(p.main, "recipient_limit = 1", "recipient_limit = 50", 1)
		}, warn, "up to 50 recipients share one exit status", "mxpipe_destination_recipient_limit=1"},
		{"Postfix with a short time limit", func(p *patient) {
			p.main = strings.Replace(p.main, "time_limit = 1000s", "time_limit = 600s", 1)
		}, fail, "Postfix bounces after 10m0s", "mxpipe_time_limit=960s"},
		{"Postfix without null_sender", func(p *patient) { p.master = strings.Replace(p.master, " null_sender=", "", 1) }, fail, "MAILER-DAEMON", "null_sender="},
		{"Postfix in a chroot", func(p *patient) {
			p.master = strings.Replace(p.master, "-       n       n ", "-       n       y ", 1)
		}, fail, "in a chroot", "chroot=n"},
		{"Postfix with a user that is not there", func(p *patient) { p.master = strings.Replace(p.master, "user=mxpipe", "user=nosuch", 1) }, fail, "its user nosuch does not exist", "useradd --system"},
		{"Postfix with a group that is not there", func(p *patient) { p.master = strings.Replace(p.master, "user=mxpipe", "user=mxpipe:nosuch", 1) }, fail, "its group nosuch does not exist", "groupadd"},
		{"Postfix with a user whom the socket keeps out", func(p *patient) { p.master = strings.Replace(p.master, "user=mxpipe", "user=me", 1) }, fail, "runs as me with group others only", "user=me:mxpipe"},
		{"Postfix by LMTP, whose user is not in the group", func(p *patient) {
			p.listen("lmtp", 0o660)
			p.replace("listen: {", "listen: {lmtp: {path: "+p.dir+"/lmtp}, ")
			p.main = "compatibility_level = 3.6\nenable_long_queue_ids = yes\ndefault_transport = mxlmtp:unix:" + p.dir + "/lmtp\n"
			p.master = p.contrib("master.cf.lmtp")
			p.withoutGroup()
		}, fail, "Postfix, mxlmtp in master.cf: runs as postfix with groups 4, but ", "usermod -aG mxpipe postfix && postfix reload"},
		{"Postfix that asks for policies, whose user is not in the group", func(p *patient) {
			p.listen("socketmap", 0o660)
			p.replace("listen: {", "listen: {socketmap: {path: "+p.dir+"/socketmap}, ")
			p.asks("unix:"+p.dir+"/socketmap", "n")
			p.withoutGroup()
		}, fail, "Postfix, smtp_tls_policy_maps: runs as postfix with groups 4, but ", "usermod -aG mxpipe postfix && postfix reload"},
		{"Postfix that asks for policies, and may not pass the directory", func(p *patient) {
			p.listen("socketmap", 0o666)
			p.replace("listen: {", "listen: {socketmap: {path: "+p.dir+"/socketmap}, ")
			p.asks("unix:"+p.dir+"/socketmap", "n")
			p.withoutGroup()
			p.must(os.Chown(p.dir, -1, socketGroup()), os.Chmod(p.dir, 0o750))
		}, fail, "Postfix, smtp_tls_policy_maps: runs as postfix with groups 4, but /", "usermod -aG mxpipe postfix"},
		{"Postfix that asks for policies from a chroot", func(p *patient) {
			p.listen("socketmap", 0o660)
			p.replace("listen: {", "listen: {socketmap: {path: "+p.dir+"/socketmap}, ")
			p.asks("unix:"+p.dir+"/socketmap", "y")
		}, fail, "smtp runs in the chroot /var/spool/postfix, where /", "mxpolicyd setup postfix --way socketmap"},
		{"Postfix that asks where systemd's socket was", func(p *patient) {
			p.listen("socketmap", 0o660)
			p.replace("listen: {", "listen: {socketmap: {path: "+p.dir+"/socketmap}, ")
			p.units = []Unit{{Name: "socketmap", Listen: []string{p.loopback()}}}
			p.asks("unix:"+p.dir+"/socketmap", "n")
		}, fail, "but mxpolicyd listens on 127.0.0.1:", "mxpolicyd setup postfix"},
		{"nothing listens at systemd's address", func(p *patient) {
			p.units = []Unit{{Name: "socketmap", Listen: []string{ports.AddressFor(p.t)}}}
		}, fail, "nothing listens: daemon not running", "systemctl enable --now"},
		{"Postfix that cannot be asked", func(p *patient) {
			p.Postfix = func(context.Context) (string, string, error) { return "", "", errors.New("bad parameter") }
		}, warn, "Postfix: cannot read its configuration: bad parameter", "postfix check"},
		{"Exim that nothing leads from", func(p *patient) {
			p.Exim = func(context.Context) (mailserver.EximOutput, error) {
				return mailserver.EximOutput{Transports: "remote_smtp transport:\ndriver = smtp\n"}, nil
			}
		}, warn, "Exim: not set up to use mxpolicyd", "contrib/exim"},
		{"Exim without address space", func(p *patient) {
			p.exim()
			p.Limits = func(file string) (mailserver.Limits, bool) {
				return mailserver.Limits{AddressSpace: 1 << 30, Data: math.MaxUint64}, file == "/run/exim4/exim.pid"
			}
		}, fail, "Exim: its processes have 1024 MiB of address space", "LimitAS=infinity"},
		{"Exim that runs mxpipe below another program", func(p *patient) {
			p.exim("/usr/bin/mxpipe", "/usr/bin/timeout 60 /usr/bin/mxpipe")
		}, fail, "Exim, transport mxpipe: runs mxpipe below timeout", "run /usr/bin/mxpipe itself"},
		{"Exim with a user whom the socket keeps out", func(p *patient) {
			p.exim("user = mxpipe", "user = me", "/usr/bin/mxpipe", "/usr/bin/mxpipe --socket "+p.dir+"/pipe")
		}, fail, "Exim, transport mxpipe: runs as me with group others only", "set group = mxpipe"},
		// The way out.
		{"outbound port blocked", func(p *patient) {
			p.options.Connect = ports.AddressFor(p.t)
		}, fail, "connection refused", "provider blocks"},
		{"a server that does not want this host", func(p *patient) {
			busy, err := mx.Start(mx.Options{Behaviour: mx.Behaviour{At: map[mx.Stage]mx.Action{mx.StageGreeting: {Reply: "421 4.7.0 too many connections from you"}}}})
			p.must(err)
			p.t.Cleanup(func() { busy.Stop() })
			p.options.Connect = busy.Addr()
		}, warn, "421 4.7.0 too many connections from you", "the network is open"},
		// The configuration.
		{"misspelt key", func(p *patient) { p.yaml += "max_delivery: 3\n" }, fail, `mxpolicyd.yaml:5:1: unknown key "max_delivery"`, "correct the line"},
		{"number without a unit", func(p *patient) { p.yaml += "shutdown_timeout: 30\n" }, fail, "mxpolicyd.yaml:5:", "correct the line"},
		{"roots that are not there", func(p *patient) { p.yaml += "transports: {default: {tls_client: {root_ca: /nosuch.pem}}}\n" }, fail, "/nosuch.pem", "correct the line"},
		{"policy set that is not there", func(p *patient) { p.yaml += "transports: {default: {mx_auth: outbond}}\n" }, fail, "outbond", "correct the line"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			p := fit(t)
			tt.ill(p)
			list := bad(t, p.examine())
			if len(list) != 1 || list[0].Level != tt.level || !strings.Contains(list[0].What, tt.what) || !strings.Contains(list[0].Mend, tt.mend) {
				t.Errorf("got %+v\nwant %v ...%s... (...%s...)", list, tt.level, tt.what, tt.mend)
			}
		})
	}
}

// The drop-in that has systemd open the socketmap at a loopback address is
// believed: nothing is said of the socket that was there before.
func TestDropIn(t *testing.T) {
	t.Parallel()
	p := fit(t)
	p.replace("listen: {", "listen: {socketmap: {path: "+p.dir+"/gone}, ")
	address := p.loopback()
	p.units = []Unit{{Name: "socketmap", Listen: []string{address}}}
	p.asks("inet:"+address, "y")
	all := p.examine()
	if list := bad(t, all); len(list) > 0 {
		t.Errorf("%+v", list)
	}
	if !slices.ContainsFunc(all, func(f finding.Finding) bool { return f.What == "socket "+address+": open to every user of this host" }) {
		t.Errorf("nothing is said of %s: %+v", address, all)
	}
}

func TestParseUnits(t *testing.T) {
	t.Parallel()
	const shown = `FileDescriptorName=pipe
Listen=/run/mxpolicyd/pipe.sock (Stream)
ActiveState=active

Listen=127.0.0.1:8463 (Stream)
Listen=[::1]:8463 (Stream)
FileDescriptorName=socketmap
ActiveState=active

FileDescriptorName=lmtp
Listen=/run/mxpolicyd/lmtp.sock (Stream)
ActiveState=inactive
`
	want := []Unit{{"pipe", []string{"/run/mxpolicyd/pipe.sock"}}, {"socketmap", []string{"127.0.0.1:8463", "[::1]:8463"}}}
	if got := parseUnits(shown); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	if got := parseUnits(""); got != nil {
		t.Errorf("%+v", got)
	}
}

func TestPasswordKeys(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "passwd.client")
	if err := os.WriteFile(file, []byte("# a comment: none\n\n*.example:user:secret\nsmtp.example:user:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := passwordKeys(file); !slices.Equal(got, []string{"*.example", "smtp.example"}) {
		t.Errorf("%q", got)
	}
	if got := passwordKeys(file + ".gone"); got != nil {
		t.Errorf("%q", got)
	}
}

// What a resolver at the other end of a network shows, which no test may ask.
func TestRemoteResolvers(t *testing.T) {
	t.Parallel()
	good := resolver.Probe{Server: "192.0.2.53:53", Addr: netip.MustParseAddr("192.0.2.53"), Used: true, Counts: true, AD: true, Recursive: true, EDNS: 1232, Took: time.Millisecond, Unchecked: true}
	cfg := func(trust config.TrustAD) *config.Config {
		c, err := config.Parse("", []byte("hostname: mx.example.org"), config.Environment{})
		if err != nil {
			t.Fatal(err)
		}
		c.DNS.TrustAD = trust
		return c
	}
	for _, tt := range []struct {
		name       string
		trust      config.TrustAD
		change     func(p *resolver.Probe)
		level      finding.Level
		what, mend string
	}{
		{"no AD counts from there", config.TrustLoopback, func(p *resolver.Probe) { p.Counts = false }, finding.Fail, "not on this host", "apt install unbound"},
		{"AD believed from there", config.TrustAll, func(*resolver.Probe) {}, finding.Warn, "trusted although it is not on this host", "network path"},
		{"left out", config.TrustLoopback, func(p *resolver.Probe) { p.Used = false }, finding.Warn, "not used", "remove it from"},
		{"systemd-resolved", config.TrustLoopback, func(p *resolver.Probe) { p.Server, p.AD = "127.0.0.53:53", false }, finding.Fail, "systemd-resolved", "DNSSEC=yes"},
		{"AD for what is broken", config.TrustAll, func(p *resolver.Probe) { p.Broken = true }, finding.Fail, "whose signatures are broken", "turn validation on"},
		{"silent", config.TrustLoopback, func(p *resolver.Probe) {
			p.Unchecked, p.Err = false, &resolver.Error{Name: ".", Type: resolver.Type(dns.TypeSOA), Kind: resolver.Timeout}
		}, finding.Fail, "all mail is deferred until a resolver answers", "start it"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := good
			tt.change(&p)
			list := Host{Slow: time.Second}.judgeResolvers([]resolver.Probe{p}, cfg(tt.trust))
			if len(list) != 1 || list[0].Level != tt.level || !strings.Contains(list[0].What, tt.what) || !strings.Contains(list[0].Mend, tt.mend) {
				t.Errorf("%+v", list)
			}
		})
	}
	silent := good
	silent.Unchecked, silent.Err = false, &resolver.Error{Name: ".", Type: resolver.Type(dns.TypeSOA), Kind: resolver.Timeout}
	good.Addr, good.Server = netip.MustParseAddr("127.0.0.1"), "127.0.0.1:53"
	list := Host{Slow: time.Second}.judgeResolvers([]resolver.Probe{silent, good}, cfg(config.TrustLoopback))
	if list[0].Level != finding.Warn || list[1].Level != finding.OK {
		t.Errorf("one of two: %+v", list)
	}
}

// A connection that works is a good finding.
func TestConnect(t *testing.T) {
	t.Parallel()
	a, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(ca.For("mx.example.org"))
	if err != nil {
		t.Fatal(err)
	}
	server, err := mx.Start(mx.Options{Behaviour: mx.Modern(cert)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	p := fit(t)
	p.options.Connect = server.Addr()
	all := p.examine()
	if list := bad(t, all); len(list) > 0 || !strings.HasPrefix(all[len(all)-1].What, "connection to "+server.Addr()+": 127.0.0.1, encrypted, TLS1.3") {
		t.Errorf("%+v", all)
	}
	if c := server.Counters(); c.Verbs["MAIL"] != 0 || c.Connections != 1 {
		t.Errorf("%+v", c)
	}
	for text, want := range map[string][2]string{"mx.example.org": {"mx.example.org", ""}, "mx:26": {"mx", "26"}, "[2001:db8::1]:26": {"2001:db8::1", "26"}, "2001:db8::1": {"2001:db8::1", ""}} {
		if host, port, _ := cutPort(text); host != want[0] || port != want[1] {
			t.Errorf("%s: %s, %s", text, host, port)
		}
	}
}

// A relay that takes the login is a good finding; one that does not, or is
// another, is told of, and how often it was tried.
func TestRelays(t *testing.T) {
	t.Parallel()
	a, err := ca.New(ca.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := a.Issue(ca.For("127.0.0.1"))
	if err != nil {
		t.Fatal(err)
	}
	behaviour := mx.Modern(cert)
	behaviour.Auth = &mx.Auth{Mechanisms: []string{"PLAIN"}, Users: map[string]string{"bob": "secret-word"}}
	for _, tt := range []struct {
		password, roots string
		level           finding.Level
		what, mend      string
		tried           int
	}{
		{"secret-word", "roots.pem", finding.OK, "127.0.0.1, webpki, TLS1.3", "", 0},
		{"other-word", "roots.pem", finding.Fail, ": cannot be used: 4.7.8 [127.0.0.1]: login of bob by PLAIN failed: 535", "correct user", 1},
		{"secret-word", "", finding.Fail, ": cannot be used: 4.7.5 [127.0.0.1]: relay: ", "name the relay", 0},
	} {
		server, err := mx.Start(mx.Options{Behaviour: behaviour})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Stop() })
		p := fit(t)
		p.must(a.WriteRoots(p.dir + "/roots.pem"))
		p.must(os.WriteFile(p.dir+"/password", []byte(tt.password+"\n"), 0o600))
		trust := ""
		if tt.roots != "" {
			trust = "tls_client: {root_ca: " + p.dir + "/" + tt.roots + "}, "
		}
		p.yaml += "transports: {default: {mx_auth: outbound, " + trust + "relay: {host: '" + server.Addr() + "', user: bob, password_file: " + p.dir + "/password}}}\n"
		all := p.examine()
		i := slices.IndexFunc(all, func(f finding.Finding) bool { return strings.HasPrefix(f.What, "relay "+server.Addr()+": ") })
		if i < 0 {
			t.Fatalf("%+v", all)
		}
		if f := all[i]; f.Level != tt.level || !strings.Contains(f.What, tt.what) || !strings.Contains(f.Mend, tt.mend) || strings.Contains(f.What, "-word") {
			t.Errorf("%+v, want %s", f, tt.what)
		}
		bad(t, all) // looks at their form
		if c := server.Counters(); c.BadLogins != tt.tried || c.Verbs["MAIL"] != 0 {
			t.Errorf("%d logins that failed, %+v", c.BadLogins, c.Verbs)
		}
	}
}

// Of a thousand sources' names some are looked up, and the rest is told of; a
// proxy that takes requests is a good finding.
func TestManySourcesAndProxy(t *testing.T) {
	t.Parallel()
	s, err := socks.Start(socks.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Stop)
	p := fit(t)
	p.yaml += "transports:\n  default:\n    mx_auth: {dane: {}, dnssec: {}}\n    overrides: [{match: a.example, proxy: 'socks5://" + s.Addr().String() + "'}]\n    sources:\n      pool:\n"
	for i := range 150 {
		p.yaml += fmt.Sprintf("        - {ip: 192.0.3.%d, hostname: out%03d.example.org}\n", i, i)
	}
	all := p.examine()
	has := func(what string) bool {
		return slices.ContainsFunc(all, func(f finding.Finding) bool { return strings.Contains(f.What, what) })
	}
	for _, want := range []string{"hostname: 51 more names of sources are not looked at", "proxy " + s.Addr().String() + ": takes connections", "source 192.0.3.149: not an address"} {
		if !has(want) {
			t.Errorf("nothing says %s", want)
		}
	}
}

// No Postfix is no mistake, and a configuration that cannot be read is one.
func TestNothingToSee(t *testing.T) {
	t.Parallel()
	p := fit(t)
	p.Postfix = func(context.Context) (string, string, error) { return "", "", fs.ErrNotExist }
	p.must(os.Remove(p.dir + "/state"))
	if list := bad(t, p.examine()); len(list) > 0 {
		t.Errorf("%+v", list)
	}
	if list := bad(t, Mistakes(fs.ErrNotExist)); len(list) != 1 || !strings.Contains(list[0].What, "does not exist") {
		t.Errorf("%+v", list)
	}
}

// What lies below a directory and belongs to somebody else than the daemon's
// user is found, wherever it lies; root can use everything.
func TestForeignFiles(t *testing.T) {
	dir := t.TempDir()
	served := filepath.Join(dir, "served")
	if err := errors.Join(os.Mkdir(served, 0o700), os.WriteFile(filepath.Join(served, "record"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if one, n := foreignIn(dir, os.Getuid()); n != 0 {
		t.Errorf("%d files of our own, such as %s", n, one)
	}
	if one, n := foreignIn(served, 4711); n != 2 || one != served {
		t.Errorf("%d files of another user's, such as %s", n, one)
	}
	if os.Getuid() != 0 {
		return // we cannot make the directory another user's
	}
	if err := errors.Join(os.Chmod(dir, 0o700), os.Chown(dir, 4711, 4711)); err != nil {
		t.Fatal(err)
	}
	h := Host{Etc: dir, Filesystem: filesystem}
	found := h.directory(directory{"state directory", dir, "state_dir", "it is lost", 0}, 4711)
	if len(found) != 1 || found[0].Level != finding.Fail || !strings.Contains(found[0].What, "cannot use 2 files in it, such as "+served) || found[0].Mend != "chown -R 4711 "+dir {
		t.Errorf("%+v", found)
	}
}

// exim gives the host an Exim with contrib's transport, and texts replaced.
func (p *patient) exim(replace ...string) {
	text, err := os.ReadFile("../../contrib/exim/conf.d/transport/30_mxpipe")
	p.must(err)
	if len(replace) == 0 {
		replace = []string{"/usr/bin/mxpipe", "/usr/bin/mxpipe --socket " + p.dir + "/pipe"}
	}
	transport := strings.NewReplacer(append([]string{"mxpipe:\n", "mxpipe transport:\n", "\\\n", ""}, replace...)...).Replace(string(text))
	p.Exim = func(context.Context) (mailserver.EximOutput, error) {
		return mailserver.EximOutput{Main: "auto_thaw = 1h\nmessage_size_limit = 50M\n", Transports: transport}, nil
	}
}

func TestLimitsOfProcess(t *testing.T) {
	const head = "Limit                     Soft Limit           Hard Limit           Units     \n"
	for line, want := range map[string]uint64{
		"Max address space         1073741824           unlimited            bytes     \n": 1 << 30,
		"Max address space         unlimited            unlimited            bytes     \n": math.MaxUint64,
	} {
		data := strings.Replace(line, "address space", "data size    ", 1)
		if got, ok := parseLimits(head + data + line); !ok || got != (mailserver.Limits{AddressSpace: want, Data: want}) {
			t.Errorf("%q: %d, %v", line, got, ok)
		}
	}
	for _, bad := range []string{"", head, "Max address space many\n", "Max address space\n"} {
		if got, ok := parseLimits(bad); ok {
			t.Errorf("%q: %d", bad, got)
		}
	}
	text, err := os.ReadFile("/proc/self/limits")
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := parseLimits(string(text)); !ok || got.AddressSpace == 0 || got.Data == 0 {
		t.Errorf("our own: %d, %v", got, ok)
	}
}
