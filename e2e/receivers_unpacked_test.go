package e2e

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// unpacked is a mail server whose package cannot be installed beside Postfix's,
// so that e2e/needs.sh unpacks it into a folder. Each of its processes has a
// mount namespace in which that folder lies over /usr, and /etc and /var are
// directories of the test's.
type unpacked struct {
	*process
	mailbox
	dir, folder string
	address     string
	command     []string
	homely      bool // it needs no place of its own
}

// The users of the servers, who exist only in that /etc.
const (
	opensmtpdUser = 64101 + iota
	opensmtpqUser
	courierUser
	smmtaUser
	smmspUser
)

// unpack makes what every such server needs.
func unpack(t *testing.T, name, address string) *unpacked {
	t.Helper()
	dir := filepath.Join(folder(t), "receiver")
	u := &unpacked{dir: dir, address: address, folder: filepath.Join(filepath.Dir(eximCache()), name)}
	u.log, u.kept = filepath.Join(dir, "log"), filepath.Join(dir, "kept")
	if _, err := os.Stat(u.folder); err != nil {
		t.Fatalf("%v: run \"make needs\", which unpacks it there", err)
	}
	for _, sub := range []string{"", "etc", "var", "var/spool", "var/lib", "var/mail", "kept"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var users, groups strings.Builder
	for name, id := range map[string]int{
		"opensmtpd": opensmtpdUser, "opensmtpq": opensmtpqUser, "courier": courierUser, "smmta": smmtaUser, "smmsp": smmspUser,
	} {
		fmt.Fprintf(&users, "%s:x:%d:%d::/var/lib/opensmtpd/empty:/bin/false\n", name, id, id)
		fmt.Fprintf(&groups, "%s:x:%d:\n", name, id)
	}
	hostUsers, err := os.ReadFile("/etc/passwd")
	hostGroups, err1 := os.ReadFile("/etc/group")
	if err := errors.Join(err, err1,
		os.Chown(u.kept, nobody, nobody), os.Chmod(filepath.Join(dir, "var/mail"), fs.ModeSticky|0o777),
		os.Symlink("/run", filepath.Join(dir, "var/run")),
		forks.WriteFile(filepath.Join(dir, "keep"), []byte(keeper), 0o755),
		write(filepath.Join(dir, "etc/passwd"), users.String()+string(hostUsers)),
		write(filepath.Join(dir, "etc/group"), groups.String()+string(hostGroups)),
		write(filepath.Join(dir, "etc/nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n"),
		write(filepath.Join(dir, "etc/hosts"), "127.0.0.1 localhost\n"),
		write(filepath.Join(dir, "etc/resolv.conf"), ""),
		write(filepath.Join(dir, "etc/mailname"), "receiver.e2e.example\n"),
		write(filepath.Join(dir, "etc/environment"), ""),
	); err != nil {
		t.Fatal(err)
	}
	return u
}

// file writes a file of the server's.
func (u *unpacked) file(t *testing.T, path, text string) {
	t.Helper()
	path = filepath.Join(u.dir, path)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), write(path, text)); err != nil {
		t.Fatal(err)
	}
}

// ip and port are the address's.
func (u *unpacked) ip() string   { ip, _, _ := net.SplitHostPort(u.address); return ip }
func (u *unpacked) port() string { _, port, _ := net.SplitHostPort(u.address); return port }

// begin starts the server, and has it end with the test.
func (u *unpacked) begin(t *testing.T, command ...string) {
	t.Helper()
	u.command = command
	if err := u.start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := u.stop(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("the receiver:\n%s", tail(u.log))
		}
	})
}

// start starts the server and waits until it takes connections.
func (u *unpacked) start() error {
	if u.homely {
		return u.listening(exec.Command(u.command[0], u.command[1:]...))
	}
	cmd := again("rooted", append([]string{u.folder, u.dir}, u.command...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	return u.listening(cmd)
}

// listening starts a command and waits until it takes connections.
func (u *unpacked) listening(cmd *exec.Cmd) error {
	log, err := os.OpenFile(u.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd.Stdout, cmd.Stderr = log, log
	if err := vacant(u.address); err != nil {
		return err
	}
	if u.process, err = start(filepath.Base(u.folder), cmd); err != nil {
		return err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		switch {
		case len(socketsAt(u.address, tcpListen)) > 0:
			return nil
		case u.ended() || time.Now().After(deadline):
			return fmt.Errorf("%s does not start\n%s", u.name, tail(u.log))
		}
	}
}

// restart ends the server and starts it again.
func (u *unpacked) restart() error {
	if err := u.stop(syscall.SIGTERM); err != nil {
		return err
	}
	return u.start()
}

// rooted puts the server's files and the test's in their places and becomes
// the command.
func rooted() {
	folder, dir, args := os.Args[1], os.Args[2], os.Args[3:]
	os.Unsetenv(roleVar)
	err := errors.Join(
		unix.Mount("overlay", "/usr", "overlay", unix.MS_RDONLY, "lowerdir="+filepath.Join(folder, "usr")+":/usr"),
		unix.Mount(filepath.Join(dir, "etc"), "/etc", "", unix.MS_BIND, ""),
		unix.Mount(filepath.Join(dir, "var"), "/var", "", unix.MS_BIND, ""),
		unix.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"),
	)
	if err == nil {
		err = syscall.Exec(args[0], args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "e2e:", args, err)
	os.Exit(1)
}

// openSMTPD takes mail for everyone.
func openSMTPD(t *testing.T, address string) receiver {
	u := unpack(t, "opensmtpd", address)
	u.file(t, "etc/smtpd.conf", fmt.Sprintf(`table everyone { "@" = nobody }
listen on %s port %s hostname receiver.e2e.example
action "keep" mda "%s/keep %[3]s/kept x %%{sender} %%{rcpt}" virtual <everyone>
match from any for any action "keep"
`, u.ip(), u.port(), u.dir))
	spool := filepath.Join(u.dir, "var/spool/smtpd")
	if err := errors.Join(os.MkdirAll(filepath.Join(u.dir, "var/lib/opensmtpd/empty"), 0o755), os.Mkdir(spool, 0o711), os.Chmod(spool, 0o711)); err != nil {
		t.Fatal(err)
	}
	u.begin(t, "/usr/sbin/smtpd", "-d", "-f", "/etc/smtpd.conf")
	return receiver{count: u.mailbox.count, restart: u.restart}
}

// sendmailConfig is what Sendmail needs to take mail for everyone: one mailer,
// and the rules that choose it.
const sendmailConfig = `V10/Berkeley
Djreceiver.e2e.example
DnMAILER-DAEMON
O DaemonPortOptions=Name=MTA, Family=inet, Addr=%s, Port=%s
O QueueDirectory=/var/spool/mqueue
O PidFile=/run/sendmail.pid
O DeliveryMode=interactive
O DefaultUser=nobody
O SmtpGreetingMessage=$j Sendmail $v; $b
O OperatorChars=.:%%@!^/[]+
O EightBitMode=pass8
O DontProbeInterfaces=true
O RefuseLA=10000
O QueueLA=10000
O DelayLA=10000
HReceived: from $s by $j with $r id $i; $b
Mlocal, P=%[3]s/keep, F=lsDFMAw5:/|@qPSXmn9, S=0, R=0, U=nobody, A=keep %[3]s/kept $i $g $u
Mprog, P=/bin/sh, F=lsDFMoqeu9, A=sh -c $u
Mkeep, P=%[3]s/keep, F=DFMPS9u, S=0, R=0, U=nobody, A=keep %[3]s/kept $i $g $u
SCanonify=3
R$* < $* > $*	$@ $2
Sparse=0
R$* @ $*	$#keep $@ $2 $: $1 @ $2
R$*	$#keep $@ localhost $: $1
`

// sendmail takes mail for everyone.
func sendmail(t *testing.T, address string) receiver {
	u := unpack(t, "sendmail", address)
	u.file(t, "etc/mail/sendmail.cf", fmt.Sprintf(sendmailConfig, u.ip(), u.port(), u.dir))
	if err := os.Mkdir(filepath.Join(u.dir, "var/spool/mqueue"), 0o700); err != nil {
		t.Fatal(err)
	}
	u.begin(t, "/usr/libexec/sendmail/sendmail", "-bD", "-C/etc/mail/sendmail.cf")
	return receiver{count: u.mailbox.count, restart: u.restart, forks: true}
}

// courier takes mail for everyone, and keeps it in its queue, which nobody
// runs.
func courier(t *testing.T, address string) receiver {
	u := unpack(t, "courier", address)
	queue := filepath.Join(u.dir, "var/lib/courier")
	err := errors.Join(
		os.CopyFS(filepath.Join(u.dir, "etc/courier"), os.DirFS(filepath.Join(u.folder, "etc/courier"))),
		os.CopyFS(queue, os.DirFS(filepath.Join(u.folder, "var/lib/courier"))),
	)
	if err != nil {
		t.Fatal(err)
	}
	u.file(t, "etc/courier/me", "receiver.e2e.example\n")
	u.file(t, "etc/courier/defaultdomain", "receiver.e2e.example\n")
	u.file(t, "etc/courier/locals", "localhost\n")
	u.file(t, "etc/courier/dsnfrom", "postmaster@receiver.e2e.example\n")
	for _, top := range []string{"etc/courier", "var/lib/courier"} {
		err := filepath.WalkDir(filepath.Join(u.dir, top), func(path string, _ fs.DirEntry, err error) error {
			return errors.Join(err, os.Chown(path, courierUser, courierUser))
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	u.begin(t, "/bin/sh", "-c", fmt.Sprintf(`. /etc/courier/esmtpd
export RELAYCLIENT= BOFHCHECKDNS=0 ESMTPAUTH=
exec /usr/sbin/couriertcpd -nodnslookup -noidentlookup -user=courier -group=courier -address=%s -maxprocs=40 -maxperc=40 -maxperip=40 %s /usr/sbin/courieresmtpd`, u.ip(), u.port()))
	return receiver{
		// A control file has its name from when the message was accepted.
		count: func(t *testing.T, to string) (n int) {
			t.Helper()
			filepath.WalkDir(queue, func(path string, entry fs.DirEntry, err error) error {
				if err == nil && entry.Type().IsRegular() && strings.HasPrefix(entry.Name(), "C") {
					text, _ := os.ReadFile(path)
					if strings.Contains(string(text), "\nr"+to+"\n") {
						n++
					}
				}
				return nil
			})
			return n
		},
		restart: u.restart, forks: true,
	}
}

// aiosmtpdScript is a server of a few lines, as its users write one.
const aiosmtpdScript = `
import asyncio, itertools, os, sys
from aiosmtpd.smtp import SMTP

class Keep:
    number = itertools.count()
    async def handle_DATA(self, server, session, envelope):
        for to in envelope.rcpt_tos:
            name = "%d.%d" % (os.getpid(), next(self.number))
            part = os.path.join(sys.argv[3], "." + name)
            with open(part, "wb") as f:
                f.write(b"%s\n%s\n%s\n" % (name.encode(), envelope.mail_from.encode(), to.encode()) + envelope.content)
            os.rename(part, os.path.join(sys.argv[3], name))
        return "250 2.0.0 kept"

async def main():
    server = await asyncio.get_running_loop().create_server(lambda: SMTP(Keep(), hostname="receiver.e2e.example"), sys.argv[1], int(sys.argv[2]))
    await server.serve_forever()

asyncio.run(main())
`

// aiosmtpd takes mail for everyone.
func aiosmtpd(t *testing.T, address string) receiver {
	u := unpack(t, "aiosmtpd", address)
	u.file(t, "server.py", aiosmtpdScript)
	u.begin(t, "/usr/bin/python3", filepath.Join(u.dir, "server.py"), u.ip(), u.port(), u.kept)
	return receiver{count: u.mailbox.count, restart: u.restart}
}

// harakaPlugin takes mail for everyone.
const harakaPlugin = `
const fs = require('node:fs'), path = require('node:path')
const bare = (address) => address.format().slice(1, -1)
let number = 0
exports.hook_rcpt = (next) => next(OK)
exports.hook_queue = (next, connection) => {
  const txn = connection.transaction
  txn.message_stream.get_data((text) => {
    for (const to of txn.rcpt_to) {
      const name = process.pid + '.' + number++, part = path.join(process.env.KEPT, '.' + name)
      fs.writeFileSync(part, [name, bare(txn.mail_from), bare(to), text].join('\n'))
      fs.renameSync(part, path.join(process.env.KEPT, name))
    }
    next(OK)
  })
}
`

// haraka takes mail for everyone.
func haraka(t *testing.T, address string) receiver {
	u := unpack(t, "haraka", address)
	program := filepath.Join(u.folder, "node_modules/Haraka")
	if err := os.CopyFS(filepath.Join(u.dir, "config"), os.DirFS(filepath.Join(program, "config"))); err != nil {
		t.Fatal(err)
	}
	u.file(t, "config/smtp.ini", fmt.Sprintf("listen=%s\nnodes=0\n", address))
	u.file(t, "config/plugins", "keep\n")
	u.file(t, "config/me", "receiver.e2e.example\n")
	u.file(t, "plugins/keep.js", harakaPlugin)
	u.homely = true
	u.begin(t, "env", "KEPT="+u.kept, "node", filepath.Join(program, "bin/haraka"), "-c", u.dir)
	return receiver{count: u.mailbox.count, restart: u.restart}
}
