package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"strconv"
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
	id        int // makes it another than those before
	from, to  string
	transport string // for pipe; LMTP has a socket for each
	text      []byte // with CRLF
}

// message makes a message of so many bytes.
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
		Transport: m.transport, QueueID: "B" + strconv.Itoa(m.id), Timeout: wire.Milliseconds(patience / time.Millisecond),
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

// lmtpClient speaks as Postfix's lmtp(8) does.
type lmtpClient struct {
	conn net.Conn
	r    *bufio.Reader
	buf  []byte
}

func dialLMTP(socket string) (*lmtpClient, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, err
	}
	c := &lmtpClient{conn: conn, r: bufio.NewReader(conn)}
	if err = c.expect("220"); err == nil {
		if _, err = conn.Write([]byte("LHLO mta.bench\r\n")); err == nil {
			err = c.expect("250")
		}
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// expect reads one reply.
func (c *lmtpClient) expect(code string) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		if !bytes.HasPrefix(line, []byte(code)) {
			return fmt.Errorf("mxpolicyd says %s", bytes.TrimSpace(line))
		}
		if len(line) > 3 && line[3] != '-' {
			return nil
		}
	}
}

func (c *lmtpClient) send(m mail) error {
	c.buf = fmt.Appendf(c.buf[:0], "MAIL FROM:<%s> SIZE=%d\r\nRCPT TO:<%s>\r\nDATA\r\n", m.from, len(m.text), m.to)
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	for _, code := range []string{"250", "250", "354"} {
		if err := c.expect(code); err != nil {
			return err
		}
	}
	c.buf = fmt.Appendf(c.buf[:0], "Received: by mta.bench (Postfix, from userid 0) id B%d\r\n", m.id)
	c.buf = append(append(c.buf, m.text...), ".\r\n"...)
	if _, err := c.conn.Write(c.buf); err != nil {
		return err
	}
	return c.expect("250")
}

func (c *lmtpClient) close() { c.conn.Close() }

// frontEnds are those of a daemon that a load can take.
var frontEnds = []struct {
	name string
	open func(d *daemon) (client, error)
}{
	{"LMTP", func(d *daemon) (client, error) { return dialLMTP(d.lmtp("default")) }},
	{"pipe", func(d *daemon) (client, error) { return &pipeClient{socket: d.pipe}, nil }},
}

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
				m := l.mail(i)
				m.id = i
				if err := c.send(m); err != nil {
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
