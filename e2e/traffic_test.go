package e2e

import (
	"flag"
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/bench/report"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// How large the run against a receiver that limits us is; what "make test" has
// a short one of.
var (
	trafficMessages = flag.Int("traffic", 60, "messages to the receiver that limits us")
	trafficDomains  = flag.Int("traffic-domains", 20, "domains at it")
	trafficReport   = flag.String("traffic-report", "", "file for the figures; with one, what is compared runs too")
)

// way is a way of sending to the receiver.
type way struct {
	name, top, transport string
}

// ways are what is compared: a daemon that minds neither replies nor providers,
// one as it comes, and one that was told of the receiver's limits.
var ways = []way{
	{"no limit, replies not minded", "replies: [{match: \".\", do: nothing}]\n", ""},
	{"as it comes", "", ""},
	{"limits.provider", "", "    limits: {provider: {concurrency: 16, rate: 45/1s}}\n"},
}

// flow is what came of a way.
type flow struct {
	// messages taken at the first try, tries of Postfix, and what the receiver
	// refused
	first, tries, tooMany int
	took                  time.Duration
	curve                 []report.Point
}

// A large receiver lets us have so many connections and so many messages a
// second, over all of its domains. With a limit for the provider it never has
// to refuse any, and all arrive once.
func TestTraffic(t *testing.T) {
	if *trafficReport == "" {
		t.Parallel()
		f := traffic(t, way{"limits.provider", "", "    limits: {provider: {concurrency: 4, rate: 20/1s}}\n"}, mx.Behaviour{MaxConns: 20, Rate: 100})
		if f.tooMany != 0 {
			t.Errorf("the receiver refused %d connections and transactions", f.tooMany)
		}
		return
	}
	series := report.Series{Name: "traffic", Title: fmt.Sprintf("%d messages to %d domains at a receiver that takes 50 a second", *trafficMessages, *trafficDomains), X: "seconds", Y: "messages accepted"}
	for _, one := range ways {
		f := traffic(t, one, mx.Behaviour{MaxConns: 20, Rate: 50})
		t.Logf("%s: %.1f %% at the first try, %d tries, %d refusals by the receiver, %.0f s until all were there",
			one.name, 100*float64(f.first)/float64(*trafficMessages), f.tries, f.tooMany, f.took.Seconds())
		series.Curves = append(series.Curves, report.Curve{Name: one.name, Points: f.curve})
	}
	r := &report.Report{Series: []report.Series{series}}
	if err := r.Save(*trafficReport); err != nil {
		t.Fatal(err)
	}
}

// traffic sends all messages in one way.
func traffic(t *testing.T, by way, limits mx.Behaviour) (f flow) {
	w := lab(t)
	behaviour := modern(t)
	behaviour.MaxConns, behaviour.Rate = limits.MaxConns, limits.Rate
	s, domain := remote(t, "traffic", behaviour)
	var zone strings.Builder
	for i := range *trafficDomains {
		fmt.Fprintf(&zone, "d%d.%s. MX 10 mx.%s.\n", i, domain, domain)
	}
	if err := w.dns.Add(zone.String()); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, settings{top: by.top, transport: by.transport})
	p := lmtpOut(t, d, "queue_run_delay = 5s\nminimal_backoff_time = 5s\nmaximal_backoff_time = 20s\n")
	start := time.Now()
	var sources sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i := range *trafficDomains {
		n := *trafficMessages / *trafficDomains
		slots <- struct{}{}
		sources.Go(func() {
			defer func() { <-slots }()
			cmd := exec.Command("smtp-source", "-c", "-m", strconv.Itoa(n), "-s", "2", "-d", "-l", "2000", "-f", "a@"+keepDomain,
				"-t", fmt.Sprintf("b@d%d.%s", i, domain), p.address)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("smtp-source: %v\n%s", err, out)
			}
		})
	}
	var counted sync.WaitGroup
	counted.Go(sources.Wait)
	every := max(time.Second, time.Duration(*trafficMessages/50/40)*time.Second)
	last := start
	for messages := 0; messages < *trafficMessages; {
		if t.Failed() {
			break
		}
		time.Sleep(20 * time.Millisecond)
		messages = s.Counters().Messages
		if now := time.Now(); now.Sub(last) >= every || messages >= *trafficMessages {
			last = now
			f.curve = append(f.curve, report.Point{X: now.Sub(start).Seconds(), Y: float64(messages), Low: float64(messages), High: float64(messages)})
		}
	}
	f.took = time.Since(start)
	counted.Wait()
	await(t, "an empty queue", func() (struct{}, bool) {
		return struct{}{}, strings.Count(logText(p.log), "status=sent") >= *trafficMessages
	}, p.log)
	seen := map[string]bool{}
	for _, m := range regexp.MustCompile(`lmtp\[\d+\]: (\w+): .* status=(\w+)`).FindAllStringSubmatch(logText(p.log), -1) {
		f.tries++
		if !seen[m[1]] && m[2] == "sent" {
			f.first++
		}
		if m[2] == "bounced" {
			t.Errorf("%s bounced", m[1])
		}
		seen[m[1]] = true
	}
	c := s.Counters()
	if f.tooMany = c.TooMany; c.Messages != *trafficMessages {
		t.Errorf("%d messages arrived, want %d", c.Messages, *trafficMessages)
	}
	return f
}
