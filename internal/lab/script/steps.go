package script

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// errOver ends a conversation as it was written.
var errOver = errors.New("the script is over")

// step is a step that is told by its text and a function.
type step struct {
	text string
	do   func(*player) error
}

func (s step) String() string       { return s.text }
func (s step) play(p *player) error { return s.do(p) }

// ending is a step that nothing can follow.
type ending struct{ step }

// Send writes a line and adds CRLF.
func Send(line string) Step {
	return step{"S: " + line, func(p *player) error { return p.write(line + "\r\n") }}
}

// Raw writes bytes as they are.
func Raw(text string) Step {
	return step{"RAW " + strconv.Quote(text), func(p *player) error { return p.write(text) }}
}

// Records writes each part in a TLS record of its own, all of them at once.
func Records(parts ...string) Step {
	text := "RECORDS"
	for _, part := range parts {
		text += " " + strconv.Quote(part)
	}
	return step{text, func(p *player) error { return p.conn.WriteTogether(parts...) }}
}

// Repeat writes the same bytes n times.
func Repeat(n int, text string) Step {
	return step{fmt.Sprintf("REPEAT %d %q", n, text), func(p *player) error {
		return p.write(strings.Repeat(text, n))
	}}
}

// Expect reads a line that matches the pattern.
func Expect(pattern string) Step {
	return step{"C: " + pattern, func(p *player) error {
		line, err := p.line()
		if err != nil {
			return err
		}
		if !match(pattern, line) {
			return fmt.Errorf("the client said %q", line)
		}
		p.took(line)
		return nil
	}}
}

// Allow reads a line if it matches the pattern, and leaves everything else, the
// end of the stream included, to the next step.
func Allow(pattern string) Step {
	return step{"C? " + pattern, func(p *player) error {
		line, err := p.line()
		switch {
		case gone(err):
			return nil
		case err != nil:
			return err
		case match(pattern, line):
			p.took(line)
		default:
			p.ahead = &line
		}
		return nil
	}}
}

// StartTLS shakes hands with the configuration of that name in Options.TLS.
func StartTLS(name string) Step {
	return tlsStep{step{"TLS " + name, func(p *player) error {
		return p.conn.StartTLS(p.ctx, p.configs[name])
	}}, name}
}

// FailTLS offers a handshake that the client must refuse. After it only the end
// of the connection can come.
func FailTLS(name string) Step {
	return tlsStep{step{"TLS " + name + " fails", func(p *player) error {
		err := p.conn.StartTLS(p.ctx, p.configs[name])
		switch {
		case err == nil:
			return errors.New("the client accepted the certificate")
		case errors.Is(err, os.ErrDeadlineExceeded) || p.ctx.Err() != nil:
			return err
		}
		p.failed(err)
		return nil
	}}, name}
}

// tlsStep is a step that needs a TLS configuration.
type tlsStep struct {
	step
	config string
}

// Alert answers the ClientHello with a fatal handshake_failure alert (RFC 8446
// §6.2).
func Alert() Step {
	return step{"TLSALERT", func(p *player) error {
		hello, err := p.conn.Next()
		if err != nil {
			return err
		}
		if err := p.conn.Skip(len(hello)); err != nil {
			return err
		}
		return p.write("\x15\x03\x01\x00\x02\x02\x28")
	}}
}

// Body reads the body of a DATA command.
func Body() Step {
	return step{"BODY", func(p *player) error {
		if p.ahead != nil {
			return fmt.Errorf("the client said %q", *p.ahead)
		}
		var raw []byte
		u := smtpconn.Unstuffer{}
		for done := false; !done; {
			part, err := p.conn.Next()
			if err != nil {
				return err
			}
			var n int
			n, done = u.Feed(part)
			raw = append(raw, part[:n]...)
			if err := p.conn.Skip(n); err != nil {
				return err
			}
			if len(raw) > maxBytes {
				return fmt.Errorf("a body of more than %d bytes", maxBytes)
			}
		}
		p.message(Message{Wire: raw, Text: u.Text})
		return nil
	}}
}

// Chunk reads a BDAT command and its chunk. The chunk that is marked LAST
// completes a message.
func Chunk() Step {
	return step{"BDAT", func(p *player) error {
		line, err := p.line()
		if err != nil {
			return err
		}
		words := strings.Fields(line)
		last := len(words) == 3 && words[2] == "LAST"
		if len(words) < 2 || words[0] != "BDAT" || len(words) == 3 != last || len(words) > 3 {
			return fmt.Errorf("the client said %q", line)
		}
		n, err := parseCount(words[1])
		if err != nil || len(p.chunks)+n > maxBytes {
			return fmt.Errorf("the client said %q", line)
		}
		p.took(line)
		chunk := make([]byte, n)
		if err := p.conn.ReadFull(chunk); err != nil {
			return err
		}
		p.chunks = append(p.chunks, chunk...)
		if last {
			p.message(Message{Wire: p.chunks, Text: bytes.Clone(p.chunks), Chunked: true})
			p.chunks = nil
		}
		return nil
	}}
}

// Read reads n bytes.
func Read(n int) Step {
	return step{fmt.Sprintf("READ %d", n), func(p *player) error {
		if p.ahead != nil {
			return fmt.Errorf("the client said %q", *p.ahead)
		}
		return p.conn.ReadFull(make([]byte, n))
	}}
}

// Flights checks how many flights the client has sent so far.
func Flights(n int) Step {
	return step{fmt.Sprintf("FLIGHTS %d", n), func(p *player) error {
		if got := p.conn.Flights(); got != n {
			return fmt.Errorf("the client has sent %d flights", got)
		}
		return nil
	}}
}

// Quiet checks that nothing unread has arrived and that nothing arrives for a
// while.
func Quiet(d time.Duration) Step {
	return step{"QUIET " + d.String(), func(p *player) error {
		if err := p.conn.Settle(d); err != nil && !gone(err) {
			return err
		}
		if p.ahead != nil || p.conn.Buffered() > 0 {
			return errors.New("the client did not wait for an answer")
		}
		return nil
	}}
}

// Rest reads and keeps everything until the client closes.
func Rest() Step {
	return step{"REST", func(p *player) error {
		p.ahead = nil
		for {
			part, err := p.conn.Next()
			if gone(err) {
				return nil
			}
			if err != nil {
				return err
			}
			if err := p.conn.Skip(len(part)); err != nil {
				return err
			}
		}
	}}
}

// End waits until the client closes.
func End() Step {
	return step{"END", func(p *player) error {
		line, err := p.line()
		if gone(err) {
			return nil
		}
		if err != nil {
			return err
		}
		return fmt.Errorf("the client said %q", line)
	}}
}

// Sleep waits, at most ten seconds. WaitFor is better where something can be
// waited for.
func Sleep(d time.Duration) Step {
	d = min(d, maxSleep)
	return step{"SLEEP " + d.String(), func(p *player) error {
		select {
		case <-time.After(d):
			return nil
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}}
}

// WaitFor waits until the test opens the gate of that name.
func WaitFor(gate string) Step {
	return step{"WAIT " + gate, func(p *player) error {
		select {
		case <-p.gate(gate):
			return nil
		case <-time.After(p.patience):
			return errors.New("the gate was not opened")
		case <-p.ctx.Done():
			return p.ctx.Err()
		}
	}}
}

// Mark tells Server.WaitMark that the script has come this far.
func Mark(name string) Step {
	return step{"MARK " + name, func(p *player) error {
		p.update(func() { p.told.Marks = append(p.told.Marks, name) })
		return nil
	}}
}

// Drop closes the connection without a word.
func Drop() Step {
	return ending{step{"DROP", func(p *player) error {
		p.conn.Close()
		return errOver
	}}}
}

// Reset closes the connection with a TCP reset.
func Reset() Step {
	return ending{step{"RESET", func(p *player) error {
		p.conn.Reset()
		return errOver
	}}}
}

// Endless repeats the bytes until the client hangs up.
func Endless(text string) Step {
	return ending{step{"ENDLESS " + strconv.Quote(text), func(p *player) error {
		block := strings.Repeat(text, 1+(16<<10)/max(len(text), 1))
		for sent := 0; sent < maxBytes; sent += len(block) {
			err := p.write(block)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return errors.New("the client neither reads nor hangs up")
			}
			if err != nil && p.ctx.Err() == nil {
				return errOver
			}
			if err != nil {
				return err
			}
		}
		return errors.New("the client swallowed it all")
	}}}
}

// Drip repeats the bytes, one at a time with a pause after each, until the
// client hangs up.
func Drip(pause time.Duration, text string) Step {
	pause = min(pause, maxSleep)
	return ending{step{fmt.Sprintf("DRIP %s %q", pause, text), func(p *player) error {
		timer := time.NewTicker(max(pause, time.Millisecond))
		defer timer.Stop()
		patience := time.After(p.patience)
		for i := 0; ; i++ {
			if err := p.write(text[i%len(text) : i%len(text)+1]); err != nil && p.ctx.Err() == nil {
				return errOver
			} else if err != nil {
				return err
			}
			select {
			case <-timer.C:
			case <-patience:
				return errors.New("the client swallows it drop by drop")
			case <-p.ctx.Done():
				return p.ctx.Err()
			}
		}
	}}}
}

// gone says whether an error means that the client closed the connection
// between two lines.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
