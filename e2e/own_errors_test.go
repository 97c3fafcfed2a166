package e2e

import (
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// What is our own trouble leaves the message in the queue: Postfix never
// bounces.
func TestOwnErrorsAreDeferred(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, c := range []struct{ name, transport, dsn, text string }{
		{"a wrong flag in master.cf", "usage", `4\.3\.5`, `unknown flag "--queue-identity"`},
		{"no socket", "absent", `4\.3\.2`, `no such file.*is mxpolicyd.socket running`},
		// Of a command that died by a signal Postfix takes no code.
		{"a panic", "panicking", `4\.3\.0`, `died with signal 6.*about to panic`},
		{"no threads", "starved", `4\.3\.0`, `died with signal 6.*newosproc`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, domain := remote(t, c.transport, modern(t))
			id := w.out.submit(t, note("a@"+keepDomain, "b@"+domain))
			w.out.deferred(t, id, 1, c.dsn, c.text)
			if n := s.Counters().Connections; n != 0 {
				t.Errorf("the server saw %d connections", n)
			}
		})
	}
}

// The daemon is stopped while mail goes on coming, and nothing of it is lost or
// sent twice: the mail server tries again by itself.
func TestDaemonStoppedAndStarted(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, d *daemon) (m mailServer, runQueue func()){
		"Postfix": func(t *testing.T, d *daemon) (mailServer, func()) {
			w := lab(t)
			entry, err := w.masterEntry()
			if err != nil {
				t.Fatal(err)
			}
			p := anotherOutOf(t, strings.Replace(entry, w.daemon.socket, d.socket, 1), "default_transport = mxpipe")
			return p, func() { p.postqueue(t, "-f") }
		},
		"Exim": func(t *testing.T, d *daemon) (mailServer, func()) {
			parts, err := lab(t).eximParts(d)
			if err != nil {
				t.Fatal(err)
			}
			x := anotherExim(t, parts)
			return x, func() { x.run(t, "-qf") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var s settings
			d := startDaemon(t, s)
			server, domain := remote(t, "mxpipe", modern(t))
			m, runQueue := start(t, d)
			m.sent(t, m.submit(t, note("before@"+keepDomain, "b@"+domain)), 1)
			if err := d.stop(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			ids := map[string]string{}
			for _, from := range []string{"one", "two", "three"} {
				from += "@" + keepDomain
				ids[from] = m.submit(t, note(from, "b@"+domain))
			}
			for _, id := range ids {
				m.deferred(t, id, 1, `4\.3\.2`, `is mxpolicyd.socket running`)
			}
			d.told.close()
			if err := d.start(lab(t), s); err != nil {
				t.Fatal(err)
			}
			for _, id := range ids {
				// The log tells of a try before the message can be tried again.
				await(t, "a queue run to try "+id, func() ([]attempt, bool) {
					runQueue()
					list := m.attempts(id)
					return list, len(list) > 1
				}, m.logFile())
				m.sent(t, id, 2)
			}
			got := map[string]int{}
			for _, m := range server.Messages() {
				got[m.Sender]++
			}
			for _, from := range []string{"before", "one", "two", "three"} {
				if n := got[from+"@"+keepDomain]; n != 1 {
					t.Errorf("%d messages from %s arrived, want 1", n, from)
				}
			}
		})
	}
}

// A command that is killed while it waits leaves the message in the queue; Exim
// freezes it. Whether the remote server takes it all the same depends on how
// far it was; either way it is delivered once.
func TestKilledWhileWaiting(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		for name, stage := range map[string]mx.Stage{"at RCPT": mx.StageRCPT, "before the final reply": mx.StageFinal} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				behaviour := modern(t)
				behaviour.Keywords &^= mx.Pipelining | mx.Chunking
				gate := make(chan struct{})
				behaviour.At = map[mx.Stage]mx.Action{stage: {Hold: gate, Times: 1}}
				s, domain := remote(t, "mxpipe", behaviour)
				id := m.submit(t, note("a@"+keepDomain, "b@"+domain))
				verb := map[mx.Stage]string{mx.StageRCPT: "RCPT", mx.StageFinal: "DATA"}[stage]
				await(t, verb, func() (int, bool) { n := s.Counters().Verbs[verb]; return n, n > 0 }, m.logFile())
				if err := syscall.Kill(commandOf(t, id), syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				m.deferred(t, id, 1, `4\.3\.0|`, `(died with|terminated by) signal 9`)
				close(gate)
				w.daemon.logged(t, map[mx.Stage]string{mx.StageRCPT: `deferred.*`, mx.StageFinal: `did not wait.*`}[stage]+`queue_id=`+id)
				m.retry(t, id)
				m.sent(t, id, 2)
				if n := s.Counters().Messages; n != 1 {
					t.Errorf("delivered %d times", n)
				}
			})
		}
	})
}

// commandOf finds the process of the mxpipe that a mail server runs for a
// message.
func commandOf(t *testing.T, id string) int {
	t.Helper()
	return await(t, "the process for "+id, func() (int, bool) {
		for _, pid := range processes() {
			line := cmdline(pid)
			if strings.HasPrefix(line, lab(t).mxpipe+"\x00") && strings.Contains(line, "\x00--queue-id\x00"+id+"\x00") {
				return pid, true
			}
		}
		return 0, false
	})
}

// A server that never answers: mxpipe gives up in its own time, before
// Postfix's time limit bounces the message. When the server had the whole
// message and takes it later, it is not sent again.
func TestTimeoutIsDeferred(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageMAIL, mx.StageFinal} {
			t.Run(stage.String(), func(t *testing.T) {
				t.Parallel()
				behaviour := modern(t)
				gate := make(chan struct{})
				behaviour.At = map[mx.Stage]mx.Action{stage: {Hold: gate, Times: 1}}
				s, domain := remote(t, "slow", behaviour)
				id := m.submit(t, note("a@"+keepDomain, "b@"+domain))
				m.deferred(t, id, 1, `4\.4\.7`, `the delivery timed out|timed out after 3s`)
				close(gate)
				// At MAIL the server has all of the message too, which came in
				// one flight.
				if stage != mx.StageGreeting {
					w.daemon.logged(t, `did not wait.*queue_id=`+id)
				}
				m.retry(t, id)
				m.sent(t, id, 2)
				if n := s.Counters().Messages; n != 1 {
					t.Errorf("delivered %d times", n)
				}
			})
		}
	})
}

// The mail server tries again while the remote server has not yet answered the
// first attempt: the message is not sent a second time before the result of the
// first is known.
//
// This is the test to copy: it gives a remote server of the lab its behaviour,
// submits a message to a real Postfix and to a real Exim, waits for what their
// logs say, and counts what arrived.
func TestTriedAgainMeanwhile(t *testing.T) {
	each(t, func(t *testing.T, w *world, m mailServer) {
		behaviour := modern(t)
		gate := make(chan struct{})
		behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Times: 1}}
		s, domain := remote(t, "slow", behaviour)
		id := m.submit(t, note("a@"+keepDomain, "b@"+domain))
		m.deferred(t, id, 1, `4\.4\.7`, `timed out after 3s`)
		m.retry(t, id)
		m.deferred(t, id, 2, `4\.\d+\.\d+`, ``)
		close(gate)
		w.daemon.logged(t, `did not wait.*queue_id=`+id)
		m.retry(t, id)
		m.sent(t, id, 3)
		if n := s.Counters().Messages; n != 1 {
			t.Errorf("delivered %d times", n)
		}
	})
}
