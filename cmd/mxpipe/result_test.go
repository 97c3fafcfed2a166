package main

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/transport/status"
)

func TestExitStatus(t *testing.T) {
	for code, want := range map[string]int{
		"2.0.0": 0, "2.1.5": 0, "2.6.0": 0,
		"4.0.0": 75, "4.1.1": 75, "4.3.5": 75, "4.6.7": 75, "4.7.5": 75,
		"5.1.1": 67,
		"5.1.2": 68, "5.1.10": 68, "5.4.4": 68,
		"5.6.0": 65, "5.6.7": 65, "5.6.999": 65,
		"5.0.0": 69, "5.1.0": 69, "5.1.3": 69, "5.1.20": 69, "5.2.2": 69, "5.3.4": 69, "5.4.6": 69, "5.7.1": 69, "5.7.30": 69, "5.60.1": 69,
	} {
		c, _, ok := status.Parse(code)
		if got := exitStatus(c); !ok || got != want {
			t.Errorf("%s: %d, want %d", code, got, want)
		}
	}
	if got := exitStatus(status.Code{}); got != 75 {
		t.Errorf("no code: %d", got)
	}
}

// The first digit and the exit status agree for every code that there can be.
func TestExitStatusAgreesWithClass(t *testing.T) {
	for _, class := range []status.Class{status.Success, status.Temporary, status.Permanent} {
		for subject := range uint16(20) {
			for detail := range uint16(100) {
				c := status.New(class, subject, detail)
				got := exitStatus(c)
				ok := false
				switch class {
				case status.Success:
					ok = got == 0
				case status.Temporary:
					ok = got == 75
				case status.Permanent:
					ok = got == 65 || got == 67 || got == 68 || got == 69
				}
				if !ok {
					t.Errorf("%v: %d", c, got)
				}
			}
		}
	}
}

func line(r result) string { return string(r.appendLine(nil)) }

func TestLine(t *testing.T) {
	for _, c := range []struct{ code, text, want string }{
		{"2.0.0", "mx: 250 Ok", "2.0.0 mx: 250 Ok\n"},
		{"5.1.1", "", "5.1.1\n"},
		{"5.1.1", "\r\n", "5.1.1\n"},
		{"5.1.1", "a\r\n2.0.0 b", "5.1.1 a 2.0.0 b\n"},
		{"5.1.1", strings.Repeat("x", 2000), "5.1.1 " + strings.Repeat("x", 893) + "\n"},
		{"5.999.999", strings.Repeat("x", 2000), "5.999.999 " + strings.Repeat("x", 889) + "\n"},
		{"5.1.1", strings.Repeat("é", 2000), "5.1.1 " + strings.Repeat("é", 446) + "\n"},
	} {
		code, _, _ := status.Parse(c.code)
		got := line(result{code, c.text})
		if got != c.want || len(got) > 900 || !utf8.ValidString(got) {
			t.Errorf("%s %.20q: %q", c.code, c.text, got)
		}
	}
}

// An error of our own is never a bounce, whatever code it carries.
func TestFailureIsTemporary(t *testing.T) {
	for _, err := range []error{
		errors.New("plain"),
		&failure{status.New(status.Permanent, 1, 1), "x"},
		&failure{status.New(status.Success, 0, 0), "x"},
		&failure{text: "x"},
	} {
		if o := failed(err); exitStatus(o.code) != 75 || line(o)[0] != '4' {
			t.Errorf("%#v: %q", err, line(o))
		}
	}
}

func TestOutcomeOf(t *testing.T) {
	for _, c := range []struct {
		name      string
		answer    wire.Answer
		committed bool
		status    int
		line      string
	}{
		{"success", wire.Answer{Code: "2.0.0", Text: "mx: 250 Ok"}, true, 0, "2.0.0 mx: 250 Ok\n"},
		{"early refusal", wire.Answer{Code: "5.7.0", Text: "no"}, false, 69, "5.7.0 no\n"},
		{"early delay", wire.Answer{Code: "4.3.2", Text: "later"}, false, 75, "4.3.2 later\n"},
		{"success of nothing", wire.Answer{Code: "2.0.0", Text: "Ok"}, false, 75, "4.3.0 the daemon reported success for a message that was not committed\n"},
		{"no code", wire.Answer{Text: "Ok"}, true, 75, "4.3.0 the daemon's answer has no status code\n"},
	} {
		o := outcomeOf(c.answer, c.committed)
		if exitStatus(o.code) != c.status || line(o) != c.line {
			t.Errorf("%s: %d %q", c.name, exitStatus(o.code), line(o))
		}
	}
}
