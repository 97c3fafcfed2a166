package transport

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/forks"
	"github.com/mxpipe/mxpipe/internal/lab/ports"
	"github.com/mxpipe/mxpipe/transport/mtasts"
)

// renegotiating is an openssl s_server behind a few words of SMTP, as no server
// in Go can ask for renegotiation. When the client has said a command, it
// answers with a HelloRequest (RFC 5246 §7.4.1.1) instead of a reply.
type renegotiating struct {
	openssl string // where it listens
	at      string // the command
	stdin   io.WriteCloser
	asked   chan struct{}
}

func (l *lab) renegotiating(name, at string) *renegotiating {
	l.t.Helper()
	dir := l.t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	l.must(ca.WritePair(l.cert(ca.For(name)), cert, key))
	r := &renegotiating{openssl: ports.AddressFor(l.t), at: at, asked: make(chan struct{})}
	cmd := exec.Command("openssl", "s_server", "-accept", r.openssl, "-cert", cert, "-cert_chain", cert, "-key", key, "-tls1_2", "-crlf")
	var err error
	r.stdin, err = cmd.StdinPipe()
	l.must(err)
	out, err := cmd.StdoutPipe()
	l.must(err)
	if err := cmd.Start(); err != nil {
		l.t.Fatalf("%v (install openssl)", err)
	}
	addr := l.address()
	front, err := forks.Listen("tcp", fmt.Sprintf("%s:%d", addr, l.port))
	l.must(err)
	l.zone("%s. A %s", name, addr)
	ready, over := make(chan struct{}), make(chan struct{})
	go r.play(out, ready)
	go func() {
		defer close(over)
		if conn, err := front.Accept(); err == nil {
			r.relay(conn)
		}
	}()
	l.t.Cleanup(func() {
		front.Close()
		cmd.Process.Kill()
		cmd.Wait()
		<-over
	})
	<-ready
	return r
}

// play answers what the client says inside TLS, which openssl prints.
func (r *renegotiating) play(out io.Reader, ready chan<- struct{}) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		verb, _, _ := strings.Cut(lines.Text(), " ")
		switch {
		case verb == "ACCEPT":
			close(ready)
		case verb == r.at:
			io.WriteString(r.stdin, "R\n")
			close(r.asked)
		case verb == "EHLO", verb == "MAIL":
			io.WriteString(r.stdin, "250 ok\n")
		}
	}
}

// relay greets in the clear, and hands the rest over.
func (r *renegotiating) relay(conn net.Conn) {
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, reply := range []string{"220 mx\r\n", "250-mx\r\n250 STARTTLS\r\n", "220 go\r\n"} {
		io.WriteString(conn, reply)
		if reply != "220 go\r\n" {
			in.ReadString('\n')
		}
	}
	server, err := net.Dial("tcp", r.openssl)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		io.Copy(server, in)
		server.Close()
	}()
	io.Copy(conn, server)
}

// TestRenegotiation: a server that wants to negotiate TLS anew has its
// connection closed; nothing more is said to it.
func TestRenegotiation(t *testing.T) {
	for _, at := range []string{"EHLO", "MAIL", "RCPT"} {
		t.Run(at, func(t *testing.T) {
			t.Parallel()
			l := newLab(t)
			server := l.renegotiating("mx.a.example", at)
			good := l.mx("good.example", nil)
			l.zone("a.example. MX 10 mx.a.example.\na.example. MX 20 good.example.")
			l.policy("a.example", mtasts.ModeEnforce, "mx.a.example", "good.example")
			l.start(everything)
			expect(t, l.send("b@a.example"), "2.0.0 good.example")
			select {
			case <-server.asked:
			default:
				t.Error("it never came as far as the renegotiation")
			}
			if tried := fmt.Sprint(l.lines("delivered")[0]["tried"]); !strings.HasPrefix(tried, "4.4.2 mx.a.example") || !strings.Contains(tried, "no renegotiation") {
				t.Errorf("the host failed with %q", tried)
			}
			counts(t, good, 1, 1)
		})
	}
}
