package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// exim is an Exim of our own. Its package cannot be installed beside Postfix's,
// so e2e/needs.sh unpacks it into a folder. It believes in no configuration but
// /etc/exim4/exim4.conf and in a user Debian-exim, so each of its processes has
// a mount namespace in which /etc is a directory of the test's.
type exim struct {
	*process
	mailbox // what its transport "keep" delivered
	dir     string
	address string // where it takes mail by SMTP
}

// eximConfig is what a test puts into Exim's configuration.
type eximConfig struct {
	main, routers, transports string
}

// eximUser is the number of the user Debian-exim, who exists only in that /etc.
const eximUser = 64100

const eximBasics = `
exim_path = %[1]s/bin/exim4
spool_directory = %[1]s/spool
log_file_path = %[1]s/log/%%slog
pid_file_path = %[1]s/exim.pid
primary_hostname = %[2]s.e2e.example
local_interfaces = %[3]s
daemon_smtp_ports = %[4]s
tls_advertise_hosts =
smtputf8_advertise_hosts = *
dsn_advertise_hosts = *
allow_utf8_domains = true
smtp_accept_max = 0
message_size_limit = 100M
keep_environment = ` + workdirVar + `
acl_smtp_rcpt = accept
acl_smtp_data = accept
domainlist local_domains = local.e2e.example
%[5]s

begin routers
keep:
  driver = accept
  domains = ` + keepDomain + `
  transport = keep
%[6]s

begin transports
keep:
  driver = pipe
  user = nobody
  command = /bin/sh -c '\Nexec %[1]s/keep %[1]s/kept "$MESSAGE_ID" "$SENDER" "$@"\N' keep $pipe_addresses
  message_prefix =
  message_suffix =
%[7]s

begin retry
* * F,4d,15m
`

// eximCache is the folder of needs.sh.
func eximCache() string {
	cache := os.Getenv("MXPIPE_E2E_CACHE")
	if cache == "" {
		cache = "/var/cache/mxpipe-e2e"
	}
	return filepath.Join(cache, "exim")
}

// newExim starts an Exim with further lines in its configuration.
func newExim(dir, name, address string, more eximConfig) (*exim, error) {
	x, err := unpackExim(dir, address)
	if err != nil {
		return nil, err
	}
	ip, port, _ := strings.Cut(address, ":")
	text := fmt.Sprintf(eximBasics, dir, name, ip, port, more.main, more.routers, more.transports)
	if err := write(x.conf(), text); err != nil {
		return nil, err
	}
	return x, x.start(name)
}

// unpackExim makes all that an Exim needs but its configuration.
func unpackExim(dir, address string) (*exim, error) {
	x := &exim{dir: dir, address: address, mailbox: mailbox{log: filepath.Join(dir, "log", "mainlog"), kept: filepath.Join(dir, "kept")}}
	etc := filepath.Join(dir, "etc")
	for _, sub := range []string{"", "etc", "etc/exim4", "bin", "spool", "log", "kept"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	users := fmt.Sprintf("Debian-exim:x:%d:%[1]d::/:/bin/false\nmxpipe:x:%d:%[2]d::/:/bin/false\n", eximUser, nobody)
	groups := fmt.Sprintf("Debian-exim:x:%d:\nmxpipe:x:%d:\n", eximUser, nobody)
	hostUsers, err := os.ReadFile("/etc/passwd")
	hostGroups, err1 := os.ReadFile("/etc/group")
	libraries, err2 := os.ReadFile("/etc/ld.so.cache")
	program, err3 := os.ReadFile(filepath.Join(eximCache(), "usr/sbin/exim4"))
	binary, script := filepath.Join(dir, "bin/exim4"), filepath.Join(dir, "keep")
	return x, errors.Join(err, err1, err2, err3,
		write(filepath.Join(etc, "passwd"), users+string(hostUsers)),
		write(filepath.Join(etc, "group"), groups+string(hostGroups)),
		write(filepath.Join(etc, "nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n"),
		write(filepath.Join(etc, "hosts"), "127.0.0.1 localhost\n"),
		write(filepath.Join(etc, "ld.so.cache"), string(libraries)),
		forks.WriteFile(binary, program, 0o755|os.ModeSetuid),
		forks.WriteFile(script, []byte(keeper), 0o755),
		os.Chown(x.kept, nobody, nobody),
		os.Chown(filepath.Join(dir, "spool"), eximUser, eximUser),
		os.Chown(filepath.Join(dir, "log"), eximUser, eximUser),
	)
}

func (x *exim) conf() string { return filepath.Join(x.dir, "etc/exim4/exim4.conf") }

// start starts the daemon, which runs the queue only when it is told to.
func (x *exim) start(name string) error {
	var err error
	before, _ := os.ReadFile(x.log) // of an earlier life
	if err := vacant(x.address); err != nil {
		return err
	}
	if x.process, err = start("exim "+name, x.inside(filepath.Join(x.dir, "bin/exim4"), "-bdf")); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		log, _ := os.ReadFile(x.log)
		switch {
		case bytes.Contains(log[min(len(before), len(log)):], []byte(" daemon started: ")):
			return nil
		case x.ended() || time.Now().After(deadline):
			more, _ := os.ReadFile(filepath.Join(x.dir, "log", "paniclog"))
			return fmt.Errorf("%s does not start\n%s%s", x.name, log, more)
		}
	}
}

// close ends the server.
func (x *exim) close() error { return x.stop(syscall.SIGTERM) }

// inside is a command whose /etc is the test's.
func (x *exim) inside(program string, args ...string) *exec.Cmd {
	cmd := again("inside", append([]string{x.dir, program}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return cmd
}

// inside puts the test's /etc in its place and becomes the command. Exim gets
// its rights back by its setuid bit, which must count even where the directory
// for temporary files is mounted without.
func inside() {
	dir, args := os.Args[1], os.Args[2:]
	bin := filepath.Join(dir, "bin")
	os.Unsetenv(roleVar)
	err := errors.Join(
		unix.Mount(filepath.Join(dir, "etc"), "/etc", "", unix.MS_BIND, ""),
		unix.Mount(bin, bin, "", unix.MS_BIND, ""),
		unix.Mount("", bin, "", unix.MS_BIND|unix.MS_REMOUNT, ""),
	)
	if err == nil {
		err = syscall.Exec(args[0], args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "e2e:", args, err)
	os.Exit(1)
}

// run runs Exim with other arguments to its end, and gives what it prints.
func (x *exim) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := x.inside(filepath.Join(x.dir, "bin/exim4"), args...).CombinedOutput()
	if err != nil {
		t.Fatalf("exim %s: %v\n%s", args, err, out)
	}
	return string(out)
}

// submit hands a message over by SMTP and gives its id.
func (x *exim) submit(t *testing.T, m mail) string {
	t.Helper()
	_, id, ok := strings.Cut(m.submit(t, x.address), "OK id=")
	if !ok {
		t.Fatal("Exim did not name the message's id")
	}
	return id
}

// find waits for a line of the log and gives its last group.
func (x *exim) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile("(?m)" + pattern)
	return await(t, "a line like "+pattern, func() (string, bool) {
		match := re.FindStringSubmatch(logText(x.log))
		if match == nil {
			return "", false
		}
		return match[len(match)-1], true
	}, x.log)
}

var (
	handledLine = regexp.MustCompile(`^\S+ \S+ (\S+) (=>|->|==|\*\*) (.*?)(?: F=<.*?>)? R=\S+ T=([^\s:]+):? ?(.*)$`)
	outputLine  = regexp.MustCompile(`^\S+ \S+ (\S+) <(.*)>: (\S+) transport output: (.*)$`)
	// codeIn finds the enhanced status code in what the command printed, or in
	// an LMTP reply that Exim quotes.
	codeIn   = regexp.MustCompile(`^(?:(?:defer \(.*?\): )?LMTP error after .*?: \d{3} |C="\d{3} )?(\d\.\d+\.\d+) `)
	statusOf = map[string]string{"=>": "sent", "->": "sent", "==": "deferred", "**": "bounced"}
)

// attempts lists every try so far for a message.
func (x *exim) attempts(id string) []attempt {
	outputs := map[string]string{}
	var list []attempt
	for line := range strings.Lines(logText(x.log)) {
		if !strings.Contains(line, " "+id+" ") {
			continue
		}
		line = strings.TrimSuffix(line, "\n")
		if m := outputLine.FindStringSubmatch(line); m != nil && m[1] == id {
			outputs[m[2]] = m[4]
		} else if m := handledLine.FindStringSubmatch(line); m != nil && m[1] == id {
			to := m[3]
			// The local part as Exim thinks of it, and the address as it was
			// given.
			if _, whole, ok := strings.Cut(to, " <"); ok {
				to = strings.TrimSuffix(whole, ">")
			}
			f := attempt{to: to, relay: m[4], status: statusOf[m[2]], text: outputs[to], own: m[5]}
			if f.text == "" {
				f.text = f.own
			}
			if m := codeIn.FindStringSubmatch(f.text); m != nil {
				f.dsn = m[1]
			}
			list = append(list, f)
			delete(outputs, to)
		}
	}
	return list
}

// tries waits for the n-th result of a message, counted from 1 over all of its
// recipients, and gives all n.
func (x *exim) tries(t *testing.T, id string, n int) []attempt {
	t.Helper()
	return await(t, fmt.Sprintf("result %d of %s", n, id), func() ([]attempt, bool) {
		list := x.attempts(id)
		return list, len(list) >= n
	}, x.log)
}

// sent waits until the last try of a message, number n, is known, asserts that
// it was sent, and that Exim let it go.
func (x *exim) sent(t *testing.T, id string, n int) attempt {
	t.Helper()
	h := x.tries(t, id, n)[n-1]
	if h.status != "sent" {
		t.Fatalf("the message was not sent: %+v", h)
	}
	x.done(t, id)
	return h
}

// done waits until Exim lets a message go.
func (x *exim) done(t *testing.T, id string) {
	t.Helper()
	x.find(t, ` `+id+` (Completed)$`)
	if x.queued(id) {
		t.Errorf("%s is completed and still in the queue", id)
	}
}

// deferred waits until try n of a message is over, and asserts that all tries
// were deferred, that Exim keeps the message, and that the reason is as wanted:
// the command's, with its code, or Exim's own.
func (x *exim) deferred(t *testing.T, id string, n int, dsn, pattern string) {
	t.Helper()
	last := x.tries(t, id, n)[n-1]
	if re := regexp.MustCompile(pattern); !regexp.MustCompile("^("+dsn+")$").MatchString(last.dsn) || !re.MatchString(last.text) && !re.MatchString(last.own) {
		t.Errorf("deferred with %+v, want %s (%s)", last, dsn, pattern)
	}
	for _, h := range x.attempts(id) {
		if h.status != "deferred" {
			t.Fatalf("not deferred: %+v", h)
		}
	}
	if !x.queued(id) {
		t.Errorf("%s was deferred and is not in the queue", id)
	}
}

// queued reports whether a message lies in the queue.
func (x *exim) queued(id string) bool {
	_, err := os.Stat(filepath.Join(x.dir, "spool/input", id+"-H"))
	return err == nil
}

// retry has Exim try a message now, at whatever time it would be due and frozen
// or not, and waits for the end. The log tells of a try before its process lets
// go of the message, and until then Exim does not try again.
func (x *exim) retry(t *testing.T, id string) {
	t.Helper()
	before := len(x.attempts(id))
	await(t, "one more try of "+id, func() (string, bool) {
		out := x.run(t, "-M", id)
		return out, len(x.attempts(id)) > before
	}, x.log)
}
