package doctor

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/miekg/dns"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/leaks"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor/mailserver"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// nameServer is a resolver with habits, which may be changed while it runs. The
// zero habits, but for Rcode, are those of a bad one.
type nameServer struct {
	AD, RA, NoTCP bool
	RefusesEDNS   bool
	EDNS          uint16
	Rcode         int // to everything that is to be validated
	// what is not to be validated gets an answer all the same
	Unchecked bool
	Slow      time.Duration
	// the middle of the signatures' time; zero: there are none
	Signed  time.Time
	Records []string
}

// goodServer is as it should be.
func goodServer(now time.Time) nameServer {
	return nameServer{AD: true, RA: true, EDNS: 1232, Signed: now, Records: []string{
		". 60 IN SOA a.root. b.root. 1 2 3 4 5", "mx.example.org. 60 IN A 192.0.2.25", "25.2.0.192.in-addr.arpa. 60 IN PTR mx.example.org.",
	}}
}

// serve runs a name server until the end of the test.
func (n *nameServer) serve(t *testing.T) (addr string) {
	t.Helper()
	udp, tcp, err := ports.ListenBoth(ports.AddressFor(t))
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		if _, overTCP := w.RemoteAddr().(*net.TCPAddr); overTCP && n.NoTCP {
			w.Close()
			return
		}
		time.Sleep(n.Slow)
		w.WriteMsg(n.answer(q))
	})
	for _, s := range []*dns.Server{{PacketConn: udp, Handler: handler}, {Listener: tcp, Handler: handler}} {
		started := make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			s.Shutdown()
			<-done
		})
	}
	return udp.LocalAddr().String()
}

func (n *nameServer) answer(q *dns.Msg) *dns.Msg {
	r := new(dns.Msg).SetReply(q)
	r.RecursionAvailable, r.AuthenticatedData = n.RA, n.AD && !q.CheckingDisabled
	if n.RefusesEDNS && q.IsEdns0() != nil {
		r.Rcode, r.AuthenticatedData = dns.RcodeFormatError, false
		return r
	}
	if n.EDNS > 0 {
		r.SetEdns0(n.EDNS, true)
	}
	if n.Rcode != dns.RcodeSuccess && !(n.Unchecked && q.CheckingDisabled) {
		r.Rcode, r.AuthenticatedData = n.Rcode, false
		return r
	}
	known := false
	for _, text := range n.Records {
		rr, err := dns.NewRR(text)
		if err != nil {
			panic(err)
		}
		if !strings.EqualFold(rr.Header().Name, q.Question[0].Name) {
			continue
		}
		known = true
		if rr.Header().Rrtype == q.Question[0].Qtype {
			r.Answer = append(r.Answer, rr)
		}
	}
	if !known {
		r.Rcode = dns.RcodeNameError
	}
	if len(r.Answer) > 0 && !n.Signed.IsZero() {
		r.Answer = append(r.Answer, &dns.RRSIG{
			Hdr:         dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeRRSIG, Class: dns.ClassINET, Ttl: 60},
			TypeCovered: q.Question[0].Qtype, Algorithm: dns.ED25519, SignerName: ".", Signature: "c2lnbmF0dXJl",
			Inception: uint32(n.Signed.Add(-7 * 24 * time.Hour).Unix()), Expiration: uint32(n.Signed.Add(7 * 24 * time.Hour).Unix()),
		})
	}
	return r
}

// patient is a host that is fit, until a test makes it ill.
type patient struct {
	Host
	t       *testing.T
	dir     string
	dns     nameServer
	yaml    string
	main    string // Postfix's main.cf and master.cf
	master  string
	daemon  int // the user that it runs as
	running bool
	units   []Unit
	options Options
	open    map[string]*net.UnixListener
}

// fit gives a host with nothing wrong.
func fit(t *testing.T) *patient {
	t.Helper()
	// A socket's path has 107 bytes at most, and a test's own directory can be
	// longer than that.
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := &patient{t: t, dir: dir, daemon: os.Getuid(), running: true, open: map[string]*net.UnixListener{}}
	now := time.Now()
	p.dns = goodServer(now)
	p.Host = Host{
		Etc: dir, Signed: ".", Slow: time.Hour, Now: now, UID: os.Getuid(),
		Synchronised: func() (bool, error) { return true, nil },
		Limits: func(string) (mailserver.Limits, bool) {
			return mailserver.Limits{AddressSpace: math.MaxUint64, Data: math.MaxUint64}, true
		},
		Roots: func() (*x509.CertPool, error) {
			a, err := ca.New(ca.Options{})
			if err != nil {
				return nil, err
			}
			return a.Pool(), nil
		},
		Interfaces: func() ([]netip.Addr, error) { return []netip.Addr{netip.MustParseAddr("192.0.2.25")}, nil },
		Listening:  func() (map[string]bool, error) { return listening("/proc/net/unix") },
		Units:      func(context.Context) []Unit { return p.units },
		Filesystem: func(string) (Filesystem, error) { return Filesystem{Free: 1 << 40}, nil },
		Postfix:    func(context.Context) (string, string, error) { return p.main, p.master, nil },
		Exim:       func(context.Context) (mailserver.EximOutput, error) { return mailserver.EximOutput{}, fs.ErrNotExist },
		Daemon:     func(context.Context) (int, bool) { return p.daemon, p.running },
	}
	p.must(os.Chmod(dir, 0o755), os.Mkdir(dir+"/state", 0o700),
		os.WriteFile(dir+"/passwd", fmt.Appendf(nil, "root:x:0:0::/:/bin/sh\nme:x:%d:4243::/:/bin/sh\npostfix:x:4:4::/:/bin/sh\nmxpipe:x:4712:%d::/:/bin/sh\n", 4711, socketGroup()), 0o644),
		os.WriteFile(dir+"/group", fmt.Appendf(nil, "root:x:0:\nmxpipe:x:%d:postfix\nothers:x:4243:\n", socketGroup()), 0o644))
	p.listen("pipe", 0o660)
	p.listen("admin", 0o600)
	p.yaml = fmt.Sprintf(`hostname: mx.example.org
state_dir: %[1]s/state
dns: {servers: [DNS], timeout: 20s}
listen: {pipe: {path: %[1]s/pipe}, admin: {path: %[1]s/admin}}
`, dir)
	p.main = "compatibility_level = 3.6\ndefault_transport = mxpipe\nenable_long_queue_ids = yes\n" + p.contrib("main.cf.mxpipe")
	p.master = strings.Replace(p.contrib("master.cf.mxpipe"), "--queue-id", "--socket "+dir+"/pipe --queue-id", 1)
	return p
}

func (p *patient) must(errs ...error) {
	p.t.Helper()
	for _, err := range errs {
		if err != nil {
			p.t.Fatal(err)
		}
	}
}

// contrib reads a file that is shipped, without its comments.
func (p *patient) contrib(name string) string {
	p.t.Helper()
	text, err := os.ReadFile("../../contrib/postfix/" + name)
	p.must(err)
	var b strings.Builder
	for line := range strings.Lines(string(text)) {
		if !strings.HasPrefix(line, "#") {
			b.WriteString(line)
		}
	}
	return b.String()
}

// listen opens a socket.
func (p *patient) listen(name string, mode os.FileMode) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	l, err := net.Listen("unix", path)
	p.must(err)
	p.t.Cleanup(func() { l.Close() })
	p.open[name] = l.(*net.UnixListener)
	p.access(name, mode)
}

// loopback opens a TCP socket, and gives its address.
func (p *patient) loopback() string {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	p.t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// asks has Postfix's own smtp(8) ask for policies, in the chroot or not.
func (p *patient) asks(at, chroot string) {
	p.main = "smtp_tls_policy_maps = socketmap:" + at + ":policy\nsmtp_dns_support_level = dnssec\nsmtp_tls_security_level = dane\n" +
		"smtp_tls_mandatory_protocols = >=TLSv1.2\nsmtp_tls_CAfile = /etc/ssl/certs/ca-certificates.crt\n"
	p.master = "smtp unix - - " + chroot + " - - smtp\n"
}

// withoutGroup takes Postfix's user out of the sockets' group.
func (p *patient) withoutGroup() {
	p.t.Helper()
	p.must(os.WriteFile(p.dir+"/group", fmt.Appendf(nil, "root:x:0:\nmxpipe:x:%d:\nothers:x:4243:\n", socketGroup()), 0o644))
}

// collector opens a socket in the place of the TLSRPT collector's, with its
// mode; closed, it leaves the file behind.
func (p *patient) collector(network string, mode os.FileMode) io.Closer {
	p.t.Helper()
	at := &net.UnixAddr{Name: filepath.Join(p.dir, "collector"), Net: network}
	var c io.Closer
	if network == "unixgram" {
		conn, err := net.ListenUnixgram(network, at)
		p.must(err)
		c = conn
	} else {
		l, err := net.ListenUnix(network, at)
		p.must(err)
		l.SetUnlinkOnClose(false)
		c = l
	}
	p.t.Cleanup(func() { c.Close() })
	p.must(os.Chmod(at.Name, mode))
	p.yaml += "tlsrpt: {socket: " + at.Name + "}\n"
	return c
}

// reports has TLS reports sent by a mail server that refuses a command; empty:
// none.
func (p *patient) reports(refuses string) io.Closer {
	p.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	p.must(err)
	server := smtp.NewServer(reportServer{refuses})
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	p.t.Cleanup(func() { server.Close(); <-served })
	send := "report: {from: tlsrpt@example.org, send: \"" + l.Addr().String() + "\"}}\n"
	if rest, socket := strings.CutSuffix(p.yaml, "/collector}\n"); socket {
		p.yaml = rest + "/collector, " + send
	} else {
		p.yaml += "tlsrpt: {" + send
	}
	return l
}

// reportServer is a mail server that refuses a command.
type reportServer struct{ refuses string }

func (s reportServer) NewSession(*smtp.Conn) (smtp.Session, error) { return s, nil }
func (reportServer) Reset()                                        {}
func (reportServer) Logout() error                                 { return nil }
func (reportServer) Data(io.Reader) error                          { return errors.New("nothing is to be sent") }

func (s reportServer) Mail(string, *smtp.MailOptions) error { return s.refuse("MAIL") }
func (s reportServer) Rcpt(string, *smtp.RcptOptions) error { return s.refuse("RCPT") }

func (s reportServer) refuse(command string) error {
	if s.refuses == command {
		return &smtp.SMTPError{Code: 550, Message: "not here"}
	}
	return nil
}

// socketGroup is the sockets' group: only root can give them any.
func socketGroup() int {
	if os.Getuid() == 0 {
		return 4242
	}
	return os.Getgid()
}

// access gives a socket its mode.
func (p *patient) access(name string, mode os.FileMode) {
	p.t.Helper()
	path := filepath.Join(p.dir, name)
	p.must(os.Chown(path, -1, socketGroup()), os.Chmod(path, mode))
}

// config reads the patient's configuration.
func (p *patient) config() (*config.Config, error) {
	server := p.dns.serve(p.t)
	return config.Parse("mxpolicyd.yaml", []byte(strings.ReplaceAll(p.yaml, "DNS", `"`+server+`"`)), config.Environment{ReadFile: os.ReadFile, ReadSecret: os.ReadFile})
}
