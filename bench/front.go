package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
)

// reuse is how transports are set where connections are to stay.
const reuse = "conn_reuse_limit: 1000000\nconn_max_idle_count: 1000\nconn_max_idle_time: 1h"

// fronts measures the daemon alone, driven by fast clients in this process:
// throughput, CPU and latency over how many are at once.
func (b *bench) fronts() error {
	s := b.report.Section("mxpolicyd alone, 10 KB messages to 1,000 domains on 3 shared hosts, TLS, warm",
		"Driven by a client in the process of the remote mail servers, on the same processors. CPU is mxpolicyd's.")
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	counts := []int{1, 10, 100}
	curves := map[string][]report.Point{}
	found := map[string]*speeds{}
	for round := range b.rounds + 1 { // the first warms up, and is not told
		for _, at := range counts {
			for _, front := range frontEnds {
				name := fmt.Sprintf("%s, %d at once", front.name, at)
				if found[name] == nil || round == 0 {
					found[name] = &speeds{}
				}
				work := load{at: at, messages: b.amount(2000), mail: to("shared", 1000),
					client: func() (client, error) { return front.open(d) }}
				if err := found[name].add(b, d, work); err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if round == 0 {
					found[name] = nil
				}
			}
		}
	}
	for _, front := range frontEnds {
		for _, at := range counts {
			name := fmt.Sprintf("%s, %d at once", front.name, at)
			v := found[name]
			v.rows(s, name)
			x := float64(at)
			curves[front.name] = append(curves[front.name], report.PointOf(x, v.rate))
			curves[front.name+" p50"] = append(curves[front.name+" p50"], report.PointOf(x, v.p50))
			curves[front.name+" p99"] = append(curves[front.name+" p99"], report.PointOf(x, v.p99))
		}
	}
	b.plot("throughput", "Messages each second", "messages at once", "messages/s", curves, "LMTP", "pipe")
	b.plot("latency", "Time of a message", "messages at once", "ms", curves, "LMTP p50", "LMTP p99", "pipe p50", "pipe p99")
	return nil
}

// plot adds curves to the report.
func (b *bench) plot(name, title, x, y string, curves map[string][]report.Point, chosen ...string) {
	series := report.Series{Name: name, Title: title, X: x, Y: y, LogX: true}
	for _, c := range chosen {
		series.Curves = append(series.Curves, report.Curve{Name: c, Points: curves[c]})
	}
	b.report.Series = append(b.report.Series, series)
}

// speeds are a load's figures, round by round.
type speeds struct{ rate, cpu, p50, p95, p99 measure.Sample }

// program is one whose CPU is counted.
type program interface {
	cpu() (time.Duration, error)
}

// add runs a load once.
func (v *speeds) add(b *bench, d program, work load) error {
	before, err := d.cpu()
	if err != nil {
		return err
	}
	o, err := work.run(b.ctx)
	if err != nil {
		return err
	}
	after, err := d.cpu()
	if err != nil {
		return err
	}
	ms := func(p float64) float64 { return o.latencies.Percentile(p).Seconds() * 1000 }
	v.rate = append(v.rate, o.rate())
	v.cpu = append(v.cpu, (after-before).Seconds()*1e6/float64(work.messages))
	v.p50 = append(v.p50, ms(50))
	v.p95 = append(v.p95, ms(95))
	v.p99 = append(v.p99, ms(99))
	return nil
}

// rows tells the figures.
func (v *speeds) rows(s *report.Section, name string) {
	s.Add(name, "messages/s", v.rate...)
	s.Add(name+": CPU of a message", "µs", v.cpu...)
	s.Add(name+": p50", "ms", v.p50...)
	s.Add(name+": p95", "ms", v.p95...)
	s.Add(name+": p99", "ms", v.p99...)
}

// to makes messages of 10 KB to domains at random.
func to(kind string, domains int) func(int) mail {
	text := message(10 << 10)
	return func(int) mail {
		return mail{from: "a@sender.bench", to: "b@" + internet.Domain(kind, rand.IntN(domains)), text: text}
	}
}

// growth measures what a message costs as more and more domains are known.
func (b *bench) growth() error {
	s := b.report.Section("As domains grow: 10 KB messages by LMTP, 10 at once, to domains at random that are all known",
		"All domains share 3 hosts. CPU is mxpolicyd's; memory is what it has beyond what it had with 10 domains.")
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	open := func() (client, error) { return frontEnds[0].open(d) }
	curves := map[string][]report.Point{}
	var first speeds
	var base measure.Memory
	for _, domains := range []int{1, 10, 1000, 100000} {
		// Every domain once, so that it is known.
		meet := load{at: 20, messages: domains, client: open, mail: func(i int) mail {
			return mail{from: "a@sender.bench", to: "b@" + internet.Domain("shared", i), text: message(1 << 10)}
		}}
		if _, err := meet.run(b.ctx); err != nil {
			return err
		}
		var v, warm speeds
		work := load{at: 10, messages: b.amount(2000), client: open, mail: to("shared", domains)}
		if err := warm.add(b, d, work); err != nil {
			return err
		}
		questions := b.net.Questions()
		for range b.rounds {
			if err := v.add(b, d, work); err != nil {
				return err
			}
		}
		questions = b.net.Questions() - questions
		memory, err := measure.MemoryOf(d.pid())
		if err != nil {
			return err
		}
		name := fmt.Sprintf("%d domains", domains)
		if domains == 1 {
			name = "1 domain"
		}
		s.Add(name+": CPU of a message", "µs", v.cpu...)
		s.Add(name+": p99", "ms", v.p99...)
		s.Reach(report.AtMost(0), name+": DNS questions for a message", "", float64(questions)/float64(b.rounds*work.messages))
		switch {
		case domains == 10:
			first, base = v, memory
		case domains > 10:
			s.Add(name+": memory for each", "KiB", float64(memory.Resident-base.Resident)/1024/float64(domains-10))
		}
		if domains == 100000 {
			s.Add("CPU of a message, 100000 domains against 10", "×", v.cpu.Median()/first.cpu.Median())
		}
		curves["throughput"] = append(curves["throughput"], report.PointOf(float64(domains), v.rate))
		curves["CPU"] = append(curves["CPU"], report.PointOf(float64(domains), v.cpu))
		curves["p99"] = append(curves["p99"], report.PointOf(float64(domains), v.p99))
	}
	b.plot("growth-throughput", "Messages each second as domains grow", "domains known", "messages/s", curves, "throughput")
	b.plot("growth-cost", "CPU of a message as domains grow", "domains known", "µs", curves, "CPU")
	b.plot("growth-latency", "Slowest hundredth of messages as domains grow", "domains known", "ms", curves, "p99")
	return nil
}
