package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// lmtpOut starts a Postfix for one test that brings all mail to an mxpolicyd by
// LMTP.
func lmtpOut(t *testing.T, d *daemon, mainCF string) *postfix {
	t.Helper()
	entry, limits, err := lmtpEntry()
	if err != nil {
		t.Fatal(err)
	}
	return anotherOutOf(t, entry, limits+"default_transport = "+d.lmtpNexthop()+"\n"+mainCF)
}

// What Postfix knows of a message travels: the bytes, the parameters, those of
// a delivery status notification too.
func TestLMTPCarriesEverything(t *testing.T) {
	t.Parallel()
	w := lab(t)
	text := difficult("bytes-by-postfix-lmtp")
	m := mail{from: unique(t, "bytes") + "@" + keepDomain, to: []string{unique(t, "lmtp") + "@" + inDomain}, text: text, params: "BODY=8BITMIME"}
	p := lmtpOut(t, w.daemon, "")
	f := p.sent(t, p.submit(t, m), 1)
	got := w.in.arrived(t, m.to[0])
	if match := queuedAs.FindStringSubmatch(f.text); match == nil || match[1] != got.queueID {
		t.Errorf("the log does not show that it was queued as %s: %+v", got.queueID, f)
	}
	if rest := got.original(t, received...); got.sender != m.from || !bytes.Equal(rest, text) {
		t.Errorf("from %s arrived:\n%q\nfrom %s was sent:\n%q", got.sender, rest, m.from, text)
	}

	s, domain := remote(t, "lmtp", modern(t))
	m = note("a@"+keepDomain, "b@"+domain)
	m.params, m.notify = "RET=HDRS ENVID=an+2Bid", "NOTIFY=FAILURE,DELAY ORCPT=rfc822;first+2Blast@"+domain
	id := w.out.submit(t, m)
	w.out.sent(t, id, 1)
	arrived := received1(t, s, id)
	if ret, _ := arrived.Param("RET"); ret != "HDRS" {
		t.Errorf("MAIL parameters %v", arrived.Params)
	}
	if envid, _ := arrived.Param("ENVID"); envid != "an+2Bid" {
		t.Errorf("MAIL parameters %v", arrived.Params)
	}
	if got := fmt.Sprint(arrived.Recipients[0].Params); !strings.Contains(got, "NOTIFY=FAILURE,DELAY") && !strings.Contains(got, "NOTIFY=DELAY,FAILURE") ||
		!strings.Contains(got, "ORCPT=rfc822;first+2Blast@"+domain) {
		t.Errorf("RCPT parameters %s", got)
	}
}

// The addresses go through Postfix and LMTP, and come out the same.
func TestLMTPAddresses(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s, domain := remote(t, "lmtp", modern(t))
	for _, local := range []string{`"with blank"`, `"quote\"d"`, `"back\\slash"`, `"at@sign"`, `"(comment)"`, `"<>"`, `"\"in quotes\""`, `"\"x\""`, `"a,b"`, `-f`, `a=b`, "{x}", `UPPER.lower`} {
		m := note(local+"@"+keepDomain, local+"@"+domain)
		id := w.out.submit(t, m)
		w.out.sent(t, id, 1)
		if got := received1(t, s, id); got.Sender != m.from || got.Recipients[0].Address != m.to[0] {
			t.Errorf("%s to %s arrived as %s to %s", m.from, m.to[0], got.Sender, got.Recipients[0].Address)
		}
	}
}

// Many messages go over few connections, on both sides, and none is lost or
// sent twice.
func TestLMTPThousandMessages(t *testing.T) {
	t.Parallel()
	const messages = 1000
	gate := make(chan struct{})
	behaviour := modern(t)
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate}}
	s, domain := remote(t, "lmtp", behaviour)
	d := startDaemon(t, settings{transport: "    limits: {all: {rate: 100000/1s}, source: {rate: 100000/1s}}\n    conn_reuse_limit: 1000\n"})
	p := lmtpOut(t, d, "mxlmtp_destination_concurrency_limit = 10\n")
	cmd := exec.Command("smtp-source", "-c", "-m", strconv.Itoa(messages), "-s", "5", "-d", "-l", "2000",
		"-f", "a@"+keepDomain, "-t", "b@"+domain, p.address)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out)
	}
	// Postfix keeps a connection open while more is waiting for it.
	close(gate)
	type count struct{ sent, connections int }
	line := regexp.MustCompile(`(?m) relay=.*, status=sent .*$`)
	got := await(t, "all messages to be sent", func() (count, bool) {
		c := count{}
		for _, l := range line.FindAllString(logText(p.log), -1) {
			c.sent++
			if !strings.Contains(l, "conn_use=") {
				c.connections++
			}
		}
		return c, c.sent == messages
	}, p.log)
	if n := s.Counters().Messages; n != messages {
		t.Errorf("%d messages arrived, %d were sent", n, messages)
	}
	if n := s.Counters().Connections; got.connections > messages/20 || n > messages/20 {
		t.Errorf("%d LMTP connections and %d SMTP connections for %d messages", got.connections, n, messages)
	}
	if text, _ := os.ReadFile(p.log); bytes.Contains(text, []byte("status=deferred")) || bytes.Contains(text, []byte("status=bounced")) {
		t.Error("not every try went well")
	}
}

// The daemon is stopped while the remote server thinks: the delivery ends,
// Postfix hears so, and of an idle connection that it has kept it loses
// nothing.
func TestLMTPTermLetsDeliveriesEnd(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var s settings
	d := startDaemon(t, s)
	p := lmtpOut(t, d, "lmtp_connection_cache_destinations = unix:"+d.lmtp+"\nlmtp_connection_cache_time_limit = 1h\n")
	gate := make(chan struct{})
	behaviour := modern(t)
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Skip: 1}}
	server, domain := remote(t, "lmtp", behaviour)
	p.sent(t, p.submit(t, note("a@"+keepDomain, "idle@"+domain)), 1)
	id := p.submit(t, note("a@"+keepDomain, "b@"+domain))
	await(t, "the message at the server", func() (int, bool) {
		n := server.Counters().Verbs["MAIL"]
		return n, n == 2
	}, p.log)
	if err := d.process.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.logged(t, `msg=stopping`)
	close(gate)
	p.sent(t, id, 1)
	<-d.done
	d.told.close()
	if err := d.start(w, s); err != nil {
		t.Fatal(err)
	}
	id = p.submit(t, note("a@"+keepDomain, "c@"+domain))
	p.sent(t, id, 1)
	if n := server.Counters().Messages; n != 3 {
		t.Errorf("%d messages arrived, want 3", n)
	}
}

// Postfix hangs up, or is killed, while the server thinks about the message,
// and tries again: it is not sent a second time.
func TestLMTPHangsUp(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, way := range []string{"time-out", "kill"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			behaviour := modern(t)
			behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate, Skip: 1, Times: 1}}
			s, domain := remote(t, "lmtp", behaviour)
			entry, limits, err := lmtpEntry()
			if err != nil {
				t.Fatal(err)
			}
			if way == "time-out" {
				entry = strings.Replace(entry, "lmtp_data_done_timeout=1200s", "lmtp_data_done_timeout=2s", 1)
			}
			p := anotherOutOf(t, entry, limits+"default_transport = "+w.daemon.lmtpNexthop()+"\n")
			// A process that is killed before its first message is over is not
			// started again for a minute.
			p.sent(t, p.submit(t, note("a@"+keepDomain, "first@"+domain)), 1)
			id := p.submit(t, note("a@"+keepDomain, "b@"+domain))
			await(t, "the message at the server", func() (int, bool) {
				n := s.Counters().Verbs["MAIL"]
				return n, n == 2
			}, p.log)
			if way == "time-out" {
				p.deferred(t, id, 1, `4\.4\.2`, `timed out .* end of data`)
			} else {
				p.killDelivery(t, "lmtp")
				p.waiting(t, id)
			}
			close(gate)
			w.daemon.logged(t, `did not wait for the answer.* queue_id=`+id)
			p.retry(t, id)
			p.done(t, id)
			list := p.attempts(id)
			if last := list[len(list)-1]; last.status != "sent" || !strings.Contains(last.text, "mx."+domain+": 250 ") {
				t.Errorf("%+v", last)
			}
			if n := s.Counters().Messages; n != 2 {
				t.Errorf("delivered %d times", n-1)
			}
		})
	}
}

// killDelivery kills the one process that delivers by a service.
func (p *postfix) killDelivery(t *testing.T, service string) {
	t.Helper()
	out, err := exec.Command("pgrep", "-P", strconv.Itoa(p.cmd.Process.Pid), "-x", service).Output()
	if err != nil {
		t.Fatalf("pgrep %s: %v", service, err)
	}
	for _, field := range strings.Fields(string(out)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
}

// A message beyond max_message_size is refused before it is sent, and one that
// grows beyond it behind.
func TestLMTPMaxMessageSize(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, settings{top: "max_message_size: 1MiB\n"})
	p := lmtpOut(t, d, "")
	s, domain := remote(t, "lmtp", modern(t))
	m := note(unique(t, "large")+"@"+keepDomain, "b@"+domain)
	m.to = append(m.to, "c@"+domain)
	m.text = append(m.text, bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)...)
	id := p.submit(t, m)
	for _, f := range p.tries(t, id, 2) {
		if f.status != "bounced" || f.dsn != "5.3.4" || !strings.Contains(f.text, "max_message_size") {
			t.Errorf("want a bounce with 5.3.4: %+v", f)
		}
	}
	if n := s.Counters().Messages; n != 0 {
		t.Errorf("%d messages arrived", n)
	}
}
