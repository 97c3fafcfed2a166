package main

import (
	"errors"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/transport/status"
)

// maxLine is the length of the line on standard output with its end.
const maxLine = 900

// The exit statuses, of which there are no others (sysexits.h).
const (
	exitOK          = 0
	exitDataErr     = 65
	exitNoUser      = 67
	exitNoHost      = 68
	exitUnavailable = 69
	exitTempFail    = 75
)

// result is what the mail server is told.
type result struct {
	code status.Code
	text string
}

// line gives the result as the line on standard output.
func (r result) line() string {
	code := r.code.String()
	text := wire.Printable(r.text, maxLine-len(code)-len(" \n"))
	if text == "" {
		return code + "\n"
	}
	return code + " " + text + "\n"
}

// exitStatus gives the exit status that says the same as a code. Whatever is
// neither a success nor a permanent failure is tried again.
func exitStatus(c status.Code) int {
	switch c.Class {
	case status.Success:
		return exitOK
	case status.Permanent:
	default:
		return exitTempFail
	}
	switch c {
	case status.New(status.Permanent, 1, 1):
		return exitNoUser
	case status.New(status.Permanent, 1, 2), status.New(status.Permanent, 1, 10), status.New(status.Permanent, 4, 4):
		return exitNoHost
	}
	if c.Subject == 6 {
		return exitDataErr
	}
	return exitUnavailable
}

// The codes of our own errors (RFC 3463 §3.4, §3.5), all temporary.
var (
	codeSystem     = status.New(status.Temporary, 3, 0)
	codeNoDaemon   = status.New(status.Temporary, 3, 2)
	codeConfigured = status.New(status.Temporary, 3, 5)
	codeTime       = status.New(status.Temporary, 4, 7)
)

func localError(code status.Code, text string) error {
	return &status.Error{Code: code, Text: text}
}

// failure gives the result of an error of our own. It is temporary, whatever
// the error says.
func failure(err error) result {
	var e *status.Error
	if errors.As(err, &e) {
		return result{code: e.Code.WithClass(status.Temporary), text: e.Error()}
	}
	return result{code: codeSystem, text: err.Error()}
}

// outcomeOf gives the result for the daemon's answer. A success counts only
// when the message was committed.
func outcomeOf(a wire.Answer, committed bool) result {
	code, _, ok := status.Parse(a.Code)
	if !ok {
		return result{code: codeSystem, text: "the daemon's answer has no status code"}
	}
	if code.Class == status.Success && !committed {
		return result{code: codeSystem, text: "the daemon reported success for a message that was not committed"}
	}
	return result{code: code, text: a.Text}
}
