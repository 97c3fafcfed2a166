package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// tlspolModule is the neighbour that is measured beside mxpolicyd: the same
// version each time, so that runs can be compared.
const tlspolModule = "github.com/Zuplu/postfix-tlspol@v1.13.0"

// tlspol is a postfix-tlspol.
type tlspol struct {
	*child
	socket string
}

// tlspolProgram finds the program that -tlspol names, or builds it outside of
// this repository from the Go module proxy. The error says why there is none;
// then the comparison is left out, and the table says so.
func (b *bench) tlspolProgram() (string, error) {
	if b.tlspol != "" {
		return filepath.Abs(b.tlspol)
	}
	if _, err := exec.LookPath("go"); err != nil {
		return "", errors.New("there is no Go to build it with")
	}
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", tlspolModule)
	cmd.Dir = b.dir // and not within this module
	cmd.Env = append(os.Environ(), "GOBIN="+b.dir, "GOFLAGS=-mod=mod", "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
		return "", fmt.Errorf("its source cannot be had: %.200s", first)
	}
	return filepath.Join(b.dir, "postfix-tlspol"), nil
}

// startTlspol starts a postfix-tlspol that asks the same DNS. It logs each
// answer at its own level info.
func (b *bench) startTlspol(program, level string) (*tlspol, error) {
	dir, err := os.MkdirTemp(b.dir, "tlspol-")
	if err != nil {
		return nil, err
	}
	p := &tlspol{socket: filepath.Join(dir, "tlspol.sock")}
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf("server:\n  address: unix:%s\n  log-level: %s\n  prefetch: true\n  cache-file: %s\ndns:\n  address: %s\n",
		p.socket, level, filepath.Join(dir, "cache.db"), b.net.DNS())
	if err := os.WriteFile(config, []byte(text), 0o644); err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(program, "-config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if p.child, err = startChild(cmd, syscall.SIGKILL); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		conn, err := net.Dial("unix", p.socket)
		if err == nil {
			conn.Close()
			return p, nil
		}
		select {
		case <-p.ended:
			return nil, errors.New("postfix-tlspol ended at once")
		default:
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("postfix-tlspol does not listen: %w", err)
		}
	}
}
