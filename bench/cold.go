package main

import (
	"fmt"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/report"
)

// cold measures deliveries that each make a connection of their own.
func (b *bench) cold() error {
	s := b.report.Section("Cold: each 1 KB message over a new connection, by pipe, 10 at once, TLS 1.3, certificates checked by WebPKI",
		"CPU is mxpolicyd's; the other half of each handshake is made on the same processors.")
	const alone = "conn_reuse_limit: 0"
	transports := []transportConfig{
		{"default", b.sinks.fresh.Port(), alone},
		{"rsa", b.sinks.rsa.Port(), alone},
		{"resumed", b.sinks.main.Port(), alone},
	}
	names := []string{"full handshake, ECDSA P-256", "full handshake, RSA 2048", "resumed handshake"}
	d, err := b.startDaemon(layout{transports: transports})
	if err != nil {
		return err
	}
	defer d.stop()
	found := make([]speeds, len(transports))
	text := message(1 << 10)
	before := b.sinks.main.Counters()
	for round := range b.rounds + 1 {
		for i, w := range transports {
			work := load{
				at: 10, messages: b.amount(500),
				client: func() (client, error) { return &pipeClient{socket: d.pipe}, nil },
				mail: func(i int) mail {
					return mail{from: "a@sender.bench", to: "b@" + internet.Domain("shared", i%100), transport: w.name, text: text}
				},
			}
			if err := found[i].add(b, d, work); err != nil {
				return fmt.Errorf("%s: %w", names[i], err)
			}
		}
		if round == 0 { // it warmed up
			clear(found)
		}
	}
	after := b.sinks.main.Counters()
	for i, v := range found {
		s.Add(names[i], "messages/s", v.rate...)
		s.Add(names[i]+": CPU of a message", "µs", v.cpu...)
	}
	resumed := float64(after.Resumed-before.Resumed) / float64(after.Handshakes-before.Handshakes)
	s.Reach(report.AtLeast(0.9), "handshakes that the server resumed, of those it could", "", resumed)
	return nil
}
