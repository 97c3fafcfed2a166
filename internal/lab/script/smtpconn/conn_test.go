package smtpconn

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestSettleAndFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		c := New(server, Options{Record: 10})
		done := make(chan struct{})
		go func() {
			defer close(done)
			for _, piece := range []string{"MAIL\r\n", "RC", "PT\r\n"} {
				io.WriteString(client, piece)
				time.Sleep(9 * time.Millisecond)
			}
			time.Sleep(100 * time.Millisecond)
			io.WriteString(client, "late")
			client.Close()
		}()
		if err := c.Settle(10 * time.Millisecond); err != nil || c.Buffered() != len("MAIL\r\nRCPT\r\n") || c.Flights() != 1 {
			t.Errorf("%v, %d bytes, %d flights", err, c.Buffered(), c.Flights())
		}
		c.mu.Lock()
		c.answers = true // as Write does; nothing reads the pipe
		c.mu.Unlock()
		if err := c.Settle(time.Second); !errors.Is(err, io.EOF) || c.Flights() != 2 {
			t.Errorf("at the end: %v, %d flights", err, c.Flights())
		}
		for _, want := range []string{"MAIL\r\n", "RCPT\r\n"} {
			if line, err := c.ReadLine(100); err != nil || string(line) != want {
				t.Errorf("%q, %v", line, err)
			}
		}
		if r := c.Record(); string(r.Raw) != "MAIL\r\nRCPT" || string(r.Clear) != "MAIL\r\nRCPT" {
			t.Errorf("kept %q and %q", r.Raw, r.Clear)
		}
		<-done
		c.Close()
	})
}

func TestLongLineAndTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server := net.Pipe()
		defer client.Close()
		c := New(server, Options{Timeout: time.Minute})
		defer c.Close()
		go io.WriteString(client, strings.Repeat("x", 100)+"\n")
		if _, err := c.ReadLine(100); !errors.Is(err, ErrLongLine) {
			t.Errorf("101 bytes: %v", err)
		}
		begin := time.Now()
		var timeout net.Error
		if _, err := c.Next(); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
		begin = time.Now()
		if _, err := c.Write([]byte("x")); !errors.As(err, &timeout) || !timeout.Timeout() || time.Since(begin) != time.Minute {
			t.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}
