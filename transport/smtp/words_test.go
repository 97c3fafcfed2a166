package smtp_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/transport/smtp"
)

// What became of a connection reads alike each time it does, and as people say
// it: no port of ours, no EOF.
func TestWords(t *testing.T) {
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: port} }
	for _, c := range []struct {
		err  error
		want string
	}{
		{&net.OpError{Op: "read", Net: "tcp", Source: addr(40122), Addr: addr(25), Err: os.NewSyscallError("read", syscall.ECONNRESET)}, "read: connection reset by peer"},
		{fmt.Errorf("malformed: %w", &net.OpError{Op: "write", Net: "tcp", Source: addr(40122), Addr: addr(25), Err: os.NewSyscallError("write", syscall.EPIPE)}), "malformed: write: broken pipe"},
		{&net.OpError{Op: "read", Net: "tcp", Source: addr(40122), Addr: addr(25), Err: os.ErrDeadlineExceeded}, "timed out"},
		{context.DeadlineExceeded, "timed out"},
		{io.EOF, "the server closed the connection"},
		{fmt.Errorf("reply: %w", io.ErrUnexpectedEOF), "reply: the server closed the connection"},
		{errors.New("a GEOF"), "a GEOF"},
	} {
		if got := smtp.Words(c.err); got != c.want {
			t.Errorf("%v: %q, want %q", c.err, got, c.want)
		}
	}
}
