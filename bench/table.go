package main

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"strings"

	"github.com/mxpipe/mxpipe/bench/internet"
	"github.com/mxpipe/mxpipe/bench/report"
)

// tableClient asks as Postfix does: one question, then its answer
// (socketmap_table(5)).
type tableClient struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

func dialTable(socket string) (*tableClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	return &tableClient{conn: conn, r: bufio.NewReader(conn)}, nil
}

// send asks for the policy of the domain that the message is for.
func (c *tableClient) send(m mail) error {
	question := "policy " + m.to
	c.buf = fmt.Appendf(c.buf[:0], "%d:%s,", len(question), question)
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	size, err := c.r.ReadString(':')
	if err != nil {
		return err
	}
	n, err := strconv.Atoi(strings.TrimSuffix(size, ":"))
	if err != nil || n > 100_000 {
		return fmt.Errorf("not a netstring: %q", size)
	}
	answer := make([]byte, n+1)
	if _, err := io.ReadFull(c.r, answer); err != nil {
		return err
	}
	if text := string(answer); !strings.HasPrefix(text, "OK ") && !strings.HasPrefix(text, "NOTFOUND ") {
		return fmt.Errorf("the policy of %s is %q", m.to, text)
	}
	return nil
}

func (c *tableClient) close() { c.conn.Close() }

// tables measures look-ups of TLS policies.
func (b *bench) tables() error {
	s := b.report.Section("Socketmap: TLS policies for Postfix's smtp(8), over a unix socket, domains with DANE",
		"Each connection waits for its answer, as Postfix's do. A miss is a domain that nobody asked for before:",
		"MX, addresses and TLSA records of its hosts, and the MTA-STS record are looked up.")
	d, err := b.startDaemon(layout{transports: []transportConfig{{"default", b.sinks.main.Port(), reuse}}})
	if err != nil {
		return err
	}
	defer d.stop()
	const known = 1000
	next := known
	work := func(at, every int) load {
		first := next
		l := load{at: at, messages: b.amount(30000),
			client: func() (client, error) { return dialTable(d.table) },
			mail: func(i int) mail {
				if every > 0 && i%every == 0 {
					return mail{to: internet.Domain("dane", first+i/every)}
				}
				return mail{to: internet.Domain("dane", rand.IntN(known))}
			}}
		if every > 0 {
			next += l.messages/every + 1
		}
		return l
	}
	for _, kind := range []struct {
		name      string
		at, every int
		goal      *report.Goal
	}{
		{"warm, 2 at once", 2, 0, nil},
		{"warm, 20 at once", 20, 0, report.AtLeast(50000)},
		{"10% misses, 20 at once", 20, 10, nil},
	} {
		var v speeds
		for round := range b.rounds + 1 {
			if err := v.add(b, d, work(kind.at, kind.every)); err != nil {
				return fmt.Errorf("%s: %w", kind.name, err)
			}
			if round == 0 {
				v = speeds{}
			}
		}
		s.Reach(kind.goal, kind.name, "look-ups/s", v.rate...)
		s.Add(kind.name+": CPU of a look-up", "µs", v.cpu...)
		s.Add(kind.name+": p99", "ms", v.p99...)
	}
	return nil
}
