package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/dnssec"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/policyd/socketmap/netstring"
)

// debian is a Postfix as Debian's package leaves it: its very main.cf and
// master.cf, with smtp(8) in a chroot that the package's own script has filled,
// and a user postfix who is in no group of ours. What stands between it and a
// usual host is where it listens and keeps its files. It lives in a mount
// namespace, in which the DNS is the lab's, and there is a user mxpipe.
type debian struct {
	*postfix
	files [2]string // that stand for /etc/resolv.conf and /etc/passwd
}

// newDebian starts it, with further lines in main.cf.
func (n *internet) newDebian(t *testing.T, resolver, lines string) *debian {
	t.Helper()
	address, err := n.host(n.newDomain("debian"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(folder(t), "debian")
	d := &debian{postfix: &postfix{dir: dir, address: address, mailbox: mailbox{log: filepath.Join(dir, "mail.log"), kept: filepath.Join(dir, "kept")}}}
	d.files = [2]string{filepath.Join(dir, "resolv.conf"), filepath.Join(dir, "passwd")}
	owner, err := user.Lookup("postfix")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.Atoi(owner.Uid)
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	stock := func(name string) string {
		text, failed := os.ReadFile("/usr/share/postfix/" + name)
		err = errors.Join(err, failed)
		return string(text)
	}
	main, master := stock("main.cf.debian")+stock("main.cf.tls"), stock("master.cf.dist")
	const listens = "\nsmtp      inet  "
	if err != nil || !strings.Contains(main, "smtp_tls_security_level=may") || strings.Count(master, listens) != 1 || !strings.Contains(master, "\nsmtp      unix  -       -       y ") {
		t.Fatalf("not Debian's Postfix: %v", err)
	}
	for _, sub := range []string{"", "conf", "queue", "data", "kept"} {
		err = errors.Join(err, os.Mkdir(filepath.Join(dir, sub), 0o755))
	}
	err = errors.Join(err,
		os.Chown(filepath.Join(dir, "data"), uid, -1),
		os.Chown(d.kept, nobody, nobody),
		write(d.files[0], "nameserver "+resolver+"\noptions trust-ad\n"),
		write(d.files[1], fmt.Sprintf("%smxpipe:x:%d:%d::/:/bin/false\n", passwd, 64101, nobody)),
		forks.WriteFile(filepath.Join(dir, "keep"), []byte(keeper), 0o755),
		write(d.conf()+"/main.cf", main+fmt.Sprintf(`
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = debian.e2e.example
mydestination =
alias_maps =
alias_database =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
message_size_limit = 104857600
smtp_tcp_port = %[2]d
transport_maps = inline:{{%[3]s=keep:}}
smtp_tls_CAfile = %[4]s
smtp_tls_loglevel = 1
%[5]s`, dir, n.port, keepDomain, n.roots, lines)),
		write(d.conf()+"/master.cf", strings.Replace(master, listens, "\n"+address+" inet ", 1)+
			fmt.Sprintf("keep unix - n n - - pipe\n  flags=q user=nobody null_sender= argv=%s/keep %s ${queue_id} ${sender} ${recipient}\n", dir, d.kept)),
	)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("postfix", "-c", d.conf(), "check").CombinedOutput(); err != nil {
		t.Fatalf("postfix check: %v\n%s%s", err, out, tail(d.log))
	}
	if err := d.postfix.run(d.within("/bin/sh", "-c", `/usr/lib/postfix/configure-instance.sh && exec "$0" "$@"`)...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("Postfix:\n%s", tail(d.log))
		}
	})
	return d
}

// within is a command in the namespace.
func (d *debian) within(args ...string) []string {
	return append([]string{
		"unshare", "--mount", "--propagation", "private",
		"sh", "-c", `mount --bind "$0" /etc/resolv.conf && mount --bind "$1" /etc/passwd && shift && exec "$@"`, d.files[0], d.files[1],
	}, args...)
}

// command runs a command of the administrator's there, and gives what it says.
func (d *debian) command(t *testing.T, args ...string) string {
	t.Helper()
	args = d.within(args...)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "MAIL_CONFIG=" + d.conf()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", args[9:], err, out)
	}
	return string(out)
}

// reloads counts how often it has read its configuration again.
func (d *debian) reloads() int {
	return strings.Count(logText(d.log), ": reload -- version ")
}

// reloaded runs what reloads it, and waits until it has.
func (d *debian) reloaded(t *testing.T, run func()) {
	t.Helper()
	before := d.reloads()
	run()
	await(t, "a reload", func() (int, bool) { n := d.reloads(); return n, n > before }, d.log)
}

// settings are those in main.cf, as Postfix reads them.
func (d *debian) settings(t *testing.T) string {
	t.Helper()
	return d.command(t, "postconf", "-n") + d.command(t, "postconf", "-M")
}

// ownLines are findings about what the lab does otherwise than a host would: an
// LMTP socket for everybody, and lines of its own in main.cf.
var ownLines = regexp.MustCompile(`/lmtp\.sock: mode 0666|(smtp_tcp_port|inet_protocols|smtp_tls_CAfile) has no effect`)

// doctor gives what the doctor finds wrong with this Postfix, or with the
// sockets that it calls at.
func (d *debian) doctor(t *testing.T, w *world, config string) (list []string) {
	t.Helper()
	args := d.within(w.mxpolicyd, "doctor", "--json", "-c", config)
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH") + ":/usr/sbin:/sbin", "MAIL_CONFIG=" + d.conf()}
	out, err := cmd.Output()
	var findings []struct{ Level, What string }
	if failed := json.Unmarshal(out, &findings); failed != nil {
		t.Fatalf("doctor: %v, %v\n%s", err, failed, out)
	}
	seen := false
	for _, f := range findings {
		if strings.HasPrefix(f.What, "Postfix") || strings.HasPrefix(f.What, "socket ") {
			seen = seen || strings.HasPrefix(f.What, "Postfix")
			if f.Level != "ok" && !ownLines.MatchString(f.What) {
				list = append(list, f.Level+" "+f.What)
			}
		}
	}
	if !seen {
		t.Fatalf("the doctor says nothing of Postfix:\n%s", out)
	}
	return list
}

// wantDoctor asserts that the doctor finds these things and no others, each by
// a part of what it says.
func (d *debian) wantDoctor(t *testing.T, w *world, config string, want ...string) {
	t.Helper()
	got := d.doctor(t, w, config)
	if len(got) != len(want) {
		t.Errorf("the doctor says %q, want %q", got, want)
		return
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("the doctor says %q, want %q", got[i], want[i])
		}
	}
}

// neighbour stands for another program that answers Postfix.
type neighbour struct {
	address string
	asked   atomic.Int32
}

// startNeighbour starts one that knows the policies of some domains, at a port
// of an address of its own.
func (n *internet) startNeighbour(t *testing.T, port int, table string, policies map[string]string) *neighbour {
	t.Helper()
	b := &neighbour{address: fmt.Sprintf("%s:%d", n.resolver(), port)}
	l, err := forks.Listen("tcp", b.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				in := netstring.NewReader(conn, 2000)
				for {
					question, err := in.Next()
					if err != nil {
						return
					}
					b.asked.Add(1)
					reply := "NOTFOUND "
					name, domain, _ := strings.Cut(string(question), " ")
					if name != table {
						reply = "TEMP there is no such map"
					} else if policy := policies[domain]; policy != "" {
						reply = "OK " + policy
					}
					conn.Write(netstring.Append(nil, reply))
				}
			}()
		}
	}()
	return b
}

// migration is a Postfix that asks a neighbour, and an mxpolicyd beside it.
type migration struct {
	*internet
	*debian
	from    *neighbour
	address string // of mxpolicyd's socketmap
	domains []*domain
}

// migrating makes one, from the lines of a neighbour's own documentation;
// ADDRESS stands for where that listens.
func migrating(t *testing.T, port int, table, lines string, policies map[string]string) *migration {
	t.Helper()
	n := newInternet(t)
	m := &migration{internet: n, from: n.startNeighbour(t, port, table, policies), address: n.resolver() + ":8463"}
	m.domains = []*domain{
		n.add(t, domainSpec{name: "plain", signing: dnssec.Unsigned, hosts: []hostSpec{selfSigned}}),
		n.add(t, domainSpec{name: "sts", signing: dnssec.Unsigned, policy: "enforce", hosts: []hostSpec{valid}}),
		n.add(t, domainSpec{name: "dane", hosts: []hostSpec{withDANE}}),
	}
	resolver := n.resolver()
	u := n.unbound(t, resolver)
	var err error
	if n.d, err = n.newDaemon(folder(t), settings{}); err != nil {
		t.Fatal(err)
	}
	n.configure(t, u.Addr(), everyPolicy, "")
	text, err := os.ReadFile(n.d.config)
	if err != nil {
		t.Fatal(err)
	}
	socket := fmt.Sprintf("socketmap: {path: %s, mode: \"0666\"}", n.d.socketmap())
	if strings.Count(string(text), socket) != 1 {
		t.Fatalf("no %s in\n%s", socket, text)
	}
	if err := write(n.d.config, strings.Replace(string(text), socket, fmt.Sprintf("socketmap: {address: %q}", m.address), 1)); err != nil {
		t.Fatal(err)
	}
	if err := n.d.start(n.world, settings{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.d.close(); err != nil {
			t.Error(err)
		}
	})
	m.debian = n.newDebian(t, resolver, strings.ReplaceAll(lines, "ADDRESS", m.from.address))
	return m
}

// flows sends a message to each domain, and asserts that it arrives, by whom
// Postfix has asked, and that MTA-STS is kept.
func (m *migration) flows(t *testing.T, asks bool) {
	t.Helper()
	before := m.from.asked.Load()
	for _, d := range m.domains {
		f := m.sent(t, m.submit(t, note("a@"+keepDomain, "b@"+d.name)), 1)
		if !strings.HasPrefix(f.relay, d.hosts[0].name+"[") {
			t.Errorf("mail for %s went to %s", d.name, f.relay)
		}
	}
	if asked := m.from.asked.Load() > before; asked != asks {
		t.Errorf("the neighbour was asked: %v", asked)
	}
	m.find(t, `(Verified) TLS connection established to `+regexp.QuoteMeta(m.domains[1].hosts[0].name))
}

// From each of two neighbours to mxpolicyd and back, by the commands that
// MIGRATION.md gives: mail flows at each step, and the doctor says what is
// still missing.
func TestMigration(t *testing.T) {
	t.Parallel()
	const sts = "secure match=mx1.sts.example servername=hostname"
	for _, c := range []struct {
		name     string
		port     int
		table    string
		lines    string
		policies map[string]string
	}{
		{"postfix-mta-sts-resolver", 8461, "postfix", "smtp_tls_policy_maps = socketmap:inet:ADDRESS:postfix\n", map[string]string{"sts.example": sts}},
		{"postfix-tlspol", 8642, "QUERY", "smtp_tls_policy_maps = socketmap:inet:ADDRESS:QUERY\nsmtp_dns_support_level = dnssec\nsmtp_tls_security_level = dane\n",
			map[string]string{"sts.example": sts, "dane.example": "dane-only"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := migrating(t, c.port, c.table, c.lines, c.policies)
			foreign := "warn Postfix, smtp_tls_policy_maps: Postfix asks " + m.from.address
			m.flows(t, true)
			m.wantDoctor(t, m.world, m.d.config, foreign)
			before := m.settings(t)

			// By one command, and back.
			m.reloaded(t, func() {
				said := m.command(t, m.mxpolicyd, "setup", "postfix", "--way", "socketmap", "-c", m.d.config)
				if !strings.Contains(said, "\n+smtp_tls_policy_maps = socketmap:inet:"+m.address+":policy\n") {
					t.Errorf("it says\n%s", said)
				}
			})
			m.flows(t, false)
			m.wantDoctor(t, m.world, m.d.config)
			m.reloaded(t, func() { m.command(t, m.mxpolicyd, "setup", "postfix", "--undo", "-c", m.d.config) })
			if after := m.settings(t); after != before {
				t.Errorf("undone it is\n%s\nand was\n%s", after, before)
			}
			m.flows(t, true)
			m.wantDoctor(t, m.world, m.d.config, foreign)

			// By hand, each command by itself. Until the last the neighbour is
			// asked, which the doctor says.
			missing := []string{foreign}
			for _, command := range m.byHand(t) {
				if command[0] != "postconf" {
					m.command(t, command...)
					continue
				}
				m.reloaded(t, func() { m.command(t, command...); m.command(t, "postfix", "reload") })
				if strings.HasPrefix(command[2], "smtp_tls_policy_maps") {
					missing = nil
				}
				m.flows(t, missing != nil)
				m.wantDoctor(t, m.world, m.d.config, missing...)
			}
			if missing != nil {
				t.Error("MIGRATION.md does not set smtp_tls_policy_maps")
			}
			m.misses(t)
			// And back, as it says.
			m.reloaded(t, func() {
				for line := range strings.Lines(strings.ReplaceAll(c.lines, "ADDRESS", m.from.address)) {
					m.command(t, "postconf", "-e", strings.TrimSpace(line))
				}
				m.command(t, "postfix", "reload")
			})
			m.flows(t, true)
			m.wantDoctor(t, m.world, m.d.config, foreign)
		})
	}
}

// misses leaves out what the documented commands set, one thing after the
// other, and asserts that the doctor names that and nothing else.
func (m *migration) misses(t *testing.T) {
	t.Helper()
	whole := m.settings(t)
	at := "smtp_tls_policy_maps=socketmap:inet:" + m.address + ":"
	for _, c := range []struct{ change, back, want string }{
		{"-X smtp_dns_support_level", "smtp_dns_support_level=dnssec", "fail Postfix, smtp_tls_policy_maps: without DNSSEC look-ups"},
		{"-X smtp_tls_security_level", "smtp_tls_security_level=dane", "warn Postfix, smtp_tls_policy_maps: domains without a policy get no TLS"},
		{"-e smtp_tls_security_level=may", "smtp_tls_security_level=dane", "warn Postfix, smtp_tls_policy_maps: TLSA records of hosts from an unsigned MX set"},
		{"-X smtp_tls_mandatory_protocols", "smtp_tls_mandatory_protocols=!SSLv2, !SSLv3, !TLSv1, !TLSv1.1", "warn Postfix, smtp_tls_policy_maps: TLS 1.0 and 1.1 count"},
		{"-e " + at + "policies", at + "policy", `fail Postfix, smtp_tls_policy_maps: mxpolicyd has no map "policies"`},
		{"-e " + at + "policy@nosuch", at + "policy", `fail Postfix, smtp_tls_policy_maps: mxpolicyd has no transport "nosuch"`},
	} {
		flag, setting, _ := strings.Cut(c.change, " ")
		m.command(t, "postconf", flag, setting)
		m.wantDoctor(t, m.world, m.d.config, c.want)
		m.command(t, "postconf", "-e", c.back)
	}
	m.wantDoctor(t, m.world, m.d.config)
	if got := m.settings(t); got != whole {
		t.Errorf("it is\n%s\nand was\n%s", got, whole)
	}
}

// byHand reads the commands of MIGRATION.md, for this host: without systemd the
// socket is where the configuration of mxpolicyd has it.
func (m *migration) byHand(t *testing.T) (commands [][]string) {
	t.Helper()
	text, err := os.ReadFile("../contrib/postfix/MIGRATION.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, ok := strings.Cut(string(text), "\n    install -D ")
	block, _, end := strings.Cut(block, "\n\n")
	if !ok || !end {
		t.Fatal("MIGRATION.md has no commands")
	}
	for i, line := range strings.Split(block, "\n") {
		line = strings.TrimPrefix(line, "    ")
		if i == 0 || strings.HasPrefix(line, "systemctl ") || strings.HasPrefix(line, "mxpolicyd ") {
			continue
		}
		line = strings.NewReplacer("127.0.0.1:8463", m.address, "example.org", "sts.example", "/etc/ssl/certs/ca-certificates.crt", m.roots).Replace(line)
		words := strings.SplitN(line, " ", 3)
		if len(words) == 3 && words[0] == "postmap" {
			words = strings.Fields(line)
		} else if len(words) == 3 {
			words[2] = strings.Trim(words[2], "'")
		}
		commands = append(commands, words)
	}
	return commands
}

// Each way is set up on Debian's Postfix by one command, mail goes that way,
// the doctor has nothing to say, and nothing is left when it is undone.
func TestSetupOfPostfix(t *testing.T) {
	t.Parallel()
	m := migrating(t, 8642, "QUERY", "", nil)
	before := m.settings(t)
	m.wantDoctor(t, m.world, m.d.config, "warn Postfix: not set up to use mxpolicyd")
	for _, c := range []struct{ way, relay, text string }{
		{"pipe", "mxpipe", `delivered via mxpipe service`},
		{"lmtp", m.d.lmtp, `250 2\.0\.0 .* mx1\.`},
		{"socketmap", "mx1.", ``},
	} {
		m.reloaded(t, func() { m.command(t, m.mxpolicyd, "setup", "postfix", "--way", c.way, "-c", m.d.config) })
		for _, d := range m.domains {
			f := m.sent(t, m.submit(t, note("a@"+keepDomain, "b@"+d.name)), 1)
			if !strings.Contains(f.relay, c.relay) || !regexp.MustCompile(c.text).MatchString(f.text) {
				t.Errorf("%s: mail for %s went by %s (%s)", c.way, d.name, f.relay, f.text)
			}
		}
		if bad := m.doctor(t, m.world, m.d.config); len(bad) > 0 {
			t.Errorf("%s: the doctor says %q", c.way, bad)
		}
		m.reloaded(t, func() { m.command(t, m.mxpolicyd, "setup", "postfix", "--undo", "-c", m.d.config) })
		if after := m.settings(t); after != before {
			t.Errorf("%s: undone it is\n%s\nand was\n%s", c.way, after, before)
		}
	}
}

// What old instructions lead to on Debian is found: a socket outside of the
// chroot, a wrong name, a place where nothing listens.
func TestDoctorOnDebian(t *testing.T) {
	t.Parallel()
	m := migrating(t, 8642, "QUERY", "", nil)
	m.command(t, "postconf", "-e", "smtp_dns_support_level=dnssec", "smtp_tls_security_level=dane", "smtp_tls_mandatory_protocols=>=TLSv1.2")
	for table, want := range map[string]string{
		"socketmap:inet:" + m.address + ":policy":                    "",
		"socketmap:inet:" + m.address + ":tlspol":                    `has no map "tlspol"`,
		"socketmap:inet:" + m.address + ":policy-tlsrpt":             "does not support the attributes",
		"socketmap:inet:127.0.0.1:9:policy":                          "asks 127.0.0.1:9, but mxpolicyd listens on " + m.address,
		"socketmap:unix:/run/mxpolicyd/nosuch/socketmap.sock:policy": "asks /run/mxpolicyd/nosuch/socketmap.sock, but",
	} {
		m.command(t, "postconf", "-e", "smtp_tls_policy_maps="+table)
		if want == "" {
			m.wantDoctor(t, m.world, m.d.config)
			continue
		}
		m.wantDoctor(t, m.world, m.d.config, want)
	}
	// The socket of a package: outside of the chroot.
	text, err := os.ReadFile(m.d.config)
	if err != nil {
		t.Fatal(err)
	}
	m.restart(t, func() {
		err = write(m.d.config, strings.Replace(string(text), fmt.Sprintf("{address: %q}", m.address), "{path: "+m.d.socketmap()+", mode: \"0666\"}", 1))
	})
	if err != nil {
		t.Fatal(err)
	}
	m.command(t, "postconf", "-e", "smtp_tls_policy_maps=socketmap:unix:"+m.d.socketmap()+":policy")
	m.wantDoctor(t, m.world, m.d.config, "smtp runs in the chroot", "relay runs in the chroot")
	// One in the chroot that is for a group which Postfix's user is not in.
	inside := filepath.Join(m.dir, "queue", "mxpolicyd")
	if err := errors.Join(os.Mkdir(inside, 0o755), os.Chown(inside, daemonUser, daemonUser)); err != nil {
		t.Fatal(err)
	}
	socket := func(mode string) {
		m.restart(t, func() {
			err = write(m.d.config, strings.Replace(string(text), fmt.Sprintf("{address: %q}", m.address),
				fmt.Sprintf("{path: %s/socketmap.sock, mode: %q}", inside, mode), 1))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	m.command(t, "postconf", "-e", "smtp_tls_policy_maps=socketmap:unix:mxpolicyd/socketmap.sock:policy")
	socket("0660")
	m.wantDoctor(t, m.world, m.d.config, "runs as postfix with groups postfix, but "+inside)
	socket("0666")
	m.wantDoctor(t, m.world, m.d.config)
}
