package dnssec

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// ErrNoUnbound means that there is no unbound on this machine. The caller says
// so and fails; nothing is skipped.
var ErrNoUnbound = errors.New("lab DNSSEC: unbound is not installed: apt-get install unbound")

// unboundStart bounds how long a new Unbound may take until it answers,
// unboundStop how long a stopped one may take to end before it is killed.
const (
	unboundStart = 20 * time.Second
	unboundStop  = 10 * time.Second
)

// Unbound is a real validating resolver that finds the lab's zones instead of
// the Internet.
type Unbound struct {
	dir     string
	program string
	port    string
	// kept while there is an Unbound
	reserved *ports.Reservation

	mu      sync.Mutex
	process *os.Process   // nil when stopped
	ended   chan struct{} // closed when the process has ended
}

// StartUnbound runs unbound in the foreground for a Server; Stop must be
// called. Configuration, trust anchor and log go into dir, a directory that
// exists. It returns as soon as Unbound answers. The error is ErrNoUnbound or
// says why it does not run, with the end of its log.
//
// Programs that know no port but 53, such as all that go by resolv.conf(5), are
// answered at the addresses also.
//
// Zones that the Server gets later are found too. Validation is as Debian
// configures it; what differs is where the root is, and that little is
// remembered for long, though Unbound remembers a zone's bogus keys for a
// minute: Restart forgets everything.
func StartUnbound(ctx context.Context, server *Server, dir string, also ...string) (*Unbound, error) {
	installed, err := exec.LookPath("unbound")
	if err != nil {
		// Users' paths often lack it.
		if installed, err = exec.LookPath("/usr/sbin/unbound"); err != nil {
			return nil, ErrNoUnbound
		}
	}
	u := &Unbound{dir: dir, program: filepath.Join(dir, "unbound-for-lab")}
	// AppArmor's profile for the installed program lets it read no
	// configuration of ours; a copy has no profile. It is not written here,
	// since a child that is started meanwhile would hold it open, and then it
	// could not run.
	if out, err := exec.CommandContext(ctx, "cp", installed, u.program).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: copying unbound: %w: %s", err, out)
	}
	if u.reserved, err = ports.Reserve(); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: %w", err)
	}
	u.port = strconv.Itoa(u.reserved.Port())
	if err := os.WriteFile(u.path("root.ds"), []byte(server.TrustAnchor()), 0o644); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: %w", err)
	}
	if err := os.WriteFile(u.path("unbound.conf"), []byte(u.config(server, also)), 0o644); err != nil {
		return nil, fmt.Errorf("lab DNSSEC: %w", err)
	}
	if err := u.Restart(ctx); err != nil {
		return nil, err
	}
	return u, nil
}

func (u *Unbound) path(name string) string { return filepath.Join(u.dir, name) }

// Addr is where Unbound listens, as host:port.
func (u *Unbound) Addr() string { return net.JoinHostPort("127.0.0.1", u.port) }

// config writes unbound.conf(5).
func (u *Unbound) config(server *Server, also []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, `server:
    interface: 127.0.0.1
    port: %[1]s
    do-ip6: no
    # Not the ports on which the lab's servers listen.
    outgoing-port-avoid: 0-32767
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "%[2]s"
    pidfile: "%[3]s"
    use-syslog: no
    logfile: ""
    verbosity: 1
    val-log-level: 2
    log-servfail: yes
    num-threads: 1
    module-config: "validator iterator"
    trust-anchor-file: "%[4]s"
    do-not-query-localhost: no
    ede: yes
    harden-dnssec-stripped: yes
    harden-glue: yes
    harden-below-nxdomain: yes
    qname-minimisation: yes
    hide-identity: yes
    hide-version: yes
    # The zones' own TTLs are short; these are for what would be kept longer.
    cache-max-ttl: 60
    cache-max-negative-ttl: 5
    val-bogus-ttl: 1
    infra-host-ttl: 1
    infra-keep-probing: yes
    # Names that Unbound would answer for by itself (RFC 6761, RFC 8375).
    unblock-lan-zones: yes
`, u.port, u.dir, u.path("unbound.pid"), u.path("root.ds"))
	for _, name := range []string{"test.", "invalid.", "home.arpa.", "onion."} {
		fmt.Fprintf(&b, "    local-zone: %q nodefault\n", name)
	}
	for _, address := range also {
		fmt.Fprintf(&b, "    interface: %s@53\n", address)
	}
	b.WriteString("remote-control:\n    control-enable: no\n")
	// One Server has all zones, so that the root's entry alone finds
	// everything. With one for each zone its NS records, whose servers listen
	// nowhere, are never followed.
	host, port, _ := net.SplitHostPort(server.Addr())
	for _, zone := range server.Zones() {
		fmt.Fprintf(&b, "stub-zone:\n    name: %q\n    stub-addr: %s@%s\n    stub-prime: no\n", zone, host, port)
	}
	return b.String()
}

// Restart runs Unbound again after a Stop, at the same address and with an
// empty cache; one that runs is stopped first.
func (u *Unbound) Restart(ctx context.Context) error {
	u.Stop()
	u.mu.Lock()
	defer u.mu.Unlock()
	log, err := os.OpenFile(u.path("unbound.log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("lab DNSSEC: %w", err)
	}
	defer log.Close()
	child := exec.Command(u.program, "-d", "-c", u.path("unbound.conf"))
	child.Stdout, child.Stderr = log, log
	dieWithParent(child)
	started, ended := make(chan error), make(chan struct{})
	go func() {
		defer close(ended)
		// The child dies with the thread that started it.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := child.Start()
		started <- err
		if err == nil {
			// How it ended is in its log.
			_ = child.Wait()
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("lab DNSSEC: %w", err)
	}
	u.process, u.ended = child.Process, ended
	if err := u.await(ctx, ended); err != nil {
		u.end()
		return fmt.Errorf("lab DNSSEC: unbound: %w; its log:\n%s", err, u.Log())
	}
	return nil
}

var errEnded = errors.New("it ended by itself")

// await asks until there is an answer, whatever it is.
func (u *Unbound) await(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, unboundStart)
	defer cancel()
	retry := time.NewTicker(20 * time.Millisecond)
	defer retry.Stop()
	query := new(dns.Msg).SetQuestion("id.server.", dns.TypeTXT)
	query.Question[0].Qclass = dns.ClassCHAOS
	client := &dns.Client{Timeout: time.Second}
	for {
		if _, _, err := client.ExchangeContext(ctx, query, u.Addr()); err == nil {
			return nil
		}
		select {
		case <-ended:
			return errEnded
		case <-ctx.Done():
			return ctx.Err()
		case <-retry.C:
		}
	}
}

// Stop ends Unbound and waits until it is gone: its port refuses datagrams and
// connections. It may be called more than once.
func (u *Unbound) Stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.end()
}

func (u *Unbound) end() {
	if u.process == nil {
		return
	}
	// The errors would say that it has ended already.
	process := u.process
	_ = process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(unboundStop, func() { _ = process.Kill() })
	<-u.ended
	kill.Stop()
	u.process = nil
}

// Log gives what Unbound has said, failed validations with their reasons among
// it; "" if that cannot be read.
func (u *Unbound) Log() string {
	text, err := os.ReadFile(u.path("unbound.log"))
	if err != nil {
		return ""
	}
	return string(text)
}
