package e2e

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// allReceivers is for "make receivers"; "make test" does without Haraka, which
// is npm's and not Debian's.
var allReceivers = flag.Bool("receivers", false, "deliver to Haraka, too")

// receiver is a mail server of some make that takes mail for everyone.
type receiver struct {
	// count tells how many messages it has for a recipient.
	count func(t *testing.T, to string) int
	// restart ends it and starts it again. Where each connection has a
	// process of its own, that may live on until its client is done.
	restart func() error
	// forks says that each connection has a process of its own.
	forks bool
}

var receivers = map[string]func(t *testing.T, address string) receiver{
	"Postfix":   postfixReceiver,
	"Exim":      eximReceiver,
	"go-smtp":   goSMTPReceiver,
	"OpenSMTPD": openSMTPD,
	"Sendmail":  sendmail,
	"Courier":   courier,
	"aiosmtpd":  aiosmtpd,
}

// Real servers of all makes, to which messages go in all ways of sending: cold
// and warm, after the server was started again, and over a connection that ends
// when the message has left and nothing was said to it. Every message arrives
// at the first try, and once. With BDAT in one flight the first one has NOOP
// after it.
func TestRealReceivers(t *testing.T) {
	t.Parallel()
	w := lab(t)
	d := startDaemon(t, settings{transport: `
    overrides:
      - {match: .waiting.example, chunking: waiting}
      - {match: .off.example, chunking: "off"}
`})
	makes := receivers
	if *allReceivers {
		makes["Haraka"] = haraka
	}
	for name, begin := range makes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, err := w.host(w.newDomain("receivers"))
			if err != nil {
				t.Fatal(err)
			}
			r := begin(t, address)
			for _, mode := range []string{"pipelined", "waiting", "off"} {
				domain := w.newDomain(mode)
				ip, _, _ := strings.Cut(address, ":")
				if err := w.dns.Add(fmt.Sprintf("%[1]s. MX 10 mx.%[1]s.\nmx.%[1]s. A %[2]s\n", domain, ip)); err != nil {
					t.Fatal(err)
				}
				(&correspondence{receiver: r, d: d, mode: mode, domain: domain, address: address}).run(t)
			}
		})
	}
}

// correspondence is what one receiver gets in one way of sending.
type correspondence struct {
	receiver
	d                     *daemon
	mode, domain, address string
	sent, reused          int
}

func (c *correspondence) run(t *testing.T) {
	cold, warm := 3, 2
	if c.mode == "pipelined" {
		cold, warm = 25, 22 // conn_reuse_limit is 10
	}
	for range cold {
		c.send(t)
	}
	if c.reused != warm {
		t.Errorf("%s: %d of %d messages went over a warm connection, want %d", c.mode, c.reused, cold, warm)
	}
	if c.forks {
		c.end(t)
		c.send(t)
	}
	if err := c.restart(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		c.send(t)
	}
	for i := range c.sent {
		if n := c.count(t, c.to(i)); n != 1 {
			t.Errorf("%s: message %d arrived %d times", c.mode, i, n)
		}
	}
}

func (c *correspondence) to(i int) string { return fmt.Sprintf("r%d@%s", i, c.domain) }

// call starts the next message on its way.
func (c *correspondence) call(t *testing.T) (call *call, to string) {
	t.Helper()
	to = c.to(c.sent)
	c.sent++
	return mxpipe(t, c.d, strings.NewReader("Subject: a note\n\nThis is all.\n"), "-f", "a@"+keepDomain, to), to
}

// arrived waits until a message was taken at its first try.
func (c *correspondence) arrived(t *testing.T, call *call, to string) {
	t.Helper()
	r := call.result(t)
	if r.exit != 0 || !strings.HasPrefix(r.line, "2.") {
		t.Fatalf("%s, %s: %s", c.mode, to, r)
	}
	if strings.Contains(r.line, "reused") {
		c.reused++
	}
	await(t, "mail for "+to, func() (int, bool) {
		n := c.count(t, to)
		return n, n > 0
	})
}

func (c *correspondence) send(t *testing.T) {
	t.Helper()
	call, to := c.call(t)
	c.arrived(t, call, to)
}

// end sends a message over the warm connection, whose process dies when it has
// come to the kernel there and nothing was read of it.
func (c *correspondence) end(t *testing.T) {
	t.Helper()
	var owners []int
	for _, s := range socketsAt(c.address, tcpEstablished) {
		owners = append(owners, s.owners()...)
	}
	if owners == nil {
		t.Fatalf("%s: no process has a connection", c.mode)
	}
	for _, pid := range owners {
		syscall.Kill(pid, syscall.SIGSTOP)
		await(t, "a process that stands still", func() (string, bool) {
			_, state, _ := stat(pid)
			return state, state == "T" || state == "Z" || state == ""
		})
	}
	call, to := c.call(t)
	// Where the connection is not among the idle ones again there is a new one.
	await(t, "a message at a frozen server", func() (string, bool) {
		for _, s := range socketsAt(c.address, tcpEstablished) {
			if s.unread > 0 {
				return "", true
			}
		}
		return "", call.ended()
	})
	for _, pid := range owners {
		syscall.Kill(pid, syscall.SIGKILL)
	}
	c.arrived(t, call, to)
}

// count tells how many messages were taken for a recipient. A server that ends
// before it has noted that it kept one keeps the same one again.
func (b mailbox) count(t *testing.T, to string) int {
	t.Helper()
	taken := map[string]bool{}
	for _, a := range b.arrivals(t, to) {
		taken[a.queueID+string(a.text)] = true
	}
	return len(taken)
}

func postfixReceiver(t *testing.T, address string) receiver {
	p, err := newPostfix(filepath.Join(folder(t), "receiver"), "receiver", address, `
default_transport = keep
service_throttle_time = 1s
`, "") // the time that a service waits one of whose processes was killed
	if err != nil {
		t.Fatal(err)
	}
	return receiver{p.mailbox.count, restarting(t, p.close, func() error { return p.run() }), true}
}

func eximReceiver(t *testing.T, address string) receiver {
	x, err := newExim(filepath.Join(folder(t), "receiver"), "receiver", address, eximConfig{routers: "\nall:\n  driver = accept\n  transport = keep\n"})
	if err != nil {
		t.Fatal(err)
	}
	return receiver{x.mailbox.count, restarting(t, x.close, func() error { return x.start("receiver") }), true}
}

// restarting has a mail server end with the test, and makes what starts it
// again.
func restarting(t *testing.T, end, start func() error) func() error {
	t.Cleanup(func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	})
	return func() error {
		if err := end(); err != nil {
			return err
		}
		return start()
	}
}

// The states of a socket, as in /proc/net/tcp.
const (
	tcpEstablished = "01"
	tcpListen      = "0A"
)

// socket is an IPv4 socket of this host.
type socket struct {
	inode  string
	unread int
}

// socketsAt lists the sockets that are bound to an address, in a state.
func socketsAt(address, state string) (found []socket) {
	ip, port, _ := strings.Cut(address, ":")
	var a, b, c, d, p int
	fmt.Sscanf(ip, "%d.%d.%d.%d", &a, &b, &c, &d)
	fmt.Sscan(port, &p)
	local := fmt.Sprintf("%02X%02X%02X%02X:%04X", d, c, b, a, p)
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		text, _ := os.ReadFile(table)
		for line := range strings.Lines(string(text)) {
			f := strings.Fields(line)
			// In a socket for both families it is the end of the address.
			if len(f) > 9 && strings.HasSuffix(f[1], local) && f[3] == state {
				_, unread, _ := strings.Cut(f[4], ":")
				n, _ := strconv.ParseInt(unread, 16, 64)
				found = append(found, socket{f[9], int(n)})
			}
		}
	}
	return found
}

// vacant waits until nobody listens at an address. What a mail server has
// started may listen for a moment longer than the server itself: that is ended
// by a signal of its own, and the start of the next server waits for it.
func vacant(address string) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		left := socketsAt(address, tcpListen)
		if len(left) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v still listen at %s", left[0].owners(), address)
		}
	}
}

// owners are the processes that have the socket.
func (s socket) owners() (pids []int) {
	for _, pid := range processes() {
		fds, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, fd := range fds {
			if to, _ := os.Readlink(fd); to == "socket:["+s.inode+"]" {
				pids = append(pids, pid)
				break
			}
		}
	}
	return pids
}
