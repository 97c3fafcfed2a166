package main

import (
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

// appendLine appends the result as the line on standard output.
func (r result) appendLine(dst []byte) []byte {
	dst = r.code.Append(dst)
	if text := wire.Printable(r.text, maxLine-len(dst)-len(" \n")); text != "" {
		dst = append(append(dst, ' '), text...)
	}
	return append(dst, '\n')
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
	case status.Code{Class: status.Permanent, Subject: 1, Detail: 1}:
		return exitNoUser
	case status.Code{Class: status.Permanent, Subject: 1, Detail: 2},
		status.Code{Class: status.Permanent, Subject: 1, Detail: 10},
		status.Code{Class: status.Permanent, Subject: 4, Detail: 4}:
		return exitNoHost
	}
	if c.Subject == 6 {
		return exitDataErr
	}
	return exitUnavailable
}

// The codes of our own errors (RFC 3463 §3.4, §3.5), all temporary.
var (
	codeSystem     = status.Code{Class: status.Temporary, Subject: 3, Detail: 0}
	codeNoDaemon   = status.Code{Class: status.Temporary, Subject: 3, Detail: 2}
	codeConfigured = status.Code{Class: status.Temporary, Subject: 3, Detail: 5}
	codeTime       = status.Code{Class: status.Temporary, Subject: 4, Detail: 7}
)

// failure is an error of our own. It is temporary.
type failure struct {
	code status.Code
	text string
}

// Error gives the line for people.
func (f *failure) Error() string { return f.text }

func localError(code status.Code, text string) error { return &failure{code, text} }

// failed gives the result of an error of our own. It is temporary, whatever the
// error says.
func failed(err error) result {
	if f, ok := err.(*failure); ok {
		return result{code: f.code.WithClass(status.Temporary), text: f.text}
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
