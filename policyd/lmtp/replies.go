package lmtp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/mxpipe/mxpipe/policyd/intake"
)

// maxOut is how much of replies is gathered before it is sent.
const maxOut = 32 << 10

// Write takes a line of a reply from the library. It is sent when the client's
// next bytes are waited for.
func (c *conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	begins := !c.partial
	c.mu.Unlock()
	line := p
	if begins {
		line = c.judge(p)
	}
	c.mu.Lock()
	if c.failed != nil || c.said {
		c.mu.Unlock()
		return 0, net.ErrClosed
	}
	c.partial = len(p) > 0 && p[len(p)-1] != '\n'
	c.out = appendClean(c.out, line)
	full := len(c.out) > maxOut
	c.mu.Unlock()
	if full {
		c.flush()
	}
	return len(p), nil
}

// appendClean appends a line without control characters but its CRLF.
func appendClean(out, line []byte) []byte {
	for i, o := range line {
		if (o < ' ' || o == 0x7f) && (i < len(line)-2 || o != '\r' && o != '\n') {
			o = '?'
		}
		out = append(out, o)
	}
	return out
}

// judge looks at the beginning of a reply's line, and gives what is said
// instead.
func (c *conn) judge(line []byte) []byte {
	if len(line) < 4 {
		return line
	}
	c.mu.Lock()
	results := c.results
	c.mu.Unlock()
	switch refusal := line[0] == '5'; {
	case refusal && c.begins != nil && !results:
		c.begins = nil // no transfer will begin
	default:
		c.finishBDAT()
	}
	switch {
	case bytes.HasPrefix(line, failure):
		return append([]byte("451 4.3.0 "), line[len(failure):]...)
	case results:
		c.refused = 0
	case string(line[:3]) == "354":
		c.data = true
	case line[0] == '5':
		c.refused++
		return c.toTemporary(line)
	}
	return line
}

// failure begins the library's reply for an error that is no reply, such as the
// end of the connection in the middle of a chunk: never a reason to bounce. No
// result of a delivery has both of its codes.
var failure = []byte("554 5.0.0 ")

// toTemporary makes a refusal temporary whose reason is a parameter of MAIL or
// RCPT: the mail server has had it from somebody who understood it, and the
// message must not bounce because the library does not. Such a one is an ORCPT
// of a type other than rfc822 and utf-8.
func (c *conn) toTemporary(line []byte) []byte {
	const parameters = " 5.5.4 "
	if c.verb != "MAIL" && c.verb != "RCPT" || len(line) < 3+len(parameters) || string(line[3:3+len(parameters)]) != parameters {
		return line
	}
	return append([]byte("451 4.5.4 "), line[3+len(parameters):]...)
}

// flush sends the replies that were gathered. An error means that the client
// does not read them.
func (c *conn) flush() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.failed == nil && len(c.out) > 0 {
		c.SetWriteDeadline(time.Now().Add(answerTime))
		_, c.failed = c.Conn.Write(c.out)
	}
	c.out = c.out[:0]
	return c.failed
}

// goodbye says why the connection ends, to a client that may still be there.
func (c *conn) goodbye(err error) {
	c.checkRead()
	var text string
	switch {
	case errors.Is(err, errStopping):
		text = "421 4.3.2 mxpolicyd is stopping"
	case errors.Is(err, errStalled):
		text = fmt.Sprintf("421 4.4.2 idle for more than %v", stall)
	case errors.Is(err, intake.ErrStalled), errors.Is(err, intake.ErrSlow):
		text = "421 4.3.2 " + err.Error()
	case errors.Is(err, errHugeChunk):
		text = "552 5.3.4 the message is larger than mxpolicyd can handle"
	case errors.Is(err, errErrors):
		text = "421 4.5.0 too many bad commands"
	case errors.Is(err, errBroken):
		text = "421 4.3.0 a message was abandoned: reconnect"
	case errors.Is(err, errLongLine):
		text = fmt.Sprintf("421 4.5.2 command line longer than %d bytes", maxLine)
	case errors.Is(err, errNested):
		c.flush() // the reply to MAIL
		return
	case errors.Is(err, io.EOF), errors.Is(err, net.ErrClosed):
		return
	default:
		c.log.Debug("LMTP connection lost", "error", err)
		return
	}
	c.flush()
	c.mu.Lock()
	said := c.said
	c.said = true
	c.mu.Unlock()
	if said {
		return
	}
	switch {
	case errors.Is(err, errStopping), errors.Is(err, errBroken):
	case errors.Is(err, errStalled):
		c.log.Info("LMTP connection closed", "said", text)
	default:
		c.log.Info("LMTP connection closed", "said", text)
	}
	// Whether this is read does not matter, unlike the replies before it.
	c.SetWriteDeadline(time.Now().Add(answerTime))
	c.Conn.Write([]byte(text + "\r\n"))
}
