package lmtp

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mxpipe/mxpipe/policyd/intake"
)

// unconfirmed is a delivery of whose success the client may not know yet. It
// knows when it has taken the replies out of the socket. A client that was
// killed before that will have its mail server try again.
type unconfirmed struct {
	*intake.Delivery
	log *slog.Logger
}

// writeDown gives up that the client will know: who has the message is written
// down.
func (d unconfirmed) writeDown(why error) {
	d.Remember()
	d.End()
	d.log.Info("the mail server did not wait for the answer", "error", why)
}

// checkRead settles what is unconfirmed when the client has read everything.
func (c *conn) checkRead() {
	if len(c.unconfirmed) == 0 {
		return
	}
	c.mu.Lock()
	sent := len(c.out) == 0 && c.failed == nil
	c.mu.Unlock()
	if sent && allRead(c.Conn) {
		c.confirmed()
	}
}

func (c *conn) confirmed() {
	for _, d := range c.unconfirmed {
		d.Forget()
	}
	c.unconfirmed = nil
}

// linger waits, at the connection's end, until the client has read its replies.
// When it does not, who has the message is written down.
func (c *conn) linger() {
	if c.checkRead(); len(c.unconfirmed) == 0 {
		return
	}
	err := c.parting()
	if err == nil {
		c.confirmed()
		return
	}
	for _, d := range c.unconfirmed {
		d.writeDown(err)
	}
	c.unconfirmed = nil
}

var errUnread = errors.New("it was not read in time")

// parting waits for the client to go, and tells whether it has read everything:
// of one that has not, the kernel says ECONNRESET.
func (c *conn) parting() error {
	c.mu.Lock()
	err := c.failed
	c.mu.Unlock()
	switch {
	case err != nil:
		return err
	case c.err != nil && !errors.Is(c.err, io.EOF) && !ours(c.err):
		return c.err
	}
	if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // for a client that waits for us to go
	}
	c.mu.Lock()
	c.leaving = true
	c.SetReadDeadline(time.Now().Add(answerTime))
	c.mu.Unlock()
	_, err = io.Copy(io.Discard, c.Conn)
	switch unread, open := state(c.Conn); {
	case unread == 0 && (open || err == nil):
		return nil
	case err == nil, errors.Is(err, os.ErrDeadlineExceeded):
		return errUnread
	}
	return err
}

// allRead reports whether the other side is there and has read all that was
// written to it.
func allRead(conn net.Conn) bool {
	unread, open := state(conn)
	return unread == 0 && open
}

// state gives how many bytes that were written the other side has not read
// (unix(7), SIOCOUTQ), and whether it was there then: when it is not, they are
// gone too. Of a connection that is no unix socket's, what was written was
// read.
func state(conn net.Conn) (unread int, open bool) {
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, true
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return 0, false
	}
	raw.Control(func(fd uintptr) {
		if unread, err = unix.IoctlGetInt(int(fd), unix.SIOCOUTQ); err != nil {
			return
		}
		// In this order: who is there now was there before.
		hungUp := []unix.PollFd{{Fd: int32(fd)}}
		_, err = unix.Poll(hungUp, 0)
		open = err == nil && hungUp[0].Revents&unix.POLLHUP == 0
	})
	return unread, open
}
