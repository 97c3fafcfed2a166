package main

import (
	"fmt"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
)

// idle measures what idle connections cost the daemon, each to a host of its
// own with a certificate of its own, as the process's own memory. What it
// remembers of the hosts and their domains is in it.
func (b *bench) idle() error {
	s := b.report.Section("Idle connections, TLS 1.3, each to another host with another certificate",
		"Memory that the process has beyond what it had with none, for each connection; what is remembered of each",
		"domain, host and TLS session is in it. Measured after 10 messages of 10 KB at once each to another domain.")
	for _, n := range []int{2000, 10000} {
		rounds := b.rounds
		if n > 2000 {
			rounds = 1 // it takes long, and says the same each time
		}
		var each, whole, descriptors measure.Sample
		for range rounds {
			m, err := b.gather(n)
			if err != nil {
				return err
			}
			each = append(each, m.each/1024)
			whole = append(whole, float64(m.whole.Resident)/(1<<20))
			descriptors = append(descriptors, float64(m.whole.Descriptors))
		}
		var goal *report.Goal
		if n == 2000 {
			goal = report.AtMost(24)
		}
		s.Reach(goal, fmt.Sprintf("%d idle: memory for each", n), "KiB", each...)
		s.Add(fmt.Sprintf("%d idle: memory of the process", n), "MiB", whole...)
		s.Add(fmt.Sprintf("%d idle: descriptors", n), "", descriptors...)
	}
	return nil
}

// gathered is a daemon's memory with idle connections.
type gathered struct {
	each  float64 // bytes for each connection
	whole measure.Memory
}

// gather opens so many connections and leaves them idle.
func (b *bench) gather(n int) (g gathered, err error) {
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return g, err
	}
	defer d.stop()
	send := func(kind string, messages int) error {
		text := message(10 << 10)
		_, err := load{
			at: 10, messages: messages,
			client: func() (client, error) { return &pipeClient{socket: d.pipe}, nil },
			mail: func(i int) mail {
				return mail{from: "a@sender.bench", to: "b@" + internet.Domain(kind, i), text: text}
			},
		}.run(b.ctx)
		return err
	}
	// The daemon at work, with a handful of connections, is what the others
	// come on top of.
	if err := send("shared", 1000); err != nil {
		return g, err
	}
	before, err := measure.MemoryOf(d.pid())
	if err != nil {
		return g, err
	}
	if err := send("hosts", n); err != nil {
		return g, err
	}
	if g.whole, err = measure.MemoryOf(d.pid()); err != nil {
		return g, err
	}
	// Some of those before may just be on their way out.
	if more := g.whole.Descriptors - before.Descriptors; more < n-20 {
		return g, fmt.Errorf("%d connections are open, not %d", more, n)
	}
	g.each = float64(g.whole.Resident-before.Resident) / float64(n)
	return g, nil
}
