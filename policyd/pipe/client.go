package pipe

import (
	"net"
	"sync"
	"time"

	"github.com/mxpipe/mxpipe/internal/wire"
	"github.com/mxpipe/mxpipe/policyd/intake"
	"github.com/mxpipe/mxpipe/transport/status"
)

// client is a connection that is read as long as the other side goes on
// sending, and no longer than we want to hear it.
type client struct {
	net.Conn
	mu    sync.Mutex
	ended bool
}

// Read waits for the next bytes, for a minute at most.
func (c *client) Read(p []byte) (int, error) {
	c.until(time.Now().Add(intake.UploadStall))
	return c.Conn.Read(p)
}

// silence waits, as long as until says, for the other side to do something. The
// error is io.EOF when it closed the connection having read all that was
// written to it, one of os.ErrDeadlineExceeded when we stopped listening, and
// nil when it said something.
func (c *client) silence() error {
	_, err := c.Conn.Read(make([]byte, 1))
	return err
}

// until bounds the reads from now on, the one under way included.
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

// answer writes the answer. An error means that nothing will read it.
func (c *client) answer(code status.Code, text string) error {
	c.SetWriteDeadline(time.Now().Add(answerTime))
	_, err := c.Write(wire.AppendAnswer(nil, wire.Answer{Code: code.String(), Text: text}))
	return err
}
