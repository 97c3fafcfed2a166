package status

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
)

// A time-out is told as one, no matter what noticed it; other errors keep their
// text.
func TestWords(t *testing.T) {
	read := &net.OpError{Op: "read", Net: "tcp", Source: &net.TCPAddr{Port: 40122}, Addr: &net.TCPAddr{Port: 25}, Err: os.ErrDeadlineExceeded}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: errors.New("connection reset by peer")}
	for _, tt := range []struct {
		err  error
		want string
	}{
		{context.DeadlineExceeded, "timed out"},
		{fmt.Errorf("reading the policy: %w", context.DeadlineExceeded), "reading the policy: timed out"},
		{read, "timed out"},
		{fmt.Errorf("TLS with mta-sts.a.example: %w", read), "TLS with mta-sts.a.example: timed out"},
		{&Error{Host: "mx.a.example", Text: "not now", Err: read}, "mx.a.example: not now: timed out"},
		{&Error{Err: fmt.Errorf("greeting: %w", &Error{Err: read})}, "greeting: timed out"},
		{reset, "read tcp: connection reset by peer"},
		{context.Canceled, "context canceled"},
		{io.EOF, "EOF"},
	} {
		got := Words(tt.err)
		if got != tt.want || strings.Contains(got, "deadline") {
			t.Errorf("%v: %q, want %q", tt.err, got, tt.want)
		}
	}
}
