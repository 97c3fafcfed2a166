package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
)

// sharing counts the connections for messages of many senders to many domains
// that share their hosts.
func (b *bench) sharing() error {
	const (
		messages, senders, domains = 1000, 50, 20
		atOnce                     = 10
		reuseLimit                 = 100
	)
	s := b.report.Section(fmt.Sprintf("%d messages from %d senders to %d domains on 3 shared hosts, %d at once, conn_reuse_limit %d",
		messages, senders, domains, atOnce, reuseLimit))
	var connections, each, reused measure.Sample
	for round := range b.rounds {
		d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), fmt.Sprintf("conn_reuse_limit: %d\nconn_max_idle_count: 10", reuseLimit)}}})
		if err != nil {
			return err
		}
		order := rand.New(rand.NewPCG(uint64(round), 0)).Perm(messages)
		before := b.sinks.main.Counters()
		_, err = load{
			at: atOnce, messages: messages,
			client: func() (client, error) { return &pipeClient{socket: d.pipe}, nil },
			mail: func(i int) mail {
				i = order[i] // each sender writes to each domain once
				return mail{
					from: fmt.Sprintf("a@s%d.example", i%senders),
					to:   "b@" + internet.Domain("shared", i/senders%domains),
					text: message(10 << 10),
				}
			},
		}.run(b.ctx)
		d.stop()
		if err != nil {
			return err
		}
		after := b.sinks.main.Counters()
		opened := float64(after.Connections - before.Connections)
		if sent := after.Messages - before.Messages; sent != messages {
			return fmt.Errorf("%d messages arrived, not %d", sent, messages)
		}
		connections = append(connections, opened)
		each = append(each, messages/opened)
		reused = append(reused, 100*(messages-opened)/messages)
	}
	s.Add("connections opened", "", connections...)
	s.Add("messages for each connection", "", each...)
	s.Reach(report.AtLeast(90), "messages over a connection that was open already", "%", reused...)
	return nil
}
