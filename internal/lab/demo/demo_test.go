package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"testing"

	"go.uber.org/goleak"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// roleVariable makes the test's own binary be the demo.
const roleVariable = "MXPIPE_DEMO_ROLE"

func TestMain(m *testing.M) {
	if os.Getenv(roleVariable) != "" {
		os.Exit(start())
	}
	code := m.Run()
	if bins.dir != "" {
		os.RemoveAll(bins.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// bins are the two programs, built once.
var bins struct {
	once sync.Once
	dir  string
	err  error
}

// programs builds mxpipe and mxpolicyd, the daemon with the race detector when
// the test has it.
func programs(t *testing.T) string {
	t.Helper()
	bins.once.Do(func() {
		if bins.dir, bins.err = os.MkdirTemp("", "mxpipe-bin-"); bins.err != nil {
			return
		}
		if bins.err = readSources(); bins.err != nil {
			return
		}
		daemon := []string{"../../../cmd/mxpolicyd"}
		if raceDetector() {
			daemon = []string{"-race", daemon[0]}
		}
		for _, args := range [][]string{{"../../../cmd/mxpipe"}, daemon} {
			cmd := exec.Command("go", append([]string{"build", "-o", bins.dir + "/"}, args...)...)
			if out, err := cmd.CombinedOutput(); err != nil {
				bins.err = fmt.Errorf("go build: %w\n%s", err, out)
				return
			}
		}
	})
	if bins.err != nil {
		t.Fatal(bins.err)
	}
	return bins.dir
}

// readSources reads what the programs are built from. go test does not see what
// go build reads; this tells it that a kept result is out of date.
func readSources() error {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if .Module}}{{.Dir}}{{end}}", "../../../cmd/...").Output()
	if err != nil {
		return fmt.Errorf("go list: %w", err)
	}
	for _, dir := range strings.Fields(string(out)) {
		files, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			return err
		}
		for _, file := range files {
			if _, err := os.ReadFile(file); err != nil {
				return err
			}
		}
	}
	return nil
}

func raceDetector() bool {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return false
	}
	for _, s := range info.Settings {
		if s.Key == "-race" {
			return s.Value == "true"
		}
	}
	return false
}

// emptyDir makes a directory for temporary files, and sees to it that it is
// empty in the end, and that no process is left that was started with a file in
// it.
func emptyDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left behind: %v, %v", left, err)
		}
		processes, err := filepath.Glob("/proc/[0-9]*/cmdline")
		if err != nil {
			t.Error(err)
		}
		for _, p := range processes {
			// The error would be that the process has ended.
			if line, _ := os.ReadFile(p); bytes.Contains(line, []byte(dir+"/")) {
				t.Errorf("still running: %q", line)
			}
		}
	})
	t.Setenv("TMPDIR", dir)
	return dir
}

// Everything that the demo shows goes as it should.
func TestDemo(t *testing.T) {
	bin := programs(t)
	emptyDir(t)
	var out bytes.Buffer
	d := demo{bin: bin, table: newTable(&out, screen{}), messages: messages(), letters: letters(), asks: asks()}
	if err := d.run(t.Context()); err != nil {
		t.Errorf("%v\n%s", err, out.String())
	}
	for _, g := range messages() {
		for _, m := range g.messages {
			if !strings.Contains(out.String(), "\nok  "+m.domain+" ") {
				t.Errorf("no row for %s", m.domain)
			}
		}
	}
	for _, l := range letters() {
		if !strings.Contains(out.String(), "\nok  "+l.to+"\n    "+l.want+" <"+l.to+"> ") {
			t.Errorf("no answer for %s", l.to)
		}
	}
	for _, a := range asks() {
		if !strings.Contains(out.String(), a.want) {
			t.Errorf("no answer %s", a.want)
		}
	}
	if strings.ContainsAny(out.String(), "\r\x1b") {
		t.Error("colours or progress in a file")
	}
	if !strings.Contains(out.String(), "All went as it should") {
		t.Error("no summary")
	}
}

// What is not as it should be is told, with the daemon's log, and makes the run
// fail.
func TestUnexpectedIsTold(t *testing.T) {
	bin := programs(t)
	emptyDir(t)
	var out bytes.Buffer
	d := demo{bin: bin, table: newTable(&out, screen{}), messages: []group{{"", []message{
		{domain: "none.example", want: deferred("4.7.5", "DANE")},
		{domain: "dane-wrong.example", want: delivered("mx.dane-wrong.example", overTLS, "dane")},
		{domain: "plain.example", want: delivered("mx.plain.example", plaintext, "plaintext")},
	}}}, letters: []letter{{"ben@plain.example", "451 4.7.5", ""}, {"ben@none.example", "250 2.0.0", "queued as"}, {"ben@nowhere.example", "550 5.4.4", "another reason"}}, asks: []ask{{domain: "dane-ee.example", want: "dane-only"}, {domain: "sts.example", want: "dane"}, {domain: "both.example"}}}
	if err := d.run(t.Context()); !errors.Is(err, errUnexpected) {
		t.Errorf("%v", err)
	}
	for _, part := range []string{
		"!!  none.example",
		"NOT AS EXPECTED: exit status 0 instead of 75",
		"NOT AS EXPECTED: mx.none.example got the message, which no server should have got",
		"!!  dane-wrong.example",
		"NOT AS EXPECTED: 0 deliveries instead of one to mx.dane-wrong.example",
		"ok  plain.example",
		"The log of mxpolicyd about DEMO01, none.example",
		"msg=delivered id=",
		"queue_id=DEMO02",
		"!!  ben@plain.example",
		"NOT AS EXPECTED: the answer should begin with \"451 4.7.5\" and say \"\"",
		"ok  ben@none.example",
		"!!  ben@nowhere.example",
		"NOT AS EXPECTED: 2 answers by LMTP",
		"ok  dane-ee.example",
		"!!  sts.example",
		"NOT AS EXPECTED: the answer does not begin with \"dane\"",
		"!!  both.example",
		"NOT AS EXPECTED: there should be no policy",
		"NOT AS EXPECTED: 2 answers to Postfix",
		"4 NOT AS EXPECTED",
	} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, out.String())
		}
	}
	if strings.Contains(out.String(), "queue_id=DEMO03") {
		t.Errorf("the log of what went well is shown:\n%s", out.String())
	}
}

// With -v the configuration and the log are shown.
func TestVerbose(t *testing.T) {
	bin := programs(t)
	emptyDir(t)
	var out bytes.Buffer
	d := demo{bin: bin, verbose: true, table: newTable(&out, screen{}), messages: []group{{"", []message{
		{domain: "none.example", want: delivered("mx.none.example", overTLS, "encrypted")},
	}}}}
	if err := d.run(t.Context()); err != nil {
		t.Error(err)
	}
	for _, part := range []string{"| hostname: mail.demo.example", "msg=starting", "msg=delivered"} {
		if !strings.Contains(out.String(), part) {
			t.Errorf("no %q in\n%s", part, out.String())
		}
	}
}

func TestNoPrograms(t *testing.T) {
	emptyDir(t)
	d := demo{bin: t.TempDir(), table: newTable(io.Discard, screen{}), messages: messages()}
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "make build") {
		t.Errorf("%v", err)
	}
}

func TestUnknownDomain(t *testing.T) {
	bin := programs(t)
	emptyDir(t)
	d := demo{bin: bin, table: newTable(io.Discard, screen{}), messages: []group{{"", []message{{domain: "other.example"}}}}}
	if err := d.run(t.Context()); err == nil || errors.Is(err, errUnexpected) {
		t.Errorf("a message to a domain that the lab does not have: %v", err)
	}
}

// A daemon that does not start is no reason to wait, and its log says why.
func TestDaemonThatDoesNotStart(t *testing.T) {
	broken := t.TempDir()
	for name, text := range map[string]string{"mxpipe": "", "mxpolicyd": "#!/bin/sh\necho out of luck >&2; exit 1\n"} {
		if err := forks.WriteFile(filepath.Join(broken, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	emptyDir(t)
	d := demo{bin: broken, table: newTable(io.Discard, screen{}), messages: messages()}
	if err := d.run(t.Context()); err == nil || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("%v", err)
	}
}

// An interrupted demo, and one whose reader goes away, leave nothing behind.
func TestInterrupt(t *testing.T) {
	bin := programs(t)
	for name, interrupt := range map[string]func(p *os.Process, out io.Closer) error{
		"INT":         func(p *os.Process, _ io.Closer) error { return p.Signal(os.Interrupt) },
		"TERM":        func(p *os.Process, _ io.Closer) error { return p.Signal(syscall.SIGTERM) },
		"broken pipe": func(_ *os.Process, out io.Closer) error { return out.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			emptyDir(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			cmd := exec.CommandContext(ctx, os.Args[0], "-bin", bin)
			cmd.Env = append(os.Environ(), roleVariable+"=demo")
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewScanner(out)
			for lines.Scan() && !strings.HasPrefix(lines.Text(), "ok ") {
			}
			if err := interrupt(cmd.Process, out); err != nil {
				t.Error(err)
			}
			for lines.Scan() {
			}
			if cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
				t.Errorf("%v", cmd.ProcessState)
			}
		})
	}
}
