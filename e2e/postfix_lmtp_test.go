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

// lmtpOut starts a Postfix for one test that brings all mail to an mxpolicyd by LMTP.
func lmtpOut(t *testing.T, d *daemon, mainCF string) *postfix {
	t.Helper()
	entry, limits, err := lmtpEntry()
	if err != nil {
		t.Fatal(err)
	}
	return anotherOutOf(t, entry, limits+"default_transport = "+d.lmtpNexthop()+"\n"+mainCF)
}

// One message to six recipients on three domains, sent, deferred and bounced in one go: each recipient has a status of
// its own in Postfix's log, and each domain one transaction.
func TestLMTPEachRecipientHasItsStatus(t *testing.T) {
	t.Parallel()
	w := lab(t)
	s1, one := remote(t, "lmtp", modern(t))
	s2, two := remote(t, "lmtp", modern(t))
	three := w.newDomain("lmtp") // does not exist
	m := note(unique(t, "six")+"@"+keepDomain, "")
	m.to = []string{"fine@" + one, "nosuch@" + one, "later@" + two, "fine@" + two, "gone@" + three, "full@" + one}
	id := w.out.submit(t, m)
	got := map[string]string{}
	for _, f := range w.out.tries(t, id, len(m.to)) {
		got[f.to] = f.status + " " + f.dsn
		if _, domain, _ := strings.Cut(f.to, "@"); domain != three && !strings.Contains(f.text, "<"+f.to+"> mx."+domain+": ") {
			t.Errorf("the log does not tell what the remote server said: %+v", f)
		}
	}
	want := map[string]string{
		m.to[0]: "sent 2.0.0", m.to[1]: "bounced 5.1.1", m.to[2]: "deferred 4.2.0", m.to[3]: "sent 2.0.0", m.to[4]: "bounced 5.4.4", m.to[5]: "deferred 4.2.2",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for _, s := range []*mx.Server{s1, s2} {
		if c := s.Counters(); c.Messages != 1 || c.Verbs["MAIL"] != 1 {
			t.Errorf("%d transactions and %d messages at one server, want 1", c.Verbs["MAIL"], c.Messages)
		}
	}
	bounce := w.out.arrived(t, m.from)
	text := strings.Join(strings.Fields(string(bounce.text)), " ")
	for _, want := range []string{"no such user", "Final-Recipient: rfc822; nosuch@" + one, "Status: 5.1.1", "Final-Recipient: rfc822; gone@" + three, "Status: 5.4.4"} {
		if !strings.Contains(text, want) {
			t.Errorf("the bounce does not have %q:\n%s", want, bounce.text)
		}
	}
	// The two that were put off are tried again, and only they.
	habits := modern(t)
	habits.Recipients = nil
	s1.SetHabits(habits)
	s2.SetHabits(habits)
	w.out.flush(t, id)
	w.out.removed(t, id)
	served := map[string]int{}
	for _, s := range []*mx.Server{s1, s2} {
		for _, m := range s.Messages() {
			for _, r := range m.Recipients {
				served[r.Address]++
			}
		}
	}
	if want := map[string]int{m.to[0]: 1, m.to[2]: 1, m.to[3]: 1, m.to[5]: 1}; fmt.Sprint(served) != fmt.Sprint(want) {
		t.Errorf("served %v, want %v", served, want)
	}
}

// What Postfix knows of a message travels: the bytes, the parameters, those of a delivery status notification too.
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

	// A bounce goes out by LMTP as well.
	home, homeDomain := remote(t, "lmtp", modern(t))
	id = w.out.submit(t, note("author@"+homeDomain, "nosuch@"+domain))
	bounce := w.out.find(t, `bounce\[\d+\]: `+id+`: sender non-delivery notification: (\w+)`)
	w.out.sent(t, bounce, 1)
	if m := received1(t, home, bounce); m.Sender != "" || m.Recipients[0].Address != "author@"+homeDomain || !bytes.Contains(m.Body, []byte("no such user")) {
		t.Errorf("the bounce came from %q to %+v:\n%s", m.Sender, m.Recipients, m.Body)
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
	for _, m := range []mail{note("a@"+keepDomain, "jos\u00e9@"+domain), note("\u7528\u6237@"+keepDomain, "plain@"+domain), note("a@"+keepDomain, "\"\u00e9 \u00e8\"@"+domain)} {
		m.params = "SMTPUTF8"
		id := w.out.submit(t, m)
		w.out.sent(t, id, 1)
		got := received1(t, s, id)
		if _, ok := got.Param("SMTPUTF8"); !ok || got.Sender != m.from || got.Recipients[0].Address != m.to[0] {
			t.Errorf("%s to %s arrived as %s %v to %+v", m.from, m.to[0], got.Sender, got.Params, got.Recipients)
		}
	}
}

// Many messages go over few connections, on both sides, and none is lost or sent twice.
func TestLMTPThousandMessages(t *testing.T) {
	t.Parallel()
	const messages = 1000
	s, domain := remote(t, "lmtp", modern(t))
	d := startDaemon(t, settings{transport: "    limits: {all: {rate: 100000/1s}, source: {rate: 100000/1s}}\n    conn_reuse_limit: 1000\n"})
	p := lmtpOut(t, d, "mxlmtp_destination_concurrency_limit = 10\n")
	cmd := exec.Command("smtp-source", "-c", "-m", strconv.Itoa(messages), "-s", "5", "-d", "-l", "2000",
		"-f", "a@"+keepDomain, "-t", "b@"+domain, p.address)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("smtp-source: %v\n%s", err, out)
	}
	type count struct{ sent, connections int }
	line := regexp.MustCompile(`(?m) relay=.*, status=sent .*$`)
	got := await(t, "all messages to be sent", func() (count, bool) {
		text, _ := os.ReadFile(p.log)
		c := count{}
		for _, l := range line.FindAll(text, -1) {
			c.sent++
			if !bytes.Contains(l, []byte("conn_use=")) {
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

// Without the daemon mail is deferred; when it is there again, it goes, once.
func TestLMTPDaemonStoppedAndStarted(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var s settings
	d := startDaemon(t, s)
	server, domain := remote(t, "lmtp", modern(t))
	p := lmtpOut(t, d, "")
	if err := d.stop(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for _, from := range []string{"a@" + keepDomain, ""} {
		id := p.submit(t, note(from, "b@"+domain))
		p.deferred(t, id, 1, `4\.4\.1`, `connect to .*\[`+d.lmtp+`\]: (No such file or directory|Connection refused)`)
		d.told.close()
		if err := d.start(w, s); err != nil {
			t.Fatal(err)
		}
		p.flush(t, id)
		p.sent(t, id, 2)
		received1(t, server, id)
		if err := d.stop(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
}

// The daemon is stopped while the remote server thinks: the delivery ends, Postfix hears so, and of an idle connection
// that it has kept it loses nothing.
func TestLMTPTermLetsDeliveriesEnd(t *testing.T) {
	t.Parallel()
	w := lab(t)
	var s settings
	d := startDaemon(t, s)
	p := lmtpOut(t, d, "lmtp_connection_cache_destinations = unix:"+d.lmtp+"\nlmtp_connection_cache_time_limit = 1h\n")
	gate := make(chan struct{})
	habits := modern(t)
	habits.At = map[mx.Stage]mx.Act{mx.StageFinal: {Hold: gate, Skip: 1}}
	server, domain := remote(t, "lmtp", habits)
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

// Postfix hangs up, or is killed, while the server thinks about the message, and tries again: it is not sent a second
// time.
func TestLMTPHangsUp(t *testing.T) {
	t.Parallel()
	w := lab(t)
	for _, way := range []string{"time-out", "kill"} {
		t.Run(way, func(t *testing.T) {
			t.Parallel()
			gate := make(chan struct{})
			habits := modern(t)
			habits.At = map[mx.Stage]mx.Act{mx.StageFinal: {Hold: gate, Skip: 1, Times: 1}}
			s, domain := remote(t, "lmtp", habits)
			entry, limits, err := lmtpEntry()
			if err != nil {
				t.Fatal(err)
			}
			if way == "time-out" {
				entry = strings.Replace(entry, "lmtp_data_done_timeout=1200s", "lmtp_data_done_timeout=2s", 1)
			}
			p := anotherOutOf(t, entry, limits+"default_transport = "+w.daemon.lmtpNexthop()+"\n")
			// A process that is killed before its first message is over is not started again for a minute.
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
			w.daemon.logged(t, `did not wait for its answer.* queue_id=`+id)
			p.flush(t, id)
			p.removed(t, id)
			list := p.fates(id)
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

// A message beyond max_message_size is refused before it is sent, and one that grows beyond it behind.
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
