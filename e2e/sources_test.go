package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
)

// hellos counts the messages that a server has by the name in EHLO, which tells
// the source.
func hellos(s *mx.Server) map[string]int {
	count := map[string]int{}
	for _, m := range s.Messages() {
		count[m.Hello]++
	}
	return count
}

// Mail leaves from a pool of addresses. One that this host lacks is left out,
// and warned of; one that may send five messages a day sends five, over a stop,
// a start, a kill, and a start with a torn file, after which alone it begins
// anew. Nothing is lost and nothing refused at any step.
func TestSources(t *testing.T) {
	t.Parallel()
	s := settings{transport: `    sources:
      by: message
      pool:
        - {ip: 127.9.1.1, hostname: out1.e2e.example, daily: 5}
        - {ip: 127.9.1.2, hostname: out2.e2e.example}
        - {ip: 192.0.2.77, hostname: gone.e2e.example, weight: 100}`}
	d := startDaemon(t, s)
	server, domain := remote(t, "mxpipe", modern(t))
	n := 0
	send := func(count int) {
		t.Helper()
		for range count {
			n++
			text := fmt.Sprintf("From: a@e2e.example\nSubject: %d\n\nHello.\n", n)
			r := mxpipe(t, d, strings.NewReader(text), "--queue-id", fmt.Sprint("SRC", n), "-f", "a@e2e.example", "b@"+domain).result(t)
			if r.exit != 0 {
				t.Fatalf("message %d: %v", n, r)
			}
		}
	}
	again := func(sig os.Signal) {
		t.Helper()
		if err := d.stop(sig); err != nil && sig != syscall.SIGKILL {
			t.Fatal(err)
		}
		d.told.close()
		if err := d.start(lab(t), s); err != nil {
			t.Fatal(err)
		}
	}
	counts := filepath.Join(d.state, "sources.json")
	send(4)
	d.logged(t, `source address cannot be used, and is left out until it can.*source=192\.0\.2\.77`)
	again(syscall.SIGTERM)
	send(20)
	if got := hellos(server); got["out1.e2e.example"] != 5 || got["out2.e2e.example"] != n-5 {
		t.Errorf("after a restart: %v", got)
	}
	await(t, "the counts on disk", func() (string, bool) {
		text, _ := os.ReadFile(counts)
		return string(text), strings.Contains(string(text), `"127.9.1.1":5`)
	}, d.log)
	again(syscall.SIGKILL)
	send(4)
	if got := hellos(server); got["out1.e2e.example"] != 5 {
		t.Errorf("after a kill: %v", got)
	}
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.told.close()
	if err := errors.Join(os.WriteFile(counts, []byte(`{"day":"20`), 0o600), os.Chown(counts, daemonUser, daemonUser)); err != nil {
		t.Fatal(err)
	}
	if err := d.start(lab(t), s); err != nil {
		t.Fatal(err)
	}
	d.logged(t, `how much each source sent today is not known`)
	send(20)
	if got := hellos(server); got["out1.e2e.example"] != 10 || got["out2.e2e.example"] != n-10 {
		t.Errorf("after a torn file: %v", got)
	}
}

// Mail goes through a real SOCKS5 proxy, which wants a login; it is deferred,
// in the proxy's name, while that is down, and goes when it is back. The
// password is in no log.
func TestProxy(t *testing.T) {
	t.Parallel()
	const password = "Sx5-geheim+Wort"
	port, err := ports.Reserve()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(port.Release)
	at := fmt.Sprintf("127.0.0.1:%d", port.Port())
	up := func() *process {
		t.Helper()
		p, err := start("microsocks", exec.Command("microsocks", "-i", "127.0.0.1", "-p", fmt.Sprint(port.Port()), "-u", "bob", "-P", password))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if !p.ended() {
				_ = p.stop(syscall.SIGKILL)
			}
		})
		await(t, "microsocks to listen", func() (error, bool) {
			c, err := net.Dial("tcp", at)
			if err == nil {
				c.Close()
			}
			return err, err == nil
		})
		return p
	}
	file := filepath.Join(folder(t), "password")
	if err := errors.Join(os.WriteFile(file, []byte(password+"\n"), 0o600), os.Chown(file, daemonUser, daemonUser)); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, settings{transport: fmt.Sprintf("    debug: true\n    proxy: {address: \"socks5://%s\", user: bob, password_file: %s}", at, file)})
	server, domain := remote(t, "mxpipe", modern(t))
	send := func() result {
		t.Helper()
		return mxpipe(t, d, strings.NewReader("From: a@e2e.example\nSubject: x\n\nHello.\n"), "-f", "a@e2e.example", "b@"+domain).result(t)
	}
	down := "the SOCKS5 proxy " + at + ": " + at + ": connection refused"
	if r := send(); r.exit != 75 || r.code() != "4.3.0" || !strings.Contains(r.line, down) {
		t.Errorf("while it is down: %v", r)
	}
	up()
	// It is left alone for some seconds.
	await(t, "mail to go through the proxy", func() (result, bool) {
		r := send()
		if r.exit != 0 && (r.exit != 75 || r.code() != "4.3.0") {
			t.Fatalf("%v", r)
		}
		return r, r.exit == 0
	}, d.log)
	if c := server.Counters(); c.Messages != 1 || c.Connections != 1 {
		t.Errorf("%d messages over %d connections", c.Messages, c.Connections)
	}
	text, err := os.ReadFile(d.log)
	if err != nil || strings.Contains(string(text), password) {
		t.Errorf("the password is in the log, or there is none: %v", err)
	}
}
