// Package status holds the enhanced mail system status codes of RFC 3463, the
// "D.S.N" that every answer of mxpipe starts with, and the one structured error
// that carries such a code through the transport.
//
// The first digit, the class, is what the mail server acts on: 2 forgets the
// message, 4 keeps it in the queue, 5 bounces it. Because a wrong 5 loses mail
// and a wrong 4 only delays it, everything that is our own trouble is
// [Temporary]; [Permanent] belongs to the remote server's own refusal, to an
// address that is proven impossible, and to REQUIRETLS (RFC 8689).
package status

import (
	"errors"
	"strconv"
)

// Class is the first digit of a status code (RFC 3463 §2).
type Class uint8

// The three classes of RFC 3463. The zero Class is no class at all.
const (
	Success   Class = 2
	Temporary Class = 4
	Permanent Class = 5
)

// Code is an enhanced status code. The zero Code means that there is none.
type Code struct {
	Class   Class
	Subject uint16 // 0 to 999
	Detail  uint16 // 0 to 999
}

// New builds a code from its three numbers.
func New(class Class, subject, detail uint16) Code {
	return Code{Class: class, Subject: subject, Detail: detail}
}

// IsZero reports whether there is no code.
func (c Code) IsZero() bool { return c.Class == 0 }

// WithClass returns the code with its class replaced: a remote server's
// "4.7.1" after a 550 reply is a 5.7.1.
func (c Code) WithClass(class Class) Code {
	c.Class = class
	return c
}

// String gives the dotted form, as in "4.7.5".
func (c Code) String() string { return string(c.Append(make([]byte, 0, 9))) }

// Append appends the dotted form to dst.
func (c Code) Append(dst []byte) []byte {
	dst = strconv.AppendUint(dst, uint64(c.Class), 10)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, uint64(c.Subject), 10)
	dst = append(dst, '.')
	return strconv.AppendUint(dst, uint64(c.Detail), 10)
}

// Parse reads a code at the very start of text and returns it with what
// follows, its separating blank removed. The code must be followed by a blank
// or by the end, its class must be 2, 4 or 5, and its other numbers must have
// one to three digits without a leading zero (RFC 2034 §4, RFC 3463 §2);
// otherwise ok is false and rest is the whole text.
func Parse(text string) (code Code, rest string, ok bool) {
	if len(text) < len("2.0.0") || text[1] != '.' {
		return Code{}, text, false
	}
	c := Class(text[0] - '0')
	if c != Success && c != Temporary && c != Permanent {
		return Code{}, text, false
	}
	subject, tail, ok1 := number(text[2:])
	if !ok1 || tail == "" || tail[0] != '.' {
		return Code{}, text, false
	}
	detail, rest, ok2 := number(tail[1:])
	if !ok2 || rest != "" && rest[0] != ' ' && rest[0] != '\t' {
		return Code{}, text, false
	}
	if rest != "" {
		rest = rest[1:]
	}
	return Code{c, subject, detail}, rest, true
}

// number reads one to three digits without a leading zero, and returns what
// follows.
func number(s string) (n uint16, rest string, ok bool) {
	i := 0
	for ; i < len(s) && s[i] >= '0' && s[i] <= '9'; i++ {
		if i == 3 || i == 1 && n == 0 {
			return 0, s, false
		}
		n = n*10 + uint16(s[i]-'0')
	}
	return n, s[i:], i > 0
}

// Error is the transport's one structured error: what the mail server is to be
// told about a recipient, and why. The caller passes Code and Error() on to
// the mail server as they are, and compares classes to choose among several.
type Error struct {
	Code Code
	Host string // the remote host it is about; empty when it is about none
	// how the host was reached, as in "192.0.2.1, dane, TLS1.3"; may be empty
	Via  string
	Text string // one line for people, without Host, Via, Moment and Code
	// Moment is what is true of it only now, such as when the host is tried
	// again; may be empty. It is told apart from the reason, so that equal
	// reasons read alike in every message.
	Moment string
	Err    error // the cause, for errors.Is; may be nil
	// Unreached says that the host had nothing to do with the message: it could
	// not be reached, turned everybody away, or distrusts our address. Another
	// way to the recipients may be taken.
	Unreached bool
}

// Error gives the line for people: "host: text". When Text is empty the cause
// speaks; when both are there, the cause follows the text.
func (e *Error) Error() string {
	text := e.Text
	switch {
	case e.Err == nil:
	case text == "":
		text = Words(e.Err)
	default:
		text += ": " + Words(e.Err)
	}
	if e.Host == "" {
		return text
	}
	return e.Host + ": " + text
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Words gives an error in words for people: where the package of the standard
// library that met a time-out says "context deadline exceeded" or "read tcp
// 192.0.2.1:40122->192.0.2.25:25: i/o timeout", it says "timed out".
func Words(err error) string {
	text := err.Error()
	var timeout interface { // net.Error, without importing package net
		error
		Timeout() bool
		Temporary() bool
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		// Package strings would cost every start of mxpipe five page faults.
		end := timeout.Error()
		if at := len(text) - len(end); at >= 0 && text[at:] == end {
			return text[:at] + "timed out"
		}
	}
	return text
}

// From gives err as the Error that it is or wraps, or else makes one of it.
func From(err error, code Code, host string) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return &Error{Code: code, Host: host, Err: err}
}
