package setup

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// commandTime bounds each program that is run.
const commandTime = time.Minute

// Machine is the host that is set up. NewMachine gives this one.
type Machine struct {
	// Run runs a program and gives what it prints on standard output.
	Run func(ctx context.Context, argv ...string) (string, error)
	// Records is the directory of the records.
	Records string
}

// NewMachine is this host, with records in a directory.
func NewMachine(records string) Machine { return Machine{Run: run, Records: records} }

// run runs a program, also where an ordinary user's PATH does not lead. What it
// says on standard error is part of the error.
func run(ctx context.Context, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTime)
	defer cancel()
	program, err := exec.LookPath(argv[0])
	if err != nil {
		program = "/usr/sbin/" + argv[0]
	}
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// current is what is there now.
func (m Machine) current(ctx context.Context, kind Kind, name string) (*string, error) {
	switch kind {
	case MainCF:
		out, err := m.Run(ctx, "postconf", "-n", name)
		if err != nil {
			return nil, err
		}
		return setting(out, name), nil
	case MasterCF:
		out, err := m.Run(ctx, "postconf", "-M", name)
		if err != nil {
			return nil, err
		}
		return entryOf(out, name), nil
	case File:
		text, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		value := string(text)
		return &value, err
	case Secret:
		return currentSecret(name)
	case Member:
		group, user, _ := strings.Cut(name, ":")
		out, err := m.Run(ctx, "id", "-nG", user)
		if err != nil || !slices.Contains(strings.Fields(out), group) {
			return nil, err
		}
		value := user
		return &value, nil
	}
	return nil, fmt.Errorf("a record of another version has a change of the kind %q", kind)
}

// apply makes a change.
func (m Machine) apply(ctx context.Context, c Change) error {
	var err error
	switch {
	case c.none():
	case c.Kind == MainCF && c.After != nil:
		_, err = m.Run(ctx, "postconf", "-e", c.Name+" = "+*c.After)
	case c.Kind == MainCF:
		_, err = m.Run(ctx, "postconf", "-X", c.Name)
	case c.Kind == MasterCF && c.After != nil:
		_, err = m.Run(ctx, "postconf", "-M", "-e", c.Name+"="+*c.After)
	case c.Kind == MasterCF:
		_, err = m.Run(ctx, "postconf", "-M", "-X", c.Name)
	case c.Kind == File && c.After != nil:
		err = writeFile(c.Name, *c.After)
	case c.Kind == File:
		err = os.Remove(c.Name)
		if dir := filepath.Dir(c.Name); err == nil && strings.HasSuffix(dir, ".d") {
			_ = os.Remove(dir) // unless something else is in it
		}
	case c.Kind == Secret && c.After != nil:
		err = writeSecret(c.Name, c.secret)
	case c.Kind == Secret:
		err = os.Remove(c.Name)
	case c.Kind == Member:
		group, user, _ := strings.Cut(c.Name, ":")
		if c.After != nil {
			_, err = m.Run(ctx, "usermod", "-aG", group, user)
		} else {
			_, err = m.Run(ctx, "gpasswd", "-d", user, group)
		}
	default:
		err = fmt.Errorf("a record of another version has a change of the kind %q", c.Kind)
	}
	return err
}

// writeFile writes a file that others may read: a new one whole or not at all,
// one that is there in its place, so that its mode, owner and links stay.
func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
		return os.WriteFile(path, []byte(text), info.Mode().Perm())
	}
	return replace(path, text, func(f *os.File) error { return f.Chmod(0o644) })
}

// replace writes a file under another name first. It is the writer's alone,
// mode 0600, before equip makes it anything else; nil: it stays so.
func replace(path, text string, equip func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	if equip != nil {
		err = equip(f)
	}
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// record is where it is written what undoes a set-up.
func (m Machine) record(server string) string {
	return filepath.Join(m.Records, "setup-"+server+".json")
}

// load reads a record. The error is ErrNothingToUndo when there is none.
func (m Machine) load(server string) (p Plan, err error) {
	text, err := os.ReadFile(m.record(server))
	if errors.Is(err, fs.ErrNotExist) {
		return p, ErrNothingToUndo
	}
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return Plan{}, fmt.Errorf("%s: %w", m.record(server), err)
	}
	return p, nil
}

// save writes a record.
func (m Machine) save(p Plan) error {
	text, err := json.MarshalIndent(p, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(m.Records, 0o755); err != nil {
		return err
	}
	return replace(m.record(p.Server), string(text)+"\n", nil)
}

// forget removes a record.
func (m Machine) forget(server string) error {
	err := os.Remove(m.record(server))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
