package e2e

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// What is our own trouble leaves the message in the queue: Exim never bounces, a message from the null sender neither.
func TestEximOwnTroubleIsDeferred(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, c := range []struct {
		name, transport, text string
		frozen                bool
	}{
		{"a wrong flag", "usage", `^4\.3\.5 .*unknown flag "--queue-identity"`, false},
		{"no socket", "absent", `^4\.3\.2 .*no such file.*is mxpolicyd.socket running`, false},
		{"no mxpipe", "missing", `mxpipe\.missing: not found`, false},
		{"Exim's time limit", "overslow", `pipe delivery process timed out`, false},
		// For a command that died by a signal Exim knows nothing better than to freeze the message.
		{"a panic", "panicking", `terminated by signal 6`, true},
		{"no threads", "starved", `terminated by signal 6`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			habits := modern(t)
			if c.transport == "overslow" {
				habits.At = map[mx.Stage]mx.Act{mx.StageGreeting: {Hold: make(chan struct{})}}
			}
			s, domain := remote(t, c.transport, habits)
			for _, from := range []string{"a@" + keepDomain, ""} {
				id := w.exim.submit(t, note(from, "b@"+domain))
				w.exim.deferred(t, id, 1, c.text)
				if c.frozen {
					w.exim.find(t, ` `+id+` (Frozen)`)
				}
			}
			if n := s.Counters().Messages; n != 0 {
				t.Errorf("%d messages were delivered", n)
			}
		})
	}
}

// auto_thaw of contrib has Exim try a frozen message again by itself.
func TestEximThaws(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	mended := filepath.Join(folder(t), "mended")
	switched, err := w.script("switched", `[ -e `+mended+` ] || exec `+w.panicking+` "$@"; exec `+w.mxpipe)
	if err != nil {
		t.Fatal(err)
	}
	parts.main = strings.Replace(parts.main, "auto_thaw = 1h", "auto_thaw = 1s", 1)
	parts.transports = strings.Replace(parts.transports, w.mxpipe, switched, 1)
	x := anotherExim(t, parts)
	id := x.submit(t, note("a@"+keepDomain, "b@"+domain))
	x.deferred(t, id, 1, `terminated by signal 6`)
	if err := write(mended, ""); err != nil {
		t.Fatal(err)
	}
	// A queue runner looks at the clock, and at what is due: only the retry time is passed over here.
	await(t, "the message to be thawed", func() (string, bool) {
		return x.run(t, "-qf"), len(x.handled(id)) > 1
	}, x.log)
	x.sent(t, id, 2)
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}

// The daemon is stopped while mail goes on coming, and nothing of it is lost or sent twice. A queue runner of Exim's
// tries again by itself.
func TestEximDaemonStoppedAndStarted(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var s settings
	d := startDaemon(t, s)
	server, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(d)
	if err != nil {
		t.Fatal(err)
	}
	x := anotherExim(t, parts)
	before := x.submit(t, note("before@"+keepDomain, "b@"+domain))
	x.sent(t, before, 1)
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	ids := map[string]string{}
	for _, from := range []string{"one", "two", "three"} {
		from += "@" + keepDomain
		ids[from] = x.submit(t, note(from, "b@"+domain))
	}
	for _, id := range ids {
		x.deferred(t, id, 1, `^4\.3\.2 .*is mxpolicyd.socket running`)
	}
	d.told.close()
	if err := d.start(w, s); err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		await(t, "a queue run to try "+id, func() (string, bool) {
			return x.run(t, "-qf"), len(x.handled(id)) > 1
		}, x.log)
		x.sent(t, id, 2)
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
}

// A command that is killed while it waits: Exim freezes the message. Whether the remote server takes it all the same
// depends on how far it was; either way it is delivered once.
func TestEximKilledWhileWaiting(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for name, stage := range map[string]mx.Stage{"at RCPT": mx.StageRCPT, "before the final reply": mx.StageFinal} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			habits := modern(t)
			habits.Keywords &^= mx.Pipelining | mx.Chunking
			gate := make(chan struct{})
			habits.At = map[mx.Stage]mx.Act{stage: {Hold: gate, Times: 1}}
			s, domain := remote(t, "mxpipe", habits)
			id := w.exim.submit(t, note("a@"+keepDomain, "b@"+domain))
			verb := map[mx.Stage]string{mx.StageRCPT: "RCPT", mx.StageFinal: "DATA"}[stage]
			await(t, verb, func() (int, bool) { n := s.Counters().Verbs[verb]; return n, n > 0 }, w.exim.log)
			if err := syscall.Kill(commandOf(t, id), syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			w.exim.deferred(t, id, 1, `terminated by signal 9`)
			close(gate)
			w.daemon.logged(t, map[mx.Stage]string{mx.StageRCPT: `deferred.*`, mx.StageFinal: `did not wait.*`}[stage]+`queue_id=`+id)
			w.exim.retry(t, id)
			w.exim.sent(t, id, 2)
			if n := s.Counters().Messages; n != 1 {
				t.Errorf("delivered %d times", n)
			}
		})
	}
}

// A server that never answers: mxpipe gives up in its own time. When the server had the whole message and takes it
// later, it is not sent again.
func TestEximTimeoutIsDeferred(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, stage := range []mx.Stage{mx.StageGreeting, mx.StageFinal} {
		t.Run(stage.String(), func(t *testing.T) {
			t.Parallel()
			habits := modern(t)
			gate := make(chan struct{})
			habits.At = map[mx.Stage]mx.Act{stage: {Hold: gate, Times: 1}}
			s, domain := remote(t, "slow", habits)
			id := w.exim.submit(t, note("a@"+keepDomain, "b@"+domain))
			w.exim.deferred(t, id, 1, `^4\.4\.7 .*(the time for this delivery is over|gave up after 3s)`)
			close(gate)
			if stage == mx.StageFinal {
				w.daemon.logged(t, `did not wait.*queue_id=`+id)
			}
			w.exim.retry(t, id)
			w.exim.sent(t, id, 2)
			if n := s.Counters().Messages; n != 1 {
				t.Errorf("delivered %d times", n)
			}
		})
	}
}

// The process that delivers is killed while it writes a message to mxpipe: what is cut off does not go out, and the
// message stays for the next try.
func TestEximKilledWhileWriting(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	// mxpipe starts stopped, so that Exim has to wait in the middle of the message.
	free := filepath.Join(folder(t), "free")
	stopped, err := w.script("stopped", `[ -e `+free+` ] || kill -STOP $$; exec `+w.mxpipe)
	if err != nil {
		t.Fatal(err)
	}
	parts.transports = strings.Replace(parts.transports, w.mxpipe, stopped, 1)
	x := anotherExim(t, parts)
	m := note("a@"+keepDomain, "b@"+domain)
	m.text = append(m.text, bytes.Repeat([]byte("a line of a long message\n"), 1<<15)...)
	id := x.submit(t, m)
	var parent int
	command := await(t, "mxpipe to be stopped", func() (int, bool) {
		entries, _ := os.ReadDir("/proc")
		for _, e := range entries {
			stat, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
			line, _ := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
			fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
			if len(fields) > 1 && fields[0] == "T" && bytes.Contains(line, []byte("\x00"+id+"\x00")) {
				parent, _ = strconv.Atoi(fields[1])
				pid, err := strconv.Atoi(e.Name())
				return pid, err == nil && parent > 1
			}
		}
		return 0, false
	}, x.log)
	if err := syscall.Kill(parent, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(write(free, ""), syscall.Kill(command, syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}
	x.deferred(t, id, 1, `^defer \(-1\)$`)
	x.retry(t, id)
	x.completed(t, id)
	list := s.Messages()
	if len(list) != 1 || !bytes.HasSuffix(list[0].Body, bytes.ReplaceAll(m.text[len(m.text)-1000:], []byte("\n"), []byte("\r\n"))) {
		t.Errorf("%d messages arrived, want the whole one alone", len(list))
	}
}

// anotherExim starts one more Exim with these lines in its configuration.
func anotherExim(t *testing.T, more eximConfig) *exim {
	t.Helper()
	w := lab(t)
	address, err := w.host(w.newDomain("another"))
	if err != nil {
		t.Fatal(err)
	}
	x, err := newExim(filepath.Join(folder(t), "exim"), "another", address, more)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.close(); err != nil {
			t.Error(err)
		}
	})
	return x
}
