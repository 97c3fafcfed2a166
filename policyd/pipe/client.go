package pipe

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// client is a connection that is read as long as the other side goes on
// sending, and no longer than we want to hear it.
type client struct {
	net.Conn
	mu    sync.Mutex
	ended bool
}

// Read waits for the next bytes, for the stall time at most.
func (c *client) Read(p []byte) (int, error) {
	c.until(time.Now().Add(stall))
	return c.Conn.Read(p)
}

// quiet waits until end, and reports whether the other side neither went away
// nor said anything by then.
func (c *client) quiet() bool {
	c.until(time.Time{})
	_, err := c.Conn.Read(make([]byte, 1))
	return errors.Is(err, os.ErrDeadlineExceeded)
}

func (c *client) until(t time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		c.Conn.SetReadDeadline(t)
	}
}

// end has reads fail from now on, the one under way included.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}
