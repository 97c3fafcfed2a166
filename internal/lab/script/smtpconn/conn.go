// Package smtpconn is one SMTP connection as a lab server sees it. It reads
// lines and bodies, turns TLS on in the middle, keeps what arrived (as it was
// on the wire, and after decryption), and counts flights.
//
// A flight is a burst from the client between two writes of the server: the
// number of round trips that a client pays for (RFC 2920 §1). The count is
// exact when a server answers only after it has taken in all that the client
// has sent. A burst larger than one TLS record or one segment may still be
// under way when the server runs out of input; a server that must not count
// such a burst twice calls Settle before it answers.
//
// Each read and each write has a deadline. What is kept has a bound. One
// goroutine reads and writes; Close, Record, Flights and State may be called
// from any.
package smtpconn

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// bufferSize is what one read can take in; a flight of commands larger than
// this may be counted twice.
const bufferSize = 64 << 10

// ErrLongLine reports a line over the limit that ReadLine was given. The rest
// of the line is still unread; the caller should close the connection.
var ErrLongLine = errors.New("line too long")

// Options say how long a Conn waits and how much it keeps.
type Options struct {
	Timeout time.Duration // for each read and write; 0: one minute
	// bytes kept of the raw stream, and as many of the clear one; 0: nothing is
	// kept
	Record int
}

// Record is what a Conn has kept.
type Record struct {
	// bytes from the client as they were on the wire, TLS records included
	Raw []byte
	// the same stream as SMTP saw it, without the TLS handshake and decrypted
	Clear []byte
}

// Conn is one connection of a lab server.
type Conn struct {
	opts Options
	raw  *tap
	cur  net.Conn // raw, or TLS over it
	br   *bufio.Reader

	mu      sync.Mutex
	record  Record
	flights int
	answers bool // something was written since the last byte came
	patient time.Duration
	state   *tls.ConnectionState
}

// New wraps a connection that was just accepted.
func New(conn net.Conn, opts Options) *Conn {
	if opts.Timeout <= 0 {
		opts.Timeout = time.Minute
	}
	c := &Conn{opts: opts, answers: true}
	c.raw = &tap{Conn: conn, c: c}
	c.cur = c.raw
	c.br = bufio.NewReaderSize((*counter)(c), bufferSize)
	return c
}

// tap sits under TLS and keeps the raw bytes.
type tap struct {
	net.Conn
	c      *Conn
	before []byte // read ahead by SMTP, owed to TLS
	held   []byte // written, and kept back
	hold   bool
}

// Write implements net.Conn.
func (t *tap) Write(p []byte) (int, error) {
	if t.hold {
		t.held = append(t.held, p...)
		return len(p), nil
	}
	return t.Conn.Write(p)
}

func (t *tap) Read(p []byte) (int, error) {
	if len(t.before) > 0 {
		n := copy(p, t.before)
		t.before = t.before[n:]
		return n, nil
	}
	n, err := t.Conn.Read(p)
	t.c.mu.Lock()
	t.c.record.Raw = keep(t.c.record.Raw, p[:n], t.c.opts.Record)
	t.c.mu.Unlock()
	return n, err
}

// counter sits above TLS; it counts flights and keeps the clear bytes.
type counter Conn

func (r *counter) Read(p []byte) (int, error) {
	c := (*Conn)(r)
	c.mu.Lock()
	wait := c.opts.Timeout
	if c.patient > 0 {
		wait = c.patient
	}
	c.mu.Unlock()
	if err := c.cur.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return 0, err
	}
	n, err := c.cur.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	if n > 0 && c.answers {
		c.flights++
		c.answers = false
	}
	c.record.Clear = keep(c.record.Clear, p[:n], c.opts.Record)
	return n, err
}

func keep(old, p []byte, limit int) []byte {
	if room := limit - len(old); len(p) > room {
		p = p[:max(room, 0)]
	}
	return append(old, p...)
}

// Write sends p and marks the end of the client's flight.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.answers = true
	c.mu.Unlock()
	if err := c.cur.SetWriteDeadline(time.Now().Add(c.opts.Timeout)); err != nil {
		return 0, err
	}
	return c.cur.Write(p)
}

// WriteTogether sends each part as Write does, in a TLS record of its own where
// there is TLS, but all of them at once.
func (c *Conn) WriteTogether(parts ...string) error {
	c.raw.hold = true
	for _, part := range parts {
		if _, err := c.Write([]byte(part)); err != nil {
			return err
		}
	}
	held := c.raw.held
	c.raw.hold, c.raw.held = false, nil
	_, err := c.raw.Conn.Write(held)
	return err
}

// ReadLine reads one line and returns it with its line end: CRLF, or the bare
// LF that some clients send. The slice is the caller's. It returns ErrLongLine
// when limit bytes hold no LF, and io.ErrUnexpectedEOF when the client went
// away in the middle of the line.
func (c *Conn) ReadLine(limit int) ([]byte, error) {
	var line []byte
	for {
		part, err := c.br.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case len(line) > limit:
			return line, ErrLongLine
		case err == nil:
			return line, nil
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF) && len(line) > 0:
			return line, io.ErrUnexpectedEOF
		default:
			return line, err
		}
	}
}

// ReadFull fills p, or fails as io.ReadFull does.
func (c *Conn) ReadFull(p []byte) error {
	_, err := io.ReadFull(c.br, p)
	return err
}

// Next waits until something has come and returns what is buffered. The slice
// is valid until the next read; Skip says how much of it was used.
func (c *Conn) Next() ([]byte, error) {
	if c.br.Buffered() == 0 {
		if _, err := c.br.Peek(1); err != nil {
			return nil, err
		}
	}
	return c.br.Peek(c.br.Buffered())
}

// Skip takes n buffered bytes off the stream.
func (c *Conn) Skip(n int) error {
	_, err := c.br.Discard(n)
	return err
}

// Buffered returns how many bytes have been read from the client and not yet
// taken.
func (c *Conn) Buffered() int { return c.br.Buffered() }

// Settle takes in what the client still sends until it has been silent for
// quiet, or until the buffer is full. When the client has closed the connection
// it returns io.EOF or another error; what is buffered can still be read.
func (c *Conn) Settle(quiet time.Duration) error {
	c.setPatience(quiet)
	defer c.setPatience(0)
	for {
		_, err := c.br.Peek(c.br.Buffered() + 1)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, bufio.ErrBufferFull):
			return nil
		default:
			return err
		}
	}
}

func (c *Conn) setPatience(d time.Duration) {
	c.mu.Lock()
	c.patient = d
	c.mu.Unlock()
}

// StartTLS shakes hands as the server. Bytes that were read ahead are given to
// TLS, where anything but a ClientHello fails. After an error the connection is
// only good for closing.
func (c *Conn) StartTLS(ctx context.Context, config *tls.Config) error {
	ahead, err := c.br.Peek(c.br.Buffered())
	if err != nil {
		return err
	}
	c.raw.before = append([]byte(nil), ahead...)
	ctx, cancel := context.WithTimeout(ctx, c.opts.Timeout)
	defer cancel()
	if err := c.raw.SetDeadline(time.Time{}); err != nil {
		return err
	}
	conn := tls.Server(c.raw, config)
	if err := conn.HandshakeContext(ctx); err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	state := conn.ConnectionState()
	c.mu.Lock()
	c.state = &state
	c.mu.Unlock()
	c.cur = conn
	c.br.Reset((*counter)(c))
	return nil
}

// State returns the TLS state, or nil while the connection is in plaintext.
func (c *Conn) State() *tls.ConnectionState {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state
}

// Flights returns how many flights the client has sent so far, at the level of
// SMTP: the TLS handshake is none.
func (c *Conn) Flights() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flights
}

// Record returns a copy of what was kept so far.
func (c *Conn) Record() Record {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Record{
		Raw:   append([]byte(nil), c.record.Raw...),
		Clear: append([]byte(nil), c.record.Clear...),
	}
}

// Bye ends the connection in good order: TLS says close_notify first.
func (c *Conn) Bye() error { return c.cur.Close() }

// Close drops the connection without a word, as a crashed server does. It may
// be called at any time and more than once.
func (c *Conn) Close() error { return c.raw.Conn.Close() }

// Reset drops the connection with a TCP reset.
func (c *Conn) Reset() error {
	if tcp, ok := c.raw.Conn.(*net.TCPConn); ok {
		if err := tcp.SetLinger(0); err != nil {
			return err
		}
	}
	return c.Close()
}
