package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// postfix is a Postfix of our own.
type postfix struct {
	*process
	mailbox // what its transport "keep" delivered
	dir     string
	address string // where it takes mail by SMTP
}

// services are the lines of master.cf that every Postfix here has. The
// transport keep stores what it gets, with its envelope, where the test can
// read it.
const services = `
%s inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
flush unix n - n 1000? 0 flush
postlog unix-dgram n - n - 1 postlogd
scache unix - - n - 1 scache
keep unix - n n - - pipe
  flags=q user=nobody null_sender= argv=%s %s ${queue_id} ${sender} ${recipient}
`

const basics = `
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = %[2]s.e2e.example
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
smtputf8_enable = yes
allow_min_user = yes
enable_long_queue_ids = yes
message_size_limit = 104857600
notify_classes =
keep_destination_recipient_limit = 1
queue_run_delay = 1h
minimal_backoff_time = 1h
`

// newPostfix starts a Postfix with further lines in main.cf and master.cf.
func newPostfix(dir, name, address, mainCF, masterCF string) (*postfix, error) {
	p, err := preparePostfix(dir, name, address, mainCF, masterCF)
	if err != nil {
		return p, err
	}
	return p, p.run()
}

// preparePostfix makes all that a Postfix needs but the process.
func preparePostfix(dir, name, address, mainCF, masterCF string) (*postfix, error) {
	p := &postfix{dir: dir, address: address, mailbox: mailbox{log: filepath.Join(dir, "mail.log"), kept: filepath.Join(dir, "kept")}}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return nil, err
	}
	script := filepath.Join(dir, "keep")
	for _, sub := range []string{"", "conf", "queue", "data", "kept"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	err = errors.Join(
		os.Chown(filepath.Join(dir, "data"), uid, -1),
		os.Chown(p.kept, nobody, nobody),
		forks.WriteFile(script, []byte(keeper), 0o755),
		write(p.conf()+"/main.cf", fmt.Sprintf(basics, dir, name)+mainCF),
		write(p.conf()+"/master.cf", fmt.Sprintf(services, address, script, p.kept)+masterCF),
	)
	if err != nil {
		return nil, err
	}
	// This makes the queue's directories.
	if out, err := exec.Command("postfix", "-c", p.conf(), "check").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postfix check: %w\n%s%s", err, out, tail(p.log))
	}
	return p, nil
}

// run starts Postfix, by a command that runs the one that is appended to it, if
// there is one.
func (p *postfix) run(by ...string) error {
	daemons, err := p.setting("daemon_directory")
	if err != nil {
		return err
	}
	// "postfix start" would leave the server to process 1; this way it is our
	// child, and dies with us.
	args := append(slices.Clone(by), filepath.Join(daemons, "master"), "-d")
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MAIL_CONFIG=" + p.conf()}
	before, _ := os.ReadFile(p.log) // of an earlier life
	if err := vacant(p.address); err != nil {
		return err
	}
	if p.process, err = start("postfix "+filepath.Base(p.dir), cmd); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		log, _ := os.ReadFile(p.log)
		switch {
		case bytes.Contains(log[min(len(before), len(log)):], []byte(": daemon started")):
			return nil
		case p.ended() || time.Now().After(deadline):
			return fmt.Errorf("%s does not start\n%s", p.name, log)
		}
	}
}

func (p *postfix) conf() string { return filepath.Join(p.dir, "conf") }

// setting asks Postfix for a parameter's value.
func (p *postfix) setting(name string) (string, error) {
	out, err := exec.Command("postconf", "-c", p.conf(), "-h", name).Output()
	return strings.TrimSpace(string(out)), err
}

// postqueue runs postqueue(1).
func (p *postfix) postqueue(t *testing.T, args ...string) []byte {
	t.Helper()
	var errs bytes.Buffer
	cmd := exec.Command("postqueue", append([]string{"-c", p.conf()}, args...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("postqueue %s: %v\n%s", args, err, &errs)
	}
	return out
}

// close ends the server.
func (p *postfix) close() error { return p.stop(syscall.SIGTERM) }

// submit hands a message over by SMTP and gives its queue id.
func (p *postfix) submit(t *testing.T, m mail) string {
	t.Helper()
	_, id, ok := strings.Cut(m.submit(t, p.address), "queued as ")
	if !ok {
		t.Fatal("Postfix did not name the queue id")
	}
	return id
}

// sendmail hands a message over by sendmail(1) and gives its queue id. Its
// sender must not be used by another message.
func (p *postfix) sendmail(t *testing.T, m mail) string {
	t.Helper()
	cmd := exec.Command("sendmail", append([]string{"-C", p.conf(), "-i", "-f", m.from, "--"}, m.to...)...)
	cmd.Stdin = bytes.NewReader(m.text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("sendmail: %v\n%s", err, out)
	}
	return p.find(t, `pickup\[\d+\]: (\w+): uid=\d+ from=<`+regexp.QuoteMeta(m.from)+`>`)
}

// find waits for a line of the log and gives its first group.
func (p *postfix) find(t *testing.T, pattern string) string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	return await(t, "a line like "+pattern, func() (string, bool) {
		match := re.FindStringSubmatch(logText(p.log))
		if match == nil {
			return "", false
		}
		return match[len(match)-1], true
	}, p.log)
}

// attemptLine is the log line of one try for one recipient. A very long text is
// cut, with its closing parenthesis.
var attemptLine = regexp.MustCompile(`(?m): (\w+): to=<(.*?)>, (?:orig_to=<.*?>, )?relay=([^,]+), .*?dsn=([\d.]+), status=(\w+) \((.*?)\)?$`)

// attemptIn gives what attemptLine has found.
func attemptIn(m []string) attempt {
	return attempt{to: m[2], relay: m[3], dsn: m[4], status: m[5], text: m[6]}
}

// attempts lists every try so far for a message.
func (p *postfix) attempts(id string) []attempt {
	var list []attempt
	for _, m := range attemptLine.FindAllStringSubmatch(logText(p.log), -1) {
		if m[1] == id {
			list = append(list, attemptIn(m))
		}
	}
	return list
}

// tries waits for the n-th result of a message, counted from 1 over all of its
// recipients, and gives all n.
func (p *postfix) tries(t *testing.T, id string, n int) []attempt {
	t.Helper()
	return await(t, fmt.Sprintf("result %d of %s", n, id), func() ([]attempt, bool) {
		list := p.attempts(id)
		return list, len(list) >= n
	}, p.log)
}

// sent waits until the last try of a message, number n, is known, asserts that
// it was sent, and that Postfix let it go.
func (p *postfix) sent(t *testing.T, id string, n int) attempt {
	t.Helper()
	f := p.tries(t, id, n)[n-1]
	if f.status != "sent" {
		t.Fatalf("the message was not sent: %+v", f)
	}
	p.done(t, id)
	return f
}

// done waits until Postfix lets a message go.
func (p *postfix) done(t *testing.T, id string) {
	t.Helper()
	p.find(t, `(qmgr)\[\d+\]: `+id+`: removed`)
}

// deferred waits until try n of a message is over, and asserts that all tries
// were deferred, that Postfix keeps the message, and that the reason is as
// wanted.
func (p *postfix) deferred(t *testing.T, id string, n int, dsn, pattern string) {
	t.Helper()
	list := p.tries(t, id, n)
	last := list[n-1]
	if !regexp.MustCompile("^("+dsn+")$").MatchString(last.dsn) || !regexp.MustCompile(pattern).MatchString(last.text) {
		t.Errorf("deferred with %s (%s), want %s (%s)", last.dsn, last.text, dsn, pattern)
	}
	for _, f := range p.attempts(id) {
		if f.status != "deferred" {
			t.Fatalf("not deferred: %+v", f)
		}
	}
	p.waiting(t, id)
}

// waiting waits until a message lies in the deferred queue.
func (p *postfix) waiting(t *testing.T, id string) {
	t.Helper()
	await(t, id+" in the deferred queue", func() (string, bool) {
		var entry struct {
			QueueName string `json:"queue_name"`
			QueueID   string `json:"queue_id"`
		}
		for line := range bytes.Lines(p.postqueue(t, "-j")) {
			if err := json.Unmarshal(line, &entry); err != nil {
				t.Fatalf("postqueue -j: %v: %s", err, line)
			}
			if entry.QueueID == id {
				return entry.QueueName, entry.QueueName == "deferred"
			}
		}
		return "not in the queue", false
	}, p.log)
}

// retry has Postfix try a deferred message again.
func (p *postfix) retry(t *testing.T, id string) {
	t.Helper()
	p.waiting(t, id)
	p.postqueue(t, "-i", id)
}
