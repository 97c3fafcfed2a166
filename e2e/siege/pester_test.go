package siege

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// pause is how long a mail server waits between two messages of one of its
// processes to a bad domain.
const pause = time.Second

// mail has so many processes of a mail server send to bad domains until ctx
// ends, whatever becomes of it: to gives the recipients of each message.
func (f *field) mail(ctx context.Context, processes int, text string, to func(n int) []string) {
	var number atomic.Int64
	f.crowd(ctx, processes, func() {
		c, err := f.daemon.letterbox()
		if err != nil {
			return
		}
		defer c.Close()
		stop := context.AfterFunc(ctx, func() { c.Close() })
		defer stop()
		n := int(number.Add(1))
		// The answer is of no interest.
		_, _ = c.send(fmt.Sprintf("s@n%d.sender.example", n), to(n), text)
	})
}

// crowd has so many do something again and again, with a pause in between.
func (f *field) crowd(ctx context.Context, many int, do func()) {
	var all sync.WaitGroup
	for range many {
		all.Go(func() {
			for ctx.Err() == nil {
				do()
				rest(ctx, pause)
			}
		})
	}
	all.Wait()
}

// rest waits, at most until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// ask has so many connections of Postfix's smtp(8) ask for policies.
func (f *field) ask(ctx context.Context, processes int, domain func(n int) string) {
	var number atomic.Int64
	f.crowd(ctx, processes, func() {
		conn, err := net.Dial("unix", f.daemon.socketmap)
		if err != nil {
			return
		}
		defer conn.Close()
		stop := context.AfterFunc(ctx, func() { conn.Close() })
		defer stop()
		for range 100 {
			question := "policy " + domain(int(number.Add(1)))
			fmt.Fprintf(conn, "%d:%s,", len(question), question)
			if n, err := conn.Read(make([]byte, 4096)); n == 0 || err != nil {
				return
			}
			rest(ctx, pause)
		}
	})
}

// hold opens so many connections, a tenth of them in each second, says
// something on each, and keeps them until ctx ends. Those that the daemon
// closes are opened anew, no faster.
func hold(ctx context.Context, network, address string, many int, say string) {
	var all sync.WaitGroup
	spread := max(1, many/100)
	for range min(many, 100) {
		all.Go(func() {
			conns := make([]net.Conn, spread)
			defer func() {
				for _, c := range conns {
					if c != nil {
						c.Close()
					}
				}
			}()
			for ctx.Err() == nil {
				left := (spread + 9) / 10
				for i, c := range conns {
					if ctx.Err() == nil && left > 0 && (c == nil || gone(c)) {
						conns[i] = open(network, address, say)
						left--
					}
				}
				rest(ctx, pause)
			}
		})
	}
	all.Wait()
}

// open opens a connection, unless its backlog is full.
func open(network, address, say string) net.Conn {
	c, err := net.DialTimeout(network, address, time.Second)
	if err != nil {
		return nil
	}
	c.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = io.WriteString(c, say) // who does not listen is not spoken to
	return c
}

// gone reports whether the other side has closed a connection; what it says is
// not heard.
func gone(c net.Conn) bool {
	c.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := c.Read(make([]byte, 512))
	if err == nil || isTimeout(err) {
		return false
	}
	c.Close()
	return true
}

func isTimeout(err error) bool {
	timeout, ok := err.(net.Error)
	return ok && timeout.Timeout()
}

// recipients makes names at a domain.
func recipients(n int, local, domain string) (list []string) {
	for i := range n {
		list = append(list, strconv.Itoa(i)+local+"@"+domain)
	}
	return list
}

// large is a message of some megabytes.
var large = "Subject: large\r\n\r\n" + strings.Repeat(strings.Repeat("x", 76)+"\r\n", 40_000)
