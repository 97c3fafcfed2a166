// Package script is an SMTP server that plays a dialogue that a test writes
// down, and holds the client to it.
//
// A dialogue is text that reads like an example of an RFC: one step on each
// line, empty lines and lines that begin with
// # ignored, indentation of no account.
//
//	S: 220 mx.example ESMTP
//	C: EHLO *
//	S: 250-mx.example
//	S: 250 STARTTLS
//	C: STARTTLS
//	S: 220 go
//	TLS good
//	C: EHLO *
//	S: 250-mx.example
//	S: 250 PIPELINING
//	C: MAIL FROM:<*>
//	C: RCPT TO:<a@b.example>
//	C: DATA
//	S: 250 sender ok
//	S: 250 recipient ok
//	S: 354 go
//	BODY
//	S: 250 2.0.0 queued as X1
//	C: QUIT
//	S: 221 bye
//
// The client's part:
//
//	C: PATTERN     one line, ended by CRLF, that matches; * is any run of bytes,
//	               \* a star, \\ a backslash
//	C? PATTERN     the same, but another line, or the end of the stream, is left
//	               for the next step
//	BODY           the body of a DATA command, up to and including CRLF.CRLF
//	BDAT           a BDAT command and its chunk; LAST completes a body (RFC 3030
//	               §2)
//	READ N         N bytes, whatever they are
//	FLIGHTS N      the client has sent N flights up to here, so it has waited
//	               for N-1 answers
//	QUIET [TIME]   nothing unread has arrived, nor arrives within TIME (20ms):
//	               the client waits for an answer
//	REST           everything until the client closes
//	END            the client closes, and sends nothing before
//
// The server's part:
//
//	S: TEXT        a line; CRLF is added
//	RAW "BYTES"    bytes in Go's quoting, as they are: half a line, a bare LF,
//	               two replies at once
//	RECORDS "BYTES" ...  each in a TLS record of its own, all of them at once
//	REPEAT N "BYTES"
//	TLS NAME       shake hands with the configuration of that name; the client
//	               must accept
//	TLS NAME fails the same; the client must refuse
//	TLSALERT       wait for the ClientHello and answer it with a
//	               handshake_failure alert
//	SLEEP TIME     at most 10s
//	WAIT GATE      until the test calls Server.Open with this name
//	MARK NAME      tells Server.WaitMark that the script has come this far
//	DROP           close the connection without a word; ends the script
//	RESET          close it with a TCP reset; ends the script
//	ENDLESS "BYTES" repeat them until the client hangs up, which it must do
//	               within 64 MiB; ends the script
//	DRIP TIME "BYTES" the same, one byte at a time with a pause after each; ends
//	               the script
//
// Lines C: with no line S: between them are one flight: the server answers none
// before it has read them all, so a client that waits for an answer in between
// fails the script by a time-out. When the script is over the server closes the
// connection in good order. The first step that does not go as written ends the
// conversation; Server.Close and Conversation.Err tell which it was.
//
// The same steps exist as Go values (Send, Expect, StartTLS and so on) for
// dialogues that are computed.
package script

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Bounds on what one step can take or give.
const (
	maxLine  = 64 << 10
	maxBytes = 64 << 20
	maxSleep = 10 * time.Second
	quiet    = 20 * time.Millisecond
)

// Script is the dialogue of one connection.
type Script []Step

// Step is one step of a dialogue. String returns it as Parse reads it.
type Step interface {
	fmt.Stringer
	play(*player) error
}

// Parse reads a dialogue. The error names the line.
func Parse(text string) (Script, error) {
	var s Script
	for i, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		step, err := parseStep(line)
		if err != nil {
			return nil, fmt.Errorf("script line %d %q: %w", i+1, line, err)
		}
		s = append(s, step)
	}
	return s, s.check()
}

// check finds steps that can never be reached.
func (s Script) check() error {
	for i, step := range s {
		if last, ok := step.(ending); ok && i < len(s)-1 {
			return fmt.Errorf("script: %s must be the last step, but %s follows", last, s[i+1])
		}
	}
	return nil
}

func parseStep(line string) (Step, error) {
	for prefix, step := range map[string]func(string) Step{"S:": Send, "C:": Expect, "C?": Allow} {
		if text, ok := strings.CutPrefix(line, prefix); ok {
			return step(strings.TrimPrefix(text, " ")), nil
		}
	}
	word, arg, _ := strings.Cut(line, " ")
	arg = strings.TrimSpace(arg)
	if constructor, ok := plainSteps[word]; ok {
		if arg != "" {
			return nil, fmt.Errorf("%s takes no argument", word)
		}
		return constructor(), nil
	}
	switch word {
	case "TLS":
		return parseTLS(arg)
	case "READ", "FLIGHTS":
		n, err := parseCount(arg)
		if word == "READ" {
			return Read(n), err
		}
		return Flights(n), err
	case "SLEEP":
		return parseSleep(arg)
	case "QUIET":
		if arg == "" {
			return Quiet(quiet), nil
		}
		d, err := parseTime(arg)
		return Quiet(d), err
	case "WAIT":
		if arg == "" {
			return nil, fmt.Errorf("WAIT needs the name of a gate")
		}
		return WaitFor(arg), nil
	case "MARK":
		if arg == "" {
			return nil, fmt.Errorf("MARK needs a name")
		}
		return Mark(arg), nil
	case "RAW", "ENDLESS":
		text, err := strconv.Unquote(arg)
		if err != nil || text == "" {
			return nil, fmt.Errorf("%s needs a quoted string", word)
		}
		if word == "RAW" {
			return Raw(text), nil
		}
		return Endless(text), nil
	case "RECORDS":
		return parseRecords(arg)
	case "REPEAT":
		return parseRepeat(arg)
	case "DRIP":
		return parseDrip(arg)
	}
	return nil, fmt.Errorf("no such step")
}

var plainSteps = map[string]func() Step{
	"BODY": Body, "BDAT": Chunk, "REST": Rest, "END": End, "TLSALERT": Alert, "DROP": Drop, "RESET": Reset,
}

func parseTLS(arg string) (Step, error) {
	switch words := strings.Fields(arg); {
	case len(words) == 1:
		return StartTLS(words[0]), nil
	case len(words) == 2 && words[1] == "fails":
		return FailTLS(words[0]), nil
	}
	return nil, fmt.Errorf("TLS needs a name, and perhaps the word fails")
}

func parseRecords(arg string) (Step, error) {
	var parts []string
	for arg != "" {
		quoted, err := strconv.QuotedPrefix(arg)
		if err != nil {
			return nil, fmt.Errorf("RECORDS needs quoted strings")
		}
		part, _ := strconv.Unquote(quoted)
		parts = append(parts, part)
		arg = strings.TrimSpace(arg[len(quoted):])
	}
	if len(parts) == 0 {
		return nil, fmt.Errorf("RECORDS needs quoted strings")
	}
	return Records(parts...), nil
}

func parseRepeat(arg string) (Step, error) {
	count, quoted, _ := strings.Cut(arg, " ")
	n, err := parseCount(count)
	if err != nil {
		return nil, err
	}
	text, err := strconv.Unquote(strings.TrimSpace(quoted))
	if err != nil {
		return nil, fmt.Errorf("REPEAT needs a number and a quoted string")
	}
	if n > maxBytes/max(len(text), 1) {
		return nil, fmt.Errorf("more than %d bytes", maxBytes)
	}
	return Repeat(n, text), nil
}

func parseSleep(arg string) (Step, error) {
	d, err := parseTime(arg)
	return Sleep(d), err
}

func parseDrip(arg string) (Step, error) {
	pause, quoted, _ := strings.Cut(arg, " ")
	d, err := parseTime(pause)
	if err != nil {
		return nil, err
	}
	text, err := strconv.Unquote(strings.TrimSpace(quoted))
	if err != nil || text == "" {
		return nil, fmt.Errorf("DRIP needs a time and a quoted string")
	}
	return Drip(d, text), nil
}

func parseCount(arg string) (int, error) {
	n, err := strconv.Atoi(arg)
	if err != nil || n < 0 || n > maxBytes {
		return 0, fmt.Errorf("a number from 0 to %d is wanted", maxBytes)
	}
	return n, nil
}

func parseTime(arg string) (time.Duration, error) {
	d, err := time.ParseDuration(arg)
	if err != nil || d < 0 || d > maxSleep {
		return 0, fmt.Errorf("a time up to %s is wanted", maxSleep)
	}
	return d, nil
}

// match says whether text fits a pattern in which * is any run of bytes and a
// backslash makes the next byte literal.
func match(pattern, text string) bool {
	var parts []string // the literals between the stars
	var part strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch {
		case pattern[i] == '*':
			parts = append(parts, part.String())
			part.Reset()
			continue
		case pattern[i] == '\\' && i+1 < len(pattern):
			i++
		}
		part.WriteByte(pattern[i])
	}
	last := part.String()
	if len(parts) == 0 {
		return text == last
	}
	text, ok := strings.CutPrefix(text, parts[0])
	if !ok {
		return false
	}
	for _, middle := range parts[1:] {
		if _, text, ok = strings.Cut(text, middle); !ok {
			return false
		}
	}
	return strings.HasSuffix(text, last)
}
