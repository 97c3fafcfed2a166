package e2e

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-smtp"

	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// administered starts a daemon that takes the administrator's commands, and
// gives what runs one.
func administered(t *testing.T, s settings) (*daemon, func(args ...string)) {
	t.Helper()
	w := lab(t)
	d, err := w.newDaemon(folder(t), s)
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(d.config)
	if err != nil {
		t.Fatal(err)
	}
	admin := filepath.Join(filepath.Dir(d.lmtp), "admin.sock")
	if err := write(d.config, strings.Replace(string(text), "listen: {", "listen: {admin: {path: "+admin+"}, ", 1)); err != nil {
		t.Fatal(err)
	}
	if err := d.start(w, s); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.close(); err != nil {
			t.Error(err)
		}
	})
	return d, func(args ...string) {
		t.Helper()
		if out, err := exec.Command(w.mxpolicyd, append([]string{"-c", d.config}, args...)...).CombinedOutput(); err != nil {
			t.Fatalf("mxpolicyd %s: %v\n%s", args, err, out)
		}
	}
}

// While a domain is suspended its mail stays with Postfix, and nothing is
// dialled, idle connections included; then all of it arrives. With
// -traffic-report there are 100 messages a second, for 30 seconds.
func TestSuspendUnderLoad(t *testing.T) {
	t.Parallel()
	messages, perSecond := 40, 0
	if *trafficReport != "" {
		messages, perSecond = 3000, 100
	}
	s, domain := remote(t, "suspended", modern(t))
	d, mxpolicyd := administered(t, settings{})
	p := lmtpOut(t, d, "queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 5s\n")
	send := func(n int) {
		t.Helper()
		args := []string{"-c", "-m", strconv.Itoa(n), "-s", "1", "-d", "-f", "a@" + keepDomain, "-t", "b@" + domain, p.address}
		if out, err := exec.Command("smtp-source", args...).CombinedOutput(); err != nil {
			t.Fatalf("smtp-source: %v\n%s", err, out)
		}
	}
	lines := func(what string) int { return strings.Count(logText(p.log), what) }
	send(10)
	await(t, "the first messages", func() (int, bool) { n := lines("status=sent"); return n, n == 10 }, p.log)

	mxpolicyd("suspend", domain, "--reason", "moving house")
	before := s.Counters()
	for sent := 0; sent < messages; {
		n := messages - sent
		if perSecond > 0 {
			n = min(n, perSecond)
			time.Sleep(time.Second)
		}
		send(n)
		sent += n
	}
	await(t, "every message to be deferred", func() (int, bool) { n := lines("is suspended: moving house"); return n, n >= messages }, p.log)
	if c := s.Counters(); c.Connections != before.Connections || c.Verbs["MAIL"] != before.Verbs["MAIL"] {
		t.Errorf("%d connections and %d transactions while suspended", c.Connections-before.Connections, c.Verbs["MAIL"]-before.Verbs["MAIL"])
	}
	mxpolicyd("resume", domain)
	await(t, "all messages", func() (int, bool) { n := lines("status=sent"); return n, n == 10+messages }, p.log)
	if n := s.Counters().Messages; n != 10+messages {
		t.Errorf("%d messages arrived, want %d", n, 10+messages)
	}
	if n := lines("status=bounced"); n != 0 {
		t.Errorf("%d bounced", n)
	}
}

// lmtpTimes sends messages one after the other over one connection, and gives
// how long each took.
func lmtpTimes(t *testing.T, d *daemon, to string, n int) (took []time.Duration) {
	conn, err := net.Dial("unix", d.lmtp)
	if err != nil {
		t.Error(err)
		return nil
	}
	c := smtp.NewClientLMTP(conn)
	c.SubmissionTimeout = time.Minute
	defer c.Close()
	for range n {
		start := time.Now()
		if err := c.SendMail("a@"+keepDomain, []string{to}, strings.NewReader("Subject: x\r\n\r\nx\r\n")); err != nil {
			t.Errorf("to %s: %v", to, err)
			return took
		}
		took = append(took, time.Since(start))
	}
	return took
}

// One destination is slow, and has more mail than max_deliveries has slots:
// the others' mail goes on, by the tenth that is left to them. With
// -traffic-report the times are told.
func TestFloodedDestination(t *testing.T) {
	t.Parallel()
	messages := 20
	if *trafficReport != "" {
		messages = 1000
	}
	gate := make(chan struct{})
	behaviour := modern(t)
	behaviour.At = map[mx.Stage]mx.Action{mx.StageFinal: {Hold: gate}}
	slow, flooded := remote(t, "flooded", behaviour)
	_, other := remote(t, "others", modern(t))
	d := startDaemon(t, settings{top: "max_deliveries: 20\n", transport: "    conn_reuse_limit: 100000\n"})
	lmtpTimes(t, d, "b@"+other, 3) // the first looks everything up
	quiet := lmtpTimes(t, d, "b@"+other, messages)

	var flood sync.WaitGroup
	for range 40 {
		flood.Go(func() {
			conn, err := net.Dial("unix", d.lmtp)
			if err != nil {
				t.Error(err)
				return
			}
			c := smtp.NewClientLMTP(conn)
			defer c.Close()
			// those that get no slot in time hear 4.3.2
			_ = c.SendMail("a@"+keepDomain, []string{"b@" + flooded}, strings.NewReader("Subject: x\r\n\r\nx\r\n"))
		})
	}
	await(t, "the flood to hold its slots", func() (int, bool) { n := slow.Counters().Stages[mx.StageFinal]; return n, n == 18 }, d.log)
	beside := lmtpTimes(t, d, "b@"+other, messages)
	if n := slow.Counters().Stages[mx.StageFinal]; n != 18 {
		t.Errorf("the flood holds %d slots of 20, want 18", n)
	}
	close(gate)
	flood.Wait()
	if len(beside) != messages || len(quiet) != messages {
		t.Errorf("%d messages to others were taken beside the flood, and %d before", len(beside), len(quiet))
		return
	}
	p99 := func(took []time.Duration) time.Duration {
		slices.Sort(took)
		return took[len(took)*99/100]
	}
	t.Logf("p99 of the others: %v quiet, %v beside the flood", p99(quiet), p99(beside))
}
