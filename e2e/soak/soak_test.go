// Package soak sends many messages by LMTP through one mxpolicyd to many
// domains whose policies change, certificates roll and hosts come and go, and
// looks at what the daemon needs: as much in the end as in the middle, and
// after it has come to rest no more than before.
//
// "make test" does it for a few seconds, "make soak" with 200,000 messages to
// 2,000 domains.
package soak

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/leaks"
)

var (
	messages = flag.Int("messages", 1500, "messages to be sent")
	domains  = flag.Int("domains", 60, "domains that they go to")
	clients  = flag.Int("clients", 16, "connections by which they come")
)

func TestMain(m *testing.M) { leaks.VerifyTestMain(m) }

// soak is one run.
type soak struct {
	t      *testing.T
	lab    *lab
	daemon *daemon
	began  time.Time

	taken    atomic.Int64 // messages that mxpolicyd said were delivered
	deferred atomic.Int64 // tries that were deferred
	// of those, with the remote server's answer to the message lost
	uncertain atomic.Int64
	fault     atomic.Pointer[string]

	mu    sync.Mutex
	next  int64     // the number of the last message that was made
	queue []*letter // deferred, the first is due first
	// from the end of the message to its answer, since the last mark
	times []time.Duration
}

// mark is what the daemon needs at one point.
type mark struct {
	name                           string
	messages                       int64
	resident, goroutines, descrips int // resident in KiB
	latency                        [3]time.Duration
}

func TestSoak(t *testing.T) {
	s := &soak{t: t, lab: newLab(t, *domains)}
	s.daemon = startDaemon(t, s.lab)
	marks := []mark{s.mark("before")}
	s.began = time.Now()

	stop := make(chan struct{})
	var churn, all sync.WaitGroup
	churn.Go(func() { s.lab.churn(stop, *messages > 10_000) })
	for range *clients {
		all.Go(s.work)
	}
	points := []struct {
		name string
		at   int64
	}{{"start", int64(*messages) / 20}, {"middle", int64(*messages) / 2}, {"end", int64(*messages)}}
	told := time.Now()
	for _, p := range points {
		for s.taken.Load() < p.at && s.fault.Load() == nil {
			if p.at == int64(*messages) && s.made() == p.at && stop != nil {
				close(stop) // what is left can be delivered in peace
				stop = nil
			}
			time.Sleep(20 * time.Millisecond)
			if time.Since(told) > 10*time.Second {
				s.progress()
				told = time.Now()
			}
		}
		marks = append(marks, s.mark(p.name))
	}
	all.Wait()
	if stop != nil {
		close(stop)
	}
	churn.Wait()
	if fault := s.fault.Load(); fault != nil {
		t.Fatalf("%s\n%s", *fault, s.daemon.tail())
	}
	marks = append(marks, s.rest(marks[0]))
	s.table(marks)
	s.judge(marks)
}

// letter is a message on its way.
type letter struct {
	n      int64
	domain *domain
	due    time.Time // of the next try
}

// take gives the next letter: one that was deferred and is due, or a new one.
// When there is none at the moment, wait is set; when there will be none any
// more, neither.
func (s *soak) take() (l *letter, wait bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) > 0 && time.Now().After(s.queue[0].due) {
		l, s.queue = s.queue[0], s.queue[1:]
		return l, false
	}
	if s.next < int64(*messages) {
		s.next++
		return &letter{n: s.next, domain: s.lab.domains[rand.IntN(len(s.lab.domains))]}, false
	}
	return nil, s.taken.Load() < int64(*messages)
}

// later puts a letter off, as a mail server does.
func (s *soak) later(l *letter) {
	l.due = time.Now().Add(2 * time.Second)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queue = append(s.queue, l)
}

// work sends messages over one LMTP connection until all are delivered.
func (s *soak) work() {
	c, err := dial(s.daemon.lmtp)
	if err != nil {
		s.fail("LMTP: %v", err)
		return
	}
	defer c.Close()
	for s.fault.Load() == nil {
		l, wait := s.take()
		switch {
		case l == nil && !wait:
			return
		case l == nil:
			time.Sleep(20 * time.Millisecond)
			continue
		}
		reply, took, err := c.send(fmt.Sprintf("m%d@%s", l.n, l.domain.name), l.n)
		switch {
		case err != nil:
			s.fail("LMTP: %v", err)
		case strings.HasPrefix(reply, "250 "):
			s.note(took)
			s.taken.Add(1)
		case reply[0] == '4':
			s.deferred.Add(1)
			if strings.Contains(reply, "end of message: ") {
				s.uncertain.Add(1)
			}
			s.later(l)
		default:
			s.fail("message %d to %s: %s", l.n, l.domain.name, reply)
		}
	}
}

// made gives how many messages there are so far.
func (s *soak) made() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.next
}

func (s *soak) fail(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.fault.CompareAndSwap(nil, &text)
}

func (s *soak) note(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times = append(s.times, took)
}

// mark measures, and begins a new window for the latency.
func (s *soak) mark(name string) mark {
	s.t.Helper()
	m := mark{name: name, messages: s.taken.Load()}
	m.resident, m.goroutines, m.descrips = s.daemon.usage(s.t)
	s.mu.Lock()
	defer s.mu.Unlock()
	m.latency = quantiles(s.times)
	s.times = nil
	return m
}

// rest waits until the daemon has let go of what it had for the messages.
func (s *soak) rest(before mark) (m mark) {
	s.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		m = s.mark("at rest")
		if m.goroutines <= before.goroutines+30 && m.descrips <= before.descrips+30 {
			return m
		}
		if time.Now().After(deadline) {
			s.t.Errorf("at rest mxpolicyd has %d goroutines and %d descriptors, before it had %d and %d",
				m.goroutines, m.descrips, before.goroutines, before.descrips)
			return m
		}
	}
}

func (s *soak) progress() {
	seconds := time.Since(s.began).Seconds()
	n := s.taken.Load()
	fmt.Fprintf(os.Stderr, "soak %4.0fs: %d of %d delivered, %.0f/s, %d tries deferred, %d changes\n",
		seconds, n, *messages, float64(n)/seconds, s.deferred.Load(), s.lab.changes.Load())
}

func (s *soak) table(marks []mark) {
	s.progress()
	w := tabwriter.NewWriter(os.Stderr, 0, 0, 2, ' ', tabwriter.AlignRight)
	defer w.Flush()
	fmt.Fprintln(w, "\tmessages\tMiB resident\tgoroutines\tdescriptors\tp50\tp99\tmax\t")
	for _, m := range marks {
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t\n", m.name, m.messages, m.resident>>10, m.goroutines, m.descrips,
			m.latency[0].Round(10*time.Microsecond), m.latency[1].Round(10*time.Microsecond), m.latency[2].Round(10*time.Microsecond))
	}
	fmt.Fprintf(w, "arrived\t%d\t\t\t\t\t\t\t\n", s.lab.arrived())
}

// judge compares the end with the middle, and what arrived with what was said
// to.
func (s *soak) judge(marks []mark) {
	middle, end := marks[2], marks[3]
	if end.resident > middle.resident*3/2+64<<10 {
		s.t.Errorf("%d KiB in the end, %d in the middle", end.resident, middle.resident)
	}
	if most := middle.goroutines*3/2 + 200; end.goroutines > most {
		s.t.Errorf("%d goroutines in the end, %d in the middle", end.goroutines, middle.goroutines)
	}
	if most := middle.descrips*3/2 + 200; end.descrips > most {
		s.t.Errorf("%d descriptors in the end, %d in the middle", end.descrips, middle.descrips)
	}
	// A host that goes away can take a message and not say so: then it comes
	// a second time, at once by mxpolicyd where the host had not said a word,
	// else at the next try.
	got, said := s.lab.arrived(), s.taken.Load()
	uncertain, resent := s.uncertain.Load(), s.daemon.metric(s.t, "mxpolicyd_resends_total")
	if got < said || got > said+uncertain+resent {
		s.t.Errorf("%d messages arrived; %d were said to, for %d no one could tell, and %d were sent again at once", got, said, uncertain, resent)
	}
}
