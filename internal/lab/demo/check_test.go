package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// good is a result as it should be, and what is wanted.
func good() (want, result) {
	m := &message{domain: "a.example", to: []string{"ben"}, queueID: "DEMO01", text: []byte("Subject: x\n\nhello\n")}
	return delivered("mx.a.example", overTLS, "dane"), result{
		message: m,
		output:  "2.0.0 mx.a.example: 250 ok (127.0.0.2, dane, TLS1.3, id=ab)\n",
		log:     []string{"one", "two"},
		dialled: []string{"mx.a.example"},
		arrivals: []arrival{{"mx.a.example", mx.Message{
			Sender: sender, Recipients: []mx.Recipient{{Address: "ben@a.example"}}, TLS: &tls.ConnectionState{},
			Body: []byte("Subject: x\r\n\r\nhello\r\n"),
		}}},
	}
}

// Everything that could go wrong is seen.
func TestCheck(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(w *want, r *result)
		wrong string
	}{
		"exit status":        {func(_ *want, r *result) { r.exit = 75 }, "exit status 75 instead of 0"},
		"code":               {func(_ *want, r *result) { r.output = "2.1.5 dane\n" }, `status code "2.1.5" instead of "2.0.0"`},
		"text":               {func(w *want, _ *result) { w.says = "mtasts" }, `mxpipe does not say "mtasts"`},
		"two lines":          {func(_ *want, r *result) { r.output = "2.0.0 dane\nmore\n" }, "no single line"},
		"no line end":        {func(_ *want, r *result) { r.output = "2.0.0 dane" }, "no single line"},
		"long line":          {func(_ *want, r *result) { r.output = "2.0.0 dane " + strings.Repeat("x", 900) + "\n" }, "no single line"},
		"dialled":            {func(w *want, _ *result) { *w = w.undialled() }, "connected to mx.a.example"},
		"log":                {func(w *want, _ *result) { *w = w.logging("three") }, `does not log "three"`},
		"arrived nowhere":    {func(_ *want, r *result) { r.arrivals = nil }, "0 deliveries"},
		"arrived twice":      {func(_ *want, r *result) { r.arrivals = slices.Repeat(r.arrivals, 2) }, "2 deliveries"},
		"arrived":            {func(w *want, _ *result) { w.at = "" }, "no server should have got"},
		"arrived elsewhere":  {func(_ *want, r *result) { r.arrivals[0].host = "mx.b.example" }, "mx.b.example got the message instead"},
		"plaintext":          {func(_ *want, r *result) { r.arrivals[0].TLS = nil }, "over TLS: false"},
		"TLS":                {func(w *want, _ *result) { w.tls = false }, "over TLS: true"},
		"sender":             {func(_ *want, r *result) { r.arrivals[0].Sender = "" }, `arrived from ""`},
		"one recipient more": {func(_ *want, r *result) { r.arrivals[0].Recipients = slices.Repeat(r.arrivals[0].Recipients, 2) }, "arrived for"},
		"other recipient":    {func(w *want, _ *result) { *w = w.delivering("mx.a.example", "ann") }, "arrived for"},
		"REQUIRETLS lost":    {func(w *want, _ *result) { *w = w.requiringTLS() }, "REQUIRETLS passed on: false"},
		"REQUIRETLS made up": {func(_ *want, r *result) { r.arrivals[0].Params = []string{"REQUIRETLS"} }, "REQUIRETLS passed on: true"},
		"body":               {func(_ *want, r *result) { r.arrivals[0].Body = []byte("Subject: x\r\n\r\nhello \r\n") }, "not what was sent"},
		"line ends":          {func(_ *want, r *result) { r.arrivals[0].Body = r.message.text }, "not what was sent"},
	} {
		w, r := good()
		c.spoil(&w, &r)
		if got := w.check(&r); len(got) == 0 || !strings.Contains(strings.Join(got, "\n"), c.wrong) {
			t.Errorf("%s: %q, should be %q", name, got, c.wrong)
		}
	}
	if w, r := good(); len(w.check(&r)) > 0 {
		t.Errorf("a good result: %q", w.check(&r))
	}
}

// What stands in the columns comes from mxpipe's line.
func TestColumns(t *testing.T) {
	for _, c := range []struct{ output, host, via string }{
		{"2.0.0 mx.a.example: 250 ok (127.0.0.2, dane, TLS1.3, reused, id=ab)\n", "mx.a.example", "dane, TLS1.3, reused"},
		{"2.0.0 mx.a.example: 250 ok (fine) (127.0.0.2, plaintext, id=ab)\n", "mx.a.example", "plaintext"},
		{"2.0.0 mx.a.example: 250 ok (::1, plaintext, id=ab)\n", "mx.a.example", "plaintext"},
		{"4.7.5 mx.a.example: DANE: no (127.0.0.2, id=ab)\n", "mx.a.example", ""},
		{"4.3.2 the daemon is not there\n", "", ""},
		{"4.2.0 3 recipients, 1 deferred: deferred <a@b> (4.2.0 mx.b: later (127.0.0.1, dane, id=a))\n", "", ""},
		{"", "", ""},
	} {
		r := result{output: c.output}
		if r.host() != c.host || r.via() != c.via {
			t.Errorf("%q: %q and %q, should be %q and %q", c.output, r.host(), r.via(), c.host, c.via)
		}
	}
}

// A terminal gets colours, progress, and nothing wider than it is; NO_COLOR and
// files get none.
func TestTableOnTerminals(t *testing.T) {
	_, r := good()
	r.message.about = "a domain"
	r.output = "2.0.0 mx.a.example: 250 " + strings.Repeat("word ", 100) + "(127.0.0.2, dane, TLS1.3, id=ab)\n"
	for _, s := range []screen{{}, {terminal: true, width: 80}, {terminal: true, width: 200}, {terminal: true, width: 80, colour: true}} {
		var out bytes.Buffer
		table := newTable(&out, s)
		table.progress("starting")
		table.row(&r)
		text := out.String()
		if strings.Contains(text, "\r") != s.terminal || strings.Contains(text, "\x1b[32m") != s.colour {
			t.Errorf("%+v: %q", s, text)
		}
		for line := range strings.Lines(text) {
			if s.terminal && !s.colour && len(line) > s.width+len("... starting\r\x1b[K\r\x1b[K") {
				t.Errorf("%+v: %q", s, line)
			}
		}
		for _, part := range []string{"ok", "a.example", "a domain", "0 delivered", "mx ", "dane, TLS1.3", "id=ab"} {
			if !strings.Contains(text, part) {
				t.Errorf("%+v: no %q in %q", s, part, text)
			}
		}
	}
}

func TestSummary(t *testing.T) {
	_, fine := good()
	bad := fine
	bad.exit, bad.problems = 1, []string{"bad"}
	for _, c := range []struct {
		results  []result
		problems []string
		err      error
		says     string
	}{
		{[]result{fine, fine}, nil, nil, "2 messages: 2 delivered. All went as it should, in 1.5 s."},
		{[]result{fine, bad}, nil, errUnexpected, "2 messages: 1 delivered, 1 lost. 1 NOT AS EXPECTED"},
		{[]result{fine}, []string{"broken"}, errUnexpected, "NOT AS EXPECTED: broken"},
	} {
		var out bytes.Buffer
		err := newTable(&out, screen{}).summary(c.results, c.problems, 1500*time.Millisecond)
		if !errors.Is(err, c.err) || !strings.Contains(out.String(), c.says) {
			t.Errorf("%v, %q; should be %q", err, out.String(), c.says)
		}
	}
}
