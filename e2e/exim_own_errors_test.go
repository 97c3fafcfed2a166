package e2e

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// What is our own trouble leaves the message in the queue: Exim never bounces,
// a message from the null sender neither.
func TestEximOwnErrorsAreDeferred(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, c := range []struct {
		name, transport, dsn, text string
		frozen                     bool
	}{
		{"a wrong flag", "usage", `4\.3\.5`, `unknown flag "--queue-identity"`, false},
		{"no socket", "absent", `4\.3\.2`, `no such file.*is mxpolicyd.socket running`, false},
		{"no mxpipe", "missing", ``, `mxpipe\.missing: not found`, false},
		{"Exim's time limit", "overslow", ``, `pipe delivery process timed out`, false},
		// For a command that died by a signal Exim knows nothing better than to
		// freeze the message.
		{"a panic", "panicking", ``, `terminated by signal 6`, true},
		{"no threads", "starved", ``, `terminated by signal 6`, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			behaviour := modern(t)
			if c.transport == "overslow" {
				behaviour.At = map[mx.Stage]mx.Action{mx.StageGreeting: {Hold: make(chan struct{})}}
			}
			s, domain := remote(t, c.transport, behaviour)
			for _, from := range []string{"a@" + keepDomain, ""} {
				id := w.exim.submit(t, note(from, "b@"+domain))
				w.exim.deferred(t, id, 1, c.dsn, c.text)
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
	x.deferred(t, id, 1, ``, `terminated by signal 6`)
	if err := write(mended, ""); err != nil {
		t.Fatal(err)
	}
	// A queue runner looks at the clock, and at what is due: only the retry
	// time is skipped here.
	await(t, "the message to be thawed", func() (string, bool) {
		return x.run(t, "-qf"), len(x.attempts(id)) > 1
	}, x.log)
	x.sent(t, id, 2)
	if n := s.Counters().Messages; n != 1 {
		t.Errorf("%d messages were delivered", n)
	}
}

// The process that delivers is killed while it writes a message to mxpipe: what
// is cut off does not go out, and the message stays for the next try.
func TestEximKilledWhileWriting(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "mxpipe", modern(t))
	parts, err := w.eximParts(w.daemon)
	if err != nil {
		t.Fatal(err)
	}
	// mxpipe starts stopped, so that Exim has to wait in the middle of the
	// message. The kernel lets it go on when its parent dies, and would end it
	// (SIGHUP for an orphaned process group) before it could make a mistake.
	free := filepath.Join(folder(t), "free")
	stopped, err := w.script("stopped", `trap "" HUP; [ -e `+free+` ] || kill -STOP $$; exec `+w.mxpipe)
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
		for _, pid := range processes() {
			var state string
			if _, state, parent = stat(pid); state == "T" && carries(pid, id) {
				return pid, parent > 1
			}
		}
		return 0, false
	}, x.log)
	if err := errors.Join(write(free, ""), syscall.Kill(parent, syscall.SIGKILL)); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(command, syscall.SIGCONT); err != nil && err != syscall.ESRCH {
		t.Fatal(err)
	}
	await(t, "the end of mxpipe", func() (int, bool) { return command, !carries(command, id) })
	// What mxpipe says of it may still reach the log.
	x.deferred(t, id, 1, `4\.3\.0|`, `^defer \(-1\)$`)
	x.retry(t, id)
	x.done(t, id)
	list := s.Messages()
	if len(list) != 1 || !bytes.HasSuffix(list[0].Body, bytes.ReplaceAll(m.text[len(m.text)-1000:], []byte("\n"), []byte("\r\n"))) {
		t.Errorf("%d messages arrived, want the whole one alone", len(list))
	}
}

// carries tells whether a process lives that was started for an Exim message.
func carries(pid int, id string) bool {
	return strings.Contains(cmdline(pid), "\x00"+id+"\x00")
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
