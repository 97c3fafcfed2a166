package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/testlog"
	"github.com/mxpipe/mxpipe/internal/lab/world"
	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd"
	"github.com/mxpipe/mxpipe/policyd/config"
	"github.com/mxpipe/mxpipe/policyd/doctor"
	"github.com/mxpipe/mxpipe/policyd/logging"
)

// causes is an internet in which much is broken, and mxpolicyd in it.
type causes struct {
	*world.World
	roots     string // their file
	hosts     atomic.Int32
	overrides strings.Builder
	*daemon   // of most set-ups
}

func newCauses(t *testing.T) *causes {
	t.Helper()
	w, err := world.Start(world.Domains()...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Stop)
	c := &causes{World: w, roots: filepath.Join(t.TempDir(), "roots.pem")}
	if err := w.Authority.WriteRoots(c.roots); err != nil {
		t.Fatal(err)
	}
	return c
}

// add adds a domain, with lines of an override for it.
func (c *causes) add(t *testing.T, d world.Domain, override string) {
	t.Helper()
	if err := c.Add(d); err != nil {
		t.Fatal(err)
	}
	if override != "" {
		fmt.Fprintf(&c.overrides, "      - {match: %s, %s}\n", d.Name, override)
	}
}

// address gives an address of no server of the world.
func (c *causes) address() string {
	n := c.hosts.Add(1)
	return fmt.Sprintf("127.1.%d.%d", n/250, n%250+1)
}

// listen starts a mail server beside those of the world, and gives its address.
func (c *causes) listen(t *testing.T, behaviour mx.Behaviour) (addr string) {
	t.Helper()
	c.atFreeAddress(t, func(at string) error {
		server, err := mx.Start(mx.Options{Addr: fmt.Sprintf("%s:%d", at, c.Port()), Behaviour: behaviour})
		if err == nil {
			addr = at
			t.Cleanup(func() { server.Stop() })
		}
		return err
	})
	return addr
}

// atFreeAddress tries one address after the other: somebody else may have the
// world's port at one.
func (c *causes) atFreeAddress(t *testing.T, try func(addr string) error) {
	t.Helper()
	err := error(syscall.EADDRINUSE)
	for n := 0; n < 100 && errors.Is(err, syscall.EADDRINUSE); n++ {
		err = try(c.address())
	}
	if err != nil {
		t.Fatal(err)
	}
}

// swallow has a port with a full backlog, where the kernel drops SYNs.
func (c *causes) swallow(t *testing.T) (addr string) {
	t.Helper()
	c.atFreeAddress(t, func(at string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		addr = at
		to := &unix.SockaddrInet4{Port: c.Port(), Addr: netip.MustParseAddr(addr).As4()}
		if err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err == nil {
			err = unix.Bind(fd, to)
		}
		if err == nil {
			err = unix.Listen(fd, 0)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		return nil
	})
	for failed := 0; failed < 2; { // they are never accepted
		conn, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, c.Port()), 300*time.Millisecond)
		if err != nil {
			failed++
			continue
		}
		t.Cleanup(func() { conn.Close() })
	}
	return addr
}

// forward starts a resolver that hands on what the world's says, changed.
func (c *causes) forward(t *testing.T, change func(reply *dns.Msg)) (addr string) {
	t.Helper()
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, query *dns.Msg) {
		client := dns.Client{Net: "tcp", Timeout: time.Minute}
		reply, _, err := client.Exchange(query, c.Resolver())
		if err != nil {
			reply = new(dns.Msg).SetRcode(query, dns.RcodeServerFailure)
		}
		change(reply)
		// A client that went away is no concern of the server.
		_ = w.WriteMsg(reply)
	})
	packets, listener, err := listenDNS()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []*dns.Server{{PacketConn: packets, Handler: handler}, {Listener: listener, Handler: handler}} {
		started, ended := make(chan struct{}), make(chan struct{})
		s.NotifyStartedFunc = func() { close(started) }
		go func() {
			defer close(ended)
			_ = s.ActivateAndServe()
		}()
		<-started
		t.Cleanup(func() {
			_ = s.Shutdown()
			<-ended
		})
	}
	return packets.LocalAddr().String()
}

// listenDNS finds a port that is free for UDP and for TCP.
func listenDNS() (packets net.PacketConn, listener net.Listener, err error) {
	for range 50 {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, nil, err
		}
		if packets, err = net.ListenPacket("udp", listener.Addr().String()); err == nil {
			return packets, listener, nil
		}
		listener.Close()
	}
	return nil, nil, err
}

// daemon is an mxpolicyd that runs within the test.
type daemon struct {
	dir, config string
	logged      *testlog.Log
}

// start starts a daemon that asks a resolver; check has it look whether that is
// fit.
func (c *causes) start(t *testing.T, resolver string, check bool) *daemon {
	t.Helper()
	d := &daemon{dir: t.TempDir(), logged: testlog.New()}
	d.config = file(t, fmt.Sprintf(`hostname: client.example
state_dir: %[1]s/state
dns: {servers: ["%[2]s"], timeout: 20s, attempts: 1}
listen: {pipe: {path: %[1]s/pipe.sock, mode: "0600"}, admin: {path: %[1]s/admin.sock}}
replies: [{match: "slow down", do: {pause: 30m, scope: domain}}]
transports:
  default:
    port: %[3]d
    tls_client: {root_ca: [%[4]s]}
    mx_auth: {dnssec: {}, dane: {}, mtasts: {https_port: %[5]d}}
    overrides:
      - {match: nothing.example, port: 25}
%[6]s
`, d.dir, resolver, c.Port(), c.roots, c.HTTPSPort(), &c.overrides))
	cfg, err := config.Load(d.config, config.System())
	if err != nil {
		t.Fatal(err)
	}
	o := policyd.Options{Config: cfg, Log: logging.New(config.Log{Level: slog.LevelInfo}, d.logged), Version: "test"}
	if check {
		o.CheckDNS = doctor.Host{Etc: d.dir, Signed: ".", Slow: slow / 2}.DNS
	}
	running, err := policyd.New(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- running.Serve(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Log(d.logged)
		}
	})
	for _, socket := range []string{"pipe", "admin"} {
		d.logged.Wait(t, "msg=serving", "socket="+socket)
	}
	if check {
		d.logged.Wait(t, "the DNS is not what it should be")
	}
	return d
}

// slow is how long a slow resolver takes.
const slow = 200 * time.Millisecond

// send sends a message and gives the answer, or why there is none.
func (d *daemon) send(domain string, change func(*wire.Envelope)) string {
	conn, err := net.Dial("unix", d.dir+"/pipe.sock")
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	e := wire.Envelope{Sender: "s@sender.example", QueueID: domain, Recipients: []wire.Recipient{{Address: "b@" + domain}}}
	if change != nil {
		change(&e)
	}
	raw, err := wire.AppendEnvelope(nil, &e)
	if err != nil {
		return err.Error()
	}
	if _, err := conn.Write(wire.AppendCommit(wire.AppendData(raw, []byte(message)))); err != nil {
		return err.Error()
	}
	a, err := wire.ReadAnswer(conn)
	if err != nil {
		return err.Error()
	}
	return a.Code + " " + a.Text
}

const message = "Subject: a test\n\nHello.\n"

// secret writes a password.
func secret(t *testing.T, word string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(word+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// server is the behaviour of a well-kept server, changed.
func server(change func(*mx.Behaviour)) mx.Behaviour {
	b := mx.Modern(tls.Certificate{})
	if change != nil {
		change(&b)
	}
	return b
}

// certified is the behaviour of a server with a certificate.
func (c *causes) certified(t *testing.T, name string) mx.Behaviour {
	t.Helper()
	cert, err := c.Authority.Issue(ca.For(name))
	if err != nil {
		t.Fatal(err)
	}
	b := mx.Modern(cert)
	b.Hostname = name
	return b
}

// says has a server say something at a stage instead of what is due.
func says(stage mx.Stage, reply string) mx.Behaviour {
	return server(func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{stage: {Reply: reply}} })
}

// hangs has a server be silent from a stage on.
func hangs(stage mx.Stage) mx.Behaviour {
	return server(func(b *mx.Behaviour) { b.At = map[mx.Stage]mx.Action{stage: {Hold: make(chan struct{})}} })
}
