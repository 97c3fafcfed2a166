package setup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const relayPassword = "Kq7:geheim+Wort"

// withRelay gives a Postfix with a relayhost that wants a password.
func withRelay(t *testing.T) (*fake, Machine) {
	f := stock(t)
	f.main["relayhost"], f.main["smtp_sasl_auth_enable"] = "[smtp.example]:587", "yes"
	f.main["smtp_sasl_password_maps"] = "hash:/etc/postfix/none, hash:/etc/postfix/sasl"
	m := f.machine()
	run := m.Run
	m.Run = func(ctx context.Context, argv ...string) (string, error) {
		if argv[0] == "postmap" {
			if argv[2] == "[smtp.example]:587" && argv[3] == "hash:/etc/postfix/sasl" {
				return "bob:" + relayPassword + "\n", nil
			}
			return "", errors.New("exit status 1")
		}
		return run(ctx, argv...)
	}
	return f, m
}

// The relay's password comes into a file that only its owner can read; neither
// what is shown nor the record has it; undone, it is gone.
func TestRelayPassword(t *testing.T) {
	for _, alone := range []bool{false, true} {
		f, m := withRelay(t)
		p, err := m.Password(t.Context(), "postfix")
		if err != nil {
			t.Fatal(err)
		}
		shown := p.Diff() + p.Next
		if err := m.Do(t.Context(), p); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(m.Records, "relay.password")
		text, err := os.ReadFile(file)
		if err != nil || string(text) != relayPassword+"\n" {
			t.Errorf("%q %v", text, err)
		}
		if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%v %v", info, err)
		}
		record, err := os.ReadFile(m.record(PasswordServer))
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(shown+string(record), "geheim") {
			t.Errorf("the password is shown: %s %s", shown, record)
		}
		if want := `relay: {host: "smtp.example:587", user: "bob", password_file: ` + file + "}"; !strings.Contains(p.Next, want) {
			t.Errorf("%s, want %s", p.Next, want)
		}
		if again, err := m.Password(t.Context(), "postfix"); err != nil || !again.Empty() {
			t.Errorf("again: %s %v", again.Diff(), err)
		}
		server := PasswordServer
		if !alone {
			server = "postfix"
			target := packaged()
			target.Daemon.Relays = append(target.Daemon.Relays, loginAt("smtp.example", 587))
			if p, err := f.plan(Pipe, target); err != nil {
				t.Fatalf("with the relay written it is not set up: %v", err)
			} else if err := m.Do(t.Context(), p); err != nil {
				t.Fatal(err)
			}
		}
		back, err := m.Undo(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(back.Diff(), "geheim") {
			t.Error(back.Diff())
		}
		if err := m.Finish(t.Context(), back); err != nil {
			t.Fatal(err)
		}
		if left, _ := os.ReadDir(m.Records); len(left) != 0 {
			t.Errorf("what is left: %v", left)
		}
	}
}

// A password that is there already, or that somebody has changed since, is not
// touched.
func TestRelayPasswordOfSomebodyElse(t *testing.T) {
	_, m := withRelay(t)
	file := filepath.Join(m.Records, "relay.password")
	if err := os.WriteFile(file, []byte("other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Password(t.Context(), "postfix"); err == nil || !strings.Contains(err.Error(), "with another password") || strings.Contains(err.Error(), "geheim") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	p, err := m.Password(t.Context(), "postfix")
	if err == nil {
		err = m.Do(t.Context(), p)
	}
	if err == nil {
		err = os.WriteFile(file, []byte("new\n"), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	back, err := m.Undo(t.Context(), PasswordServer)
	if err != nil || len(back.Notes) != 1 || len(back.Steps) != 0 {
		t.Errorf("%+v %v", back, err)
	}
}

// Exim's own file is read by its patterns.
func TestEximLogin(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("update-exim4.conf.conf", "dc_eximconfig_configtype='smarthost'\ndc_smarthost='smtp.example::465'\n")
	write("passwd.client", "# a comment\nother.example:x:y\n*.example:bob:"+relayPassword+"\n")
	l, err := eximLogin(dir)
	if err != nil || l != (relayLogin{"smtp.example", 465, true, "bob", relayPassword}) {
		t.Errorf("%v", err)
	}
	write("passwd.client", "other.example:x:y\n")
	if _, err := eximLogin(dir); err == nil {
		t.Error("a password out of nowhere")
	}
}
