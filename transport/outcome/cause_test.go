package outcome

import (
	"errors"
	"testing"

	"github.com/mxpipe/mxpipe/transport/limit"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestCauseOf(t *testing.T) {
	failed := errors.New("x")
	for _, c := range []struct {
		s    status.Error
		want string
	}{
		{status.Error{Code: status.New(status.Success, 0, 0), Text: "250 ok"}, ""},
		{status.Error{Code: status.New(status.Temporary, 7, 1), Text: "450 4.7.1 greylisted"}, "remote-4xx"},
		{status.Error{Code: status.New(status.Temporary, 4, 5), Text: "421-4.7.0 slow"}, "remote-4xx"},
		{status.Error{Code: status.New(status.Permanent, 1, 1), Text: "550 no such user"}, "remote-5xx"},
		{status.Error{Code: status.New(status.Temporary, 3, 4), Text: "552 too big, made temporary"}, "remote-5xx"},
		{status.Error{Code: status.New(status.Temporary, 4, 5), Err: &limit.Error{}}, "limit"},
		{status.Error{Code: status.New(status.Temporary, 4, 5), Text: "provider google is paused"}, "limit"},
		{status.Error{Code: status.New(status.Temporary, 4, 1), Err: failed}, "connect"},
		{status.Error{Code: status.New(status.Temporary, 4, 2), Err: failed}, "connect"},
		{status.Error{Code: status.New(status.Temporary, 4, 3), Err: failed}, "dns"},
		{status.Error{Code: status.New(status.Permanent, 1, 10), Text: "null MX"}, "dns"},
		{status.Error{Code: status.New(status.Permanent, 4, 4), Text: "no such domain"}, "dns"},
		{status.Error{Code: status.New(status.Temporary, 7, 5), Err: failed}, "tls"},
		{status.Error{Code: status.New(status.Temporary, 7, 5), Text: "the MTA-STS policy does not list it"}, "policy"},
		{status.Error{Code: status.New(status.Permanent, 7, 30), Text: "REQUIRETLS"}, "policy"},
		{status.Error{Code: status.New(status.Temporary, 3, 2), Text: "mxpolicyd is stopping"}, "own"},
		{status.Error{Code: status.New(status.Permanent, 3, 4), Text: "5000 bytes, more than it takes"}, "own"},
	} {
		if got := CauseOf(&c.s).String(); got != c.want {
			t.Errorf("%v: %q, want %q", c.s.Code, got, c.want)
		}
	}
	if len(causeWords) != len(Causes)+1 {
		t.Error("a cause without a word, or without its place in the list")
	}
}
