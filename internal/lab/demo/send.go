package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// result is what came of one message.
type result struct {
	message  *message
	exit     int
	output   string // of mxpipe, both streams
	log      []string
	arrivals []arrival
	dialled  []string // hosts that were connected to
	problems []string // what is not as it should be
}

// arrival is a message that a mail server took responsibility for.
type arrival struct {
	host string
	mx.Message
}

// send hands one message over, as pipe(8) of Postfix does, and finds out what
// came of it. The error is that of ctx, or says that mxpipe could not be
// started.
func (d *demo) send(ctx context.Context, m *message) (result, error) {
	args := append([]string{"--socket", d.daemon.socket, "--queue-id", m.queueID, "--timeout", "30s", "--body", "8bitmime", "-f", sender}, m.args...)
	args = append(args, "--")
	args = append(args, m.recipients(m.to)...)
	var output bytes.Buffer
	cmd := exec.CommandContext(ctx, d.mxpipe, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(m.text), &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Run()
	var ended *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return result{}, ctx.Err()
	case err != nil && !errors.As(err, &ended):
		return result{}, fmt.Errorf("mxpipe: %w", err)
	}
	r := result{message: m, exit: cmd.ProcessState.ExitCode(), output: output.String(), log: d.daemon.news()}
	r.arrivals, r.dialled = d.news()
	r.problems = m.want.check(&r)
	return r, nil
}

// recipients makes addresses out of local parts.
func (m *message) recipients(locals []string) []string {
	all := make([]string, len(locals))
	for i, local := range locals {
		all[i] = local + "@" + m.domain
	}
	return all
}

// want is what must come of a message.
type want struct {
	exit       int
	code       string   // the first word of mxpipe's line
	says       string   // a part of it
	at         string   // the host that gets the message; "": none
	tls        bool     // over TLS
	who        []string // local parts of those who get it; nil: everyone
	noDial     bool     // no mail server may be connected to
	requireTLS bool     // the message goes on with REQUIRETLS
	logged     string   // a part of the log
}

func (w want) undialled() want          { w.noDial = true; return w }
func (w want) requiringTLS() want       { w.requireTLS = true; return w }
func (w want) logging(part string) want { w.logged = part; return w }
func (w want) delivering(at string, who ...string) want {
	w.at, w.who, w.tls = at, who, overTLS
	return w
}

// maxLine is how long mxpipe's line may be, its end included.
const maxLine = 900

// check compares, and gives what is not as it should be in words.
func (w *want) check(r *result) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	line := strings.TrimSuffix(r.output, "\n")
	code, _, _ := strings.Cut(line, " ")
	if r.exit != w.exit {
		complain("exit status %d instead of %d", r.exit, w.exit)
	}
	if code != w.code {
		complain("status code %q instead of %q", code, w.code)
	}
	if !strings.Contains(line, w.says) {
		complain("mxpipe does not say %q", w.says)
	}
	if strings.Contains(line, "\n") || len(line) == len(r.output) || len(r.output) > maxLine {
		complain("mxpipe says no single line of at most %d bytes", maxLine)
	}
	if w.noDial && len(r.dialled) > 0 {
		complain("connected to %s, which should not have been", strings.Join(r.dialled, ", "))
	}
	if w.logged != "" && !strings.Contains(strings.Join(r.log, "\n"), w.logged) {
		complain("mxpolicyd does not log %q", w.logged)
	}
	switch {
	case w.at == "":
		for _, a := range r.arrivals {
			complain("%s got the message, which no server should have got", a.host)
		}
	case len(r.arrivals) != 1:
		complain("%d deliveries instead of one to %s", len(r.arrivals), w.at)
	default:
		wrong = append(wrong, w.checkArrival(r.message, &r.arrivals[0])...)
	}
	return wrong
}

// checkArrival compares what arrived, and how, with what was sent.
func (w *want) checkArrival(m *message, a *arrival) (wrong []string) {
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	if a.host != w.at {
		complain("%s got the message instead of %s", a.host, w.at)
	}
	if (a.TLS != nil) != w.tls {
		complain("arrived over TLS: %v, should be %v", a.TLS != nil, w.tls)
	}
	if a.Sender != sender {
		complain("arrived from %q", a.Sender)
	}
	who := w.who
	if who == nil {
		who = m.to
	}
	var got []string
	for _, r := range a.Recipients {
		got = append(got, r.Address)
	}
	if want := m.recipients(who); !slices.Equal(got, want) {
		complain("arrived for %q instead of %q", got, want)
	}
	if _, asked := a.Param("REQUIRETLS"); asked != w.requireTLS {
		complain("REQUIRETLS passed on: %v, should be %v", asked, w.requireTLS)
	}
	// In the mail every line ends with CRLF (RFC 5321 §2.3.8).
	if !bytes.Equal(a.Body, bytes.ReplaceAll(m.text, []byte("\n"), []byte("\r\n"))) {
		complain("what arrived is not what was sent")
	}
	return wrong
}

// host finds, in mxpipe's line, the host that it is about; "" if it is about
// none.
func (r *result) host() string {
	_, rest, _ := strings.Cut(r.output, " ")
	host, _, ok := strings.Cut(rest, ": ")
	if !ok || strings.ContainsAny(host, " <,") {
		return ""
	}
	return host
}

// via finds, in mxpipe's line, how safe the connection was: "dane, TLS1.3" of
// "... (127.0.0.2, dane, TLS1.3, id=ab)". It is "" where there was none that
// would do.
func (r *result) via() string {
	if r.host() == "" {
		return ""
	}
	open := strings.LastIndexByte(r.output, '(')
	if open < 0 {
		return ""
	}
	var parts []string
	for _, part := range strings.Split(strings.TrimRight(r.output[open+1:], ")\n"), ", ") {
		if net.ParseIP(part) == nil && !strings.HasPrefix(part, "id=") {
			parts = append(parts, part)
		}
	}
	return strings.Join(parts, ", ")
}
