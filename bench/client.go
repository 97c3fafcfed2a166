package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mxpipe/mxpipe/bench/measure"
	"github.com/mxpipe/mxpipe/internal/wire"
)

// client hands messages to mxpolicyd, one at a time.
type client interface {
	// send sends a message and waits for the answer; anything but an
	// acceptance is an error.
	send(m mail) error
	close()
}

// mail is a message.
type mail struct {
	from, to  string
	transport string // pipe only; LMTP has a socket for each
	text      []byte // with CRLF
}

// message makes a message of so many octets.
func message(size int) []byte {
	const line = "This line stands in the message as often as it takes to fill it.\r\n"
	head := "From: <a@sender.bench>\r\nTo: <b@hosts.bench>\r\nSubject: a message to measure with\r\n\r\n"
	text := head + strings.Repeat(line, max(size-len(head), 0)/len(line)+1)
	return []byte(text[:size-2] + "\r\n")
}

// pipeClient speaks as mxpipe does.
type pipeClient struct {
	socket string
	buf    []byte
}

func (c *pipeClient) send(m mail) error {
	conn, err := net.Dial("unix", c.socket)
	if err != nil {
		return err
	}
	defer conn.Close()
	c.buf, err = wire.AppendEnvelope(c.buf[:0], &wire.Envelope{
		Sender: m.from, Recipients: []wire.Recipient{{Address: m.to}},
		Transport: m.transport, QueueID: "BENCH", Timeout: patience,
	})
	if err != nil {
		return err
	}
	for text := m.text; len(text) > 0; {
		n := min(len(text), wire.MaxData)
		c.buf = wire.AppendData(c.buf, text[:n])
		text = text[n:]
	}
	if _, err := conn.Write(wire.AppendCommit(c.buf)); err != nil {
		return err
	}
	answer, err := wire.ReadAnswer(conn)
	if err == nil && !strings.HasPrefix(answer.Code, "2.") {
		err = fmt.Errorf("mxpolicyd says %s %s", answer.Code, answer.Text)
	}
	return err
}

func (c *pipeClient) close() {}

// load is work for several clients.
type load struct {
	at       int // clients at once
	messages int // in all
	client   func() (client, error)
	mail     func(i int) mail // the message number i
}

// outcome is how a load went.
type outcome struct {
	took      time.Duration
	latencies measure.Latencies
}

// rate is messages for each second.
func (o outcome) rate() float64 { return float64(len(o.latencies)) / o.took.Seconds() }

// run does the work. The first error ends it.
func (l load) run(ctx context.Context) (outcome, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var all sync.WaitGroup
	latencies := make(measure.Latencies, l.messages)
	start := time.Now()
	for range min(l.at, l.messages) {
		all.Go(func() {
			c, err := l.client()
			if err != nil {
				cancel(err)
				return
			}
			defer c.close()
			for ctx.Err() == nil {
				i := int(next.Add(1)) - 1
				if i >= l.messages {
					return
				}
				begin := time.Now()
				if err := c.send(l.mail(i)); err != nil {
					cancel(err)
					return
				}
				latencies[i] = time.Since(begin)
			}
		})
	}
	all.Wait()
	return outcome{time.Since(start), latencies}, context.Cause(ctx)
}
