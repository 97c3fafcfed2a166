package setup

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// do sets a Postfix up.
func (f *fake) do(m Machine, way Way, t Target) error {
	f.t.Helper()
	p, err := f.plan(way, t)
	if err != nil {
		f.t.Fatal(err)
	}
	return m.Do(f.t.Context(), p)
}

// undo takes it back, and gives what is said of it.
func (f *fake) undo(m Machine) Plan {
	f.t.Helper()
	back, err := m.Undo(f.t.Context(), "postfix")
	if err == nil {
		err = m.Finish(f.t.Context(), back)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return back
}

// address is a daemon whose socketmap is at a loopback address.
func address() Target {
	t := packaged()
	t.Daemon.Socketmap = []string{"127.0.0.1:8463"}
	return t
}

// Undo leaves all as it was before, whichever way was set up, and however
// often.
func TestUndo(t *testing.T) {
	for way, target := range map[Way]Target{Pipe: packaged(), LMTP: packaged(), Socketmap: address()} {
		t.Run(string(way), func(t *testing.T) {
			f := stock(t)
			f.master["mxpipe/unix"] = "mxpipe unix - n n - - pipe user=x argv=/bin/false"
			m, before := f.machine(), f.state()
			if err := f.do(m, way, target); err != nil {
				t.Fatal(err)
			}
			after := f.state()
			if after == before {
				t.Fatal("nothing was set up")
			}
			if p, err := f.plan(way, target); err != nil || way != LMTP && !p.Empty() {
				t.Errorf("a second time there is to do: %s %v", p.Diff(), err)
			}
			f.undo(m)
			if got := f.state(); got != before {
				t.Errorf("it is\n%s\nand was\n%s", got, before)
			}
			if last := f.ran[len(f.ran)-1]; last != "postfix reload" && way != LMTP {
				t.Errorf("at last it ran %s", last)
			}
			if _, err := m.Undo(t.Context(), "postfix"); !errors.Is(err, ErrNothingToUndo) {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

// What was set up twice, because the configuration had changed, goes back to
// what was there before the first time.
func TestUndoOfTwo(t *testing.T) {
	f := stock(t)
	m, before := f.machine(), f.state()
	if err := f.do(m, Socketmap, address()); err != nil {
		t.Fatal(err)
	}
	moved := address()
	moved.Daemon.Socketmap = []string{"127.0.0.1:9000"}
	delete(f.main, "smtp_dns_support_level")
	if err := f.do(m, Socketmap, moved); err != nil {
		t.Fatal(err)
	}
	if got := f.main["smtp_tls_policy_maps"]; got != "socketmap:inet:127.0.0.1:9000:policy" {
		t.Errorf("Postfix asks %s", got)
	}
	f.undo(m)
	if got := f.state(); got != before {
		t.Errorf("it is\n%s\nand was\n%s", got, before)
	}
}

// What somebody has changed since stays, and is told.
func TestUndoLeavesOthersChanges(t *testing.T) {
	f := stock(t)
	m := f.machine()
	if err := f.do(m, Socketmap, address()); err != nil {
		t.Fatal(err)
	}
	f.main["smtp_tls_security_level"] = "encrypt"
	delete(f.main, "smtp_tls_loglevel") // as it was
	back := f.undo(m)
	if f.main["smtp_tls_security_level"] != "encrypt" || f.main["smtp_tls_policy_maps"] != "" {
		t.Errorf("%v", f.main)
	}
	if len(back.Notes) != 1 || !strings.Contains(back.Notes[0].What, "smtp_tls_security_level was changed since") || !strings.Contains(back.Notes[0].Mend, `"may"`) {
		t.Errorf("%+v", back.Notes)
	}
	if diff := back.Diff(); strings.Contains(diff, "loglevel") || strings.Contains(diff, "security_level") {
		t.Errorf("it shows\n%s", diff)
	}
}

// What somebody has written since that needs a part of the set-up keeps that
// part, until it is gone: without it all its mail would wait.
func TestUndoLeavesWhatIsNamed(t *testing.T) {
	f := stock(t)
	m, before := f.machine(), f.state()
	if err := f.do(m, Pipe, packaged()); err != nil {
		t.Fatal(err)
	}
	f.main["relay_transport"] = "mxpipe"
	back := f.undo(m)
	if f.master["mxpipe/unix"] == "" || f.main["default_transport"] != "" {
		t.Errorf("%v, %v", f.master, f.main)
	}
	if len(back.Notes) != 1 || !strings.Contains(back.Notes[0].What, "mxpipe/unix stays, since main.cf names it: relay_transport = mxpipe") {
		t.Errorf("%+v", back.Notes)
	}
	delete(f.main, "relay_transport")
	f.undo(m)
	if got := f.state(); got != before {
		t.Errorf("it is\n%s\nand was\n%s", got, before)
	}
}

// The place of the socketmap stays as long as one of the tables is there.
func TestUndoLeavesTheSocket(t *testing.T) {
	p, err := stock(t).plan(Socketmap, packaged())
	if err != nil {
		t.Fatal(err)
	}
	for maps, stays := range map[string]bool{
		"hash:/x, socketmap:inet:127.0.0.1:8463:policy": true, "socketmap:inet:127.0.0.1:8463:policy-tlsrpt": true,
		"socketmap:inet:127.0.0.1:8461:postfix": false, "": false,
	} {
		// but for main.cf, which comes first
		back := Plan{Server: "postfix", Steps: p.Undone().Steps[1:]}
		back.leaveNamed(map[string]string{"smtp_tls_policy_maps": maps})
		if back.Empty() != stays || back.left != stays || len(back.Notes) == 1 != stays {
			t.Errorf("%s: it shows %s, %+v", maps, back.Diff(), back.Notes)
		}
	}
}

// A set-up that fails half-way leaves nothing behind.
func TestFailuresAreTakenBack(t *testing.T) {
	for _, command := range []string{"postconf -M -e", "postconf -e mxlmtp_", "postconf -e default_transport", "postfix reload", "usermod"} {
		t.Run(command, func(t *testing.T) {
			f := stock(t)
			m, before := f.machine(), f.state()
			f.fails = command
			if err := f.do(m, LMTP, packaged()); err == nil || !strings.Contains(err.Error(), command) {
				t.Fatalf("%v", err)
			}
			if got := f.state(); got != before {
				t.Errorf("it is\n%s\nand was\n%s", got, before)
			}
			if _, err := m.Undo(t.Context(), "postfix"); !errors.Is(err, ErrNothingToUndo) {
				t.Errorf("there is a record: %v", err)
			}
		})
	}
}

// One way at a time: what was there before the first would be lost.
func TestAnotherWay(t *testing.T) {
	f := stock(t)
	m := f.machine()
	if err := f.do(m, Pipe, packaged()); err != nil {
		t.Fatal(err)
	}
	var refused *Refusal
	if err := f.do(m, LMTP, packaged()); !errors.As(err, &refused) || !strings.Contains(refused.Mend, "--undo") {
		t.Errorf("%v", err)
	}
}

// A record that is torn is said, and nothing is done.
func TestTornRecord(t *testing.T) {
	f := stock(t)
	m := f.machine()
	if err := os.WriteFile(filepath.Join(m.Records, "setup-postfix.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := f.state()
	if err := f.do(m, Pipe, packaged()); err == nil || errors.Is(err, ErrNothingToUndo) {
		t.Errorf("%v", err)
	}
	if _, err := m.Undo(t.Context(), "postfix"); err == nil || errors.Is(err, ErrNothingToUndo) {
		t.Errorf("%v", err)
	}
	if f.state() != before {
		t.Error("something was done")
	}
}

// Files are made with their directories, and go with them.
func TestFiles(t *testing.T) {
	dir := t.TempDir()
	f := stock(t)
	m := f.machine()
	text, old := "[Socket]\n", "old\n"
	added := filepath.Join(dir, "x.socket.d", "tcp.conf")
	kept := filepath.Join(dir, "kept")
	if err := os.WriteFile(kept, []byte(old), 0o640); err != nil {
		t.Fatal(err)
	}
	p := Plan{Server: "exim", Way: Pipe, Steps: []Step{{Changes: []Change{
		{Kind: File, Name: added, After: &text}, {Kind: File, Name: kept, Before: &old, After: &text},
	}, Then: [][]string{{"systemctl", "daemon-reload"}}}}}
	if err := m.Do(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{added, kept} {
		if got, err := os.ReadFile(file); err != nil || string(got) != text {
			t.Errorf("%s: %q %v", file, got, err)
		}
	}
	if info, err := os.Stat(kept); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v %v", info.Mode(), err)
	}
	back, err := m.Undo(t.Context(), "exim")
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Finish(t.Context(), back); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(kept); string(got) != old {
		t.Errorf("%q", got)
	}
	if _, err := os.Stat(filepath.Dir(added)); err == nil {
		t.Error("the directory is left")
	}
	if want := []string{"systemctl daemon-reload", "systemctl daemon-reload"}; !slices.Equal(f.ran, want) {
		t.Errorf("it ran %q", f.ran)
	}
}
