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

// outcome is what the mail server is told.
type outcome struct {
	code status.Code
	text string
}

// line gives the outcome as the line on standard output.
func (o outcome) line() string {
	code := o.code.String()
	text := wire.Printable(o.text, maxLine-len(code)-len(" \n"))
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

// The codes of our own trouble (RFC 3463 §3.4, §3.5), all temporary.
var (
	codeSystem     = status.New(status.Temporary, 3, 0)
	codeNoDaemon   = status.New(status.Temporary, 3, 2)
	codeConfigured = status.New(status.Temporary, 3, 5)
	codeTime       = status.New(status.Temporary, 4, 7)
)

func trouble(code status.Code, text string) error {
	return &status.Error{Code: code, Text: text}
}

// failure gives the outcome for trouble of our own. It is temporary, whatever
// the error says.
func failure(err error) outcome {
	var e *status.Error
	if errors.As(err, &e) {
		return outcome{code: e.Code.WithClass(status.Temporary), text: e.Error()}
	}
	return outcome{code: codeSystem, text: err.Error()}
}

// verdict gives the outcome for the daemon's answer. A success counts only
// when the message was committed.
func verdict(a wire.Answer, committed bool) outcome {
	code, _, ok := status.Parse(a.Code)
	if !ok {
		return outcome{code: codeSystem, text: "the daemon's answer has no status code"}
	}
	if code.Class == status.Success && !committed {
		return outcome{code: codeSystem, text: "the daemon reported success for a message that was not committed"}
	}
	return outcome{code: code, text: a.Text}
}
