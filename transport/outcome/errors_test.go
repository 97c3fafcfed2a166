package outcome

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/transport/reply"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestForError(t *testing.T) {
	timeout := &net.OpError{Op: "read", Net: "tcp", Err: os.ErrDeadlineExceeded}
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	hungUp := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNRESET)}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	alert := &net.OpError{Op: "remote error", Err: errors.New("tls: certificate required")}
	garbage := fmt.Errorf("%w: x", reply.ErrMalformed)
	dns := &status.Error{Code: status.New(status.Temporary, 4, 3), Text: "SERVFAIL"}
	loop := &status.Error{Code: status.New(status.Permanent, 4, 6), Text: "ourselves"}
	policy := &status.Error{Code: status.New(status.Temporary, 7, 4), Text: "no DANE match"}
	for _, test := range []struct {
		stage    Stage
		err      error
		accepted int
		want     string
		ref      string
	}{
		{Connect, refused, 0, "4.4.1 close next", "RFC 3463 §3.5 X.4.1; Postfix"},
		{Connect, timeout, 0, "4.4.1 close next", "RFC 3463 §3.5 X.4.1; Postfix"},
		{Connect, hungUp, 0, "4.4.2 close next", "tcp(7): a reset in SYN-SENT is ECONNREFUSED; it was connected"},
		{Connect, errors.Join(refused, hungUp), 0, "4.4.2 close next", "one of the addresses answered"},
		{Connect, fmt.Errorf("look-up: %w", dns), 0, "4.4.3 close next", "RFC 3463 §3.5 X.4.3"},
		{Connect, loop, 0, "4.4.6 close next", "an error is never permanent"},
		{Greeting, io.EOF, 0, "4.4.2 close next", "RFC 5321 §3.8; Postfix smtp_stream_except"},
		{Greeting, timeout, 0, "4.4.2 close next", "RFC 5321 §4.5.3.2.1; Postfix"},
		{Greeting, garbage, 0, "4.5.0 close next", "RFC 5321 §4.2"},
		{EHLO, io.EOF, 0, "4.4.2 close next", "RFC 5321 §3.8"},
		{HELO, reset, 0, "4.4.2 close next", "RFC 5321 §3.8"},
		{STARTTLS, io.EOF, 0, "4.4.2 close next tls", "RFC 3207 §4.1"},
		{STARTTLS, timeout, 0, "4.4.2 close next tls", "RFC 3207 §4.1"},
		{STARTTLS, garbage, 0, "4.5.0 close next tls", "RFC 3207 §4.1"},
		{Handshake, alert, 0, "4.7.5 close next tls", "RFC 3207 §4.1; Postfix 4.7.5"},
		{Handshake, io.EOF, 0, "4.7.5 close next tls", "RFC 3207 §4.1; Postfix 4.7.5"},
		{Handshake, policy, 0, "4.7.4 close next tls", "DESIGN §7, verdict"},
		{EHLOAfterTLS, alert, 0, "4.4.2 close next tls", "RFC 8446 §4.4.2.4: refused after the handshake"},
		{EHLOAfterTLS, timeout, 0, "4.4.2 close next", "RFC 5321 §4.5.3.2"},
		{EHLOAfterTLS, garbage, 0, "4.5.0 close next", "RFC 5321 §4.2"},
		{MAIL, io.EOF, 0, "4.4.2 close next", "RFC 5321 §3.8"},
		{MAIL, timeout, 0, "4.4.2 close next", "RFC 5321 §4.5.3.2.2"},
		{RCPT, io.EOF, 0, "4.4.2 close next", "RFC 5321 §3.8"},
		{RCPT, io.EOF, 2, "4.4.2 close next", "RFC 5321 §3.8: no message was sent"},
		{RCPT, garbage, 0, "4.5.0 close next", "RFC 5321 §4.2"},
		{RCPT, garbage, 1, "4.5.0 close", "RFC 5321 §4.2"},
		{RCPT, reply.ErrTooLong, 0, "4.5.0 close next", "DESIGN §7"},
		{DATA, io.EOF, 1, "4.4.2 close next", "RFC 5321 §3.8"},
		{DATA, io.EOF, 0, "4.4.2 close", "nothing is left"},
		{Body, reset, 1, "4.4.2 close next", "RFC 5321 §4.1.1.4: no end, no message"},
		{Body, timeout, 1, "4.4.2 close next", "RFC 5321 §4.5.3.2.5"},
		{BDAT, timeout, 1, "4.4.2 close next", "RFC 3030 §2: LAST was not sent"},
		{Final, io.EOF, 1, "4.4.2 close", "RFC 5321 §4.5.3.2.6, RFC 1047: it may have been accepted"},
		{Final, timeout, 1, "4.4.2 close", "RFC 1047"},
		{Final, garbage, 1, "4.5.0 close", "RFC 1047"},
		{Final, garbage, 0, "4.5.0 close", "RFC 1047"},
		{RSET, io.EOF, 0, "4.4.2 close", "RFC 5321 §4.1.1.5"},
		{MAIL, context.Canceled, 0, "4.3.2 close", "nothing waits any more"},
		{Handshake, context.Canceled, 0, "4.3.2 close", "nothing waits: no new attempt in the clear"},
		{Final, fmt.Errorf("x: %w", context.Canceled), 1, "4.3.2 close", "nothing waits any more"},
	} {
		if got := show(ForError(test.stage, test.err, test.accepted)); got != test.want {
			t.Errorf("%v, %v, %d accepted: got %q, want %q (%s)", test.stage, test.err, test.accepted, got, test.want, test.ref)
		}
	}
}

func TestForErrorIsAlwaysTemporary(t *testing.T) {
	permanent := &status.Error{Code: status.New(status.Permanent, 1, 1)}
	success := &status.Error{Code: status.New(status.Success, 0, 0)}
	for stage := Connect; stage <= RSET+1; stage++ {
		for _, err := range []error{nil, io.EOF, permanent, success, &status.Error{}, context.Canceled, context.DeadlineExceeded} {
			for _, accepted := range []int{0, 1} {
				d := ForError(stage, err, accepted)
				if d.Code.Class != status.Temporary || d.Accepted || d.Conn != Close {
					t.Errorf("%v, %v: %s", stage, err, show(d))
				}
				if stage == Final && d.NextHost {
					t.Errorf("Final, %v: a second copy may arrive", err)
				}
			}
		}
	}
}

func TestMostTemporary(t *testing.T) {
	make := func(host string, class status.Class, subject, detail uint16) *status.Error {
		return &status.Error{Host: host, Code: status.New(class, subject, detail)}
	}
	lost := make("lost", 4, 4, 2)
	noAnswer := make("no answer", 4, 4, 1)
	grey := make("grey", 4, 2, 0)
	dane := make("dane", 4, 7, 5)
	noUser := make("no user", 5, 1, 1)
	noRoute := make("no route", 5, 4, 4)
	none := make("none", 0, 0, 0)
	for _, test := range []struct {
		why  string
		errs []*status.Error
		want *status.Error
	}{
		{"nothing", nil, nil},
		{"only nil", []*status.Error{nil, nil}, nil},
		{"one", []*status.Error{nil, noUser}, noUser},
		{"temporary first", []*status.Error{lost, noUser}, lost},
		{"temporary last", []*status.Error{noUser, noRoute, lost}, lost},
		{"the first of equals", []*status.Error{grey, dane}, grey},
		{"the first of equals, network", []*status.Error{noAnswer, lost}, noAnswer},
		{"policy tells more than the network", []*status.Error{noAnswer, dane, lost}, dane},
		{"permanent: the host's word tells more", []*status.Error{noRoute, noUser}, noUser},
		{"the network's trouble still beats a refusal", []*status.Error{noUser, noAnswer}, noAnswer},
	} {
		if got := MostTemporary(test.errs); got != test.want {
			t.Errorf("%s: got %v", test.why, got)
		}
	}
	if got := MostTemporary([]*status.Error{noUser, none}); got.Host != "none" || got.Code.Class != status.Temporary {
		t.Errorf("an error without a class: %v", got)
	}
	if none.Code.Class != 0 {
		t.Error("the caller's error was changed")
	}
}
