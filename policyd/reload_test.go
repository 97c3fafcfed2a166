package policyd

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
	"github.com/mxpipe/mxpipe/policyd/runtime"
)

const reloaded = "configuration reloaded"

// A transport that is as it was keeps its idle connections.
func TestReloadKeepsWhatIsUnchanged(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	want(t, r.send(nil), "2.0.0 ")
	r.reload(l.yaml("max_message_size: 1MiB", "", "  other:\n    port: 26"), reloaded)
	want(t, r.send(nil), "2.0.0 ", "reused")
	if c := l.mx.Counters(); c.Connections != 1 {
		t.Errorf("%d connections", c.Connections)
	}
}

// One that is changed has its idle connections closed, and is as it is written
// from then on.
func TestReloadChangesTransports(t *testing.T) {
	for name, change := range map[string]func(l *lab) string{
		"a key": func(l *lab) string { return l.yaml("", "    hostname: other.example", "") },
		"an override": func(l *lab) string {
			return l.yaml("", "    overrides: [{match: a.example, hostname: other.example}]", "")
		},
		"the default": func(l *lab) string {
			return strings.Replace(l.yaml("", "", ""), "hostname: client.example", "hostname: other.example", 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			r := l.daemon(l.yaml("", "", ""))
			want(t, r.send(nil), "2.0.0 ")
			r.reload(change(l), reloaded)
			l.until("the end of the idle connection", func(c mx.Counters) bool { return c.Open == 0 })
			want(t, r.send(nil), "2.0.0 ")
			if got := l.mx.Messages(); got[1].Hello != "other.example" {
				t.Errorf("said EHLO %s", got[1].Hello)
			}
			want(t, l.logged.Wait(t, "other.example"), "", "level=INFO", "msg=changed ")
		})
	}
}

// With other DNS servers everything begins anew.
func TestReloadChangesDNS(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	want(t, r.send(nil), "2.0.0 ")
	r.reload(strings.Replace(l.yaml("", "", ""), "timeout: 2s", "timeout: 3s", 1), reloaded)
	l.until("the end of the idle connection", func(c mx.Counters) bool { return c.Open == 0 })
	want(t, r.send(nil), "2.0.0 ")
	if c := l.mx.Counters(); c.Connections != 2 {
		t.Errorf("%d connections", c.Connections)
	}
}

// Transports come and go.
func TestReloadAddsAndRemoves(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	other := strings.Replace("  other:\n    port: PORT", "PORT", l.mx.Addr()[strings.LastIndex(l.mx.Addr(), ":")+1:], 1)
	want(t, r.send(through("other")), "4.3.5 ")
	r.reload(l.yaml("", "", other), reloaded)
	want(t, r.send(through("other")), "2.0.0 ")
	r.reload(l.yaml("", "", ""), reloaded)
	l.until("the end of the idle connection", func(c mx.Counters) bool { return c.Open == 0 })
	want(t, r.send(through("other")), "4.3.5 ")
	want(t, r.send(nil), "2.0.0 ")
}

// A delivery under way keeps what it started with, and ends it when it is over.
func TestReloadUnderWay(t *testing.T) {
	l := newLab(t)
	release := l.hold(mx.StageRCPT)
	defer release()
	r := l.daemon(l.yaml("", "", ""))
	conn := r.call(nil)
	l.until("RCPT", func(c mx.Counters) bool { return c.Verbs["RCPT"] == 1 })
	r.reload(l.yaml("", "    hostname: other.example", ""), reloaded)
	// the same message, meanwhile
	want(t, r.send(nil), "4.3.0 ", "earlier attempt")
	release()
	want(t, answer(conn), "2.0.0 ")
	if got := l.mx.Messages(); got[0].Hello != "client.example" {
		t.Errorf("said EHLO %s", got[0].Hello)
	}
	l.until("the end of the old transport", func(c mx.Counters) bool { return c.Open == 0 })
	if n := len(r.inUse().Transports); n != 1 {
		t.Errorf("%d transports", n)
	}
}

// A transport that silently has no policies is warned of, at the start and at a
// reload; one that says so is not.
func TestWarnsOfNoPolicies(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	want(t, l.logged.Wait(t, "transports.default has no mx_auth"), "", "level=WARN", "warning=\"test.yaml:8:5: ")
	r.reload(l.yaml("", "    mx_auth: none", "  other:\n    port: 26"), reloaded)
	want(t, l.logged.Wait(t, "transports.other has no mx_auth"), "", "level=WARN")
	if n := l.logged.Count("transports.default has no mx_auth"); n != 0 {
		t.Error("warned of what says none")
	}
}

// A wrong configuration changes nothing, and each mistake is logged.
func TestReloadWithMistakes(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	want(t, r.send(nil), "2.0.0 ")
	r.reload(l.yaml("nosuch: 1\nmax_deliveries: many", "    hostname: other.example", ""), "nosuch")
	l.systemd.Wait(t, "STATUS=delivering mail; the changed configuration is wrong")
	want(t, l.logged.Wait(t, "test.yaml:6:"), "", "level=ERROR", "configuration not reloaded", "many")
	want(t, r.send(nil), "2.0.0 ", "reused")

	// One that is well written, but asks for what is not there.
	r.mu.Lock()
	r.gone = true
	r.mu.Unlock()
	r.reload(l.yaml("max_message_size: 2KiB", "    tls_client: {root_ca: "+l.dir+"/nosuch.pem}", "  other: {}"), "nosuch.pem")
	want(t, l.logged.Wait(t, "configuration not reloaded"), "", "level=ERROR", "transport default")
	want(t, r.send(nil), "2.0.0 ", "reused")
	want(t, r.send(through("other")), "4.3.5 ")
	if n := l.logged.Count(reloaded); n != 0 {
		t.Error("said that it was reloaded")
	}

	// One that cannot be read.
	r.mu.Lock()
	r.gone = false
	r.fail = errors.New("input/output error")
	r.mu.Unlock()
	r.reload("", "input/output error")
	r.mu.Lock()
	r.fail = nil
	r.mu.Unlock()
	want(t, r.send(nil), "2.0.0 ", "reused")

	r.reload(l.yaml("", "    hostname: other.example", ""), reloaded)
	want(t, l.systemd.Wait(t, "STATUS="), "STATUS=delivering mail\n")
}

// A reload that does not come to an end, since the disk does not answer, holds
// up neither mail nor the end of the daemon; it is unhealthy after minutes.
func TestStuckReload(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	stuck := make(chan struct{})
	defer close(stuck)
	r.mu.Lock()
	r.stuck = stuck
	r.mu.Unlock()
	r.hangUp <- syscall.SIGHUP
	want(t, r.send(nil), "2.0.0 ")
	if err := r.healthy(t.Context()); err != nil {
		t.Errorf("after a moment: %v", err)
	}
	r.waitFor("the reload", func() bool {
		r.Daemon.mu.Lock()
		defer r.Daemon.mu.Unlock()
		return !r.state.reading.IsZero()
	})
	r.setReading(time.Now().Add(-readTimeout - time.Second))
	if err := r.healthy(t.Context()); err != errReading {
		t.Errorf("after minutes: %v", err)
	}
	r.end()
}

// One that was slow is as good as any.
func TestSlowReload(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	stuck := make(chan struct{})
	r.mu.Lock()
	r.stuck, r.text = stuck, l.yaml("", "    hostname: other.example", "")
	r.mu.Unlock()
	r.hangUp <- syscall.SIGHUP
	close(stuck)
	l.logged.Wait(t, reloaded)
	r.waitFor("the end of the reload", func() bool {
		r.Daemon.mu.Lock()
		defer r.Daemon.mu.Unlock()
		return r.state.reading.IsZero()
	})
	want(t, r.send(nil), "2.0.0 ")
	if got := l.mx.Messages(); got[0].Hello != "other.example" {
		t.Errorf("said EHLO %s", got[0].Hello)
	}
}

// waitFor waits until something is so.
func (r *running) waitFor(what string, so func() bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !so(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			r.t.Fatalf("waiting for %s", what)
		}
	}
}

// What a file says counts, not its name: a certificate that was renewed in
// place.
func TestReloadReadsFilesAgain(t *testing.T) {
	l := newLab(t)
	roots := func() {
		authority, err := ca.New(ca.Options{})
		if err == nil {
			err = authority.WriteRoots(l.dir + "/roots.pem")
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	roots()
	text := l.yaml("", "    tls_client: {root_ca: "+l.dir+"/roots.pem}", "")
	r := l.daemon(text)
	want(t, r.send(nil), "2.0.0 ")
	r.reload(text, reloaded)
	want(t, r.send(nil), "2.0.0 ", "reused")
	roots()
	r.reload(text, reloaded)
	l.until("the end of the idle connection", func(c mx.Counters) bool { return c.Open == 0 })
	want(t, r.send(nil), "2.0.0 ")
}

// The log's level, max_message_size and shutdown_timeout change at once; the
// rest of the top level is named as needing a restart.
func TestReloadTopLevel(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	text := l.yaml("max_message_size: 1KiB\nshutdown_timeout: 7s\nlog: {level: warn, format: json}\nmax_deliveries: 7", "", "")
	text = strings.Replace(text, `mode: "0600"`, `mode: "0666"`, 1)
	text = strings.Replace(text, l.dir+"/state", l.dir+"/other", 1)
	// With level warn the log does not say that it was done; systemd hears.
	r.reload(text, "max_deliveries")
	for _, path := range []string{"max_deliveries", "state_dir", "log.format", "listen.pipe.mode"} {
		want(t, l.logged.Wait(t, path), "", "level=WARN", "needs a restart")
	}
	if got := l.logged.String(); strings.Contains(got, "level=INFO") {
		t.Errorf("with level warn it says\n%s", got)
	}
	l.systemd.Wait(t, "STATUS=delivering mail\n")
	if info, err := os.Stat(l.dir + "/pipe.sock"); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info.Mode(), err)
	}
	r.stop()
	l.systemd.Wait(t, "EXTEND_TIMEOUT_USEC=37000000")
}

func TestReloadMaxMessageSize(t *testing.T) {
	l := newLab(t)
	r := l.daemon(l.yaml("", "", ""))
	conn := r.call(nil) // has 41 bytes
	want(t, answer(conn), "2.0.0 ")
	r.reload(l.yaml("max_message_size: 1KiB", "", ""), reloaded)
	want(t, r.send(nil), "2.0.0 ")
	if got := r.current().MaxMessageSize; got != 1<<10 {
		t.Errorf("in force: %d", got)
	}
}

// HUP once more, and once more: nothing is left behind by any of them.
func TestManyReloads(t *testing.T) {
	l := newLab(t)
	text := [2]string{
		l.yaml("", "    mx_auth: {mtasts: {cache: ram}}", "  other:\n    mx_auth: {mtasts: {cache: ram}}"),
		l.yaml("", "    mx_auth: {mtasts: {cache: ram, https_port: 444}}", ""),
	}
	r := l.daemon(text[0])
	first := r.inUse()
	if len(first.Transports) != 2 || len(first.Policies) != 1 {
		t.Errorf("two transports do not share an MTA-STS cache: %+v", first)
	}
	r.reload(text[0], reloaded)
	if again := r.inUse(); again.Transports[0].Transport != first.Transports[0].Transport {
		t.Error("an unchanged transport was made anew")
	}
	for i := range 10 {
		r.reload(text[(i+1)%2], reloaded)
	}
	r.end()
	if left := r.inUse(); len(left.Transports) != 0 || left.Resolver != nil {
		t.Errorf("%+v live on", left)
	}
}

// inUse is what the daemon uses at this moment, released already.
func (r *running) inUse() *runtime.InUse {
	all := r.runtime.InUse()
	all.Release()
	return all
}
