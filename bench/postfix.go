package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// postfix is a Postfix of our own, beside any that the machine has. What is
// submitted waits on hold, so that its delivery can be measured alone.
type postfix struct {
	*child
	dir     string
	port    *ports.Reservation
	address string
	log     *os.File // read on from where the last look ended
	rest    []byte   // of a line
}

const mainCF = `
compatibility_level = 3.6
queue_directory = %[1]s/queue
data_directory = %[1]s/data
maillog_file = %[1]s/mail.log
maillog_file_prefixes = %[1]s
myhostname = mta.bench
mydestination =
alias_maps =
alias_database =
local_recipient_maps =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = check_client_access static:HOLD, permit_mynetworks, reject
allow_min_user = yes
notify_classes =
queue_run_delay = 1h
default_destination_concurrency_limit = 20
initial_destination_concurrency = 20
smtp_tls_security_level = may
smtp_tls_loglevel = 0
`

const masterCF = `
%[1]s inet n - n - - smtpd
pickup unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
showq unix n - n - - showq
scache unix - - n - 1 scache
tlsproxy unix - - n - 0 tlsproxy
postlog unix-dgram n - n - 1 postlogd
smtp unix - - n - - smtp
lmtp unix - - n - - lmtp
`

// startPostfix starts a Postfix with further lines in main.cf and master.cf.
func (b *bench) startPostfix(main, master string) (*postfix, error) {
	dir, err := os.MkdirTemp(b.dir, "postfix-")
	if err != nil {
		return nil, err
	}
	port, err := ports.Reserve()
	if err != nil {
		return nil, err
	}
	p := &postfix{dir: dir, port: port, address: fmt.Sprintf("127.0.0.1:%d", port.Port())}
	owner, err := user.Lookup("postfix")
	if err != nil {
		return nil, err
	}
	uid, err := strconv.Atoi(owner.Uid)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"conf", "queue", "data"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	err = errors.Join(
		os.Chmod(dir, 0o755),
		os.Chown(filepath.Join(dir, "data"), uid, -1),
		os.WriteFile(p.conf()+"/main.cf", []byte(fmt.Sprintf(mainCF, dir)+main), 0o644),
		os.WriteFile(p.conf()+"/master.cf", []byte(fmt.Sprintf(masterCF, p.address)+master), 0o644),
	)
	if err != nil {
		return nil, err
	}
	if out, err := exec.Command("postfix", "-c", p.conf(), "check").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("postfix check: %w\n%s", err, out)
	}
	daemons, err := exec.Command("postconf", "-c", p.conf(), "-h", "daemon_directory").Output()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(filepath.Join(strings.TrimSpace(string(daemons)), "master"), "-d")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "MAIL_CONFIG=" + p.conf()}
	if p.child, err = startChild(cmd, syscall.SIGTERM); err != nil {
		return nil, err
	}
	if err := p.awaitStart(); err != nil {
		p.stop()
		return nil, err
	}
	return p, nil
}

func (p *postfix) conf() string { return filepath.Join(p.dir, "conf") }

func (p *postfix) awaitStart() error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", p.address)
		if err != nil {
			continue
		}
		conn.Close()
		if p.log, err = os.Open(filepath.Join(p.dir, "mail.log")); err == nil {
			return nil
		}
	}
	text, _ := os.ReadFile(filepath.Join(p.dir, "mail.log"))
	return fmt.Errorf("starting Postfix failed\n%s", text)
}

func (p *postfix) stop() {
	p.child.stop()
	if p.log != nil {
		p.log.Close()
	}
	p.port.Release()
}

// submit puts messages on hold, each to its own domain by turns.
func (p *postfix) submit(messages, size int, domain string) error {
	cmd := exec.Command("smtp-source", "-s", "8", "-m", strconv.Itoa(messages), "-l", strconv.Itoa(size),
		"-f", "a@sender.bench", "-t", "b@"+domain, p.address)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("smtp-source: %w\n%s", err, out)
	}
	_, _, err := p.look()
	return err
}

// look reads on in the log: how many messages were sent, and how many were
// not.
func (p *postfix) look() (sent, failed int, err error) {
	text, err := io.ReadAll(p.log)
	if err != nil {
		return 0, 0, err
	}
	text = append(p.rest, text...)
	end := bytes.LastIndexByte(text, '\n') + 1
	p.rest = bytes.Clone(text[end:])
	sent = bytes.Count(text[:end], []byte(" status=sent "))
	return sent, bytes.Count(text[:end], []byte(" status=")) - sent, nil
}

// race is how long the messages on hold took, and the CPU time.
type race struct{ took, cpu time.Duration }

// release has all messages on hold delivered, and waits until they are. The
// CPU time is that of Postfix with all of its processes, and of others.
func (b *bench) release(p *postfix, messages int, others ...int) (r race, err error) {
	pids := append([]int{p.pid()}, others...)
	if out, err := exec.Command("postsuper", "-c", p.conf(), "-H", "ALL").CombinedOutput(); err != nil {
		return r, fmt.Errorf("postsuper: %w\n%s", err, out)
	}
	before, err := measure.TreeCPU(pids...)
	if err != nil {
		return r, err
	}
	start := time.Now()
	if out, err := exec.Command("postqueue", "-c", p.conf(), "-f").CombinedOutput(); err != nil {
		return r, fmt.Errorf("postqueue: %w\n%s", err, out)
	}
	for done := 0; done < messages; {
		time.Sleep(2 * time.Millisecond)
		sent, failed, err := p.look()
		if err != nil {
			return r, err
		}
		done += sent
		switch {
		case failed > 0:
			text, _ := os.ReadFile(p.log.Name())
			return r, fmt.Errorf("not every message was sent by Postfix\n%s", text[max(0, len(text)-1500):])
		case time.Since(start) > 10*patience || b.ctx.Err() != nil:
			return r, fmt.Errorf("%d of %d messages were delivered in time", done, messages)
		}
	}
	r.took = time.Since(start)
	after, err := measure.TreeCPU(pids...)
	r.cpu = after - before
	return r, err
}
