package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/wire"
)

// crashing builds the program with a parse that crashes in the way that its
// first argument names.
func crashing(t *testing.T) func() ([]byte, error) {
	source, err := os.ReadFile("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	const head = "func (o *options) parse(args []string) error {\n"
	crash := head + `
	switch args[0] {
	case "panic":
		panic("crash")
	case "panic in a goroutine":
		go panic("crash")
		select {}
	case "nil dereference":
		o = nil
		o.socket = "x"
	case "deadlock":
		select {}
	case "concurrent map writes":
		m := map[int]int{}
		go func() {
			for {
				m[1] = 1
			}
		}()
		for {
			m[2] = 2
		}
	}
`
	if !bytes.Contains(source, []byte(head)) {
		t.Fatal("flags.go has no parse any more to put a crash into")
	}
	dir := t.TempDir()
	changed := filepath.Join(dir, "flags.go")
	if err := os.WriteFile(changed, bytes.Replace(source, []byte(head), []byte(crash), 1), 0o644); err != nil {
		t.Fatal(err)
	}
	original, err := filepath.Abs("flags.go")
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: changed}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o644); err != nil {
		t.Fatal(err)
	}
	return func() ([]byte, error) { return build("-overlay", file) }
}

// A crash must end by a signal: any exit status that Go could give bounces
// mail.
func TestCrashIsNoExit(t *testing.T) {
	file := install(t, crashing(t))
	for _, how := range []string{"panic", "panic in a goroutine", "nil dereference", "deadlock", "concurrent map writes"} {
		e := execute(t, file, strings.NewReader(shortMessage), how)
		if e.status != -1 || e.signal != syscall.SIGABRT || e.stdout != "" || e.stderr == "" {
			t.Errorf("%s: exit status %d, %v, %q, %.200q", how, e.status, e.signal, e.stdout, e.stderr)
		}
	}
}

// Signals from outside end the program as signals too, and a core file with a
// message in it is never allowed.
func TestSignalsAndCore(t *testing.T) {
	// Signals that the starter of the tests ignores (nohup) are not ignored
	// by the programs that these start.
	caught := make(chan os.Signal, 10)
	signal.Notify(caught, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	defer signal.Stop(caught)
	started := make(chan struct{}, 1)
	path := serve(t, func(c net.Conn) {
		r := wire.NewReader(c)
		if _, err := r.Envelope(); err != nil {
			t.Error(err)
		}
		started <- struct{}{}
		if _, err := io.Copy(io.Discard, r); err != wire.ErrUncommitted {
			t.Errorf("the end of a killed program: %v", err)
		}
	})
	for _, s := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGABRT, syscall.SIGSEGV, syscall.SIGKILL} {
		cmd := exec.CommandContext(t.Context(), program(t), "--socket", path, "-f", "s@example.org", "r@example.net")
		stdin, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if _, err := stdin.Write(message(bufferSize)); err != nil {
			t.Fatal(err)
		}
		<-started
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", cmd.Process.Pid))
		_, line, _ := strings.Cut(string(limits), "Max core file size")
		if f := strings.Fields(line); err != nil || len(f) < 2 || f[0] != "0" || f[1] != "0" {
			t.Errorf("core files are allowed: %v %.60q", err, line)
		}
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		if status := cmd.ProcessState.Sys().(syscall.WaitStatus); !status.Signaled() {
			t.Errorf("%v: exit status %d", s, status.ExitStatus())
		}
	}
}
