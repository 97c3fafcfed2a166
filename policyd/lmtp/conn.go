package lmtp

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/policyd/accept"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport"
)

// conn is the connection that the library sees. What it keeps the library from:
//
//   - reading on with one deadline for a whole message: each read of the socket
//     has its own, so that a slow and steady client is served;
//   - taking the end of the stream for the end of a BDAT chunk, and a message
//     that was cut off for a whole one: the end of the stream is an error;
//   - lines without bound, which the library can only have in message bodies
//     too, and errors without bound;
//   - having read on into what is not a command (framing.go);
//   - reading a message by DATA one byte at a time (body.go);
//   - a write for each line of a reply, a control character in one, and a
//     refusal for good of a parameter that it does not know (replies.go);
//   - running on while the transfer of a BDAT is only about to begin, and
//     beginning another one after one that was broken off: it does not look
//     out for the first itself.
//
// The library reads and writes from one goroutine, and begins transfers in
// another. What both touch, and stop and cut, is guarded by mu.
type conn struct {
	net.Conn
	log        *slog.Logger
	peer       transport.Peer
	deliveries context.Context
	done       chan struct{} // closed with the connection

	framing
	buf  []byte
	r, w int    // what was read and not taken is buf[r:w]
	tail string // what the library is to read before all else
	err  error  // why there is nothing more to read; sticky
	// closed when the transfer that BDAT asked for begins
	begins      chan struct{}
	refused     int  // commands in a row
	results     bool // the replies to come are about recipients
	unconfirmed []unconfirmed

	mu       sync.Mutex
	transfer bool  // a message is coming in or being delivered
	waiting  bool  // the next command is waited for, with no transfer
	stopping bool  // no more messages
	cutOff   error // why there are no more bytes
	leaving  bool  // all is said, and only the client's end is waited for
	out      []byte
	partial  bool  // out ends within a line
	failed   error // of writing; sticky
	said     bool  // goodbye
	closing  sync.Once
}

// bufferSize is how much is read at once.
const bufferSize = 16 << 10

func newConn(c net.Conn, log *slog.Logger) *conn {
	k := &conn{Conn: c, log: log, peer: accept.Peer(c), done: make(chan struct{}), buf: make([]byte, bufferSize)}
	if k.peer != (transport.Peer{}) {
		k.log = log.With("uid", k.peer.UID, "pid", k.peer.PID)
	}
	return k
}

// The reasons for which a connection is read no more, beside those of the
// socket.
var (
	errStopping = errors.New("mxpolicyd is stopping")
	errStalled  = errors.New("waited too long")
	errErrors   = errors.New("too many errors")
	errBroken   = errors.New("a message was given up")
)

// ours reports whether an error is one of these.
func ours(err error) bool {
	for _, e := range []error{errStopping, errStalled, intake.ErrStalled, intake.ErrSlow, errErrors, errBroken, errNested, errLongLine, errHugeChunk} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Read gives the library what it may have. Its error is net.ErrClosed, on which
// the library leaves without a word; we have said goodbye by then.
func (c *conn) Read(p []byte) (int, error) {
	select {
	case <-c.done:
		// whatever is left: the library has no session any more
		return 0, net.ErrClosed
	default:
	}
	if len(c.tail) == 0 {
		if err := c.more(); err != nil {
			return 0, err
		}
		n := copy(p[:min(int64(len(p)), c.free)], c.buf[c.r:c.w])
		c.take(n)
		return n, nil
	}
	n := copy(p, c.tail)
	c.tail = c.tail[n:]
	return n, nil
}

// take counts bytes that somebody has read.
func (c *conn) take(n int) {
	c.r += n
	c.free -= int64(n)
}

// more waits until there are bytes that may be read.
func (c *conn) more() error {
	for c.free == 0 || c.r == c.w {
		err := c.err
		if err == nil && c.refused > maxErrors {
			err = errErrors
		}
		if err == nil && c.free == 0 {
			var command bool
			if command, err = c.look(c.buf[c.r:c.w]); command {
				c.command()
			}
			if c.free > 0 {
				continue
			}
		}
		if err == nil {
			err = c.fill()
		}
		if err != nil {
			c.err = err
			c.finishBDAT()
			c.goodbye(err)
			return net.ErrClosed
		}
	}
	return nil
}

// command notes what follows from a command that the library will read next.
func (c *conn) command() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.results = false
	if c.chunk && !c.transfer {
		c.begins = make(chan struct{})
	}
}

// finishBDAT waits until a transfer has begun that the library is about to
// begin.
func (c *conn) finishBDAT() {
	if c.begins != nil {
		<-c.begins
		c.begins = nil
	}
}

// fill reads from the socket, having sent what the client waits for.
func (c *conn) fill() error {
	if err := c.flush(); err != nil {
		return err
	}
	if c.r == c.w {
		c.r, c.w = 0, 0
	} else if c.r > 0 {
		c.w = copy(c.buf, c.buf[c.r:c.w])
		c.r = 0
	}
	if err := c.await(); err != nil {
		return err
	}
	n, err := c.Conn.Read(c.buf[c.w:])
	c.w += n
	if n > 0 {
		c.checkRead()
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	case c.cutOff != nil:
		return c.cutOff
	case c.stopping && c.waiting:
		return errStopping
	}
	if !c.waiting {
		return intake.ErrStalled
	}
	return errStalled
}

// await sets the deadline for one read.
func (c *conn) await() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting = !c.transfer && !c.data && c.free == 0
	switch {
	case c.cutOff != nil:
		return c.cutOff
	case c.stopping && c.waiting:
		return errStopping
	}
	if !c.waiting {
		return c.SetReadDeadline(time.Now().Add(intake.UploadStall))
	}
	return c.SetReadDeadline(time.Now().Add(stall))
}

// past is a deadline that is over.
var past = time.Unix(1, 0)

// stop has the connection end when no message is under way any more.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.waiting && !c.leaving {
		c.SetReadDeadline(past)
	}
}

// cut has reads fail from now on, the one under way included.
func (c *conn) cut(why error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutOff = why
	if !c.leaving {
		c.SetReadDeadline(past)
	}
}

// begin is called when a transfer begins, end when it is over.
func (c *conn) begin() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transfer, c.waiting, c.results = true, false, true
	if c.begins != nil {
		close(c.begins)
	}
}

func (c *conn) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.transfer = false
}

// watch reads ahead while a message is delivered, and calls gone when the
// client goes. The function that it gives ends this, and waits for it to end.
func (c *conn) watch(gone func()) (end func()) {
	c.flush() // an error comes back at the next one
	if c.r == c.w {
		c.r, c.w = 0, 0
	}
	c.mu.Lock()
	if c.cutOff == nil {
		c.SetReadDeadline(time.Time{})
	}
	c.mu.Unlock()
	over := make(chan struct{})
	go func() {
		defer close(over)
		for c.w < len(c.buf) {
			n, err := c.Conn.Read(c.buf[c.w:])
			c.w += n
			switch {
			case err == nil:
			case errors.Is(err, os.ErrDeadlineExceeded):
				return
			default:
				c.err = err
				gone()
				return
			}
		}
	}()
	return func() {
		c.SetReadDeadline(past)
		<-over
	}
}

// Close ends the connection.
func (c *conn) Close() error {
	c.closing.Do(func() {
		c.flush()
		c.linger()
		c.Conn.Close()
		close(c.done)
	})
	return nil
}
