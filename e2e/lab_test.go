package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"golang.org/x/sync/errgroup"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// world is what the tests share.
type world struct {
	*workdir
	bins
	dns *labdns.Server
	ca  *ca.Authority
	// at which every mail server listens, each on an address of its own
	port     int
	reserved *ports.Reservation
	number   atomic.Int32
	daemon   *daemon
	out      *postfix // sends by mxpipe
	in       *postfix // receives
	exim     *exim    // sends by mxpipe
}

// The Postfix that receives takes mail for this domain; the one that sends
// keeps mail for keepDomain, such as bounces.
const (
	inDomain   = "in.e2e.example"
	keepDomain = "keep.e2e.example"
)

var shared struct {
	once  sync.Once
	world *world
	err   error
}

// lab gives what the tests share, and makes it for the first that asks.
func lab(t *testing.T) *world {
	t.Helper()
	shared.once.Do(func() {
		if shared.err = fit(); shared.err == nil {
			shared.world, shared.err = newWorld()
		}
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.world
}

// fit says why these tests cannot run here.
func fit() error {
	if os.Geteuid() != 0 {
		return errors.New("these tests run Postfix, which works only for root: run them as root, or \"make unit\" without them")
	}
	for _, program := range []string{"postfix", "postconf", "postqueue", "sendmail", "dovecot"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%w: run \"make needs\", or \"make unit\" without these tests", err)
		}
	}
	if _, err := os.Stat(filepath.Join(eximCache(), "usr/sbin/exim4")); err != nil {
		return fmt.Errorf("%w: run \"make needs\", which unpacks Exim there, or \"make unit\" without these tests", err)
	}
	return nil
}

// newWorld builds and starts everything. What was started when it fails is
// ended by closeLab.
func newWorld() (*world, error) {
	w := &world{}
	shared.world = w
	var err error
	if w.workdir, err = newWorkdir(); err != nil {
		return w, err
	}
	if w.bins, err = build(w.dir); err != nil {
		return w, err
	}
	if w.dns, err = labdns.Start(); err != nil {
		return w, err
	}
	if w.ca, err = ca.New(ca.Options{}); err != nil {
		return w, err
	}
	if w.reserved, err = ports.Reserve(); err != nil {
		return w, err
	}
	w.port = w.reserved.Port()
	dir := filepath.Join(w.dir, "daemon")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return w, err
	}
	if w.daemon, err = w.newDaemon(dir, settings{}); err != nil {
		return w, err
	}
	var all errgroup.Group
	all.Go(func() error { return w.daemon.start(w, settings{}) })
	all.Go(w.startIn)
	all.Go(w.startOut)
	all.Go(w.startExim)
	return w, all.Wait()
}

// closeLab ends what the tests shared, and reports what should not have
// happened.
func closeLab() error {
	w := shared.world
	if w == nil {
		return nil
	}
	var errs []error
	for _, p := range []*postfix{w.out, w.in} {
		if p != nil && p.process != nil {
			errs = append(errs, p.close())
		}
	}
	if w.exim != nil && w.exim.process != nil {
		errs = append(errs, w.exim.close())
	}
	if w.daemon != nil && w.daemon.process != nil {
		errs = append(errs, w.daemon.close())
	}
	if w.dns != nil {
		w.dns.Stop()
	}
	if w.workdir != nil {
		errs = append(errs, w.workdir.leftovers(), w.workdir.close())
	}
	return errors.Join(errs...)
}

// host gives the next address and a name that leads there: the one mail server
// of a domain.
func (w *world) host(domain string) (address string, err error) {
	n := w.number.Add(1)
	ip := fmt.Sprintf("127.25.%d.%d", n/250, n%250+1)
	return fmt.Sprintf("%s:%d", ip, w.port), w.dns.Add(fmt.Sprintf("%[1]s. MX 10 mx.%[1]s.\nmx.%[1]s. A %[2]s\n", domain, ip))
}

// unique makes a name that no other test has used, however often the tests run.
func unique(t *testing.T, name string) string {
	t.Helper()
	return fmt.Sprintf("%s.%d", name, lab(t).number.Add(1))
}

// newDomain makes up a domain. Postfix brings mail for it to the transport of
// that name.
func (w *world) newDomain(transport string) string {
	return fmt.Sprintf("r%d.%s.example", w.number.Add(1), transport)
}

// remote starts a mail server of the lab for a domain of its own, to which
// Postfix delivers by the transport named.
func remote(t *testing.T, transport string, behaviour mx.Behaviour) (*mx.Server, string) {
	t.Helper()
	w := lab(t)
	domain := w.newDomain(transport)
	address, err := w.host(domain)
	if err != nil {
		t.Fatal(err)
	}
	behaviour.Hostname = "mx." + domain
	s, err := mx.Start(mx.Options{Addr: address, Behaviour: behaviour})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Stop()
		for _, v := range s.Violations() {
			t.Errorf("mxpolicyd broke a rule: %s", v)
		}
	})
	return s, domain
}

// modern is the behaviour of a well-kept server.
func modern(t *testing.T) mx.Behaviour {
	t.Helper()
	cert, err := lab(t).ca.Issue(ca.For("mx.lab.example"))
	if err != nil {
		t.Fatal(err)
	}
	return mx.Modern(cert)
}

// startIn starts the Postfix that receives.
func (w *world) startIn() error {
	address, err := w.host(inDomain)
	if err != nil {
		return err
	}
	cert, err := w.ca.Issue(ca.For("mx." + inDomain))
	if err != nil {
		return err
	}
	certFile, keyFile := filepath.Join(w.dir, "in.crt"), filepath.Join(w.dir, "in.key")
	if err := ca.WritePair(cert, certFile, keyFile); err != nil {
		return err
	}
	w.in, err = newPostfix(filepath.Join(w.dir, "in"), "in", address, fmt.Sprintf(`
smtpd_tls_security_level = may
smtpd_tls_chain_files = %s, %s
smtpd_tls_loglevel = 1
smtpd_tls_received_header = yes
default_transport = keep
`, keyFile, certFile), "")
	return err
}

// startOut starts the Postfix that sends, with the very lines of
// contrib/postfix. Each transport beside mxpipe is that of contrib with one
// thing changed, and serves the domains below NAME.example.
func (w *world) startOut() error {
	mainCF, err := os.ReadFile("../contrib/postfix/main.cf.mxpipe")
	if err != nil {
		return err
	}
	entry, err := w.masterEntry()
	if err != nil {
		return err
	}
	ip, err := w.host("out.e2e.example")
	if err != nil {
		return err
	}
	// A command that panics, without the variable that contrib exports: mxpipe
	// itself sees to how it dies.
	panicking, err := w.script("panicking", "unset GOTRACEBACK && exec "+w.panicking)
	if err != nil {
		return err
	}
	// A command whose user may have no further process, and so mxpipe no
	// thread: only that variable helps.
	starved, err := w.script("starved", "ulimit -p 1 && exec "+w.mxpipe)
	if err != nil {
		return err
	}
	variants := []struct{ name, old, new string }{
		{"many", "", ""},
		{"usage", "--queue-id", "--queue-identity"},
		{"slow", "--queue-id", "--timeout 3s --queue-id"},
		{"absent", w.daemon.socket, w.daemon.socket + ".absent"},
		{"panicking", w.mxpipe, panicking},
		{"starved", w.mxpipe, starved},
		{"orcpt", "-f ${sender}", "--orcpt=rfc822;${original_recipient} -f ${sender}"},
	}
	table := "/@" + regexp.QuoteMeta(keepDomain) + "$/ keep:\n"
	master, limits := entry, "many_destination_recipient_limit = 10\n"
	for _, v := range variants {
		if !strings.Contains(entry, v.old) || !strings.Contains(entry, "\nmxpipe ") {
			return fmt.Errorf("contrib/postfix/master.cf.mxpipe has no %q to change", v.old)
		}
		text := strings.Replace(entry, "\nmxpipe ", "\n"+v.name+" ", 1)
		master += strings.Replace(text, v.old, v.new, 1)
		table += fmt.Sprintf("/@.*\\.%[1]s\\.example$/ %[1]s:\n", v.name)
		if v.name != "many" {
			limits += v.name + "_destination_recipient_limit = 1\n"
		}
	}
	lmtp, limit, err := lmtpEntry()
	if err != nil {
		return err
	}
	master += lmtp
	limits += limit
	table += "/@.*\\.lmtp\\.example$/ " + w.daemon.lmtpNexthop() + "\n"
	transports := filepath.Join(w.dir, "transports")
	if err := write(transports, table); err != nil {
		return err
	}
	w.out, err = newPostfix(filepath.Join(w.dir, "out"), "out", ip, string(mainCF)+limits+`
default_transport = mxpipe
transport_maps = regexp:`+transports+`
slow_time_limit = 60s
`, master)
	return err
}

// script makes a program of a shell command, to which its arguments are added.
func (w *world) script(name, command string) (path string, err error) {
	path = filepath.Join(w.dir, name)
	return path, forks.WriteFile(path, []byte("#!/bin/sh\n"+command+` "$@"`+"\n"), 0o755)
}

// masterEntry is the entry of contrib with this test's paths and user.
func (w *world) masterEntry() (string, error) {
	text, err := os.ReadFile("../contrib/postfix/master.cf.mxpipe")
	if err != nil {
		return "", err
	}
	entry := string(text)
	for _, change := range [][2]string{
		{"/usr/bin/mxpipe ", w.mxpipe + " --socket " + w.daemon.socket + " "},
		{"user=mxpipe ", "user=nobody "},
	} {
		if strings.Count(entry, change[0]) != 1 {
			return "", fmt.Errorf("contrib/postfix/master.cf.mxpipe does not have %q once", change[0])
		}
		entry = strings.Replace(entry, change[0], change[1], 1)
	}
	return entry, nil
}

// lmtpEntry is what contrib has for LMTP, for master.cf and for main.cf.
func lmtpEntry() (master, main string, err error) {
	entry, err := os.ReadFile("../contrib/postfix/master.cf.lmtp")
	lines, err1 := os.ReadFile("../contrib/postfix/main.cf.lmtp")
	return string(entry), string(lines), errors.Join(err, err1)
}

// lmtpNexthop is what a transport table says to have Postfix go there by LMTP.
func (d *daemon) lmtpNexthop() string { return "mxlmtp:unix:" + d.lmtp }

// activate takes the listening socket of the test as systemd would hand it
// over, and becomes the command.
func activate() {
	os.Unsetenv(roleVar)
	os.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()))
	os.Setenv("LISTEN_FDS", "1")
	os.Setenv("LISTEN_FDNAMES", "pipe")
	err := syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
