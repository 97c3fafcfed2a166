package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/forks"
)

// terminator is a mail server whose TLS is that of "openssl s_server". The
// program knows no SMTP, so the test speaks it: until STARTTLS to the client,
// and from then on to the program, which has the connection spliced to it. Each
// connection has a program of its own.
type terminator struct {
	command []string // the program with its arguments
	dir     string   // for sockets
	wg      sync.WaitGroup
	ctx     context.Context

	mu    sync.Mutex
	count int
	said  []string // by programs that ended, for failures
}

// terminate starts a terminator at an address.
func terminate(t *testing.T, address string, command []string) *terminator {
	t.Helper()
	listener, err := forks.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &terminator{command: command, dir: folder(t), ctx: ctx}
	s.wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				s.serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		cancel()
		listener.Close()
		s.wg.Wait()
		if t.Failed() {
			t.Logf("%s:\n%s", command, strings.Join(s.said, "\n"))
		}
	})
	return s
}

// serve speaks SMTP over one connection.
func (s *terminator) serve(conn net.Conn) {
	plain := bufio.NewReader(conn)
	if !mailSession(plain, conn, "220 lab ESMTP\r\n", true) {
		return
	}
	s.mu.Lock()
	s.count++
	name := fmt.Sprint(s.count)
	s.mu.Unlock()
	var errs strings.Builder
	args := append([]string{"s_server", "-unix", name, "-naccept", "1", "-quiet"}, s.command[1:]...)
	cmd := exec.Command(s.command[0], args...)
	cmd.Dir = s.dir // a path of 32 characters is too long for s_server
	cmd.Stderr = &errs
	in, err := cmd.StdinPipe()
	if err != nil {
		return
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return
	}
	program, err := start("openssl s_server", cmd)
	if err != nil {
		return
	}
	defer func() {
		program.cmd.Process.Signal(syscall.SIGKILL)
		<-program.done
		s.mu.Lock()
		s.said = append(s.said, errs.String())
		s.mu.Unlock()
	}()
	inner, err := dialUnix(filepath.Join(s.dir, name), program)
	if err != nil {
		return
	}
	defer inner.Close()
	defer context.AfterFunc(s.ctx, func() { inner.Close() })()
	io.WriteString(conn, "220 go ahead\r\n")
	var splices sync.WaitGroup
	splices.Go(func() {
		io.Copy(inner, plain)
		inner.CloseWrite()
	})
	splices.Go(func() {
		io.Copy(conn, inner)
		conn.Close()
	})
	mailSession(bufio.NewReader(out), in, "", false)
	in.Close()
	program.cmd.Process.Signal(syscall.SIGKILL)
	splices.Wait()
}

// dialUnix connects as soon as the program listens.
func dialUnix(path string, program *process) (*net.UnixConn, error) {
	for {
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil || program.ended() {
			return conn, err
		}
		time.Sleep(time.Millisecond)
	}
}

// mailSession is SMTP's server without extensions. It ends when the client is
// gone, after QUIT, and at STARTTLS, which alone gives true.
func mailSession(r *bufio.Reader, w io.Writer, greeting string, offerTLS bool) bool {
	io.WriteString(w, greeting)
	for body := false; ; {
		line, err := r.ReadString('\n')
		if err != nil {
			return false
		}
		verb, _, _ := strings.Cut(strings.ToUpper(strings.TrimRight(line, "\r\n")), " ")
		reply := "250 2.0.0 ok\r\n"
		switch {
		case body && line == ".\r\n":
			body = false
		case body:
			continue
		case verb == "EHLO" && offerTLS:
			reply = "250-lab\r\n250 STARTTLS\r\n"
		case verb == "STARTTLS" && offerTLS:
			return true
		case verb == "DATA":
			body, reply = true, "354 go\r\n"
		case verb == "QUIT":
			io.WriteString(w, "221 2.0.0 bye\r\n")
			return false
		}
		io.WriteString(w, reply)
	}
}
