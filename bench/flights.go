package main

import (
	"crypto/tls"
	"fmt"
	"net/netip"
	"time"

	"github.com/mxpipe/mxpipe/bench/delay"
	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/bench/report"
	"github.com/mxpipe/mxpipe/internal/lab/ca"
	"github.com/mxpipe/mxpipe/internal/lab/labdns"
	"github.com/mxpipe/mxpipe/internal/lab/mx"
)

// roundTrip is how far away the server of the flights is.
const roundTrip = 50 * time.Millisecond

// distant is a counting mail server at the other end of a long line.
type distant struct {
	domain    string
	behaviour func(*mx.Behaviour)
	server    *mx.Server
	line      *delay.Proxy
}

func (d *distant) stop() {
	if d.line != nil {
		d.line.Stop()
	}
	if d.server != nil {
		d.server.Stop()
	}
}

// flights counts the round trips of a 10 KB message, at the server and on the
// line, and the time they take.
func (b *bench) flights() error {
	s := b.report.Section("Round trips of a 10 KB message, TLS 1.3, the server 50 ms away",
		"Flights are counted by the server from MAIL to the end of the message, trips by the line from its first byte on;",
		"TCP's own handshake is one more on a real line. Cold, the six trips are the greeting, EHLO, STARTTLS, the",
		"handshake, EHLO with the client's Finished, and MAIL RCPT BDAT with the message. RFC 3207 forces two of them.")
	places := []*distant{
		{domain: "both.example", behaviour: func(*mx.Behaviour) {}},
		{domain: "pipelining.example", behaviour: func(h *mx.Behaviour) { h.Keywords &^= mx.Chunking }},
		{domain: "neither.example", behaviour: func(h *mx.Behaviour) { h.Keywords &^= mx.Chunking | mx.Pipelining }},
		{domain: "full.example", behaviour: func(h *mx.Behaviour) { h.TLS.NoResumption = true }},
		{domain: "tls12.example", behaviour: func(h *mx.Behaviour) { h.TLS.MaxVersion = tls.VersionTLS12 }},
	}
	dns, err := labdns.Start()
	if err != nil {
		return err
	}
	defer dns.Stop()
	transports := []transportConfig{{name: "default", port: b.sinks.main.Port()}}
	for _, d := range places {
		defer d.stop()
		port, err := b.place(d, dns)
		if err != nil {
			return err
		}
		transports = append(transports, transportConfig{"warm." + d.domain, port, ""}, transportConfig{"cold." + d.domain, port, "conn_reuse_limit: 0"})
	}
	daemon, err := b.startDaemon(layout{dns: dns.Addr(), transports: transports})
	if err != nil {
		return err
	}
	defer daemon.stop()
	for _, f := range []struct {
		place     int
		transport string
		goal      *report.Goal
		name      string
	}{
		{0, "warm", report.AtMost(1), "warm, CHUNKING and PIPELINING"},
		{1, "warm", report.AtMost(2), "warm, PIPELINING"},
		{2, "warm", nil, "warm, neither"},
		{3, "cold", report.AtMost(6), "cold, full handshake"},
		{0, "cold", report.AtMost(6), "cold, resumed handshake"},
		{4, "cold", nil, "cold, resumed handshake of TLS 1.2"},
	} {
		found, err := b.fly(daemon, places[f.place], f.transport)
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
		s.Add(f.name+": flights of the message", "", found.flights...)
		s.Reach(f.goal, f.name+": round trips", "", found.trips...)
		s.Add(f.name+": time", "ms", found.took...)
	}
	return nil
}

// place starts a server far away, and gives the port that leads to it.
func (b *bench) place(d *distant, dns *labdns.Server) (port int, err error) {
	cert, err := b.net.Issue(ca.For("mx." + d.domain))
	if err != nil {
		return 0, err
	}
	behaviour := mx.Modern(cert)
	d.behaviour(&behaviour)
	if d.server, err = mx.Start(mx.Options{Behaviour: behaviour, Discard: true}); err != nil {
		return 0, err
	}
	if d.line, err = delay.Start("127.0.0.1:0", d.server.Addr(), roundTrip/2); err != nil {
		return 0, err
	}
	addr, err := netip.ParseAddrPort(d.line.Addr())
	if err != nil {
		return 0, err
	}
	return int(addr.Port()), dns.Add(fmt.Sprintf("%[1]s. MX 10 mx.%[1]s.\nmx.%[1]s. A 127.0.0.1\n", d.domain))
}

// flight is what messages cost on a line.
type flight struct{ flights, trips, took measure.Sample }

// fly sends messages one after the other, and measures each but the first,
// which finds the addresses and opens the connection, or the TLS session.
func (b *bench) fly(d *daemon, to *distant, transport string) (f flight, err error) {
	c := &pipeClient{socket: d.pipe}
	m := mail{from: "a@sender.bench", to: "b@" + to.domain, transport: transport + "." + to.domain, text: message(10 << 10)}
	for i := range b.rounds + 1 {
		before := to.line.Trips()
		start := time.Now()
		if err := c.send(m); err != nil {
			return f, err
		}
		took := time.Since(start)
		trips := to.line.Trips() - before
		messages := to.server.Messages()
		if transport == "cold" {
			// the goodbye, which no message waits for, is not to be counted
			// with the next
			time.Sleep(2 * roundTrip)
		}
		if i == 0 {
			continue
		}
		f.took = append(f.took, took.Seconds()*1000)
		f.trips = append(f.trips, float64(trips))
		f.flights = append(f.flights, float64(messages[len(messages)-1].Flights))
	}
	return f, nil
}
