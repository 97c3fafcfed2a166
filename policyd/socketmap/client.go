package socketmap

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// idle is how long the next request may take to come, all of it. Postfix
	// closes what it did not use for 10 s.
	idle = time.Minute
	// replyTime is how long the client may take to read.
	replyTime = 10 * time.Second
	// replyStep is how much less than that it may be.
	replyStep = time.Second
)

// client is a connection whose waits are bounded. The kernel's timers are moved
// now and then, not for each of a hundred thousand requests a second: a read
// whose time-out comes too early is begun again.
type client struct {
	net.Conn
	written time.Time // when the time for writes was last set

	mu    sync.Mutex
	ended bool
	since time.Time // when the wait for a request began
	moved time.Time // when the time for reads was last set
}

// await bounds the wait for the next request.
func (c *client) await() {
	now := time.Now()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.since = now
	if !c.ended && now.Sub(c.moved) > idle/2 {
		c.moved = now
		c.SetReadDeadline(now.Add(idle))
	}
}

// end has reads fail from now on; what has come already is answered.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.SetReadDeadline(time.Unix(1, 0))
}

// goOn moves the time for reads to where the wait ends, and reports whether
// that is still to come.
func (c *client) goOn() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if end := c.since.Add(idle); !c.ended && time.Now().Before(end) {
		c.moved = c.since
		c.SetReadDeadline(end)
		return true
	}
	return false
}

// Read waits for a request, for the time that await began.
func (c *client) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !c.goOn() {
			return n, err
		}
	}
}

// Write waits for the other side to read.
func (c *client) Write(p []byte) (int, error) {
	if now := time.Now(); now.Sub(c.written) > replyStep {
		c.written = now
		c.SetWriteDeadline(now.Add(replyTime))
	}
	return c.Conn.Write(p)
}
