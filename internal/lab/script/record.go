package script

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/mxpipe/mxpipe/internal/lab/script/smtpconn"
)

// Message is one body that the client sent, with the commands that went before
// it.
type Message struct {
	Conn     int      // number of the connection, from 1
	Envelope []string // the commands from MAIL to DATA or the last BDAT
	Chunked  bool     // sent by BDAT
	// as sent: with transparency dots and the final dot; the chunks' contents
	// for BDAT
	Wire    []byte
	Text    []byte // the message itself
	Flights int    // flights of the connection so far
}

// Conversation is what happened on one connection.
type Conversation struct {
	Number   int    // from 1, in the order of arrival
	Remote   string // the client's address
	Done     bool   // it has ended
	Err      error  // the first step that did not go as written, or nil
	Commands []string
	Messages []Message
	Marks    []string // passed so far
	// nil in plaintext; ServerName is the client's SNI
	TLS      *tls.ConnectionState
	TLSError error // why a handshake failed that was to fail
	Flights  int
	smtpconn.Record
}

// player plays a script on one connection. The fields told, and nothing else,
// are read by other goroutines; they are changed only inside update.
type player struct {
	conn     *smtpconn.Conn
	script   Script
	ctx      context.Context
	configs  map[string]*tls.Config
	patience time.Duration
	gate     func(string) <-chan struct{}
	update   func(func())
	told     Conversation

	ahead    *string // a line that Allow has read and not taken
	chunks   []byte
	envelope []string
}

func (p *player) run() {
	defer p.conn.Close()
	var err error
	for i, step := range p.script {
		if err = step.play(p); err != nil && err != errOver {
			err = fmt.Errorf("connection %d, step %d (%s): %w", p.told.Number, i+1, step, err)
		}
		if err != nil {
			break
		}
	}
	if errors.Is(err, errOver) {
		err = nil
	} else if err == nil {
		p.conn.Bye()
	}
	p.update(func() { p.told.Done, p.told.Err = true, err })
}

func (p *player) write(text string) error {
	_, err := p.conn.Write([]byte(text))
	return err
}

// line returns the next line without its CRLF.
func (p *player) line() (string, error) {
	if p.ahead != nil {
		line := *p.ahead
		p.ahead = nil
		return line, nil
	}
	raw, err := p.conn.ReadLine(maxLine)
	if err != nil {
		if len(raw) > 0 {
			err = fmt.Errorf("after %.100q: %w", raw, err)
		}
		return "", err
	}
	line, ok := strings.CutSuffix(string(raw), "\r\n")
	if !ok {
		return "", fmt.Errorf("a line that ends in a bare LF: %.100q", raw)
	}
	return line, nil
}

// took notes a command.
func (p *player) took(line string) {
	if len(line) >= 5 && strings.EqualFold(line[:5], "MAIL ") {
		p.envelope = nil
	}
	p.envelope = append(p.envelope, line)
	p.update(func() { p.told.Commands = append(p.told.Commands, line) })
}

func (p *player) message(m Message) {
	m.Conn, m.Envelope, m.Flights = p.told.Number, slices.Clone(p.envelope), p.conn.Flights()
	p.update(func() { p.told.Messages = append(p.told.Messages, m) })
}

func (p *player) failed(err error) {
	p.update(func() { p.told.TLSError = err })
}

// snapshot returns what is known by now; the server's lock must be held.
func (p *player) snapshot() Conversation {
	c := p.told
	c.Commands, c.Messages, c.Marks = slices.Clone(c.Commands), slices.Clone(c.Messages), slices.Clone(c.Marks)
	c.TLS, c.Flights, c.Record = p.conn.State(), p.conn.Flights(), p.conn.Record()
	return c
}

// Connections returns how many connections were opened so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.players)
}

// Conversations returns what is known of all connections by now.
func (s *Server) Conversations() []Conversation {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Conversation
	for _, p := range s.players {
		all = append(all, p.snapshot())
	}
	return all
}

// Err returns the first deviation from a script on any connection, or nil.
func (s *Server) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.players {
		if p.told.Err != nil {
			return p.told.Err
		}
	}
	return nil
}

// waitOpen waits until the n-th connection, counted from 1, was accepted.
func (s *Server) waitOpen(ctx context.Context, n int) error {
	return s.await(ctx, func() bool { return len(s.players) >= n })
}

// Wait waits until the conversation on the n-th connection has ended and
// returns it. Its deviation, if there was one, is in Conversation.Err; the
// error is that of ctx, or ErrClosed.
func (s *Server) Wait(ctx context.Context, n int) (Conversation, error) {
	var c Conversation
	err := s.await(ctx, func() bool {
		if n < 1 || len(s.players) < n || !s.players[n-1].told.Done {
			return false
		}
		c = s.players[n-1].snapshot()
		return true
	})
	return c, err
}

// WaitMark waits until a script has passed its step MARK with this name, on any
// connection.
func (s *Server) WaitMark(ctx context.Context, name string) error {
	return s.await(ctx, func() bool {
		return slices.ContainsFunc(s.players, func(p *player) bool { return slices.Contains(p.told.Marks, name) })
	})
}

// WaitMessages waits until n bodies have arrived over all connections and
// returns them, by connection.
func (s *Server) WaitMessages(ctx context.Context, n int) ([]Message, error) {
	var all []Message
	err := s.await(ctx, func() bool {
		all = nil
		for _, p := range s.players {
			all = append(all, p.told.Messages...)
		}
		return len(all) >= n
	})
	return all, err
}
